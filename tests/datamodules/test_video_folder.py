"""Folders of videos: files that a real encoder wrote, arrays, and pictures of stacked frames."""

import builtins
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_gen.datamodules import VideoFolderDataModule
from lightning_gen.datamodules.video_folder import at_rate, read_clips, read_frames, read_stacked, read_video
from lightning_gen.errors import DataError, DatasetNotFoundError

av = pytest.importorskip("av", reason="PyAV writes the files; pip install 'lightning_gen[video]'")
REAL = Path(os.environ.get("LIGHTNING_GEN_DATA", "data")) / "video"


def write_video(path: Path, levels: list[int], sizes: list[tuple[int, int]] | None = None, rate: int = 10) -> None:
    """A film in Motion JPEG; each frame has one grey level."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for level in levels:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_stacked(path: Path, levels: list[int], side: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    strip = np.repeat(np.array(levels, np.uint8), side)[:, None, None].repeat(side, 1).repeat(3, 2)
    Image.fromarray(strip).save(path, quality=95)


def levels_of(video: torch.Tensor) -> list[int]:
    """The mean of each frame of a clip `(C, T, H, W)` in [0, 1], or of bytes, to the next ten."""
    video = video.float() / 255 if video.dtype == torch.uint8 else video
    return [round(25.5 * level) * 10 for level in video.mean((0, 2, 3)).tolist()]


def all_of(data: VideoFolderDataModule, **_: object) -> list[torch.Tensor]:
    data.setup()
    return list(data.datasets["train"].__getitems__(range(len(data.datasets["train"])))["video"])


WHOLE = {"image_size": 16, "val_fraction": 0.0, "test_fraction": 0.0}
RAMP = list(range(10, 210, 10))


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "deep/er/a.mov"])
def test_frames_come_in_their_order_from_any_container(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    write_video(tmp_path / name, RAMP)
    data = VideoFolderDataModule(str(tmp_path), num_frames=8, stride=6, **WHOLE)
    clips = all_of(data)
    assert [levels_of(clip) for clip in clips] == [RAMP[start : start + 8] for start in (0, 6, 12)]
    assert clips[0].shape == data.video_shape == (3, 8, 16, 16)
    batch = data.datasets["train"].__getitems__([1])
    assert torch.equal(batch["image"], batch["video"][:, :, 0])
    assert data.datasets["train"].videos[0].pixels.dtype == torch.uint8


@pytest.mark.parametrize(("rate", "expected"), [(5.0, RAMP[::2]), (20.0, [x for x in RAMP for _ in range(2)])])
def test_frames_are_the_nearest_in_time(rate: float, expected: list[int], tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", RAMP)
    (clip,) = all_of(VideoFolderDataModule(str(tmp_path), num_frames=len(expected), frame_rate=rate, **WHOLE))
    if rate == 5:
        assert levels_of(clip) == expected
    else:  # Frame k / 2 of a rate that was doubled, rounded to even.
        assert all(abs(a - b) <= 10 for a, b in zip(levels_of(clip), expected, strict=True))


def test_times_count_and_not_numbers(tmp_path: Path) -> None:
    """A recorder that took five frames within half a second, and ten more 0.4 seconds apart."""
    levels, times = RAMP[:15], [0.1 * k for k in range(5)] + [1 + 0.4 * k for k in range(10)]
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for level, time in zip(levels, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    video = read_video(tmp_path / "a.mkv", 16, 3)
    assert video.times is not None
    assert video.times.tolist() == pytest.approx(times, abs=2e-3)
    asked = np.arange(10) / 2 + 0.05  # Away from the middle between two frames.
    moved = video._replace(times=torch.cat([video.times[:1], video.times[1:] - 0.05]))
    nearest = [levels[int(np.abs(np.array(times) - second).argmin())] for second in asked[1:9]]
    assert levels_of(at_rate(moved, 2.0).pixels)[1:] == nearest


def turned(path: Path, matrix: list[int]) -> None:
    """Write the matrix by which a film in MP4 is to be turned into its header."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    for place, number in zip((0, 4, 12, 16), matrix, strict=True):
        data[start + place : start + place + 4] = (number * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [([1, 0, 0, 1], (0, 0)), ([0, 1, -1, 0], (0, 1)), ([-1, 0, 0, -1], (1, 1)), ([0, -1, 1, 0], (1, 0))],
)
def test_films_are_turned_upright(matrix: list[int], corner: tuple[int, int], tmp_path: Path) -> None:
    """The upper left corner is light; turned by a quarter to the right, as phones write, it is the upper right one."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24, :32] = 200
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    turned(tmp_path / "a.mp4", matrix)
    size = (48, 64) if matrix[0] else (64, 48)
    video = read_video(tmp_path / "a.mp4", size, 1).pixels[0, 0].float()
    assert video.shape == size
    light = {
        (row, column)
        for row, half in enumerate(video.chunk(2, 0))
        for column, quarter in enumerate(half.chunk(2, 1))
        if quarter.mean() > 100
    }
    assert light == {corner}


def test_hidden_files_links_and_what_is_no_video_are_passed_over(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / ".Trash").mkdir(parents=True)
    (root / "clips.mp4").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for path in (root / "a.avi", root / ".Trash/b.avi", tmp_path / "elsewhere/c.mkv", root / "clips.mp4/d.avi"):
        write_video(path, RAMP)
    (root / "._a.avi").write_bytes(b"resource fork")
    (root / "index.ts").write_text("export default 1")
    (root / "notes.txt").write_text("none")
    np.savez(root / "poses.npz", poses=np.zeros(3))
    (root / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "link2").symlink_to(root, target_is_directory=True)
    data = VideoFolderDataModule(str(root), num_frames=20, **WHOLE)
    with pytest.warns(UserWarning, match="no classes: 1 videos"):  # One in each place.
        assert len(all_of(data)) == 3
    assert sorted(Path(video.name).name for video in data.datasets["train"].videos) == ["a.avi", "c.mkv", "d.avi"]
    assert data.left_out == {".ts": 1, ".txt": 1, ".npz": 1, "link to a folder that is read already": 1}


def test_class_folders_are_labels(tmp_path: Path) -> None:
    for name, number in (("run", 2), ("jump", 3)):
        (tmp_path / name).mkdir()
        for k in range(number):
            write_video(tmp_path / name / f"{k}.avi", RAMP if name == "run" else RAMP[::-1])
    data = VideoFolderDataModule(str(tmp_path), num_frames=20, **WHOLE)
    assert data.class_names == ["jump", "run"]  # Before setup.
    assert (data.num_classes, data.condition_shapes["label"]) == (2, ())
    data.setup()
    batch = data.datasets["train"].__getitems__(range(5))
    assert [levels_of(video)[0] == 10 for video in batch["video"]] == [label == 1 for label in batch["label"].tolist()]
    assert sorted(batch["label"].tolist()) == [0, 0, 0, 1, 1]
    assert len(all_of(VideoFolderDataModule(str(tmp_path), num_frames=20, classes=[1], **WHOLE))) == 2
    assert data.summary == "5 training, 0 validation, 0 test clips; 2 classes: jump, run"


def test_split_folders_are_no_classes(tmp_path: Path) -> None:
    for name, levels in (("Train", RAMP), ("validation", RAMP[::-1])):
        (tmp_path / name).mkdir()
        for k in range(4):
            write_video(tmp_path / name / f"{k}.avi", levels)
    data = VideoFolderDataModule(str(tmp_path), image_size=16, num_frames=20, test_fraction=0.25)
    data.setup()
    assert data.num_classes == 0
    assert {split: len(dataset) for split, dataset in data.datasets.items()} == {"train": 3, "val": 4, "test": 1}
    assert {levels_of(clip["video"])[0] for clip in (data.datasets["val"][k] for k in range(4))} == {200}


def test_folders_of_frames_are_videos(tmp_path: Path) -> None:
    for name in ("a/one", "a/two", "b/three"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (20, 16), (10 * number,) * 3).save(tmp_path / name / f"frame{number}.png")
    data = VideoFolderDataModule(str(tmp_path), num_frames=12, **WHOLE)
    assert data.class_names == ["a", "b"]
    assert [levels_of(clip) for clip in all_of(data)] == [list(range(0, 120, 10))] * 3
    assert len(all_of(VideoFolderDataModule(str(tmp_path / "a/one"), num_frames=4, **WHOLE))) == 3
    Image.new("RGB", (16, 20)).save(tmp_path / "a/one/frame12.png")
    with pytest.raises(DataError, match=r"frame12\.png has 16 x 20 pixels, and the first frame beside it 20 x 16"):
        read_frames(tmp_path / "a/one", 16, 3)


@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4", "mov", "webm"])
@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_cut_files_are_named(suffix: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "webm":
        write_video(tmp_path / "a.mkv", RAMP)
        (tmp_path / "a.mkv").rename(path)
    else:
        write_video(path, RAMP)
    assert read_video(path, 16, 3).pixels.shape[1] == 20
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(DataError, match=rf"a\.{suffix} is cut: it has [\d,]+ bytes of at least [\d,]+; copy it"):
        VideoFolderDataModule(str(tmp_path), **WHOLE).setup()


def test_frames_that_are_no_squares(tmp_path: Path) -> None:
    """The middle of 64 x 48 pixels in other proportions: wide clips are cropped in height, high ones in width."""
    write_video(tmp_path / "a.avi", RAMP)
    for size in ([8, 16], [24, 12]):
        data = VideoFolderDataModule(str(tmp_path), num_frames=20, **WHOLE | {"image_size": size})
        (clip,) = all_of(data)
        assert clip.shape == data.video_shape == (3, 20, *size)
        assert data.condition_shapes["image"] == (3, *size)
        assert levels_of(clip) == RAMP


def test_a_wide_frame_is_cropped_to_its_centre(tmp_path: Path) -> None:
    frames = np.zeros((4, 20, 40, 3), np.uint8)
    frames[:, :, 10:30] = 200
    np.savez(tmp_path / "a.npz", frames=frames, offsets=[0, 1, 4], names=["one", "two"], fps=[25.0, 30.0])
    one, two = read_clips(tmp_path / "a.npz", 8, 3)
    assert (one.pixels.shape, two.pixels.shape, two.rate) == ((3, 1, 8, 8), (3, 3, 8, 8), 30.0)
    assert (two.pixels > 180).all()  # The bicubic filter swings a little; beyond are 40 black columns.
    assert two.name.endswith("a.npz/two")


def test_published_strips_and_short_clips(tmp_path: Path) -> None:
    """A 20-frame clip of the published kind is lengthened to 32 by twelve more of its last frame."""
    write_stacked(tmp_path / "beach/one.jpg", RAMP)
    write_stacked(tmp_path / "beach/two.jpg", RAMP[::-1])
    (tmp_path / "list.txt").write_text("beach/one.jpg 3\n\nbeach/two.jpg 1\n")
    arguments = {"list_file": "list.txt", "num_frames": 32, **WHOLE}
    data = VideoFolderDataModule(str(tmp_path), repeat_last=True, **arguments)
    clips = all_of(data)
    assert [levels_of(clip) for clip in clips] == [RAMP + 12 * RAMP[-1:], RAMP[::-1] + 12 * RAMP[:1]]
    assert data.num_classes == 3
    assert data.datasets["train"].__getitems__([0, 1])["label"].tolist() == [2, 0]
    with pytest.raises(DataError, match=r"one\.jpg has 20 frames, and num_frames is 32; give fewer, or repeat_last"):
        VideoFolderDataModule(str(tmp_path), **arguments).setup()
    only = VideoFolderDataModule(str(tmp_path), repeat_last=True, classes=[0], **arguments)
    assert len(all_of(only)) == 1
    (tmp_path / "list.txt").write_text("beach/one.jpg\nbeach/two.jpg\n")
    unlabelled = VideoFolderDataModule(str(tmp_path), repeat_last=True, **arguments)
    assert len(all_of(unlabelled)) == 2
    assert unlabelled.num_classes == 0
    (tmp_path / "list.txt").write_text("beach/one.jpg 1\nbeach/two.jpg\n")
    with pytest.raises(DataError, match="lines with a label and lines without"):
        VideoFolderDataModule(str(tmp_path), **arguments).setup()


def test_no_training_clip_shares_a_frame_with_a_held_out_one(tmp_path: Path) -> None:
    frames = np.arange(200, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)
    np.savez(tmp_path / "a.npz", frames=frames, offsets=[0, 200], names=["a"], fps=[25.0])
    arguments = {"image_size": 8, "num_frames": 10, "stride": 2, "val_fraction": 0.05, "test_fraction": 0.05}
    data, again = (VideoFolderDataModule(str(tmp_path / "a.npz"), **arguments) for _ in range(2))
    seen = {}
    for split in ("train", "val", "test"):
        data.setup()
        again.setup()
        assert data.datasets[split].clips == again.datasets[split].clips
        seen[split] = set().union(*({*range(c.start, c.start + 10)} for c in data.datasets[split].clips))
        assert seen[split]
    assert not seen["train"] & (seen["val"] | seen["test"])
    assert not seen["val"] & seen["test"]


def test_damaged_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "good.avi", RAMP)
    whole = (tmp_path / "good.avi").read_bytes()
    (tmp_path / "noise.mp4").write_bytes(b"no video at all" * 100)
    with pytest.raises(DataError, match=r"noise\.mp4 cannot be read as a video"):
        read_video(tmp_path / "noise.mp4", 16, 3)
    (tmp_path / "empty.avi").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty\.avi cannot be read as a video"):
        VideoFolderDataModule(str(tmp_path)).setup()
    (tmp_path / "unknown.avi").write_bytes(whole.replace(b"MJPG", b"ZQZQ"))
    with pytest.raises(DataError, match=r"The codec of .*unknown\.avi is missing; .*pip install --upgrade"):
        read_video(tmp_path / "unknown.avi", 16, 3)
    write_video(tmp_path / "none.mkv", [])
    with pytest.raises(DataError, match=r"none\.mkv"):
        read_video(tmp_path / "none.mkv", 16, 3)
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 100), np.int16), layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(DataError, match=r"sound\.mkv has no video in it"):
        read_video(tmp_path / "sound.mkv", 16, 3)

    imported = builtins.__import__

    def without_av(name: str, *args: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return imported(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_av)
    with pytest.raises(DataError, match=r"PyAV decodes; type: pip install 'lightning_gen\[video\]'"):
        read_video(tmp_path / "good.avi", 16, 3)


def test_frames_of_different_sizes_are_refused(tmp_path: Path) -> None:
    """Two films of different sizes behind each other, as Motion JPEG without a container may have them."""
    pictures = []
    for number, size in enumerate([(64, 48), (64, 48), (32, 48)]):
        Image.new("RGB", size, "grey").save(tmp_path / f"{number}.jpg")
        pictures.append((tmp_path / f"{number}.jpg").read_bytes())
    path = tmp_path / "stream.mjpeg"
    path.write_bytes(b"".join(pictures))
    with pytest.raises(DataError, match=r"frames of different sizes: 64 x 48, and 32 x 48 from frame 2 on"):
        read_video(path, 16, 3)
    Image.new("RGB", (20, 50)).save(tmp_path / "strip.jpg")
    with pytest.raises(DataError, match=r"strip\.jpg has 20 x 50 pixels; .*a multiple of the width"):
        read_stacked(tmp_path / "strip.jpg", 16, 3)


def test_missing_folders_and_wrong_numbers_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"There is no .*nowhere"):
        VideoFolderDataModule(str(tmp_path / "nowhere")).setup()
    with pytest.raises(DatasetNotFoundError, match="hold no videos"):
        VideoFolderDataModule(str(tmp_path)).setup()
    with pytest.raises(DatasetNotFoundError, match="There is no list"):
        VideoFolderDataModule(str(tmp_path), list_file="list.txt").setup()
    np.savez(tmp_path / "a.npz", frames=np.zeros((4, 8, 8), np.uint8), offsets=[0, 4], names=["a"], fps=[25.0])
    with pytest.raises(DataError, match=r"a\.npz holds uint8 frames of the shape \(4, 8, 8\)"):
        VideoFolderDataModule(str(tmp_path)).setup()
    for arguments in (
        {"num_frames": 0},
        {"stride": 0},
        {"frame_rate": 0.0},
        {"val_fraction": 0.6, "test_fraction": 0.4},
    ):
        with pytest.raises(DataError, match=next(iter(arguments))):
            VideoFolderDataModule(str(tmp_path), **arguments)
    np.savez(
        tmp_path / "a.npz", frames=np.zeros((4, 8, 8, 3), np.uint8), offsets=[0, 4, 4], names=["a", "b"], fps=[25.0, 1]
    )
    with pytest.raises(DataError, match="b is a video without frames"):
        VideoFolderDataModule(str(tmp_path)).setup()


@pytest.mark.skipif(not REAL.exists(), reason="needs the real clips in LIGHTNING_GEN_DATA/video")
def test_real_files_decode_to_what_the_arrays_hold() -> None:
    """`clips64.npz` has some of the files at 64 x 64, made by another program."""
    arrays = {Path(video.name).name: video for video in read_clips(REAL / "clips64.npz", 64, 3)}
    compared = 0
    for path in sorted((REAL / "clips").iterdir()):
        name = next((known for known in arrays if known in path.name or path.name in known), None)
        if name is None:
            continue
        video = read_video(path, 64, 3)
        ours, theirs = video.pixels.float(), arrays[name].pixels.float()
        length = min(ours.shape[1], theirs.shape[1])
        assert abs(ours[:, :length] - theirs[:, :length]).mean() < 25
        compared += 1
    assert compared >= 2
