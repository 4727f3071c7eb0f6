"""Anybody's own videos: files in any container, folders of frames, arrays, or clips as pictures of stacked frames."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Positive, Share, Sides, Size
from lightning_gen.datamodules.base import (
    HELD_OUT_SEED,
    Batch,
    ImageDataModule,
    Loading,
    Split,
    check_fractions,
    height_and_width,
)
from lightning_gen.datamodules.files import read_arrays
from lightning_gen.datamodules.folders import Found, Layout, check_not_empty, class_of, read_layout, suffix_of, walk
from lightning_gen.datamodules.image_folder import as_8_bit, fitted, suffixes, upright
from lightning_gen.datamodules.stabilization import SIDE, stabilize
from lightning_gen.errors import DataError, DatasetNotFoundError

SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts"),
    *(".webm", ".wmv"),
)


class Frames(NamedTuple):
    """A video in memory, named as in messages."""

    name: str
    pixels: Tensor  # uint8, (C, T, H, W)
    rate: float | None  # frames per second on average, None where the file does not say
    label: int | None = None
    times: Tensor | None = None  # of each frame in seconds, (T,), None where the file does not say


class Clip(NamedTuple):
    """Where a clip lies: frames `start` to `start + num_frames` of a video."""

    video: int
    start: int


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises into one line that names the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path} cannot be read as a video ({error}); replace or remove it.") from error


def declared_size(path: Path) -> int | None:
    """How many bytes the header of an AVI, Matroska, WebM or MP4 file says that there are; None if it does not."""
    with path.open("rb") as file:
        head = file.read(64)
        if head[:4] == b"RIFF":
            size = int.from_bytes(head[4:8], "little")
            return 8 + size if 0 < size < 2**32 - 1 else None
        if head[:4] == b"\x1a\x45\xdf\xa3":
            start = after_number(head, 4)[1] + after_number(head, 4)[0]
            file.seek(start)
            head = file.read(12)
            if head[:4] != b"\x18\x53\x80\x67":
                return None
            size, end = after_number(head, 4)
            return None if size == 2 ** (7 * (end - 4)) - 1 else start + end + size  # All ones: not known.
        position, total = 0, os.path.getsize(path)
        while head[4:8] in BOXES and position < total:
            file.seek(position)
            head = file.read(16)
            size = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4], "big")
            if size < 8:  # To the end of the file.
                return None
            position += size
        return position or None


BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"styp", b"uuid", b"meta", b"free", b"skip", b"wide")
"""What the parts of an MP4 file are called."""


def after_number(data: bytes, start: int) -> tuple[int, int]:
    """A number of Matroska, whose leading zeros say how many bytes it has, and where it ends."""
    length = 9 - data[start].bit_length()
    return int.from_bytes(data[start : start + length], "big") - (1 << 7 * length), start + length


def check_whole(path: Path) -> None:
    """Refuse a file that is shorter than its header says: decoders may take it for a shorter video.

    Raises:
        DataError: if it is; it is named.
    """
    size, expected = os.path.getsize(path), declared_size(path)
    if expected is not None and size < expected:
        raise DataError(f"{path} is cut: it has {size:,} bytes of at least {expected:,}; copy it anew, or remove it.")


def read_video(path: Path, image_size: Sides, channels: int) -> Frames:
    """Decode a file: the largest centred part of each frame that has the proportions asked for, upright and resized.

    Args:
        path: of a video in any container and codec that PyAV knows.
        image_size: side, or height and width, of the frames in pixels.
        channels: 1 for grey, 3 for colour.

    Raises:
        DataError: if it is damaged or cut, has no frames, frames of different sizes or a codec that is missing, or PyAV
            is not installed; it is named.
    """
    try:
        import av
    except ImportError as error:
        raise DataError(f"{path} is a video, which PyAV decodes; type: pip install 'lightning_gen[video]'") from error
    parts: list[Tensor] = []
    times: list[float | None] = []
    height, width = height_and_width(image_size)
    with naming(path):
        check_whole(path)
    with naming(path), av.open(os.fspath(path)) as container:
        if not container.streams.video:
            raise DataError(f"{path} has no video in it, but {len(container.streams)} streams of another kind.")
        stream: Any = container.streams.video[0]
        if stream.codec_context is None:
            raise DataError(
                f"The codec of {path} is missing; PyAV's own wheel decodes most of them: pip install --upgrade "
                "--force-reinstall av. Or convert the file: ffmpeg -i FILE -c:v libx264 FILE.mp4"
            )
        stream.thread_type = "AUTO"
        size = (0, 0)
        for frame in container.decode(stream):
            size = size if parts else (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise DataError(
                    f"{path} has frames of different sizes: {size[0]} x {size[1]}, and {frame.width} x {frame.height} "
                    f"from frame {len(parts)} on; cut it there."
                )
            # Shrunk by FFmpeg to a side over ours, as a twentieth of the pixels are converted and copied then.
            turn = 90 * round(frame.rotation / 90)  # A phone held upright writes frames that lie on their side.
            wide, high = (height, width) if turn % 180 else (width, height)
            times.append(frame.time)
            scale = max(2 * wide / size[0], 2 * high / size[1], 1 / min(size))
            if scale < 1:
                frame = frame.reformat(round(scale * size[0]), round(scale * size[1]), interpolation="AREA")
            parts.append(fitted(frame.to_image().rotate(turn, expand=True), image_size, channels))
        rate = stream.average_rate
    return Frames(
        os.fspath(path),
        stacked(parts, path),
        None if rate is None else float(rate),
        times=None if None in times else torch.tensor(times, dtype=torch.float64),
    )


def read_frames(folder: Path, image_size: Sides, channels: int) -> Frames:
    """Read a video whose frames are the pictures of a folder, in the order of the numbers in their names.

    Raises:
        DataError: if one is damaged, or of another size than the first; it is named.
    """
    known = suffixes()
    paths = [path for path in folder.iterdir() if path.suffix.lower() in known and not path.name.startswith(".")]
    parts, size = [], None
    for path in sorted(paths, key=by_number):
        with upright(path) as picture:
            size = size or picture.size
            if picture.size != size:
                raise DataError(
                    f"{path} has {picture.width} x {picture.height} pixels, and the first frame beside it {size[0]} x "
                    f"{size[1]}; expected frames of one size. Pictures that are no video are read by "
                    "ImageFolderDataModule."
                )
            parts.append(fitted(picture, image_size, channels))
    return Frames(os.fspath(folder), stacked(parts, folder), None)


def by_number(path: Path) -> list[int | str]:
    """A key by which frame 10 comes after frame 9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]


def read_stacked(path: Path, image_size: Sides, channels: int) -> Frames:
    """Read a clip that is one picture, its square frames below each other, as the authors of VGAN published theirs.

    Raises:
        DataError: if it is damaged, or its height is no multiple of its width; it is named.
    """
    with naming(path), Image.open(path) as picture:
        if picture.height % picture.width:
            raise DataError(
                f"{path} has {picture.width} x {picture.height} pixels; expected square frames below each other, and "
                "so a height that is a multiple of the width."
            )
        strip = as_8_bit(picture, "L" if channels == 1 else "RGB")
        side = strip.width
        frames = [strip.crop((0, top, side, top + side)) for top in range(0, strip.height, side)]
        return Frames(os.fspath(path), stacked([fitted(f, image_size, channels) for f in frames], path), None)


def read_clips(path: Path, image_size: Sides, channels: int) -> list[Frames]:
    """Read an `.npz` file with all frames of several videos one after the other.

    Its arrays are `frames`, uint8 `(T, H, W, 3)`, `offsets`, where each video begins and the last one ends, `names`,
    and `fps`, frames per second.

    Raises:
        DataError: if an array is missing or of another kind, or a video is empty; the file is named.
    """
    frames, offsets, names, fps = read_arrays(path, ["frames", "offsets", "names", "fps"])
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(offsets) != len(names) + 1:
        raise DataError(
            f"{path} holds {frames.dtype} frames of the shape {frames.shape}, {len(offsets)} offsets and {len(names)} "
            "names; expected bytes (T, H, W, 3), and one offset more than names."
        )
    found = []
    for start, end, name, rate in zip(offsets, offsets[1:], names, fps, strict=False):
        parts = [fitted(Image.fromarray(frame), image_size, channels) for frame in frames[start:end]]
        video = path / str(name)
        found.append(Frames(os.fspath(video), stacked(parts, video), float(rate)))
    return found


def stacked(frames: Sequence[Tensor], path: Path) -> Tensor:
    """Frames `(C, H, W)` as a video `(C, T, H, W)`."""
    if not frames:
        raise DataError(f"{path} is a video without frames; replace or remove it.")
    return torch.stack(list(frames), 1)


def resized(pixels: Tensor, image_size: Sides) -> Tensor:
    """Frames `(C, T, H, W)` of bytes at another size."""
    size = height_and_width(image_size)
    frames = F.interpolate(pixels.transpose(0, 1).float(), size, mode="bicubic", antialias=True)
    return frames.round().clamp(0, 255).byte().transpose(0, 1)


def at_rate(video: Frames, rate: float | None) -> Frames:
    """The frames nearest in time to those of another rate; those there are, if it or the video's own is not known.

    A phone or a recorder of screens does not take its frames at even distances: their times count, not their numbers.
    """
    if rate is None or video.rate is None:
        return video
    length, times = video.pixels.shape[1], video.times
    if times is None or not (times.diff() > 0).all():
        times = torch.arange(length, dtype=torch.float64) / video.rate
    times = times - times[0]
    number = max(1, round((times[-1].item() + 1 / video.rate) * rate))
    places = np.interp(np.arange(number) / rate, times.numpy(), np.arange(length))
    nearest = torch.from_numpy(places.round(6).round()).long()  # 1.4999999 is a half that a product has missed.
    return video._replace(pixels=video.pixels[:, nearest], rate=rate, times=None)


def find_videos(folder: Path, left_out: Counter[str]) -> list[Found]:
    """Every video in a folder and its subfolders, in alphabetical order: files, and folders of two pictures or more."""
    pictures, found = suffixes(), []
    for parent, names in walk(folder, left_out):
        paths = [parent / name for name in names]
        videos = [path for path in paths if is_video(path)]
        others = [path for path in paths if path not in videos]
        frames = [path for path in others if path.suffix.lower() in pictures]
        if not videos and len(frames) > 1:
            found.append(Found(parent, class_of(parent, folder)))
            others = [path for path in others if path not in frames]
        found += [Found(path, class_of(path, folder)) for path in videos]
        left_out.update(suffix_of(path) for path in others)
    return sorted(found)


def is_video(path: Path) -> bool:
    """Whether a file is a video by its name, and does not show at once that it is something else of that name."""
    suffix = path.suffix.lower()
    if suffix == ".ts":  # TypeScript has the name of MPEG's transport streams, whose packets begin so.
        with path.open("rb") as file:
            return file.read(1) == b"G"
    if suffix == ".npz":
        try:
            with np.load(path) as arrays:
                return "frames" in arrays.files
        except Exception:  # It is damaged, which its reader will say.
            return True
    return suffix in SUFFIXES


def read_any(path: Path, image_size: Sides, channels: int) -> list[Frames]:
    """The video, or the videos, of what `find_videos` has found."""
    if path.is_dir():
        return [read_frames(path, image_size, channels)]
    if path.suffix.lower() == ".npz":
        return read_clips(path, image_size, channels)
    return [read_video(path, image_size, channels)]


class Clips(Dataset[Batch]):
    """Clips cut out of videos that are held in memory as bytes.

    Args:
        videos: what they are cut out of.
        clips: where.
        num_frames: of each.
    """

    def __init__(self, videos: Sequence[Frames], clips: Sequence[Clip], num_frames: int) -> None:
        self.videos = videos
        self.clips = clips
        self.num_frames = num_frames

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Batch:
        return {key: values[0] for key, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once; the loader prefers it to `__getitem__`. `image` are the first frames."""
        clips = [self.clips[index] for index in indices]
        cut = [self.videos[clip.video].pixels[:, clip.start : clip.start + self.num_frames] for clip in clips]
        video = torch.stack(cut).float().div_(255)
        batch: Batch = {"video": video, "image": video[:, :, 0]}
        labels = [self.videos[clip.video].label for clip in clips]
        return batch if None in labels else batch | {"label": torch.tensor(labels)}


class VideoFolderDataModule(ImageDataModule):
    """Clips of one length out of anybody's videos: a file, or a folder with its subfolders.

    Videos may lie in any container and codec that PyAV decodes, in `.npz` files (see `read_clips`), or be folders of
    their frames as pictures (see `read_frames`). Subfolders are splits and classes as those of `ImageFolderDataModule`.
    With `list_file` videos are clips as pictures of square frames below each other (see `read_stacked`), one path below
    `root` in each line, with or without a label from 1 on behind it.

    Everything is decoded once and held in memory as bytes: an hour of 25 frames a second at 64 x 64 takes 1.1 GB. A
    clip begins every `stride` frames. Where there are no folders for it, videos are held out whole as far as that goes,
    drawn always alike, and no clip to train on shares a frame with one that is held out. A batch has the clips,
    `video`, and their first frames, `image`.

    Args:
        root: the file or folder.
        image_size: side of square frames in pixels, or height and width: what is too long by these proportions is
            cropped on both sides, and the rest resized.
        num_frames: frames of a clip.
        frame_rate: take the frames nearest in time to so many a second; those there are if None.
        stride: frames from the start of one clip to that of the next; `num_frames` if None.
        repeat_last: lengthen shorter videos by their last frame, as the authors' reader does; else they are refused.
        list_file: name of the list in `root`.
        stabilize: steady the camera of each clip (see `stabilization`), which takes about half a second a clip once.
            Clips that cannot be steadied are left out, with a warning that counts them.
        channels: 3 for colour, 1 for grey.
        batch_size: clips a batch, on each rank.
        num_workers: processes that load; 0 is the fastest.
        classes: keep only clips with these labels.
        val_fraction: share of the clips that validation gets if there is no folder for it.
        test_fraction: share of the clips that the test gets if there is no folder for it.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if an argument is out of range.
    """

    rows_are = "clips"

    def __init__(
        self,
        root: str,
        image_size: Sides = 64,
        num_frames: Size = 32,
        frame_rate: Positive | None = None,
        stride: Size | None = None,
        repeat_last: bool = False,
        list_file: str | None = None,
        stabilize: bool = False,
        channels: Literal[1, 3] = 3,
        batch_size: Size = 64,
        num_workers: Count = 0,
        classes: list[int] | None = None,
        val_fraction: Share = 0.1,
        test_fraction: Share = 0.1,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(root, batch_size, num_workers, classes=classes, **loading)
        check_fractions(val_fraction, test_fraction)
        self.image_size = image_size
        self.num_frames = num_frames
        self.frame_rate = frame_rate
        self.stride = stride or num_frames
        self.repeat_last = repeat_last
        self.list_file = list_file
        self.stabilize = stabilize
        self.channels = channels
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (self.channels, self.num_frames, *height_and_width(self.image_size))

    @property
    def num_classes(self) -> int:
        """How many class subfolders there are, or one more than the largest label of the list."""
        if self.list_file is None:
            return len(self.class_names)
        return max((label + 1 for _, label in self._listed if label is not None), default=0)

    @property
    def class_names(self) -> list[str]:
        """Names of the class subfolders; a label is a place in this list."""
        return [] if self.list_file is not None else self._layout.class_names

    @cached_property
    def _layout(self) -> Layout:
        if self.root.is_file():
            return Layout({"train": [Found(self.root, "")]}, [])
        if not self.root.exists():
            raise DatasetNotFoundError(f"There is no {self.root.absolute()}; name a folder of videos, or one, by root.")
        layout = read_layout(self.root, find_videos, "videos", self.left_out)
        check_not_empty(self.root, layout.splits["train"], "videos", self.left_out)
        return layout

    @property
    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        return super().condition_shapes | {"image": (self.channels, *height_and_width(self.image_size))}

    @cached_property
    def _listed(self) -> list[tuple[Path, int | None]]:
        """The pictures of the list, and their labels from 0 on; none without a list."""
        if self.list_file is None:
            return []
        path = self.root / self.list_file
        if not path.is_file():
            raise DatasetNotFoundError(f"There is no list {path.absolute()}; name one below root by list_file.")
        listed: list[tuple[Path, int | None]] = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            name, _, label = line.strip().rpartition(" ")
            if name and label.isdigit():
                if label == "0":
                    raise DataError(f"Line {number} of {path} has the label 0; expected labels from 1 on.")
                listed.append((self.root / name, int(label) - 1))
            elif line.strip():
                listed.append((self.root / line.strip(), None))
        if len({label is None for _, label in listed}) > 1:
            raise DataError(f"{path} has lines with a label and lines without; expected one kind.")
        return listed

    def _read(self) -> dict[Split, list[Frames]]:
        """Every video there is, decoded, as they should be in length and rate."""
        size = height_and_width(self.image_size)
        if self.stabilize:
            scale = max(1, SIDE / min(size))
            size = round(scale * size[0]), round(scale * size[1])
        videos: dict[Split, list[Frames]] = {}
        if self.list_file is not None:
            listed = [read_stacked(path, size, self.channels)._replace(label=label) for path, label in self._listed]
            videos["train"] = listed
        else:
            for split, part in self._layout.splits.items():
                videos[split] = []
                for path, class_name in part:
                    label = self.class_names.index(class_name) if self.class_names else None
                    videos[split] += [video._replace(label=label) for video in read_any(path, size, self.channels)]
        return {
            split: [
                self._long_enough(at_rate(video, self.frame_rate))
                for video in part
                if self.classes is None or video.label in self.classes
            ]
            for split, part in videos.items()
        }

    def load(self) -> dict[Split, Dataset[Batch]]:
        read = self._read()
        videos = [video for part in read.values() for video in part]
        if not read["train"]:
            raise DatasetNotFoundError(f"{self.root.absolute()} holds no videos with classes={self.classes}.")
        order = torch.randperm(len(read["train"]), generator=torch.Generator().manual_seed(HELD_OUT_SEED)).tolist()
        cut = {
            split: self._clips(videos, rows) for split, rows in ({"train": order} | self._rows_of_others(read)).items()
        }
        # From both ends, so that few videos are in two splits, and few clips are lost as they overlap.
        clips = cut["train"]
        shares: dict[Split, float] = {"val": self.val_fraction, "test": self.test_fraction}
        num_val, num_test = (0 if split in cut else round(share * len(clips)) for split, share in shares.items())
        val, rest, test = clips[:num_val], clips[num_val : len(clips) - num_test], clips[len(clips) - num_test :]
        test = [clip for clip in test if not self._overlaps(clip, val)]
        train = [clip for clip in rest if not self._overlaps(clip, val + test)]
        parts: dict[Split, list[Clip]] = {"train": train, "val": cut.get("val", val), "test": cut.get("test", test)}
        if self.stabilize:
            return self._steadied(videos, parts)
        return {split: Clips(videos, part, self.num_frames) for split, part in parts.items()}

    def _clips(self, videos: Sequence[Frames], rows: Sequence[int]) -> list[Clip]:
        """The clips of some of the videos, in order."""
        return [
            Clip(row, start)
            for row in rows
            for start in range(0, videos[row].pixels.shape[1] - self.num_frames + 1, self.stride)
        ]

    @staticmethod
    def _rows_of_others(read: dict[Split, list[Frames]]) -> dict[Split, list[int]]:
        """Where the videos of the splits that have a folder of their own stand, behind those to train on."""
        first, rows = 0, {}
        for split, part in read.items():
            rows[split] = list(range(first, first + len(part)))
            first += len(part)
        del rows["train"]
        return rows

    def _steadied(self, videos: Sequence[Frames], parts: dict[Split, list[Clip]]) -> dict[Split, Dataset[Batch]]:
        """Each clip as a video of its own, of a camera that stands still; without those that cannot be steadied."""
        datasets: dict[Split, Dataset[Batch]] = {}
        for split, part in parts.items():
            kept = []
            for row, start in part:
                frames = stabilize(videos[row].pixels[:, start : start + self.num_frames])
                if frames is not None:
                    kept.append(videos[row]._replace(pixels=resized(frames, self.image_size)))
            if len(kept) < len(part):
                warnings.warn(
                    f"{len(part) - len(kept)} of {len(part)} {split} clips are left out: two of their frames cannot be "
                    "matched, or the camera turns away.",
                    stacklevel=2,
                )
            datasets[split] = Clips(kept, [Clip(row, 0) for row in range(len(kept))], self.num_frames)
        return datasets

    def _overlaps(self, clip: Clip, others: Sequence[Clip]) -> bool:
        return any(clip.video == other.video and abs(clip.start - other.start) < self.num_frames for other in others)

    def _long_enough(self, video: Frames) -> Frames:
        missing = self.num_frames - video.pixels.shape[1]
        if missing <= 0:
            return video
        if not self.repeat_last:
            at = "" if self.frame_rate is None else f" at {self.frame_rate:g} a second"
            raise DataError(
                f"{video.name} has {video.pixels.shape[1]} frames{at}, and num_frames is {self.num_frames}; give "
                "fewer, or repeat_last=true, which repeats the last one."
            )
        return video._replace(pixels=torch.cat([video.pixels, video.pixels[:, -1:].expand(-1, missing, -1, -1)], 1))
