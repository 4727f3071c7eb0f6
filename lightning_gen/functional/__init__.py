"""The mathematics: pure functions of tensors, each with its formula, shapes and units."""

from lightning_gen.functional.adversarial import discriminator_loss, non_saturating_loss, saturating_loss
from lightning_gen.functional.annealing import annealed_importance_sampling, sigmoid_schedule, tune_step_sizes
from lightning_gen.functional.bounds import (
    bernoulli_entropy,
    bernoulli_log_prob,
    bits_per_dim,
    dequantize,
    effective_sample_size,
    gaussian_kl,
    importance_weighted_bound,
    normal_log_prob,
)
from lightning_gen.functional.chains import (
    ascent_step,
    class_log_prob,
    langevin_step,
    linear_schedule,
    scaled_step,
    truncated_class_score,
)
from lightning_gen.functional.clustering import k_means, purity, retrieval_precision
from lightning_gen.functional.distances import (
    frechet_distance,
    frechet_distance_infinity,
    inception_score,
    kernel_distance,
    vendi_score,
)
from lightning_gen.functional.filterbank import filterbank, read_patch, write_patch
from lightning_gen.functional.gaussian_mixture import DiagonalMixture, fit_mixture
from lightning_gen.functional.latent import drop, interpolate, to_sphere, uniform_from_normal
from lightning_gen.functional.mmd import median_bandwidth, mmd2, mmd_ratio, sqrt_mmd2, two_sample_test
from lightning_gen.functional.motion import mask_iou, mean_frame_difference, moving_pixels
from lightning_gen.functional.ms_ssim import ms_ssim
from lightning_gen.functional.neighbors import (
    authentic,
    closest_pairs,
    count_pairs,
    manifold_coverage,
    manifold_density,
    manifold_precision,
    nearest_neighbors,
)
from lightning_gen.functional.parzen import parzen_log_likelihood
from lightning_gen.functional.pyramid import (
    Pyramid,
    downsample,
    laplacian_pyramid,
    reconstruct_pyramid,
    upsample,
)
from lightning_gen.functional.segmentation import label_confusion, label_scores
from lightning_gen.functional.strokes import stroke_slant, stroke_thickness

__all__ = [
    "DiagonalMixture",
    "Pyramid",
    "annealed_importance_sampling",
    "ascent_step",
    "authentic",
    "bernoulli_entropy",
    "bernoulli_log_prob",
    "bits_per_dim",
    "class_log_prob",
    "closest_pairs",
    "count_pairs",
    "dequantize",
    "discriminator_loss",
    "downsample",
    "drop",
    "effective_sample_size",
    "filterbank",
    "fit_mixture",
    "frechet_distance",
    "frechet_distance_infinity",
    "gaussian_kl",
    "importance_weighted_bound",
    "inception_score",
    "interpolate",
    "k_means",
    "kernel_distance",
    "label_confusion",
    "label_scores",
    "langevin_step",
    "laplacian_pyramid",
    "linear_schedule",
    "manifold_coverage",
    "manifold_density",
    "manifold_precision",
    "mask_iou",
    "mean_frame_difference",
    "median_bandwidth",
    "mmd2",
    "mmd_ratio",
    "moving_pixels",
    "ms_ssim",
    "nearest_neighbors",
    "non_saturating_loss",
    "normal_log_prob",
    "parzen_log_likelihood",
    "purity",
    "read_patch",
    "reconstruct_pyramid",
    "retrieval_precision",
    "saturating_loss",
    "scaled_step",
    "sigmoid_schedule",
    "sqrt_mmd2",
    "stroke_slant",
    "stroke_thickness",
    "to_sphere",
    "truncated_class_score",
    "tune_step_sizes",
    "two_sample_test",
    "uniform_from_normal",
    "upsample",
    "vendi_score",
    "write_patch",
]
