"""Anybody's own videos: a folder of files in any container, of arrays, or of clips as pictures of stacked frames."""

from __future__ import annotations

import os
import warnings
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

from lightning_gen.arguments import Count, Positive, Share, Size
from lightning_gen.datamodules.base import HELD_OUT_SEED, Batch, ImageDataModule, Loading, Split
from lightning_gen.datamodules.files import read_arrays
from lightning_gen.datamodules.image_folder import as_8_bit, as_square
from lightning_gen.datamodules.stabilization import SIDE, stabilize
from lightning_gen.errors import DataError, DatasetNotFoundError

SUFFIXES = (".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")


class Frames(NamedTuple):
    """A video in memory, named as in messages."""

    name: str
    pixels: Tensor  # uint8, (C, T, S, S)
    rate: float | None  # frames per second, None where the file does not say
    label: int | None = None


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


def read_video(path: Path, image_size: int, channels: int) -> Frames:
    """Decode a file: each frame's largest centred square, resized.

    Args:
        path: of a video in any container and codec that PyAV knows.
        image_size: side of the frames in pixels.
        channels: 1 for grey, 3 for colour.

    Raises:
        DataError: if it is damaged, has no frames, frames of different sizes or a codec that is missing, or PyAV is not
            installed; it is named.
    """
    try:
        import av
    except ImportError as error:
        raise DataError(f"{path} is a video, which PyAV decodes; type: pip install 'lightning_gen[video]'") from error
    squares: list[Tensor] = []
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
            size = size if squares else (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise DataError(
                    f"{path} has frames of different sizes: {size[0]} x {size[1]}, and {frame.width} x {frame.height} "
                    f"from frame {len(squares)} on; cut it there."
                )
            # Shrunk by FFmpeg to a side over ours, as a twentieth of the pixels are converted and copied then.
            scale = max(2 * image_size / min(size), 1 / min(size))
            if scale < 1:
                frame = frame.reformat(round(scale * size[0]), round(scale * size[1]), interpolation="AREA")
            squares.append(as_square(frame.to_image(), image_size, channels))
        rate = stream.average_rate
    return Frames(os.fspath(path), stacked(squares, path), None if rate is None else float(rate))


def read_stacked(path: Path, image_size: int, channels: int) -> Frames:
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
        return Frames(os.fspath(path), stacked([as_square(f, image_size, channels) for f in frames], path), None)


def read_clips(path: Path, image_size: int, channels: int) -> list[Frames]:
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
        squares = [as_square(Image.fromarray(frame), image_size, channels) for frame in frames[start:end]]
        video = path / str(name)
        found.append(Frames(os.fspath(video), stacked(squares, video), float(rate)))
    return found


def stacked(squares: Sequence[Tensor], path: Path) -> Tensor:
    """Frames `(C, S, S)` as a video `(C, T, S, S)`."""
    if not squares:
        raise DataError(f"{path} is a video without frames; replace or remove it.")
    return torch.stack(list(squares), 1)


def resized(pixels: Tensor, image_size: int) -> Tensor:
    """Frames `(C, T, S, S)` of bytes at another size."""
    frames = F.interpolate(pixels.transpose(0, 1).float(), image_size, mode="bicubic", antialias=True)
    return frames.round().clamp(0, 255).byte().transpose(0, 1)


def at_rate(video: Frames, rate: float | None) -> Frames:
    """The frames nearest to the times of another rate; those there are, if it or the video's own is not known."""
    if rate is None or video.rate is None:
        return video
    number = max(1, round(video.pixels.shape[1] * rate / video.rate))
    nearest = (torch.arange(number) * video.rate / rate).round().long().clamp(max=video.pixels.shape[1] - 1)
    return video._replace(pixels=video.pixels[:, nearest], rate=rate)


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

    Videos may lie in any container and codec that PyAV decodes, or in `.npz` files (see `read_clips`). With `list_file`
    they are clips as pictures of square frames below each other (see `read_stacked`), one path below `root` in each
    line, with or without a label from 1 on behind it.

    Everything is decoded once and held in memory as bytes: an hour of 25 frames a second at 64 x 64 takes 1.1 GB. A
    clip begins every `stride` frames. Videos are held out whole as far as that goes, drawn always alike, and no clip to
    train on shares a frame with one that is held out. A batch has the clips, `video`, and their first frames, `image`.

    Args:
        root: the file or folder.
        image_size: side of the square frames in pixels: the shorter side is resized to it, the longer one cropped.
        num_frames: frames of a clip.
        frame_rate: take the frames nearest to so many a second; those there are if None.
        stride: frames from the start of one clip to that of the next; `num_frames` if None.
        repeat_last: lengthen shorter videos by their last frame, as the authors' reader does; else they are refused.
        list_file: name of the list in `root`.
        stabilize: steady the camera of each clip (see `stabilization`), which takes about half a second a clip once.
            Clips that cannot be steadied are left out, with a warning that counts them.
        channels: 3 for colour, 1 for grey.
        batch_size: clips a batch, on each rank.
        num_workers: processes that load; 0 is the fastest.
        classes: keep only clips with these labels.
        val_fraction: share of the clips that validation gets.
        test_fraction: share of the clips that the test gets.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if an argument is out of range.
    """

    def __init__(
        self,
        root: str,
        image_size: Size = 64,
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
        if val_fraction + test_fraction >= 1:
            raise DataError(
                f"val_fraction={val_fraction}, test_fraction={test_fraction}; expected shares that leave something to "
                "train on."
            )
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
        return (self.channels, self.num_frames, self.image_size, self.image_size)

    @property
    def num_classes(self) -> int:
        """One more than the largest label of the list, 0 if there are none."""
        return max((label + 1 for _, label in self._listed if label is not None), default=0)

    @property
    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        return super().condition_shapes | {"image": (self.channels, self.image_size, self.image_size)}

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

    def _read(self) -> list[Frames]:
        """Every video there is, decoded."""
        size = (max(SIDE, self.image_size) if self.stabilize else self.image_size, self.channels)
        if self.list_file is not None:
            return [read_stacked(path, *size)._replace(label=label) for path, label in self._listed]
        if not self.root.exists():
            raise DatasetNotFoundError(f"There is no {self.root.absolute()}; name a folder of videos, or one, by root.")
        found = [self.root] if self.root.is_file() else sorted(self.root.rglob("*"))
        videos: list[Frames] = []
        for path in found:
            if path.suffix.lower() == ".npz":
                videos += read_clips(path, *size)
            elif path.suffix.lower() in SUFFIXES:
                videos.append(read_video(path, *size))
        return videos

    def load(self) -> dict[Split, Dataset[Batch]]:
        videos = [self._long_enough(at_rate(video, self.frame_rate)) for video in self._read()]
        if self.classes is not None:
            videos = [video for video in videos if video.label in self.classes]
        if not videos:
            raise DatasetNotFoundError(f"{self.root.absolute()} holds no videos (.npz {' '.join(SUFFIXES)}).")
        order = torch.randperm(len(videos), generator=torch.Generator().manual_seed(HELD_OUT_SEED)).tolist()
        clips = [
            Clip(row, start)
            for row in order
            for start in range(0, videos[row].pixels.shape[1] - self.num_frames + 1, self.stride)
        ]
        # From both ends, so that few videos are in two splits, and few clips are lost as they overlap.
        num_val, num_test = (round(share * len(clips)) for share in (self.val_fraction, self.test_fraction))
        val, rest, test = clips[:num_val], clips[num_val : len(clips) - num_test], clips[len(clips) - num_test :]
        test = [clip for clip in test if not self._overlaps(clip, val)]
        train = [clip for clip in rest if not self._overlaps(clip, val + test)]
        parts: dict[Split, list[Clip]] = {"train": train, "val": val, "test": test}
        if self.stabilize:
            return self._steadied(videos, parts)
        return {split: Clips(videos, part, self.num_frames) for split, part in parts.items()}

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
