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
