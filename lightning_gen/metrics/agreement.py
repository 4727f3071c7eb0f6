"""Whether samples are what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from lightning_gen.arguments import Size, check_arguments
from lightning_gen.errors import DataError
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples

if TYPE_CHECKING:
    from lightning_gen.nn.features import FeatureExtractor


class Agreement(SampleMetric):
    """Share of the samples that the extractor gives the class they were asked for, `batch["label"]`.

    It does not see whether samples of a class differ. Beside it stands the extractor's accuracy on real images.

    Args:
        resolution: side in pixels to which samples are shrunk before they are enlarged again and read, both bilinear
            (Odena et al. 2017, section 4.1): a model whose large images say no more than small ones would lose
            nothing. None reads them as they are.

    Raises:
        DataError: if the samples come without labels, or with one that the extractor does not know.
    """

    short_name = "agreement"
    batch_keys = ("label",)
    higher_is_better = True
    generated: torch.Tensor

    def __init__(self, resolution: Size | None = None) -> None:
        check_arguments(Agreement.__init__, locals())
        super().__init__()
        self.resolution = resolution
        if resolution is not None:
            self.short_name = f"agreement_at_{resolution}"
        # How many there are, and how many are read as what they should be.
        self.add_state("generated", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def bind(self, extractor: FeatureExtractor) -> None:
        super().bind(extractor)
        self._extractor = (extractor,)  # In a tuple it is no part of this module.

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role != "generated":
            return
        logits = self._read(samples if self.resolution is None else self._shrunk(samples, self.resolution), "logits")
        if batch is None or "label" not in batch:
            raise DataError(
                "Agreement compares samples with the labels they were asked for, and got none; leave it out for a "
                "model that is not sampled under labels."
            )
        labels = batch["label"].to(logits.device)
        if labels.shape != logits.shape[:1] or labels.max() >= logits.shape[1]:
            raise DataError(
                f"Agreement got labels of shape {tuple(labels.shape)} up to {labels.max().item()} for {len(logits)} "
                f"samples; the extractor {self.extractor_name!r} knows 0 to {logits.shape[1] - 1}."
            )
        agreeing = (logits.argmax(1) == labels).sum()
        self.generated = self.generated + torch.stack([agreeing.new_tensor(len(labels)), agreeing])

    def _shrunk(self, samples: Samples, resolution: int) -> Samples:
        """Samples at a resolution, enlarged again, with what the extractor sees in them now."""
        images, sides = self._read(samples, "images"), samples.images.shape[2:]
        small = F.interpolate(images, (resolution, resolution), mode="bilinear")
        images = F.interpolate(small, sides, mode="bilinear")
        with torch.no_grad():
            return Samples(images, *self._extractor[0](images))

    def compute(self) -> torch.Tensor:
        number, agreeing = self.generated
        if number < 1:
            raise self._too_few("generated", 0, 1)
        share = agreeing / number
        self.standard_error = (share * (1 - share) / number).sqrt().item()
        at = "" if self.resolution is None else f" at {self.resolution} x {self.resolution} pixels"
        self.protocol = f"read as the class asked for{at}"
        return share
