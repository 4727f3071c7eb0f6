"""Anybody's own pictures: a folder of images of any size and kind."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from lightning_gen.arguments import Count, Share, Size
from lightning_gen.datamodules.base import HELD_OUT_SEED, Batch, ImageDataModule, Split
from lightning_gen.errors import DataError, DatasetNotFoundError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


class Picture(NamedTuple):
    """A file, and the subfolder of its split that it lies in (empty if in none)."""

    path: Path
    class_name: str


def find_pictures(folder: Path) -> list[Picture]:
    """Every image file in a folder and its subfolders, in alphabetical order; hidden ones are left out."""
    found = []
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        inside = Path(parent).relative_to(folder).parts
        found += [
            Picture(Path(parent, name), inside[0] if inside else "")
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
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
        turned = ImageOps.exif_transpose(picture)
        turned.load()
    with naming(path):
        yield turned


def check_header(path: Path) -> None:
    """Check that a file begins like an image, and the checksums of a PNG: 0.1 ms, where decoding takes 1 ms."""
    with naming(path), Image.open(path) as picture:
        picture.verify()


def channels_of(picture: Image.Image) -> Literal[1, 3]:
    """1 for a picture saved in grey, of any depth; 3 for all others."""
    return 1 if picture.mode in ("1", "L", "LA", "La", "F") or picture.mode.startswith("I") else 3


def as_8_bit(picture: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    """Convert pixels of any kind to 8-bit grey or colour; what is transparent shows white."""
    if picture.mode.startswith(("I", "F")):  # Here Pillow would clip at 255 instead of scaling.
        values = np.asarray(picture, dtype=np.float64)
        if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError("pixels of 32 bits have no known range, save it with 8 or 16 bits")
        picture = Image.fromarray((values / 257).round().astype(np.uint8))  # 65535 is 255 * 257.
    elif picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert(mode)


def read_picture(path: Path, image_size: int, channels: int) -> Tensor:
    """Read an image: turned upright as its EXIF data say, shorter side resized, centre cropped.

    Args:
        path: an image file.
        image_size: side of the result in pixels.
        channels: 1 for grey, 3 for colour.

    Returns:
        uint8, `(channels, image_size, image_size)`.

    Raises:
        DataError: if it cannot be decoded, naming the file.
    """
    with naming(path), Image.open(path) as picture:
        # A JPEG is decoded at a fraction of its size, but not under twice ours: seven times as fast for a photograph
        # of 12 megapixels.
        picture.draft(None, (2 * image_size, 2 * image_size))
        return as_square(ImageOps.exif_transpose(picture), image_size, channels)


def as_square(picture: Image.Image, image_size: int, channels: int) -> Tensor:
    """A picture's largest centred square, resized, as uint8 `(channels, image_size, image_size)`."""
    pixels = as_8_bit(picture, "L" if channels == 1 else "RGB")
    square = ImageOps.fit(pixels, (image_size, image_size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(square)).view(image_size, image_size, channels).permute(2, 0, 1)


class PictureDataset(Dataset[Batch]):
    """Pictures read from files as they are needed.

    Args:
        paths: the files.
        labels: `(N,)`, or None.
        image_size: side in pixels.
        channels: 1 for grey, 3 for colour.
        flip: mirror each picture left to right half of the time, from the global random stream.
    """

    def __init__(
        self, paths: Sequence[Path], labels: Tensor | None, image_size: int, channels: int, flip: bool
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

    If the folder has a subfolder `train`, its subfolders `train`, `val` and `test` are the splits; whichever of the
    last two is missing, and both where there is no `train`, is drawn from the training pictures, always alike for the
    same file names. If every picture lies in a subfolder of its split, and there are two or more such subfolders, these
    are classes, numbered in alphabetical order.

    Every file's header is checked before training starts. Damage further on in a file is found when it is read, and
    stops the run with the file's name.

    Args:
        root: the folder.
        image_size: side of the square pictures in pixels: the shorter side is resized to it, the longer one cropped.
        channels: 3 for colour, 1 for grey.
        batch_size: images a batch, on each rank.
        num_workers: processes that read and decode.
        classes: keep only pictures with these labels.
        val_fraction: share of the pictures that validation gets if there is no folder for it.
        test_fraction: share of the pictures that the test gets if there is no folder for it.
        flip: mirror each training picture left to right half of the time.
        skip_corrupt: leave out files that cannot be decoded, with one warning that lists them; every file is decoded
            once for this before training starts.

    Raises:
        DataError: if an argument is out of range.
    """

    def __init__(
        self,
        root: str,
        image_size: Size = 64,
        channels: Literal[1, 3] = 3,
        batch_size: Size = 64,
        num_workers: Count = 0,
        classes: list[int] | None = None,
        val_fraction: Share = 0.1,
        test_fraction: Share = 0.1,
        flip: bool = False,
        skip_corrupt: bool = False,
    ) -> None:
        super().__init__(root, batch_size, num_workers, classes=classes)
        if val_fraction + test_fraction >= 1:
            raise DataError(
                f"val_fraction={val_fraction}, test_fraction={test_fraction}; expected shares that leave something to "
                "train on."
            )
        self.image_size = image_size
        self.channels = channels
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.flip = flip
        self.skip_corrupt = skip_corrupt

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (self.channels, self.image_size, self.image_size)

    @property
    def num_classes(self) -> int:
        """How many class subfolders there are, 0 if the pictures are not sorted into any."""
        return len(self.class_names)

    @property
    def draws(self) -> bool:
        return self.flip

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the class subfolders; a label is a place in this list."""
        names = sorted({picture.class_name for pictures in self._pictures.values() for picture in pictures})
        return names if "" not in names and len(names) > 1 else []

    @cached_property
    def _pictures(self) -> dict[Split, list[Picture]]:
        if not self.root.is_dir():
            raise DatasetNotFoundError(f"{self.root.absolute()} is not a folder; name a folder of pictures by root.")
        folders: dict[Split, Path] = {"train": self.root}
        if (self.root / "train").is_dir():
            splits: tuple[Split, ...] = ("train", "val", "test")
            folders = {split: self.root / split for split in splits if (self.root / split).is_dir()}
        pictures = {split: find_pictures(folder) for split, folder in folders.items()}
        rest = pictures["train"]
        if not rest:
            raise DatasetNotFoundError(
                f"{folders['train'].absolute()} and its subfolders hold no pictures ({' '.join(SUFFIXES)})."
            )
        order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(HELD_OUT_SEED)).tolist()
        fractions: tuple[tuple[Split, float], ...] = (("val", self.val_fraction), ("test", self.test_fraction))
        for split, fraction in fractions:
            if split not in pictures:
                size = round(fraction * len(rest))
                pictures[split] = [rest[row] for row in order[:size]]
                order = order[size:]
        pictures["train"] = [rest[row] for row in order]
        return pictures

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
            warnings.warn(f"Left out {len(corrupt)} unreadable pictures: {', '.join(map(str, corrupt))}", stacklevel=2)
        return set(corrupt)
