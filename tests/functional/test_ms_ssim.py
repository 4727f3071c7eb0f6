"""Structural similarity against the formula written out pixel by pixel, and what it must say of known pairs."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve
from scipy.signal import convolve2d

from lightning_gen.functional import ms_ssim
from lightning_gen.functional.ms_ssim import WEIGHTS, num_scales
from tests.digits import held_out_digits


def by_scipy(x: np.ndarray, y: np.ndarray, weights: list[float]) -> float:
    """One grey pair, by two-dimensional windows in another library."""
    result = 1.0
    for scale, weight in enumerate(weights):
        size = min(11, *x.shape)
        places = np.arange(size) - (size - 1) / 2
        window = np.exp(-(places[:, None] ** 2 + places**2) / (2 * (1.5 * size / 11) ** 2))
        mean = partial(convolve2d, window / window.sum(), mode="valid")

        luminance = (2 * mean(x) * mean(y) + 1e-4) / (mean(x) ** 2 + mean(y) ** 2 + 1e-4)
        contrast = (2 * (mean(x * y) - mean(x) * mean(y)) + 9e-4) / (
            mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2 + 9e-4
        )
        last = scale == len(weights) - 1
        result *= max((luminance * contrast if last else contrast).mean(), 0) ** weight
        # As in the published code (msssim.py of TensorFlow's models), which this is line by line: odd sides too.
        x, y = (convolve(z, np.ones((2, 2)) / 4, mode="reflect")[::2, ::2] for z in (x, y))
    return result


@pytest.mark.parametrize("sides", [(28, 28), (128, 128), (29, 31), (50, 99)])
def test_equals_the_formula_by_another_library(sides: tuple[int, int]) -> None:
    digits = torch.nn.functional.interpolate(held_out_digits()[:40].double(), sides, mode="bilinear")
    scales = num_scales(min(sides))
    assert scales == {28: 3, 128: 5, 29: 3, 50: 3}[sides[0]]
    weights = [w * sum(WEIGHTS) / sum(WEIGHTS[:scales]) for w in WEIGHTS[:scales]]
    ours = ms_ssim(digits[:20], digits[20:])
    theirs = [by_scipy(x[0].numpy(), y[0].numpy(), weights) for x, y in zip(digits[:20], digits[20:], strict=True)]
    torch.testing.assert_close(ours, torch.tensor(theirs, dtype=torch.float64))
    assert ours.max() - ours.min() > 0.1


def test_five_scales_have_the_published_weights() -> None:
    """A constant against a brighter one: only the luminance of the last scale is not 1."""
    x = torch.full((1, 3, 128, 128), 0.4, dtype=torch.float64)
    luminance = (2 * 0.4 * 0.6 + 1e-4) / (0.4**2 + 0.6**2 + 1e-4)
    assert ms_ssim(x, x + 0.2).item() == pytest.approx(luminance**0.1333)
    assert ms_ssim(x, x + 0.2, scales=1).item() == pytest.approx(luminance ** sum(WEIGHTS))


def test_equal_pairs_have_1_and_the_order_does_not_matter() -> None:
    x, y = held_out_digits()[:200].split(100)
    torch.testing.assert_close(ms_ssim(x, x), torch.ones(100))
    torch.testing.assert_close(ms_ssim(x, y), ms_ssim(y, x))


def test_noise_takes_similarity_away() -> None:
    torch.manual_seed(0)
    x = held_out_digits()[:50]
    noise = torch.randn_like(x)
    values = [ms_ssim(x, x + std * noise).mean().item() for std in (0.0, 0.05, 0.1, 0.2, 0.4)]
    assert values == sorted(values, reverse=True)


def test_a_negative_is_0_and_no_nan() -> None:
    x = held_out_digits()[:50]
    assert torch.equal(ms_ssim(x, 1 - x), torch.zeros(50))


def test_channels_count_alike() -> None:
    x, y = torch.rand(2, 5, 3, 32, 32)
    in_turn = ms_ssim(x[:, [2, 0, 1]], y[:, [2, 0, 1]])
    torch.testing.assert_close(ms_ssim(x, y), in_turn)
    grey_x, grey_y = x[:, :1], y[:, :1]
    torch.testing.assert_close(
        ms_ssim(grey_x.expand(-1, 3, -1, -1), grey_y.expand(-1, 3, -1, -1)), ms_ssim(grey_x, grey_y)
    )
    assert math.isfinite(ms_ssim(x[..., :3, :3], y[..., :3, :3]).sum())
