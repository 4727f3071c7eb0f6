"""Mixtures of Gaussians with their own variance in each dimension, by expectation maximisation."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_gen.functional.clustering import k_means
from lightning_gen.functional.precision import widen


class DiagonalMixture(NamedTuple):
    """K Gaussians with diagonal covariances."""

    weights: Tensor  # (K,), which sum to 1
    means: Tensor  # (K, D)
    variances: Tensor  # (K, D)

    def log_joint(self, points: Tensor) -> Tensor:
        """Log p(x, k) of each point and component, `(N, D) -> (N, K)`, in nats: two matrix products."""
        points = widen(points)
        weights, means, variances = (part.to(points.dtype) for part in self)
        precisions = 1 / variances
        with torch.autocast(points.device.type, enabled=False):  # A difference of large sums.
            squares = points.square() @ precisions.T - 2 * points @ (means * precisions).T
        squares = squares + (means.square() * precisions).sum(1)
        normalizer = variances.log().sum(1) + means.shape[1] * math.log(2 * math.pi)
        return weights.log() - 0.5 * (squares + normalizer)

    def log_prob(self, points: Tensor) -> Tensor:
        """Log p(x) in nats, `(N, D) -> (N,)`."""
        return self.log_joint(points).logsumexp(1)

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw points, `(num_samples, D)`."""
        rows = torch.multinomial(self.weights, num_samples, replacement=True, generator=generator)
        shape = (num_samples, self.means.shape[1])
        noise = torch.randn(shape, generator=generator, device=self.means.device, dtype=self.means.dtype)
        return self.means[rows] + self.variances[rows].sqrt() * noise


def maximize(points: Tensor, responsibilities: Tensor, floor: Tensor) -> DiagonalMixture:
    """The M step: each component's weight, mean and variance, of points `(N, D)` by their share in it, `(N, K)`."""
    counts = responsibilities.sum(0).clamp(min=1e-6)
    means = responsibilities.T @ points / counts[:, None]
    variances = responsibilities.T @ points.square() / counts[:, None] - means.square()
    return DiagonalMixture(counts / counts.sum(), means, variances.clamp(min=floor))


def fit_mixture(
    points: Tensor, num_components: int, num_iterations: int = 20, generator: torch.Generator | None = None
) -> DiagonalMixture:
    """Fit a mixture by expectation maximisation (Bishop 2006, section 9.2.2), from the clusters of `k_means`.

    No variance falls below a hundredth of that of all points in its dimension: a component with a single point of its
    own would else have an infinite density. No weight reaches 0.

    Args:
        points: `(N, D)`; computed in float64.
        num_components: K, at most N.
        num_iterations: steps.
        generator: of the first centroids; on the CPU.

    Returns:
        The mixture, of the points' kind.

    Raises:
        DataError: if there are fewer points than components.

    >>> points = torch.tensor([[0.0], [0.2], [7.0], [7.4]])
    >>> fit_mixture(points, 2, generator=torch.Generator().manual_seed(1)).means.sort(0).values.flatten()
    tensor([0.1000, 7.2000])
    """
    x = points.double()
    floor = 0.01 * x.var(0, correction=0) + 1e-12
    assignment = k_means(x, num_components, generator=generator).assignment
    mixture = maximize(x, torch.nn.functional.one_hot(assignment, num_components).to(x.dtype), floor)
    for _ in range(num_iterations):
        mixture = maximize(x, mixture.log_joint(x).softmax(1), floor)
    return DiagonalMixture(*(part.to(points.dtype) for part in mixture))
