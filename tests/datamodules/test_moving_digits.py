"""Digits that move by the published rules, the same ones for everybody who asks for a held-out clip."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_gen.datamodules import DigitsDataModule, MovingDigitsDataModule
from lightning_gen.datamodules.moving_digits import bounce, lay
from lightning_gen.errors import DataError, DatasetNotFoundError


def loaded(**arguments: object) -> MovingDigitsDataModule:
    data = MovingDigitsDataModule(**arguments)  # type: ignore[arg-type]
    data.setup()
    return data


def test_a_point_moves_by_its_step_and_reverses_one_component() -> None:
    """Against the rule step by step: at most one component turns, unless a corner is met."""
    torch.manual_seed(0)
    start, angle = torch.rand(500, 2, dtype=torch.float64), 2 * math.pi * torch.rand(500, dtype=torch.float64)
    path = bounce(start, angle, 40, 0.1)
    assert path.min() == 0
    assert path.max() == 1
    moves = path.diff(dim=1)
    free = ((path > 0) & (path < 1)).all(-1)
    free = free[:, 1:] & free[:, :-1]
    torch.testing.assert_close(moves[free].norm(dim=-1), torch.full((int(free.sum()),), 0.1, dtype=torch.float64))
    turned = free[:, 1:] & free[:, :-1]
    torch.testing.assert_close(moves[:, 1:][turned], moves[:, :-1][turned])
    for clip, first, theta in zip(path[:20], start[:20].tolist(), angle[:20].tolist(), strict=True):
        velocity, position = [0.1 * math.sin(theta), 0.1 * math.cos(theta)], list(first)
        for point in clip.tolist():
            for axis in (0, 1):
                position[axis] += velocity[axis]
                if position[axis] <= 0 or position[axis] >= 1:
                    position[axis] = 0.0 if position[axis] <= 0 else 1.0
                    velocity[axis] *= -1
            assert point == pytest.approx(position, abs=1e-12)


def test_the_brighter_pixel_is_seen() -> None:
    pieces = torch.tensor([[[[10, 200]], [[100, 50]]]], dtype=torch.uint8)  # Two pieces of 1 x 2.
    corners = torch.tensor([[[[0, 0], [2, 1]], [[0, 1], [2, 1]]]])
    frames = lay(pieces, corners, torch.full((1, 2, 3, 3), 20, dtype=torch.uint8))
    assert frames[0, 0].tolist() == [[20, 200, 50], [20, 20, 20], [20, 20, 20]]
    assert frames[0, 1].tolist() == [[20, 20, 20], [20, 20, 20], [20, 100, 200]]


def test_a_clip_holds_whole_digits_of_its_own_part() -> None:
    data = loaded(num_digits=1, held_out_size=3)
    digits = DigitsDataModule()
    digits.setup()
    for split in ("val", "test"):
        clips = data.datasets[split]
        own = digits.datasets[split].columns["image"][:, 0]  # type: ignore[attr-defined]
        uniform = clips.uniform([1])  # type: ignore[attr-defined]
        digit = own[int(uniform[0, 0, 0] * 500)].float() / 255
        video = clips[1]["video"]
        assert video.shape == (1, 20, 64, 64)
        corners = (36 * clips.positions(uniform)[0, 0]).tolist()  # type: ignore[attr-defined]
        for frame, (top, left) in zip(video[0], corners, strict=True):
            window = frame[int(top) : int(top) + 28, int(left) : int(left) + 28]
            torch.testing.assert_close(window, digit, rtol=0, atol=0)
            assert frame.count_nonzero() == window.count_nonzero()


def test_held_out_clips_are_the_same_in_any_batch_and_training_never_repeats() -> None:
    options = {"image_size": 32, "digit_size": 14, "num_frames": 5, "epoch_size": 6, "held_out_size": 7}
    batches = [
        torch.cat([batch["video"] for batch in MovingDigitsDataModule(**options, **how).test_dataloader()])
        for how in ({"batch_size": 7}, {"batch_size": 2}, {"batch_size": 3, "num_workers": 2})
    ]
    assert batches[0].shape == (7, 1, 5, 32, 32)
    assert all(torch.equal(batches[0], other) for other in batches[1:])
    assert torch.equal(batches[0][4], loaded(**options).datasets["test"][4]["video"])
    data = loaded(**options, batch_size=6)
    val = next(iter(data.val_dataloader()))["video"]
    assert not torch.equal(val, batches[0][:6])
    torch.manual_seed(0)
    epochs = [next(iter(data.train_dataloader()))["video"] for _ in range(2)]
    assert not torch.equal(*epochs)
    torch.manual_seed(0)
    assert torch.equal(next(iter(data.train_dataloader()))["video"], epochs[0])


def test_small_digits_are_averages() -> None:
    data = loaded(image_size=32, digit_size=14, num_digits=1)
    digits = DigitsDataModule()
    digits.setup()
    small = data.datasets["test"].digits[3].float()  # type: ignore[attr-defined]
    large = digits.datasets["test"].columns["image"][3, 0].float()  # type: ignore[attr-defined]
    means = large.view(14, 2, 14, 2).mean((1, 3))
    assert (small - means).abs().max() <= 0.5


def test_only_the_digits_asked_for() -> None:
    data = loaded(classes=[1, 7], num_digits=1)
    assert data.hparams["classes"] == [1, 7]
    assert len(data.datasets["train"].digits) == 800  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="labels 0 to 9"):
        loaded(classes=[10])


def test_the_published_test_clips(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (20, 3, 64, 64), dtype=np.uint8)
    np.save(tmp_path / "mnist_test_seq.npy", frames)
    data = MovingDigitsDataModule(published_test=True, root=str(tmp_path), batch_size=2, num_frames=12)
    first, second = data.test_dataloader()
    assert (len(first["video"]), len(second["video"])) == (2, 1)
    expected = torch.from_numpy(frames[:12, 2]).float() / 255
    torch.testing.assert_close(second["video"][0, 0], expected, rtol=0, atol=0)
    with pytest.raises(DataError, match=r"num_frames is 21; the clips .* have 20 frames"):
        loaded(published_test=True, root=str(tmp_path), num_frames=21)
    with pytest.raises(DataError, match=r"expected bytes \(frames, clips, 32, 32\)"):
        loaded(published_test=True, root=str(tmp_path), image_size=32)
    (tmp_path / "mnist_test_seq.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match="cannot be read"):
        loaded(published_test=True, root=str(tmp_path))
    with pytest.raises(DatasetNotFoundError, match="published_test=false"):
        loaded(published_test=True, root=str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"digit_size": 29}, "digit_size is 29"),
        ({"image_size": 20}, "digit_size is 28 and image_size 20"),
        ({"step": 1.5}, "step=1.5"),
    ],
)
def test_bad_numbers(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        MovingDigitsDataModule(**arguments)  # type: ignore[arg-type]
