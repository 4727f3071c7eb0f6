"""The discrepancy of two sets with its gradient, against a loop over the kernels; no bar."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.functional import mmd2
from tests.digits import training_digits

BANDWIDTHS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)


def by_kernel(x: Tensor, y: Tensor) -> Tensor:
    """Each kernel by itself, as the formula is written."""

    def mean(a: Tensor, b: Tensor, bandwidth: float) -> Tensor:
        squared = a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T
        return (-squared.clamp(min=0) / (2 * bandwidth)).exp().mean()

    return torch.stack([mean(x, x, b) + mean(y, y, b) - 2 * mean(x, y, b) for b in BANDWIDTHS]).sum()


def seconds(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    start = time.perf_counter()
    torch.autograd.grad(function(x, y), y)
    return time.perf_counter() - start


@pytest.mark.benchmark(group="mmd")
def test_mmd_over_a_loop_over_kernels(benchmark: Any) -> None:
    number = 1000 if benchmark.enabled else 20
    x = training_digits()[:number].flatten(1)
    y = torch.rand(number, 784, generator=torch.Generator().manual_seed(0)).requires_grad_()
    torch.testing.assert_close(mmd2(x, y, BANDWIDTHS).float(), by_kernel(x, y), rtol=1e-4, atol=1e-5)
    rounds = 5 if benchmark.enabled else 1
    ratio = statistics.median(
        seconds(by_kernel, x, y) / seconds(lambda a, b: mmd2(a, b, BANDWIDTHS), x, y) for _ in range(rounds)
    )
    benchmark.extra_info.update(ratio=ratio)
    print(f"\nMMD, {number} x 784: {ratio:.1f} x as fast as a loop over the kernels")
    benchmark.pedantic(mmd2, (x, y, BANDWIDTHS), rounds=1)
