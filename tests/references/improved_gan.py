"""Improved techniques for training GANs (Salimans et al. 2016, `arXiv:1606.03498`): the semi-supervised MNIST nets."""

import torch
from torch import Tensor

from tests.references.layers import Weights, batch_norm, linear, log_sigmoid, relu


def softplus(a: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(a))


def log_sum_exp(logits: Tensor) -> Tensor:
    """log Z(x), of rows of K logits."""
    return torch.log(torch.exp(logits).sum(1))


def weight_norm(x: Tensor, p: Weights, name: str) -> Tensor:
    """y_k = s_k v_k . x / |v_k| + b_k (Salimans & Kingma 2016)."""
    v = p[name + ".layer.weight"]
    units = [s_k * (x @ v_k) / (v_k**2).sum() ** 0.5 for s_k, v_k in zip(p[name + ".scale"], v, strict=True)]
    return torch.stack(units, 1) + p[name + ".bias"]


def generator(z: Tensor, p: Weights) -> Tensor:
    h = softplus(batch_norm(linear(z, p, "generator.0"), p, "generator.1", 1e-6))
    h = softplus(batch_norm(linear(h, p, "generator.3"), p, "generator.4", 1e-6))
    return torch.sigmoid(weight_norm(h, p, "generator.6"))


def features(x: Tensor, p: Weights) -> Tensor:
    """f(x): D's last hidden layer, without the noise."""
    for number in (2, 5, 8, 11, 14):
        x = relu(weight_norm(x, p, f"discriminator.features.{number}"))
    return x


def minibatch_features(f: Tensor, p: Weights, kernels: int) -> Tensor:
    """Section 3.2: o(x_i)_b = sum_{j != i} exp(-|M_ib - M_jb|_1) with M_i = f(x_i) T; T's columns are normalised.

    In the authors' code an image is not compared with itself, and each kernel has a bias.
    """
    theta, name = p["discriminator.minibatch.weight"], "discriminator.minibatch"
    scale = torch.exp(p[f"{name}.log_scale"])
    rows = []
    for i in range(len(f)):
        row = []
        for b in range(kernels):
            t = theta[:, b] / (theta[:, b] ** 2).sum(0) ** 0.5 * scale[b]  # (A, C)
            near = [torch.exp(-(f[i] @ t - f[j] @ t).abs().sum()) for j in range(len(f)) if j != i]
            row.append(torch.stack(near).sum() + p[f"{name}.bias"][b])
        rows.append(torch.stack(row))
    return torch.cat([f, torch.stack(rows)], 1)


def discriminator(x: Tensor, p: Weights, kernels: int = 0) -> Tensor:
    """K logits, or one."""
    f = features(x, p)
    return weight_norm(minibatch_features(f, p, kernels) if kernels else f, p, "discriminator.head.1")


def supervised_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Section 5: -E log p(y | x, y < K + 1) = E [log Z(x) - l_y(x)]."""
    chosen = torch.stack([row[y] for row, y in zip(logits, labels, strict=True)])
    return (log_sum_exp(logits) - chosen).mean()


def unsupervised_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Section 5, halved as in the authors' code: -1/2 E log D(x) - 1/2 E log(1 - D(G(z))) with D = Z / (Z + 1)."""
    log_d = log_sum_exp(real) - softplus(log_sum_exp(real))
    log_not_d = -softplus(log_sum_exp(fake))
    return -log_d.mean() / 2 - log_not_d.mean() / 2


def binary_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Without classes: D is the sigmoid of its logit."""
    return -log_sigmoid(real).mean() / 2 - log_sigmoid(-fake).mean() / 2


def feature_matching(real: Tensor, fake: Tensor) -> Tensor:
    """Section 3.1: |E f(x) - E f(G(z))|^2, a mean over the features in the authors' code for MNIST."""
    return ((real.mean(0) - fake.mean(0)) ** 2).mean()


def saturating(fake: Tensor) -> Tensor:
    """E log(1 - D(G(z)))."""
    return -softplus(log_sum_exp(fake)).mean()


def non_saturating(fake: Tensor) -> Tensor:
    """-E log D(G(z))."""
    return (softplus(log_sum_exp(fake)) - log_sum_exp(fake)).mean()
