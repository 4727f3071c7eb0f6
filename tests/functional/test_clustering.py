"""k-means, purity and retrieval on points that can be counted by hand, and against scikit-learn."""

import itertools

import pytest
import torch

from lightning_gen.errors import DataError
from lightning_gen.functional import k_means, purity, retrieval_precision


@pytest.fixture
def points() -> torch.Tensor:
    return torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_objective_falls_and_ends_where_nothing_changes(points) -> None:
    found = k_means(points, 7, 200, torch.Generator().manual_seed(1))
    assert len(found.objectives) < 200
    assert all(after <= before for before, after in itertools.pairwise(found.objectives))
    assert found.objectives[-1] < 0.8 * found.objectives[0]
    means = torch.stack([points[found.assignment == cluster].mean(0) for cluster in range(7)])
    torch.testing.assert_close(found.centroids, means)
    distances = torch.cdist(points, found.centroids)
    assert torch.equal(found.assignment, distances.argmin(1))
    assert found.objectives[-1] == pytest.approx(distances.amin(1).square().mean().item())


def test_k_means_agrees_with_scikit_learn(points) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    found = k_means(points, 5, 300, torch.Generator().manual_seed(2))
    start = points[torch.randperm(500, generator=torch.Generator().manual_seed(2))[:5]]
    other = cluster.KMeans(5, init=start.numpy(), n_init=1, max_iter=300, tol=0, algorithm="lloyd").fit(points.numpy())
    torch.testing.assert_close(found.centroids, torch.from_numpy(other.cluster_centers_))


def test_a_centroid_without_points_stays() -> None:
    same = torch.zeros(4, 2)
    found = k_means(same, 3)
    assert found.centroids.isfinite().all()
    assert found.objectives == [0.0, 0.0]


@pytest.mark.parametrize("number", [0, 5])
def test_more_centroids_than_points(number) -> None:
    with pytest.raises(DataError, match=f"{number} centroids were asked for, of 4 points"):
        k_means(torch.rand(4, 2), number)


def test_purity_by_hand() -> None:
    """Cluster 0 holds 5 5 3, cluster 2 holds 3 3 5 1, cluster 1 is empty: 2 + 2 of 7 are of the most frequent class."""
    assignment, labels = torch.tensor([0, 0, 0, 2, 2, 2, 2]), torch.tensor([5, 5, 3, 3, 3, 5, 1])
    assert purity(assignment, labels) == pytest.approx(4 / 7)
    assert purity(labels, labels) == 1


def test_precision_at_10_by_hand() -> None:
    """On a line 0, 1, ..., 19 whose first ten points are of class 0: the ten nearest to 6.6 are 2, ..., 11."""
    line, labels = torch.arange(20.0)[:, None], torch.arange(20) // 10
    queries, classes = torch.tensor([[6.6], [6.6], [19.0]]), torch.tensor([0, 1, 1])
    found = retrieval_precision(queries, classes, line, labels)
    torch.testing.assert_close(found, torch.tensor([0.8, 0.2, 1.0]))
    with pytest.raises(DataError, match="21 nearest neighbours were asked for among 20 points"):
        retrieval_precision(queries, classes, line, labels, 21)


def test_precision_agrees_with_scikit_learn(points) -> None:
    neighbours = pytest.importorskip("sklearn.neighbors")
    labels = torch.randint(3, (500,), generator=torch.Generator().manual_seed(4))
    _, rows = neighbours.NearestNeighbors(n_neighbors=10).fit(points[100:].numpy()).kneighbors(points[:100].numpy())
    expected = (labels[100:][torch.from_numpy(rows)] == labels[:100, None]).float().mean(1)
    ours = retrieval_precision(points[:100], labels[:100], points[100:], labels[100:])
    torch.testing.assert_close(ours, expected)
