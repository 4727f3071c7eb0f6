"""Nearest neighbours, near pairs and manifolds, against other implementations; all in blocks smaller than the sets."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch_fidelity.metric_prc import prc_features_to_metric

from lightning_gen.errors import DataError
from lightning_gen.functional import (
    closest_pairs,
    count_pairs,
    manifold_coverage,
    manifold_density,
    manifold_precision,
    nearest_neighbors,
    neighbors,
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "ROWS", 7)
    monkeypatch.setattr(neighbors, "COLUMNS", 16)


def points(number: int, seed: int, size: int = 6) -> Tensor:
    return torch.randn(number, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Neighbours ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 4, 20])  # More than a block has columns.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neighbors_equal_scikit_learn(k: int, dtype: torch.dtype) -> None:
    x, y = points(30, 0).to(dtype), points(50, 1).to(dtype)
    distances, indices = NearestNeighbors(n_neighbors=k).fit(y).kneighbors(x)
    ours = nearest_neighbors(x, y, k)
    assert torch.equal(ours.indices, torch.from_numpy(indices))
    assert ours.distances.dtype == dtype
    np.testing.assert_allclose(ours.distances, distances, rtol=1e-6 if dtype == torch.float32 else 1e-14)


def test_neighbors_among_bytes() -> None:
    x, y = (torch.randint(0, 256, (n, 1, 3, 3), dtype=torch.uint8) for n in (20, 40))
    expected = cdist(x.flatten(1), y.flatten(1))
    np.testing.assert_allclose(nearest_neighbors(x, y).distances[:, 0], expected.min(1), rtol=1e-6)


def test_equal_points_are_at_no_distance_however_far_from_the_origin() -> None:
    y = 1000 + points(50, 0).float()
    found = nearest_neighbors(y[20:30], y, 2)
    assert torch.equal(found.indices[:, 0], torch.arange(20, 30))
    assert (found.distances[:, 0] == 0).all()
    assert (found.distances[:, 1] > 0).all()


@pytest.mark.parametrize("k", [0, 51])
def test_more_neighbors_than_points(k: int) -> None:
    with pytest.raises(DataError, match=f"{k} nearest neighbours were asked for among 50 points; give at least"):
        nearest_neighbors(points(3, 0), points(50, 1), k)


def test_points_of_different_sizes() -> None:
    with pytest.raises(DataError, match="have 6 and 5 numbers"):
        nearest_neighbors(points(3, 0), points(3, 1, size=5))


# Pairs --------------------------------------------------------------------------------------------------------------


def test_pairs_equal_scipy() -> None:
    x = points(40, 0)
    distances = np.sort(pdist(x))
    found = closest_pairs(x, 15)
    np.testing.assert_allclose(found.distances, distances[:15], rtol=1e-12)
    assert (found.indices[:, 0] < found.indices[:, 1]).all()
    np.testing.assert_allclose((x[found.indices[:, 0]] - x[found.indices[:, 1]]).norm(dim=1), found.distances)
    for number in (0, 3, 400, 780):
        radius = (distances[number - 1] if number else 0) + 1e-9
        assert count_pairs(x, radius) == number
    assert len(closest_pairs(x, 780).indices.unique(dim=0)) == 780


def test_planted_duplicates_are_found() -> None:
    x = points(40, 0).float() + 100
    x[33] = x[5]
    x[38] = x[5]
    assert {tuple(pair) for pair in closest_pairs(x, 3).indices.tolist()} == {(5, 33), (5, 38), (33, 38)}
    assert count_pairs(x, 0.0) == 3


def test_more_pairs_than_there_are() -> None:
    with pytest.raises(DataError, match="7 pairs were asked for among 4 points"):
        closest_pairs(points(4, 0), 7)


# Manifolds ----------------------------------------------------------------------------------------------------------


def test_precision_and_recall_equal_torch_fidelity() -> None:
    x, y = 0.7 * points(60, 0) + 0.3, points(50, 1)
    theirs = prc_features_to_metric(x, y, prc_neighborhood=3, prc_batch_size=20, save_cpu_ram=True, verbose=False)
    assert 0.2 < theirs["recall"] < theirs["precision"] < 1
    assert manifold_precision(x, y).item() == pytest.approx(theirs["precision"], rel=1e-6)
    assert manifold_precision(y, x).item() == pytest.approx(theirs["recall"], rel=1e-6)


@pytest.mark.parametrize("origin", [0, 1000])
def test_points_at_just_the_radius(origin: int) -> None:
    """On a lattice, where distances are known exactly and many are equal: `<=` for precision, `<` for the others."""
    x, y = (points(n, seed, 3).mul(2).round().long() for seed, n in enumerate((60, 50)))
    squares, within = (x[:, None] - y).square().sum(2), (y[:, None] - y).square().sum(2)
    radii = within.sort(1).values[:, 4]
    assert (squares == radii).sum() > 50
    x, y = (t.double() + origin for t in (x, y))  # Exact; products of them less their mean are not.
    assert manifold_precision(x, y, 4) == (squares <= radii).any(1).double().mean()
    assert manifold_density(x, y, 4).item() == pytest.approx((squares < radii).sum().item() / (4 * 60), rel=1e-12)
    assert manifold_coverage(x, y, 4) == (squares < radii).any(0).double().mean()


@pytest.mark.parametrize("k", [3, 5])
def test_points_among_themselves(k: int) -> None:
    """As Naeem's code has it: each lies in k neighbourhoods, its own among them, and on the edge of others."""
    y = points(200, 0, 16).float()
    assert manifold_density(y, y, k).item() == pytest.approx(1, rel=1e-12)
    assert manifold_precision(y, y, k) == manifold_coverage(y, y, k) == 1


@pytest.mark.parametrize("y", [points(20, 0, 16).repeat(6, 1), torch.ones(120, 16)], ids=["copies", "all equal"])
def test_neighborhoods_without_a_radius_warn(y: Tensor) -> None:
    for score, k, value in ((manifold_precision, 3, 1), (manifold_density, 5, 0), (manifold_coverage, 5, 0)):
        with pytest.warns(UserWarning, match=f"120 of 120 points have {k} others at no distance") as caught:
            assert score(y, y, k) == value
        assert len(caught) == 1
        assert "\n" not in str(caught[0].message)


def test_the_same_distribution() -> None:
    """Density is 1 and coverage 1 - 2^-k on average (Naeem et al. 2020, lemmas 1 and 2)."""
    sets = [(points(100, 2 * seed, size=2), points(100, 2 * seed + 1, size=2)) for seed in range(20)]
    assert np.mean([manifold_density(x, y).item() for x, y in sets]) == pytest.approx(1, abs=0.05)
    assert np.mean([manifold_coverage(x, y, k=2).item() for x, y in sets]) == pytest.approx(0.75, abs=0.02)


def test_an_outlier_vouches_for_samples_by_precision_and_hardly_by_density() -> None:
    x, y = points(50, 0) + 30, points(50, 1)
    y[0] += 40
    assert manifold_precision(x, y) == 1
    assert manifold_density(x, y) < 0.25
    assert manifold_coverage(x, y) == 1 / 50


def test_neighborhoods_want_more_points_than_neighbors() -> None:
    with pytest.raises(DataError, match="Neighbourhoods of 3 points were asked for among 3; give more points"):
        manifold_precision(points(9, 0), points(3, 1))
