"""Anybody's own pictures: a folder of images of any size and kind."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Share, Sides, Size
from lightning_gen.datamodules.base import Batch, ImageDataModule, Loading, Split, check_fractions, height_and_width
from lightning_gen.datamodules.folders import (
    Found,
    Layout,
    check_not_empty,
    class_of,
    draw_missing,
    read_layout,
    suffix_of,
    walk,
)
from lightning_gen.errors import DataError, DatasetNotFoundError

UNREAD = ("EPS", "MPEG")
"""Formats that Pillow opens and cannot read: by a program that does what a file says, or their header alone."""


def suffixes() -> set[str]:
    """Of the files that Pillow reads as pictures here, in small letters."""
    Image.init()
    return {
        suffix
        for suffix, name in Image.registered_extensions().items()
        if name in Image.OPEN and name not in UNREAD and not is_stub(Image.OPEN[name][0])
    }


def is_stub(factory: object) -> bool:
    """Whether a format of Pillow needs a reader that nobody has brought."""
    return isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)


def find_pictures(folder: Path, left_out: Counter[str] | None = None) -> list[Found]:
    """Every picture in a folder and its subfolders, in alphabetical order; hidden ones are left out.

    Args:
        folder: where they are.
        left_out: counts the files that are no pictures, by their suffix.
    """
    left_out, known, found = Counter() if left_out is None else left_out, suffixes(), []
    for parent, names in walk(folder, left_out):
        for path in (parent / name for name in names):
            if path.suffix.lower() in known:
                found.append(Found(path, class_of(path, folder)))
            else:
                left_out[suffix_of(path)] += 1
    return sorted(found)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises (OSError, SyntaxError, struct.error, ...) into one line that names the file."""
    try:
        yield
    except Exception as error:
        raise DataError(
            f"{path} cannot be read as a picture ({error}); replace or remove it, or leave out all such files with "
            "skip_corrupt=true."
        ) from error


@contextmanager
def upright(path: Path) -> Iterator[Image.Image]:
    """A picture turned as its EXIF data say, decoded; what cannot be is named."""
    with naming(path), Image.open(path) as picture:
        turned = as_it_looks(picture)
        turned.load()
    with naming(path):
        yield turned


def as_it_looks(picture: Image.Image) -> Image.Image:
    """A picture turned as its EXIF data say."""
    return ImageOps.exif_transpose(with_depth(picture))


def with_depth(picture: Image.Image) -> Image.Image:
    """The grey values of a 16-bit PGM as such: Pillow opens them as if they were of 32 bits, scaled to 65535."""
    if picture.mode == "I" and picture.format == "PPM":
        return Image.fromarray(np.asarray(picture).astype(np.uint16))
    return picture


def check_header(path: Path) -> None:
    """Check that a file begins like an image, and the checksums of a PNG: 0.1 ms, where decoding takes 1 ms."""
    with naming(path), Image.open(path) as picture:
        picture.verify()


def channels_of(picture: Image.Image) -> Literal[1, 3]:
    """1 for a picture saved in grey, of any depth; 3 for all others."""
    return 1 if picture.mode in ("1", "L", "LA", "La", "F") or picture.mode.startswith("I") else 3


def as_8_bit(picture: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    """Convert pixels of any kind to 8-bit grey or colour; what is transparent shows white."""
    picture = with_depth(picture)
    if picture.mode.startswith(("I", "F")):  # Here Pillow would clip at 255 instead of scaling.
        values = np.asarray(picture, dtype=np.float64)
        if picture.mode.startswith("I;16"):
            values = values / 257  # 65535 is 255 * 257.
        elif picture.mode == "F" or values.min() < 0 or values.max() > 255:
            raise ValueError(
                f"pixels of 32 bits, here from {values.min():g} to {values.max():g}, have no known range but 0 to 255 "
                "in integers, save it with 8 or 16 bits"
            )
        picture = Image.fromarray(values.round().astype(np.uint8))
    elif picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert(mode)


def read_picture(path: Path, image_size: Sides, channels: int) -> Tensor:
    """Read an image: turned upright as its EXIF data say, resized, with what is too much cropped on both sides.

    Args:
        path: an image file.
        image_size: side, or height and width, of the result in pixels.
        channels: 1 for grey, 3 for colour.

    Returns:
        uint8, `(channels, H, W)`.

    Raises:
        DataError: if it cannot be decoded, naming the file.
    """
    with naming(path), Image.open(path) as picture:
        # A JPEG is decoded at a fraction of its size, but not under twice ours: seven times as fast for a photograph
        # of 12 megapixels.
        side = 2 * max(height_and_width(image_size))
        picture.draft(None, (side, side))
        return fitted(as_it_looks(picture), image_size, channels)


def fitted(picture: Image.Image, image_size: Sides, channels: int) -> Tensor:
    """The largest centred part of a picture that has the proportions asked for, resized: uint8 `(channels, H, W)`."""
    pixels = as_8_bit(picture, "L" if channels == 1 else "RGB")
    height, width = height_and_width(image_size)
    part = ImageOps.fit(pixels, (width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(part)).view(height, width, channels).permute(2, 0, 1)


class PictureDataset(Dataset[Batch]):
    """Pictures read from files as they are needed.

    Args:
        paths: the files.
        labels: `(N,)`, or None.
        image_size: side, or height and width, in pixels.
        channels: 1 for grey, 3 for colour.
        flip: mirror each picture left to right half of the time, from the global random stream.
    """

    def __init__(
        self, paths: Sequence[Path], labels: Tensor | None, image_size: Sides, channels: int, flip: bool
    ) -> None:
        self.paths = paths
        self.labels = labels
        self.image_size = image_size
        self.channels = channels
        self.flip = flip

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Batch:
        return {key: values[0] for key, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once; the loader prefers it to `__getitem__`."""
        images = torch.stack([read_picture(self.paths[index], self.image_size, self.channels) for index in indices])
        if self.flip:
            mirrored = torch.rand(len(images)) < 0.5
            images[mirrored] = images[mirrored].flip(-1)
        batch = {"image": images.float().div_(255)}
        if self.labels is not None:
            batch["label"] = self.labels[torch.as_tensor(indices)]
        return batch


class ImageFolderDataModule(ImageDataModule):
    """Pictures of any size, grey or colour, from a folder and its subfolders.

    If the folder has a subfolder `train` and one of `val` and `test`, or no other, these are the splits, in any case
    and by their other names (`training`, `valid`, `validation`, `dev`, `testing`); whichever of the last two is
    missing, and both where there is no `train`, is drawn from the training pictures, always alike for the same file
    names. If the pictures lie in two or more subfolders of their splits, these are classes, numbered in alphabetical
    order. A few that lie beside these, fewer than the smallest class has, are left out. A line before training says
    what was found.

    Every format is read that Pillow reads. Links are followed, but not back to where the data have been read.

    Every file's header is checked before training starts. Damage further on in a file is found when it is read, and
    stops the run with the file's name.

    Args:
        root: the folder.
        image_size: side of square pictures in pixels, or height and width: what is too long by these proportions is
            cropped on both sides, and the rest resized.
        channels: 3 for colour, 1 for grey.
        batch_size: images a batch, on each rank.
        num_workers: processes that read and decode.
        classes: keep only pictures with these labels.
        val_fraction: share of the pictures that validation gets if there is no folder for it.
        test_fraction: share of the pictures that the test gets if there is no folder for it.
        flip: mirror each training picture left to right half of the time.
        skip_corrupt: leave out files that cannot be decoded, with one warning that lists them; every file is decoded
            once for this before training starts.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if an argument is out of range.
    """

    rows_are = "pictures"

    def __init__(
        self,
        root: str,
        image_size: Sides = 64,
        channels: Literal[1, 3] = 3,
        batch_size: Size = 64,
        num_workers: Count = 0,
        classes: list[int] | None = None,
        val_fraction: Share = 0.1,
        test_fraction: Share = 0.1,
        flip: bool = False,
        skip_corrupt: bool = False,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(root, batch_size, num_workers, classes=classes, **loading)
        check_fractions(val_fraction, test_fraction)
        self.image_size = image_size
        self.channels = channels
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.flip = flip
        self.skip_corrupt = skip_corrupt

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (self.channels, *height_and_width(self.image_size))

    @property
    def num_classes(self) -> int:
        """How many class subfolders there are, 0 if the pictures are not sorted into any."""
        return len(self.class_names)

    @property
    def draws(self) -> bool:
        return self.flip

    @property
    def class_names(self) -> list[str]:
        """Names of the class subfolders; a label is a place in this list."""
        return self._layout.class_names

    @cached_property
    def _layout(self) -> Layout:
        if not self.root.is_dir():
            raise DatasetNotFoundError(f"{self.root.absolute()} is not a folder; name a folder of pictures by root.")
        layout = read_layout(self.root, find_pictures, self.rows_are, self.left_out)
        check_not_empty(self.root, layout.splits["train"], "pictures", self.left_out)
        return layout

    @cached_property
    def _pictures(self) -> dict[Split, list[Found]]:
        return draw_missing(self._layout.splits, {"val": self.val_fraction, "test": self.test_fraction})

    def load(self) -> dict[Split, Dataset[Batch]]:
        corrupt = self._corrupt()
        datasets: dict[Split, Dataset[Batch]] = {}
        for split, pictures in self._pictures.items():
            paths, labels = [], []
            for path, class_name in pictures:
                label = self.class_names.index(class_name) if self.class_names else None
                if path not in corrupt and (self.classes is None or label in self.classes):
                    paths.append(path)
                    labels.append(label)
            numbers = torch.tensor(labels, dtype=torch.int64) if self.class_names else None
            flip = self.flip and split == "train"
            datasets[split] = PictureDataset(paths, numbers, self.image_size, self.channels, flip)
        return datasets

    def _corrupt(self) -> set[Path]:
        """Check every file; the first one that cannot be read stops the run, unless such files are to be skipped."""
        corrupt = []
        for path in (path for pictures in self._pictures.values() for path, _ in pictures):
            try:
                if self.skip_corrupt:
                    read_picture(path, self.image_size, self.channels)
                else:
                    check_header(path)
            except DataError:
                if not self.skip_corrupt:
                    raise
                corrupt.append(path)
        if corrupt:
            self.left_out["that cannot be read"] += len(corrupt)
            warnings.warn(f"Left out {len(corrupt)} unreadable pictures: {', '.join(map(str, corrupt))}", stacklevel=2)
        return set(corrupt)
