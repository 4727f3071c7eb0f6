"""Losses of numbers of 16 bits, as networks put them out in mixed precision, against the same in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_gen.functional import (
    bernoulli_entropy,
    bernoulli_log_prob,
    discriminator_loss,
    effective_sample_size,
    gaussian_kl,
    importance_weighted_bound,
    mmd2,
    non_saturating_loss,
    normal_log_prob,
    saturating_loss,
    sqrt_mmd2,
)
from lightning_gen.models.char_cnn_rnn import joint_embedding_loss
from lightning_gen.models.dgn_am import squared_error
from lightning_gen.models.gan_int_cls import cls_loss

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
