"""GAN (Goodfellow et al. 2014, `arXiv:1406.2661`), CGAN (Mirza & Osindero 2014, `arXiv:1411.1784`) and DCGAN (Radford,
Metz & Chintala 2016, `arXiv:1511.06434`): networks, losses and updates.
"""

import torch
from torch import Tensor

from tests.references.layers import (
    Adam,
    Momentum,
    Weights,
    batch_norm,
    conv,
    deconv,
    gradients,
    linear,
    log_sigmoid,
    maxout,
    relu,
)

# Losses of D's logits: D = sigmoid(logit), 1 - D = sigmoid(-logit) ----------------------------------------------------


def loss_d(real: Tensor, fake: Tensor) -> Tensor:
    """-1/m sum_i [log D(x_i) + log(1 - D(G(z_i)))] (algorithm 1)."""
    return -sum((log_sigmoid(a) for a in real.flatten()), torch.tensor(0.0)) / len(real) - sum(
        (log_sigmoid(-a) for a in fake.flatten()), torch.tensor(0.0)
    ) / len(fake)


def loss_g(fake: Tensor) -> Tensor:
    """-1/m sum_i log D(G(z_i)): section 3, "rather than training G to minimize log(1 - D(G(z)))"."""
    return -sum((log_sigmoid(a) for a in fake.flatten()), torch.tensor(0.0)) / len(fake)


# GAN ------------------------------------------------------------------------------------------------------------------


def gan_generator(z: Tensor, p: Weights) -> Tensor:
    h = relu(linear(z, p, "generator.hidden1"))
    return torch.sigmoid(linear(relu(linear(h, p, "generator.hidden2")), p, "generator.output"))


def gan_discriminator(x: Tensor, p: Weights, pieces: int) -> Tensor:
    h = maxout(maxout(x, p, "discriminator.2", pieces), p, "discriminator.4", pieces)
    return linear(h, p, "discriminator.6")


def gan_step(x: Tensor, z: Tensor, p: Weights, pieces: int, optimizer: Momentum) -> None:
    """Both players move at once, from one forward pass; the authors' code halves D's loss."""
    real, fake = gan_discriminator(x, p, pieces), gan_discriminator(gan_generator(z, p), p, pieces)
    g = gradients(loss_d(real, fake) / 2, p, "discriminator.") | gradients(loss_g(fake), p, "generator.")
    optimizer.step(p, g)


# CGAN -----------------------------------------------------------------------------------------------------------------


def cgan_generator(z: Tensor, y: Tensor, p: Weights) -> Tensor:
    h = torch.cat([relu(linear(z, p, "generator.noise")), relu(linear(y, p, "generator.condition"))], 1)
    return torch.sigmoid(linear(relu(linear(h, p, "generator.joint")), p, "generator.output"))


def cgan_discriminator(x: Tensor, y: Tensor, p: Weights, pieces: tuple[int, int]) -> Tensor:
    h = [maxout(x, p, "discriminator.image", pieces[0]), maxout(y, p, "discriminator.condition", pieces[0])]
    return linear(maxout(torch.cat(h, 1), p, "discriminator.joint", pieces[1]), p, "discriminator.logit")


def cgan_step(x: Tensor, y: Tensor, z: Tensor, p: Weights, pieces: tuple[int, int], optimizer: Momentum) -> None:
    """Equation 2, as `gan_step`; samples have the conditions of the batch."""
    real, fake = cgan_discriminator(x, y, p, pieces), cgan_discriminator(cgan_generator(z, y, p), y, p, pieces)
    g = gradients(loss_d(real, fake) / 2, p, "discriminator.") | gradients(loss_g(fake), p, "generator.")
    optimizer.step(p, g)


# DCGAN ----------------------------------------------------------------------------------------------------------------


def dcgan_generator(z: Tensor, p: Weights) -> Tensor:
    """16 x 16: 4 x 4 maps and two transposed convolutions of 5 x 5 and stride 2; values in [-1, 1]."""
    h = relu(batch_norm(linear(z, p, "generator.0"), p, "generator.1", 1e-8)).unflatten(1, (-1, 4, 4))
    h = relu(batch_norm(deconv(h, p, "generator.4", 2, 2, 1), p, "generator.5", 1e-8))
    return torch.tanh(deconv(h, p, "generator.7", 2, 2, 1))


def dcgan_discriminator(x: Tensor, p: Weights) -> Tensor:
    h = relu(conv(x, p, "discriminator.layers.0.0", 2, 2), 0.2)
    h = conv(h, p, "discriminator.layers.1.0", 2, 2)
    return linear(relu(batch_norm(h, p, "discriminator.layers.1.1", 1e-8), 0.2).flatten(1), p, "discriminator.logit")


def dcgan_step(x: Tensor, z: Tensor, p: Weights, adam_d: Adam, adam_g: Adam) -> None:
    """D moves on images and on samples, each a batch with statistics of its own; then G, on the same noise.

    Args:
        x: images in [-1, 1].
        z: noise.
        p: the weights, which are replaced.
        adam_d: moves D.
        adam_g: moves G.
    """
    loss = loss_d(dcgan_discriminator(x, p), dcgan_discriminator(dcgan_generator(z, p), p))
    adam_d.step(p, gradients(loss, p, "discriminator."))
    adam_g.step(p, gradients(loss_g(dcgan_discriminator(dcgan_generator(z, p), p)), p, "generator."))
