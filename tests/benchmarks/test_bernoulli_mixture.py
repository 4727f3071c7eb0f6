"""The E step of the mixture, one matrix product, against a loop over its components."""

import statistics
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.functional import bernoulli_log_prob
from lightning_gen.models import BernoulliMixture
from tests.benchmarks.test_nade import seconds
from tests.digits import training_digits

BATCH, ROUNDS = 100, 5


def loop(model: BernoulliMixture, images: Tensor) -> Tensor:
    """Log p(x, k) as Bishop's equation 9.47 is written, a component after the other."""
    components = zip(model.weights, model.logits, strict=True)
    return torch.stack([weight.log() + bernoulli_log_prob(images, logits) for weight, logits in components], 1)


@pytest.mark.benchmark(group="E step of BernoulliMixture")
@torch.no_grad()
def test_e_step_against_a_loop_over_components(benchmark: Any) -> None:
    torch.manual_seed(0)
    model = BernoulliMixture()
    images = training_digits()[:BATCH].round()
    torch.testing.assert_close(model.log_joint(images), loop(model, images), rtol=1e-5, atol=1e-3)
    if benchmark.enabled:
        rounds = [
            (seconds(lambda: model.log_joint(images)), seconds(lambda: loop(model, images))) for _ in range(ROUNDS)
        ]
        ratio = statistics.median(plain / ours for ours, plain in rounds)
        milliseconds = 1e3 * statistics.median(ours for ours, _ in rounds)
        benchmark.extra_info["ratio"] = ratio
        print(f"\n{ratio:.0f} times as fast as a loop over 500 components, {milliseconds:.1f} ms for {BATCH} digits")
        assert ratio > 5
    benchmark.pedantic(model.log_joint, (images,), rounds=1)
