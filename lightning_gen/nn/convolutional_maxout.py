"""The convolutional networks of the first adversarial nets, for 32 x 32 images.

Goodfellow et al., "Generative Adversarial Nets" (2014), https://arxiv.org/abs/1406.2661, and, with a condition,
Gauthier, "Conditional generative adversarial nets for convolutional face generation" (2014).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gen.errors import DataError
from lightning_gen.nn.maxout import Maxout, MaxoutConv2d

SIDE = 32
MAPS = 10
"""Sides of the images, and of the maps that they are made of: (10 - 1) * 3 + 5 = 32."""


class Deconvolution(nn.Module):
    """A transposed convolution from 10 x 10 to 32 x 32 with a bias for each pixel; weights within 0.05."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, 5, 5).uniform_(-0.05, 0.05))
        self.bias = nn.Parameter(torch.zeros(out_channels * SIDE**2))

    def forward(self, maps: Tensor) -> Tensor:
        return F.conv_transpose2d(maps, self.weight, stride=3) + self.bias.view(-1, SIDE, SIDE)


class ConvolutionalGenerator(nn.Module):
    """A rectified layer, a sigmoid one that is cut into 10 x 10 maps, and a transposed convolution.

    Args:
        num_inputs: length of the noise, or of noise and condition.
        hidden_size: units of both layers, a hundred for each map.
        image_shape: `(C, 32, 32)`.
        input_irange: the first layer's weights start within this of 0, the second's within 0.05.

    Raises:
        DataError: if the images have another side, or the units make no whole number of maps.
    """

    def __init__(
        self, num_inputs: int, hidden_size: int, image_shape: tuple[int, ...], input_irange: float = 0.05
    ) -> None:
        super().__init__()
        if tuple(image_shape[1:]) != (SIDE, SIDE):
            raise DataError(
                f"The convolutional networks of 2014 got image_shape={tuple(image_shape)}; they are for {SIDE} x {SIDE}"
                " pixels: let the data be scaled to these."
            )
        if hidden_size % MAPS**2:
            raise DataError(f"hidden_size is {hidden_size}; expected a multiple of {MAPS**2}, the size of a map.")
        self.hidden1 = nn.Linear(num_inputs, hidden_size)
        self.hidden2 = nn.Linear(hidden_size, hidden_size)
        self.output = Deconvolution(hidden_size // MAPS**2, image_shape[0])
        for layer, irange in ((self.hidden1, input_irange), (self.hidden2, 0.05)):
            nn.init.uniform_(layer.weight, -irange, irange)
            nn.init.zeros_(layer.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """`(N, num_inputs) -> (N, C, 32, 32)` in (0, 1)."""
        hidden = self.hidden2(self.hidden1(inputs).relu()).sigmoid()  # (N, hidden_size)
        return self.output(hidden.unflatten(1, (-1, MAPS, MAPS))).sigmoid()


class ConvolutionalDiscriminator(nn.Module):
    """Three maxout convolutions with pooling, a maxout layer that may also see a condition, and a logit.

    The maps are of 16 x 16, 7 x 7 and 5 x 5; dropout stands before each layer, though not on the condition. Weights
    start within 0.005 of 0.

    Args:
        in_channels: of the images.
        channels: of the convolutions, of two pieces each.
        units: of the maxout layer.
        pieces: of the maxout layer.
        input_dropout: share of the pixels that is dropped.
        hidden_dropout: share of each layer's output that is dropped.
        condition_size: length of the condition; 0 for none.
    """

    def __init__(
        self,
        in_channels: int,
        channels: tuple[int, int, int],
        units: int,
        pieces: int,
        input_dropout: float,
        hidden_dropout: float,
        condition_size: int = 0,
    ) -> None:
        super().__init__()
        first, second, third = channels
        self.convolutions = nn.Sequential(
            nn.Dropout(input_dropout),
            MaxoutConv2d(in_channels, first, 2, kernel_size=8, padding=4, irange=0.005),
            nn.MaxPool2d(4, stride=2, ceil_mode=True),  # 16 x 16
            nn.Dropout(hidden_dropout),
            MaxoutConv2d(first, second, 2, kernel_size=8, padding=3, irange=0.005),
            nn.MaxPool2d(4, stride=2, ceil_mode=True),  # 7 x 7
            nn.Dropout(hidden_dropout),
            MaxoutConv2d(second, third, 2, kernel_size=5, padding=3, irange=0.005),
            nn.MaxPool2d(2, stride=2, ceil_mode=True),  # 5 x 5
            nn.Flatten(),
            nn.Dropout(hidden_dropout),
        )
        self.maxout = Maxout(25 * third + condition_size, units, pieces, irange=0.005)
        self.dropout = nn.Dropout(hidden_dropout)
        self.logit = nn.Linear(units, 1)
        nn.init.uniform_(self.logit.weight, -0.005, 0.005)
        nn.init.zeros_(self.logit.bias)

    def forward(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        """Logits of images, `(N, C, 32, 32)` and `(N, condition_size)` to `(N, 1)`."""
        hidden = self.convolutions(images)  # (N, 25 * third)
        if condition is not None:
            hidden = torch.cat([hidden, condition], 1)
        return self.logit(self.dropout(self.maxout(hidden)))
