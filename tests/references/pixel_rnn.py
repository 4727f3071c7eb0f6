"""PixelRNN and PixelCNN (van den Oord, Kalchbrenner & Kavukcuoglu 2016, `arXiv:1601.06759`), pixel by pixel.

Maps are `(channels, rows, columns)` of one image. A layer's maps are shared out to the colours in equal runs: the first
third of them is red's, then green's, then blue's.
"""

import math

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def mask(kind: str, out_maps: int, in_maps: int, colours: int, stacks: int) -> Tensor:
    """Section 3.4: what the maps of a colour see of the maps at the same pixel: A earlier colours, B their own too.

    Of several stacks side by side, such as the gates of an LSTM, each is shared out to the colours alike.
    """
    stack = out_maps // stacks
    seen = torch.zeros(out_maps, in_maps, dtype=torch.float64)
    for o in range(out_maps):
        for i in range(in_maps):
            out_colour, in_colour = o % stack * colours // stack, i * colours // in_maps
            seen[o, i] = in_colour < out_colour or (kind == "B" and in_colour == out_colour)
    return seen


def convolution(x: Tensor, weight: Tensor, bias: Tensor, kind: str | None, colours: int = 1, stacks: int = 1) -> Tensor:
    """At each pixel: the rows above, the pixels to the left, and of the pixel itself what the mask lets through.

    Without a mask (`kind` is None) all of the kernel; black beyond the borders.
    """
    out_maps, in_maps, height, width = weight.shape
    y = torch.zeros(out_maps, *x.shape[1:], dtype=x.dtype)
    for r in range(x.shape[1]):
        for c in range(x.shape[2]):
            y[:, r, c] = bias
            for i in range(height):
                for j in range(width):
                    up, right = i - height // 2, j - width // 2
                    if not (0 <= r + up < x.shape[1] and 0 <= c + right < x.shape[2]):
                        continue
                    if kind is None or up < 0 or (up == 0 and right < 0):
                        y[:, r, c] += weight[:, :, i, j] @ x[:, r + up, c + right]
                    elif up == 0 and right == 0:
                        y[:, r, c] += (weight[:, :, i, j] * mask(kind, out_maps, in_maps, colours, stacks)) @ x[:, r, c]
    return y


def relu(x: Tensor) -> Tensor:
    return x * (x > 0)


def cell(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Equation 3: o, f, i are sigmoids and g a tanh; c' = f c + i g, h' = o tanh(c')."""
    o, f, i, g = gates.view(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def row_lstm(inputs: Tensor, k_ss: list[Tensor], h0: Tensor, c0: Tensor) -> Tensor:
    """Section 3.1: a pixel's state from the three nearest of the row above; above the first row lies (h0, c0).

    Args:
        inputs: K_is * x, `(4 h, rows, columns)`.
        k_ss: of the pixel to the left above, above, and to the right above, each `(4 h, h)`.
        h0: `(h,)`, and so is c0.
    """
    _, rows, columns = inputs.shape
    h = torch.zeros(len(h0), rows, columns, dtype=inputs.dtype)
    c = torch.zeros_like(h)
    for row in range(rows):
        for col in range(columns):
            gates = inputs[:, row, col].clone()
            for offset, k in zip((-1, 0, 1), k_ss, strict=True):
                if 0 <= col + offset < columns:
                    gates += k @ (h[:, row - 1, col + offset] if row > 0 else h0)
            h[:, row, col], c[:, row, col] = cell(gates, c[:, row - 1, col] if row > 0 else c0)
    return h


def diagonal_lstm(inputs: Tensor, k_left: Tensor, k_above: Tensor, h0: Tensor, c0: Tensor) -> Tensor:
    """Section 3.2 without the skewing: a pixel's state from those to its left and above, its cell from the left one.

    To the left of a row lies (h0, c0), above the first row nothing.
    """
    _, rows, columns = inputs.shape
    h = torch.zeros(len(h0), rows, columns, dtype=inputs.dtype)
    c = torch.zeros_like(h)
    for row in range(rows):
        for col in range(columns):
            gates = inputs[:, row, col] + k_left @ (h[:, row, col - 1] if col > 0 else h0)
            if row > 0:
                gates += k_above @ h[:, row - 1, col]
            h[:, row, col], c[:, row, col] = cell(gates, c[:, row, col - 1] if col > 0 else c0)
    return h


def diagonal_bilstm(inputs: Tensor, k_left: Tensor, k_above: Tensor, h0: Tensor, c0: Tensor) -> Tensor:
    """The second direction walks over the mirrored map; its states, mirrored back, move down by one row.

    Args:
        inputs: K_is * x of both directions, `(2, 4 h, rows, columns)`; the others have two rows as well.
    """
    left = diagonal_lstm(inputs[0], k_left[0], k_above[0], h0[0], c0[0])
    right = diagonal_lstm(inputs[1].flip(-1), k_left[1], k_above[1], h0[1], c0[1]).flip(-1)
    total = left.clone()
    for row in range(1, left.shape[1]):
        total[:, row] += right[:, row - 1]
    return total


def layer(x: Tensor, p: Weights, colours: int, variant: str, context: Tensor | None) -> Tensor:
    """Figure 5, of 2 h maps: without the residual sum."""

    def conv(name: str, maps: Tensor, stacks: int = 1) -> Tensor:
        return convolution(maps, p[name + ".weight"], p[name + ".bias"], "B", colours, stacks)

    outputs = len(p["expand.weight"]) // len(x)  # Two stacks with skip connections.
    if variant == "pixelcnn":
        return conv("expand", relu(conv("conv", relu(conv("reduce", relu(x))))), outputs)
    inputs = conv("input_to_state", x, 4 if variant == "row_lstm" else 8)
    if context is not None:  # Section 3.5: an unmasked 1 x 1 convolution of the small image's maps.
        w = p["context.weight"]
        inputs = inputs + convolution(context, w, torch.zeros(len(w), dtype=w.dtype), None)
    if variant == "row_lstm":
        h = row_lstm(inputs, p["k_ss"], p["h0"], p["c0"])
    else:
        h = diagonal_bilstm(inputs.view(2, -1, *x.shape[1:]), p["k_left"], p["k_above"], p["h0"], p["c0"])
    return conv("expand", h, outputs)


def logits(
    image: Tensor,
    stem: Weights,
    layers: list[Weights],
    head: list[Weights],
    variant: str,
    context: Tensor | None = None,
) -> Tensor:
    """Table 1: 7 x 7 with mask A, residual layers, and 1 x 1 convolutions, each after a rectifier."""
    colours = len(image)
    x = convolution(image, stem["weight"], stem["bias"], "A", colours)
    skipped = torch.zeros_like(x)
    for p in layers:
        y = layer(x, p, colours, variant, context)
        x = x + y[: len(x)]
        if len(y) > len(x):  # Skip connections: the other maps go to the output.
            skipped = skipped + y[len(x) :]
    x = x + skipped
    for p in head:
        x = convolution(relu(x), p["weight"], p["bias"], "B", colours)
    return x


def log_prob(values: Tensor, logits: Tensor, levels: int) -> float:
    """Equation 2: log p(x) = sum over rows, columns and colours of log p(x_{i,c} | x_<i, earlier colours).

    Args:
        values: 0 to levels - 1, `(colours, rows, columns)`.
        logits: a sigmoid's of two levels, or a softmax's, `levels` maps for each colour.
        levels: of a subpixel.
    """
    total = 0.0
    for k in range(values.shape[0]):
        for r in range(values.shape[1]):
            for c in range(values.shape[2]):
                scores = [0.0, float(logits[k, r, c])] if levels == 2 else logits.view(-1, levels, *values.shape[1:])
                scores = scores if levels == 2 else scores[k, :, r, c].tolist()
                total += scores[int(values[k, r, c])] - math.log(sum(math.exp(s) for s in scores))
    return total


def deconvolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Kernel 4, stride 2, padding 1: each small pixel paints a square of 4 x 4 around its place in the large map."""
    rows, columns = 2 * x.shape[1], 2 * x.shape[2]
    y = bias.view(-1, 1, 1).repeat(1, rows, columns)
    for r in range(x.shape[1]):
        for c in range(x.shape[2]):
            for i in range(4):
                for j in range(4):
                    row, col = 2 * r + i - 1, 2 * c + j - 1
                    if 0 <= row < rows and 0 <= col < columns:
                        y[:, row, col] += weight[:, :, i, j].T @ x[:, r, c]
    return y
