import pytest
import torch
from torch import nn

from lightning_gen.nn import WeightNorm, initialize_from_data
from tests.digits import held_out_digits


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(6, 4, bias=False), torch.randn(3, 6)),
        (nn.Conv2d(3, 4, 3, bias=False), torch.randn(2, 3, 5, 5)),
        (nn.ConvTranspose2d(3, 4, 5, 2, bias=False), torch.randn(2, 3, 5, 5)),
    ],
    ids=["linear", "conv", "transposed"],
)
def test_is_the_layer_with_weights_of_the_given_norm(layer: nn.Module, x: torch.Tensor) -> None:
    torch.manual_seed(0)
    normed = WeightNorm(layer, train_scale=True)
    nn.init.uniform_(normed.scale, 0.5, 2)
    nn.init.normal_(normed.bias)
    channels = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    v = layer.weight.transpose(0, channels)
    norms = v.flatten(1).norm(dim=1).view(-1, *[1] * (v.ndim - 1))
    weight = (normed.scale.view_as(norms) * v / norms).transpose(0, channels)
    plain = torch.func.functional_call(layer, {"weight": weight}, x) + normed.bias.view(-1, *[1] * (x.ndim - 2))
    torch.testing.assert_close(normed(x), plain)


def test_data_dependent_initialization_gives_every_layer_mean_0_and_the_standard_deviation() -> None:
    """On the batch that it saw, and through the layers before: the published property."""
    torch.manual_seed(0)
    network = nn.Sequential(
        WeightNorm(nn.Conv2d(1, 8, 3, 2, bias=False)),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        WeightNorm(nn.Linear(8 * 13 * 13, 20, bias=False)),
        nn.ReLU(),
        WeightNorm(nn.Linear(20, 10, bias=False), init_std=0.1),
    )
    images = held_out_digits()
    initialize_from_data(network, images)
    for index, std in ((0, 1.0), (3, 1.0), (5, 0.1)):
        y = network[: index + 1](images).detach().transpose(0, 1).flatten(1)
        torch.testing.assert_close(y.mean(1), torch.zeros(len(y)), rtol=0, atol=1e-4)
        torch.testing.assert_close(y.std(1, correction=0), torch.full((len(y),), std), rtol=1e-3, atol=0)
    assert not any(module._forward_pre_hooks for module in network)


def test_a_fixed_layer_and_a_fixed_scale_stay() -> None:
    fixed = WeightNorm(nn.Linear(4, 3, bias=False), init_std=None)
    initialize_from_data(nn.Sequential(fixed), torch.randn(50, 4) + 3)
    torch.testing.assert_close(fixed.scale.detach(), torch.ones(3))
    torch.testing.assert_close(fixed.bias.detach(), torch.zeros(3))
    assert not fixed.scale.requires_grad
