r"""Three distances between distributions that a model can be fitted by, on mixtures of isotropic Gaussians.

Theis, van den Oord & Bethge, "A note on the evaluation of generative models" (2016), section 2 and figure 1: they rank
models that fall short of the data in different ways.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Mixture(NamedTuple):
    """A mixture of isotropic Gaussians in D dimensions."""

    weights: Tensor  # (K,), of sum 1
    means: Tensor  # (K, D)
    variances: Tensor  # (K,)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats, `(..., D) -> (...)`."""
        squares = (x[..., None, :] - self.means).square().sum(-1)
        log_normalizer = 0.5 * x.shape[-1] * (2 * math.pi * self.variances).log()
        return (self.weights.log() - log_normalizer - 0.5 * squares / self.variances).logsumexp(-1)


def grid(half_width: float, num_points: int) -> Tensor:
    """Points of a square around the origin to integrate over, `(num_points, num_points, 2)`, x first; float64.

    >>> grid(1.0, 3)[0, 2]
    tensor([ 1., -1.], dtype=torch.float64)
    """
    axis = torch.linspace(-half_width, half_width, num_points, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], -1)


def kl_divergence(p: Mixture, q: Mixture, points: Tensor) -> Tensor:
    r"""$\int p \log (p / q)$ in nats, what maximum likelihood minimises, by a sum over a fine `grid`."""
    log_p, log_q = p.log_prob(points), q.log_prob(points)
    return (log_p.exp() * (log_p - log_q)).sum() * _area(points)


def js_divergence(p: Mixture, q: Mixture, points: Tensor) -> Tensor:
    r"""$\frac12 KL(p \| m) + \frac12 KL(q \| m)$ with $m = \frac12 (p + q)$, in nats, at most log 2.

    What adversarial training minimises if the discriminator is the best there is (Goodfellow et al. 2014, theorem 1).
    """
    log_p, log_q = p.log_prob(points), q.log_prob(points)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return 0.5 * (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum() * _area(points)


def mixture_mmd2(p: Mixture, q: Mixture, bandwidth: float) -> Tensor:
    r"""The squared maximum mean discrepancy under $\exp(-\|x - y\|^2 / 2b)$, in closed form.

    Its mean over x ~ N(a, s I), y ~ N(c, t I) is $(b / v)^{D/2} \exp(-\|a - c\|^2 / 2v)$ with $v = b + s + t$.

    Args:
        p: a mixture.
        q: another.
        bandwidth: b, a variance.

    >>> p = Mixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1))
    >>> mixture_mmd2(p, p, 1.0)
    tensor(0.)
    """

    def mean_kernel(a: Mixture, c: Mixture) -> Tensor:
        squares = (a.means[:, None] - c.means).square().sum(-1)
        v = bandwidth + a.variances[:, None] + c.variances
        kernel = (bandwidth / v) ** (a.means.shape[1] / 2) * (-0.5 * squares / v).exp()
        return (a.weights[:, None] * kernel * c.weights).sum()

    return mean_kernel(p, p) - 2 * mean_kernel(p, q) + mean_kernel(q, q)


def _area(points: Tensor) -> Tensor:
    """Of a cell of the grid."""
    return (points[1, 1] - points[0, 0]).prod()
