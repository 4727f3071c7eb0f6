"""Coloured digits at a place, in a size and a stretch of their own, with captions that say what but not where.

In the place of the birds of Reed et al. 2016, "Learning What and Where to Draw": a box and keypoints are measured in
every image, and every image has ten captions.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Share, Size
from lightning_gen.datamodules.base import HELD_OUT_SEED, Batch, Columns, ImageDataModule, Loading, Split
from lightning_gen.datamodules.digits import DigitsDataModule
from lightning_gen.datamodules.mnist import MNISTDataModule
from lightning_gen.errors import DataError
from lightning_gen.functional.placement import crop_transform, ink_box, paste_transform, stroke_keypoints

COLOURS = {
    "red": (1.0, 0.2, 0.2),
    "green": (0.2, 1.0, 0.2),
    "blue": (0.3, 0.4, 1.0),
    "yellow": (1.0, 1.0, 0.1),
    "purple": (1.0, 0.2, 1.0),
    "white": (1.0, 1.0, 1.0),
}
"""The brightest channel of each is 1, so that the maximum over channels is the ink."""

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


FORMS = (
    "a {colour} {digit}",
    "the {colour} {digit}",
    "{colour} {digit}",
    "a {digit} in {colour}",
    "the digit {digit} in {colour}",
    "a {digit} drawn in {colour}",
    "a {colour} digit, {digit}",
    "this is a {colour} {digit}",
    "a handwritten {colour} {digit}",
    "a picture of a {colour} {digit}",
)
"""Ten captions of every image."""


def captions(digit: int, colour: str) -> list[str]:
    """The ten captions of a digit in a colour."""
    return [form.format(colour=colour, digit=DIGITS[digit]) for form in FORMS]


def place_digits(digits: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Draw the ink of digits into boxes on a black square, each stretched to fill its box.

    Args:
        digits: `(N, 28, 28)` in [0, 1].
        boxes: left, top, width, height in shares of the square, `(N, 4)`.
        size: side of the square in pixels.

    Returns:
        `(N, size, size)` in [0, 1].
    """
    row = torch.tensor([0.0, 0.0, 1.0]).expand(len(digits), 1, 3)
    into, out_of = (
        torch.cat([make(b), row], 1) for make, b in ((crop_transform, ink_box(digits)), (paste_transform, boxes))
    )
    grid = F.affine_grid((into @ out_of)[:, :2], [len(digits), 1, size, size], align_corners=False)
    return F.grid_sample(digits[:, None], grid, align_corners=False).squeeze(1)


class PlacedDigitsDataModule(ImageDataModule):
    """Real digits in colour, stretched into a box anywhere on a black ground.

    A batch holds `image`, `label`, ten captions each (`caption`), and `box` and `keypoints` (see `ink_box` and
    `stroke_keypoints`), both measured in the image. Everything about an image comes from its number and a fixed seed.

    Args:
        source: the 5,000 embedded digits (`digits`), or MNIST, split 50,000/10,000/10,000 (`mnist`).
        image_size: side of the images in pixels.
        min_size: least height of a digit, in shares of the side.
        max_size: largest height and width of a digit, in shares of the side.
        num_places: images of each training digit, each at a place and in a colour of its own.
        root: folder of MNIST; the environment variable LIGHTNING_GEN_DATA if None, else `./data`.
        batch_size: images a batch, on each rank.
        num_workers: processes that load; 0 is the fastest.
        download: fetch MNIST if it is missing.
        classes: keep only these digits.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if a size or number is out of range.
    """

    def __init__(
        self,
        source: Literal["digits", "mnist"] = "digits",
        image_size: Size = 32,
        min_size: Share = 0.4,
        max_size: Share = 0.9,
        num_places: Size = 1,
        root: str | None = None,
        batch_size: Size = 16,
        num_workers: Count = 0,
        download: bool = False,
        classes: list[int] | None = None,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(root, batch_size, num_workers, download, classes, **loading)
        if image_size < 16 or not 0.25 <= min_size <= max_size:
            raise DataError(
                f"image_size={image_size}, min_size={min_size}, max_size={max_size}; expected at least 16 pixels, and "
                "sizes from 0.25 to 1, the least first."
            )
        self.image_size = image_size
        self.min_size = min_size
        self.max_size = max_size
        self.num_places = num_places
        self.digits: ImageDataModule = (
            DigitsDataModule(classes=classes)
            if source == "digits"
            else MNISTDataModule(root, download=download, classes=classes)
        )

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (3, self.image_size, self.image_size)

    @property
    def num_classes(self) -> int:
        return 10

    @property
    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"label": (), "box": (4,), "keypoints": (5, 3)}

    def prepare_data(self) -> None:
        """Download MNIST if it is missing and asked for; Lightning calls this in one process."""
        self.digits.prepare_data()

    def load(self) -> dict[Split, Dataset[Batch]]:
        self.digits.setup()
        splits: dict[Split, Columns] = {}
        for split, dataset in self.digits.datasets.items():
            repeats = self.num_places if split == "train" else 1
            columns: Any = {k: v.repeat_interleave(repeats, 0) for k, v in dataset.columns.items()}  # type: ignore[attr-defined]
            splits[split] = self.placed(columns["image"].squeeze(1), columns["label"])
        return self.in_memory(splits)

    def placed(self, digits: Tensor, labels: Tensor) -> Columns:
        """All columns of a split, by a generator of its own."""
        generator = torch.Generator().manual_seed(HELD_OUT_SEED)
        draws = torch.rand(len(digits), 5, generator=generator)
        colours = torch.randint(len(COLOURS), (len(digits),), generator=generator)
        tints = torch.tensor(list(COLOURS.values()))
        parts = [
            self._part(*part) for part in zip(*(x.split(5000) for x in (digits, draws, tints[colours])), strict=True)
        ]
        image, box, keypoints = (torch.cat(column) for column in zip(*parts, strict=True))
        names = list(COLOURS)
        written = [[captions(digit, colour) for colour in names] for digit in range(10)]
        return {
            "image": image,
            "label": labels,
            "caption": [
                written[label][colour] for label, colour in zip(labels.tolist(), colours.tolist(), strict=True)
            ],
            "box": box,
            "keypoints": keypoints,
        }

    def _part(self, digits: Tensor, draws: Tensor, tints: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        digits = digits.float() / 255
        own = ink_box(digits)
        height = self.min_size + (self.max_size - self.min_size) * draws[:, 0]
        stretch = 2 ** (2 * draws[:, 1] - 1)  # Half to twice as wide as it was written.
        width = (height * own[:, 2] / own[:, 3] * stretch).clamp(4 / self.image_size, self.max_size)
        sides = torch.stack([width, height], 1)
        ink = place_digits(digits, torch.cat([(1 - sides) * draws[:, 2:4], sides], 1), self.image_size)
        image = (ink[:, None] * tints[:, :, None, None]).mul(255).round().byte()
        seen = image.amax(1).float() / 255  # Measured in what is kept.
        return image, ink_box(seen), stroke_keypoints(seen)
