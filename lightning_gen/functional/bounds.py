"""Likelihoods and the bounds on them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gen.errors import DataError
from lightning_gen.functional.precision import widen
from lightning_gen.functional.shapes import check_same_shape


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
    check_same_shape(mean=mean, log_var=log_var)
    mean, log_var = widen(mean), widen(log_var)
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
    check_same_shape(last=3, images=images, logits=logits)
    images, logits = torch.broadcast_tensors(images, widen(logits))
    return -F.binary_cross_entropy_with_logits(logits, images, reduction="none").flatten(-3).sum(-1)


def bernoulli_entropy(probabilities: Tensor) -> Tensor:
    r"""Entropy of independent Bernoulli pixels, summed over pixels.

    $H(z, z) = -\sum_i z_i \log z_i + (1 - z_i) \log (1 - z_i)$: no cross-entropy H(z, y) of grey pixels z is less.

    Args:
        probabilities: of a pixel being 1, `(..., C, H, W)` in [0, 1].

    Returns:
        Nats, `(...)`.

    Raises:
        DataError: if one is no probability.

    >>> bernoulli_entropy(torch.tensor([[[0.0, 0.5, 1.0]]])) / math.log(2)
    tensor(1.)
    """
    z = widen(probabilities)
    if ((z < 0) | (z > 1)).any():
        raise DataError(f"Probabilities lie in [{z.min().item():g}, {z.max().item():g}]; expected [0, 1].")
    return -(torch.xlogy(z, z) + torch.xlogy(1 - z, 1 - z)).flatten(-3).sum(-1)


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
    check_same_shape(last=3, images=images, mean=mean)
    images, mean = widen(images), widen(mean)
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
    return torch.logsumexp(widen(log_weights), dim) - math.log(log_weights.shape[dim])


def effective_sample_size(log_weights: Tensor, dim: int = 0) -> Tensor:
    r"""How many equally weighted samples importance samples are worth, $(\sum_i w_i)^2 / \sum_i w_i^2$ (Kong 1992).

    1 of k says that a single sample makes the estimate, which then lies far below the likelihood.

    Args:
        log_weights: nats, the samples along `dim`.
        dim: the dimension of the samples.

    Returns:
        Between 1 and k, `log_weights` without `dim`.

    >>> effective_sample_size(torch.tensor([0.0, 0.0, -math.inf]))
    tensor(2.)
    """
    log_weights = widen(log_weights)
    return (2 * torch.logsumexp(log_weights, dim) - torch.logsumexp(2 * log_weights, dim)).exp()


def dequantize(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    r"""Add uniform noise to 8-bit pixels, so that a density of what comes out bounds a probability of what went in.

    With u uniform in the unit cube, $E_u \log q((k + u) / 256) - D \log 256 \le \log Q(k)$, where Q is the mass that
    the density q has on the pixels' cell; the density of the bare values, a lattice, has no upper limit (Theis et al.
    2016, section 3.1).

    Args:
        images: multiples of 1 / 255 in [0, 1].
        generator: source of the noise on the images' device; the global one if None.

    Returns:
        `(255 * images + u) / 256`, in [0, 1).

    >>> noisy = dequantize(torch.tensor([0.0, 1.0]))
    >>> (noisy * 256).floor()
    tensor([  0., 255.])
    """
    noise = torch.rand(images.shape, generator=generator, dtype=images.dtype, device=images.device)
    pixels = (255 * images).round()
    return torch.minimum(pixels + noise, torch.nextafter(pixels + 1, pixels)) / 256  # Rounded up it is the next cell.


def bits_per_dim(nll: float, shape: Sequence[int]) -> float:
    """Nats per image as bits per dimension (a pixel's channel).

    Args:
        nll: negative log-probability of one image of discrete pixels, in nats.
        shape: the image's shape.

    >>> bits_per_dim(784 * math.log(2), (1, 28, 28))
    1.0
    """
    return nll / (math.prod(shape) * math.log(2))
