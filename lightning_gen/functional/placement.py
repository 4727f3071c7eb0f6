"""Boxes and keypoints on maps and images: cut out of a place, put into it, and found there (Reed et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gen.functional.precision import widen


def crop_transform(boxes: Tensor) -> Tensor:
    r"""The affine maps that bring the corners of a square onto those of boxes, for `affine_grid`.

    Scale $s = w$ and shift $t = 2 (x + w / 2) - 1$ across, likewise down; both in coordinates from -1 to 1.

    Args:
        boxes: left, top, width, height in [0, 1], `(N, 4)`.

    Returns:
        `(N, 2, 3)`, the row for x first.

    >>> crop_transform(torch.tensor([[0.5, 0.0, 0.5, 1.0]]))[0]
    tensor([[0.5000, 0.0000, 0.5000],
            [0.0000, 1.0000, 0.0000]])
    """
    corners, sides = boxes.split(2, dim=1)
    shifts = 2 * corners + sides - 1
    return torch.cat([torch.diag_embed(sides), shifts[..., None]], 2)


def paste_transform(boxes: Tensor) -> Tensor:
    """The inverses of `crop_transform`: they bring the corners of boxes onto those of the square.

    Args:
        boxes: left, top, width, height in [0, 1], of some area, `(N, 4)`.

    Returns:
        `(N, 2, 3)`.
    """
    corners, sides = boxes.split(2, dim=1)
    shifts = 2 * corners + sides - 1
    return torch.cat([torch.diag_embed(1 / sides), -(shifts / sides)[..., None]], 2)


def warp(maps: Tensor, transforms: Tensor) -> Tensor:
    """Maps read through affine transforms, bilinear, 0 outside (spatial transformers, Jaderberg et al. 2015).

    Coordinates of -1 and 1 are the middles of the first and the last cell, as in the layer of Torch.

    Args:
        maps: `(N, C, H, W)`.
        transforms: from places in the result to places in the maps, `(N, 2, 3)`.

    Returns:
        `(N, C, H, W)`.
    """
    wide = widen(maps)
    with torch.autocast(maps.device.type, enabled=False):  # In 8 bits a place may be off by half a cell of 64.
        grid = F.affine_grid(transforms.to(wide.dtype), list(maps.shape), align_corners=True)
        return F.grid_sample(wide, grid, align_corners=True).to(maps.dtype)


def crop_boxes(maps: Tensor, boxes: Tensor) -> Tensor:
    """What lies in boxes, enlarged to the whole map: `(N, C, H, W)` and `(N, 4) -> (N, C, H, W)`."""
    return warp(maps, crop_transform(boxes))


def paste_boxes(maps: Tensor, boxes: Tensor) -> Tensor:
    """Whole maps shrunk into boxes, with 0 around: `(N, C, H, W)` and `(N, 4) -> (N, C, H, W)`."""
    return warp(maps, paste_transform(boxes))


def keypoint_maps(keypoints: Tensor, size: int) -> Tensor:
    """A map for each keypoint, with a 1 in its cell.

    Cells are counted from 1, as in the authors' code: that of x is `x * size`, rounded (halves up), at least 1.

    Args:
        keypoints: x and y in [0, 1], and whether it is there, which is so above 0.5; `(N, P, 3)`.
        size: cells along a side.

    Returns:
        `(N, P, size, size)`; all 0 for a keypoint that is not there.

    >>> keypoint_maps(torch.tensor([[[0.5, 1.0, 1.0], [0.5, 1.0, 0.0]]]), 2)[0]
    tensor([[[0., 0.],
             [1., 0.]],
    <BLANKLINE>
            [[0., 0.],
             [0., 0.]]])
    """
    cells = (keypoints[..., :2] * size + 0.5).floor().long().clamp(1, size) - 1
    column, row = F.one_hot(cells, size).to(keypoints.dtype).unbind(2)
    there = (keypoints[..., 2] > 0.5).to(keypoints.dtype)
    return there[..., None, None] * row[..., None] * column[..., None, :]


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Area of the intersection of boxes over that of their union, `(N, 4)` and `(N, 4) -> (N,)`; 0 for two empty ones.

    >>> box_iou(torch.tensor([[0.0, 0.0, 0.5, 1.0]]), torch.tensor([[0.25, 0.0, 0.5, 1.0]]))
    tensor([0.3333])
    """
    left_top = torch.maximum(boxes[:, :2], others[:, :2])
    right_bottom = torch.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    common = (right_bottom - left_top).clamp(min=0).prod(1)
    union = boxes[:, 2:].prod(1) + others[:, 2:].prod(1) - common
    return torch.where(union > 0, common / union, 0)


def ink_box(ink: Tensor, threshold: float = 0.5) -> Tensor:
    """The smallest box around all pixels above a threshold.

    Args:
        ink: `(N, H, W)`.
        threshold: pixels above it are ink.

    Returns:
        Left, top, width, height in shares of the image, `(N, 4)`; all 0 where there is no ink.

    >>> ink_box(torch.tensor([[[0.0, 0.0, 0.0, 0.0], [0.0, 0.9, 0.8, 0.0]]]))
    tensor([[0.2500, 0.5000, 0.5000, 0.5000]])
    """
    edges = []
    for dim in (1, 2):  # Columns, then rows.
        there = (ink > threshold).any(dim).to(torch.float32)
        size = there.shape[1]
        first = there.argmax(1)
        last = size - there.flip(1).argmax(1)
        edges.append(torch.where(there.any(1), torch.stack([first, last - first]), 0) / size)
    (left, width), (top, height) = edges
    return torch.stack([left, top, width, height], 1)


def stroke_keypoints(ink: Tensor, threshold: float = 0.5, share: float = 0.125) -> Tensor:
    """Five keypoints of what is drawn: its upper, lower, left and right end, and its centre of mass.

    An end is the centre of the ink in the outermost eighth of the box around it. A single outermost pixel would jump
    from one end of a flat stroke to the other.

    Args:
        ink: `(N, H, W)`, at least 0.
        threshold: pixels above it are ink.
        share: of the box's side that makes an end.

    Returns:
        x and y, the middles of pixels in shares of the image, and 1, or 0 thrice where there is no ink; `(N, 5, 3)`.

    >>> stroke_keypoints(torch.eye(4)[None])[0, :, :2]
    tensor([[0.1250, 0.1250],
            [0.8750, 0.8750],
            [0.1250, 0.1250],
            [0.8750, 0.8750],
            [0.5000, 0.5000]])
    """
    height, width = ink.shape[1:]
    ink = ink * (ink > threshold)
    left, top, across, down = ink_box(ink, threshold)[:, :, None, None].unbind(1)  # (N, 1, 1)
    y = (torch.arange(height, device=ink.device)[:, None] + 0.5) / height
    x = (torch.arange(width, device=ink.device) + 0.5) / width
    # At least the outermost row or column, whose middle lies half a pixel inside.
    deep, wide = (share * down).clamp(min=0.75 / height), (share * across).clamp(min=0.75 / width)
    everywhere = torch.ones_like(ink, dtype=torch.bool)
    parts = [y < top + deep, y > top + down - deep, x < left + wide, x > left + across - wide, everywhere]
    weights = torch.stack([ink * part for part in parts], 1)  # (N, 5, H, W)
    mass = weights.sum((2, 3))
    centres = torch.stack([(weights * x).sum((2, 3)), (weights * y).sum((2, 3))], 2) / mass.clamp(min=1e-12)[..., None]
    return torch.cat([centres, (mass > 0).to(ink.dtype)[..., None]], 2)
