"""PixelRNN's samplers against the whole network for each pixel, and its training step compiled against plain."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.models import PixelRNN
from tests.digits import held_out_digits

SIZES = {  # layers, hidden units, how many times as fast at least
    "pixelcnn": (15, 16, 40),
    "row_lstm": (7, 16, 40),
    "diagonal_bilstm": (7, 16, 40),
}
NUM_IMAGES, ROUNDS = 16, 3


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@pytest.mark.benchmark(group="sampling of PixelRNN")
@pytest.mark.parametrize("variant", SIZES)
def test_sampling_against_the_whole_network_for_each_pixel(benchmark: Any, variant: str) -> None:
    """The naive sampler runs the network before each of 784 pixels; 20 of these are timed."""
    layers, hidden_size, least = SIZES[variant]
    torch.manual_seed(0)
    model = PixelRNN(variant=variant, num_layers=layers, hidden_size=hidden_size)
    uniform = torch.rand(NUM_IMAGES, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    images = model.sample(NUM_IMAGES, generator=torch.Generator().manual_seed(0))

    def naive(pixels: range) -> Tensor:
        drawn = images.clone()  # What lies behind a pixel does not reach it.
        with torch.no_grad():
            for pixel in pixels:
                row, column = divmod(pixel, 28)
                probability = model.logits(drawn)[:, 0, 0, row, column].sigmoid()
                drawn[:, 0, row, column] = (uniform[:, 0, row, column] < probability).float()
        return drawn

    part = range(300, 320)
    assert torch.equal(naive(part), images)
    if benchmark.enabled:
        pairs = [
            (seconds(lambda: model.sample(NUM_IMAGES)), seconds(lambda: naive(part)) * 784 / len(part))
            for _ in range(ROUNDS)
        ]
        ratio = statistics.median(b / a for a, b in pairs)
        milliseconds = 1e3 * statistics.median(a for a, _ in pairs)
        benchmark.extra_info["ratio"] = ratio
        print(f"\n{variant}, {layers} layers, h = {hidden_size}: {ratio:.0f} times as fast, {milliseconds:.0f} ms")
        assert ratio > least
    benchmark.pedantic(model.sample, (NUM_IMAGES,), rounds=1)


@pytest.mark.benchmark(group="training step of PixelRNN")
def test_compiled_step_against_the_plain_one(benchmark: Any) -> None:
    """The recipe's PixelCNN and batch of 16; compiling itself is not timed. A ratio to read: compilers differ."""
    torch.manual_seed(0)
    images = held_out_digits()[:NUM_IMAGES].round()
    models = [PixelRNN(variant="pixelcnn", num_layers=15, hidden_size=16) for _ in range(2)]
    if benchmark.enabled:
        models[1].net.compile()

    def step(model: PixelRNN) -> None:
        model.zero_grad()
        (-model.log_prob(images).mean()).backward()

    for model in models:
        step(model)
    if benchmark.enabled:
        pairs = [tuple(seconds(lambda model=model: step(model)) for model in models) for _ in range(20)]
        ratio = statistics.median(plain / compiled for plain, compiled in pairs)
        benchmark.extra_info["ratio"] = ratio
        print(f"\ncompiled: {ratio:.2f} times as fast")
    benchmark.pedantic(step, (models[1],), rounds=1)
