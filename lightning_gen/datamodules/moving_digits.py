"""Digits that move on straight lines and bounce off the borders: Moving MNIST.

Srivastava, Mansimov & Salakhutdinov, "Unsupervised Learning of Video Representations using LSTMs" (ICML 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Share, Size
from lightning_gen.datamodules.base import HELD_OUT_SEED, Batch, ImageDataModule, Loading, Split
from lightning_gen.datamodules.digits import DigitsDataModule
from lightning_gen.datamodules.mnist import MNISTDataModule
from lightning_gen.errors import DataError, DatasetNotFoundError

PUBLISHED = "mnist_test_seq.npy"
FIRST_SEED = {"val": HELD_OUT_SEED + 2**32, "test": HELD_OUT_SEED}
"""Seed of the first clip of a held-out part; the i-th has the i-th seed after it."""


def bounce(start: Tensor, angle: Tensor, num_frames: int, step: float) -> Tensor:
    """Move points in the unit square, which turn back at its sides.

    The first position is that after one step. A point that would leave the square stays on the side that it met, and
    this component of its velocity is reversed.

    Args:
        start: `(..., 2)` in [0, 1].
        angle: of the velocity, whose components are its sine and cosine times the step; radians, `(...)`.
        num_frames: T.
        step: length of a step.

    Returns:
        `(..., T, 2)` in [0, 1].

    >>> bounce(torch.tensor([0.5, 0.5]), torch.tensor(0.0), 4, 0.25)[:, 1]
    tensor([0.7500, 1.0000, 0.7500, 0.5000])
    """
    position, velocity = start, step * torch.stack([angle.sin(), angle.cos()], -1)
    positions = []
    for _ in range(num_frames):
        position = position + velocity
        velocity = torch.where((position <= 0) | (position >= 1), -velocity, velocity)
        position = position.clamp(0, 1)
        positions.append(position)
    return torch.stack(positions, -2)


def lay(pieces: Tensor, corners: Tensor, frames: Tensor) -> Tensor:
    """Lay moving pieces on the frames of clips; where something overlaps, the brighter pixel is seen.

    Args:
        pieces: bytes, `(N, P, H, W)`: P pieces for each clip.
        corners: top and left pixel of each piece in each frame, integers, `(N, P, T, 2)`.
        frames: bytes, `(N, T, S, S)`, what lies behind; written to.

    Returns:
        The frames.
    """
    number, num_frames, side, _ = frames.shape
    height, width = pieces.shape[-2:]
    pixels = frames.view(-1)
    offsets = (torch.arange(height)[:, None] * side + torch.arange(width)).flatten()
    origins = torch.arange(number * num_frames).view(number, num_frames) * side**2
    for piece, corner in zip(pieces.unbind(1), corners.unbind(1), strict=True):
        places = (origins + corner[..., 0] * side + corner[..., 1])[..., None] + offsets  # (N, T, H W)
        pixels[places] = torch.maximum(pixels[places], piece.flatten(1)[:, None])
    return frames


class MovingDigits(Dataset[Batch]):
    """Clips of moving digits, which are functions of a few uniform numbers.

    Args:
        digits: bytes, `(M, H, W)`.
        image_size: side of a frame in pixels.
        num_digits: digits in a clip.
        num_frames: T.
        step: which a digit moves from frame to frame, as a part of the way from border to border.
        size: number of clips.
        first_seed: of clip 0; clip i is the same whoever asks for it. If None every access draws another clip, from the
            global random stream.
    """

    def __init__(
        self,
        digits: Tensor,
        image_size: int,
        num_digits: int,
        num_frames: int,
        step: float,
        size: int,
        first_seed: int | None = None,
    ) -> None:
        self.digits = digits
        self.image_size = image_size
        self.num_digits = num_digits
        self.num_frames = num_frames
        self.step = step
        self.size = size
        self.first_seed = first_seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Batch:
        return {key: values[0] for key, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once; the loader prefers it to `__getitem__`."""
        return {"video": self.draw(self.uniform(indices)).float().div_(255)[:, None]}

    def uniform(self, indices: Sequence[int]) -> Tensor:
        """What decides these clips, `(N, num_digits, 4)` in [0, 1): which digit, its start (down, right), its angle."""
        if self.first_seed is None:
            return torch.rand(len(indices), self.num_digits, 4, dtype=torch.float32)
        generator = torch.Generator()
        seeds = (generator.manual_seed(self.first_seed + int(index)) for index in indices)
        return torch.stack([torch.rand(self.num_digits, 4, generator=seed, dtype=torch.float32) for seed in seeds])

    def positions(self, uniform: Tensor) -> Tensor:
        """Where the digits are in each frame, parts of the way from border to border, `(N, num_digits, T, 2)`."""
        return bounce(uniform[..., 1:3], 2 * torch.pi * uniform[..., 3], self.num_frames, self.step)

    def draw(self, uniform: Tensor) -> Tensor:
        """The clips of some uniform numbers, bytes, `(N, T, S, S)`."""
        pieces = self.digits[(uniform[..., 0] * len(self.digits)).long()]
        corners = ((self.image_size - pieces.shape[-1]) * self.positions(uniform)).long()
        frames = torch.zeros(len(uniform), self.num_frames, self.image_size, self.image_size, dtype=torch.uint8)
        return lay(pieces, corners, frames)


class PublishedClips(Dataset[Batch]):
    """The published test clips, read from their file batch by batch.

    Args:
        path: the file, bytes, `(20, N, 64, 64)`.
        num_frames: the first of each clip.
        image_size: side of a frame that is expected.

    Raises:
        DatasetNotFoundError: if there is no such file.
        DataError: if it is damaged, or its clips are shorter or of another size.
    """

    def __init__(self, path: Path, num_frames: int, image_size: int) -> None:
        if not path.exists():
            raise DatasetNotFoundError(
                f"The published clips were looked for in {path.absolute()} and are not there; name the folder that "
                f"holds {PUBLISHED} by root or the environment variable LIGHTNING_GEN_DATA, or set "
                "published_test=false and take clips made by the same rules."
            )
        try:
            self.frames: np.ndarray[Any, Any] = np.load(path, mmap_mode="r")
        except (OSError, EOFError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error}); fetch it again.") from error
        shape = self.frames.shape
        if self.frames.dtype != np.uint8 or len(shape) != 4 or shape[2:] != (image_size, image_size):
            raise DataError(
                f"{path} holds {self.frames.dtype} of the shape {shape}; expected bytes (frames, clips, {image_size}, "
                f"{image_size})."
            )
        if shape[0] < num_frames:
            raise DataError(f"num_frames is {num_frames}; the clips in {path} have {shape[0]} frames.")
        self.num_frames = num_frames

    def __len__(self) -> int:
        return self.frames.shape[1]

    def __getitem__(self, index: int) -> Batch:
        return {key: values[0] for key, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        clips = torch.from_numpy(self.frames[: self.num_frames, list(indices)]).transpose(0, 1)
        return {"video": clips.float().div_(255)[:, None]}


class MovingDigitsDataModule(ImageDataModule):
    """Moving MNIST: clips of digits that move on straight lines, bounce, and hide each other where they overlap.

    A digit starts anywhere, in any direction, and moves by a tenth of the way from border to border in each frame (3.6
    pixels of 36). Training never ends: each clip is drawn when it is asked for, and an epoch is `epoch_size` of them.
    The clips for validation and test have a seed each, so that all workers and ranks, with any size of batch, see the
    same; their digits are those of the same part of the source.

    Args:
        source: the 5,000 embedded digits (`digits`), or MNIST, split 50,000/10,000/10,000 (`mnist`).
        image_size: side of a frame in pixels.
        num_digits: digits in a clip.
        digit_size: side of a digit in pixels, to which its 28 are averaged.
        num_frames: frames of a clip.
        step: from frame to frame, as a part of the way from border to border.
        epoch_size: clips of a training epoch.
        held_out_size: clips for validation, and for test.
        published_test: test on the clips of `mnist_test_seq.npy` (Srivastava et al.) in `root`.
        root: folder of MNIST and of the published clips; the environment variable LIGHTNING_GEN_DATA if None, else
            `./data`.
        batch_size: clips a batch, on each rank.
        num_workers: processes that draw clips.
        download: fetch MNIST if it is missing.
        classes: keep only these digits.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if a size or number is out of range.
    """

    def __init__(
        self,
        source: Literal["digits", "mnist"] = "digits",
        image_size: Size = 64,
        num_digits: Size = 2,
        digit_size: Size = 28,
        num_frames: Size = 20,
        step: Share = 0.1,
        epoch_size: Size = 10000,
        held_out_size: Size = 10000,
        published_test: bool = False,
        root: str | None = None,
        batch_size: Size = 64,
        num_workers: Count = 0,
        download: bool = False,
        classes: list[int] | None = None,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(
            root, batch_size, num_workers, download, **loading
        )  # The classes are the source's: clips have none.
        if digit_size > min(28, image_size):
            raise DataError(
                f"digit_size is {digit_size} and image_size {image_size}; expected digits of 1 to 28 pixels that fit "
                "into the frame."
            )
        self.image_size = image_size
        self.num_digits = num_digits
        self.digit_size = digit_size
        self.num_frames = num_frames
        self.step = step
        self.epoch_size = epoch_size
        self.held_out_size = held_out_size
        self.published_test = published_test
        self.digits: ImageDataModule = (
            DigitsDataModule(classes=classes)
            if source == "digits"
            else MNISTDataModule(root, download=download, classes=classes)
        )

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (1, self.num_frames, self.image_size, self.image_size)

    @property
    def num_classes(self) -> int:
        """0: a clip has no label. `classes` chooses among the labels of the source."""
        return 0

    @property
    def draws(self) -> bool:
        return True

    def prepare_data(self) -> None:
        """Download MNIST if it is missing and asked for; Lightning calls this in one process."""
        self.digits.prepare_data()

    def load(self) -> dict[Split, Dataset[Batch]]:
        self.digits.setup()
        datasets: dict[Split, Dataset[Batch]] = {}
        for split, source in self.digits.datasets.items():
            if split == "test" and self.published_test:
                datasets[split] = PublishedClips(self.root / PUBLISHED, self.num_frames, self.image_size)
            else:
                datasets[split] = self.clips(source.columns["image"], split)  # type: ignore[attr-defined]
        return datasets

    def clips(self, digits: Tensor, split: Split) -> Dataset[Batch]:
        """The clips of one part of the data, of its digits, bytes `(M, 1, 28, 28)`."""
        if self.digit_size < 28:
            smaller = [F.interpolate(part.float(), self.digit_size, mode="area") for part in digits.split(5000)]
            digits = torch.cat(smaller).round().byte()
        size = self.epoch_size if split == "train" else self.held_out_size
        motion = (self.image_size, self.num_digits, self.num_frames, self.step)
        return MovingDigits(digits.squeeze(1), *motion, size, FIRST_SEED.get(split))
