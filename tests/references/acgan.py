"""AC-GAN (Odena, Olah & Shlens 2017, `arXiv:1610.09585`): networks of appendix A in small, losses and updates."""

import torch
from torch import Tensor

from tests.references.layers import Adam, Weights, batch_norm, conv, deconv, gradients, linear, log_sigmoid, relu


def generator(z: Tensor, c: Tensor, p: Weights) -> Tensor:
    """X_fake = G(c, z), in [-1, 1]: 3 x 3 maps and two transposed convolutions of 5 x 5; c is one-hot."""
    h = relu(linear(torch.cat([z, c], 1), p, "generator.0")).unflatten(1, (-1, 3, 3))
    h = relu(batch_norm(deconv(h, p, "generator.3", 2, 2, 1), p, "generator.4", 1e-5))
    return torch.tanh(deconv(h, p, "generator.6", 2, 2, 1))


def discriminator(x: Tensor, p: Weights) -> tuple[Tensor, Tensor]:
    """The logit of P(S = real | X) and those of P(C | X); without dropout."""
    name = "discriminator.layers"
    h = relu(conv(x, p, f"{name}.0.0", 2, 1), 0.2)
    h = relu(batch_norm(conv(h, p, f"{name}.1.0", 1, 1), p, f"{name}.1.1", 1e-5), 0.2)
    h = relu(batch_norm(conv(h, p, f"{name}.2.0", 2, 1), p, f"{name}.2.1", 1e-5), 0.2)
    outputs = linear(h.flatten(1), p, "discriminator.output")
    return outputs[:, 0], outputs[:, 1:]


def log_class(logits: Tensor, labels: Tensor) -> Tensor:
    """E log P(C = c | X)."""
    rows = [row[c] - torch.log(torch.exp(row).sum()) for row, c in zip(logits, labels, strict=True)]
    return torch.stack(rows).mean()


def step(x: Tensor, c_real: Tensor, z: Tensor, c_fake: Tensor, p: Weights, adam_d: Adam, adam_g: Adam) -> None:
    """D maximises L_S + L_C (equations 2 and 3); then G maximises L_C - L_S, non-saturating, on the same noise.

    Args:
        x: images in [-1, 1].
        c_real: their labels.
        z: noise.
        c_fake: labels of the samples.
        p: the weights, which are replaced.
        adam_d: moves D.
        adam_g: moves G.
    """
    one_hot = torch.eye(int(p["discriminator.output.weight"].shape[0]) - 1, dtype=x.dtype)[c_fake]
    s_real, class_real = discriminator(x, p)
    s_fake, class_fake = discriminator(generator(z, one_hot, p), p)
    l_s = log_sigmoid(s_real).mean() + log_sigmoid(-s_fake).mean()
    l_c = log_class(class_real, c_real) + log_class(class_fake, c_fake)
    adam_d.step(p, gradients(-l_s - l_c, p, "discriminator."))
    s_fake, class_fake = discriminator(generator(z, one_hot, p), p)
    loss = -log_class(class_fake, c_fake) - log_sigmoid(s_fake).mean()
    adam_g.step(p, gradients(loss, p, "generator."))
