"""Annealed importance sampling against what is known exactly: a linear Gaussian model, and quadrature."""

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from lightning_gen.functional import (
    annealed_importance_sampling,
    effective_sample_size,
    importance_weighted_bound,
    sigmoid_schedule,
    tune_step_sizes,
    uniform_from_normal,
)
from lightning_gen.functional.annealing import LogLikelihood
from lightning_gen.models import DCGAN, GAN, GMMN, VAE

WIDE = torch.float64


@pytest.fixture
def linear() -> tuple[LogLikelihood, Tensor, Tensor]:
    """x = W z + noise, two latent variables: log p(x|z) of three images, log p(x), and draws of p(z|x)."""
    draws = torch.Generator().manual_seed(0)
    w = torch.randn(4, 2, generator=draws, dtype=WIDE)
    x = torch.randn(3, 4, generator=draws, dtype=WIDE)
    exact = MultivariateNormal(torch.zeros(4, dtype=WIDE), w @ w.T + torch.eye(4, dtype=WIDE)).log_prob(x)
    covariance = torch.linalg.inv(torch.eye(2, dtype=WIDE) + w.T @ w)
    torch.manual_seed(1)
    posterior = MultivariateNormal(x @ w @ covariance, covariance).sample((3000,))
    return lambda z: Normal(z @ w.T, 1.0).log_prob(x).sum(-1), exact, posterior


def test_weights_are_unbiased_and_their_bounds_enclose_the_likelihood(linear) -> None:
    """Few, hasty steps: the mean of many weights is p(x) all the same, and bounds of few of them lie on either side."""
    log_likelihood, exact, posterior = linear
    draws = torch.Generator().manual_seed(2)
    betas = sigmoid_schedule(8)
    pilots = torch.randn(50, 3, 2, generator=draws, dtype=WIDE)
    sizes = tune_step_sizes(log_likelihood, pilots, betas, 3, draws)
    start = torch.randn(10_000, 3, 2, generator=draws, dtype=WIDE)
    up = annealed_importance_sampling(log_likelihood, start, betas, sizes, 3, draws)
    ratios = (up.log_weights - exact).exp()
    assert ((ratios.mean(0) - 1).abs() < 3 * ratios.std(0) / len(start) ** 0.5).all()
    assert (ratios.std(0) / len(start) ** 0.5 < 0.02).all()

    betas = sigmoid_schedule(40)  # Backwards the weights have a heavier tail.
    sizes = tune_step_sizes(log_likelihood, pilots, betas, 3, draws)
    down = annealed_importance_sampling(log_likelihood, posterior, betas.flip(0), sizes.flip(0), 3, draws)
    inverse = (exact - down.log_weights).exp()
    assert ((inverse.mean(0) - 1).abs() < 3 * inverse.std(0) / len(posterior) ** 0.5).all()
    assert (inverse.std(0) / len(posterior) ** 0.5 < 0.1).all()

    lower, upper = up.log_weights.mean(0), down.log_weights.mean(0)
    assert (lower < exact).all()
    assert (exact < upper).all()
    assert (up.acceptance > 0.3).all()


def test_chains_end_in_the_posterior(linear) -> None:
    log_likelihood, _, posterior = linear
    draws = torch.Generator().manual_seed(3)
    betas = sigmoid_schedule(100)
    start = torch.randn(1000, 3, 2, generator=draws, dtype=WIDE)
    sizes = tune_step_sizes(log_likelihood, start[:20], betas, 5, draws)
    up = annealed_importance_sampling(log_likelihood, start, betas, sizes, 5, draws)
    weights = up.log_weights.softmax(0)[..., None]
    mean = (weights * up.z).sum(0)
    torch.testing.assert_close(mean, posterior.mean(0), rtol=0, atol=0.08)
    variance = (weights * (up.z - mean).square()).sum(0)
    torch.testing.assert_close(variance, posterior.var(0), rtol=0.2, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_likelihood_of_a_decoder_by_quadrature(dtype) -> None:
    """A VAE of binary pixels with two latent variables, wide weights: the bound of 16 chains is log p(x) to 0.04 nats,
    and more steps make the effective samples more."""
    torch.manual_seed(0)
    model = VAE((1, 2, 3), latent_dim=2, hidden_size=8, init_std=1.2).to(dtype).requires_grad_(False)
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)), dtype=dtype).view(-1, 1, 2, 3)[1::7]
    axis = torch.linspace(-7, 7, 401, dtype=dtype)
    grid = torch.cartesian_prod(axis, axis)[:, None].expand(-1, len(images), -1)
    log_joint = model.conditional_log_prob(images, grid) + Normal(0.0, 1.0).log_prob(grid).sum(-1)
    exact = log_joint.double().logsumexp(0) + 2 * math.log(14 / 400)
    effective = []
    density = partial(model.conditional_log_prob, images)
    for num_steps in (5, 200):
        betas = sigmoid_schedule(num_steps)
        sizes = tune_step_sizes(density, torch.randn(4, len(images), 2, dtype=dtype), betas)
        chains = annealed_importance_sampling(density, torch.randn(16, len(images), 2, dtype=dtype), betas, sizes)
        effective.append(effective_sample_size(chains.log_weights).mean().item())
    torch.testing.assert_close(importance_weighted_bound(chains.log_weights), exact, rtol=0, atol=0.15)
    assert (importance_weighted_bound(chains.log_weights) - exact).mean().abs() < 0.04
    assert 15 < effective[1] <= 16
    assert effective[0] < effective[1]


def test_schedule() -> None:
    betas = sigmoid_schedule(50)
    assert betas[0] == 0
    assert betas[-1] == 1
    assert (betas.diff() > 0).all()
    torch.testing.assert_close(betas + betas.flip(0), torch.ones_like(betas))


def test_effective_samples_on_numbers_worked_by_hand() -> None:
    log_weights = torch.tensor([[1.0, 1.0, 2.0], [1.0, 0.0, 0.0], [3.0, 3.0, 3.0]]).log().T
    torch.testing.assert_close(effective_sample_size(log_weights.double() - 900), torch.tensor([16 / 6, 1, 3]).double())


@pytest.mark.parametrize(
    "model",
    [
        GAN((1, 4, 4), latent_dim=2, hidden_size=4),
        GAN((1, 4, 4), latent_dim=2, hidden_size=4, noise="gaussian"),
        GAN((1, 4, 4), latent_dim=2, hidden_size=4, spherical_z=True),
        GMMN((1, 4, 4), latent_dim=2, hidden_sizes=(4,)),
        DCGAN((1, 28, 28), latent_dim=2, base_channels=2),
        VAE((1, 4, 4), latent_dim=2, hidden_size=4),
    ],
    ids=["uniform", "gaussian", "sphere", "GMMN", "DCGAN", "VAE"],
)
def test_noise_made_of_normal_numbers_is_the_models_noise(model) -> None:
    """The two-sample test of Kolmogorov and Smirnov, one coordinate at a time; its distance at the level of 0.001."""
    torch.manual_seed(0)
    drawn, made = model.sample_latent(5000), model.latent_from_normal(torch.randn(5000, 2))
    assert made.shape == drawn.shape
    both = torch.cat([drawn, made])
    sign = torch.cat([torch.ones(5000), -torch.ones(5000)])
    for column in range(2):
        distance = sign[both[:, column].argsort()].cumsum(0).abs().max() / 5000
        assert distance < 1.95 * (2 / 5000) ** 0.5


def test_uniform_numbers_have_bounds() -> None:
    assert uniform_from_normal(torch.tensor([-40.0, 40.0]), 2, 3).tolist() == [2, 3]
