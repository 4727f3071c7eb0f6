"""The log-likelihoods of a whole grid of widths against the formula for one width after the other."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.functional import parzen_log_likelihood

SIGMAS = torch.arange(10, 30) / 100
ROUNDS = 5


def formula(x: Tensor, samples: Tensor, sigma: float) -> Tensor:
    exponents = -torch.cdist(x, samples).square() / (2 * sigma**2)
    return exponents.logsumexp(1) - math.log(len(samples)) - x.shape[1] * math.log(sigma * math.sqrt(2 * math.pi))


def loop(x: Tensor, samples: Tensor) -> Tensor:
    return torch.stack([formula(x, samples, sigma) for sigma in SIGMAS.tolist()], 1)


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@pytest.mark.benchmark(group="grid of Parzen windows")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_grid_of_parzen_windows(benchmark: Any, dtype: torch.dtype) -> None:
    """Ours computes in float64 whatever it is given, the loop in what it is given."""
    generator = torch.Generator().manual_seed(0)
    x, samples = (torch.rand(n, 784, generator=generator, dtype=dtype) for n in (500, 2000))
    ours = benchmark.pedantic(parzen_log_likelihood, (x, samples, SIGMAS), rounds=ROUNDS)
    torch.testing.assert_close(ours, loop(x, samples).double(), rtol=1e-5, atol=0.1)
    if benchmark.enabled:
        rounds = [
            (seconds(lambda: parzen_log_likelihood(x, samples, SIGMAS)), seconds(lambda: loop(x, samples)))
            for _ in range(ROUNDS)
        ]
        ratio = statistics.median(naive / grid for grid, naive in rounds)
        benchmark.extra_info["ratio"] = ratio
        print(f"\n20 widths, {dtype}: {ratio:.1f} times as fast as one after the other")
        assert ratio > 4
