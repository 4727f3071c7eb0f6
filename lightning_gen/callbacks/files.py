"""Pictures, and files that are either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from lightning_gen.functional.placement import keypoint_maps


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; the file takes its own name once the block has ended without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_png(image: Tensor, path: Path) -> None:
    """Write one image `(C, H, W)` in [0, 1], grey or colour, as an 8-bit PNG."""
    from torchvision.transforms.functional import to_pil_image  # Here: it takes a second to import.

    with whole_file(path) as temporary:
        to_pil_image(image.mul(255).round().byte().cpu()).save(temporary, format="PNG")


def image_grid(images: Tensor, num_columns: int, padding: int = 2) -> Tensor:
    """Lay images out in rows.

    Args:
        images: `(N, C, H, W)` in [0, 1]; videos `(N, C, T, H, W)` become strips of their frames, and keypoints
            `(N, P, 3)` pictures of 32 x 32 with a white pixel for each that is there.
        num_columns: images in a row.
        padding: pixels around each image.

    Returns:
        One colour image `(3, rows * (H + padding) + padding, columns * (W + padding) + padding)`.
    """
    from torchvision.utils import make_grid

    if images.ndim == 3:
        images = keypoint_maps(images, 32).amax(1, keepdim=True)
    if images.ndim == 5:
        images = images.transpose(2, 3).flatten(3)  # (N, C, H, T * W)
    return make_grid(images.clamp(0, 1), nrow=num_columns, padding=padding)


def side_by_side(*images: Tensor | None) -> Tensor:
    """Join images `(..., C, H, W)`, grey or colour, into one colour image `(..., 3, H, sum of W)`; None is left out."""
    shown = [image for image in images if image is not None]
    return torch.cat([image.expand(*image.shape[:-3], 3, *image.shape[-2:]) for image in shown], dim=-1)
