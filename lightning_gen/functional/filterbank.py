"""A window of Gaussian filters on an image, which reads a patch from it and writes one to it (Gregor et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gen.functional.shapes import check_same_shape


def filterbank(centre: Tensor, stride: Tensor, log_var: Tensor, num_filters: int, size: int) -> Tensor:
    r"""Gaussian filters along one axis of an image, evenly spaced about a centre (DRAW, equations 19, 20, 25, 26).

    $F_{ia} = \frac{1}{Z_i} \exp(-\frac{(a - \mu_i)^2}{2\sigma^2})$, $\mu_i = g + (i - n/2 - 0.5)\delta$, for filters
    $i = 1..n$ and pixels $a = 1..A$. Each filter sums to one, also where it lies far outside the image.

    Args:
        centre: g in pixels, of which the first is 1, `(...)`.
        stride: $\delta$, pixels from one filter to the next, `(...)`.
        log_var: log of $\sigma^2$ in square pixels, `(...)`.
        num_filters: n.
        size: pixels A of the axis.

    Returns:
        `(..., num_filters, size)`.

    >>> filterbank(torch.tensor(2.0), torch.tensor(2.0), torch.tensor(-9.0), 2, 3)
    tensor([[1., 0., 0.],
            [0., 0., 1.]])
    """
    check_same_shape(centre=centre, stride=stride, log_var=log_var)
    offsets = torch.arange(1, num_filters + 1, dtype=centre.dtype, device=centre.device) - num_filters / 2 - 0.5
    pixels = torch.arange(1, size + 1, dtype=centre.dtype, device=centre.device)
    means = centre[..., None] + offsets * stride[..., None]  # (..., n)
    squares = (pixels - means[..., None]).square()  # (..., n, A)
    return (-0.5 * (-log_var).exp()[..., None, None] * squares).softmax(-1)


def read_patch(images: Tensor, filters_y: Tensor, filters_x: Tensor) -> Tensor:
    r"""What a window sees of each channel, $F_Y x F_X^T$ (DRAW, equation 27 without its intensity).

    Args:
        images: `(N, C, H, W)`.
        filters_y: `(N, n, H)`.
        filters_x: `(N, n, W)`.

    Returns:
        `(N, C, n, n)`.
    """
    return filters_y[:, None] @ images @ filters_x[:, None].mT


def write_patch(patch: Tensor, filters_y: Tensor, filters_x: Tensor) -> Tensor:
    r"""A patch laid onto an empty image, $F_Y^T w F_X$, the adjoint of `read_patch` (DRAW, equation 29 likewise).

    Args:
        patch: `(N, C, n, n)`.
        filters_y: `(N, n, H)`.
        filters_x: `(N, n, W)`.

    Returns:
        `(N, C, H, W)`.
    """
    return filters_y[:, None].mT @ patch @ filters_x[:, None]
