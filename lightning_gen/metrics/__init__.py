"""Scores of generated images, as torchmetrics."""

from lightning_gen.metrics.agreement import Agreement
from lightning_gen.metrics.attribute_agreement import AttributeAgreement
from lightning_gen.metrics.authenticity import Authenticity
from lightning_gen.metrics.base import SampleMetric, Samples
from lightning_gen.metrics.class_entropy import ClassEntropy
from lightning_gen.metrics.confidence import Confidence
from lightning_gen.metrics.frechet_distance import FrechetDistance
from lightning_gen.metrics.frechet_infinity import FrechetDistanceInfinity
from lightning_gen.metrics.inception_score import InceptionScore
from lightning_gen.metrics.kernel_distance import KernelDistance
from lightning_gen.metrics.label_score import LabelScore
from lightning_gen.metrics.manifold import Coverage, Density, Precision, Recall
from lightning_gen.metrics.memorization import Memorization
from lightning_gen.metrics.mmd import MMD
from lightning_gen.metrics.ms_ssim import MSSSIM
from lightning_gen.metrics.nearest_neighbor_error import NearestNeighborError
from lightning_gen.metrics.parzen import ParzenLogLikelihood
from lightning_gen.metrics.placement import BoxIoU, KeypointAccuracy
from lightning_gen.metrics.support_size import SupportSize
from lightning_gen.metrics.two_sample_test import TwoSamplePValue
from lightning_gen.metrics.vendi import VendiScore

__all__ = [
    "MMD",
    "MSSSIM",
    "Agreement",
    "AttributeAgreement",
    "Authenticity",
    "BoxIoU",
    "ClassEntropy",
    "Confidence",
    "Coverage",
    "Density",
    "FrechetDistance",
    "FrechetDistanceInfinity",
    "InceptionScore",
    "KernelDistance",
    "KeypointAccuracy",
    "LabelScore",
    "Memorization",
    "NearestNeighborError",
    "ParzenLogLikelihood",
    "Precision",
    "Recall",
    "SampleMetric",
    "Samples",
    "SupportSize",
    "TwoSamplePValue",
    "VendiScore",
]
