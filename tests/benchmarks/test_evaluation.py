"""All scores on one pass against a pass for each score, and nearest neighbours against all distances at once."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore as TheirInceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from lightning_gen.functional import nearest_neighbors
from lightning_gen.metrics import FrechetDistance, InceptionScore, KernelDistance, Precision, Recall, Samples
from lightning_gen.nn import DigitFeatures

NUMBER, BATCH = 5000, 250


def seconds(function: Callable[[], Any]) -> float:
    start = time.process_time()  # Not disturbed by what else is running.
    function()
    return time.process_time() - start


class Part(nn.Module):
    """The features or the logits of an extractor, as torchmetrics asks for them."""

    def __init__(self, extractor: DigitFeatures, field: int, size: int) -> None:
        super().__init__()
        self.extractor, self.field, self.num_features = extractor, field, size

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.extractor(images)[self.field]


def passes(extractor: DigitFeatures, *sets: Tensor) -> list[Samples]:
    with torch.no_grad():
        return [Samples(part, *extractor(part)) for images in sets for part in images.split(BATCH)]


def ours(extractor: DigitFeatures, generated: Tensor, real: Tensor) -> list[float]:
    metrics = [FrechetDistance(), KernelDistance(), InceptionScore(), Precision(), Recall()]
    for metric in metrics:
        metric.bind(extractor)
    for role, images in (("reference", real), ("generated", generated)):
        for samples in passes(extractor, images):
            for metric in metrics:
                metric.update(samples, role=role)
    return [metric.compute().item() for metric in metrics]


def theirs(extractor: DigitFeatures, generated: Tensor, real: Tensor) -> list[float]:
    size = {"input_img_size": (1, 28, 28)}
    fid = FrechetInceptionDistance(Part(extractor, 0, 96), normalize=True, **size)
    kid = KernelInceptionDistance(Part(extractor, 0, 96), subsets=100, subset_size=1000)
    score = TheirInceptionScore(Part(extractor, 1, 10), splits=10)
    for part in real.split(BATCH):
        fid.update(part, real=True)
        kid.update(part, real=True)
    for part in generated.split(BATCH):
        fid.update(part, real=False)
        kid.update(part, real=False)
        score.update(part)
    return [fid.compute().item(), kid.compute()[0].item(), score.compute()[0].item()]


@pytest.mark.benchmark(group="evaluation")
def test_one_pass_for_all_scores(benchmark: Any) -> None:
    """Five scores of ours, precision and recall among them, against three of torchmetrics, which pass five times.

    The slower the extractor, the nearer the ratio to 2.5; this one is a hundred times as fast as Inception.
    """
    extractor = DigitFeatures()
    number = NUMBER if benchmark.enabled else 1000
    generator = torch.Generator().manual_seed(0)
    generated, real = (torch.rand(number, 1, 28, 28, generator=generator) ** power for power in (8, 12))
    fid, *_ = benchmark.pedantic(ours, (extractor, generated, real), rounds=1)
    if not benchmark.enabled:
        return
    their_fid, *_ = theirs(extractor, generated, real)
    assert fid == pytest.approx(their_fid, rel=1e-3)
    rounds = []
    for _ in range(3):
        alone, one, three = (
            seconds(lambda: passes(extractor, generated, real)),
            seconds(lambda: ours(extractor, generated, real)),
            seconds(lambda: theirs(extractor, generated, real)),
        )
        rounds.append((one / alone, three / one, (one - alone) / number))
    share, ratio, rest = (statistics.median(column) for column in zip(*rounds, strict=True))
    benchmark.extra_info.update(ratio=ratio, share=share)
    print(
        f"\nfive scores of {number} images: {share:.2f} times the passes alone ({1e3 * rest:.2f} ms an image beside "
        f"them), {ratio:.1f} times as fast as three torchmetrics"
    )
    assert ratio > 1.2


def all_at_once(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    distances, indices = torch.cdist(x, y).min(1)
    return distances, indices


def loop(x: Tensor, y: Tensor) -> list[int]:
    return [int((y - point).square().sum(1).argmin()) for point in x]


@pytest.mark.benchmark(group="nearest neighbours")
def test_nearest_neighbors(benchmark: Any) -> None:
    """Against a loop over the samples, and no slower than all distances at once, which take 4 bytes each."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(n, 784, generator=generator) for n in (1000, 6000))
    found = benchmark.pedantic(nearest_neighbors, (x, y), rounds=3)
    assert (found.indices[:, 0] == all_at_once(x, y)[1]).float().mean() > 0.99
    if benchmark.enabled:
        rounds = [
            (
                seconds(lambda: loop(x[:50], y)) * len(x) / 50,
                seconds(lambda: all_at_once(x, y)),
                seconds(lambda: nearest_neighbors(x, y)),
            )
            for _ in range(3)
        ]
        by_loop = statistics.median(slow / ours for slow, _, ours in rounds)
        whole = statistics.median(cdist / ours for _, cdist, ours in rounds)
        benchmark.extra_info.update(loop=by_loop, whole=whole)
        print(f"\n1000 among 6000: {by_loop:.1f} times as fast as a loop, {whole:.2f} as all distances at once")
        assert by_loop > 3
        assert whole > 0.8
