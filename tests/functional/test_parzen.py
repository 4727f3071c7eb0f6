"""The Parzen window against closed forms, scipy, and float64 without any chunks."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde, multivariate_normal
from torch import Tensor

from lightning_gen.functional import parzen, parzen_log_likelihood

GRID = torch.logspace(-1, 0, 10, dtype=torch.float64)


def plain(x: Tensor, samples: Tensor, sigma: float) -> Tensor:
    """The formula as it is written."""
    x, samples = x.double(), samples.double()
    exponents = -(x[:, None] - samples).square().sum(2) / (2 * sigma**2)
    return exponents.logsumexp(1) - math.log(len(samples)) - x.shape[1] * math.log(sigma * math.sqrt(2 * math.pi))


def test_one_dimension_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    samples, x, sigma = rng.normal(size=50), rng.normal(size=20), 0.3
    expected = gaussian_kde(samples, bw_method=sigma / samples.std(ddof=1)).logpdf(x)
    ours = parzen_log_likelihood(torch.from_numpy(x)[:, None], torch.from_numpy(samples)[:, None], sigma)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-6)


def test_two_dimensions_equal_the_mean_of_normal_densities() -> None:
    rng = np.random.default_rng(0)
    samples, x, sigma = rng.normal(size=(40, 2)), rng.normal(size=(20, 2)), 0.5
    expected = np.log(np.mean([multivariate_normal(m, sigma**2).pdf(x) for m in samples], axis=0))
    ours = parzen_log_likelihood(torch.from_numpy(x), torch.from_numpy(samples), sigma)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-6)


def test_one_sample_is_one_normal_density() -> None:
    x, sample = torch.rand(5, 1, 4, 4), torch.rand(1, 1, 4, 4)
    expected = torch.distributions.Normal(sample.double(), 0.2).log_prob(x.double()).flatten(1).sum(1)
    torch.testing.assert_close(parzen_log_likelihood(x, sample, 0.2), expected, rtol=1e-12, atol=1e-12)


def test_grid_equals_one_sigma_at_a_time_and_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    # Binary pixels of 784 dimensions have large distances, where float32 products would lose the most.
    x, samples = (torch.rand(n, 784, generator=generator).round() for n in (20, 300))
    ours = parzen_log_likelihood(x, samples, GRID)
    for k, sigma in enumerate(GRID.tolist()):
        torch.testing.assert_close(ours[:, k], parzen_log_likelihood(x, samples, sigma), rtol=0, atol=1e-9)
        torch.testing.assert_close(ours[:, k], plain(x, samples, sigma), rtol=0, atol=1e-5)


def test_far_from_the_origin_nothing_is_lost() -> None:
    generator = torch.Generator().manual_seed(0)
    x, samples = torch.rand(10, 50, generator=generator), torch.rand(200, 50, generator=generator)
    moved = parzen_log_likelihood(x.double() + 1000, samples.double() + 1000, 0.1)
    torch.testing.assert_close(moved, plain(x, samples, 0.1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("reduced", ["high", "medium"])
def test_reduced_precision_of_products_is_not_used(reduced: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, samples = torch.rand(100, 784, generator=generator), torch.rand(100, 784, generator=generator)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(reduced)
    try:
        ours = parzen_log_likelihood(x, samples, 0.1)
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(ours, plain(x, samples, 0.1), rtol=0, atol=1e-5)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(23, 30, generator=generator)
    # The nearest sample of some rows comes first, of others late: the running sums have to be rescaled.
    samples = torch.cat([x[:5] + 0.01, 5 * torch.rand(40, 30, generator=generator), x[5:] + 0.02])
    whole = parzen_log_likelihood(x, samples, GRID)
    monkeypatch.setattr(parzen, "ROWS", 7)
    monkeypatch.setattr(parzen, "COLUMNS", 9)
    torch.testing.assert_close(parzen_log_likelihood(x, samples, GRID), whole, rtol=0, atol=1e-6)


def test_narrow_windows_diverge_on_the_samples_and_vanish_off_them() -> None:
    samples = torch.rand(30, 4, generator=torch.Generator().manual_seed(0))
    widths = torch.tensor([1e-1, 1e-3, 1e-5])
    on, off = (parzen_log_likelihood(x, samples, widths).mean(0).tolist() for x in (samples, samples + 0.5))
    assert on[0] < on[1] < on[2]
    assert on[2] == pytest.approx(-math.log(30) - 4 * math.log(1e-5 * math.sqrt(2 * math.pi)), abs=1e-4)
    assert off[0] > off[1] > off[2] > -math.inf  # Far below what exp can hold.


def test_best_width_for_normal_data() -> None:
    generator = torch.Generator().manual_seed(0)
    x, samples = torch.randn(4000, 1, generator=generator), torch.randn(4000, 1, generator=generator)
    widths = torch.linspace(0.05, 1, 96)
    mean = parzen_log_likelihood(x, samples, widths).mean(0)
    # Silverman's rule for the standard normal, (4 / 3S)^(1/5), is 0.20 here.
    assert widths[mean.argmax()].item() == pytest.approx((4 / (3 * 4000)) ** 0.2, abs=0.08)
    # And the estimate comes near the entropy of the standard normal.
    assert mean.max().item() == pytest.approx(-0.5 * math.log(2 * math.pi * math.e), abs=0.03)


def test_rescaled_data_change_the_value_by_the_log_of_the_scale() -> None:
    x, samples = torch.rand(9, 12), torch.rand(20, 12)
    ours, scaled = parzen_log_likelihood(x, samples, 0.2), parzen_log_likelihood(2 * x, 2 * samples, 0.4)
    torch.testing.assert_close(scaled, ours - 12 * math.log(2))
