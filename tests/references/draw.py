"""DRAW (Gregor et al. 2015, `arXiv:1502.04623`): one image, glimpse by glimpse."""

import math

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def linear(x: Tensor, p: Weights, name: str) -> Tensor:
    """W(x): "a linear weight matrix with bias"."""
    return p[name + ".weight"] @ x + p[name + ".bias"]


def lstm(x: Tensor, h: Tensor, c: Tensor, p: Weights, name: str) -> tuple[Tensor, Tensor]:
    """LSTM with forget gates; input, forget, candidate and output lie side by side."""
    gates = p[name + ".weight_ih"] @ x + p[name + ".bias_ih"] + p[name + ".weight_hh"] @ h + p[name + ".bias_hh"]
    i, f, g, o = gates.chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def filterbanks(parameters: Tensor, n: int, width: int, height: int) -> tuple[Tensor, Tensor, float]:
    """Equations 19 to 26: F_X `(n, width)`, F_Y `(n, height)` and the intensity gamma.

    Args:
        parameters: (g_X~, g_Y~, log sigma^2, log delta~, log gamma), equation 21.
        n: N, filters in each direction.
        width: A.
        height: B.
    """
    gx_, gy_, log_var, log_delta, log_gamma = parameters.tolist()
    gx = (width + 1) / 2 * (gx_ + 1)  # 22
    gy = (height + 1) / 2 * (gy_ + 1)  # 23
    delta = (max(width, height) - 1) / (n - 1) * math.exp(log_delta)  # 24
    banks = []
    for centre, size in ((gx, width), (gy, height)):
        bank = torch.zeros(n, size, dtype=torch.float64)
        for i in range(1, n + 1):
            mu = centre + (i - n / 2 - 0.5) * delta  # 19, 20
            for a in range(1, size + 1):
                bank[i - 1, a - 1] = math.exp(-((a - mu) ** 2) / (2 * math.exp(log_var)))  # 25, 26
            bank[i - 1] /= bank[i - 1].sum()
        banks.append(bank)
    return banks[0], banks[1], math.exp(log_gamma)


def read(x: Tensor, error: Tensor, h_dec: Tensor, p: Weights, n: int | None) -> Tensor:
    """Equation 27: gamma [F_Y x F_X^T, F_Y x^ F_X^T]; without attention [x, x^] (17)."""
    if n is None:
        return torch.cat([x.flatten(), error.flatten()])
    f_x, f_y, gamma = filterbanks(linear(h_dec, p, "cell.reader.linear"), n, x.shape[2], x.shape[1])
    patches = [gamma * f_y @ channel @ f_x.T for image in (x, error) for channel in image]
    return torch.stack(patches).flatten()


def write(h_dec: Tensor, p: Weights, n: int | None, shape: tuple[int, ...]) -> Tensor:
    """Equation 29: F_Y^T w F_X / gamma; without attention W(h_dec) (18)."""
    w = linear(h_dec, p, "cell.patch")
    if n is None:
        return w.view(shape)
    f_x, f_y, gamma = filterbanks(linear(h_dec, p, "cell.writer.linear"), n, shape[2], shape[1])
    return torch.stack([f_y.T @ channel @ f_x / gamma for channel in w.view(shape[0], n, n)])


def run(x: Tensor, eps: Tensor, p: Weights, n_read: int | None, n_write: int | None) -> tuple[Tensor, float, float]:
    """Equations 3 to 8, and what the bounds need.

    Args:
        x: `(C, H, W)`.
        eps: noise of each glimpse, `(T, J)`.
        p: the weights.
        n_read: N of the reader, None without attention.
        n_write: N of the writer.

    Returns:
        The last canvas; the loss of the latents, L^z (11); and log p(z) - log q(z | x) of the whole trajectory.
    """
    canvas, h_enc, h_dec = p["canvas"], p["hidden_enc"], p["hidden_dec"]
    c_enc, c_dec = torch.zeros_like(h_enc), torch.zeros_like(h_dec)
    loss_z, log_ratio = 0.0, 0.0
    for noise in eps:
        error = x - torch.sigmoid(canvas)  # 3
        r = read(x, error, h_dec, p, n_read)  # 4
        h_enc, c_enc = lstm(torch.cat([r, h_dec]), h_enc, c_enc, p, "cell.encoder")  # 5
        mu, log_sigma = linear(h_enc, p, "cell.posterior").chunk(2)  # 1, 2
        sigma = torch.exp(log_sigma)
        z = mu + sigma * noise  # 6
        h_dec, c_dec = lstm(z, h_dec, c_dec, p, "cell.decoder")  # 7
        canvas = canvas + write(h_dec, p, n_write, tuple(x.shape))  # 8
        for m, s, e, z_j in zip(mu.tolist(), sigma.tolist(), noise.tolist(), z.tolist(), strict=True):
            loss_z += 0.5 * (m**2 + s**2 - math.log(s**2) - 1)  # 11
            log_ratio += -0.5 * z_j**2 - (-0.5 * e**2 - math.log(s))
    return canvas, loss_z, log_ratio


def reconstruction_loss(x: Tensor, canvas: Tensor) -> float:
    """Equation 9: L^x = -log D(x | c_T), Bernoulli with means sigmoid(c_T)."""
    total = 0.0
    for x_d, c_d in zip(x.flatten().tolist(), canvas.flatten().tolist(), strict=True):
        mean = 1 / (1 + math.exp(-c_d))
        total -= x_d * math.log(mean) + (1 - x_d) * math.log(1 - mean)
    return total
