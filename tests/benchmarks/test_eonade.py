"""Scoring an image in one ordering, against one run of the whole network for each pixel."""

import statistics
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.models import EoNADE
from lightning_gen.models.nade import permutation
from tests.benchmarks.test_nade import seconds
from tests.digits import training_digits

BATCH, ROUNDS, PIXELS = 16, 3, 78


@pytest.mark.benchmark(group="log_prob of EoNADE")
@pytest.mark.parametrize("num_layers", [1, 2])
@torch.no_grad()
def test_scoring_against_the_network_run_for_each_pixel(benchmark: Any, num_layers: int) -> None:
    """A tenth of the pixels are timed in the loop."""
    torch.manual_seed(0)
    model = EoNADE(num_layers=num_layers)
    images = training_digits()[:BATCH].round()
    ordering = permutation(0, 784)

    def ours() -> Tensor:
        return model.log_prob_in_order(images, ordering)

    def plain() -> None:
        mask = torch.zeros_like(images)
        for pixel in ordering[: PIXELS if benchmark.enabled else 2].tolist():
            model.conditional_logits(images, mask)
            mask.flatten(1)[:, pixel] = 1

    plain()
    if benchmark.enabled:
        rounds = [(seconds(ours), seconds(plain) * 784 / PIXELS) for _ in range(ROUNDS)]
        ratio = statistics.median(b / a for a, b in rounds)
        milliseconds = 1e3 * statistics.median(a for a, _ in rounds)
        benchmark.extra_info["ratio"] = ratio
        print(f"\n{num_layers} layers: {ratio:.1f} times as fast as the network for each pixel, {milliseconds:.0f} ms")
        assert ratio > 1.5
    benchmark.pedantic(ours, rounds=1)
