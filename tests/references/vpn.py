"""Video Pixel Networks (Kalchbrenner et al. 2017, `arXiv:1610.00527`), frame by frame and pixel by pixel.

Frames are `(colours, rows, columns)`. The masked convolutions are PixelCNN's.
"""

import math

import torch
from torch import Tensor

from tests.references.pixel_rnn import Weights, convolution, relu


def dilated(x: Tensor, weight: Tensor, bias: Tensor, rate: int) -> Tensor:
    """A convolution whose taps lie `rate` pixels apart; black beyond the borders."""
    out_maps, _, size, _ = weight.shape
    y = torch.zeros(out_maps, *x.shape[1:], dtype=x.dtype)
    for r in range(x.shape[1]):
        for c in range(x.shape[2]):
            y[:, r, c] = bias
            for i in range(size):
                for j in range(size):
                    row, col = r + rate * (i - size // 2), c + rate * (j - size // 2)
                    if 0 <= row < x.shape[1] and 0 <= col < x.shape[2]:
                        y[:, r, c] += weight[:, :, i, j] @ x[:, row, col]
    return y


def multiplicative_unit(h: Tensor, gates: Tensor) -> Tensor:
    """Equation 4: MU(h) = g1 tanh(g2 h + g3 u) of four convolutions of h, side by side."""
    g1, g2, g3, u = gates.chunk(4)
    return torch.sigmoid(g1) * torch.tanh(torch.sigmoid(g2) * h + torch.sigmoid(g3) * torch.tanh(u))


def block(h: Tensor, p: Weights, rate: int, colours: int | None) -> Tensor:
    """Equation 5: h + W4 MU(MU(W1 h)); in the decoder, for frames of some colours, all is masked."""

    def conv(name: str, x: Tensor, stacks: int = 1) -> Tensor:
        if colours is None:
            return dilated(x, p[name + ".weight"], p[name + ".bias"], rate)
        return convolution(x, p[name + ".weight"], p[name + ".bias"], "B", colours, stacks)

    h1 = conv("reduce", h)
    h2 = multiplicative_unit(h1, conv("convs.0", h1, 4))
    h3 = multiplicative_unit(h2, conv("convs.1", h2, 4))
    return h + conv("expand", h3)


def encode(frame: Tensor, p: Weights, blocks: list[Weights], dilations: tuple[int, ...]) -> Tensor:
    """Section 4.1: the frame's features, at its full resolution."""
    h = dilated(frame, p["stem.weight"], p["stem.bias"], 1)
    for number, weights in enumerate(blocks):
        h = block(h, weights, dilations[number % len(dilations)], None)
    return h


def conv_lstm(features: list[Tensor], p: Weights) -> list[Tensor]:
    """The context of each frame: the state after the frames before it, and nothing before the first one."""
    h = torch.zeros_like(features[0])
    c = torch.zeros_like(h)
    contexts = [h]
    no_bias = torch.zeros(4 * len(h), dtype=h.dtype)
    for x in features[:-1]:
        gates = dilated(x, p["input.weight"], p["input.bias"], 1) + dilated(h, p["state.weight"], no_bias, 1)
        i, f, o, g = gates.chunk(4)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        contexts.append(h)
    return contexts


def decode(frame: Tensor, context: Tensor, p: Weights, blocks: list[Weights]) -> Tensor:
    """Section 4.2: the logits of a frame, of which each subpixel sees those before it, and all of the context."""
    colours = len(frame)
    s = convolution(frame, p["stem.weight"], p["stem.bias"], "A", colours)
    s = s + dilated(context, p["context.weight"], p["context.bias"], 1)
    for weights in blocks:
        s = block(s, weights, 1, colours)
    s = convolution(relu(s), p["top.weight"], p["top.bias"], "B", colours)
    return convolution(relu(s), p["logits.weight"], p["logits.bias"], "B", colours)


def cross_entropy(frame: Tensor, logits: Tensor) -> float:
    """H(z, y) = -sum_i z_i log y_i + (1 - z_i) log(1 - y_i), grey levels being probabilities; nats of a frame."""
    total = 0.0
    for z, a in zip(frame.flatten().tolist(), logits.flatten().tolist(), strict=True):
        y = 1 / (1 + math.exp(-a))
        total -= z * math.log(y) + (1 - z) * math.log(1 - y)
    return total
