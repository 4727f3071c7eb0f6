"""Maxout layers (Goodfellow et al. 2013, https://arxiv.org/abs/1302.4389)."""

from __future__ import annotations

from torch import Tensor, nn


class Maxout(nn.Module):
    """A layer whose every unit is the largest of several affine maps of its input.

    Unit i is `max_j (w_ij . x + b_ij)`; the rows of the affine map hold the pieces of a unit side by side.

    Args:
        in_features: size of the input.
        units: number of units U.
        pieces: affine maps of each unit P.
        irange: weights are drawn from U(-irange, irange), biases are 0.

    Shape:
        `(..., in_features) -> (..., U)`.
    """

    def __init__(self, in_features: int, units: int, pieces: int, irange: float) -> None:
        super().__init__()
        self.shape = (units, pieces)
        self.affine = nn.Linear(in_features, units * pieces)
        nn.init.uniform_(self.affine.weight, -irange, irange)
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.affine(x).unflatten(-1, self.shape).max(-1).values


class MaxoutConv2d(nn.Module):
    """A convolution whose every channel is the largest of several.

    Args:
        in_channels: channels of the input.
        channels: of the output, C.
        pieces: convolutions that each is the maximum of.
        kernel_size: side of the square kernels.
        padding: of zeros, on each side.
        irange: weights are drawn from U(-irange, irange), biases are 0.

    Shape:
        `(N, in_channels, H, W) -> (N, C, H', W')`.
    """

    def __init__(
        self, in_channels: int, channels: int, pieces: int, kernel_size: int, padding: int, irange: float
    ) -> None:
        super().__init__()
        self.shape = (channels, pieces)
        self.affine = nn.Conv2d(in_channels, channels * pieces, kernel_size, padding=padding)
        nn.init.uniform_(self.affine.weight, -irange, irange)
        assert self.affine.bias is not None
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.affine(x).unflatten(1, self.shape).amax(2)
