"""Digits somewhere on a larger ground, among fragments of other digits, or several digits on one.

Mnih, Heess, Graves & Kavukcuoglu, "Recurrent Models of Visual Attention" (2014), the cluttered translated MNIST; Gregor
et al., "DRAW" (2015), section 4.1 (the same at 100 x 100) and section 4.3 (two digits at 60 x 60).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Size
from lightning_gen.datamodules.base import HELD_OUT_SEED, Batch, ImageDataModule, InMemoryDataset, Loading, Split
from lightning_gen.datamodules.digits import DigitsDataModule
from lightning_gen.datamodules.mnist import MNISTDataModule
from lightning_gen.errors import DataError


def place(pieces: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
    """Lay pieces at random places on a black square; where they overlap, their intensities add up, to white at most.

    Args:
        pieces: bytes, `(N, P, H, W)`: P pieces for each of N squares.
        size: side of the square in pixels; every piece lies in it wholly.
        generator: source of randomness; the global one if None.

    Returns:
        Bytes, `(N, 1, size, size)`.
    """
    number, count, height, width = pieces.shape
    grounds = torch.zeros(number, size, size, dtype=torch.int16)
    tops = torch.randint(size - height + 1, (count, number, 1, 1), generator=generator)
    lefts = torch.randint(size - width + 1, (count, number, 1, 1), generator=generator)
    squares, rows, columns = torch.arange(number)[:, None, None], torch.arange(height)[:, None], torch.arange(width)
    for piece, top, left in zip(pieces.transpose(0, 1), tops, lefts, strict=True):
        grounds[squares, top + rows, left + columns] += piece
    return grounds.clamp_(max=255).byte()[:, None]


class ClutteredDigits(Dataset[Batch]):
    """Digits of a set, drawn into their squares anew at every access.

    Args:
        digits: bytes, `(M, 1, 28, 28)`.
        labels: `(M,)`.
        image_size: side of the squares in pixels.
        num_digits: digits in each; the first is the one that was asked for, the others are any of the set.
        num_fragments: pieces of other digits in each.
        fragment_size: side of a piece in pixels.
    """

    def __init__(
        self, digits: Tensor, labels: Tensor, image_size: int, num_digits: int, num_fragments: int, fragment_size: int
    ) -> None:
        self.digits = digits.squeeze(1)
        self.labels = labels
        self.image_size = image_size
        self.num_digits = num_digits
        self.num_fragments = num_fragments
        self.fragment_size = fragment_size

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> Batch:
        return {key: values[0] for key, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once; the loader prefers it to `__getitem__`."""
        batch = self.draw(torch.as_tensor(indices))
        return {**batch, "image": batch["image"].float().div_(255)}

    def draw(self, rows: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Squares of bytes `(N, 1, S, S)` with the digits of these rows, and their labels if there is one in each."""
        others = torch.randint(len(self), (len(rows), self.num_digits - 1), generator=generator)
        images = place(self.digits[torch.cat([rows[:, None], others], 1)], self.image_size, generator)
        if self.num_fragments:
            clutter = place(self.fragments(len(rows), generator), self.image_size, generator)
            images = (images.short() + clutter).clamp_(max=255).byte()
        return {"image": images} | ({"label": self.labels[rows]} if self.num_digits == 1 else {})

    def fragments(self, number: int, generator: torch.Generator | None) -> Tensor:
        """Pieces cut out of any digits at any place, `(number, num_fragments, fragment_size, fragment_size)`."""
        shape, size = (number, self.num_fragments, 1, 1), self.fragment_size
        source = torch.randint(len(self), shape, generator=generator)
        top, left = torch.randint(28 - size + 1, (2, *shape), generator=generator)
        return self.digits[source, top + torch.arange(size)[:, None], left + torch.arange(size)]


class ClutteredDigitsDataModule(ImageDataModule):
    """Real digits on a larger black ground: one among fragments of others with its label, or several without labels.

    Training images are drawn anew at every access; those for validation and test once, with a fixed seed. Fragments and
    further digits come from the same part of the data as the digit.

    Args:
        source: the 5,000 embedded digits (`digits`), or MNIST, split 50,000/10,000/10,000 (`mnist`).
        image_size: side of the images in pixels.
        num_digits: digits in an image; with more than one there are no labels.
        num_fragments: pieces of other digits in an image.
        fragment_size: side of a piece in pixels.
        root: folder of MNIST; the environment variable LIGHTNING_GEN_DATA if None, else `./data`.
        batch_size: images a batch, on each rank.
        num_workers: processes that draw images.
        download: fetch MNIST if it is missing.
        classes: keep only these digits.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if a size or number is out of range.
    """

    def __init__(
        self,
        source: Literal["digits", "mnist"] = "digits",
        image_size: Size = 100,
        num_digits: Size = 1,
        num_fragments: Count = 8,
        fragment_size: Size = 8,
        root: str | None = None,
        batch_size: Size = 100,
        num_workers: Count = 0,
        download: bool = False,
        classes: list[int] | None = None,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(
            root, batch_size, num_workers, download, **loading
        )  # The classes are the source's: two digits have none.
        if image_size < 28 or fragment_size > 28:
            raise DataError(
                f"image_size={image_size}, fragment_size={fragment_size}; expected at least 28 pixels, and fragments "
                "of 1 to 28 pixels."
            )
        self.image_size = image_size
        self.num_digits = num_digits
        self.num_fragments = num_fragments
        self.fragment_size = fragment_size
        self.digits: ImageDataModule = (
            DigitsDataModule(classes=classes)
            if source == "digits"
            else MNISTDataModule(root, download=download, classes=classes)
        )

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (1, self.image_size, self.image_size)

    @property
    def num_classes(self) -> int:
        return 10 if self.num_digits == 1 else 0

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
            columns: Any = source.columns  # type: ignore[attr-defined]
            cluttered = ClutteredDigits(
                columns["image"],
                columns["label"],
                self.image_size,
                self.num_digits,
                self.num_fragments,
                self.fragment_size,
            )
            if split == "train":
                datasets[split] = cluttered
            else:
                generator = torch.Generator().manual_seed(HELD_OUT_SEED)
                datasets[split] = InMemoryDataset(cluttered.draw(torch.arange(len(cluttered)), generator))
        return datasets
