"""MNIST: 60,000 handwritten digits to train on and 10,000 to test on, grey, binarised anew, or binarised once for all.

LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 1998. The fixed
binarisation: Larochelle and Murray, "The Neural Autoregressive Distribution Estimator", AISTATS 2011.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Size
from lightning_gen.datamodules.base import Batch, Columns, ImageDataModule, Loading, Split
from lightning_gen.datamodules.files import fetch, read_arrays
from lightning_gen.errors import DataError, DatasetNotFoundError

FIXED_URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
FIXED_PARTS: tuple[tuple[Split, str, int], ...] = (
    ("train", "train", 50000),
    ("val", "valid", 10000),
    ("test", "test", 10000),
)
"""Our name of a part of the fixed split, its name in the files, its number of images."""


def read_idx(path: Path) -> Tensor:
    """Read a file of bytes in MNIST's idx format, gzipped or not.

    torchvision's reader wants the archives unpacked beside themselves, which a read-only folder does not allow.

    Args:
        path: the file; one that ends in `.gz` is unpacked in memory.

    Returns:
        uint8, of the shape in the file's header.

    Raises:
        DataError: if the file is cut short or of another format.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged ({error}); delete it and fetch it again with download=true.") from error
    # Two zero bytes, the type (8: unsigned byte), the number of dimensions, then each size in four bytes.
    start = 4 + 4 * content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    if not shape or len(content) != start + math.prod(shape):
        raise DataError(f"{path} is not a whole idx file of bytes; delete it and fetch it again with download=true.")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)


def read_amat(path: Path) -> Tensor:
    """Read binary images from a text file of zeros and ones, 784 a line.

    Returns:
        `(N, 784)`, uint8, 0 or 1.

    Raises:
        DataError: if there is anything else in it.
    """
    # One character is one pixel: half the time that parsing 40 million numbers takes.
    characters = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    pixels = characters[characters > ord(" ")] - ord("0")
    if pixels.size % 784 or not pixels.size or pixels.max() > 1:
        raise DataError(f"{path} does not hold whole lines of 784 zeros and ones; fetch it again from {FIXED_URL}")
    return torch.from_numpy(pixels).view(-1, 784)


def download_mnist(folder: Path) -> list[Path]:
    """Download the four archives, each checked by torchvision against its published sum."""
    from torchvision.datasets import MNIST  # Here, as reading needs none of it.

    MNIST(folder, download=True)
    return list((folder / "MNIST" / "raw").glob("*.gz"))


def download_fixed(folder: Path) -> list[Path]:
    """Download the three text files of the fixed binarisation."""
    from torchvision.datasets.utils import download_url

    names = [f"binarized_mnist_{part}.amat" for _, part, _ in FIXED_PARTS]
    for name in names:
        download_url(FIXED_URL + name, str(folder))
    return [folder / name for name in names]


class MNISTDataModule(ImageDataModule):
    """MNIST, 28 x 28 grey, from `MNIST/raw/*.gz` under `root`, the layout of torchvision.

    Training takes the first `train_size` of the 60,000 training images, in the order of the files, and validation the
    rest; the test images are the 10,000 of the test set. Papers split 50,000/10,000 and 55,000/5,000. With 60,000 there
    is no validation set: `val_dataloader` returns an empty list and Lightning validates nothing.

    Args:
        root: folder of the data; the environment variable LIGHTNING_GEN_DATA if None, else `./data`.
        batch_size: images a batch, on each rank.
        num_workers: processes that load; 0 is the fastest.
        download: fetch what is missing.
        train_size: training images, 1 to 60,000.
        binarization: grey pixels (`none`); black and white ones drawn with the grey value as probability (`dynamic`),
            anew at every access in training, once with a fixed seed for validation and test; or the published ones
            (`fixed`), 50,000/10,000/10,000 in their own order, from `binarized_mnist/binarized_mnist_packed.npz` or
            `binarized_mnist_{train,valid,test}.amat` in the same folder. The published files hold no labels; those
            recovered in `recovered_mnist_index_and_label.npz`, which go with the packed file, are used where present.
        classes: keep only these digits.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if `train_size` is out of range, or not 50,000 with the fixed split.
    """

    def __init__(
        self,
        root: str | None = None,
        batch_size: Size = 100,
        num_workers: Count = 0,
        download: bool = False,
        train_size: Size = 50000,
        binarization: Literal["none", "dynamic", "fixed"] = "none",
        classes: list[int] | None = None,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(root, batch_size, num_workers, download, classes, **loading)
        if train_size > 60000:
            raise DataError(f"train_size is {train_size}; MNIST has 1 to 60000 training images to give.")
        if binarization == "fixed" and train_size != 50000:
            raise DataError(f"train_size is {train_size}; binarization=fixed is the published split, train_size=50000.")
        self.train_size = train_size
        self.binarization = binarization
        self.raw = self.root / "MNIST" / "raw"
        self.packed = self.root / "binarized_mnist" / "binarized_mnist_packed.npz"
        self.recovered = self.packed.with_name("recovered_mnist_index_and_label.npz")
        self.amat = [self.packed.with_name(f"binarized_mnist_{part}.amat") for _, part, _ in FIXED_PARTS]

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (1, 28, 28)

    @property
    def num_classes(self) -> int:
        """10, or 0 for the fixed binarisation without its recovered labels."""
        return 10 if self.binarization != "fixed" or (self.packed.exists() and self.recovered.exists()) else 0

    def prepare_data(self) -> None:
        """Download what is missing, if asked to; Lightning calls this in one process."""
        if not self.download:
            return
        if self.binarization != "fixed" and self._missing():
            fetch(self.raw, "MNIST", download_mnist)
        if self.binarization == "fixed" and not self.packed.exists() and not all(path.exists() for path in self.amat):
            fetch(self.packed.parent, "The fixed binarisation of MNIST", download_fixed)

    def load(self) -> dict[Split, Dataset[Batch]]:
        return self.in_memory(self._fixed() if self.binarization == "fixed" else self._grey())

    def _file(self, name: str) -> Path:
        """The archive, or the unpacked file where only that is there."""
        archive = self.raw / f"{name}.gz"
        unpacked = self.raw / name
        return unpacked if unpacked.exists() and not archive.exists() else archive

    def _missing(self) -> list[Path]:
        names = (
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        )
        return [self._file(name) for name in names if not self._file(name).exists()]

    def _not_found(self, what: str, path: Path) -> DatasetNotFoundError:
        return DatasetNotFoundError(
            f"{what} was looked for in {path.absolute()} and is not there; set download=true, or name the folder that "
            f"holds {path.relative_to(self.root)} by root or the environment variable LIGHTNING_GEN_DATA, or take the "
            "5,000 digits of DigitsDataModule (pip install 'lightning_gen[demo]')."
        )

    def _grey(self) -> Mapping[Split, Columns]:
        if missing := self._missing():
            raise self._not_found("MNIST", missing[0])
        images, labels = self._read("train", 60000)
        test_images, test_labels = self._read("t10k", 10000)
        n = self.train_size
        return {
            "train": {"image": images[:n], "label": labels[:n]},
            "val": {"image": images[n:], "label": labels[n:]},
            "test": {"image": test_images, "label": test_labels},
        }

    def _read(self, part: str, size: int) -> tuple[Tensor, Tensor]:
        """Images `(size, 1, 28, 28)`, uint8, and labels `(size,)`, int64."""
        image_file, label_file = self._file(f"{part}-images-idx3-ubyte"), self._file(f"{part}-labels-idx1-ubyte")
        images, labels = read_idx(image_file), read_idx(label_file)
        if images.shape != (size, 28, 28):
            raise DataError(f"{image_file} holds the shape {tuple(images.shape)}; MNIST's is ({size}, 28, 28).")
        if labels.shape != (size,) or labels.max() > 9:
            raise DataError(f"{label_file} does not hold {size} labels from 0 to 9.")
        return images.unsqueeze(1), labels.long()

    def _fixed(self) -> Mapping[Split, Columns]:
        if self.packed.exists():
            packed = read_arrays(self.packed, [part for _, part, _ in FIXED_PARTS])
            pixels = [torch.from_numpy(np.unpackbits(bits, axis=1)) for bits in packed]  # 98 bytes hold 784 pixels.
        elif all(path.exists() for path in self.amat):
            pixels = [read_amat(path) for path in self.amat]
        else:
            raise self._not_found("The fixed binarisation of MNIST", self.packed)
        splits: dict[Split, dict[str, Tensor]] = {}
        for (split, part, size), rows in zip(FIXED_PARTS, pixels, strict=True):
            if len(rows) != size:
                raise DataError(
                    f"{self.packed.parent} holds {len(rows)} {part} images; the published split has {size}."
                )
            splits[split] = {"image": rows.reshape(-1, 1, 28, 28) * 255}
        if self.num_classes:
            labels = read_arrays(self.recovered, [f"{part}_label" for _, part, _ in FIXED_PARTS])
            for (split, _, _), numbers in zip(FIXED_PARTS, labels, strict=True):
                splits[split]["label"] = torch.from_numpy(numbers).long()
        return splits
