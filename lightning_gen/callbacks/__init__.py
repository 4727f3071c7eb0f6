"""When to sample, draw, evaluate and save."""

from lightning_gen.callbacks.base import EvaluationCallback, Figure
from lightning_gen.callbacks.caption_grid import CaptionGrid
from lightning_gen.callbacks.closing_table import ClosingTable
from lightning_gen.callbacks.compile import Compile
from lightning_gen.callbacks.diagnosis import Diagnosis
from lightning_gen.callbacks.ema import EMA
from lightning_gen.callbacks.image_writer import ImageWriter
from lightning_gen.callbacks.nan_guard import NanGuard
from lightning_gen.callbacks.neighbors import ClosestPairs, SampleNeighbors
from lightning_gen.callbacks.random_state import KeepPlace, RandomState
from lightning_gen.callbacks.sample_evaluation import SampleEvaluation
from lightning_gen.callbacks.sample_grid import LatentManifold, SampleGrid
from lightning_gen.callbacks.translation_grid import TranslationGrid

__all__ = [
    "EMA",
    "CaptionGrid",
    "ClosestPairs",
    "ClosingTable",
    "Compile",
    "Diagnosis",
    "EvaluationCallback",
    "Figure",
    "ImageWriter",
    "KeepPlace",
    "LatentManifold",
    "NanGuard",
    "RandomState",
    "SampleEvaluation",
    "SampleGrid",
    "SampleNeighbors",
    "TranslationGrid",
]
