"""Sampling of a VPN's decoder with each pixel's work done once.

A new pixel changes no feature of those before it. So every 3 x 3 convolution keeps its input in the row above and in
the row that is being drawn. What reaches a pixel from the row above is computed for a whole row and all layers at once,
what reaches it from its left neighbour for all layers at once; the rest are products of vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from lightning_gen.models.vpn import Decoder, Layer


def at_one_pixel(conv: Any) -> Layer:
    """A 1 x 1 convolution as a function of vectors, `(N, in) -> (N, out)`."""
    weight, bias = conv.masked_weight[:, :, 0, 0].T.contiguous(), conv.bias
    return lambda x: torch.addmm(bias, x, weight)


class CachedDecoder:
    """A masked decoder that draws one frame, pixel after pixel.

    Args:
        decoder: the network.
        context: of the frame, `(N, 2c, H, W)`.
        vectors: state and action in the frame, `(N, D)`.
    """

    def __init__(self, decoder: Decoder, context: Tensor, vectors: Tensor | None) -> None:
        stem: Any = decoder.stem
        blocks: list[Any] = list(decoder.blocks.blocks)
        convs: list[Any] = [conv for block in blocks for conv in block.convs]
        self.colours = decoder.colours
        self.context = decoder.context(context).permute(2, 3, 0, 1)  # (H, W, N, 2c)
        self.added = [0.0 if vectors is None else layer(vectors) for layer in decoder.blocks.vectors]
        self.stem_weight, self.stem_bias = stem.masked_weight[:, :, :2].flatten(1).T.contiguous(), stem.bias
        weights = torch.stack([conv.masked_weight for conv in convs])  # (L, out, in, 3, 3)
        self.above = weights[:, :, :, 0].permute(3, 0, 2, 1).contiguous()  # (3, L, in, out)
        self.left = weights[:, :, :, 1, 0].mT.contiguous()
        self.centre = weights[:, :, :, 1, 1].mT.contiguous()
        self.bias = torch.stack([conv.bias for conv in convs])[:, None, None]
        _, self.width, number, _ = self.context.shape
        # (layer, column, image, map) with a column of zeros at each end: the inputs of the convolutions in one row
        self.seen = weights.new_zeros(len(convs), self.width + 2, number, weights.shape[2])
        self.column = 0
        self.before: Tensor  # (L, N, out): what reaches this pixel from the others, for each convolution
        layers = iter([self.convolution(index) for index in range(len(convs))])
        self.blocks = [
            (block.compute, at_one_pixel(block.reduce), [next(layers) for _ in block.convs], at_one_pixel(block.expand))
            for block in blocks
        ]
        self.top, self.logits = at_one_pixel(decoder.top), at_one_pixel(decoder.logits)

    def convolution(self, index: int) -> Layer:
        """A 3 x 3 convolution at the pixel that is being drawn, whose input there it keeps for the pixels after."""
        seen, centre = self.seen[index], self.centre[index]

        def layer(x: Tensor) -> Tensor:
            seen[self.column + 1] = x
            return torch.addmm(self.before[index], x, centre)

        return layer

    def pixel(self, window: Tensor, context: Tensor) -> Tensor:
        """The logits of this pixel, `(N, C K)`, given the pixels around it `(N, C 2 3)` and its context `(N, 2c)`."""
        x = torch.addmm(self.stem_bias, window, self.stem_weight) + context
        for index, (compute, reduce, convs, expand) in enumerate(self.blocks):
            if self.added:
                x = x + self.added[index]
            x = compute(x, reduce, convs, expand)
        return self.logits(self.top(x.relu()).relu())

    def run(self, uniform: Tensor, draw: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Draw the frame.

        Args:
            uniform: a random number for each colour of each pixel, `(N, C, H, W)` in [0, 1).
            draw: makes values in [0, 1] `(N,)` of logits `(N, K)` and such numbers `(N,)`.

        Returns:
            `(N, C, H, W)` in [0, 1].
        """
        frame = torch.empty_like(uniform, dtype=self.context.dtype)
        inputs = F.pad(torch.zeros_like(frame), (1, 1, 1, 0))  # in [-1, 1], with the padding of the 3 x 3 convolution
        for row in range(uniform.shape[2]):
            seen = self.seen
            parts = [seen[:, k : k + self.width].flatten(1, 2) @ self.above[k] for k in range(3)]
            from_above = torch.stack(parts).sum(0).unflatten(1, (self.width, -1)) + self.bias  # (L, W, N, out)
            seen.zero_()
            for column in range(self.width):
                self.column = column
                self.before = torch.baddbmm(from_above[:, column], seen[:, column], self.left)
                for colour in range(self.colours):  # The maps of later colours are not right yet, and not seen.
                    window = inputs[:, :, row : row + 2, column : column + 3].flatten(1)
                    logits = self.pixel(window, self.context[row, column])
                    own = logits.view(len(logits), self.colours, -1)[:, colour]
                    value = draw(own, uniform[:, colour, row, column])
                    frame[:, colour, row, column] = value
                    inputs[:, colour, row + 1, column + 1] = 2 * value - 1
        return frame
