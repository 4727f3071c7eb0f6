"""Layers and optimizers of the adversarial references: the textbook's sums, of a batch of images `(N, C, H, W)`."""

from collections.abc import Sequence

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def linear(x: Tensor, p: Weights, name: str) -> Tensor:
    """W x + b, of rows."""
    y = x @ p[name + ".weight"].T
    return y + p[name + ".bias"] if name + ".bias" in p else y


def maxout(x: Tensor, p: Weights, name: str, pieces: int) -> Tensor:
    """The largest of `pieces` affine maps for each unit (Goodfellow et al. 2013)."""
    y = linear(x, p, name + ".affine")
    return torch.stack([y[:, u : u + pieces].max(1).values for u in range(0, y.shape[1], pieces)], 1)


def relu(x: Tensor, slope: float = 0.0) -> Tensor:
    """The rectifier, leaky with a slope."""
    return torch.where(x > 0, x, slope * x)


def conv(x: Tensor, p: Weights, name: str, stride: int = 1, padding: int = 0) -> Tensor:
    """Each output pixel is a sum over the kernel's taps that lie inside the image."""
    weight, (_, _, rows, columns) = p[name + ".weight"], x.shape
    size_r, size_c = weight.shape[2:]
    pixels, taps, y = x.flatten(2).unbind(2), weight.flatten(2).unbind(2), []
    for r in range(-padding, rows + padding - size_r + 1, stride):
        for c in range(-padding, columns + padding - size_c + 1, stride):
            inside = [
                (i, j) for i in range(size_r) for j in range(size_c) if 0 <= r + i < rows and 0 <= c + j < columns
            ]
            y.append(sum(pixels[(r + i) * columns + c + j] @ taps[i * size_c + j].T for i, j in inside))
    out = torch.stack([torch.as_tensor(v) for v in y], -1)
    out = out.unflatten(-1, ((rows + 2 * padding - size_r) // stride + 1, -1))
    return out + p[name + ".bias"].view(-1, 1, 1) if name + ".bias" in p else out


def deconv(x: Tensor, p: Weights, name: str, stride: int = 1, padding: int = 0, extra: int = 0) -> Tensor:
    """The transpose: each input pixel (r, c) adds to the output pixel (stride r + i - padding, stride c + j - padding).

    Args:
        x: `(N, C, H, W)`.
        p: the weights.
        name: of the layer.
        stride: of the output for each pixel of the input.
        padding: what is cut off at the borders.
        extra: rows and columns that are not cut off at the far borders.
    """
    weight, (_, _, rows, columns) = p[name + ".weight"], x.shape
    size = weight.shape[2]
    height, width = ((side - 1) * stride + size - 2 * padding + extra for side in (rows, columns))
    pixels, taps = x.flatten(2).unbind(2), weight.flatten(2).unbind(2)
    terms: dict[tuple[int, int], list[Tensor]] = {(r, c): [] for r in range(height) for c in range(width)}
    for r in range(rows):
        for c in range(columns):
            for i in range(size):
                for j in range(size):
                    place = stride * r + i - padding, stride * c + j - padding
                    if place in terms:
                        terms[place].append(pixels[r * columns + c] @ taps[i * size + j])
    out = torch.stack([torch.stack(terms[place]).sum(0) for place in terms], -1).unflatten(-1, (height, width))
    return out + p[name + ".bias"].view(-1, 1, 1) if name + ".bias" in p else out


def batch_norm(x: Tensor, p: Weights, name: str, eps: float) -> Tensor:
    """By the mean and the biased variance of each map over the batch (and its pixels)."""
    dims = [0, *range(2, x.ndim)]
    mean = x.mean(dims, keepdim=True)
    var = ((x - mean) ** 2).mean(dims, keepdim=True)
    shape = [1, -1] + [1] * (x.ndim - 2)
    return (x - mean) / (var + eps) ** 0.5 * p[name + ".weight"].view(shape) + p[name + ".bias"].view(shape)


def log_sigmoid(a: Tensor) -> Tensor:
    """log 1 / (1 + exp(-a))."""
    return -torch.log(1 + torch.exp(-a))


def gradients(loss: Tensor, p: Weights, part: str) -> Weights:
    """Of the weights whose names begin so."""
    names = [name for name in p if name.startswith(part)]
    return dict(zip(names, torch.autograd.grad(loss, [p[name] for name in names], retain_graph=True), strict=True))


class Momentum:
    """v' = m v + g, theta' = theta - lr v'; damped, (1 - m) g after the first step."""

    def __init__(self, lr: float, momentum: float, damped: bool = False) -> None:
        self.lr, self.momentum, self.damped = lr, momentum, damped
        self.velocity: Weights = {}

    def step(self, p: Weights, g: Weights) -> None:
        for name, gradient in g.items():
            share = 1 - self.momentum if self.damped and name in self.velocity else 1.0
            self.velocity[name] = self.momentum * self.velocity.get(name, torch.zeros_like(gradient)) + share * gradient
            p[name] = (p[name] - self.lr * self.velocity[name]).detach().requires_grad_()


class Adam:
    """Kingma & Ba 2015, algorithm 1."""

    def __init__(self, lr: float, betas: Sequence[float], decay: float = 0.0) -> None:
        self.lr, (self.b1, self.b2), self.decay = lr, betas, decay
        self.t, self.m, self.v = 0, dict[str, Tensor](), dict[str, Tensor]()

    def step(self, p: Weights, g: Weights) -> None:
        self.t += 1
        for name, gradient in g.items():
            gradient = gradient + self.decay * p[name]
            self.m[name] = self.b1 * self.m.get(name, torch.zeros_like(gradient)) + (1 - self.b1) * gradient
            self.v[name] = self.b2 * self.v.get(name, torch.zeros_like(gradient)) + (1 - self.b2) * gradient**2
            m_hat, v_hat = self.m[name] / (1 - self.b1**self.t), self.v[name] / (1 - self.b2**self.t)
            p[name] = (p[name] - self.lr * m_hat / (v_hat**0.5 + 1e-8)).detach().requires_grad_()
