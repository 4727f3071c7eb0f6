"""Nearest neighbours, near pairs, and the shares of points that lie near others.

Distances are computed block by block: memory grows with the sum of the numbers of points, not with their product.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_gen.errors import DataError

ROWS, COLUMNS = 512, 2048
"""Distances held at a time: 4 MB in float32, which stay in a processor's cache."""


class Neighbors(NamedTuple):
    """What `nearest_neighbors` finds."""

    distances: Tensor  # (N, k), ascending
    indices: Tensor  # (N, k), rows of y


class Pairs(NamedTuple):
    """What `closest_pairs` finds."""

    distances: Tensor  # (P,), ascending
    indices: Tensor  # (P, 2), rows of x


def nearest_neighbors(x: Tensor, y: Tensor, k: int = 1) -> Neighbors:
    """The k points of y nearest to each point of x, by Euclidean distance.

    Neighbours are ranked by products in float32 (float64 where a set is), so that two whose distances differ by a
    millionth may change places; the distances given are then computed from the points themselves: those of equal points
    are 0.

    Args:
        x: `(N, ...)`, flattened.
        y: `(M, ...)`, of any numeric dtype: bytes are converted block by block.
        k: how many, 1 to M; a point of x that is also in y counts as its own neighbour.

    Raises:
        DataError: if y has fewer than k points, or points of another size than x.

    >>> nearest_neighbors(torch.tensor([[0.0], [5.0]]), torch.tensor([[1.0], [4.5], [-2.0]])).indices
    tensor([[0],
            [1]])
    """
    x, y = _check(x, y)
    if not 1 <= k <= len(y):
        raise DataError(f"{k} nearest neighbours were asked for among {len(y)} points; give at least as many points.")
    dtype = _dtype(x, y)
    distances = torch.full((len(x), k), math.inf, dtype=dtype, device=x.device)
    indices = torch.zeros(len(x), k, dtype=torch.int64, device=x.device)
    for rows, columns, squares in _blocks(x, y):
        if k == 1:  # Ten times as fast as to sort.
            near, where = squares.min(1, keepdim=True)
        else:
            near, where = squares.topk(min(k, squares.shape[1]), largest=False)
        near, where = torch.cat([distances[rows], near], 1), torch.cat([indices[rows], where + columns.start], 1)
        distances[rows], order = near.topk(k, largest=False)
        indices[rows] = where.gather(1, order)
    for rows in _slices(len(x), ROWS):
        # One neighbour after the other: k copies of an image are many bytes.
        for rank in range(k):
            difference = x[rows].to(dtype) - y[indices[rows, rank]].to(dtype)
            distances[rows, rank] = difference.square().sum(1).sqrt()
    distances, order = distances.sort(1)
    return Neighbors(distances, indices.gather(1, order))


def authentic(x: Tensor, y: Tensor) -> Tensor:
    """Which points of x are further from their nearest point of y than that one is from any other of y.

    (Alaa et al. 2022, section 3.3, "authenticity", in the form without a classifier.)

    Args:
        x: `(N, ...)`, flattened.
        y: `(M, ...)`, at least two points.

    Returns:
        `(N,)`, true or false.

    >>> authentic(torch.tensor([[1.1], [2.0], [9.0]]), torch.tensor([[0.0], [1.0], [9.5], [20.0]]))
    tensor([False, False, False])
    >>> authentic(torch.tensor([[2.5]]), torch.tensor([[0.0], [1.0]]))
    tensor([True])
    """
    near = nearest_neighbors(x, y)
    met, rows = near.indices[:, 0].unique(return_inverse=True)
    apart = nearest_neighbors(y[met], y, 2).distances[:, 1]  # The first of them is the point itself.
    return apart[rows] < near.distances[:, 0]


def closest_pairs(x: Tensor, number: int) -> Pairs:
    """The pairs of points that are the closest to each other, each point with any other.

    Args:
        x: `(N, ...)`, flattened.
        number: of pairs, 1 to N (N - 1) / 2.

    Raises:
        DataError: if there are not so many pairs.

    >>> closest_pairs(torch.tensor([[0.0], [5.0], [5.5], [9.0]]), 2).indices
    tensor([[1, 2],
            [2, 3]])
    """
    x, _ = _check(x, x)
    if not 1 <= number <= len(x) * (len(x) - 1) // 2:
        raise DataError(f"{number} pairs were asked for among {len(x)} points; give more points.")
    dtype = _dtype(x, x)
    nearest, pairs = x.new_empty(0, dtype=dtype), torch.zeros(0, 2, dtype=torch.int64, device=x.device)
    for rows, columns, squares in _pairs(x):
        near, where = squares.flatten().topk(min(number, squares.numel()), largest=False)
        found = torch.stack(
            [rows.start + where.div(squares.shape[1], rounding_mode="floor"), columns.start + where % squares.shape[1]],
            1,
        )
        nearest, order = torch.cat([nearest, near]).topk(min(number, len(nearest) + len(near)), largest=False)
        pairs = torch.cat([pairs, found])[order]
    one, other = (x[pairs[:, side]].to(dtype) for side in (0, 1))
    distances, order = (one - other).square().sum(1).sqrt().sort()
    return Pairs(distances, pairs[order])


def count_pairs(x: Tensor, radius: float) -> int:
    """How many pairs of points are at most `radius` apart, each point with any other.

    What rounding cannot tell from the radius counts as within, so that equal points are found at a radius of 0.

    Args:
        x: `(N, ...)`, flattened.
        radius: a Euclidean distance.

    >>> count_pairs(torch.tensor([[0.0], [5.0], [5.5], [6.0]]), 0.5)
    2
    """
    x, _ = _check(x, x)
    largest = x.to(_dtype(x, x)).sub(_center(x)).square().sum(1).max().item()
    bound = radius**2 + 8 * torch.finfo(_dtype(x, x)).eps * largest
    return sum(int((squares <= bound).sum()) for _, _, squares in _pairs(x))


def manifold_precision(x: Tensor, y: Tensor, k: int = 3) -> Tensor:
    r"""Share of the points of x that lie in the manifold of y: within some point's distance to its k-th neighbour.

    With x generated and y real it is the precision of Kynkäänniemi et al. 2019 (equation 2), the other way round their
    recall.

    Args:
        x: `(N, F)`.
        y: `(M, F)`.
        k: neighbours in y of a point of y, itself left out.

    Returns:
        A scalar from 0 to 1, float64.

    Raises:
        DataError: if y has no more than k points.

    >>> manifold_precision(torch.tensor([[0.4], [7.0]]), torch.tensor([[0.0], [1.0], [3.0]]), k=1)
    tensor(0.5000, dtype=torch.float64)
    """
    x, y = _check(x.double(), y.double())  # A share jumps where a distance crosses a radius.
    inside = x.new_zeros(len(x), dtype=torch.bool)
    for rows, _, within in _memberships(x, y, k, closed=True):
        inside[rows] |= within.any(1)
    return inside.double().mean()


def manifold_density(x: Tensor, y: Tensor, k: int = 5) -> Tensor:
    r"""In how many of y's neighbourhoods a point of x lies on average, over k (Naeem et al. 2020, equation 2).

    $\frac{1}{kN} \sum_j \sum_i 1[x_j \in B(y_i, \mathrm{NND}_k(y_i))]$. An outlier of y, whose neighbourhood is wide,
    counts for no more than any other point. A point at just the radius lies outside, as in the authors' code: only so
    is the density of y among itself 1.

    Args:
        x: generated, `(N, F)`.
        y: real, `(M, F)`.
        k: neighbours in y of a point of y, itself left out.

    Returns:
        A scalar, about 1 for points of one distribution, and unbounded, float64.

    Raises:
        DataError: if y has no more than k points.

    >>> manifold_density(torch.tensor([[0.4], [7.0]]), torch.tensor([[0.0], [1.0], [3.0]]), k=1)
    tensor(1., dtype=torch.float64)
    """
    x, y = _check(x.double(), y.double())
    number = x.new_zeros(len(x), dtype=torch.int64)
    for rows, _, within in _memberships(x, y, k, closed=False):
        number[rows] += within.sum(1)
    return number.double().mean() / k


def manifold_coverage(x: Tensor, y: Tensor, k: int = 5) -> Tensor:
    r"""Share of the points of y with a point of x nearer than their k-th neighbour in y (Naeem et al. 2020, eq. 3).

    Args:
        x: generated, `(N, F)`.
        y: real, `(M, F)`.
        k: neighbours in y of a point of y, itself left out.

    Returns:
        A scalar from 0 to 1, float64; for as many points of one distribution about 1 - 2^-k.

    Raises:
        DataError: if y has no more than k points.

    >>> manifold_coverage(torch.tensor([[0.4], [7.0]]), torch.tensor([[0.0], [1.0], [3.0]]), k=1)
    tensor(0.6667, dtype=torch.float64)
    """
    x, y = _check(x.double(), y.double())
    covered = y.new_zeros(len(y), dtype=torch.bool)
    for _, columns, within in _memberships(x, y, k, closed=False):
        covered[columns] |= within.any(0)
    return covered.double().mean()


def _memberships(x: Tensor, y: Tensor, k: int, closed: bool) -> Iterator[tuple[slice, slice, Tensor]]:
    """Which points of x lie in which neighbourhoods of points of y, in blocks, and where these are.

    Squares that rounding cannot tell from a radius are decided on the differences of the two points, which the radii
    are computed from too: a copy of a k-th neighbour lies at just the radius.

    Args:
        x: `(N, F)`, float64.
        y: `(M, F)`, float64.
        k: neighbours of a point of y, itself left out.
        closed: whether a point at just the radius lies within.
    """
    radii = _radii(y, k)
    error = (y.shape[1] + 8) * torch.finfo(y.dtype).eps  # relative, of a sum of products
    center = _center(y)
    norms, other_norms = ((points - center).square().sum(1) for points in (x, y))
    for rows, columns, squares in _blocks(x, y):
        bounds = radii[columns].square()
        within = squares < bounds
        unclear = (squares - bounds).abs() <= error * (norms[rows, None] + other_norms[columns])
        for pairs in unclear.nonzero().split(max(ROWS * COLUMNS // max(y.shape[1], 1), 1)):
            one, other = pairs[:, 0], pairs[:, 1]
            distances = (x[rows][one] - y[columns][other]).square().sum(1).sqrt()
            edges = radii[columns][other]
            within[one, other] = distances <= edges if closed else distances < edges
        yield rows, columns, within


def _radii(y: Tensor, k: int) -> Tensor:
    """The distance of each point to its k-th neighbour, itself left out, `(M,)`."""
    if len(y) <= k:
        raise DataError(f"Neighbourhoods of {k} points were asked for among {len(y)}; give more points, or a lower k.")
    radii = nearest_neighbors(y, y, k + 1).distances[:, k]
    if number := int((radii == 0).sum()):
        warnings.warn(
            f"{number} of {len(y)} points have {k} others at no distance: precision, recall, density and coverage say "
            "little of points that are equal; look whether the extractor sees anything in the images, and for copies "
            "among them.",
            stacklevel=4,
        )
    return radii


def _blocks(x: Tensor, y: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """The squared distances of all points of x to all of y, `(<= ROWS, <= COLUMNS)` at a time, and where these are."""
    dtype, center = _dtype(x, y), _center(y)
    points = x.to(dtype) - center
    norms = points.square().sum(1, keepdim=True)
    with torch.autocast(x.device.type, enabled=False):
        for columns in _slices(len(y), COLUMNS):
            others = y[columns].to(dtype) - center
            others_norms = others.square().sum(1)
            for rows in _slices(len(x), ROWS):
                squares = torch.addmm(others_norms, points[rows], others.T, alpha=-2)
                yield rows, columns, squares.add_(norms[rows]).clamp_(min=0)


def _pairs(x: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """`_blocks` of x with itself, where all but one of each pair is infinitely far."""
    for rows, columns, squares in _blocks(x, x):
        if columns.stop > rows.start + 1:
            later = torch.arange(columns.start, columns.stop, device=x.device)
            earlier = torch.arange(rows.start, rows.stop, device=x.device)
            yield rows, columns, squares.masked_fill_(later <= earlier[:, None], math.inf)


def _slices(number: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, number)) for start in range(0, number, size)]


def _center(y: Tensor) -> Tensor:
    """Some point amid the others: distances from there are small, and products lose fewer digits."""
    return y[:1000].to(_dtype(y, y)).mean(0)


def _dtype(x: Tensor, y: Tensor) -> torch.dtype:
    return torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32


def _check(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x, y = x.flatten(1), y.flatten(1)
    if x.shape[1] != y.shape[1]:
        raise DataError(f"The points have {x.shape[1]} and {y.shape[1]} numbers; expected as many in both sets.")
    return x, y
