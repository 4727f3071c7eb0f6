"""Laplacian pyramids: an image as a small image and, for each larger size, what enlarging the smaller one misses.

Burt and Adelson, "The Laplacian pyramid as a compact image code", IEEE Transactions on Communications, 1983.

Both maps between sizes are linear and act on rows and columns alike, so each is a small matrix. Where a side doubles
they are those of the paper with the kernel 1, 4, 6, 4, 1; pixel i of the small image lies on pixel 2i of the large one.
Between other sizes, such as 8 and 14 or 64 and 96, it lies i sides' ratios from the edge, and values between pixels are
interpolated linearly. Pixels beyond the edge are those on the edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_gen.errors import DataError


class Pyramid(NamedTuple):
    """The bands of images, the smallest size first, and what each is added to."""

    bands: list[Tensor]  # (N, C, s, s) for each side s: the smallest image, then the differences h
    lows: list[Tensor]  # of the same shapes: zeros, then the enlarged smaller images l


def _blur(size: int, kernel: tuple[int, ...]) -> Tensor:
    """The matrix `(size, size)` that convolves with a kernel, scaled to sum to 1."""
    weights = torch.tensor(kernel, dtype=torch.float64)
    columns = torch.arange(size)[:, None] + torch.arange(len(kernel)) - len(kernel) // 2
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, columns.clamp(0, size - 1), (weights / weights.sum()).expand(size, -1))


def _interpolation(size: int, target: int) -> Tensor:
    """The matrix `(target, size)` that reads a row of pixels at i * size / target, linearly between them."""
    scaled = torch.arange(target) * size
    left, share = scaled // target, (scaled % target).double()[:, None] / target
    columns = torch.stack([left, (left + 1).clamp(max=size - 1)], 1)
    matrix = torch.zeros(target, size, dtype=torch.float64)
    return matrix.scatter_add_(1, columns, torch.cat([1 - share, share], 1))


@cache
def _resampling(size: int, target: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix `(target, size)` of `downsample` or `upsample`."""
    with torch.inference_mode(False):  # It is kept, and training may need it after a test.
        if target == size:
            matrix = torch.eye(size, dtype=torch.float64)
        elif target < size:
            matrix = _interpolation(size, target) @ _blur(size, (1, 4, 6, 4, 1))
        else:  # For doubled sides this is 1, 4, 6, 4, 1 over zeros between pixels, times 2.
            matrix = _blur(target, (1, 2, 1)) @ _interpolation(size, target)
        return matrix.to(device, dtype)


def _resample(images: Tensor, target: int) -> Tensor:
    # While a graph is traced there are no values to keep.
    make = _resampling.__wrapped__ if torch.compiler.is_compiling() else _resampling
    down, across = (make(side, target, images.dtype, images.device) for side in images.shape[-2:])
    with torch.autocast(images.device.type, enabled=False):  # Bands are differences: bfloat16 would lose them.
        return down @ images @ across.T


def downsample(images: Tensor, size: int) -> Tensor:
    """Blur by the binomial 1, 4, 6, 4, 1 in both directions and keep fewer pixels: d of the papers.

    Args:
        images: `(..., H, W)`.
        size: new height and width, at most the old ones.

    Returns:
        `(..., size, size)`; constant images stay constant.

    >>> downsample(torch.eye(4), 2)
    tensor([[0.5391, 0.1289],
            [0.1289, 0.3047]])
    """
    return _resample(images, size)


def upsample(images: Tensor, size: int) -> Tensor:
    """Put pixels between those that are there, and smooth: u of the papers.

    Args:
        images: `(..., H, W)`.
        size: new height and width, at least the old ones.

    Returns:
        `(..., size, size)`; constant images stay constant.

    >>> upsample(torch.tensor([[0.0, 8.0], [0.0, 8.0]]), 4)[0]
    tensor([1., 4., 7., 8.])
    """
    return _resample(images, size)


def check_sizes(sizes: Sequence[int], image_shape: Sequence[int], smallest: int = 1) -> None:
    """Check that images can be cut into bands of these sides.

    Args:
        sizes: sides of the levels, the smallest first.
        image_shape: of the images, `(..., H, W)`.
        smallest: side that a band has at least; the smallest image may be smaller.

    Raises:
        DataError: if not, naming the sides that can.
    """
    height, width = image_shape[-2:]
    if height != width:
        raise DataError(f"A pyramid's images are square; got {height} x {width}: crop or resize them.")
    rising = all(a < b for a, b in pairwise(sizes))
    if len(sizes) < 1 or sizes[0] < 1 or not rising or sizes[-1] != height or min([*sizes[1:], smallest]) < smallest:
        halved = [height]
        while halved[0] % 2 == 0 and halved[0] >= smallest and halved[0] // 2 >= 4:
            halved.insert(0, halved[0] // 2)
        raise DataError(
            f"The levels sizes={list(sizes)} do not fit images of {height} x {width}; expected rising sides, odd or "
            f"even, of which the first is any, the others are at least {smallest} and the last is {height}, such as "
            f"{halved}."
        )


def laplacian_pyramid(images: Tensor, sizes: Sequence[int]) -> Pyramid:
    r"""Cut images into bands: $h_k = I_k - u(I_{k+1})$ with $I_{k+1} = d(I_k)$, and the smallest image itself.

    Args:
        images: `(N, C, H, H)`.
        sizes: sides of the levels, the smallest first, the last one H.

    Returns:
        The bands and what each is added to, the smallest first.

    Raises:
        DataError: if the sides do not rise to H.

    >>> bands, lows = laplacian_pyramid(torch.ones(1, 1, 14, 14), [4, 8, 14])
    >>> [band.abs().max().round(decimals=6).item() for band in bands]
    [1.0, 0.0, 0.0]
    """
    check_sizes(sizes, images.shape)
    bands: list[Tensor] = []
    lows: list[Tensor] = []
    for size in reversed(sizes[:-1]):
        smaller = downsample(images, size)
        lows.insert(0, upsample(smaller, images.shape[-1]))
        bands.insert(0, images - lows[0])
        images = smaller
    return Pyramid([images, *bands], [torch.zeros_like(images), *lows])


def reconstruct_pyramid(bands: Sequence[Tensor]) -> Tensor:
    """Put images together again: each band is added to what has been put together so far, enlarged.

    Args:
        bands: as of `laplacian_pyramid`.

    Returns:
        `(N, C, H, H)`.

    >>> images = torch.rand(2, 3, 28, 28)
    >>> torch.allclose(reconstruct_pyramid(laplacian_pyramid(images, [8, 14, 28]).bands), images, atol=1e-6)
    True
    """
    images = bands[0]
    for band in bands[1:]:
        images = upsample(images, band.shape[-1]) + band
    return images
