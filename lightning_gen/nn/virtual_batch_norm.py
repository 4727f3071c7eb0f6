"""Virtual batch normalisation (Salimans et al. 2016, https://arxiv.org/abs/1606.03498, section 3.5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_gen.functional.precision import widen


class VirtualBatchNorm(nn.Module):
    """Normalise each example by the statistics of a fixed reference batch and of the example itself.

    The reference batch goes through the network in front of every live batch: the first `num_reference` rows are it.
    It is normalised by its own mean and variance; a live example by the moments

        mean = (mean of the example + n mean of the reference) / (n + 1), and the same for the mean square,

    over positions as well, where there are any. So an example's output does not depend on the others in its batch.

    Args:
        num_features: channels C.
        num_reference: examples n of the reference batch.
        eps: added to the variance.

    Shape:
        `(n + N, C)` or `(n + N, C, H, W)` -> the same.
    """

    def __init__(self, num_features: int, num_reference: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_reference = num_reference
        self.eps = eps
        self.weight = nn.Parameter(1 + 0.02 * torch.randn(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        n, positions, dtype = self.num_reference, tuple(range(2, x.ndim)), x.dtype
        x = widen(x)  # A variance is a difference of squares.
        moments = torch.stack([x, x.square()])  # (2, n + N, C, ...)
        if positions:
            moments = moments.mean([dim + 1 for dim in positions], keepdim=True)
        reference = moments[:, :n].mean(1, keepdim=True)
        live = (moments[:, n:] + n * reference) / (n + 1)
        mean, square = torch.cat([reference.expand_as(moments[:, :n]), live], dim=1)
        channels = (-1,) + (1,) * len(positions)
        gain = self.weight.view(channels) * (square - mean.square() + self.eps).rsqrt()
        return torch.addcmul(self.bias.view(channels), gain, x - mean).to(dtype)
