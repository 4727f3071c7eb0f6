"""Structural similarity of two images on several scales."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gen.functional.precision import widen
from lightning_gen.functional.shapes import check_same_shape

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the five scales, from the finest on (Wang et al. 2003, section 3.2)."""

SMALLEST_SIDE = 7


def num_scales(side: int) -> int:
    """How many of the five scales leave images of 7 pixels or more: 5 for 128, 4 for 64, 3 for 28 and 32, at least 1.

    >>> [num_scales(side) for side in (8, 28, 32, 64, 128, 256)]
    [1, 3, 3, 4, 5, 5]
    """
    return max(1, sum(side // 2**scale >= SMALLEST_SIDE for scale in range(len(WEIGHTS))))


def ms_ssim(x: Tensor, y: Tensor, scales: int | None = None) -> Tensor:
    r"""Multi-scale structural similarity (Wang, Simoncelli, Bovik 2003), $\prod_j \max(c_j, 0)^{w_j}$.

    $c_j$ compares contrast and structure at scale j, and the luminance too at the last one, each a mean over pixels and
    channels. Windows are Gaussian, 11 x 11 with a standard deviation of 1.5 and only where they lie inside; in smaller
    images both shrink in proportion, and a last odd row or column is halved with itself, as in the code that AC-GAN's
    authors measured with. Fewer than five scales have weights of the same sum. What is negatively correlated has a
    similarity of 0. Computed in float32 or float64 whatever the precision around it.

    Args:
        x: `(N, C, H, W)` in [0, 1].
        y: of the same shape.
        scales: how many, each half as large; as many as the smaller side allows (see `num_scales`) if None.

    Returns:
        `(N,)`, from 0 to 1, where the images are equal.

    >>> x = torch.linspace(0, 1, 784).view(1, 1, 28, 28)
    >>> ms_ssim(x, x), ms_ssim(x, 1 - x)
    (tensor([1.]), tensor([0.]))
    """
    check_same_shape(x=x, y=y)
    scales = scales or num_scales(min(x.shape[2:]))
    x, y = widen(x), widen(y)
    weights = [weight * sum(WEIGHTS) / sum(WEIGHTS[:scales]) for weight in WEIGHTS[:scales]]
    similarity = torch.ones(len(x), dtype=x.dtype, device=x.device)
    with torch.autocast(x.device.type, enabled=False):  # Variances are differences of squares.
        for scale, weight in enumerate(weights):
            if scale:
                x, y = _halve(x), _halve(y)
            luminance, contrast = _compare(x, y)
            term = contrast if scale < scales - 1 else luminance * contrast
            similarity = similarity * term.mean((1, 2, 3)).clamp(min=0) ** weight
    return similarity


def _halve(x: Tensor) -> Tensor:
    """Means of 2 x 2 pixels, `(N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2))`."""
    odd_rows, odd_columns = x.shape[2] % 2, x.shape[3] % 2
    if odd_rows or odd_columns:
        x = F.pad(x, (0, odd_columns, 0, odd_rows), mode="replicate")
    return F.avg_pool2d(x, 2)


def _compare(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance, and contrast with structure, in each window (Wang et al. 2004, equations 6 and 13)."""
    size = min(11, *x.shape[2:])
    places = torch.arange(size, dtype=x.dtype, device=x.device) - (size - 1) / 2
    window = (-0.5 * (places / (1.5 * size / 11)) ** 2).exp()
    window = window / window.sum()

    def mean(values: Tensor) -> Tensor:  # The window is a product of two.
        channels = values.shape[1]
        rows = F.conv2d(values, window.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return F.conv2d(rows, window.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)

    mean_x, mean_y = mean(x), mean(y)
    variances = mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    return luminance, (2 * covariance + 0.03**2) / (variances + 0.03**2)
