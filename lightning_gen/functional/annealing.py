r"""Annealed importance sampling: likelihoods of models that decode a latent variable.

Neal, "Annealed importance sampling" (2001), https://arxiv.org/abs/physics/9803008; Wu, Burda, Salakhutdinov & Grosse,
"On the quantitative analysis of decoder-based generative models" (2017), https://arxiv.org/abs/1611.04273.

A chain walks from the prior p(z) = N(0, I) to the posterior p(z|x) along

    p_t(z) ~ p(z) p(x|z)^(beta_t),        0 = beta_0 < beta_1 < ... < beta_T = 1,

by transitions that each leave p_t as it is, here of Hamiltonian Monte Carlo. The product of p(x|z_{t-1})^(beta_t -
beta_{t-1}) on its way is an unbiased estimate of p(x), so its logarithm lies below log p(x) on average. A chain that
walks back from a draw of the posterior estimates 1 / p(x) in this way, and the logarithm of its product lies above
(bidirectional Monte Carlo).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_gen.errors import DataError

LogLikelihood = Callable[[Tensor], Tensor]
"""Log p(x|z) in nats of each image under latent variables of its own, `(L, N, J) -> (L, N)`."""

ACCEPTANCE = 0.65
"""The share of accepted proposals at which Hamiltonian Monte Carlo moves farthest for its cost (Beskos et al. 2013)."""


class Chains(NamedTuple):
    """Where L chains for each of N images ended, and what they saw on the way."""

    log_weights: Tensor  # (L, N) nats, float64
    z: Tensor  # (L, N, J)
    acceptance: Tensor  # (N,), share of proposals accepted


class _State(NamedTuple):
    z: Tensor  # (L, N, J)
    log_likelihood: Tensor  # (L, N)
    slope: Tensor  # (L, N, J), the gradient of log_likelihood by z


def sigmoid_schedule(num_steps: int) -> Tensor:
    """Temperatures beta from 0 to 1, closer to each other towards both ends (Wu et al. 2017, section 4).

    Args:
        num_steps: T, at least 1.

    Returns:
        `(T + 1,)`, float64.

    Raises:
        DataError: if there is no step.

    >>> sigmoid_schedule(2)
    tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    if num_steps < 1:
        raise DataError(f"num_steps is {num_steps}; expected at least 1.")
    values = torch.linspace(-4, 4, num_steps + 1, dtype=torch.float64).sigmoid()
    return (values - values[0]) / (values[-1] - values[0])


def tune_step_sizes(
    log_likelihood: LogLikelihood,
    z: Tensor,
    betas: Tensor,
    num_leapfrog: int = 10,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Find a step size for each temperature and image by a run of chains that is thrown away.

    A chain that adapted its own steps would no longer leave p_t as it is, and its weight would be biased. So these
    chains adapt theirs, towards an acceptance of `ACCEPTANCE`, and others take them as given.

    Args:
        log_likelihood: see `LogLikelihood`.
        z: draws of N(0, I), a few chains for each image, `(L, N, J)`.
        betas: temperatures, upwards, `(T + 1,)`.
        num_leapfrog: see `annealed_importance_sampling`.
        generator: source of randomness on z's device; the global one if None.

    Returns:
        `(T, N)`, for the moves at `betas[1:]`.
    """
    state = _State(z, *_evaluate(log_likelihood, z))
    size = z.new_full((z.shape[1],), 0.5)
    sizes = []
    for beta in betas[1:].tolist():
        sizes.append(size)
        state, acceptance = _move(log_likelihood, state, beta, size, num_leapfrog, generator)
        size = size * (0.3 * (acceptance - ACCEPTANCE)).exp()
    return torch.stack(sizes)


def annealed_importance_sampling(
    log_likelihood: LogLikelihood,
    z: Tensor,
    betas: Tensor,
    step_sizes: Tensor,
    num_leapfrog: int = 10,
    generator: torch.Generator | None = None,
) -> Chains:
    """Walk along the temperatures, upwards from the prior or downwards from the posterior.

    `importance_weighted_bound(log_weights)` of chains that walk up is a lower bound on log p(x) in expectation, and its
    exponential is unbiased; `-importance_weighted_bound(-log_weights)` of chains that walk down is an upper bound.

    Args:
        log_likelihood: see `LogLikelihood`.
        z: where the chains begin, `(L, N, J)`: draws of N(0, I) to walk up, of the exact posterior to walk down.
        betas: temperatures, `(T + 1,)`, from 0 to 1 or from 1 to 0.
        step_sizes: of the leapfrogs, `(T, N)`, chosen without these chains; those of `tune_step_sizes` upwards, and
            the same flipped downwards.
        num_leapfrog: leapfrogs of each proposal.
        generator: source of randomness on z's device; the global one if None.

    Returns:
        The log weights, positive powers of the likelihood in both directions; the last states; the acceptance.
    """
    upwards = bool(betas[0] < betas[-1])
    state = _State(z, *_evaluate(log_likelihood, z))
    log_weights = torch.zeros_like(state.log_likelihood, dtype=torch.float64)
    accepted = z.new_zeros(z.shape[1])
    for (before, after), size in zip(pairwise(betas.tolist()), step_sizes, strict=True):
        if upwards:
            log_weights += (after - before) * state.log_likelihood.double()
        state, acceptance = _move(log_likelihood, state, after if upwards else before, size, num_leapfrog, generator)
        if not upwards:
            log_weights += (before - after) * state.log_likelihood.double()
        accepted += acceptance
    return Chains(log_weights, state.z, accepted / len(step_sizes))


def _evaluate(log_likelihood: LogLikelihood, z: Tensor) -> tuple[Tensor, Tensor]:
    """Log p(x|z) and its gradient by z."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = log_likelihood(z)
        (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), slope


def _move(
    log_likelihood: LogLikelihood,
    state: _State,
    beta: float,
    size: Tensor,
    num_leapfrog: int,
    generator: torch.Generator | None,
) -> tuple[_State, Tensor]:
    """One proposal of Hamiltonian Monte Carlo and its acceptance or refusal, which leave p_t as it is.

    Returns:
        The new state, and the mean probability of acceptance for each image, `(N,)`.
    """
    z, value, slope = state
    size = size[:, None]  # (N, 1)
    start = torch.randn(z.shape, generator=generator, dtype=z.dtype, device=z.device)
    momentum = start + 0.5 * size * (beta * slope - z)
    for step in range(num_leapfrog):
        z = z + size * momentum
        value, slope = _evaluate(log_likelihood, z)
        momentum = momentum + (size if step < num_leapfrog - 1 else 0.5 * size) * (beta * slope - z)
    kinetic, prior = start.square() - momentum.square(), state.z.square() - z.square()
    log_ratio = beta * (value - state.log_likelihood) + 0.5 * (kinetic + prior).sum(-1)
    log_ratio = log_ratio.nan_to_num(nan=-torch.inf)  # A leapfrog may run off to infinity: that is refused.
    uniform = torch.rand(log_ratio.shape, generator=generator, dtype=z.dtype, device=z.device)
    accept = uniform.log() < log_ratio
    mask = accept[..., None]
    moved = _State(
        torch.where(mask, z, state.z),
        torch.where(accept, value, state.log_likelihood),
        torch.where(mask, slope, state.slope),
    )
    return moved, log_ratio.clamp(max=0).exp().mean(0)
