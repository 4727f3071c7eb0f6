"""Exact tests of Laplacian pyramids."""

import pytest
import torch

from lightning_gen.errors import DataError
from lightning_gen.functional.pyramid import (
    check_sizes,
    downsample,
    laplacian_pyramid,
    reconstruct_pyramid,
    upsample,
)
from tests.digits import held_out_digits

SIZES = [[8, 14, 28], [7, 14, 28], [4, 8, 16, 32, 64, 96], [3, 5, 11, 23], [28], [1, 2, 9]]


def images_of(side: int) -> torch.Tensor:
    """Real digits of any side, in float64."""
    return torch.nn.functional.interpolate(held_out_digits()[:5].double(), size=side)


@pytest.mark.parametrize("sizes", SIZES)
def test_reconstruction_is_exact(sizes: list[int]) -> None:
    images = images_of(sizes[-1])
    bands, lows = laplacian_pyramid(images, sizes)
    assert [tuple(band.shape[1:]) for band in bands] == [(1, size, size) for size in sizes]
    torch.testing.assert_close(reconstruct_pyramid(bands), images, rtol=0, atol=1e-14)
    assert not lows[0].any()
    for k in range(1, len(sizes)):  # What a band is added to is made of the image one size smaller.
        smaller = bands[k - 1] + lows[k - 1]
        torch.testing.assert_close(lows[k], upsample(smaller, sizes[k]), rtol=0, atol=1e-14)
        torch.testing.assert_close(smaller, downsample(bands[k] + lows[k], sizes[k - 1]), rtol=0, atol=1e-14)


@pytest.mark.parametrize("sizes", SIZES)
def test_constant_images_have_no_bands(sizes: list[int]) -> None:
    bands, _ = laplacian_pyramid(torch.full((1, 3, sizes[-1], sizes[-1]), 0.7, dtype=torch.float64), sizes)
    torch.testing.assert_close(bands[0], torch.full_like(bands[0], 0.7))
    for band in bands[1:]:
        torch.testing.assert_close(band, torch.zeros_like(band), rtol=0, atol=1e-15)


def test_halving_and_doubling_are_those_of_burt_and_adelson() -> None:
    """An impulse is spread by the outer product of 1, 4, 6, 4, 1; in u by four times that, over zeros in between."""
    row = torch.tensor([1.0, 4, 6, 4, 1], dtype=torch.float64) / 16
    kernel = torch.outer(row, row)
    impulse = torch.zeros(8, 8, dtype=torch.float64)
    impulse[4, 4] = 1
    spread = torch.zeros(16, 16, dtype=torch.float64)
    spread[6:11, 6:11] = 4 * kernel
    torch.testing.assert_close(upsample(impulse, 16), spread)
    for offset in (0, 1):  # An impulse on a pixel that is kept, and on one that is not.
        large = torch.zeros(16, 16, dtype=torch.float64)
        large[8 + offset, 8 + offset] = 1
        small = torch.zeros(8, 8, dtype=torch.float64)
        shifted = torch.zeros(16, 16, dtype=torch.float64)
        shifted[6 + offset : 11 + offset, 6 + offset : 11 + offset] = kernel
        small[:] = shifted[::2, ::2]
        torch.testing.assert_close(downsample(large, 8), small)


def test_a_size_that_stays_changes_nothing() -> None:
    images = images_of(14)
    torch.testing.assert_close(downsample(images, 14), images, rtol=0, atol=0)


def test_the_small_image_lies_where_the_large_one_does() -> None:
    """A slope stays one in the inside: no shift between sizes, also where no side is doubled."""
    slope = torch.arange(96, dtype=torch.float64).expand(96, 96)
    small = downsample(slope, 64)
    torch.testing.assert_close(small[:, 2:-2], (torch.arange(64, dtype=torch.float64) * 1.5).expand(64, 64)[:, 2:-2])
    torch.testing.assert_close(upsample(small, 96)[:, 5:-5], slope[:, 5:-5])


def test_bands_keep_their_precision_under_autocast() -> None:
    images = held_out_digits()[:5]
    with torch.autocast("cpu", torch.bfloat16):
        bands = laplacian_pyramid(images, [7, 14, 28]).bands
    torch.testing.assert_close(bands, laplacian_pyramid(images, [7, 14, 28]).bands, rtol=0, atol=0)


def test_matrices_first_made_in_a_test_serve_training() -> None:
    with torch.inference_mode():
        upsample(torch.rand(1, 13, 13), 27)
    images = torch.rand(1, 13, 13, requires_grad=True)
    upsample(images, 27).square().sum().backward()
    assert images.grad is not None


@pytest.mark.parametrize(
    ("sizes", "shape", "message"),
    [
        ([14, 7, 28], (1, 28, 28), r"sizes=\[14, 7, 28\] do not fit images of 28 x 28; .* such as \[7, 14, 28\]"),
        ([8, 14, 28], (3, 32, 32), r"the last is 32, such as \[8, 16, 32\]"),
        ([4, 8, 14, 28], (1, 28, 28), r"the others are at least 9"),
        ([], (1, 29, 29), r"such as \[29\]"),
        ([14, 28], (1, 28, 30), "images are square; got 28 x 30"),
        ([0, 28], (1, 28, 28), "expected rising sides, odd or even"),
    ],
)
def test_sides_that_do_not_work_are_named(sizes: list[int], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_sizes(sizes, shape, 9)
