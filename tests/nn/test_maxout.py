import pytest
import torch

from lightning_gen.nn import Maxout


@pytest.mark.parametrize("batch_shape", [(4,), (2, 3)])
def test_each_unit_is_the_largest_of_its_pieces(batch_shape: tuple[int, ...]) -> None:
    layer = Maxout(in_features=3, units=5, pieces=2, irange=1.0)
    torch.nn.init.normal_(layer.affine.bias)
    x = torch.randn(*batch_shape, 3)
    first = x @ layer.affine.weight[0::2].T + layer.affine.bias[0::2]
    second = x @ layer.affine.weight[1::2].T + layer.affine.bias[1::2]
    out = layer(x)
    assert out.shape == (*batch_shape, 5)
    torch.testing.assert_close(out, torch.maximum(first, second))


def test_a_worked_example() -> None:
    layer = Maxout(in_features=1, units=2, pieces=3, irange=0.0)
    layer.affine.weight.data = torch.tensor([[1.0], [-1.0], [0.0], [2.0], [3.0], [-4.0]])
    layer.affine.bias.data = torch.tensor([0.0, 0.0, 0.5, 0.0, -3.0, 1.0])
    expected = torch.tensor([[2.0, 4.0], [0.5, 1.0], [1.0, 5.0]])  # max(2, -2, .5), max(4, 3, -7); x = 0; x = -1.
    torch.testing.assert_close(layer(torch.tensor([[2.0], [0.0], [-1.0]])), expected)


def test_weights_are_uniform_in_the_range_and_biases_zero() -> None:
    layer = Maxout(in_features=784, units=240, pieces=5, irange=0.005)
    weight = layer.affine.weight.detach()
    assert weight.abs().max() <= 0.005
    assert weight.std().item() == pytest.approx(0.005 / 3**0.5, rel=0.01)
    assert not layer.affine.bias.any()
