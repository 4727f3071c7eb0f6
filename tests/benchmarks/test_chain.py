"""A step of a chain against one forward and one backward pass of what it is made of."""

import statistics
import time
from typing import Any

import pytest
import torch

from lightning_gen.models import PPGN
from lightning_gen.nn import DigitFeatures
from tests.models.test_ppgn import TINY

STEPS, ROUNDS = 20, 7


def bare(model: PPGN, network: DigitFeatures, labels: torch.Tensor) -> float:
    """Generator and classifier there and back, and the encoder there, for 64 codes."""
    codes = torch.randn(64, 96)
    start = time.perf_counter()
    for _ in range(STEPS):
        codes = codes.detach().requires_grad_()
        images = model.generator(codes)[..., 2:30, 2:30]
        score = network(images, bounded=False).logits.log_softmax(1).gather(1, labels[:, None]).sum()
        torch.autograd.grad(score, codes)
        with torch.no_grad():
            model.encoder.network(images, bounded=False)
    return time.perf_counter() - start


def ours(model: PPGN, network: DigitFeatures, labels: torch.Tensor) -> float:
    start = time.perf_counter()
    model.sample(64, {"label": labels}, network=network)
    return time.perf_counter() - start


@pytest.mark.benchmark(group="chain over its networks")
def test_chain_over_its_networks(benchmark: Any) -> None:
    sizes = {"generator_units": (256, 512), "generator_channels": ((32, 32), (16,))}
    model = PPGN(**{**TINY, **sizes, "num_steps": STEPS}).eval()
    model.code_bounds.fill_(3.0)
    model.initialized.fill_(True)
    network, labels = DigitFeatures(), torch.arange(64) % 10
    rounds = ROUNDS if benchmark.enabled else 1
    ratio = statistics.median(ours(model, network, labels) / bare(model, network, labels) for _ in range(rounds))
    benchmark.extra_info.update(ratio=ratio)
    print(f"\n{ratio:.3f} x its networks' own time")
    if benchmark.enabled:
        assert ratio < 1.15
    benchmark.pedantic(ours, (model, network, labels), rounds=1)
