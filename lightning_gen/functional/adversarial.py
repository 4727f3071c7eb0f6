"""Adversarial losses on logits: the log-odds that a discriminator gives an image of being real."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lightning_gen.functional.precision import widen


def discriminator_loss(real: Tensor, fake: Tensor, real_target: float = 1.0) -> Tensor:
    r"""Half the binary cross-entropy on real and on generated images, a mean over each.

    $-\frac12 (E \log D(x) + E \log(1 - D(G(z))))$ (Goodfellow et al. 2014, equation 1, with the factor of the authors'
    code); $\log 2$ where the two cannot be told apart.

    Args:
        real: logits of real images, any shape.
        fake: logits of generated images, any shape.
        real_target: target for real images; less than 1 is one-sided label smoothing (Salimans et al. 2016).

    Returns:
        Nats, a scalar.

    >>> import torch
    >>> discriminator_loss(torch.zeros(4), torch.zeros(4))
    tensor(0.6931)
    """
    real, fake = widen(real), widen(fake)
    on_real = (F.softplus(real) - real_target * real).mean()
    return 0.5 * (on_real + F.softplus(fake).mean())


def non_saturating_loss(fake: Tensor) -> Tensor:
    r"""$-E \log D(G(z))$: the generator's loss that keeps its gradient when D wins (Goodfellow et al. 2014, section 3).

    Args:
        fake: logits of generated images.

    Returns:
        Nats, a scalar.
    """
    return F.softplus(-widen(fake)).mean()


def saturating_loss(fake: Tensor) -> Tensor:
    r"""$E \log(1 - D(G(z)))$: the generator's loss in the minimax game (Goodfellow et al. 2014, equation 1).

    Args:
        fake: logits of generated images.

    Returns:
        Nats, a scalar.
    """
    return -F.softplus(widen(fake)).mean()
