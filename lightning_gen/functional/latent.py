"""Noise: vectors on the sphere that Gaussian ones lie near, ways between two of them, and dropout in a generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_gen.functional.shapes import check_same_shape


def to_sphere(z: Tensor) -> Tensor:
    r"""Project onto the sphere of radius $\sqrt{d}$, near which almost all of a d-dimensional Gaussian lies.

    Args:
        z: `(N, d)`, none of them zero.

    Returns:
        `(N, d)` of mean square 1 in each row.

    >>> to_sphere(torch.tensor([[3.0, 4.0]])).square().mean()
    tensor(1.)
    """
    return z / z.square().mean(-1, keepdim=True).sqrt()


def uniform_from_normal(u: Tensor, low: float, high: float) -> Tensor:
    r"""Uniform numbers as a function of standard normal ones, $low + (high - low)\,\Phi(u)$.

    Samplers that move through all of space then serve for noise that has bounds.

    Args:
        u: draws of N(0, 1), of any shape.
        low: lower bound.
        high: upper bound.

    >>> uniform_from_normal(torch.tensor([-9.0, 0.0, 9.0]), -1, 1)
    tensor([-1.,  0.,  1.])
    """
    return low + (high - low) * torch.special.ndtr(u)


def interpolate(start: Tensor, end: Tensor, steps: int, spherical: bool = False) -> Tensor:
    """Points on the way from one vector to another, both included.

    Args:
        start: `(d,)`.
        end: `(d,)`.
        steps: number of points, at least 2.
        spherical: along the great circle (Shoemake 1985), which keeps the norm of vectors of equal norm; else along
            the straight line, which passes nearer to the origin than Gaussian vectors ever lie.

    Returns:
        `(steps, d)`.

    >>> interpolate(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 3, spherical=True)[1]
    tensor([0.7071, 0.7071])
    """
    check_same_shape(start=start, end=end)
    t = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device)[:, None]
    if spherical:
        with torch.autocast(start.device.type, enabled=False):  # Near 1 the arc cosine magnifies what is rounded.
            cosine = (start @ end) / (start.norm() * end.norm())
        angle = cosine.clamp(-1, 1).acos()
        if 1e-4 < angle < math.pi - 1e-4:  # Else the arc is the line, or no arc is the shortest.
            return (((1 - t) * angle).sin() * start + (t * angle).sin() * end) / angle.sin()
    return start + t * (end - start)


def drop(x: Tensor, rate: float, generator: torch.Generator | None = None) -> Tensor:
    """Dropout in any mode, as the noise of a generator.

    Args:
        x: of any shape.
        rate: share of the values that become 0, in [0, 1); the others grow by 1 / (1 - rate).
        generator: source of the mask on the device of `x`; the global one if None.

    >>> drop(torch.ones(2, 3), 0.0)
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """
    return x * torch.empty_like(x).bernoulli_(1 - rate, generator=generator) / (1 - rate)
