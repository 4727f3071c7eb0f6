"""Digits placed on larger grounds, exactly where the draws say."""

import pytest
import torch

from lightning_gen.datamodules import ClutteredDigitsDataModule
from lightning_gen.datamodules.cluttered_digits import ClutteredDigits, place
from lightning_gen.datamodules.digits import read_digits
from lightning_gen.errors import DataError


def test_pieces_are_whole_and_everywhere() -> None:
    """A piece of one bright pixel: every place is taken, corners too, and it never leaves the ground."""
    torch.manual_seed(0)
    pieces = torch.zeros(2000, 1, 3, 2, dtype=torch.uint8)
    pieces[:, :, 0, 1] = 200
    grounds = place(pieces, 6)
    assert grounds.shape == (2000, 1, 6, 6)
    assert (grounds.flatten(1).sum(1) == 200).all()
    taken = (grounds > 0).any(0)[0]
    assert taken[:4, 1:].all()
    assert not taken[4:].any()
    assert not taken[:, 0].any()


def test_intensities_add_up_to_white_at_most() -> None:
    pieces = torch.tensor([100, 90, 80]).byte().view(1, 3, 1, 1).expand(2, 3, 4, 4)
    assert (place(pieces, 4) == 255).all()
    assert (place(pieces[:, :2], 4) == 190).all()


def test_one_digit_of_its_label_lies_in_each_square() -> None:
    digits, labels = read_digits()
    data = ClutteredDigits(digits, labels, image_size=40, num_digits=1, num_fragments=0, fragment_size=8)
    batch = data.draw(torch.tensor([7, 4000]))
    for image, label, row in zip(batch["image"], batch["label"], (7, 4000), strict=True):
        assert label == labels[row]
        windows = image[0].unfold(0, 28, 1).unfold(1, 28, 1)  # Every place where it may lie.
        assert (windows == digits[row, 0]).all(-1).all(-1).sum() == 1


def test_fragments_are_cut_out_of_digits() -> None:
    torch.manual_seed(1)
    digits, labels = read_digits()
    digits = digits[::500]
    data = ClutteredDigits(digits, labels[::500], image_size=100, num_digits=1, num_fragments=3, fragment_size=8)
    pieces = digits[:, 0].unfold(1, 8, 1).unfold(2, 8, 1).reshape(-1, 64)
    found = data.fragments(5, None)
    assert found.shape == (5, 3, 8, 8)
    for fragment in found.view(-1, 64):
        assert (pieces == fragment).all(1).any()


def test_held_out_images_are_drawn_once_and_training_ones_anew() -> None:
    first, second = ClutteredDigitsDataModule(), ClutteredDigitsDataModule()
    first.setup()
    second.setup()
    rows = [0, 5, 9]
    for split in ("val", "test"):
        batch = first.datasets[split].__getitems__(rows)
        torch.testing.assert_close(batch, second.datasets[split].__getitems__(rows), rtol=0, atol=0)
        assert batch["image"].shape == (3, 1, 100, 100)
    train = first.datasets["train"]
    assert len(train) == 4000
    assert not torch.equal(train.__getitems__(rows)["image"], train.__getitems__(rows)["image"])
    torch.testing.assert_close(train.__getitems__(rows)["label"], first.digits.datasets["train"].columns["label"][rows])
    assert first.draws
    assert first.num_classes == 10


def test_two_digits_have_no_label() -> None:
    data = ClutteredDigitsDataModule(image_size=60, num_digits=2, num_fragments=0)
    batch = next(iter(data.train_dataloader()))
    assert list(batch) == ["image"]
    assert batch["image"].shape == (100, 1, 60, 60)
    single = data.digits.datasets["train"].columns["image"].float().div(255).sum((1, 2, 3)).mean()
    assert batch["image"].sum((1, 2, 3)).mean() > 1.7 * single
    assert data.num_classes == 0


@pytest.mark.parametrize("num_digits", [1, 2])
def test_only_the_digits_asked_for(num_digits: int) -> None:
    data = ClutteredDigitsDataModule(num_digits=num_digits, classes=[3, 5])
    data.setup()
    assert data.digits.datasets["train"].columns["label"].unique().tolist() == [3, 5]
    assert len(data.datasets["train"]) < 1000
    assert data.hparams["classes"] == [3, 5]
    with pytest.raises(DataError, match=r"classes=\[11\] was asked for; .* has the labels 0 to 9"):
        ClutteredDigitsDataModule(num_digits=num_digits, classes=[11]).setup()


@pytest.mark.parametrize("sizes", [{"image_size": 27}, {"fragment_size": 29}])
def test_sizes_out_of_range_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(DataError, match="expected at least 28 pixels"):
        ClutteredDigitsDataModule(**sizes)
