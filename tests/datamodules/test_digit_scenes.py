"""Digits that move over still grounds."""

import torch

from lightning_gen.datamodules import DigitScenesDataModule
from lightning_gen.datamodules.digit_scenes import BRIGHTEST
from lightning_gen.functional import moving_pixels


def test_the_ground_stands_still_and_white_digits_move() -> None:
    data = DigitScenesDataModule(held_out_size=30)
    data.setup()
    batch = data.datasets["val"].__getitems__(range(30))
    video = batch["video"]
    assert video.shape[1:] == data.video_shape == (3, 16, 32, 32)
    assert torch.equal(batch["image"], video[:, :, 0])
    assert video.max() > 0.95
    assert video.min() >= 0
    ground = video.amin(2)  # What is seen behind a white digit at some time.
    off_digit = ~moving_pixels(video, 0.01).any(2)
    assert 0.2 < off_digit.float().mean() < 0.9
    still = video.sub(ground[:, :, None]).abs().amax((1, 2), keepdim=True)[:, :, 0] < 1e-6
    assert (still & off_digit).float().mean() > 0.2
    assert ground.max() < BRIGHTEST + 0.1, "the digit leaves every pixel at some time"
    assert ground.flatten(2).mean(2).std(0).min() > 0.03, "grounds differ"


def test_held_out_clips_are_always_the_same_and_training_clips_never() -> None:
    data, again = DigitScenesDataModule(held_out_size=9), DigitScenesDataModule(held_out_size=9, batch_size=3)
    whole, parts = (
        {k: torch.cat([b[k] for b in d.test_dataloader()]) for k in ("video", "label")} for d in (data, again)
    )
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    first, second = (data.datasets["train"].__getitems__([0])["video"] for _ in range(2))
    assert not torch.equal(first, second)
    assert not torch.equal(next(iter(data.val_dataloader()))["video"], whole["video"])


def test_the_label_is_the_direction_in_which_a_digit_sets_out() -> None:
    data = DigitScenesDataModule(held_out_size=200, step=0.03)
    data.setup()
    batch = data.datasets["val"].__getitems__(range(200))
    assert data.num_classes == 8
    assert batch["label"].unique().tolist() == list(range(8))
    ink = (batch["video"].amin(1) > 0.75).float()  # (N, T, H, W)
    weight = ink.sum((2, 3)).clamp(min=1)
    axis = torch.arange(32.0)
    centre = torch.stack([(ink.sum(3) * axis).sum(2) / weight, (ink.sum(2) * axis).sum(2) / weight], -1)  # Down, right.
    moved = centre[:, 5] - centre[:, 0]
    angle = 2 * torch.pi * batch["label"] / 8
    way = torch.stack([angle.sin(), angle.cos()], -1)
    along = (moved * way).sum(1) / moved.norm(dim=1).clamp(min=0.1)
    assert (along > 0.9).float().mean() > 0.6, "all but those that meet the border at once"


def test_without_directions_there_are_no_labels() -> None:
    for arguments in ({"directions": None}, {"num_digits": 2}):
        data = DigitScenesDataModule(held_out_size=2, **arguments)
        data.setup()
        assert "label" not in data.datasets["val"].__getitems__([0, 1])
        assert data.num_classes == 0
