"""Pictures, and files that are either whole or not there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import wrap

import torch
from torch import Tensor

from lightning_gen.functional.placement import keypoint_maps


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; the file takes its own name once the block has ended without an error.

    What a killed process leaves under the temporary name is overwritten when the file is next written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
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


def captioned_grid(images: Tensor, captions: Sequence[str], num_columns: int) -> Tensor:
    """Lay images out in rows, each with its caption on the left.

    Args:
        images: `(rows * num_columns, C, H, W)` in [0, 1]; small ones are enlarged, so that a caption fits beside them.
        captions: one for each row, from the top.
        num_columns: images in a row.

    Returns:
        One colour image `(3, H', W')`.
    """
    from PIL import Image, ImageDraw
    from torchvision.transforms.functional import pil_to_tensor

    scale = max(1, 64 // images.shape[2])
    grid = image_grid(images.repeat_interleave(scale, 2).repeat_interleave(scale, 3), num_columns).cpu()
    panel = Image.new("RGB", (180, grid.shape[1]), "white")
    height = (grid.shape[1] - 2) // len(captions)
    for row, caption in enumerate(captions):
        lines = "\n".join(wrap(caption, 28))
        ImageDraw.Draw(panel).text((6, (row + 0.5) * height + 1), lines, fill="black", anchor="lm")
    return torch.cat([pil_to_tensor(panel).float() / 255, grid], 2)


def side_by_side(*images: Tensor | None) -> Tensor:
    """Join images `(..., C, H, W)`, grey or colour, into one colour image `(..., 3, H, sum of W)`; None is left out."""
    shown = [image for image in images if image is not None]
    return torch.cat([image.expand(*image.shape[:-3], 3, *image.shape[-2:]) for image in shown], dim=-1)
