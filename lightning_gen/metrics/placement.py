"""Whether what is drawn lies where it was asked for."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from lightning_gen.arguments import NonNegative, Share, check_arguments
from lightning_gen.errors import DataError
from lightning_gen.functional.placement import box_iou, ink_box, stroke_keypoints
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples


class PlacementMetric(SampleMetric):
    """Base of scores of places asked for, as means: for bright strokes on a black ground, as digits are."""

    needs_features = False
    higher_is_better = True
    generated: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("generated", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role != "generated":
            return
        ink = self._read(samples, "images").amax(1)  # The brightest channel is the ink, whatever its colour.
        (key,) = self.batch_keys
        if batch is None or key not in batch:
            raise DataError(
                f"{type(self).__name__} compares samples with the {key} that was asked for, and got none; leave it out "
                f"for a model that is not sampled under {key}, or give data with it."
            )
        scores = self._scores(ink, batch[key].to(ink.device)).double()
        sums = [torch.ones_like(scores).sum(), scores.sum(), scores.square().sum()]
        self.generated = self.generated + torch.stack(sums).to(self.generated.device)

    @abstractmethod
    def _scores(self, ink: Tensor, places: Tensor) -> Tensor:
        """One score for each place that was asked for, of ink `(N, H, W)`."""

    def compute(self) -> Tensor:
        number, total, squares = self.generated
        if number < 1:
            raise self._too_few("generated", 0, 1)
        mean = total / number
        self.standard_error = ((squares / number - mean.square()).clamp(min=0) / number).sqrt().item()
        return mean


class BoxIoU(PlacementMetric):
    """Overlap of the box around what is drawn with the one asked for, `batch["box"]`: intersection over union.

    Args:
        threshold: pixels whose brightest channel is above it are drawn.

    Raises:
        DataError: if the samples come without boxes.
    """

    short_name = "box_iou"
    batch_keys = ("box",)

    def __init__(self, threshold: Share = 0.5) -> None:
        check_arguments(BoxIoU.__init__, locals())
        super().__init__()
        self.threshold = threshold
        self.protocol = f"the smallest box around pixels above {threshold:g} and the one asked for"

    def _scores(self, ink: Tensor, places: Tensor) -> Tensor:
        return box_iou(ink_box(ink, self.threshold), places)


class KeypointAccuracy(PlacementMetric):
    """Share of the keypoints asked for, `batch["keypoints"]`, near which what is drawn has its own.

    The five of `stroke_keypoints`; those that are not there are left out.

    Args:
        radius: within which a keypoint is right, in shares of the image's side.
        threshold: pixels whose brightest channel is above it are drawn.

    Raises:
        DataError: if the samples come without these keypoints.
    """

    short_name = "keypoint_accuracy"
    batch_keys = ("keypoints",)

    def __init__(self, radius: NonNegative = 0.1, threshold: Share = 0.5) -> None:
        check_arguments(KeypointAccuracy.__init__, locals())
        super().__init__()
        self.radius = radius
        self.threshold = threshold
        self.protocol = f"keypoints within {100 * radius:g} % of the side"

    def _scores(self, ink: Tensor, places: Tensor) -> Tensor:
        if places.shape[1:] != (5, 3):
            raise DataError(
                f"KeypointAccuracy finds the five keypoints of a stroke, and got {tuple(places.shape)} for "
                f"{len(ink)} samples; leave it out for other data."
            )
        found = stroke_keypoints(ink, self.threshold)
        near = (found[..., :2] - places[..., :2]).norm(dim=2) <= self.radius
        return (near & (found[..., 2] > 0.5))[places[..., 2] > 0.5]
