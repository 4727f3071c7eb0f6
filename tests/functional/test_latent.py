"""Noise vectors against their geometry."""

import math

import pytest
import torch

from lightning_gen.functional import interpolate, to_sphere


def test_the_sphere_has_the_norm_of_gaussian_vectors() -> None:
    z = torch.randn(500, 100, generator=torch.Generator().manual_seed(0))
    on_sphere = to_sphere(z)
    torch.testing.assert_close(on_sphere.norm(dim=1), torch.full((500,), 10.0))
    torch.testing.assert_close(torch.cosine_similarity(z, on_sphere), torch.ones(500))
    assert z.norm(dim=1).mean().item() == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize("spherical", [False, True])
def test_ways_end_where_they_should_in_equal_steps(spherical: bool) -> None:
    start, end = to_sphere(torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    way = interpolate(start, end, 9, spherical)
    torch.testing.assert_close(way[[0, -1]], torch.stack([start, end]))
    steps = way.diff(dim=0).norm(dim=1)
    torch.testing.assert_close(steps, steps[0].expand(8))
    middle = way[4].norm() / math.sqrt(50)
    cosine = (start @ end).item() / 50
    assert middle.item() == pytest.approx(1 if spherical else math.sqrt((1 + cosine) / 2))


def test_a_way_between_equal_or_opposite_vectors_is_finite() -> None:
    z = torch.randn(20, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(interpolate(z, z, 4, spherical=True), z.expand(4, 20))
    assert interpolate(z, -z, 5, spherical=True).isfinite().all()
