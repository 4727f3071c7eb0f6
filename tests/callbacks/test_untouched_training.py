"""Training is bit-equal with and without every callback that looks on, and the global generators are given back."""
# ruff: noqa: NPY002

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_gen._lightning import Callback
from lightning_gen.callbacks import (
    EMA,
    ClosingTable,
    Diagnosis,
    LatentManifold,
    NanGuard,
    RandomState,
    SampleEvaluation,
    SampleGrid,
)
from lightning_gen.callbacks.randomness import own_randomness
from lightning_gen.models import GenerativeModule
from tests.callbacks.runs import Halves, MeanFeature, MeanPixel, assert_bit_equal, fit, small_gan, small_vae


class TrainingWeights(Callback):
    """Keeps the weights that the last epoch of training leaves."""

    def on_train_epoch_end(self, trainer: Any, pl_module: torch.nn.Module) -> None:
        self.last = {name: value.clone() for name, value in pl_module.state_dict().items()}


@pytest.mark.parametrize("make_model", [small_vae, small_gan])
def test_training_is_bit_equal_with_and_without(make_model: Callable[[], GenerativeModule], tmp_path: Path) -> None:
    callbacks: dict[str, list[Callback]] = {
        "none": [],
        "those that look on": [
            SampleEvaluation([MeanPixel(), MeanFeature()], num_samples=120, extractor=Halves(), batch_size=50),
            SampleGrid(num_samples=4),
            ClosingTable(),
            NanGuard(every_n_batches=2),
            RandomState(),
        ],
        "ema": [EMA()],
    }
    if make_model is small_gan:
        callbacks["those that look on"].append(Diagnosis())
    if make_model is small_vae:
        callbacks["those that look on"].append(LatentManifold(3))
    trained = {}
    for name, some in callbacks.items():
        weights = TrainingWeights()
        fit([*some, weights], make_model, default_root_dir=tmp_path)
        trained[name] = weights.last
        assert set(weights.last) == set(make_model().state_dict()), "callbacks left something in the module"
    assert_bit_equal(trained["none"], trained["those that look on"])
    assert_bit_equal(trained["none"], trained["ema"])


def test_own_randomness_is_the_same_each_time_and_leaves_the_global_one() -> None:
    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), torch.rand(()).item(), random.gauss(0, 1), np.random.randn()]

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    draw()
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = draw()
    random.setstate(state[0]), np.random.set_state(state[1]), torch.set_rng_state(state[2])
    with own_randomness(3, torch.device("cpu")):
        first = draw()
    with own_randomness(3, torch.device("cpu")):
        assert draw() == first
    assert draw() == expected != first
