"""The convolutional networks of the first adversarial nets, layer by layer."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gen.errors import DataError
from lightning_gen.nn.convolutional_maxout import ConvolutionalDiscriminator, ConvolutionalGenerator
from lightning_gen.nn.maxout import MaxoutConv2d
from tests.digits import held_out_digits


def test_maxout_convolution_is_the_largest_of_its_pieces() -> None:
    layer, images = MaxoutConv2d(1, 3, 2, kernel_size=5, padding=1, irange=0.5), held_out_digits()[:4]
    pieces = F.conv2d(images, layer.affine.weight, layer.affine.bias, padding=1)  # Channels 2 i and 2 i + 1 are of i.
    torch.testing.assert_close(layer(images), torch.maximum(pieces[:, 0::2], pieces[:, 1::2]))
    assert layer(images).shape == (4, 3, 26, 26)


def test_published_generator() -> None:
    """8,000 and 8,000 units, 80 maps of 10 x 10, a 5 x 5 transposed convolution, a bias for each of 3,072 pixels."""
    with torch.device("meta"):  # 65 million weights.
        parameters = dict(ConvolutionalGenerator(100, 8000, (3, 32, 32)).named_parameters())
    assert {name: p.numel() for name, p in parameters.items()} == {
        "hidden1.weight": 100 * 8000,
        "hidden1.bias": 8000,
        "hidden2.weight": 8000 * 8000,
        "hidden2.bias": 8000,
        "output.weight": 80 * 3 * 25,
        "output.bias": 3072,
    }


def test_generator_by_hand() -> None:
    """A pixel (3 i + a, 3 j + b) has the maps' pixel (i, j) times tap (a, b), and what neighbours reach it."""
    torch.manual_seed(0)
    generator = ConvolutionalGenerator(4, 200, (3, 32, 32))
    torch.nn.init.normal_(generator.output.bias)
    z = torch.randn(2, 4)
    hidden = (z @ generator.hidden1.weight.T).clamp(min=0) @ generator.hidden2.weight.T
    maps = hidden.sigmoid().view(2, 2, 10, 10)
    pixels = generator.output.bias.detach().view(1, 3, 32, 32).repeat(2, 1, 1, 1)
    for i in range(10):
        for j in range(10):
            pixels[:, :, 3 * i : 3 * i + 5, 3 * j : 3 * j + 5] += torch.einsum(
                "nm,mcab->ncab", maps[:, :, i, j], generator.output.weight.detach()
            )
    torch.testing.assert_close(generator(z), pixels.sigmoid())


def test_discriminators_maps_have_the_published_sides() -> None:
    discriminator = ConvolutionalDiscriminator(3, (64, 64, 192), 500, 5, 0.2, 0.5, condition_size=36)
    sides: list[tuple[int, ...]] = []
    for layer in discriminator.convolutions:
        if isinstance(layer, torch.nn.MaxPool2d):
            layer.register_forward_hook(lambda _, __, maps: sides.append(tuple(maps.shape[1:])))
    assert discriminator(torch.rand(2, 3, 32, 32), torch.rand(2, 36)).shape == (2, 1)
    assert sides == [(64, 16, 16), (64, 7, 7), (192, 5, 5)]


def test_the_condition_is_seen_together_with_the_image_and_is_not_dropped() -> None:
    """What a condition adds to the logit is another number for another image: else D could not compare the two."""
    torch.manual_seed(0)
    discriminator = ConvolutionalDiscriminator(1, (2, 2, 2), 6, 2, 0.0, 0.5, condition_size=3)
    seen: list[Tensor] = []
    discriminator.maxout.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images, y = held_out_digits()[:50], torch.rand(50, 3)
    images = F.pad(images, (2, 2, 2, 2))
    discriminator(images, y)
    assert seen[0].shape == (50, 53)
    assert torch.equal(seen[0][:, 50:], y)
    assert (seen[0][:, :50] == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)
    discriminator.eval()
    for parameter in discriminator.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    added = discriminator(images, y[:1].expand(50, -1)) - discriminator(images, y[1:2].expand(50, -1))
    assert added.std() > 1e-3


def test_other_sizes_are_refused() -> None:
    with pytest.raises(DataError, match=r"image_shape=\(1, 28, 28\); they are for 32 x 32"):
        ConvolutionalGenerator(4, 100, (1, 28, 28))
    with pytest.raises(DataError, match="hidden_size is 1250; expected a multiple of 100"):
        ConvolutionalGenerator(4, 1250, (3, 32, 32))
