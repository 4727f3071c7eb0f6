"""Densities and probabilities of 8-bit pixels, and mixtures, exactly."""

import math

import pytest
import torch
from torch.distributions import Normal, Uniform

from lightning_gen.functional import bits_per_dim, dequantize


def test_noise_stays_in_the_cell_of_its_pixel() -> None:
    images = (torch.arange(256) / 255).repeat(1000, 1)
    noisy = dequantize(images, torch.Generator().manual_seed(0))
    assert torch.equal((noisy * 256).floor(), torch.arange(256.0).expand(1000, -1))
    within = 256 * noisy.double() - torch.arange(256)
    assert within.mean().item() == pytest.approx(0.5, abs=0.003)
    assert within.var().item() == pytest.approx(1 / 12, abs=0.001)


def test_density_of_noisy_pixels_bounds_their_probability() -> None:
    """One pixel at 100 under N(0.4, 0.01^2): the mean log-density against the log of the mass of its cell."""
    density = Normal(0.4, 0.01)
    noisy = dequantize(torch.full((200_000,), 100 / 255), torch.Generator().manual_seed(1))
    mean = density.log_prob(noisy).mean().item() - math.log(256)
    mass = density.cdf(torch.tensor(101 / 256).double()) - density.cdf(torch.tensor(100 / 256).double())
    assert mean < mass.log().item() < mean + 0.05


def test_a_density_that_is_even_in_each_cell_is_its_probability() -> None:
    """Of the uniform density every image costs 8 bits a pixel, and no less."""
    noisy = dequantize(torch.rand(3, 1, 4, 4).mul(255).round() / 255)
    nats = Uniform(0.0, 1.0).log_prob(noisy).sum().item()
    assert bits_per_dim(-nats, (3, 1, 4, 4)) + 8 == 8


def test_without_noise_a_density_has_no_limit() -> None:
    """On a constant pixel, narrower and narrower; with noise its best width is that of a cell."""
    pixel = torch.full((1000,), 100 / 255)
    noisy = dequantize(pixel, torch.Generator().manual_seed(2))
    widths = [1e-2, 1e-3, 1e-5]
    bare = [Normal(100 / 255, width).log_prob(pixel).mean().item() for width in widths]
    kept = [Normal(100.5 / 256, width).log_prob(noisy).mean().item() for width in widths]
    assert bare[0] < bare[1] < bare[2]
    assert max(kept) < math.log(256)
