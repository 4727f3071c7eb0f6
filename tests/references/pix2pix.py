"""pix2pix (Isola, Zhu, Zhou & Efros 2017, `arXiv:1611.07004`): the losses and the order of the updates.

G and D are functions of the weights and of images in [-1, 1]; D gives a logit for each patch.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from tests.references.layers import Adam, Weights, gradients, log_sigmoid

Generator = Callable[[Weights, Tensor], Tensor]
Discriminator = Callable[[Weights, Tensor, Tensor], Tensor]


def l1(y: Tensor, fake: Tensor) -> Tensor:
    """Equation 3: E |y - G(x)|_1, a mean over pixels and colours."""
    terms = [(a - b).abs() for a, b in zip(y.flatten(), fake.flatten(), strict=True)]
    return torch.stack(terms).sum() / len(terms)


def step(
    x: Tensor, y: Tensor, g: Generator, d: Discriminator | None, p: Weights, lam: float, adam_d: Adam, adam_g: Adam
) -> None:
    """Equation 4: D moves first, on half of its objective (1); then G on the same fake, seen by the D that has moved.

    G maximises log D(x, G(x)) in place of minimising log(1 - D(x, G(x))) (section 3.3). Without D it has L1 alone.
    """
    fake = g(p, x)
    loss_g = lam * l1(y, fake)
    if d is not None:
        loss_d = -(log_sigmoid(d(p, x, y)).mean() + log_sigmoid(-d(p, x, fake)).mean()) / 2
        adam_d.step(p, gradients(loss_d, p, "discriminator."))
        loss_g = loss_g - log_sigmoid(d(p, x, fake)).mean()
    adam_g.step(p, gradients(loss_g, p, "generator."))
