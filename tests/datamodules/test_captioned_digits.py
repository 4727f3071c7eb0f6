"""Digits with captions: what is said is what is there."""

import pytest
import torch

from lightning_gen.datamodules import CaptionedDigitsDataModule
from lightning_gen.datamodules.captioned_digits import ATTRIBUTES, COLOURS, is_held_out
from lightning_gen.errors import DataError
from lightning_gen.functional.captions import read_digit_caption
from lightning_gen.functional.strokes import stroke_slant, stroke_thickness


@pytest.fixture(scope="module")
def data() -> CaptionedDigitsDataModule:
    data = CaptionedDigitsDataModule()
    data.setup()
    return data


def test_a_caption_says_each_attribute_once(data: CaptionedDigitsDataModule) -> None:
    batch = data.datasets["test"].__getitems__(range(100))
    for values, captions in zip(batch["attributes"].tolist(), batch["caption"], strict=True):
        assert len(set(captions)) == 10
        for caption in captions:
            said = f" {caption.replace(',', ' ').replace(':', ' ')} "
            for (name, words), value in zip(ATTRIBUTES.items(), values, strict=True):
                found = [row for row, synonyms in enumerate(words) if any(f" {word} " in said for word in synonyms)]
                assert found == [value], f"{name} of {caption!r}"
            assert " a e" not in said
            assert " a u" not in said


def test_what_is_drawn_is_what_is_said(data: CaptionedDigitsDataModule) -> None:
    """The colour is that of the brightest pixel; the ink stands where it is said to."""
    batch = data.datasets["train"].__getitems__(range(500))
    images, (digit, _, _, colour, position) = batch["image"], batch["attributes"].unbind(1)
    assert torch.equal(batch["label"], digit)
    ink = images.amax(1)
    brightest = ink.flatten(1).argmax(1)
    pixels = images.flatten(2)[torch.arange(500), :, brightest]
    tints = torch.tensor(list(COLOURS.values()))
    assert torch.equal((pixels[:, None] / pixels.amax(1)[:, None, None] - tints).abs().sum(2).argmin(1), colour)
    centre = (ink.sum(1) * torch.arange(32.0)).sum(1) / ink.sum((1, 2))
    bounds = [(centre[position == place].min(), centre[position == place].max()) for place in range(3)]
    assert bounds[0][1] < bounds[1][1] < bounds[2][1]
    assert centre[position == 0].mean() < 13 < 15 < centre[position == 1].mean() < 18 < centre[position == 2].mean()


def test_combinations_are_kept_for_the_test(data: CaptionedDigitsDataModule) -> None:
    for split in ("train", "val"):
        attributes = data.datasets[split].columns["attributes"]
        assert not is_held_out(attributes[:, 0], attributes[:, 3]).any()
        assert len({tuple(row) for row in attributes[:, [0, 3]].tolist()}) == 50
    columns = data.datasets["test"].columns
    assert 40 < columns["held_out"].sum() < 130
    assert torch.equal(columns["held_out"], is_held_out(columns["attributes"][:, 0], columns["attributes"][:, 3]))
    assert len(data.datasets["train"]) == 4000


def test_digits_are_kept_for_the_test() -> None:
    data = CaptionedDigitsDataModule(zero_shot="digits")
    data.setup()
    assert set(data.datasets["train"].columns["label"].tolist()) == {0, 1, 2, 3, 5, 6, 8, 9}
    test = data.datasets["test"].columns
    assert set(test["label"][test["held_out"]].tolist()) == {4, 7}


def test_it_is_always_the_same(data: CaptionedDigitsDataModule) -> None:
    torch.manual_seed(5)
    again = CaptionedDigitsDataModule()
    again.setup()
    for key, values in data.datasets["val"].columns.items():
        other = again.datasets["val"].columns[key]
        assert torch.equal(values, other) if isinstance(values, torch.Tensor) else values == other


def test_plain_digits_are_the_originals() -> None:
    data = CaptionedDigitsDataModule(plain=True, zero_shot=None)
    data.setup()
    data.digits.setup()
    assert data.image_shape == (1, 28, 28)
    assert data.attribute_names == ("digit", "thickness", "slant")
    batch = data.datasets["val"].__getitems__(range(20))
    assert torch.equal(batch["image"], data.digits.datasets["val"].__getitems__(range(20))["image"])
    assert batch["attributes"].shape == (20, 3)
    assert "red" not in " ".join(caption for row in batch["caption"] for caption in row)


def test_bins_are_thirds_of_the_digits(data: CaptionedDigitsDataModule) -> None:
    attributes = data.datasets["train"].columns["attributes"]
    shares = attributes[:, 1].bincount() / len(attributes)
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.04, rtol=0)
    assert 0.3 < attributes[:, 2].float().mean() < 0.5


def test_measures_of_strokes() -> None:
    """A disc's outline is 2 pi r long and its ink pi r^2: a thickness of r. Shearing a bar by s gives the slant s."""
    places = torch.arange(61.0) - 30
    disc = (places[:, None].square() + places.square() < 20**2).float()[None]
    assert stroke_thickness(disc).item() == pytest.approx(20, rel=0.06)
    up = -places[:, None]
    sheared = ((places - 0.4 * up).abs() < 3).float()[None] * (up.abs() < 20)
    assert stroke_slant(sheared).item() == pytest.approx(0.4, abs=0.02)
    assert stroke_slant(sheared.flip(2)).item() == pytest.approx(-0.4, abs=0.02)
    assert stroke_thickness(torch.zeros(1, 5, 5)).item() == stroke_slant(torch.zeros(1, 5, 5)).item() == 0


def test_bad_arguments() -> None:
    with pytest.raises(DataError, match="image_size is 15"):
        CaptionedDigitsDataModule(image_size=15)
    with pytest.raises(DataError, match="no colours to keep for the test"):
        CaptionedDigitsDataModule(plain=True)


@pytest.fixture(scope="module")
def redrawn() -> CaptionedDigitsDataModule:
    weights = {"digit": 3.0, "thickness": 1.0, "slant": 1.0, "colour": 1.0, "position": 1.0}
    data = CaptionedDigitsDataModule(own_size=True, redraw=True, wrong_attributes=weights)
    data.setup()
    return data


def test_redrawn_digits_are_new_each_time_and_what_is_said(redrawn: CaptionedDigitsDataModule) -> None:
    dataset = redrawn.datasets["train"]
    first, second = dataset.__getitems__(range(300)), dataset.__getitems__(range(300))
    assert torch.equal(first["label"], second["label"])
    assert torch.equal(first["attributes"][:, :3], second["attributes"][:, :3])
    assert (first["attributes"][:, 3:] != second["attributes"][:, 3:]).any(1).float().mean() > 0.8
    for batch in (first, second):
        said = [[read_digit_caption(caption) for caption in captions] for captions in batch["caption"]]
        assert all(set(read) == {tuple(row)} for read, row in zip(said, batch["attributes"].tolist(), strict=True))
        assert not is_held_out(batch["attributes"][:, 0], batch["attributes"][:, 3]).any()
        assert torch.equal(seen_looks(batch["image"]), batch["attributes"][:, 3:])
        height = batch["image"].amax((1, 3)) > 0.3
        assert 18 < height.sum(1).float().mean() < 21  # A digit of MNIST has 20 rows.


def seen_looks(images: torch.Tensor) -> torch.Tensor:
    """Colour and place as the pixels show them, `(N, 2)`."""
    ink = images.amax(1)
    pixels = images.flatten(2)[torch.arange(len(images)), :, ink.flatten(1).argmax(1)]
    tints = torch.tensor(list(COLOURS.values()))
    colour = (pixels[:, None] / pixels.amax(1)[:, None, None] - tints).abs().sum(2).argmin(1)
    centre = (ink.sum(1) * torch.arange(32.0)).sum(1) / ink.sum((1, 2))
    return torch.stack([colour, (centre[:, None] - torch.tensor([12.0, 16.0, 20.0])).abs().argmin(1)], 1)


def test_wrong_images_differ_in_one_attribute_that_training_may_show(redrawn: CaptionedDigitsDataModule) -> None:
    dataset = redrawn.datasets["train"]
    attributes = dataset.__getitems__(range(4000))["attributes"]
    changed = dataset.changed(attributes)
    different = changed != attributes
    assert (different.sum(1) == 1).all()
    assert different.float().mean(0).tolist() == pytest.approx([3 / 7, *4 * [1 / 7]], abs=0.03)
    assert not is_held_out(changed[:, 0], changed[:, 3]).any()
    for size, column in zip(redrawn.attribute_sizes, changed.T, strict=True):
        assert set(column.tolist()) == set(range(size))
    batch = dataset.__getitems__(range(500))
    looks = seen_looks(batch["wrong_image"]) != batch["attributes"][:, 3:]
    assert looks.float().mean(0).tolist() == pytest.approx([1 / 7, 1 / 7], abs=0.06)
    assert not looks.all(1).any()


def test_held_out_digits_are_not_redrawn_at_all(redrawn: CaptionedDigitsDataModule) -> None:
    """Validation and test images stay as they are, whatever training draws."""
    again = CaptionedDigitsDataModule(own_size=True)
    again.setup()
    for split in ("val", "test"):
        assert torch.equal(again.datasets[split].columns["image"], redrawn.datasets[split].columns["image"])
        assert "wrong_image" not in redrawn.datasets[split].columns


@pytest.mark.parametrize(
    "arguments",
    [
        {"wrong_attributes": {"digit": 1.0}},
        {"redraw": True, "wrong_attributes": {"size": 1.0}},
        {"plain": True, "zero_shot": None, "redraw": True},
        {"own_size": True, "image_size": 24},
    ],
)
def test_settings_that_do_not_go_together(arguments: dict[str, object]) -> None:
    with pytest.raises(DataError):
        CaptionedDigitsDataModule(**arguments)
