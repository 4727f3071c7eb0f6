r"""Steps of chains that walk towards probable codes of a class: activation maximisation and approximate Langevin.

None of them is a sampler of its density: there is no Metropolis correction, and the noise is not tied to the step size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gen.functional.precision import widen
from lightning_gen.functional.shapes import check_same_shape


def langevin_step(
    h: Tensor, prior: Tensor, condition: Tensor, noise: Tensor, prior_weight: float, condition_weight: float
) -> Tensor:
    r"""$h + \epsilon_1 \nabla \log p(h) + \epsilon_2 \nabla \log p(y \mid h) + n$.

    Nguyen et al. 2017, equation 5, with the step sizes of the two gradients and of the noise set apart. On a normal
    density of variance $s^2$ alone, with $a = \epsilon_1 / s^2$ and noise of variance $\epsilon_3^2$, the variance
    settles at $\epsilon_3^2 / (2 a - a^2)$.

    Args:
        h: codes (or images), `(N, ...)`.
        prior: gradient of log p(h); for a denoiser R of noise of variance s^2, R(h) - h is s^2 times that.
        condition: gradient of log p(y | h).
        noise: already scaled.
        prior_weight: epsilon_1.
        condition_weight: epsilon_2.
    """
    check_same_shape(h=h, prior=prior, condition=condition, noise=noise)
    return h + prior_weight * prior + condition_weight * condition + noise


def scaled_step(h: Tensor, direction: Tensor, length: float) -> Tensor:
    r"""$h + \ell d / \mathrm{mean} |d|$: a step of a given mean absolute size for each row.

    The authors' code (of both papers) scales its updates so. A row without direction (all zero, or not finite) stays.

    Args:
        h: `(N, ...)`.
        direction: of the same shape.
        length: mean absolute change of a row.

    >>> scaled_step(torch.zeros(2, 2), torch.tensor([[1.0, -3.0], [0.0, 0.0]]), 0.5)
    tensor([[ 0.2500, -0.7500],
            [ 0.0000,  0.0000]])
    """
    check_same_shape(h=h, direction=direction)
    size = direction.abs().flatten(1).mean(1).view(-1, *[1] * (h.ndim - 1))
    moves = (size > 0) & size.isfinite()
    return torch.where(moves, h + length * direction / torch.where(moves, size, 1.0), h)


def ascent_step(h: Tensor, gradient: Tensor, length: float, bounds: Tensor, decay: float) -> Tensor:
    r"""$\lambda \, \mathrm{clip}(h + \ell g / \mathrm{mean} |g|, 0, u)$: activation maximisation in a space of codes.

    Nguyen et al. 2016, "Synthesizing the preferred inputs for neurons in neural networks via deep generator networks",
    as in the authors' code: the decay multiplies and comes last. A row without gradient stays as it is.

    Args:
        h: codes, `(N, K)`.
        gradient: of the activation, `(N, K)`.
        length: mean absolute change before clipping.
        bounds: u, `(K,)`; the codes are those of rectified units.
        decay: lambda, 0.99 as published.
    """
    moved = scaled_step(h, gradient, length)
    still = (moved == h).all(1, keepdim=True)
    return torch.where(still, h, decay * torch.minimum(moved.clamp(min=0), bounds))


def class_log_prob(logits: Tensor, labels: Tensor) -> Tensor:
    r"""$\log p(y = c \mid x)$ in nats, `(N, K)` and `(N,) -> (N,)`; its gradient by the logits is onehot_c - p."""
    check_same_shape(logits=logits[:, 0], labels=labels)
    return widen(logits).log_softmax(1).gather(1, labels[:, None]).squeeze(1)


def truncated_class_score(logits: Tensor, labels: Tensor) -> Tensor:
    r"""A score whose gradient is that of $\log p(y = c \mid x)$ by the logit c alone: 1 - p_c there, 0 elsewhere.

    So the released code of Nguyen et al. 2017 climbs; the exact gradient also has -p_k for every other class k.

    Args:
        logits: `(N, K)`.
        labels: `(N,)`.

    Returns:
        `(N,)`, of which only the gradient has a meaning.
    """
    check_same_shape(logits=logits[:, 0], labels=labels)
    own = widen(logits).gather(1, labels[:, None]).squeeze(1)
    return own * (1 - class_log_prob(logits, labels).exp()).detach()


def linear_schedule(start: float, end: float, step: int, num_steps: int) -> float:
    """From start towards end by (end - start) / num_steps: the length of each step, as in the authors' code.

    >>> [linear_schedule(8, 0, step, 4) for step in range(4)]
    [8.0, 6.0, 4.0, 2.0]
    """
    return start + (end - start) * step / num_steps
