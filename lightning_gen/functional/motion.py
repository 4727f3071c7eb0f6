"""What moves in a video."""

from __future__ import annotations

from torch import Tensor

from lightning_gen.functional.shapes import check_same_shape


def mean_frame_difference(videos: Tensor) -> Tensor:
    """Mean absolute difference of successive frames.

    Args:
        videos: `(N, C, T, H, W)` with at least two frames.

    Returns:
        A scalar, in the pixels' units.

    >>> import torch
    >>> mean_frame_difference(torch.tensor([0.0, 1.0, 1.0]).view(1, 1, 3, 1, 1))
    tensor(0.5000)
    """
    return videos.diff(dim=2).abs().mean()


def moving_pixels(videos: Tensor, threshold: float = 0.1) -> Tensor:
    """Where a video differs from its own still background: by more than a threshold from the median in time.

    Args:
        videos: `(N, C, T, H, W)`.
        threshold: on the difference of any channel, in the pixels' units.

    Returns:
        Boolean, `(N, 1, T, H, W)`.

    >>> import torch
    >>> moving_pixels(torch.tensor([0.2, 0.9, 0.2]).view(1, 1, 3, 1, 1)).flatten()
    tensor([False,  True, False])
    """
    background = videos.contiguous().median(dim=2, keepdim=True).values  # Of an expanded tensor it is wrong (2.15).
    return (videos - background).abs().amax(1, keepdim=True) > threshold


def mask_iou(mask: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of two sets of pixels, 1 if both are empty.

    Args:
        mask: boolean, any shape.
        other: boolean, of the same shape.

    Returns:
        A scalar in [0, 1].

    >>> import torch
    >>> mask_iou(torch.tensor([True, True, False]), torch.tensor([False, True, True]))
    tensor(0.3333)
    """
    check_same_shape(mask=mask, other=other)
    union = (mask | other).sum()
    return ((mask & other).sum() + (union == 0)) / union.clamp(min=1)
