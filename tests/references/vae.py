"""VAE (Kingma & Welling 2014, `arXiv:1312.6114`): the bound of one image, dimension by dimension.

Rank-one posterior: Rezende, Mohamed & Wierstra 2014 (`arXiv:1401.4082`), section 4.3. Importance-weighted bound: Burda,
Grosse & Salakhutdinov 2016 (`arXiv:1509.00519`), equation 8.
"""

import math

import torch
from torch import Tensor


def mlp(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """Appendix C: one hidden layer of tanh."""
    return w2 @ torch.tanh(w1 @ x + b1) + b2


def log_bernoulli(x: Tensor, logits: Tensor) -> float:
    """Equation 11: sum_d x_d log y_d + (1 - x_d) log(1 - y_d)."""
    total = 0.0
    for x_d, a_d in zip(x.tolist(), logits.tolist(), strict=True):
        y_d = 1 / (1 + math.exp(-a_d))
        total += x_d * math.log(y_d) + (1 - x_d) * math.log(1 - y_d)
    return total


def log_normal(x: Tensor, mean: Tensor, var: Tensor) -> float:
    """Equation 12: log N(x; mean, diag var)."""
    total = 0.0
    for x_d, m_d, v_d in zip(x.tolist(), mean.tolist(), var.tolist(), strict=True):
        total -= 0.5 * (math.log(2 * math.pi * v_d) + (x_d - m_d) ** 2 / v_d)
    return total


def log_likelihood(x: Tensor, outputs: Tensor, decoder: str) -> float:
    """log p(x|z) of what the decoder puts out; a Gaussian's mean lies in (0, 1)."""
    if decoder == "bernoulli":
        return log_bernoulli(x, outputs)
    if decoder == "gaussian":  # With a variance of one.
        return log_normal(x, torch.sigmoid(outputs), torch.ones_like(x))
    mean, log_var = outputs[: len(x)], outputs[len(x) :]
    return log_normal(x, torch.sigmoid(mean), torch.exp(log_var))


def kl(mean: Tensor, log_var: Tensor) -> float:
    """Appendix B: KL(N(mean, diag sigma^2) || N(0, I)) = -1/2 sum_j (1 + log sigma_j^2 - mu_j^2 - sigma_j^2)."""
    total = 0.0
    for m_j, l_j in zip(mean.tolist(), log_var.tolist(), strict=True):
        total -= 0.5 * (1 + l_j - m_j**2 - math.exp(l_j))
    return total


def elbo(x: Tensor, p: dict[str, Tensor], eps: Tensor, decoder: str) -> float:
    """Equation 10: -KL + 1/L sum_l log p(x | z_l) with z_l = mu + sigma eps_l, of one image."""
    mean, log_var = encode(x, p)
    return -kl(mean, log_var) + sum(log_likelihood(x, decode(z, p), decoder) for z in latents(x, p, eps)) / len(eps)


def importance_weighted_bound(x: Tensor, p: dict[str, Tensor], eps: Tensor, decoder: str) -> float:
    """log 1/k sum_i w_i with w_i = p(x | z_i) p(z_i) / q(z_i | x)."""
    mean, log_var = encode(x, p)
    total = 0.0
    for z in latents(x, p, eps):
        log_p = log_likelihood(x, decode(z, p), decoder) + log_normal(z, torch.zeros_like(z), torch.ones_like(z))
        total += math.exp(log_p - log_normal(z, mean, log_var.exp()))
    return math.log(total / len(eps))


def encode(x: Tensor, p: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    outputs = mlp(x, p["encoder.0.weight"], p["encoder.0.bias"], p["encoder.2.weight"], p["encoder.2.bias"])
    return outputs[: len(outputs) // 2], outputs[len(outputs) // 2 :]


def latents(x: Tensor, p: dict[str, Tensor], eps: Tensor) -> list[Tensor]:
    mean, log_var = encode(x, p)
    return [mean + torch.exp(log_var / 2) * e for e in eps]


def decode(z: Tensor, p: dict[str, Tensor]) -> Tensor:
    return mlp(z, p["decoder.0.weight"], p["decoder.0.bias"], p["decoder.2.weight"], p["decoder.2.bias"])


def rank_one_covariance(d: Tensor, u: Tensor) -> Tensor:
    """The inverse of the precision D + u u^T, D = diag(d)."""
    return torch.linalg.inv(torch.diag(d) + torch.outer(u, u))


def rank_one_root(d: Tensor, u: Tensor) -> Tensor:
    """Rezende et al., equation 22: R = D^{-1/2} - [(1 - sqrt(eta)) / (u^T D^{-1} u)] D^{-1} u u^T D^{-1/2}."""
    size = len(d)
    u_d_u = sum(u[j] ** 2 / d[j] for j in range(size))
    eta = 1 / (u_d_u + 1)
    root = torch.zeros(size, size, dtype=d.dtype)
    for i in range(size):
        for j in range(size):
            root[i, j] = (i == j) * d[i] ** -0.5 - (1 - eta**0.5) / u_d_u * u[i] / d[i] * u[j] * d[j] ** -0.5
    return root


def full_kl(mean: Tensor, covariance: Tensor) -> Tensor:
    """KL(N(mean, C) || N(0, I)) = 1/2 (tr C + mean^T mean - J - log |C|)."""
    return (torch.trace(covariance) + mean @ mean - len(mean) - torch.logdet(covariance)) / 2


def log_full_normal(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """log N(x; mean, C)."""
    squares = (x - mean) @ torch.linalg.inv(covariance) @ (x - mean)
    return -(squares + torch.logdet(covariance) + len(x) * math.log(2 * math.pi)) / 2
