"""Scores of samples beside a distance, against the formulas of their papers' code written out with NumPy and SciPy."""

import numpy as np
import pytest
import torch
from scipy.linalg import eigvalsh, sqrtm
from scipy.spatial.distance import cdist

from lightning_gen.functional import authentic, frechet_distance_infinity, vendi_score
from lightning_gen.metrics import Authenticity, FrechetDistanceInfinity, Samples, VendiScore
from lightning_gen.nn import DigitFeatures
from tests.digits import training_digits


def points(number: int, seed: int, spread: float = 1.0, size: int = 7) -> torch.Tensor:
    return spread * torch.randn(number, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("number", "size"), [(40, 7), (5, 30)])
def test_vendi(number: int, size: int) -> None:
    x = points(number, 0, size=size)
    rows = x.double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    values = eigvalsh(rows @ rows.T / number)
    values = values[values > 0]
    assert vendi_score(x).item() == pytest.approx(np.exp(-(values * np.log(values)).sum()), rel=1e-9)
    assert vendi_score(x[:1].expand(9, -1)).item() == pytest.approx(1)


def test_authenticity() -> None:
    train, made = points(60, 1), torch.cat([points(40, 2, 0.5), points(60, 1)[:10] + 1e-3])
    within, across = cdist(train, train), cdist(train, made)
    np.fill_diagonal(within, np.inf)
    expected = within.min(0)[across.argmin(0)] < across.min(0)
    assert authentic(made, train).tolist() == expected.tolist()
    assert 0 < expected.mean() < 1
    assert not authentic(train, train).any()
    assert not authentic(torch.zeros(3, 2), torch.zeros(4, 2)).any()  # Copies of copies.


def test_frechet_infinity() -> None:
    x, y = points(400, 3), points(300, 4, 1.3)
    generator = torch.Generator().manual_seed(5)
    sizes = np.linspace(40, 400, 15).astype(int)
    distances = []
    for size in sizes:
        rows = x[torch.randperm(400, generator=generator)[:size]].double().numpy()
        means = rows.mean(0) - y.double().numpy().mean(0)
        one, other = np.cov(rows, rowvar=False), np.cov(y.double().numpy(), rowvar=False)
        distances.append(means @ means + np.trace(one + other - 2 * sqrtm(one @ other).real))
    expected = np.polyfit(1 / sizes, distances, 1)[1]
    found = frechet_distance_infinity(x, y, generator=torch.Generator().manual_seed(5))
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_the_line_takes_most_of_the_bias_away() -> None:
    """Of a normal distribution with itself the distance is 0, and that of 400 samples is not."""
    y = points(20_000, 6, size=20)
    infinite = frechet_distance_infinity(points(400, 7, size=20), y, generator=torch.Generator().manual_seed(0))
    finite = frechet_distance_infinity(points(400, 7, size=20), y, 2, torch.Generator().manual_seed(0))
    from lightning_gen.functional import frechet_distance

    x = points(400, 7, size=20).double()
    plain = frechet_distance(x.mean(0), x.T.cov(), y.double().mean(0), y.double().T.cov())
    assert abs(infinite) < plain / 3
    assert torch.isfinite(finite)


@pytest.mark.parametrize("kind", [VendiScore, Authenticity, FrechetDistanceInfinity])
def test_metrics_of_digits(kind: type) -> None:
    extractor = DigitFeatures()
    images = training_digits()[:300]
    values = {}
    for name, made in {"real": training_digits()[300:400], "alike": images[:1].expand(100, -1, -1, -1)}.items():
        metric = kind()
        metric.bind(extractor)
        for role in ("reference", "training"):
            metric.update(Samples(images, *extractor(images)), role=role)
        for part in made.split(33):
            metric.update(Samples(part, *extractor(part)))
        values[name] = metric.compute().item()
        assert metric.name == f"{metric.short_name}_digits"
        assert metric.protocol
    better = values["real"] > values["alike"]
    assert better == kind.higher_is_better
