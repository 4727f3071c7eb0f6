"""Fréchet, kernel distance and Inception score against closed forms and other implementations."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.metrics.pairwise import polynomial_kernel
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from lightning_gen.errors import DataError
from lightning_gen.functional import distances, frechet_distance, inception_score, kernel_distance


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def gaussian(dim: int, generator: torch.Generator, rank: int | None = None) -> tuple[Tensor, Tensor]:
    """A random mean and covariance."""
    root = torch.randn(dim, rank or 2 * dim, generator=generator, dtype=torch.float64)
    return torch.randn(dim, generator=generator, dtype=torch.float64), root @ root.T / dim


def identity(dim: int) -> Tensor:
    return torch.eye(dim, dtype=torch.float64)


# Fréchet distance ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [None, 20])
def test_frechet_equals_scipy(generator: torch.Generator, rank: int | None) -> None:
    x, y = gaussian(64, generator), gaussian(64, generator, rank)
    expected = (x[0] - y[0]).square().sum() + x[1].trace() + y[1].trace()
    expected -= 2 * np.trace(sqrtm(x[1].numpy() @ y[1].numpy())).real
    assert frechet_distance(*x, *y).item() == pytest.approx(expected.item(), rel=1e-6 if rank else 1e-10)


def test_frechet_in_one_dimension_is_wasserstein() -> None:
    numbers = [torch.tensor(v, dtype=torch.float64) for v in ([1.0], [[4.0]], [-2.0], [[25.0]])]
    assert frechet_distance(*numbers).item() == pytest.approx(3**2 + (2 - 5) ** 2)


def test_frechet_of_diagonal_covariances(generator: torch.Generator) -> None:
    s, t = (torch.rand(10, generator=generator, dtype=torch.float64) for _ in range(2))
    mean = torch.arange(10.0)
    ours = frechet_distance(mean, s.square().diag(), mean + 0.5, t.square().diag())
    assert ours.item() == pytest.approx((s - t).square().sum().item() + 10 * 0.25)


def test_frechet_of_equal_covariances_is_the_distance_of_means(generator: torch.Generator) -> None:
    mean, cov = gaussian(30, generator)
    assert frechet_distance(mean, cov, mean + 2, cov).item() == pytest.approx(30 * 4)


@pytest.mark.parametrize("rank", [None, 10])
def test_frechet_of_the_same_is_nothing(generator: torch.Generator, rank: int | None) -> None:
    mean, cov = gaussian(100, generator, rank)
    assert 0 <= frechet_distance(mean, cov, mean, cov).item() <= 1e-6


def test_frechet_is_symmetric_and_does_not_see_a_rotation(generator: torch.Generator) -> None:
    (m, c), (n, d) = gaussian(40, generator), gaussian(40, generator)
    value = frechet_distance(m, c, n, d).item()
    assert frechet_distance(n, d, m, c).item() == pytest.approx(value, rel=1e-9)
    turn, _ = torch.linalg.qr(torch.randn(40, 40, generator=generator, dtype=torch.float64))
    turned = frechet_distance(turn @ m, turn @ c @ turn.T, turn @ n, turn @ d @ turn.T)
    assert turned.item() == pytest.approx(value, rel=1e-9)


def test_frechet_works_in_float64_whatever_comes_in(generator: torch.Generator) -> None:
    x, y = gaussian(20, generator), gaussian(20, generator)
    ours = frechet_distance(*(t.float() for t in (*x, *y)))
    assert ours.dtype == torch.float64
    assert ours.item() == pytest.approx(frechet_distance(*x, *y).item(), rel=1e-5)


# Kernel distance ----------------------------------------------------------------------------------------------------


def test_kernel_distance_equals_scikit_learn(generator: torch.Generator) -> None:
    x = torch.randn(30, 8, generator=generator)
    y = torch.randn(30, 8, generator=generator) + 0.3
    within = [polynomial_kernel(t.double(), degree=3, gamma=1 / 8, coef0=1) for t in (x, y)]
    between = polynomial_kernel(x.double(), y.double(), degree=3, gamma=1 / 8, coef0=1)
    expected = sum((k.sum() - np.trace(k)) / (30 * 29) for k in within) - 2 * between.mean()
    mean, std = kernel_distance(x, y, num_subsets=3, subset_size=30)  # A subset of all is a permutation.
    assert mean.item() == pytest.approx(expected, rel=1e-10)
    assert std.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("number", [5, 15])  # Each by itself, and all at once.
def test_kernel_distance_equals_torchmetrics_on_the_same_subsets(
    number: int, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "ROWS", 16)
    x = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    y = 1.2 * torch.randn(70, 6, generator=generator, dtype=torch.float64)
    draw = torch.Generator().manual_seed(3)
    values = torch.stack(
        [
            poly_mmd(x[torch.randperm(50, generator=draw)[:20]], y[torch.randperm(70, generator=draw)[:20]])
            for _ in range(number)
        ]
    )
    mean, std = kernel_distance(x, y, number, 20, torch.Generator().manual_seed(3))
    assert mean.item() == pytest.approx(values.mean().item(), rel=1e-9)
    assert std.item() == pytest.approx(values.std(correction=0).item(), rel=1e-9)


def test_kernel_distance_of_a_tensor_and_itself(generator: torch.Generator) -> None:
    """The same as of a tensor and its copy, in either order of precision."""
    x = torch.randn(60, 16, generator=generator)
    values = [
        kernel_distance(x.to(dtype), y.to(dtype), 9, 20, torch.Generator().manual_seed(1))[0]
        for dtype in (torch.float32, torch.float64)
        for y in (x, x.clone())
    ]
    torch.testing.assert_close(torch.stack(values), values[0].expand(4))


def test_kernel_distance_has_no_bias(generator: torch.Generator) -> None:
    """Two sets of one distribution are at 0 on average, at both sides of it."""
    values = []
    for _ in range(300):
        x, y = torch.randn(2, 10, 4, generator=generator)
        values.append(kernel_distance(x, y, num_subsets=1, subset_size=10)[0].item())
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(300)
    assert min(values) < 0 < max(values)


def test_kernel_distance_draws_from_its_generator_alone(generator: torch.Generator) -> None:
    x, y = torch.randn(2, 40, 4, generator=generator)
    before = torch.get_rng_state()
    first, second = (kernel_distance(x, y, 5, 10, torch.Generator().manual_seed(1)) for _ in range(2))
    assert first == second
    assert first != kernel_distance(x, y, 5, 10, torch.Generator().manual_seed(2))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("size", [1, 11])
def test_kernel_distance_refuses_a_subset_that_does_not_fit(size: int) -> None:
    with pytest.raises(DataError, match="a subset_size of 2 to 10"):
        kernel_distance(torch.zeros(10, 3), torch.zeros(20, 3), subset_size=size)


# Inception score ----------------------------------------------------------------------------------------------------


def test_inception_score_of_one_opinion_is_one(generator: torch.Generator) -> None:
    mean, std = inception_score(torch.randn(1, 7, generator=generator).expand(50, 7), splits=5)
    assert (mean.item(), std.item()) == (pytest.approx(1), pytest.approx(0, abs=1e-12))


@pytest.mark.parametrize("certain", [1e4, math.inf])
def test_inception_score_of_certain_and_even_classes_is_their_number(certain: float) -> None:
    logits = torch.where(torch.eye(6) == 1, 0.0, -certain).repeat(4, 1)
    assert inception_score(logits, splits=4)[0].item() == pytest.approx(6)


def test_inception_score_does_not_see_the_names_of_classes(generator: torch.Generator) -> None:
    logits = 3 * torch.randn(40, 5, generator=generator)
    renamed = logits[:, torch.randperm(5, generator=generator)]
    assert inception_score(renamed)[0].item() == pytest.approx(inception_score(logits)[0].item())


def test_inception_score_takes_splits_in_order(generator: torch.Generator) -> None:
    logits = 1000 * torch.eye(4).repeat_interleave(10, 0)  # Each split holds one class.
    assert inception_score(logits, splits=4)[0].item() == pytest.approx(1)
    assert inception_score(logits[torch.randperm(40, generator=generator)], splits=4)[0].item() > 2


def test_inception_score_of_few_samples_is_low(generator: torch.Generator) -> None:
    """It grows with the size of a split, so the size is part of the protocol."""
    logits = 1000 * torch.eye(10)[torch.randint(10, (4000,), generator=generator)]
    few, many = inception_score(logits[:40], splits=10)[0].item(), inception_score(logits, splits=10)[0].item()
    assert few < 4.01
    assert many > 9.8


@pytest.mark.parametrize("splits", [0, 4])
def test_inception_score_refuses_more_splits_than_samples(splits: int) -> None:
    with pytest.raises(DataError, match=f"3 samples for {splits} splits"):
        inception_score(torch.zeros(3, 2), splits)
