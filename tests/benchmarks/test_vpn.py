"""VPN's cached sampler against the whole decoder for each pixel, moving digits against a step, recomputation."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.datamodules import MovingDigitsDataModule
from lightning_gen.models import VPN

DIGITS = {"context_frames": 5, "channels": 8, "encoder_blocks": 4, "decoder_blocks": 4, "head_size": 32}  # vpn/digits
SHAPE, NUM_CLIPS, ROUNDS = (1, 10, 32, 32), 8, 3


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def small_digits() -> MovingDigitsDataModule:
    return MovingDigitsDataModule(image_size=32, digit_size=14, num_frames=10, epoch_size=80, batch_size=NUM_CLIPS)


@pytest.mark.benchmark(group="sampling of VPN")
def test_sampling_against_the_whole_decoder_for_each_pixel(benchmark: Any) -> None:
    """The naive sampler keeps the encoder's work too, but runs the decoder before each pixel; 8 of these are timed."""
    torch.manual_seed(0)
    model = VPN(SHAPE, levels=2, **DIGITS).eval()  # type: ignore[arg-type]
    context = torch.randn(NUM_CLIPS, 16, 32, 32)
    uniform = torch.rand(NUM_CLIPS, 1, 32, 32)
    with torch.no_grad():
        frame = model.draw_frame(context, None, uniform)

    def naive(pixels: range) -> Tensor:
        drawn = frame.clone()  # What lies behind a pixel does not reach it.
        with torch.no_grad():
            for pixel in pixels:
                row, column = divmod(pixel, 32)
                probability = model.decoder(2 * drawn - 1, context, None)[:, 0, 0, row, column].sigmoid()
                drawn[:, 0, row, column] = (uniform[:, 0, row, column] < probability).float()
        return drawn

    part = range(500, 508)
    assert torch.equal(naive(part), frame)
    with torch.no_grad():
        if benchmark.enabled:
            pairs = [
                (seconds(lambda: model.draw_frame(context, None, uniform)), seconds(lambda: naive(part)) * 1024 / 8)
                for _ in range(ROUNDS)
            ]
            ratio = statistics.median(b / a for a, b in pairs)
            milliseconds = 1e3 * statistics.median(a for a, _ in pairs)
            benchmark.extra_info["ratio"] = ratio
            print(f"\nvpn/digits, {NUM_CLIPS} clips: {ratio:.0f} times as fast, {milliseconds:.0f} ms a frame")
            assert ratio > 20
        benchmark.pedantic(model.draw_frame, (context, None, uniform), rounds=1)


@pytest.mark.benchmark(group="moving digits")
def test_moving_digits_against_a_step(benchmark: Any) -> None:
    """Clips are made at least three times as fast as the small recipe's step uses them."""
    model = VPN(SHAPE, **DIGITS)  # type: ignore[arg-type]
    batches = iter(small_digits().train_dataloader())
    clips = next(batches)["video"]

    def step() -> None:
        model.zero_grad()
        model.cross_entropy(clips).mean().backward()

    if benchmark.enabled:
        pairs = [(seconds(lambda: next(batches)), seconds(step)) for _ in range(ROUNDS)]
        ratio = statistics.median(b / a for a, b in pairs)
        benchmark.extra_info["ratio"] = ratio
        print(f"\n{NUM_CLIPS} clips: {1e3 * pairs[0][0]:.1f} ms, {ratio:.0f} times as fast as a step uses them")
        assert ratio > 3
    benchmark.pedantic(lambda: next(batches), rounds=1)


@pytest.mark.benchmark(group="memory of VPN")
def test_recomputed_blocks(benchmark: Any) -> None:
    """What is kept for the backward pass, and the time of a step, with and without recomputation."""
    clips = torch.rand(2, *SHAPE)
    sizes: dict[bool, int] = {}
    times: dict[bool, list[float]] = {False: [], True: []}
    models = {recompute: VPN(SHAPE, recompute=recompute, **DIGITS) for recompute in (False, True)}  # type: ignore[arg-type]

    def step(recompute: bool) -> None:
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = models[recompute].cross_entropy(clips).mean()
        sizes[recompute] = sum(kept.values())
        loss.backward()

    for _ in range(ROUNDS if benchmark.enabled else 1):
        for recompute in (False, True):
            times[recompute].append(seconds(lambda recompute=recompute: step(recompute)))
    saving, cost = sizes[False] / sizes[True], statistics.median(times[True]) / statistics.median(times[False])
    benchmark.extra_info.update(saving=saving, cost=cost)
    print(f"\nrecomputed: 1/{saving:.1f} of the memory ({sizes[False] / 2**20:.0f} MiB before), {cost:.2f} of the time")
    assert saving > 2
    benchmark.pedantic(step, (True,), rounds=1)
