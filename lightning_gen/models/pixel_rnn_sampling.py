"""Sampling of the networks of PixelRNN with each pixel's work done once.

A new pixel changes no feature of those before it. So every layer keeps the row above and the row that is being drawn,
and a pixel's own features are a few products of vectors. What reaches it from the row above is computed for a whole
row and all layers at once, what reaches it from its left neighbour for all layers at once. The features of one colour
do not depend on the later ones, and are computed when it is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gen.nn.masked import MaskedConv2d, colour_of
from lightning_gen.nn.pixel_lstm import activate_, tanh

if TYPE_CHECKING:
    from lightning_gen.models.pixel_rnn import PixelNet


def draw_levels(logits: Tensor, uniform: Tensor, levels: int) -> Tensor:
    """Turn uniform numbers into draws, by the inverse of the distribution function.

    Args:
        logits: `(N, K)`: of each level, or of the upper one of two.
        uniform: `(N,)` in [0, 1), of 32 bits or more.
        levels: how many.

    Returns:
        k / (levels - 1), `(N,)`.
    """
    logits = logits.to(uniform.dtype)
    if levels == 2:
        return (uniform < logits[:, 0].sigmoid()).to(uniform.dtype)
    cumulative = logits.softmax(1).cumsum(1)[:, :-1]  # The last one is 1, or what rounding leaves of it.
    return (cumulative <= uniform[:, None]).sum(1).to(uniform.dtype) / (levels - 1)


class Sampler:
    """What the three kinds share: the first convolution, the way through the layers, the head, and the drawing.

    Args:
        net: the network.
        num_samples: N.
        context: features of small images, `(N, context_size, H, W)`.
    """

    def __init__(self, net: PixelNet, num_samples: int, context: Tensor | None) -> None:
        self.before: Tensor  # (L, N, maps): what reaches this pixel from the others, for each layer
        self.num_samples, self.residual, self.skip = num_samples, net.residual, net.skip
        self.colours, self.height, self.width = net.image_shape
        self.layers: list[Any] = list(net.layers)
        self.num_layers = len(self.layers)
        self.column = 0
        heads: list[Any] = list(net.head)
        self.stem = self.by_colour(net.stem, net.stem.masked_weight[:, :, :4].flatten(1))
        self.expand = [self.by_colour(layer.expand, stacks=2 if net.skip else 1) for layer in self.layers]
        self.head = [self.by_colour(conv) for conv in heads]
        features = net.stem.out_channels
        zeros = net.stem.weight.new_zeros
        # (layer, column, image, feature): of one row, the input of each layer and the output of the last one
        self.x = zeros(self.num_layers + 1, self.width, num_samples, features)
        self.outputs = zeros(num_samples, self.num_layers, features // 2)  # of the layers' hidden units, of one pixel
        self.head_inputs = [zeros(num_samples, conv.in_channels) for conv in heads]
        self.context = None  # (layer, row, column, image, map)
        if context is not None:
            context = context.to(net.stem.weight.dtype)  # Made under autocast it has 16 bits, and here is none.
            self.context = torch.stack([layer.context(context).permute(2, 3, 0, 1) for layer in self.layers])

    def by_colour(
        self, conv: MaskedConv2d, weight: Tensor | None = None, stacks: int = 1
    ) -> list[tuple[Tensor, Tensor]]:
        """Weights `(in, out)` and biases of the maps of each colour; by default of a 1x1 convolution."""
        weight = conv.masked_weight[:, :, 0, 0] if weight is None else weight
        colour = colour_of(len(weight), self.colours, stacks).to(weight.device)
        bias = conv.bias[: len(weight)]
        return [(weight[colour == j].T.contiguous(), bias[colour == j]) for j in range(self.colours)]

    def own(self, maps: int, colour: int) -> slice:
        """A colour's share of some maps."""
        return slice(colour * maps // self.colours, (colour + 1) * maps // self.colours)

    def start_row(self, row: int) -> None:
        """Compute what reaches a row from the one above, which is complete."""
        raise NotImplementedError

    def start_pixel(self) -> None:
        """Compute what reaches the pixel of `self.column` from its left neighbour."""
        raise NotImplementedError

    def hidden(self, layer: int, x: Tensor, colour: int) -> None:
        """Write a colour's hidden units of a layer to `self.outputs`, given its input `(N, 2h)` at this pixel."""
        raise NotImplementedError

    def logits(self, window: Tensor, colour: int) -> Tensor:
        """The logits of a colour of this pixel, `(N, K)`, given the pixels around it, `(N, C 4 7)`."""
        features = self.x.shape[-1]
        own = self.own(features, colour)
        weight, bias = self.stem[colour]
        x = self.x[:, self.column]  # (L + 1, N, 2h)
        x[0, :, own] = torch.addmm(bias, window, weight)
        skips: Tensor | float = 0.0
        for layer in range(self.num_layers):
            self.hidden(layer, x[layer], colour)
            weight, bias = self.expand[layer][colour]
            update, *skip = torch.addmm(bias, self.outputs[:, layer], weight).chunk(2 if self.skip else 1, 1)
            x[layer + 1, :, own] = x[layer, :, own] + update if self.residual else update
            skips = skips + skip[0] if skip else skips
        y = x[-1, :, own] + skips
        for inputs, parameters in zip(self.head_inputs, self.head, strict=True):
            inputs[:, self.own(inputs.shape[1], colour)] = y.relu()
            weight, bias = parameters[colour]
            y = torch.addmm(bias, inputs, weight)
        return y

    def run(self, uniform: Tensor, levels: int, known: Tensor, mask: Tensor) -> Tensor:
        """Draw images.

        Args:
            uniform: a random number for each subpixel, `(N, C, H, W)` in [0, 1).
            levels: of intensity.
            known: images, `(N, C, H, W)`, whose pixels are taken where the mask says so.
            mask: 1 there and 0 elsewhere, `(N, 1, H, W)`.

        Returns:
            `(N, C, H, W)` in [0, 1].
        """
        inputs = F.pad(torch.zeros_like(known), (3, 3, 3, 0))  # in [-1, 1], with the padding of the 7x7 convolution
        images, given = torch.empty_like(known), mask.bool()
        for row in range(self.height):
            self.start_row(row)
            for column in range(self.width):
                self.column = column
                self.start_pixel()
                for colour in range(self.colours):
                    window = inputs[:, :, row : row + 4, column : column + 7].flatten(1)
                    at = (slice(None), colour, row, column)
                    value = draw_levels(self.logits(window, colour), uniform[at], levels)
                    value = torch.where(given[:, 0, row, column], known[at], value)
                    images[at] = value
                    inputs[:, colour, row + 3, column + 3] = 2 * value - 1
        return images


class PixelCNNSampler(Sampler):
    """Keeps what the 3x3 convolutions see, `(layer, column, image, h)` with a column of zeros at each end of a row."""

    def __init__(self, net: PixelNet, num_samples: int, context: Tensor | None) -> None:
        super().__init__(net, num_samples, context)
        weights = torch.stack([layer.conv.masked_weight for layer in self.layers])  # (L, out, in, 3, 3)
        self.reduce = [self.by_colour(layer.reduce) for layer in self.layers]
        self.centre = [self.by_colour(layer.conv, layer.conv.masked_weight[:, :, 1, 1]) for layer in self.layers]
        self.above = weights[:, :, :, 0].permute(3, 0, 2, 1).contiguous()  # (3, L, in, out)
        self.left = weights[:, :, :, 1, 0].mT.contiguous()
        self.bias = torch.stack([layer.conv.bias for layer in self.layers])[:, None, None]
        self.seen = weights.new_zeros(self.num_layers, self.width + 2, num_samples, weights.shape[1])

    def start_row(self, row: int) -> None:
        seen = self.seen
        parts = [seen[:, k : k + self.width].flatten(1, 2) @ self.above[k] for k in range(3)]
        self.from_above = torch.stack(parts).sum(0).unflatten(1, (self.width, -1)) + self.bias  # (L, W, N, h)
        if self.context is not None:
            self.from_above += self.context[:, row]
        self.seen = torch.zeros_like(seen)

    def start_pixel(self) -> None:
        self.before = torch.baddbmm(self.from_above[:, self.column], self.seen[:, self.column], self.left)

    def hidden(self, layer: int, x: Tensor, colour: int) -> None:
        own = self.own(self.outputs.shape[-1], colour)
        seen = self.seen[layer, self.column + 1]
        weight, bias = self.reduce[layer][colour]
        seen[:, own] = torch.addmm(bias, x.relu(), weight).relu_()
        weight, _ = self.centre[layer][colour]
        self.outputs[:, layer, own] = torch.addmm(self.before[layer, :, own], seen, weight).relu_()


class LSTMSampler(Sampler):
    """What the two LSTMs share: hidden states and cells of the row that is drawn, `(layer, column, image, h)`."""

    cells_before: Tensor  # (L, N, h), those that this pixel continues

    def __init__(self, net: PixelNet, num_samples: int, context: Tensor | None) -> None:
        super().__init__(net, num_samples, context)
        size = 2 * self.x.shape[-1]  # 4h
        inputs = [layer.input_to_state for layer in self.layers]
        weights = torch.stack([conv.masked_weight for conv in inputs])  # (L, D 4h, 2h, 1, taps)
        self.input_taps = weights[:, :, :, 0].permute(3, 0, 2, 1).contiguous()  # (taps, L, 2h, D 4h)
        centre = weights.shape[-1] // 2
        self.centre = [self.by_colour(conv, conv.masked_weight[:size, :, 0, centre], stacks=4) for conv in inputs]
        self.bias = torch.stack([conv.bias for conv in inputs])[:, None, None]  # (L, 1, 1, D 4h)
        state_weights = torch.stack([layer.state_to_state for layer in self.layers])
        self.state_taps = state_weights.permute(1, 2, 0, 3, 4).contiguous()  # (D, taps, L, h, 4h)
        self.initial = torch.stack([layer.initial for layer in self.layers], 2)[..., None, :]  # (2, D, L, 1, h)
        gates = colour_of(size, self.colours, 4).to(weights.device)
        self.gates = [(gates == j).nonzero().squeeze(1) for j in range(self.colours)]
        self.states, self.cells = weights.new_zeros(2, self.num_layers, self.width, num_samples, size // 4)
        self.right: Tensor | None = None

    def row_bias(self, row: int) -> Tensor:
        """Bias and context of a row's input-to-state maps, `(L, W, N, D 4h)` or less where they are the same."""
        return self.bias if self.context is None else self.bias + self.context[:, row]

    def through(self, states: Tensor, weight: Tensor) -> Tensor:
        """A row's states times the weights of each layer, `(L, W, N, ...)`."""
        return (states.flatten(1, 2) @ weight).unflatten(1, states.shape[1:3])

    def hidden(self, layer: int, x: Tensor, colour: int) -> None:
        own = self.own(self.outputs.shape[-1], colour)
        weight, _ = self.centre[layer][colour]
        before = self.before[layer] if self.colours == 1 else self.before[layer][:, self.gates[colour]]
        o, f, i, g = activate_(torch.addmm(before, x, weight))
        cell = (f * self.cells_before[layer, :, own]).addcmul_(i, g)
        self.cells[layer, self.column, :, own] = cell
        hidden = o.mul_(tanh(cell))
        self.states[layer, self.column, :, own] = hidden
        self.outputs[:, layer, own] = hidden if self.right is None else hidden + self.right[layer, self.column, :, own]


class RowLSTMSampler(LSTMSampler):
    """States come from the row above."""

    def start_row(self, row: int) -> None:
        if row == 0:
            states, cells = (start.unsqueeze(1).expand_as(self.states) for start in self.initial[:, 0])
        else:
            states, cells = self.states, self.cells
        above, left, right = self.state_taps[0]
        self.from_above = self.through(states, above) + self.row_bias(row)
        self.from_above[:, 1:] += self.through(states[:, :-1], left)
        self.from_above[:, :-1] += self.through(states[:, 1:], right)
        self.cells_above = cells
        self.states, self.cells = torch.zeros_like(self.states), torch.zeros_like(self.cells)

    def start_pixel(self) -> None:
        self.before, self.cells_before = self.from_above[:, self.column], self.cells_above[:, self.column]
        if self.column:
            self.before = torch.baddbmm(self.before, self.x[:-1, self.column - 1], self.input_taps[0])


class DiagonalBiLSTMSampler(LSTMSampler):
    """States from the left go along with the drawing; those from the right run through each row once it is complete."""

    def start_row(self, row: int) -> None:
        size = self.bias.shape[-1] // 2
        self.from_above = self.row_bias(row)[..., :size].expand(-1, self.width, self.num_samples, -1)
        if row:
            self.from_above = self.from_above + self.through(self.states, self.state_taps[0, 1])
            inputs = self.through(self.x[:-1], self.input_taps[0, ..., size:]) + self.row_bias(row - 1)[..., size:]
            if self.right is not None:
                inputs += self.through(self.right, self.state_taps[1, 1])
            self.right = torch.empty_like(self.states)
            state, cell = self.initial[:, 1].expand(-1, -1, self.num_samples, -1)
            for column in reversed(range(self.width)):
                o, f, i, g = activate_(torch.baddbmm(inputs[:, column], state, self.state_taps[1, 0]))
                cell = (f * cell).addcmul_(i, g)
                state = torch.mul(o, tanh(cell), out=self.right[:, column])

    def start_pixel(self) -> None:
        if self.column:
            state, self.cells_before = self.states[:, self.column - 1], self.cells[:, self.column - 1]
        else:
            state, self.cells_before = self.initial[:, 0].expand(-1, -1, self.num_samples, -1)
        self.before = torch.baddbmm(self.from_above[:, self.column], state, self.state_taps[0, 0])


def sampler(net: PixelNet, num_samples: int, context: Tensor | None = None) -> Sampler:
    """The sampler of a network's kind."""
    kinds = {"pixelcnn": PixelCNNSampler, "row_lstm": RowLSTMSampler, "diagonal_bilstm": DiagonalBiLSTMSampler}
    return kinds[net.variant](net, num_samples, context)
