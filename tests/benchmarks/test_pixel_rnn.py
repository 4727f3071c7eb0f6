"""PixelRNN's samplers against the whole network for each pixel."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.models import PixelRNN

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
