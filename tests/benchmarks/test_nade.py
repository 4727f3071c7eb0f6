"""NADE's own gradient against autograd through the loop over pixels, and the memory that a training step takes."""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.functional import bernoulli_log_prob
from lightning_gen.models import NADE
from tests.digits import training_digits

BATCH, ROUNDS = 64, 5


def loop(model: NADE, images: Tensor, columns: Tensor) -> Tensor:
    """The paper's equations as they are written, with W as `(H, D)` and a column of it for each pixel."""
    x = images.flatten(1)
    activations = model.hidden_bias.expand(len(x), -1)
    logits = []
    for d in range(x.shape[1]):
        logits.append(activations.sigmoid() @ model.output_weight[d] + model.output_bias[d])
        activations = activations + x[:, d : d + 1] * columns[:, d]
    return bernoulli_log_prob(images, torch.stack(logits, 1).view_as(images))


def gradient(loss: Callable[[], Tensor], parameters: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(-loss().mean(), parameters))


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@pytest.mark.benchmark(group="gradient of NADE")
def test_gradient_against_the_loop_over_pixels(benchmark: Any) -> None:
    torch.manual_seed(0)
    model = NADE()
    columns = model.weight.detach().T.contiguous().requires_grad_()
    shared = [model.output_weight, model.output_bias, model.hidden_bias]
    digits = training_digits()[:BATCH].bernoulli(generator=torch.Generator().manual_seed(0))
    for name, images in {"digits": digits, "half-white noise": torch.rand(BATCH, 1, 28, 28).round()}.items():

        def ours(images: Tensor = images) -> list[Tensor]:
            return gradient(lambda: model.log_prob(images), [model.weight, *shared])

        def plain(images: Tensor = images) -> list[Tensor]:
            return gradient(lambda: loop(model, images, columns), [columns, *shared])

        for a, b in zip(ours(), [plain()[0].T, *plain()[1:]], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        if benchmark.enabled:
            pairs = [(seconds(ours), seconds(plain)) for _ in range(ROUNDS)]
            ratio = statistics.median(b / a for a, b in pairs)
            milliseconds = 1e3 * statistics.median(a for a, _ in pairs)
            benchmark.extra_info[name] = ratio
            print(f"\n{name}: {ratio:.1f} times as fast as the loop over pixels, {milliseconds:.0f} ms")
            assert ratio > (3 if name == "digits" else 1)
    benchmark.pedantic(gradient, (lambda: model.log_prob(digits), [model.weight, *shared]), rounds=1)


def kilobytes(field: str) -> int:
    """What Linux says of this process: VmRSS, the memory that it holds, or VmHWM, the most that it has held."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1])


def bytes_of_a_step(white: bool) -> int:
    """The most that three training steps hold above what the process held before them."""
    torch.manual_seed(0)
    model = NADE()
    images = torch.ones(BATCH, 1, 28, 28) if white else training_digits()[:BATCH].bernoulli()
    model.log_prob(images[:2]).mean().backward()  # What a first call loads is not counted.
    start = kilobytes("VmRSS")
    for _ in range(3):
        model.zero_grad()
        (-model.log_prob(images).mean()).backward()
    return 1024 * (kilobytes("VmHWM") - start)


@pytest.mark.benchmark(group="memory of NADE")
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory as Linux tells it")
@pytest.mark.parametrize("white", [False, True], ids=["digits", "white"])
def test_memory_of_a_training_step(benchmark: Any, white: bool) -> None:
    """In a process of its own. White images are the worst case, where every hidden vector is a new one."""
    with torch.multiprocessing.get_context("spawn").Pool(1) as pool:
        highest = benchmark.pedantic(pool.apply, (bytes_of_a_step, (white,)), rounds=1)
    benchmark.extra_info["bytes"] = highest
    print(f"\n{'white' if white else 'digits'}: {highest / 1e6:.0f} MB at most above the parameters")
    assert 1e6 < highest < 300e6


@pytest.mark.benchmark(group="sampling of NADE")
def test_sampling_against_scoring_the_image_for_each_pixel(benchmark: Any) -> None:
    """The naive sampler runs the whole model before each pixel, 784 times; a tenth of that is timed."""
    torch.manual_seed(0)
    model = NADE()
    images = torch.zeros(16, 1, 28, 28)

    def naive() -> None:
        with torch.no_grad():
            for d in range(78 if benchmark.enabled else 2):
                logits = model.conditional_logits(images).flatten(1)[:, d]
                images.flatten(1)[:, d] = logits.sigmoid().bernoulli()

    assert model.sample(16).shape == images.shape
    if benchmark.enabled:
        pairs = [(seconds(lambda: model.sample(16)), seconds(naive) * 784 / 78) for _ in range(3)]
        ratio = statistics.median(b / a for a, b in pairs)
        milliseconds = 1e3 * statistics.median(a for a, _ in pairs)
        benchmark.extra_info["ratio"] = ratio
        print(f"\n16 images: {ratio:.0f} times as fast as scoring anew for each pixel, {milliseconds:.0f} ms")
        assert ratio > 10
    benchmark.pedantic(model.sample, (16,), rounds=1)
