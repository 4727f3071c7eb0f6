"""Minibatch discrimination against the formula as it is written, which holds (N, N, B, C) differences in memory."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.nn import MinibatchDiscrimination


def seconds(function: Callable[[Tensor], Tensor], x: Tensor) -> float:
    start = time.perf_counter()
    torch.autograd.grad(function(x).sum(), x)
    return time.perf_counter() - start


@pytest.mark.benchmark(group="minibatch discrimination")
def test_minibatch_discrimination_over_the_plain_formula(benchmark: Any) -> None:
    torch.manual_seed(0)
    layer = MinibatchDiscrimination(192, num_kernels=100, kernel_dim=5)
    x = torch.randn(100, 192, requires_grad=True)

    def plain(x: Tensor) -> Tensor:
        m = torch.tensordot(x, layer.weight / layer.weight.square().sum(0).sqrt() * layer.log_scale.exp(), 1)
        return (-(m[:, None] - m[None]).abs().sum(-1)).exp().sum(1) - 1

    torch.testing.assert_close(layer.closeness(x), plain(x))
    pairs = [(seconds(layer.closeness, x), seconds(plain, x)) for _ in range(20 if benchmark.enabled else 1)]
    ratio = statistics.median(ours / naive for ours, naive in pairs)
    benchmark.extra_info.update(ratio=ratio)
    print(f"\nminibatch discrimination: {ratio:.2f} x the plain formula")
    benchmark.pedantic(seconds, (layer.closeness, x), rounds=1)
