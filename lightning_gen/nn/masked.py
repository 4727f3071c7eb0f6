"""Convolutions that see only the pixels, and the colours of the same pixel, before their own.

van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel Recurrent Neural Networks" (ICML 2016), section 3.4,
https://arxiv.org/abs/1601.06759.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gen.errors import DataError


def colour_of(num_maps: int, num_colours: int, num_stacks: int = 1, equal: bool = True) -> Tensor:
    """The colour that each feature map belongs to: equal shares in order, red, green and blue thirds.

    Args:
        num_maps: feature maps in all.
        num_colours: channels of the image.
        num_stacks: of how many stacks side by side the maps are, each shared out by itself: the gates of an LSTM.
        equal: insist on equal shares; else the first colours may have one map more.

    Returns:
        `(num_maps,)`, 0 to `num_colours - 1`.

    Raises:
        DataError: if the maps cannot be shared equally, or a colour would have none.

    >>> colour_of(6, 3).tolist(), colour_of(6, 3, num_stacks=2).tolist()
    ([0, 0, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2])
    >>> colour_of(128, 3, equal=False).bincount().tolist()
    [43, 43, 42]
    """
    share, rest = divmod(num_maps, num_stacks * num_colours)
    if not equal and share and rest % num_stacks == 0:
        each = num_maps // num_stacks
        return (torch.arange(each) * num_colours // each).repeat(num_stacks)
    if rest or not share:
        raise DataError(
            f"{num_maps // num_stacks} feature maps cannot be shared by {num_colours} colours: each colour has maps of "
            f"its own, equally many; give multiples of {num_colours}, such as {max(share, 1) * num_colours} or "
            f"{(share + 1) * num_colours}."
        )
    return torch.arange(num_colours).repeat_interleave(share).repeat(num_stacks)


class MaskedConv2d(nn.Conv2d):
    """A convolution of the pixels above and to the left, of the same size out as in.

    Of the pixel itself, a map of colour j sees the maps of the colours i < j with mask A, and i <= j with mask B. A
    network is causal if its first layer has mask A and all others, 1x1 included, have mask B.

    The mask is applied to the weights in each forward pass, so no optimizer can undo it. Initial weights are uniform
    with the variance 1 / (3 fan-in), where only the inputs that are seen are counted.

    Args:
        in_channels: maps in.
        out_channels: maps out.
        kernel_size: of the whole kernel, `(height, width)` or both in one; odd.
        mask: A or B.
        num_colours: which share the maps, see `colour_of`.
        num_stacks: of how many stacks the maps out are.
        equal: insist on equal shares of the colours.

    Raises:
        DataError: if the maps cannot be shared equally, or a colour would have none.

    Shape:
        `(N, in_channels, H, W)` -> `(N, out_channels, H, W)`.
    """

    mask: Tensor
    bias: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        mask: Literal["A", "B"],
        num_colours: int = 1,
        num_stacks: int = 1,
        equal: bool = True,
    ) -> None:
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        super().__init__(in_channels, out_channels, (height, width), padding=(height // 2, width // 2))
        seen_by = colour_of(out_channels, num_colours, num_stacks, equal)[:, None]
        seen = colour_of(in_channels, num_colours, 1, equal)
        tap = torch.arange(height * width).view(height, width) - height * width // 2  # 0 at the centre
        ones = torch.zeros_like(self.weight)
        ones[:, :, tap < 0] = 1
        ones[:, :, height // 2, width // 2] = (seen < seen_by if mask == "A" else seen <= seen_by).float()
        self.register_buffer("mask", ones, persistent=False)
        bound = ones.flatten(1).sum(1).clamp(min=1).rsqrt()  # (out_channels,): a red map of a mask A may see nothing
        with torch.no_grad():
            self.weight.uniform_(-1, 1).mul_(bound.view(-1, 1, 1, 1))
        nn.init.zeros_(self.bias)

    @property
    def masked_weight(self) -> Tensor:
        """The weights with zeros where nothing may be seen."""
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.masked_weight, self.bias, padding=self.padding)
