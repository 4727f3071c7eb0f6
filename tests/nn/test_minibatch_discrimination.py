import pytest
import torch

from lightning_gen.errors import DataError
from lightning_gen.nn import MinibatchDiscrimination, initialize_from_data


def layer() -> MinibatchDiscrimination:
    torch.manual_seed(0)
    return MinibatchDiscrimination(7, num_kernels=4, kernel_dim=3).double()


def test_equals_the_paper_s_formula() -> None:
    minibatch, x = layer(), torch.randn(5, 7, dtype=torch.float64)
    torch.nn.init.normal_(minibatch.log_scale)
    tensor = minibatch.weight / minibatch.weight.square().sum(0).sqrt() * minibatch.log_scale.exp()  # T, (A, B, C)
    expected = torch.zeros(5, 4, dtype=torch.float64)
    for i in range(5):
        for j in range(5):
            if i != j:
                m_i, m_j = (torch.tensordot(x[k], tensor, 1) for k in (i, j))  # (B, C)
                expected[i] += (-(m_i - m_j).abs().sum(1)).exp()
    torch.testing.assert_close(minibatch(x), torch.cat([x, expected - 1], dim=1))


def test_equal_examples_are_near_and_distant_ones_are_not() -> None:
    x = torch.randn(1, 7, dtype=torch.float64)
    torch.testing.assert_close(layer().closeness(x.expand(6, 7)), torch.full((6, 4), 5.0, dtype=torch.float64))
    apart = 1e6 * torch.randn(6, 7, dtype=torch.float64)
    torch.testing.assert_close(layer().closeness(apart), torch.zeros(6, 4, dtype=torch.float64))


def test_permuted_examples_get_permuted_numbers() -> None:
    x, order = torch.randn(6, 7, dtype=torch.float64), torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(layer()(x[order]), layer()(x)[order])


def test_gradient_of_an_example_reaches_the_others() -> None:
    x = torch.randn(6, 7, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer().closeness(x)[0].sum(), x)
    assert (gradient[1:].abs().sum(1) > 0).all()
    # Finite ones where examples coincide, which is what a collapsed generator gives.
    (gradient,) = torch.autograd.grad(
        layer().closeness(x.detach()[:1].expand(6, 7).requires_grad_()).sum(), x, allow_unused=True
    )
    assert gradient is None or gradient.isfinite().all()


def test_data_dependent_initialization() -> None:
    """Half the mean distance to the nearest other example becomes 1 in each kernel; the output has mean 0."""
    minibatch, x = layer(), torch.randn(50, 7, dtype=torch.float64)
    initialize_from_data(minibatch, x)
    nearest = (minibatch.distances(x) + torch.diag(torch.full((50,), torch.inf))).amin(-1).mean(-1)
    torch.testing.assert_close(nearest, torch.full((4,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(minibatch(x)[:, 7:].mean(0), torch.zeros(4, dtype=torch.float64))


def test_one_example_is_refused() -> None:
    with pytest.raises(DataError, match="batch of 1; choose a batch_size"):
        layer()(torch.zeros(1, 7, dtype=torch.float64))
