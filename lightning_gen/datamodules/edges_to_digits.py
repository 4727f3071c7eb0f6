"""Real digits and their edges, as pairs for translation."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Sides, Size
from lightning_gen.datamodules.base import Batch, ImageDataModule, Loading, Split, height_and_width
from lightning_gen.datamodules.digits import DigitsDataModule
from lightning_gen.datamodules.mnist import MNISTDataModule
from lightning_gen.errors import DataError

SOBEL = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8


def edges(images: Tensor, threshold: float = 0.1) -> Tensor:
    """Where the brightness changes most, one pixel wide: Sobel's gradient, thinned as Canny does (1986).

    A pixel is an edge if its gradient is over the threshold, and no smaller than the gradients of the two neighbours
    that it points to and from.

    Args:
        images: `(N, 1, H, W)` in [0, 1].
        threshold: on the gradient, a change per pixel.

    Returns:
        0 or 1, `(N, 1, H, W)`.
    """
    kernels = torch.stack([SOBEL, SOBEL.T])[:, None]  # Across, then down.
    across, down = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernels).split(1, dim=1)
    strength = (across.square() + down.square()).sqrt()
    height, width = images.shape[-2:]
    around = F.pad(strength, (1, 1, 1, 1))

    def neighbour(dy: int, dx: int) -> Tensor:
        return around[..., 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

    angle = torch.atan2(down, across)
    direction = (angle / (torch.pi / 4)).round().long() % 4  # Across, down right, down, down left; either way.
    largest = torch.zeros_like(images, dtype=torch.bool)
    for index, (dy, dx) in enumerate([(0, 1), (1, 1), (1, 0), (1, -1)]):
        # Of two equal neighbours one is kept.
        ridge = (strength >= neighbour(dy, dx)) & (strength > neighbour(-dy, -dx))
        largest |= (direction == index) & ridge
    return (largest & (strength > threshold)).float()


class EdgesToDigitsDataModule(ImageDataModule):
    """Digits to be made of their edges: `source` are edges, `image` the digits, each with its `label`.

    Digits are enlarged to a side that a U-Net can halve often, and the edges found there.

    Args:
        source: the 5,000 embedded digits (`digits`), or MNIST, split 50,000/10,000/10,000 (`mnist`).
        image_size: side of the images in pixels, or height and width.
        root: folder of MNIST; the environment variable LIGHTNING_GEN_DATA if None, else `./data`.
        batch_size: pairs a batch, on each rank.
        num_workers: processes that load; 0 is the fastest.
        download: fetch MNIST if it is missing.
        classes: keep only these digits.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if the side is less than the digits'.
    """

    def __init__(
        self,
        source: Literal["digits", "mnist"] = "digits",
        image_size: Sides = 32,
        root: str | None = None,
        batch_size: Size = 4,
        num_workers: Count = 0,
        download: bool = False,
        classes: list[int] | None = None,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(root, batch_size, num_workers, download, classes, **loading)
        if min(height_and_width(image_size)) < 28:
            raise DataError(f"image_size is {image_size}; the digits have 28 pixels, expected no less.")
        self.image_size = image_size
        self.digits: ImageDataModule = (
            DigitsDataModule(classes=classes)
            if source == "digits"
            else MNISTDataModule(root, download=download, classes=classes)
        )

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (1, *height_and_width(self.image_size))

    @property
    def num_classes(self) -> int:
        return 10

    @property
    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"source": self.image_shape, "label": ()}

    def prepare_data(self) -> None:
        """Download MNIST if it is missing and asked for; Lightning calls this in one process."""
        self.digits.prepare_data()

    def load(self) -> dict[Split, Dataset[Batch]]:
        self.digits.setup()
        return self.in_memory({split: self._pairs(dataset) for split, dataset in self.digits.datasets.items()})

    def _pairs(self, dataset: Any) -> dict[str, Tensor]:
        size = height_and_width(self.image_size)
        parts = dataset.columns["image"].split(5000)
        images = torch.cat(
            [F.interpolate(part.float() / 255, size, mode="bilinear").mul(255).round().byte() for part in parts]
        )
        sources = torch.cat([edges(part.float() / 255).mul(255).byte() for part in images.split(5000)])
        return {"source": sources, "image": images, "label": dataset.columns["label"]}
