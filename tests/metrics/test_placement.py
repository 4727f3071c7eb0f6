"""Scores of places asked for, on pictures drawn by hand."""

import pytest
import torch

from lightning_gen.errors import DataError
from lightning_gen.functional.placement import stroke_keypoints
from lightning_gen.metrics import BoxIoU, KeypointAccuracy, Samples


def squares() -> torch.Tensor:
    images = torch.zeros(3, 3, 10, 10)
    images[0, 1, 2:6, 2:6] = 0.9  # Green.
    images[1, 0, 0:5, 0:10] = 0.9
    return images  # The third is empty.


def test_overlaps() -> None:
    metric = BoxIoU()
    boxes = torch.tensor([[0.2, 0.2, 0.4, 0.4], [0.0, 0.0, 1.0, 1.0], [0.1, 0.1, 0.5, 0.5]])
    metric.update(Samples(squares()[:2]), {"box": boxes[:2]})
    metric.update(Samples(squares()[2:]), {"box": boxes[2:]})
    metric.update(Samples(torch.rand(5, 3, 10, 10)), None, role="reference")  # Of no use to it.
    assert metric.compute().item() == pytest.approx(0.5)
    assert metric.standard_error == pytest.approx((1 / 6 / 3) ** 0.5)
    assert metric.name == "box_iou"
    metric.reset_generated()
    with pytest.raises(DataError, match="it needs at least 1"):
        metric.compute()


def test_keypoints() -> None:
    images = squares()
    asked = stroke_keypoints(images.amax(1))
    asked[0, 0, 0] += 0.09
    asked[0, 1, 1] -= 0.11
    asked[1, 2] = 0  # Not asked for.
    asked[2] = torch.tensor([0.0, 0.0, 1.0])  # Nothing is drawn.
    metric = KeypointAccuracy()
    metric.update(Samples(images), {"keypoints": asked})
    assert metric.compute().item() == pytest.approx((4 + 4 + 0) / (5 + 4 + 5))
    assert metric.protocol == "keypoints within 10 % of the side"


@pytest.mark.parametrize(("metric", "key"), [(BoxIoU(), "box"), (KeypointAccuracy(), "keypoints")])
def test_missing_places_are_named(metric: BoxIoU | KeypointAccuracy, key: str) -> None:
    with pytest.raises(DataError, match=f"compares samples with the {key} that was asked for, and got none"):
        metric.update(Samples(squares()), {"label": torch.zeros(3)})
    with pytest.raises(DataError, match="finds the five keypoints"):
        KeypointAccuracy().update(Samples(squares()), {"keypoints": torch.zeros(3, 15, 3)})
