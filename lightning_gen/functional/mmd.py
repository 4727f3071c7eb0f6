r"""Maximum mean discrepancy: how far two sets of points lie apart in the eyes of a kernel, and a test of it.

Gretton et al., "A Kernel Two-Sample Test" (2012), https://jmlr.org/papers/v13/gretton12a.html.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lightning_gen.errors import DataError

ROWS, COLUMNS = 1024, 1024
"""Kernel values held at a time: memory does not grow with the product of the numbers of points."""


# Kernels --------------------------------------------------------------------------------------------------------


class Kernel(Protocol):
    """A function of two points through one number: their squared distance (`radial`), or their product."""

    @property
    def radial(self) -> bool: ...

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The kernel at squared distances or products `t`, and its derivative by `t`; both of `t`'s shape."""
        ...


@dataclass(frozen=True)
class Gaussian:
    r"""$\sum_q \exp(-\|x - y\|^2 / 2 b_q)$, a sum and not a mean (Li et al. 2015, section 3).

    Args:
        bandwidths: b, variances of the Gaussians, not standard deviations.

    Raises:
        DataError: if one is not positive.
    """

    bandwidths: tuple[float, ...]
    radial = True

    def __post_init__(self) -> None:
        _check_positive("bandwidths", self.bandwidths)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = torch.zeros_like(t), torch.zeros_like(t)
        remaining = sorted(self.bandwidths, reverse=True)
        while remaining:
            bandwidth = remaining[0]
            power = (t * (-0.5 / bandwidth / math.log(2))).exp2_()  # Where it vanishes, exp takes ten times as long.
            while bandwidth in remaining:  # Half the bandwidth is the square of what there is.
                remaining.remove(bandwidth)
                value += power
                slope.sub_(power, alpha=0.5 / bandwidth)
                bandwidth /= 2
                if bandwidth in remaining:
                    # Squares of what is smaller would be denormal, which is slow, and are nothing.
                    power = F.threshold(power, 1e-19, 0.0).square_()
        return value, slope


@dataclass(frozen=True)
class RationalQuadratic:
    r"""$\sum_q (1 + \|x - y\|^2 / 2 \alpha_q)^{-\alpha_q}$ (Dziugaite et al. 2015).

    Args:
        alphas: exponents, each also the scale.

    Raises:
        DataError: if one is not positive.
    """

    alphas: tuple[float, ...]
    radial = True

    def __post_init__(self) -> None:
        _check_positive("alphas", self.alphas)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = torch.zeros_like(t), torch.zeros_like(t)
        for alpha in self.alphas:
            base = 1 + t / (2 * alpha)
            power = base.pow(-alpha)
            value += power
            slope -= power / (2 * base)
        return value, slope


@dataclass(frozen=True)
class Polynomial:
    r"""$(s\,x \cdot y + c)^p$.

    With the defaults it is the linear kernel, whose feature map is the identity: its discrepancy is the distance
    between the two means, $\|\bar x - \bar y\|^2$.

    Args:
        degree: p.
        scale: s.
        offset: c.
    """

    degree: int = 1
    scale: float = 1.0
    offset: float = 0.0
    radial = False

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        base = self.scale * t + self.offset
        lower = base ** (self.degree - 1)
        return lower * base, self.degree * self.scale * lower


def _check_positive(name: str, numbers: Sequence[float]) -> None:
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise DataError(f"{name} is {list(numbers)}; expected one or more positive numbers.")


def _gram(kernel: Kernel, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel of each pair and its derivative, `(N, F), (M, F) -> (N, M)` twice."""
    with torch.autocast(x.device.type, enabled=False):  # Differences of large numbers need more than 16 bits.
        if not kernel.radial:
            return kernel(x @ y.T)
        squares = torch.addmm(y.square().sum(1), x, y.T, alpha=-2).add_(x.square().sum(1, keepdim=True))
        return kernel(squares.clamp_(min=0))  # Of equal points it may come out below 0.


def _on_diagonal(kernel: Kernel, x: Tensor) -> Tensor:
    """The kernel of each point and itself, summed."""
    return kernel((0 * x if kernel.radial else x).square().sum(1))[0].sum()


class _KernelSum(torch.autograd.Function):
    """The sum of a kernel over all pairs, with its gradient found in the same pass, block by block."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
        total = x.new_zeros((), dtype=torch.float64)
        gradients = [
            torch.zeros_like(points) if need else None
            for points, need in zip((x, y), ctx.needs_input_grad[:2], strict=True)
        ]
        for i in range(0, len(x), ROWS):
            for j in range(0, len(y), COLUMNS):
                a, b = x[i : i + ROWS], y[j : j + COLUMNS]
                value, slope = _gram(kernel, a, b)
                total += value.sum(dtype=torch.float64)
                for gradient, start, points, others, s in (
                    (gradients[0], i, a, b, slope),
                    (gradients[1], j, b, a, slope.T),
                ):
                    if gradient is not None:
                        part = gradient[start : start + len(points)]
                        if kernel.radial:  # d ||a - b||^2 = 2 (a - b) da
                            part.addcmul_(s.sum(1, keepdim=True), points, value=2).addmm_(s, others, alpha=-2)
                        else:
                            part.addmm_(s, others)
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(None if g is None else (grad * g).to(g.dtype) for g in ctx.saved_tensors), None


# Estimates ------------------------------------------------------------------------------------------------------


def mmd2(x: Tensor, y: Tensor, kernel: Kernel | Sequence[float], biased: bool = True) -> Tensor:
    r"""Squared maximum mean discrepancy between two sets of points.

    $\frac{1}{N^2} \sum_{i,i'} k(x_i, x_{i'}) - \frac{2}{NM} \sum_{i,j} k(x_i, y_j) + \frac{1}{M^2} \sum_{j,j'}
    k(y_j, y_{j'})$ (Gretton et al. 2012, equation 5); without bias, points are not paired with themselves, and
    $N(N-1)$ stands for $N^2$ (equation 3). Memory grows with N + M. The gradient is exact, and of the first order only.

    Args:
        x: `(N, ...)`, flattened.
        y: `(M, ...)`, flattened.
        kernel: a `Kernel`, or the bandwidths of a `Gaussian` one (variances).
        biased: the first estimate, at least 0 up to rounding; else the second, which may be negative.

    Returns:
        A scalar, float64.

    Raises:
        DataError: if the sets are too small for the estimate, or of different widths.

    >>> x, y = torch.zeros(3, 2), torch.ones(5, 2)
    >>> mmd2(x, y, Polynomial())  # between the means
    tensor(2., dtype=torch.float64)
    >>> mmd2(x, y, [0.5, 1.0])
    tensor(2.9936, dtype=torch.float64)
    """
    x, y, kernel = _check(x, y, kernel, least=1 if biased else 2)
    n, m = len(x), len(y)
    within_x, within_y = (2 * s - s.detach() for s in (_KernelSum.apply(z, z.detach(), kernel) for z in (x, y)))
    across = _KernelSum.apply(x, y, kernel)
    if biased:
        return within_x / n**2 + within_y / m**2 - 2 * across / (n * m)
    within_x, within_y = within_x - _on_diagonal(kernel, x), within_y - _on_diagonal(kernel, y)
    return within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * across / (n * m)


def sqrt_mmd2(x: Tensor, y: Tensor, kernel: Kernel | Sequence[float]) -> Tensor:
    r"""The loss of Li et al. 2015 (equation 6): $\sqrt{\mathrm{MMD}^2}$, biased, whose gradient does not fade early.

    Args:
        x: see `mmd2`.
        y: see `mmd2`.
        kernel: see `mmd2`.

    Returns:
        A scalar, float64. At 0, where a root has no gradient, its gradient is 0.

    >>> x = torch.rand(8, 3, requires_grad=True)
    >>> loss = sqrt_mmd2(x, x.detach(), [1.0])
    >>> loss.backward()
    >>> loss.item(), x.grad.abs().max().item()
    (0.0, 0.0)
    """
    squared = mmd2(x, y, kernel)
    positive = squared > 0  # Rounding may leave it below.
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0 * squared)


def median_bandwidth(x: Tensor, y: Tensor) -> float:
    """The median of the squared distances between all points, the usual guess at a bandwidth (a variance).

    Args:
        x: `(N, ...)`; at most 1,000 rows are looked at.
        y: `(M, ...)`, likewise.

    Raises:
        DataError: if it is 0, as half of the points are equal, or if a point is not finite.

    >>> median_bandwidth(torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0]]))
    1.0
    """
    points = torch.cat([x[:1000].flatten(1), y[:1000].flatten(1)]).double()
    _refuse_non_finite(points)
    median = torch.pdist(points).square().median().item()
    if not median > 0:
        raise DataError("The median distance between the points is 0: most are equal. Give the bandwidths as numbers.")
    return median


def _refuse_non_finite(points: Tensor) -> None:
    if not (finite := points.isfinite().flatten(1).all(1)).all():
        raise DataError(
            f"{(~finite).sum()} of {len(points)} points are not finite, such as the codes of an encoder whose training "
            "has broken down."
        )


# The two-sample test --------------------------------------------------------------------------------------------


class TwoSampleTest(NamedTuple):
    """What `two_sample_test` finds."""

    statistic: float  # MMD^2, biased
    p_value: float
    ratio: float  # see `mmd_ratio`; nan where N is not M


def two_sample_test(
    x: Tensor,
    y: Tensor,
    kernel: Kernel | Sequence[float],
    num_permutations: int = 1000,
    generator: torch.Generator | None = None,
) -> TwoSampleTest:
    """Whether two sets of points come from one distribution, by permuting the points between the sets.

    The p-value is the share of divisions of all points, the one at hand among them, that lie at least as far apart:
    the test is exact, of level alpha where it refuses at p <= alpha (Gretton et al. 2012, section 5).

    Args:
        x: `(N, ...)`, independent of each other.
        y: `(M, ...)`.
        kernel: see `mmd2`, chosen without looking at these points.
        num_permutations: random divisions.
        generator: draws them; on the CPU.

    Returns:
        The statistic, the p-value in [1 / (num_permutations + 1), 1], and the ratio.

    Raises:
        DataError: as `mmd2`, or if a point is not finite.

    >>> draws = torch.Generator().manual_seed(0)
    >>> x, y = torch.randn(2, 100, 3, generator=draws)
    >>> two_sample_test(x, y, [3.0], generator=draws).p_value > 0.05
    True
    >>> two_sample_test(x, y + 1, [3.0], generator=draws).p_value
    0.000999000999000999
    """
    x, y, kernel = _check(x, y, kernel, least=2)
    points = torch.cat([x, y]).double()
    _refuse_non_finite(points)
    n, m = len(x), len(y)
    weights = points.new_full((n + m,), -1 / m)
    weights[:n] = 1 / n
    divisions = [torch.randperm(n + m, generator=generator) for _ in range(num_permutations)]
    signed = torch.stack([weights, *(weights[order.to(weights.device)] for order in divisions)], 1)  # (N + M, P + 1)
    statistics = signed.new_zeros(num_permutations + 1)
    for start in range(0, n + m, ROWS):
        rows = slice(start, start + ROWS)
        statistics += (signed[rows] * (_gram(kernel, points[rows], points)[0] @ signed)).sum(0)
    # Equal divisions may differ by rounding: they count as equal.
    as_far = (statistics[1:] >= statistics[0] - 1e-12 * statistics[0].abs()).sum().item()
    ratio = mmd_ratio(x, y, kernel).item() if n == m else math.nan
    return TwoSampleTest(statistics[0].item(), (1 + as_far) / (1 + num_permutations), ratio)


def mmd_ratio(x: Tensor, y: Tensor, kernel: Kernel | Sequence[float]) -> Tensor:
    r"""The unbiased MMD^2 over its standard deviation, which grows with the test's power: what to choose a kernel by.

    With $H_{ij} = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(y_i, x_j)$ the variance is estimated by $\frac4N
    (\frac{1}{N^3} \sum_i (\sum_j H_{ij})^2 - \frac{1}{N^4} (\sum_{ij} H_{ij})^2)$ (Liu et al. 2020, equation 5, of
    $\sqrt N\,\mathrm{MMD}^2$ there).

    Args:
        x: `(N, ...)`.
        y: `(N, ...)`, as many.
        kernel: see `mmd2`.

    Returns:
        A scalar, float64; infinite where the variance is 0.

    Raises:
        DataError: as `mmd2`, or if there are not as many of both.
    """
    x, y, kernel = _check(x, y, kernel, least=2)
    n = len(x)
    if n != len(y):
        raise DataError(f"The ratio needs as many points in both sets; got {n} and {len(y)}.")
    x, y = x.detach().double(), y.detach().double()
    pairs = ((x, x, 1), (y, y, 1), (x, y, -1), (y, x, -1))
    rows = x.new_zeros(n)  # sums of H
    for part in (slice(start, start + ROWS) for start in range(0, n, ROWS)):
        for a, b, sign in pairs:
            rows[part] += sign * _gram(kernel, a[part], b)[0].sum(1)
    variance = 4 / n * (rows.square().mean() / n**2 - (rows.mean() / n).square())
    return mmd2(x, y, kernel, biased=False) / variance.clamp(min=0).sqrt()


def _check(x: Tensor, y: Tensor, kernel: Kernel | Sequence[float], least: int) -> tuple[Tensor, Tensor, Kernel]:
    x, y = (points.flatten(1) if points.dtype == torch.float64 else points.flatten(1).float() for points in (x, y))
    if min(len(x), len(y)) < least:
        raise DataError(f"MMD^2 got {len(x)} and {len(y)} points; this estimate needs at least {least} of each.")
    if x.shape[1] != y.shape[1]:
        raise DataError(f"MMD^2 got points of {x.shape[1]} and of {y.shape[1]} numbers; expected as many in both.")
    return x, y, Gaussian(tuple(kernel)) if isinstance(kernel, Sequence) else kernel
