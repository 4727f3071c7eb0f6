"""The mathematics: pure functions of tensors, each with its formula, shapes and units."""

from lightning_gen.functional.adversarial import discriminator_loss, non_saturating_loss, saturating_loss
from lightning_gen.functional.bounds import (
    bernoulli_log_prob,
    bits_per_dim,
    gaussian_kl,
    importance_weighted_bound,
    normal_log_prob,
)
from lightning_gen.functional.distances import frechet_distance, inception_score, kernel_distance
from lightning_gen.functional.latent import interpolate, to_sphere
from lightning_gen.functional.parzen import parzen_log_likelihood

__all__ = [
    "bernoulli_log_prob",
    "bits_per_dim",
    "discriminator_loss",
    "frechet_distance",
    "gaussian_kl",
    "importance_weighted_bound",
    "inception_score",
    "interpolate",
    "kernel_distance",
    "non_saturating_loss",
    "normal_log_prob",
    "parzen_log_likelihood",
    "saturating_loss",
    "to_sphere",
]
