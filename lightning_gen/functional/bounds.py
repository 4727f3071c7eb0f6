"""Likelihoods and the bounds on them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def gaussian_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    r"""KL divergence of a diagonal Gaussian from the standard normal, in closed form.

    $KL = -\frac12 \sum_j (1 + \log\sigma_j^2 - \mu_j^2 - \sigma_j^2)$ (Kingma & Welling 2013, appendix B).

    Args:
        mean: `(..., J)`.
        log_var: log of the variance, `(..., J)`.

    Returns:
        Nats, `(...)`.

    >>> gaussian_kl(torch.tensor([1.0, 0.0]), torch.zeros(2))
    tensor(0.5000)
    """
    return -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(-1)


def bernoulli_log_prob(images: Tensor, logits: Tensor) -> Tensor:
    """Log-probability of binary images under independent Bernoulli pixels, summed over pixels.

    Args:
        images: values in {0, 1}, `(..., C, H, W)`, broadcast against `logits`.
        logits: log-odds of a pixel being 1, `(..., C, H, W)`.

    Returns:
        Nats, `(...)`.

    >>> bernoulli_log_prob(torch.ones(1, 2, 2), torch.zeros(1, 2, 2)) / math.log(2)
    tensor(-4.)
    """
    images, logits = torch.broadcast_tensors(images, logits)
    return -F.binary_cross_entropy_with_logits(logits, images, reduction="none").flatten(-3).sum(-1)


def normal_log_prob(images: Tensor, mean: Tensor, log_var: Tensor | float = 0.0) -> Tensor:
    """Log-density of images under independent Gaussian pixels, summed over pixels.

    Args:
        images: `(..., C, H, W)`.
        mean: `(..., C, H, W)`.
        log_var: log of the variance of each pixel, or one number; 0 gives N(mean, I).

    Returns:
        Nats (of a density), `(...)`.

    >>> normal_log_prob(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    tensor(-0.9189)
    """
    log_var = torch.as_tensor(log_var, dtype=mean.dtype, device=mean.device)
    terms = (images - mean).square() * (-log_var).exp() + log_var + math.log(2 * math.pi)
    return -0.5 * terms.flatten(-3).sum(-1)


def importance_weighted_bound(log_weights: Tensor, dim: int = 0) -> Tensor:
    r"""The bound of k importance samples, $\log \frac1k \sum_i w_i$ with $w_i = p(x, z_i) / q(z_i | x)$.

    Equals the evidence lower bound in expectation for k = 1, grows with k, and tends to $\log p(x)$
    (Burda, Grosse & Salakhutdinov 2015, equation 8).

    Args:
        log_weights: nats, the samples along `dim`.
        dim: the dimension of the samples.

    Returns:
        Nats, `log_weights` without `dim`.

    >>> importance_weighted_bound(torch.tensor([-1.0, -1.0]))
    tensor(-1.)
    """
    return torch.logsumexp(log_weights, dim) - math.log(log_weights.shape[dim])


def bits_per_dim(nll: float, shape: Sequence[int]) -> float:
    """Nats per image as bits per dimension (a pixel's channel).

    Args:
        nll: negative log-probability of one image of discrete pixels, in nats.
        shape: the image's shape.

    >>> bits_per_dim(784 * math.log(2), (1, 28, 28))
    1.0
    """
    return nll / (math.prod(shape) * math.log(2))
