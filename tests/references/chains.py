"""DGN-AM (Nguyen et al. 2016, `arXiv:1605.09304`) and PPGN (Nguyen et al. 2017, `arXiv:1612.00005`): one step of the
walk through codes h, of one image. G, E and Phi are functions of rows.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from tests.references.layers import Weights, deconv, linear, relu

Function = Callable[[Tensor], Tensor]


def generator(h: Tensor, p: Weights) -> Tensor:
    """In small: a linear layer, three transposed convolutions, leaky rectifiers of 0.3, and no squashing."""
    h = relu(linear(h, p, "generator.0"), 0.3).unflatten(1, (1, 4, 4))
    h = relu(deconv(h, p, "generator.3", 2, 1), 0.3)
    h = relu(deconv(h, p, "generator.5", 2, 1), 0.3)
    return deconv(h, p, "generator.7", 2, 1)


def gradient(of: Function, at: Tensor) -> Tensor:
    at = at.detach().requires_grad_()
    return torch.autograd.grad(of(at), at)[0]


def activation_maximisation(
    h: Tensor, g: Function, phi: Function, unit: int, length: float, upper: Tensor, decay: float
) -> Tensor:
    """The released code's iteration: up the unit's activation in the image, and then towards that image in the code.

    x' = x + a g_x / mean|g_x|;  g_h = J_G^T (x' - x);  h' = decay clip(h + a g_h / mean|g_h|, 0, upper)
    """
    x = g(h[None]).detach()
    g_x = gradient(lambda image: phi(image)[0, unit], x)
    moved = x + length * g_x / g_x.abs().mean()
    g_h = gradient(lambda code: (g(code[None]) * (moved - x)).sum(), h)
    h = h + length * g_h / g_h.abs().mean()
    return decay * torch.minimum(h.clamp(min=0), upper)


def log_class(logits: Tensor, c: int) -> Tensor:
    """log C_c(x), the softmax's logarithm."""
    return logits[c] - torch.log(torch.exp(logits).sum())


def equation(
    h: Tensor, r: Function, g: Function, phi: Function, c: int, e1: float, e2: float, noise: Tensor, limit: float
) -> Tensor:
    """Equation 5: h' = h + e1 (R(h) - h) + e2 d log C_c(G(h)) / dh + N(0, e3^2), cut to what rectified codes can be."""
    score = gradient(lambda code: log_class(phi(g(code[None]))[0], c), h)
    return (h + e1 * (r(h[None])[0].detach() - h) + e2 * score + noise).clamp(0, limit)


def released(
    h: Tensor,
    r: Function,
    g: Function,
    phi: Function,
    c: int,
    e1: float,
    e2: float,
    noise: Tensor,
    length: float,
    limit: float,
) -> Tensor:
    """The released sampler: the softmax's gradient by logit c alone, 1 - p_c, and a step of a given mean size.

    h' = clip(h + length d / mean|d|, 0, limit) with d = e1 (R(h) - h) + e2 g + n
    """
    logits = phi(g(h[None]))[0].detach()
    slope = 1 - torch.exp(log_class(logits, c))
    score = slope * gradient(lambda code: phi(g(code[None]))[0, c], h)
    d = e1 * (r(h[None])[0].detach() - h) + e2 * score + noise
    return (h + length * d / d.abs().mean()).clamp(0, limit)
