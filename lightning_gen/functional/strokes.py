"""What is measured in handwriting: how thick a stroke is, and how far it leans."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gen.functional.precision import widen


def stroke_thickness(images: Tensor) -> Tensor:
    """Mean width of the strokes: twice the ink over the length of its outline.

    A stroke of width w and length L has w L of ink and two edges of length L; the outline of grey ink is its total
    variation, by central differences.

    Args:
        images: ink, `(N, H, W)` in [0, 1].

    Returns:
        Pixels, `(N,)`; 0 where there is no ink.

    >>> bar = torch.zeros(1, 1000, 40)
    >>> bar[:, :, 10:14] = 1
    >>> round(stroke_thickness(bar).item(), 1)
    4.0
    """
    images = widen(images)
    around = F.pad(images, (1, 1, 1, 1))
    across = (around[:, 1:-1, 2:] - around[:, 1:-1, :-2]) / 2
    down = (around[:, 2:, 1:-1] - around[:, :-2, 1:-1]) / 2
    outline = (across.square() + down.square()).sqrt().sum((1, 2))
    return 2 * images.sum((1, 2)) / outline.clamp(min=1e-12)


def stroke_slant(images: Tensor) -> Tensor:
    """How far ink leans to the right for each pixel upwards: covariance of its places over their variance in height.

    Args:
        images: ink, `(N, H, W)` in [0, 1].

    Returns:
        `(N,)`, the tangent of the angle from upright; 0 where there is no ink.

    >>> leaning = torch.eye(20).flip(0)[None]
    >>> round(stroke_slant(leaning).item(), 3)
    1.0
    """
    images = widen(images)
    mass = images.sum((1, 2)).clamp(min=1e-12)[:, None]
    rows, columns = (torch.arange(size, dtype=images.dtype, device=images.device) for size in images.shape[1:])
    by_row, by_column = images.sum(2) / mass, images.sum(1) / mass
    down = rows - (by_row * rows).sum(1, keepdim=True)
    across = columns - (by_column * columns).sum(1, keepdim=True)
    variance = (by_row * down.square()).sum(1)
    with torch.autocast(images.device.type, enabled=False):  # Terms of both signs all but cancel.
        covariance = torch.einsum("nhw,nh,nw->n", images, down, across) / mass.squeeze(1)
    return -covariance / variance.clamp(min=1e-12)
