"""Minibatch discrimination (Salimans et al. 2016, https://arxiv.org/abs/1606.03498, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_gen.errors import DataError
from lightning_gen.functional.precision import widen


class MinibatchDiscrimination(nn.Module):
    """Tell each example of a batch how near the others are, so that a discriminator can see that they are all alike.

    With M_i = f(x_i) T in R^{B x C}, the output has B more numbers for each example,
    `o_b(x_i) = sum_{j != i} exp(-||M_ib - M_jb||_1)`, plus a bias. An example is not compared with itself, which would
    add a constant 1. Each vector T_bc has a norm of its own, learned as a logarithm, as in the authors' code.

    Args:
        in_features: A, length of f(x).
        num_kernels: B.
        kernel_dim: C.

    Shape:
        `(N, A) -> (N, A + B)`.

    Raises:
        DataError: if the batch holds one example.
    """

    def __init__(self, in_features: int, num_kernels: int = 100, kernel_dim: int = 5) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.05 * torch.randn(in_features, num_kernels, kernel_dim))
        self.log_scale = nn.Parameter(torch.zeros(num_kernels, kernel_dim))
        self.bias = nn.Parameter(torch.full((num_kernels,), -1.0))

    def distances(self, x: Tensor) -> Tensor:
        """L1 distances between the examples in each kernel's space, `(N, A) -> (B, N, N)`."""
        if len(x) < 2:
            raise DataError(
                f"Minibatch discrimination compares the images of a batch and got a batch of {len(x)}; choose a "
                "batch_size that leaves no single image at the end."
            )
        directions = self.weight / torch.linalg.vector_norm(self.weight, dim=0)
        m = torch.einsum("na,abc->bnc", x, directions * self.log_scale.exp())
        return torch.cdist(widen(m), widen(m), p=1)

    def closeness(self, x: Tensor) -> Tensor:
        """o(x), `(N, A) -> (N, B)`, from 0 for an example far from all others to N - 1 for N equal ones."""
        return self.distances(x).neg().exp().sum(-1).T - 1  # 1 is what each example gives itself.

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.closeness(x) + self.bias], dim=1)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Set the scales so that half the mean distance to the nearest other example is 1, and centre the output."""
        nearest = self.distances(x).add_(torch.diag(x.new_full((len(x),), torch.inf))).amin(-1).mean(-1)  # (B,)
        self.log_scale.sub_((0.5 * nearest).log()[:, None])
        self.bias.copy_(-self.closeness(x).mean(0))
