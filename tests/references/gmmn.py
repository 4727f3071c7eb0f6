"""GMMN and GMMN+AE (Li, Swersky & Zemel 2015, `arXiv:1502.02761`): the discrepancy pair by pair."""

import torch
from torch import Tensor

from tests.references.layers import Weights, linear, relu


def gaussians(x: Tensor, y: Tensor, bandwidths: tuple[float, ...]) -> Tensor:
    """k(x, y) = sum_q exp(-|x - y|^2 / (2 sigma_q)): sigma is a variance."""
    squared = ((x - y) ** 2).sum()
    return torch.stack([torch.exp(-squared / (2 * sigma)) for sigma in bandwidths]).sum()


def rational_quadratics(x: Tensor, y: Tensor, alphas: tuple[float, ...]) -> Tensor:
    """k(x, y) = sum_q (1 + |x - y|^2 / (2 alpha_q))^-alpha_q (Dziugaite, Roy & Ghahramani 2015)."""
    squared = ((x - y) ** 2).sum()
    return torch.stack([(1 + squared / (2 * alpha)) ** -alpha for alpha in alphas]).sum()


def polynomial(x: Tensor, y: Tensor, _: tuple[float, ...] = ()) -> Tensor:
    """k(x, y) = (x . y / F + 1)^3, of the kernel Inception distance (Binkowski et al. 2018)."""
    return ((x * y).sum() / len(x) + 1) ** 3


KERNELS = {"gaussian": gaussians, "rational_quadratic": rational_quadratics, "polynomial": polynomial}


def mmd2(x: Tensor, y: Tensor, bandwidths: tuple[float, ...], kernel: str = "gaussian", biased: bool = True) -> Tensor:
    """Equation 3: 1/N^2 sum k(x_i, x_i') - 2/NM sum k(x_i, y_j) + 1/M^2 sum k(y_j, y_j').

    Without bias a point is not paired with itself, and the numbers of pairs are N (N - 1) and M (M - 1).
    """
    k = KERNELS[kernel]

    def within(points: Tensor) -> Tensor:
        n = len(points)
        pairs = [k(points[i], points[j], bandwidths) for i in range(n) for j in range(n) if biased or i != j]
        return torch.stack(pairs).sum() / len(pairs)

    between = torch.stack([k(a, b, bandwidths) for a in x for b in y]).sum() / (len(x) * len(y))
    return within(x) - 2 * between + within(y)


def mmd2_gradient(x: Tensor, y: Tensor, bandwidths: tuple[float, ...]) -> Tensor:
    """By the samples y: d MMD^2 / d y_i = sum_q 2 / sigma_q sum_j w_i w_j k_q(y_i, z_j) (z_j - y_i).

    z are all points, w is -1/N for data and 1/M for samples.
    """
    points = [(a, -1 / len(x)) for a in x] + [(b, 1 / len(y)) for b in y]
    gradient = torch.zeros_like(y)
    for i in range(len(y)):
        for z, w in points:
            for sigma in bandwidths:
                gradient[i] += 2 / sigma / len(y) * w * gaussians(y[i], z, (sigma,)) * (z - y[i])
    return gradient


def generator(z: Tensor, p: Weights) -> Tensor:
    """Figure 1: rectified layers and a sigmoid."""
    names = sorted({name.rsplit(".", 1)[0] for name in p if name.startswith("generator.")})
    for name in names[:-1]:
        z = relu(linear(z, p, name))
    return torch.sigmoid(linear(z, p, names[-1]))


def encoder(x: Tensor, p: Weights) -> Tensor:
    """Sigmoids; what training drops, a fifth of the pixels and half of the units, weighs less here."""
    for number, dropped in enumerate((0.2, 0.5)):
        x = torch.sigmoid(linear((1 - dropped) * x, p, f"autoencoder.encoder.{number}"))
    return x


def decoder(code: Tensor, p: Weights) -> Tensor:
    for number in (1, 0):
        code = torch.sigmoid(linear(code, p, f"autoencoder.decoder.{number}"))
    return code


def gradients(data: Tensor, z: Tensor, p: Weights, bandwidths: tuple[float, ...]) -> Weights:
    """Of the loss sqrt(MMD^2) (equation 6) by the generator's weights: the gradient of MMD^2 over 2 sqrt(MMD^2)."""
    names = [name for name in p if name.startswith("generator.")]
    samples = generator(z, p)
    root = mmd2(data, samples.detach(), bandwidths) ** 0.5
    slope = mmd2_gradient(data, samples.detach(), bandwidths) / (2 * root)
    found = torch.autograd.grad(samples, [p[name] for name in names], slope)
    return dict(zip(names, found, strict=True))
