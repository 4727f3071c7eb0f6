"""Numbers of 16 bits, as networks put them out in mixed precision, and mixed precision around the functions."""

import doctest
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules

import pytest
import torch
from torch import Tensor

from lightning_gen import functional
from lightning_gen.functional import (
    DiagonalMixture,
    bernoulli_entropy,
    bernoulli_log_prob,
    discriminator_loss,
    effective_sample_size,
    gaussian_kl,
    importance_weighted_bound,
    interpolate,
    mmd2,
    mmd_ratio,
    ms_ssim,
    non_saturating_loss,
    normal_log_prob,
    saturating_loss,
    sqrt_mmd2,
    stroke_slant,
    stroke_thickness,
    two_sample_test,
)
from lightning_gen.functional.divergences import Mixture, mixture_mmd2
from lightning_gen.functional.placement import crop_boxes, paste_boxes
from lightning_gen.models.char_cnn_rnn import joint_embedding_loss
from lightning_gen.models.dgn_am import squared_error
from lightning_gen.models.gan_int_cls import cls_loss
from lightning_gen.nn import DigitFeatures, LabelNetwork, VirtualBatchNorm
from tests.digits import held_out_digits, training_digits

LOSSES: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {  # and the shapes of what they are given
    "discriminator_loss": (discriminator_loss, [(1000, 1), (1000, 1)]),
    "non_saturating_loss": (non_saturating_loss, [(1000, 1)]),
    "saturating_loss": (saturating_loss, [(1000, 1)]),
    "cls_loss": (lambda *logits: cls_loss(*logits, weight=0.5), [(1000, 1)] * 3),
    "gaussian_kl": (gaussian_kl, [(50, 200), (50, 200)]),
    "bernoulli_log_prob": (lambda x, logits: bernoulli_log_prob((x > 0).to(x.dtype), logits), [(9, 1, 28, 28)] * 2),
    "bernoulli_entropy": (lambda x: bernoulli_entropy(x.clamp(0, 1)), [(9, 1, 28, 28)]),
    "normal_log_prob": (normal_log_prob, [(9, 1, 28, 28)] * 3),
    "importance_weighted_bound": (importance_weighted_bound, [(50, 200)]),
    "effective_sample_size": (effective_sample_size, [(50, 200)]),
    "mmd2": (lambda x, y: mmd2(x, y, [8.0, 20.0]), [(100, 8), (90, 8)]),
    "sqrt_mmd2": (lambda x, y: sqrt_mmd2(x, y, [8.0, 20.0]), [(100, 8), (90, 8)]),
    "squared_error": (squared_error, [(9, 1, 28, 28), (9, 1, 28, 28)]),
    "joint_embedding_loss": (joint_embedding_loss, [(40, 40)]),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_16_bits_are_computed_in_32(name: str) -> None:
    loss, shapes = LOSSES[name]
    draws = torch.Generator().manual_seed(0)
    given = [torch.randn(shape, generator=draws).bfloat16() for shape in shapes]
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(*given)
    exact = loss(*(x.double() for x in given))
    assert found.dtype in (torch.float32, torch.float64)
    torch.testing.assert_close(found.double(), exact.double(), rtol=1e-5, atol=1e-5)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


DIGITS = held_out_digits()[:40]
NOISY = (DIGITS + 0.1 * torch.randn(DIGITS.shape, generator=generator())).clamp(0, 1)
POINTS = training_digits()[:200].flatten(1)
BOXES = 0.1 + 0.4 * torch.rand(40, 4, generator=generator())
MAPS = torch.rand(40, 2, 64, 64, generator=generator())
PART = 0.1 * torch.randn(9, generator=generator())

UNDER_AUTOCAST: dict[str, Callable[[], Tensor]] = {  # Differences of large numbers, and what rounded places would move.
    "ms_ssim": lambda: ms_ssim(DIGITS, NOISY),
    "ms_ssim, odd": lambda: ms_ssim(DIGITS[..., 1:, 5:], NOISY[..., 1:, 5:]),
    "stroke_slant": lambda: stroke_slant(DIGITS[:, 0]),
    "stroke_thickness": lambda: stroke_thickness(DIGITS[:, 0]),
    "interpolate": lambda: interpolate(1 + PART, 1 - PART, 5, spherical=True),
    "crop_boxes": lambda: crop_boxes(MAPS, BOXES),
    "paste_boxes": lambda: paste_boxes(MAPS, BOXES),
    "mixture": lambda: DiagonalMixture(torch.full((5,), 0.2), POINTS[:5], torch.ones(5, 784)).log_prob(POINTS),
    "mixture_mmd2": lambda: mixture_mmd2(
        Mixture(torch.full((9,), 1 / 9), POINTS[:9, 300:305], torch.ones(9)),
        Mixture(torch.full((9,), 1 / 9), POINTS[9:18, 300:305], torch.ones(9)),
        2.0,
    ),
    "mmd2": lambda: mmd2(POINTS[:100], POINTS[100:], [50.0]),
    "mmd_ratio": lambda: mmd_ratio(POINTS[:100], POINTS[100:], [50.0]),
    "two_sample_test": lambda: torch.tensor(two_sample_test(POINTS[:9], POINTS[9:20], [50.0], 9, generator())),
    "labels_of": lambda: LabelNetwork(3, [(i, i + 1, i) for i in range(0, 255, 2)], 1).labels_of(
        NOISY.expand(-1, 3, -1, -1)
    ),
    "VirtualBatchNorm": lambda: VirtualBatchNorm(784, 20)(100 + POINTS[:, :784]),
    "DigitFeatures": lambda: torch.cat(DigitFeatures()(DIGITS), 1),
}


@pytest.mark.parametrize("name", UNDER_AUTOCAST)
def test_mixed_precision_around_a_function_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    exact = UNDER_AUTOCAST[name]()
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        found = UNDER_AUTOCAST[name]()
    torch.testing.assert_close(found, exact, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", [module.name for module in iter_modules(functional.__path__)])
def test_docstrings_hold_in_mixed_precision(name: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert doctest.testmod(import_module(f"lightning_gen.functional.{name}")).failed == 0


def test_images_of_16_bits_are_compared_in_32() -> None:
    x, y = DIGITS.bfloat16(), NOISY.bfloat16()
    torch.testing.assert_close(ms_ssim(x, y), ms_ssim(x.float(), y.float()), rtol=0, atol=0)
    torch.testing.assert_close(stroke_slant(x[:, 0]), stroke_slant(x[:, 0].float()), rtol=0, atol=0)
