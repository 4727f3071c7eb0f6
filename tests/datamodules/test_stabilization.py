"""A camera that shakes by known shifts, over pictures and over a real film, is held still."""

import builtins
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_gen.datamodules import VideoFolderDataModule
from lightning_gen.datamodules.stabilization import find_features, homography, stabilize
from lightning_gen.errors import DataError
from lightning_gen.functional import mean_frame_difference
from tests.digits import held_out_digits

cv2 = pytest.importorskip("cv2", reason="OpenCV; pip install 'lightning_gen[steady]'")
REAL = Path(os.environ.get("LIGHTNING_GEN_DATA", "data")) / "video/clips64.npz"
SHIFTS = [(0, 0), (3, -2), (5, 4), (-4, 6), (2, -5), (-6, -3), (1, 7), (4, 0)]


def wall() -> Tensor:
    """Digits side by side, `(196, 196)`, bytes."""
    digits = held_out_digits()[:49].view(7, 7, 28, 28)
    return (255 * digits.permute(0, 2, 1, 3).reshape(196, 196)).round().byte()


def shaken(picture: Tensor, channels: int = 3) -> Tensor:
    """A camera of 128 pixels on a picture, `(C, T, 128, 128)`."""
    frames = [picture[30 + y : 158 + y, 30 + x : 158 + x] for y, x in SHIFTS]
    return torch.stack(frames)[None].expand(channels, -1, -1, -1)


def motion(frames: Tensor) -> float:
    """Away from the border, in bytes."""
    return mean_frame_difference(frames[None, :, :, 16:-16, 16:-16].float()).item()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_still_scene_stands_still(channels: int) -> None:
    frames = shaken(wall(), channels)
    steady = stabilize(frames)
    assert steady.shape == frames.shape
    assert steady.dtype == torch.uint8
    assert torch.equal(steady[:, 0], frames[:, 0])
    assert motion(steady) < motion(frames) / 10
    # What the later frames do not show is what was there: no black border comes in.
    assert (steady.float() - frames[:, :1].float()).abs().mean() < 0.1 * (frames - 0.0).diff(dim=1).abs().mean()


def test_the_homography_takes_points_to_within_a_pixel() -> None:
    frames = shaken(wall())[0].numpy()[..., None]
    sift, matcher = cv2.SIFT_create(), cv2.BFMatcher()
    for t in range(1, len(SHIFTS)):
        features = [find_features(cv2, sift, np.ascontiguousarray(frames[row])) for row in (t, t - 1)]
        matrix = homography(cv2, matcher, *features)
        points = np.array([[20, 20, 1], [100, 30, 1], [60, 110, 1]]).T
        found = matrix @ points
        dy, dx = np.subtract(SHIFTS[t], SHIFTS[t - 1])
        assert np.abs(found[:2] / found[2] - points[:2] - np.array([[dx], [dy]])).max() < 1


def test_what_moves_by_itself_still_moves() -> None:
    frames = shaken(wall()).clone()
    for t, (y, x) in enumerate(SHIFTS):  # A white square that goes from left to right over the wall.
        frames[:, t, 50 - y : 62 - y, 20 + 10 * t - x : 32 + 10 * t - x] = 255
    steady = stabilize(frames).float()
    for t in range(8):
        assert steady[:, t, 52:60, 22 + 10 * t : 30 + 10 * t].mean() > 240


def test_clips_that_cannot_be_steadied_are_given_up() -> None:
    assert stabilize(torch.zeros(3, 4, 128, 128, dtype=torch.uint8)) is None  # Nothing to see.
    noise = torch.randint(0, 256, (3, 4, 128, 128), generator=torch.Generator().manual_seed(0)).byte()
    assert stabilize(noise) is None
    picture = torch.cat([wall(), wall().flip(0)], 1)  # (196, 392)
    away = torch.stack([picture[:128, x : x + 128] for x in range(0, 200, 20)])[None]
    assert stabilize(away) is None
    assert stabilize(away[:, :3]) is not None


def write_clips(path: Path, clips: list[Tensor]) -> None:
    frames = torch.cat(clips, 1).permute(1, 2, 3, 0).numpy()
    offsets = np.cumsum([0, *(clip.shape[1] for clip in clips)])
    names = [str(row) for row in range(len(clips))]
    np.savez(path, frames=frames, offsets=offsets, names=names, fps=[25.0] * len(clips))


def test_the_data_module_steadies_clips_and_counts_those_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clips(tmp_path / "a.npz", [shaken(wall()), torch.zeros(3, 8, 128, 128, dtype=torch.uint8), shaken(wall().T)])
    arguments: dict[str, Any] = {"image_size": 64, "num_frames": 8, "val_fraction": 0.0, "test_fraction": 0.0}
    data = VideoFolderDataModule(str(tmp_path), stabilize=True, **arguments)
    with pytest.warns(UserWarning, match="1 of 3 train clips are left out"):
        data.setup()
    still = VideoFolderDataModule(str(tmp_path), **arguments)
    still.setup()
    videos = data.datasets["train"].__getitems__([0, 1])["video"]
    assert videos.shape == (2, *data.video_shape)
    shaking = still.datasets["train"].__getitems__([0, 1, 2])["video"]
    assert mean_frame_difference(videos) < mean_frame_difference(shaking) / 5
    imported = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "cv2":
            raise ImportError
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"pip install 'lightning_gen\[steady\]'"):
        VideoFolderDataModule(str(tmp_path), stabilize=True, **arguments).setup()


@pytest.mark.skipif(not REAL.is_file(), reason="real films")
def test_a_real_film_shaken_by_known_shifts() -> None:
    """The camera on the cricket field stands nearly still: 3.0 bytes from frame to frame, 22.5 shaken, 3.1 steadied."""
    data = VideoFolderDataModule(str(REAL), image_size=160, num_frames=8, val_fraction=0.0, test_fraction=0.0)
    data.setup()
    name = "CricketShot"
    film = next(video.pixels for video in data.datasets["train"].videos if name in video.name)[:, :8]
    still = film[:, :, 16:144, 16:144]
    frames = torch.stack([film[:, t, 16 + y : 144 + y, 16 + x : 144 + x] for t, (y, x) in enumerate(SHIFTS)], 1)
    steady = stabilize(frames)
    assert motion(steady) < motion(frames) / 5
    assert motion(steady) < 1.2 * motion(still)
