"""VGAN (Vondrick, Pirsiavash & Torralba 2016, `arXiv:1609.02612`): the composition pixel by pixel, and the losses."""

import torch
from torch import Tensor


def compose(foreground: Tensor, mask: Tensor, background: Tensor) -> Tensor:
    """Equation 3: G(z) = m(z) f(z) + (1 - m(z)) b(z), of one video.

    Args:
        foreground: `(C, T, H, W)` in [-1, 1].
        mask: `(1, T, H, W)` in [0, 1], one for all colours.
        background: `(C, H, W)`, one for all frames.
    """
    still = background.flatten(1).unbind(1)  # The colours of each place.
    places = zip(mask.flatten(1).unbind(1), foreground.flatten(1).unbind(1), foreground.shape[1] * still, strict=True)
    return torch.stack([m * f + (1 - m) * b for m, f, b in places], 1).view_as(foreground)


def cross_entropy(logits: Tensor, kind: int) -> Tensor:
    """-log softmax(logits)_kind, a mean over videos; real is the first of the two kinds, generated the second."""
    rows = [torch.log(torch.exp(row).sum()) - row[kind] for row in logits]
    return torch.stack(rows).mean()


def loss_d(real: Tensor, fake: Tensor) -> Tensor:
    return cross_entropy(real, 0) + cross_entropy(fake, 1)


def loss_g(fake: Tensor, mask: Tensor | None, weight: float = 0.1) -> Tensor:
    """Section 3.1: adversarial, and lambda |m|_1, a mean over all places in the authors' code."""
    penalty = 0.0 if mask is None else weight * mask.abs().sum() / mask.numel()
    return cross_entropy(fake, 0) + penalty


def conditional_loss_g(fake: Tensor, video: Tensor, still: Tensor, weight: float = 10.0) -> Tensor:
    """Section 3.3: adversarial, and how far the first frame is from the given one, a mean absolute difference."""
    return cross_entropy(fake, 0) + weight * (video[:, :, 0] - still).abs().sum() / still.numel()
