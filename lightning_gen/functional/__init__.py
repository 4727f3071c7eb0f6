"""The mathematics: pure functions of tensors, each with its formula, shapes and units."""

from lightning_gen.functional.adversarial import discriminator_loss, non_saturating_loss, saturating_loss
from lightning_gen.functional.bounds import (
    bernoulli_log_prob,
    bits_per_dim,
    gaussian_kl,
    importance_weighted_bound,
    normal_log_prob,
)

__all__ = [
    "bernoulli_log_prob",
    "bits_per_dim",
    "discriminator_loss",
    "gaussian_kl",
    "importance_weighted_bound",
    "non_saturating_loss",
    "normal_log_prob",
    "saturating_loss",
]
