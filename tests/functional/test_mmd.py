"""The maximum mean discrepancy against its triple sum, its closed forms, and its test's level and power."""

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.errors import DataError
from lightning_gen.functional import mmd
from lightning_gen.functional.mmd import (
    Gaussian,
    Polynomial,
    RationalQuadratic,
    median_bandwidth,
    mmd2,
    mmd_ratio,
    sqrt_mmd2,
    two_sample_test,
)
from tests.digits import training_digits

KERNELS: dict[str, tuple[Any, Callable[[Tensor, Tensor], Tensor]]] = {
    "gaussian": (
        Gaussian((2.0, 5.0, 10.0, 20.0, 40.0, 80.0)),
        lambda a, b: sum((-(a - b).square().sum() / (2 * s)).exp() for s in (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)),
    ),
    "rational_quadratic": (
        RationalQuadratic((0.2, 1.0, 5.0)),
        lambda a, b: sum((1 + (a - b).square().sum() / (2 * s)) ** -s for s in (0.2, 1.0, 5.0)),
    ),
    "linear": (Polynomial(), torch.dot),
    "polynomial": (Polynomial(3, 0.25, 1.0), lambda a, b: (a @ b / 4 + 1) ** 3),
}


@pytest.fixture
def sets() -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(7, 4, dtype=torch.float64, generator=draws)
    return x, 1.5 * torch.randn(5, 4, dtype=torch.float64, generator=draws) + 0.5


def triple_sum(x: Tensor, y: Tensor, kernel: Callable[[Tensor, Tensor], Tensor], biased: bool) -> Tensor:
    """The definition, a pair at a time."""

    def mean(a: Tensor, b: Tensor, skip: bool) -> Tensor:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (skip and i == j)]
        return torch.stack([kernel(a[i], b[j]) for i, j in pairs]).mean()

    return mean(x, x, not biased) + mean(y, y, not biased) - 2 * mean(x, y, False)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("name", KERNELS)
def test_equals_the_triple_sum_with_its_gradient(
    name: str, biased: bool, sets: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks that do not divide the sets, too."""
    kernel, pair = KERNELS[name]
    x, y = (points.clone().requires_grad_() for points in sets)
    expected = triple_sum(x, y, pair, biased)
    expected_gradients = torch.autograd.grad(expected, (x, y))
    for rows, columns in ((1024, 1024), (3, 2)):
        monkeypatch.setattr(mmd, "ROWS", rows)
        monkeypatch.setattr(mmd, "COLUMNS", columns)
        value = mmd2(x, y, kernel, biased)
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(torch.autograd.grad(value, (x, y)), expected_gradients, rtol=1e-10, atol=1e-12)
        (alone,) = torch.autograd.grad(mmd2(sets[0], y, kernel, biased), y)
        torch.testing.assert_close(alone, expected_gradients[1], rtol=1e-10, atol=1e-12)


def test_the_identity_feature_map_compares_means(sets: tuple[Tensor, Tensor]) -> None:
    """With k(x, y) = x.y the sum before 1/M^2 has a plus sign: only then is it a squared distance."""
    x, y = sets
    torch.testing.assert_close(mmd2(x, y, Polynomial()), (x.mean(0) - y.mean(0)).square().sum())


@pytest.mark.parametrize("name", KERNELS)
def test_identical_sets_do_not_differ(name: str) -> None:
    images = training_digits()[:100].flatten(1)
    assert mmd2(images, images.clone(), KERNELS[name][0]).item() == 0
    again = images[torch.randperm(100, generator=torch.Generator().manual_seed(0))].double()
    scale = images.double().square().sum(1).max().item() ** 3
    assert mmd2(images.double(), again, KERNELS[name][0]).item() == pytest.approx(0, abs=1e-12 * scale)
    if name != "linear":
        assert mmd2(images.double(), again, KERNELS[name][0], biased=False).item() < 0


@pytest.mark.parametrize("name", ["gaussian", "rational_quadratic"])
def test_does_not_depend_on_order_translation_and_rotation(name: str, sets: tuple[Tensor, Tensor]) -> None:
    (x, y), kernel = sets, KERNELS[name][0]
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    value = mmd2(x, y, kernel)
    for a, b in ((y, x), (x.flip(0), y), (x + 3, y + 3), (x @ rotation, y @ rotation)):
        torch.testing.assert_close(mmd2(a, b, kernel), value, rtol=1e-10, atol=1e-12)


def test_single_points() -> None:
    x, y = torch.zeros(1, 3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    expected = 2 * 2 - 2 * (math.exp(-3 / (2 * 2)) + math.exp(-3 / (2 * 7)))
    assert mmd2(x, y, [2.0, 7.0]).item() == pytest.approx(expected, rel=1e-12)


def test_value_for_two_gaussians() -> None:
    """2 (s / (s + 2))^(d/2) (1 - exp(-|m|^2 / 2(s + 2))), which the unbiased estimate has as its mean."""
    d, s, shift, repeats = 3, 2.0, 1.0, 400
    draws = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, repeats, 50, d, generator=draws)
    estimates = torch.stack([mmd2(a, b + shift, [s], biased=False) for a, b in zip(x, y, strict=True)])
    expected = 2 * (s / (s + 2)) ** (d / 2) * (1 - math.exp(-d * shift**2 / (2 * (s + 2))))
    assert estimates.mean().item() == pytest.approx(expected, abs=4 * estimates.std().item() / math.sqrt(repeats))


def test_root_and_its_gradient(sets: tuple[Tensor, Tensor]) -> None:
    x, y = sets[0], sets[1].clone().requires_grad_()
    squared, root = mmd2(x, y, [2.0]), sqrt_mmd2(x, y, [2.0])
    torch.testing.assert_close(root, squared.sqrt())
    (plain,), (of_root,) = torch.autograd.grad(squared, y), torch.autograd.grad(root, y)
    torch.testing.assert_close(of_root, plain / (2 * root.detach()))


def test_denormal_powers_are_nothing() -> None:
    """Far points under bandwidths that are squared four times: the same as one exponential for each."""
    distances = torch.linspace(0, 20000, 1000)
    bandwidths = (5.0, 10.0, 20.0, 40.0, 80.0)
    value, slope = Gaussian(bandwidths)(distances)
    exact = torch.stack([(-distances.double() / (2 * b)).exp() for b in bandwidths])
    torch.testing.assert_close(value.double(), exact.sum(0), rtol=2e-5, atol=1e-30)
    torch.testing.assert_close(
        slope.double(), -(exact / (2 * torch.tensor(bandwidths)[:, None])).sum(0), rtol=2e-5, atol=1e-30
    )


@pytest.mark.parametrize(("count_x", "count_y"), [(20, 20), (15, 25)])
def test_level_and_power_of_the_test(count_x: int, count_y: int) -> None:
    """Under one distribution p <= 0.1 comes in a tenth of the cases; under two, far more often."""
    draws = torch.Generator().manual_seed(0)

    def rejections(shift: float) -> int:
        tests = (
            two_sample_test(
                torch.randn(count_x, 2, generator=draws),
                torch.randn(count_y, 2, generator=draws) + shift,
                [2.0],
                99,
                draws,
            )
            for _ in range(200)
        )
        return sum(test.p_value <= 0.1 for test in tests)

    assert abs(rejections(0.0) - 20) <= 3 * math.sqrt(200 * 0.1 * 0.9)
    assert rejections(1.0) > 160


@pytest.mark.parametrize("name", KERNELS)
def test_the_tests_statistic_is_the_discrepancy(name: str, sets: tuple[Tensor, Tensor]) -> None:
    """Of sets of different sizes; the permutations alone would hold their level with any statistic."""
    found = two_sample_test(*sets, KERNELS[name][0], 5, torch.Generator().manual_seed(0))
    assert found.statistic == pytest.approx(mmd2(*sets, KERNELS[name][0]).item(), rel=1e-10)


def test_digits_of_two_kinds_are_told_apart() -> None:
    images = training_digits().flatten(1)
    draws = torch.Generator().manual_seed(0)
    bandwidth = [median_bandwidth(images[:500], images[500:1000])]
    assert two_sample_test(images[:200], images[200:400], bandwidth, 200, draws).p_value > 0.01
    noisy = (images[200:400] + 0.3 * torch.randn(200, 784, generator=draws)).clamp(0, 1)
    found = two_sample_test(images[:200], noisy, bandwidth, 200, draws)
    assert found.p_value == pytest.approx(1 / 201)
    assert found.ratio > 2


def test_ratio_has_the_spread_of_the_estimate() -> None:
    """The estimate over its standard deviation over repeated draws."""
    draws = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 300, 100, 2, generator=draws)
    estimates = torch.stack([mmd2(a, b + 1, [2.0], biased=False) for a, b in zip(x, y, strict=True)])
    ratios = torch.stack([mmd_ratio(a, b + 1, [2.0]) for a, b in zip(x, y, strict=True)])
    assert ratios.mean().item() == pytest.approx((estimates.mean() / estimates.std()).item(), rel=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: mmd2(x[:1], x, [1.0], biased=False), "got 1 and 4 points; this estimate needs at least 2"),
        (lambda x: mmd2(x[:0], x, [1.0]), "got 0 and 4 points"),
        (lambda x: mmd2(x, x[:, :2], [1.0]), "points of 3 and of 2 numbers"),
        (lambda x: mmd2(x, x, [1.0, 0.0]), r"bandwidths is \[1.0, 0.0\]; expected one or more positive"),
        (lambda x: mmd2(x, x, []), r"bandwidths is \[\]"),
        (lambda x: mmd2(x, x, [math.nan]), r"bandwidths is \[nan\]"),
        (lambda x: RationalQuadratic((-1.0,)), r"alphas is \[-1.0\]"),
        (lambda x: median_bandwidth(x, x), "median distance between the points is 0"),
        (lambda x: median_bandwidth(x, x.index_fill(0, torch.tensor([1]), math.inf)), "1 of 8 points are not"),
        (lambda x: two_sample_test(x, x * math.nan, [1.0]), "4 of 8 points are not finite, such as the codes"),
        (lambda x: mmd_ratio(x, x[:3], [1.0]), "got 4 and 3"),
    ],
)
def test_bad_input_is_one_clear_line(call: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        call(torch.ones(4, 3))


MEMORY = """
import resource, torch
from lightning_gen.functional import mmd2
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB
x, y = torch.rand({n}, 784), torch.rand({n}, 784, requires_grad=True)
mmd2(x[:10], y[:10], [2.0, 5.0]).backward()
before = peak()
mmd2(x, y, [2.0, 5.0, 10.0, 20.0, 40.0, 80.0]).backward()
print(peak() - before)
"""


@pytest.mark.slow
def test_ten_thousand_points_against_ten_thousand_within_a_gigabyte() -> None:
    """With the gradient; a single matrix of their kernel would take 0.37 GiB, and the formula holds several."""
    run = subprocess.run([sys.executable, "-c", MEMORY.format(n=10_000)], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 0.3  # 0.12 measured.
