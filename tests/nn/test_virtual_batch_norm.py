import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gen.nn import VirtualBatchNorm

SHAPES = [(3,), (3, 4, 5)]


def norm(num_reference: int) -> VirtualBatchNorm:
    torch.manual_seed(0)
    layer = VirtualBatchNorm(3, num_reference).double()
    nn.init.normal_(layer.bias)
    return layer


def rows(number: int, shape: tuple[int, ...]) -> Tensor:
    return 3 * torch.randn(number, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 2


@pytest.mark.parametrize("shape", SHAPES)
def test_reference_batch_is_normalised_as_plain_batch_normalisation_does(shape: tuple[int, ...]) -> None:
    layer, x = norm(6), rows(10, shape)
    plain = F.batch_norm(x[:6], None, None, layer.weight, layer.bias, training=True)
    torch.testing.assert_close(layer(x)[:6], plain)


@pytest.mark.parametrize("shape", SHAPES)
def test_live_example_is_normalised_as_coded_by_the_authors(shape: tuple[int, ...]) -> None:
    layer, x = norm(6), rows(10, shape)
    reference, live = x[:6].transpose(0, 1).flatten(1), x[8].view(3, -1)  # (C, positions)
    mean = live.mean(1) / 7 + 6 * reference.mean(1) / 7
    square = live.square().mean(1) / 7 + 6 * reference.square().mean(1) / 7
    channels = (3,) + (1,) * (len(shape) - 1)
    mean, std = mean.view(channels), (square - mean.square() + 1e-5).sqrt().view(channels)
    expected = layer.weight.view(channels) * (x[8] - mean) / std + layer.bias.view(channels)
    torch.testing.assert_close(layer(x)[8], expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_live_example_does_not_depend_on_the_others(shape: tuple[int, ...]) -> None:
    layer, x = norm(6), rows(10, shape)
    alone = layer(torch.cat([x[:6], x[8:9]]))[6]
    torch.testing.assert_close(layer(x)[8], alone, rtol=1e-12, atol=1e-12)
    other = rows(12, shape)[6:]
    assert not torch.allclose(layer(torch.cat([other, x[8:9]]))[6], alone)  # But it does on the reference batch.


def test_large_reference_batch_is_fixed_statistics() -> None:
    layer, x = norm(20_000), rows(20_003, (3,))
    mean, var = x[:20_000].mean(0), x[:20_000].var(0, correction=0)
    fixed = F.batch_norm(x[20_000:], mean, var, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x)[20_000:], fixed, rtol=1e-3, atol=1e-3)


def test_gradient_flows_through_the_reference_batch() -> None:
    x = rows(10, (3,)).requires_grad_()
    (gradient,) = torch.autograd.grad(norm(6)(x)[9].square().sum(), x)
    assert (gradient[:6].abs().sum(1) > 0).all()
    assert (gradient[6:9] == 0).all()
