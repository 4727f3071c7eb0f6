"""The grid of Gaussian filters, on windows whose patch is known exactly."""

import math

import pytest
import torch
from torch import Tensor

from lightning_gen.functional import filterbank, read_patch, write_patch

SHARP = -12.0  # log sigma^2: other pixels than the nearest weigh nothing in float64


def scalar(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def filters(centre: float, stride: float, log_var: float, n: int, size: int) -> Tensor:
    return filterbank(scalar(centre), scalar(stride), scalar(log_var), n, size)


def test_filters_by_the_formula() -> None:
    """Equations 19 and 25 with loops, counted from one."""
    n, size, g, delta, log_var = 3, 7, 2.6, 1.7, 0.4
    expected = torch.zeros(n, size, dtype=torch.float64)
    for i in range(1, n + 1):
        mu = g + (i - n / 2 - 0.5) * delta
        for a in range(1, size + 1):
            expected[i - 1, a - 1] = -((a - mu) ** 2) / (2 * math.exp(log_var))
    expected = expected.exp() / expected.exp().sum(1, keepdim=True)
    torch.testing.assert_close(filters(g, delta, log_var, n, size)[0], expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("centre", [-300.0, 3.3, 500.0])
def test_every_filter_sums_to_one_wherever_it_stands(centre: float) -> None:
    bank = filterbank(*(torch.tensor([value]) for value in (centre, 4.0, 0.3)), 6, 28)
    torch.testing.assert_close(bank.sum(-1), torch.ones(1, 6), rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [2, 5])
def test_means_stand_evenly_about_the_centre(n: int) -> None:
    """Of wide images, so that no filter is cut off, the means of the filters are mu."""
    bank = filters(50.0, 3.0, 1.0, n, 100)[0]
    means = bank @ torch.arange(1, 101, dtype=torch.float64)
    torch.testing.assert_close(means.mean(), scalar(50.0)[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(means.diff(), torch.full((n - 1,), 3.0, dtype=torch.float64), rtol=0, atol=1e-9)


def test_grid_over_the_whole_of_mnist() -> None:
    """Five filters over 28 pixels stand on 1, 7.75, 14.5, 21.25 and 28; a grid one stride off would not."""
    bank = filters(14.5, 27 / 4, SHARP, 5, 28)[0]
    means = bank @ torch.arange(1, 29, dtype=torch.float64)
    torch.testing.assert_close(means, torch.tensor([1, 8, 14.5, 21, 28], dtype=torch.float64), rtol=0, atol=1e-9)


def test_sharp_full_window_reads_and_writes_the_image_itself() -> None:
    torch.manual_seed(0)
    images = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    bank = filters(3.5, 1.0, SHARP, 6, 6)
    patch = read_patch(images, bank, bank)
    torch.testing.assert_close(patch, images, rtol=0, atol=1e-12)
    torch.testing.assert_close(write_patch(patch, bank, bank), images, rtol=0, atol=1e-12)


def test_sharp_window_picks_a_slice_with_stride() -> None:
    """On an image that is not square: rows 2, 4, 6 and columns 5, 7, 9, counted from one."""
    images = torch.arange(2 * 8 * 11, dtype=torch.float64).view(1, 2, 8, 11)
    patch = read_patch(images, filters(4.0, 2.0, SHARP, 3, 8), filters(7.0, 2.0, SHARP, 3, 11))
    torch.testing.assert_close(patch, images[:, :, 1:6:2, 4:9:2], rtol=0, atol=1e-9)


def test_writing_is_the_adjoint_of_reading() -> None:
    torch.manual_seed(1)
    images, patch = torch.randn(2, 3, 5, 7, dtype=torch.float64), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    centre, stride, log_var = torch.randn(3, 2, dtype=torch.float64)
    y, x = filterbank(centre + 3, stride, log_var, 4, 5), filterbank(centre + 4, stride, log_var, 4, 7)
    left, right = (read_patch(images, y, x) * patch).sum(), (images * write_patch(patch, y, x)).sum()
    torch.testing.assert_close(left, right)


def test_moving_image_and_window_together_changes_nothing() -> None:
    torch.manual_seed(2)
    images = torch.zeros(1, 1, 40, 40, dtype=torch.float64)
    images[..., 12:20, 10:18] = torch.randn(8, 8, dtype=torch.float64)
    y, x = filters(16.2, 1.3, 0.1, 4, 40), filters(13.9, 1.3, 0.1, 4, 40)
    moved_y, moved_x = filters(21.2, 1.3, 0.1, 4, 40), filters(20.9, 1.3, 0.1, 4, 40)
    patch = read_patch(images.roll((5, 7), (2, 3)), moved_y, moved_x)
    torch.testing.assert_close(patch, read_patch(images, y, x), rtol=0, atol=1e-12)


def test_gradients_equal_finite_differences() -> None:
    arguments = [scalar(value).requires_grad_() for value in (2.3, 1.2, 0.1)]
    assert torch.autograd.gradcheck(lambda *values: filterbank(*values, 3, 5), arguments)
