"""The three divergences against closed forms, sums over samples, and what is known of their minima."""

import math

import pytest
import torch

from lightning_gen.commands.divergences import fit
from lightning_gen.functional import mmd2
from lightning_gen.functional.divergences import Mixture, grid, js_divergence, kl_divergence, mixture_mmd2


def gaussian(x: float, y: float, variance: float) -> Mixture:
    wide = torch.float64
    return Mixture(torch.ones(1, dtype=wide), torch.tensor([[x, y]], dtype=wide), torch.tensor([variance], dtype=wide))


@pytest.fixture
def data() -> Mixture:
    weights = torch.tensor([0.6, 0.4], dtype=torch.float64)
    means = torch.tensor([[-1.0, 0.0], [1.5, 1.0]], dtype=torch.float64)
    return Mixture(weights, means, torch.tensor([0.5, 0.25], dtype=torch.float64))


def test_density_integrates_to_one(data) -> None:
    points = grid(7, 201)
    assert data.log_prob(points).exp().sum().item() * 0.07**2 == pytest.approx(1)


def test_kl_of_gaussians_in_closed_form() -> None:
    """D / 2 (s / t - 1 - log(s / t)) + |m|^2 / 2 t, here with D = 2, s = 0.5, t = 2, |m|^2 = 5."""
    found = kl_divergence(gaussian(1, 2, 0.5), gaussian(0, 0, 2), grid(10, 401))
    assert found.item() == pytest.approx(0.25 - 1 + math.log(4) + 5 / 4, abs=1e-6)


def test_js_divergence_lies_between_nothing_and_log_2(data) -> None:
    points = grid(9, 301)
    assert js_divergence(data, data, points).item() == pytest.approx(0, abs=1e-12)
    apart = js_divergence(gaussian(-5, 0, 0.2), gaussian(5, 0, 0.2), points)
    assert apart.item() == pytest.approx(math.log(2), abs=1e-6)
    other = gaussian(0, 0, 1)
    torch.testing.assert_close(js_divergence(data, other, points), js_divergence(other, data, points))


def test_mmd_in_closed_form_is_that_of_many_samples(data) -> None:
    torch.manual_seed(0)
    component = torch.multinomial(data.weights, 20_000, replacement=True)
    x = data.means[component] + data.variances[component, None].sqrt() * torch.randn(20_000, 2)
    y = torch.randn(20_000, 2, dtype=torch.float64)
    exact = mixture_mmd2(data, gaussian(0, 0, 1), 0.7).item()
    assert mmd2(x, y, [0.7], biased=False).item() == pytest.approx(exact, abs=0.003)
    assert exact > 0.05


def test_maximum_likelihood_takes_the_mean_and_the_mean_variance(data) -> None:
    found = fit(lambda q: kl_divergence(data, q, grid(7, 101)))
    mean = data.weights @ data.means
    scatter = data.weights @ (data.variances + 0.5 * (data.means - mean).square().sum(1))
    torch.testing.assert_close(found.means[0], mean, rtol=0, atol=1e-4)
    assert found.variances.item() == pytest.approx(scatter.item(), abs=1e-3)
