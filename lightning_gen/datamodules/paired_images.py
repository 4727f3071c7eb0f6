"""Pairs of pictures for translation: files with both side by side, or two folders with the same names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Sides, Size
from lightning_gen.datamodules.base import (
    Batch,
    ImageDataModule,
    Loading,
    Split,
    as_is,
    check_load_size,
    cut_out_at,
    height_and_width,
)
from lightning_gen.datamodules.folders import split_folders
from lightning_gen.datamodules.image_folder import as_8_bit, find_pictures, upright
from lightning_gen.errors import DataError, DatasetNotFoundError

SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Pair(NamedTuple):
    """The files of A and B: one and the same if both stand in it side by side."""

    a: Path
    b: Path


def pixels(picture: Image.Image, channels: int, size: Sides | None = None) -> Tensor:
    """8-bit pixels `(channels, H, W)`, squeezed to a size if one is given."""
    picture = as_8_bit(picture, "L" if channels == 1 else "RGB")
    height, width = (picture.height, picture.width) if size is None else height_and_width(size)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).view(picture.height, picture.width, channels).permute(2, 0, 1)


def read_pair(pair: Pair) -> tuple[Image.Image, Image.Image]:
    """Both pictures of a pair.

    Raises:
        DataError: if a file cannot be read, cannot be cut in two, or the two are of different sizes; it is named.
    """
    with upright(pair.a) as a:
        pass
    if pair.a == pair.b:
        if a.width % 2:
            raise DataError(
                f"{pair.a} is {a.width} pixels wide, an odd number; expected two pictures of equal width side by side."
            )
        return a.crop((0, 0, a.width // 2, a.height)), a.crop((a.width // 2, 0, a.width, a.height))
    with upright(pair.b) as b:
        pass
    if a.size != b.size:
        raise DataError(f"{pair.a} has {a.width} x {a.height} pixels and its partner {pair.b} {b.width} x {b.height}.")
    return a, b


def cut_out(picture: Tensor, image_size: tuple[int, int]) -> Tensor:
    """A random part, `(C, *image_size)`, of a picture `(C, H, W)`; nothing is drawn if it is as large."""
    height, width = image_size
    if picture.shape[1:] == image_size:
        return picture
    ((top, left),) = cut_out_at(1, (picture.shape[1] - height, picture.shape[2] - width)).tolist()
    return picture[:, top : top + height, left : left + width]


class PairDataset(Dataset[Batch]):
    """Pairs read from files as they are needed, moved and mirrored together in training.

    Args:
        pairs: the files.
        reverse: the source is B.
        source_channels: 1 for grey, 3 for colour.
        channels: of the images to be made.
        image_size: side, or height and width, of both in pixels.
        load_size: what they are resized to before a random part is cut out.
        flip: mirror both left to right half of the time.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        reverse: bool,
        source_channels: int,
        channels: int,
        image_size: Sides,
        load_size: Sides,
        flip: bool,
    ) -> None:
        self.pairs = pairs
        self.reverse = reverse
        self.source_channels = source_channels
        self.channels = channels
        self.image_size = height_and_width(image_size)
        self.load_size = height_and_width(load_size)
        self.flip = flip

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Batch:
        return {key: values[0] for key, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once; the loader prefers it to `__getitem__`."""
        rows = torch.stack([self._read(self.pairs[index]) for index in indices]).float().div_(255)
        source, image = rows.split([self.source_channels, self.channels], dim=1)
        return {"source": source, "image": image}

    def _read(self, pair: Pair) -> Tensor:
        """Source and image on top of each other, `(source_channels + channels, H, W)`, uint8."""
        a, b = read_pair(pair)
        source, image = (b, a) if self.reverse else (a, b)
        both = torch.cat(
            [pixels(source, self.source_channels, self.load_size), pixels(image, self.channels, self.load_size)]
        )
        both = cut_out(both, self.image_size)
        return both.flip(-1) if self.flip and torch.rand(()) < 0.5 else both


class Inputs(Dataset[Batch]):
    """Sources without partners, each in its own size."""

    def __init__(self, paths: Sequence[Path], channels: int) -> None:
        self.paths = paths
        self.channels = channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Batch:
        with upright(self.paths[index]) as picture:
            return {"source": pixels(picture, self.channels).float().div_(255)}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch of one: sizes differ."""
        return {key: torch.stack([self[index][key] for index in indices]) for key in ("source",)}


class PairedImageDataModule(ImageDataModule):
    """Pairs of a source and the image to be made of it, each batch with `source` and `image`.

    Two layouts are read. In the published one `root/{train,val,test}` hold files with A on the left and B on the right.
    In the other `root/a/{train,val,test}` and `root/b/{train,val,test}` (or capital letters) hold files with the same
    names. Splits may have their other usual names (`validation`, ...). A split without a folder is empty. Pictures are
    squeezed to their size, as the authors do.

    Args:
        root: the folder.
        direction: which of the two is the source.
        image_size: side of the pictures in pixels, or height and width.
        load_size: training pictures are resized to this side, or height and width, and a random part of `image_size` is
            cut out of both at the same place; no jitter if None or equal.
        source_channels: 3 for colour, 1 for grey.
        channels: of the images to be made.
        batch_size: pairs a batch, on each rank.
        num_workers: processes that read and decode.
        flip: mirror training pairs left to right half of the time.
        predict_dir: folder of sources to translate in `predict`, each in its own size; the test pairs if None.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if an argument is out of range.
    """

    rows_are = "pairs"

    def __init__(
        self,
        root: str,
        direction: Literal["a_to_b", "b_to_a"] = "a_to_b",
        image_size: Sides = 256,
        load_size: Sides | None = 286,
        source_channels: Literal[1, 3] = 3,
        channels: Literal[1, 3] = 3,
        batch_size: Size = 1,
        num_workers: Count = 0,
        flip: bool = True,
        predict_dir: str | None = None,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(root, batch_size, num_workers, **loading)
        check_load_size(image_size, load_size or image_size)
        self.direction = direction
        self.image_size = image_size
        self.load_size = load_size or image_size
        self.source_channels = source_channels
        self.channels = channels
        self.flip = flip
        self.predict_dir = predict_dir

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (self.channels, *height_and_width(self.image_size))

    @property
    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"source": (self.source_channels, *self.image_shape[1:])}

    @property
    def draws(self) -> bool:
        return self.flip or self.load_size != self.image_size

    def setup(self, stage: str | None = None) -> None:
        """Load all splits, once; sources to predict need no pairs."""
        if stage != "predict" or self.predict_dir is None:
            super().setup(stage)

    @cached_property
    def _pairs(self) -> dict[Split, list[Pair]]:
        if not self.root.is_dir():
            raise DatasetNotFoundError(f"{self.root.absolute()} is not a folder; name a folder of pairs by root.")
        folders = next(((self.root / a, self.root / b) for a, b in ("ab", "AB") if (self.root / a).is_dir()), None)
        if folders is None:
            side_by_side = split_folders(self.root)
            pairs = {split: self._side_by_side(side_by_side.get(split)) for split in SPLITS}
        else:
            a, b = (split_folders(folder) if folder.is_dir() else {} for folder in folders)
            pairs = {split: self._parallel(a.get(split), b.get(split)) for split in SPLITS}
        if not pairs["train"]:
            raise DatasetNotFoundError(
                f"{self.root.absolute()} has no training pairs; expected files with both pictures side by side in "
                "train, or files of equal names in a/train and b/train."
            )
        return pairs

    def _side_by_side(self, folder: Path | None) -> list[Pair]:
        found = [] if folder is None else find_pictures(folder, self.left_out)
        return [Pair(picture.path, picture.path) for picture in found]

    def _parallel(self, *folders: Path | None) -> list[Pair]:
        sides = [
            {}
            if folder is None
            else {
                picture.path.relative_to(folder).with_suffix(""): picture.path
                for picture in find_pictures(folder, self.left_out)
            }
            for folder in folders
        ]
        if alone := sorted(sides[0].keys() ^ sides[1].keys()):
            path = sides[0].get(alone[0]) or sides[1][alone[0]]
            raise DataError(f"{path} has no partner of the same name in the other folder ({len(alone)} such files).")
        return [Pair(path, sides[1][name]) for name, path in sides[0].items()]

    def load(self) -> dict[Split, Dataset[Batch]]:
        return {
            split: PairDataset(
                pairs,
                self.direction == "b_to_a",
                self.source_channels,
                self.channels,
                self.image_size,
                self.load_size if split == "train" else self.image_size,
                self.flip and split == "train",
            )
            for split, pairs in self._pairs.items()
        }

    def predict_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """The sources of `predict_dir` one by one, or the test pairs."""
        if self.predict_dir is None:
            return self.test_dataloader()
        pictures = find_pictures(Path(self.predict_dir).expanduser())
        if not pictures:
            raise DatasetNotFoundError(f"{self.predict_dir} holds no pictures to translate.")
        return DataLoader(Inputs([picture.path for picture in pictures], self.source_channels), collate_fn=as_is)
