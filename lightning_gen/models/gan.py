r"""Generative adversarial network.

Goodfellow et al., "Generative Adversarial Nets" (2014), https://arxiv.org/abs/1406.2661.

A generator G and a discriminator D play

    min_G max_D  E[log D(x)] + E[log(1 - D(G(z)))]                        (equation 1)

where G in practice maximises log D(G(z)) (section 3). Networks, noise and schedules are those of the authors' MNIST
experiment; both networks are updated at once, from one forward pass. See configs/gan/README.md for what differs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gen.arguments import Count, ImageShape, NonNegative, Positive, Share, Size
from lightning_gen.functional.adversarial import discriminator_loss, non_saturating_loss, saturating_loss
from lightning_gen.functional.latent import to_sphere, uniform_from_normal
from lightning_gen.models.adversarial import AdversarialModule
from lightning_gen.models.base import Condition, as_batch
from lightning_gen.nn.convolutional_maxout import ConvolutionalDiscriminator, ConvolutionalGenerator
from lightning_gen.nn.maxout import Maxout


class Generator(nn.Module):
    """Two layers, the first one rectified, and a sigmoid for each pixel; weights uniform in [-0.05, 0.05]."""

    def __init__(self, latent_dim: int, hidden_size: int, second_layer: str, image_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.second_activation = torch.relu if second_layer == "relu" else torch.sigmoid
        self.image_shape = image_shape
        self.hidden1 = nn.Linear(latent_dim, hidden_size)
        self.hidden2 = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, math.prod(image_shape))
        for layer in (self.hidden1, self.hidden2, self.output):
            nn.init.uniform_(layer.weight, -0.05, 0.05)
            nn.init.zeros_(layer.bias)

    def forward(self, z: Tensor) -> Tensor:
        hidden = self.second_activation(self.hidden2(self.hidden1(z).relu()))  # (N, H)
        return self.output(hidden).sigmoid().unflatten(-1, self.image_shape)  # (N, C, H, W)


class Discriminator(nn.Sequential):
    """Two maxout layers and a logit, with dropout before each; weights uniform in [-0.005, 0.005]."""

    def __init__(self, num_pixels: int, units: int, pieces: int, input_dropout: float, hidden_dropout: float) -> None:
        logit = nn.Linear(units, 1)
        nn.init.uniform_(logit.weight, -0.005, 0.005)
        nn.init.zeros_(logit.bias)
        super().__init__(
            nn.Flatten(),
            nn.Dropout(input_dropout),
            Maxout(num_pixels, units, pieces, irange=0.005),
            nn.Dropout(hidden_dropout),
            Maxout(units, units, pieces, irange=0.005),
            nn.Dropout(hidden_dropout),
            logit,
        )  # (N, C, H, W) -> (N, 1)


def mean_image(batches: Iterable[Tensor]) -> Tensor:
    """Mean of each pixel over batches of images `(N, C, H, W)`, `(C * H * W,)`, kept off 0 and 1.

    Border pixels are always black, and their logit would be infinite.
    """
    total, count = torch.zeros(()), 0
    for images in batches:
        total = total + images.cpu().flatten(1).sum(0, dtype=torch.float64)
        count += len(images)
    return (total / count).clamp(1e-7, 1 - 1e-7)


class DecayedSGD(AdversarialModule):
    """The authors' optimisation: a step size that falls with every batch, a momentum that grows with every epoch.

    Its settings are the hyper-parameters `lr`, `lr_decay`, `lr_min`, `momentum` and `momentum_epochs`.
    """

    generator: nn.Module
    discriminator: nn.Module

    def decay_lr(self) -> None:
        """Divide the step sizes by `lr_decay`, down to `lr_min`; once a batch."""
        for optimizer in self.own_optimizers():
            for group in optimizer.param_groups:
                group["lr"] = max(group["lr"] / self.hparams["lr_decay"], self.hparams["lr_min"])

    def on_train_epoch_start(self) -> None:
        """Raise the momentum, if the optimizers have one."""
        for optimizer in self.own_optimizers():
            for group in optimizer.param_groups:
                if "momentum" in group:
                    group["momentum"] = self.momentum_at(self.current_epoch)

    def momentum_at(self, epoch: float) -> float:
        """Momentum in an epoch, counted from 0: linear from epoch 1 to `momentum_epochs`."""
        start, end = self.hparams["momentum"]
        progress = min(max((epoch - 1) / max(self.hparams["momentum_epochs"] - 1, 1), 0.0), 1.0)
        return (1 - progress) * start + progress * end

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimizer for the discriminator, one for the generator."""
        lr, (momentum, _) = self.hparams["lr"], self.hparams["momentum"]
        return [
            torch.optim.SGD(network.parameters(), lr=lr, momentum=momentum)
            for network in (self.discriminator, self.generator)
        ]


class GAN(DecayedSGD):
    """The adversarial nets of 2014: a generator against a maxout discriminator with dropout.

    Args:
        image_shape: `(C, H, W)`.
        network: `fully_connected`, or `convolutional`, the paper's last net for CIFAR-10, for 32 x 32 pixels.
        latent_dim: length of the noise z.
        noise: of unit variance, `uniform` in [-sqrt(3), sqrt(3)] or `gaussian`.
        spherical_z: project the noise onto the sphere of radius sqrt(latent_dim).
        hidden_size: units of the generator's two layers; the convolutional one has a map for a hundred units.
        second_layer: activation of the second one, `sigmoid` in the authors' experiments on faces and CIFAR-10, and
            always in the convolutional net.
        maxout_channels: of the convolutional discriminator's three convolutions.
        maxout_units: units of the discriminator's two layers, or of its one layer after convolutions.
        maxout_pieces: affine maps that each unit takes the maximum of.
        input_dropout: share of the pixels that the discriminator does not see.
        hidden_dropout: share of each of its layers that is dropped.
        generator_loss: `non_saturating` -log D(G(z)), or `saturating` log(1 - D(G(z))).
        discriminator_steps: batches for each update of the generator, the paper's k.
        label_smoothing: the discriminator's target for real images is 1 minus this (Salimans et al. 2016).
        input_noise: see `AdversarialModule`; in units of the images' range [0, 1].
        input_noise_epochs: see `AdversarialModule`.
        lr: step size at the start.
        lr_decay: the step size is divided by this after every batch.
        lr_min: and never falls below this.
        momentum: at the start, and from epoch `momentum_epochs` on.
        momentum_epochs: momentum grows linearly from epoch 1 to this one.
        gradient_clip_val: see `AdversarialModule`.
        accumulate_grad_batches: see `AdversarialModule`.
    """

    generator: Generator | ConvolutionalGenerator

    def __init__(
        self,
        image_shape: ImageShape = (1, 28, 28),
        network: Literal["fully_connected", "convolutional"] = "fully_connected",
        latent_dim: Size = 100,
        noise: Literal["uniform", "gaussian"] = "uniform",
        spherical_z: bool = False,
        hidden_size: Size = 1200,
        second_layer: Literal["relu", "sigmoid"] = "relu",
        maxout_channels: tuple[Size, Size, Size] = (32, 32, 192),
        maxout_units: Size = 240,
        maxout_pieces: Size = 5,
        input_dropout: Share = 0.2,
        hidden_dropout: Share = 0.5,
        generator_loss: Literal["non_saturating", "saturating"] = "non_saturating",
        discriminator_steps: Size = 1,
        label_smoothing: Share = 0.0,
        input_noise: NonNegative = 0.0,
        input_noise_epochs: Size | None = None,
        lr: NonNegative = 0.1,
        lr_decay: Positive = 1.000004,
        lr_min: NonNegative = 1e-6,
        momentum: tuple[Share, Share] = (0.5, 0.7),
        momentum_epochs: Count = 250,
        gradient_clip_val: NonNegative | None = None,
        accumulate_grad_batches: Size = 1,
    ) -> None:
        super().__init__(gradient_clip_val, accumulate_grad_batches, input_noise, input_noise_epochs)
        self.save_hyperparameters()
        self.image_shape = tuple(map(int, image_shape))
        self.latent_dim = latent_dim
        self.noise = noise
        self.spherical_z = spherical_z
        self.real_target = 1 - label_smoothing
        self.discriminator_steps = discriminator_steps
        self.generator_loss = non_saturating_loss if generator_loss == "non_saturating" else saturating_loss
        dropout = (input_dropout, hidden_dropout)
        if network == "convolutional":
            self.generator = ConvolutionalGenerator(latent_dim, hidden_size, self.image_shape)
            self.discriminator = ConvolutionalDiscriminator(
                image_shape[0], maxout_channels, maxout_units, maxout_pieces, *dropout
            )
        else:
            self.generator = Generator(latent_dim, hidden_size, second_layer, self.image_shape)
            self.discriminator = Discriminator(math.prod(self.image_shape), maxout_units, maxout_pieces, *dropout)

    def initialize_from(self, batches: Iterable[Any]) -> None:
        """Set the generator's output bias so that it starts from the mean image of the data."""
        mean = mean_image(as_batch(batch)["image"] for batch in batches)
        self.generator.output.bias.data.copy_(mean.logit())

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw noise of unit variance, `(num_samples, latent_dim)`."""
        shape = (num_samples, self.latent_dim)
        if self.noise == "gaussian":
            z = torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)
        else:
            z = (2 * torch.rand(shape, generator=generator, device=self.device, dtype=self.dtype) - 1) * math.sqrt(3)
        return to_sphere(z) if self.spherical_z else z

    def latent_from_normal(self, u: Tensor) -> Tensor:
        """Noise as `sample_latent` draws it, as a function of draws u of N(0, I); both `(..., latent_dim)`."""
        z = u if self.noise == "gaussian" else uniform_from_normal(u, -math.sqrt(3), math.sqrt(3))
        return to_sphere(z) if self.spherical_z else z

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The images that the generator makes of noise, `(N, latent_dim) -> (N, *image_shape)` in [0, 1]."""
        return self.generator(z)

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        return self.decode(self.sample_latent(num_samples, generator))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Algorithm 1, both updates from one forward pass as in the authors' code."""
        optimizer_d, optimizer_g = self.optimizers()  # type: ignore[attr-defined]
        images = self.as_batch(batch)["image"]

        fake = self.generator(self.sample_latent(len(images)))
        real_logits, fake_logits = self.discriminator(self.add_input_noise(torch.cat([images, fake]))).chunk(2)
        loss_d = discriminator_loss(real_logits, fake_logits, self.real_target)
        loss_g = self.generator_loss(fake_logits)  # Through the same dropout masks.

        if (batch_idx + 1) % self.discriminator_steps == 0:
            self.step((optimizer_d, loss_d), (optimizer_g, loss_g))
        else:
            self.step((optimizer_d, loss_d))

        self.decay_lr()
        self.log_dict({"train/loss_d": loss_d, "train/loss_g": loss_g}, prog_bar=True)
