"""Scores of generated images, as torchmetrics."""

from lightning_gen.metrics.agreement import Agreement
from lightning_gen.metrics.base import SampleMetric, Samples
from lightning_gen.metrics.class_entropy import ClassEntropy
from lightning_gen.metrics.confidence import Confidence
from lightning_gen.metrics.frechet_distance import FrechetDistance
from lightning_gen.metrics.inception_score import InceptionScore
from lightning_gen.metrics.kernel_distance import KernelDistance
from lightning_gen.metrics.label_score import LabelScore
from lightning_gen.metrics.ms_ssim import MSSSIM
from lightning_gen.metrics.parzen import ParzenLogLikelihood

__all__ = [
    "MSSSIM",
    "Agreement",
    "ClassEntropy",
    "Confidence",
    "FrechetDistance",
    "InceptionScore",
    "KernelDistance",
    "LabelScore",
    "ParzenLogLikelihood",
    "SampleMetric",
    "Samples",
]
