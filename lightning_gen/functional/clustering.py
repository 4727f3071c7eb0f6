"""How points of one class lie together: centroids, the purity of clusters, and neighbours of the same class."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_gen.errors import DataError
from lightning_gen.functional.neighbors import nearest_neighbors
from lightning_gen.functional.precision import widen
from lightning_gen.functional.shapes import check_same_shape


class Clusters(NamedTuple):
    """What `k_means` finds."""

    centroids: Tensor  # (K, D)
    assignment: Tensor  # (N,), the centroid nearest to each point
    objectives: list[float]  # mean squared distance to the nearest centroid, of the first centroids, then each step's


def k_means(
    points: Tensor, num_centroids: int, num_iterations: int = 20, generator: torch.Generator | None = None
) -> Clusters:
    """Lloyd's algorithm, from points drawn at random, until nothing changes or after a number of iterations.

    Memory for distances does not grow with the number of points. A centroid that no point is nearest to stays.

    Args:
        points: `(N, ...)`, flattened.
        num_centroids: K, at most N.
        num_iterations: at most.
        generator: of the draw; on the CPU.

    Returns:
        The centroids, with the assignment and the objective that go with them.

    Raises:
        DataError: if there are fewer points than centroids.

    >>> k_means(torch.tensor([[0.0], [1.0], [9.0], [11.0]]), 4).objectives[-1]
    0.0
    """
    points = widen(points.flatten(1))
    if not 1 <= num_centroids <= len(points):
        raise DataError(f"{num_centroids} centroids were asked for, of {len(points)} points; expected 1 to as many.")
    rows = torch.randperm(len(points), generator=generator)[:num_centroids].to(points.device)
    centroids = points[rows]
    distances, assignment = (values.squeeze(1) for values in nearest_neighbors(points, centroids))
    objectives = [distances.square().mean(dtype=torch.float64).item()]
    for _ in range(num_iterations):
        counts = assignment.bincount(minlength=num_centroids).to(points.dtype)
        sums = torch.zeros_like(centroids).index_add_(0, assignment, points)
        seen = counts[:, None] > 0
        centroids = torch.where(seen, sums / counts.clamp(min=1)[:, None], centroids)
        previous = assignment
        distances, assignment = (values.squeeze(1) for values in nearest_neighbors(points, centroids))
        objectives.append(distances.square().mean(dtype=torch.float64).item())
        if torch.equal(assignment, previous):
            break
    return Clusters(centroids, assignment, objectives)


def purity(assignment: Tensor, labels: Tensor) -> float:
    """Share of points whose class is the most frequent one of their cluster.

    Args:
        assignment: cluster of each point, `(N,)`.
        labels: class of each point, `(N,)`.

    >>> purity(torch.tensor([0, 0, 0, 1]), torch.tensor([5, 5, 3, 3]))
    0.75
    """
    check_same_shape(assignment=assignment, labels=labels)
    counts = torch.zeros(int(assignment.max()) + 1, int(labels.max()) + 1, dtype=torch.int64, device=labels.device)
    counts.index_put_((assignment, labels), torch.ones_like(labels, dtype=torch.int64), accumulate=True)
    return counts.amax(1).sum().item() / len(labels)


def retrieval_precision(
    queries: Tensor, query_labels: Tensor, points: Tensor, point_labels: Tensor, num_neighbours: int = 10
) -> Tensor:
    """Share of each query's nearest points, by Euclidean distance, that are of its class.

    Args:
        queries: `(N, D)`.
        query_labels: `(N,)`.
        points: what is searched, without the queries, `(M, D)`.
        point_labels: `(M,)`.
        num_neighbours: how many points are retrieved, at most M.

    Returns:
        `(N,)` in [0, 1].

    Raises:
        DataError: if there are fewer points.

    >>> points, labels = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([3, 7, 3])
    >>> retrieval_precision(torch.tensor([[0.4]]), torch.tensor([3]), points, labels, num_neighbours=2)
    tensor([0.5000])
    """
    check_same_shape(queries=queries[:, 0], query_labels=query_labels)
    check_same_shape(points=points[:, 0], point_labels=point_labels)
    rows = nearest_neighbors(queries, points, num_neighbours).indices
    return (point_labels[rows] == query_labels[:, None]).float().mean(1)
