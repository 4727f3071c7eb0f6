"""CIFAR-10: 60,000 colour pictures of ten kinds of things, 32 x 32.

Krizhevsky, "Learning multiple layers of features from tiny images" (2009).
"""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Size
from lightning_gen.datamodules.base import Batch, ImageDataModule, Loading, Split
from lightning_gen.datamodules.files import fetch, read_arrays
from lightning_gen.errors import DataError, DatasetNotFoundError

FILES = {
    "original": "cifar-10-batches-py",
    "jpeg": "cifar10/cifar10_jpeg.npz",
    "subset": "cifar10/cifar10_exact_subset.npz",
}


def download_cifar10(folder: Path) -> list[Path]:
    """Download and unpack the archive, which torchvision checks against its published sum."""
    from torchvision.datasets import CIFAR10

    CIFAR10(folder, download=True)
    return [folder / FILES["original"]]


def decode_jpegs(stream: np.ndarray[Any, Any], offsets: np.ndarray[Any, Any]) -> Tensor:
    """Decode JPEG files that lie one after the other, file i from `offsets[i]` to `offsets[i + 1]`.

    Returns:
        uint8, `(N, 3, H, W)`.
    """
    files = (BytesIO(file.tobytes()) for file in np.split(stream, offsets[1:-1]))
    pictures = [np.asarray(Image.open(file, formats=["JPEG"])) for file in files]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10, 32 x 32 colour.

    Training takes the first `train_size` of the 50,000 training images, in the order of the files, and validation the
    rest; the test images are the 10,000 of the test set. Papers split 45,000/5,000 and 40,000/10,000.

    | `pixels` | file under `root` | what it holds |
    |---|---|---|
    | `original` | `cifar-10-batches-py/`, the layout of torchvision | everything |
    | `jpeg` | `cifar10/cifar10_jpeg.npz` | all images in JPEG, which is **lossy**: for samples to look at, not for bits per dimension nor for figures beside published ones |
    | `subset` | `cifar10/cifar10_exact_subset.npz` | 5,085 training and 1,017 test images, exact; of the former the same share is for validation |

    Args:
        root: folder of the data; the environment variable LIGHTNING_GEN_DATA if None, else `./data`.
        batch_size: images a batch, on each rank.
        num_workers: processes that load; 0 is the fastest.
        download: fetch the original if it is missing (170 MB).
        train_size: how many of the 50,000 training images to train on, 1 to 50,000.
        pixels: which form of the images.
        classes: keep only these labels.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if `train_size` is out of range.
    """  # noqa: E501

    def __init__(
        self,
        root: str | None = None,
        batch_size: Size = 100,
        num_workers: Count = 0,
        download: bool = False,
        train_size: Size = 45000,
        pixels: Literal["original", "jpeg", "subset"] = "original",
        classes: list[int] | None = None,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(root, batch_size, num_workers, download, classes, **loading)
        if train_size > 50000:
            raise DataError(f"train_size is {train_size}; CIFAR-10 has 1 to 50000 training images to give.")
        self.train_size = train_size
        self.pixels = pixels
        self.path = self.root / FILES[pixels]

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (3, 32, 32)

    @property
    def num_classes(self) -> int:
        return 10

    def prepare_data(self) -> None:
        """Download what is missing, if asked to; Lightning calls this in one process."""
        if self.download and self.pixels == "original" and not self.path.exists():
            fetch(self.root, "CIFAR-10", download_cifar10)

    def load(self) -> dict[Split, Dataset[Batch]]:
        if not self.path.exists():
            raise DatasetNotFoundError(
                f"CIFAR-10 was looked for in {self.path.absolute()} and is not there; set download=true, or name the "
                f"folder that holds {FILES[self.pixels]} by root or the environment variable LIGHTNING_GEN_DATA."
            )
        if self.pixels == "jpeg":
            warnings.warn(
                "CIFAR-10 as JPEG has lost detail: figures on these pixels do not belong beside published ones, and "
                "bits per dimension of them mean nothing.",
                stacklevel=2,
            )
        images, labels = self._read("train")
        test_images, test_labels = self._read("test")
        n = round(len(images) * self.train_size / 50000)
        return self.in_memory(
            {
                "train": {"image": images[:n], "label": labels[:n]},
                "val": {"image": images[n:], "label": labels[n:]},
                "test": {"image": test_images, "label": test_labels},
            }
        )

    def _read(self, part: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        """Images `(N, 3, 32, 32)`, uint8, and labels `(N,)`, int64."""
        if self.pixels == "original":
            images, labels = self._read_original(part)
        elif self.pixels == "jpeg":
            stream, offsets, numbers = read_arrays(
                self.path, [f"{part}_{key}" for key in ("jpeg", "offsets", "labels")]
            )
            images, labels = decode_jpegs(stream, offsets), torch.from_numpy(numbers)
        else:
            arrays = read_arrays(self.path, [f"{part}_{key}" for key in ("images", "labels")])
            images, labels = (torch.from_numpy(array) for array in arrays)
        if images.shape != (len(labels), *self.image_shape) or labels.max() > 9:
            raise DataError(f"{self.path} does not hold images of {self.image_shape} and labels from 0 to 9 for them.")
        return images, labels.long()

    def _read_original(self, part: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        """By torchvision, which reads no file whose sum is not the published one: they are pickles, which run code."""
        from torchvision.datasets import CIFAR10

        try:
            source = CIFAR10(self.root, train=part == "train")
        except RuntimeError as error:
            raise DataError(
                f"{self.path} holds other files than the published ones; delete it and set download=true."
            ) from error
        return torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(source.targets)
