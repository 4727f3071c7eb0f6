"""Digits in boxes: what is said of each image is true of it."""

import pytest
import torch

from lightning_gen.datamodules import PlacedDigitsDataModule
from lightning_gen.datamodules.placed_digits import COLOURS, DIGITS, captions, place_digits
from lightning_gen.errors import DataError
from lightning_gen.functional.placement import ink_box, stroke_keypoints


@pytest.fixture(scope="module")
def data() -> PlacedDigitsDataModule:
    data = PlacedDigitsDataModule(batch_size=100)
    data.setup()
    return data


def test_a_digit_fills_its_box() -> None:
    digits = torch.zeros(3, 28, 28)
    digits[:, 4:24, 10:15] = 1
    boxes = torch.tensor([[0.25, 0.5, 0.5, 0.25], [0.0, 0.0, 1.0, 1.0], [0.75, 0.125, 0.25, 0.75]])
    drawn = place_digits(digits, boxes, 64)
    torch.testing.assert_close(ink_box(drawn, 0.45), boxes, rtol=0, atol=1 / 64 + 1e-6)
    inside = drawn[0, 34:46, 20:44]
    torch.testing.assert_close(inside, torch.ones_like(inside))
    assert drawn[0].sum() < 1.2 * 32 * 16


def test_boxes_and_keypoints_are_those_of_the_images(data: PlacedDigitsDataModule) -> None:
    batch = next(iter(data.val_dataloader()))
    ink = batch["image"].amax(1)
    torch.testing.assert_close(batch["box"], ink_box(ink))
    torch.testing.assert_close(batch["keypoints"], stroke_keypoints(ink))
    left_top, sides = batch["box"].split(2, 1)
    assert (sides > 0).all()
    assert (left_top + sides <= 1).all()
    inside = (batch["keypoints"][..., :2] - left_top[:, None]) / sides[:, None]
    assert ((inside >= 0) & (inside <= 1)).all()
    ends = inside[:, [2, 3, 0, 1], [0, 0, 1, 1]]  # Left and right by x, upper and lower by y.
    assert (ends[:, [0, 2]] < 0.26).all()
    assert (ends[:, [1, 3]] > 0.74).all()


def test_boxes_are_everywhere_and_of_all_sizes(data: PlacedDigitsDataModule) -> None:
    boxes = data.datasets["train"].columns["box"]  # type: ignore[attr-defined]
    free = 1 - boxes[:, 2:]
    share = (boxes[:, :2] / free)[free.amin(1) > 0.2]
    torch.testing.assert_close(share.mean(0), torch.tensor([0.5, 0.5]), rtol=0, atol=0.03)
    assert (share.std(0) > 0.25).all()  # 0.29 for uniform ones.
    assert boxes[:, 2].min() < 0.15
    assert boxes[:, 3].max() > 0.85


def test_captions_say_what_is_there(data: PlacedDigitsDataModule) -> None:
    batch = next(iter(data.test_dataloader()))
    for image, label, texts in zip(batch["image"], batch["label"].tolist(), batch["caption"], strict=True):
        assert len(set(texts)) == 10
        shade = image.flatten(1)[:, image.sum(0).argmax()]
        nearest = min(COLOURS, key=lambda name: (shade - shade.max() * torch.tensor(COLOURS[name])).abs().sum().item())
        assert texts == captions(label, nearest)
        assert all(nearest in text and DIGITS[label] in text for text in texts)


def test_everything_comes_from_the_number_of_an_image(data: PlacedDigitsDataModule) -> None:
    torch.rand(7)
    again = PlacedDigitsDataModule()
    again.setup()
    for split, dataset in data.datasets.items():
        for key, values in dataset.columns.items():  # type: ignore[attr-defined]
            others = again.datasets[split].columns[key]  # type: ignore[attr-defined]
            assert torch.equal(values, others) if isinstance(values, torch.Tensor) else values == others


def test_several_places_for_a_training_digit() -> None:
    data = PlacedDigitsDataModule(num_places=3, classes=[4])
    data.setup()
    assert {split: len(dataset) for split, dataset in data.datasets.items()} == {"train": 1200, "val": 50, "test": 50}  # type: ignore[arg-type]
    batch = data.datasets["train"].__getitems__([0, 1, 2])  # type: ignore[attr-defined]
    assert len(batch["box"].unique(dim=0)) == 3
    assert batch["label"].tolist() == [4, 4, 4]


@pytest.mark.parametrize("arguments", [{"image_size": 8}, {"min_size": 0.9, "max_size": 0.5}])
def test_sizes_that_are_none(arguments: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"expected at least 16 pixels, and sizes from 0\.25 to 1"):
        PlacedDigitsDataModule(**arguments)
