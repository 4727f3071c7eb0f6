r"""Deep convolutional generative adversarial network.

Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks" (2016), https://arxiv.org/abs/1511.06434.

The game of Goodfellow et al. 2014 between two convolutional networks without pooling and without hidden fully
connected layers: strides change the size of maps, and batch normalisation stands after every layer but the generator's
output and the discriminator's input (section 3). For each batch

    D descends  -mean log D(x) - mean log(1 - D(G(z))),    then G  -mean log D(G(z))

through the discriminator that has just moved, on the same G(z). See configs/dcgan/README.md for what differs.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from lightning_gen.arguments import Decay, ImageShape, NonNegative, Share, Size
from lightning_gen.errors import DataError
from lightning_gen.functional.adversarial import discriminator_loss, non_saturating_loss
from lightning_gen.functional.latent import to_sphere, uniform_from_normal
from lightning_gen.models.adversarial import AdversarialModule
from lightning_gen.models.base import Condition
from lightning_gen.nn.initialization import initialize_normal

SIDES = {16: 4, 32: 4, 64: 4, 128: 4, 28: 7, 56: 7, 112: 7}
"""Sides of images, and of the smallest maps that are halved or doubled to get there (7 in the paper's MNIST net)."""


def widths(image_shape: tuple[int, ...], base_channels: int) -> list[int]:
    """Channels from the image to the smallest maps: 3, 128, 256, 512, 1024 for 64 x 64 in colour."""
    num_layers = (image_shape[1] // SIDES[image_shape[1]]).bit_length() - 1
    return [image_shape[0], *(int(base_channels) * 2**i for i in range(num_layers))]


class Generator(nn.Sequential):
    """Noise is projected to the smallest maps, which fractionally strided convolutions double; tanh at the end."""

    def __init__(self, latent_dim: int, image_shape: tuple[int, ...], base_channels: int, kernel_size: int) -> None:
        side = SIDES[image_shape[1]]
        *hidden, channels = reversed(widths(image_shape, base_channels))
        units = hidden[0] * side**2
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, units, bias=False),
            nn.BatchNorm1d(units, eps=1e-8),
            nn.ReLU(),
            nn.Unflatten(1, (hidden[0], side, side)),
        ]
        size: dict[str, Any] = {"stride": 2, "padding": (kernel_size - 1) // 2, "output_padding": kernel_size % 2}
        for before, after in pairwise(hidden):  # Each doubles the side.
            layers += [
                nn.ConvTranspose2d(before, after, kernel_size, bias=False, **size),
                nn.BatchNorm2d(after, eps=1e-8),
                nn.ReLU(),
            ]
        output = nn.ConvTranspose2d(hidden[-1], channels, kernel_size, bias=False, **size)
        super().__init__(*layers, output, nn.Tanh())  # (N, latent_dim) -> (N, C, H, W) in (-1, 1)
        initialize_normal(self)


class Discriminator(nn.Module):
    """Strided convolutions with leaky rectifiers, and a logit of the last maps."""

    def __init__(self, image_shape: tuple[int, ...], base_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for index, (before, after) in enumerate(pairwise(widths(image_shape, base_channels))):
            convolution = nn.Conv2d(before, after, kernel_size, stride=2, padding=(kernel_size - 1) // 2, bias=False)
            norm = [nn.BatchNorm2d(after, eps=1e-8)] if index else []
            self.layers.append(nn.Sequential(convolution, *norm, nn.LeakyReLU(0.2)))
        self.logit = nn.Linear(after * SIDES[image_shape[1]] ** 2, 1, bias=False)
        initialize_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images in [0, 1], `(N, C, H, W) -> (N, 1)`."""
        return self.logit(self.layers(2 * images - 1).flatten(1))

    def features(self, images: Tensor) -> Tensor:
        """What all layers see in images, each layer's maps max-pooled to 4 x 4 (section 5.1).

        Args:
            images: `(N, C, H, W)` in [0, 1].

        Returns:
            `(N, 16 * (base_channels + 2 * base_channels + ...))`.
        """
        maps, features = 2 * images - 1, []
        for layer in self.layers:
            maps = layer(maps)
            features.append(F.adaptive_max_pool2d(maps, 4).flatten(1))
        return torch.cat(features, dim=1)


class DCGAN(AdversarialModule):
    """The convolutional adversarial nets of 2015, for square images of a side in `SIDES`.

    Args:
        image_shape: `(C, H, W)`; the paper's 64 x 64 network by default.
        latent_dim: length of the noise z, uniform in [-1, 1].
        spherical_z: project the noise onto the sphere of radius sqrt(latent_dim).
        base_channels: channels of the discriminator's first layer and of the generator's last hidden one; each halving
            of the side doubles them.
        kernel_size: of all convolutions; 5, or 4 as in the second author's code in Torch.
        label_smoothing: the discriminator's target for real images is 1 minus this (Salimans et al. 2016).
        input_noise: see `AdversarialModule`; in units of the images' range [0, 1].
        input_noise_epochs: see `AdversarialModule`.
        lr: Adam's step size.
        betas: Adam's decay rates.
        weight_decay: added to the gradient of every parameter, times the parameter; of the authors' code.
        gradient_clip_val: see `AdversarialModule`.
        accumulate_grad_batches: see `AdversarialModule`.

    Raises:
        DataError: if there is no network for such images.
    """

    def __init__(
        self,
        image_shape: ImageShape = (3, 64, 64),
        latent_dim: Size = 100,
        spherical_z: bool = False,
        base_channels: Size = 128,
        kernel_size: Size = 5,
        label_smoothing: Share = 0.0,
        input_noise: NonNegative = 0.0,
        input_noise_epochs: Size | None = None,
        lr: NonNegative = 2e-4,
        betas: tuple[Decay, Decay] = (0.5, 0.999),
        weight_decay: NonNegative = 1e-5,
        gradient_clip_val: NonNegative | None = None,
        accumulate_grad_batches: Size = 1,
    ) -> None:
        super().__init__(gradient_clip_val, accumulate_grad_batches, input_noise, input_noise_epochs)
        self.save_hyperparameters()
        self.image_shape = tuple(image_shape)
        if self.image_shape[1] not in SIDES or self.image_shape[1:] != (self.image_shape[1],) * 2:
            raise DataError(
                f"DCGAN got image_shape={self.image_shape}; it makes square images with a side of "
                f"{', '.join(map(str, sorted(SIDES)))}: let the data be scaled to one of them."
            )
        self.latent_dim = latent_dim
        self.spherical_z = spherical_z
        self.real_target = 1 - label_smoothing
        self.generator = Generator(latent_dim, self.image_shape, base_channels, kernel_size)
        self.discriminator = Discriminator(self.image_shape, base_channels, kernel_size)

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw noise, uniform in [-1, 1], `(num_samples, latent_dim)`."""
        z = 2 * torch.rand(num_samples, self.latent_dim, generator=generator, device=self.device) - 1
        return to_sphere(z) if self.spherical_z else z

    def latent_from_normal(self, u: Tensor) -> Tensor:
        """Noise as `sample_latent` draws it, as a function of draws u of N(0, I); both `(..., latent_dim)`."""
        z = uniform_from_normal(u, -1, 1)
        return to_sphere(z) if self.spherical_z else z

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The images that the generator makes of noise, `(N, latent_dim) -> (N, *image_shape)` in [0, 1]."""
        return self.generator(z) / 2 + 0.5

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        return self.decode(self.sample_latent(num_samples, generator))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Update D on real and on generated images, which batch normalisation sees apart, then G on the latter."""
        optimizer_d, optimizer_g = self.optimizers()  # type: ignore[attr-defined]
        images = self.as_batch(batch)["image"]
        if len(images) < 2:
            raise DataError(
                "A batch of one image was given, which batch normalisation makes zero of; give data.batch_size at "
                "least 2, and one that does not leave a single image for the end of the epoch."
            )

        fake = self.decode(self.sample_latent(len(images)))
        real_logits = self.discriminator(self.add_input_noise(images))
        fake_logits = self.discriminator(self.add_input_noise(fake))
        loss_d = 2 * discriminator_loss(real_logits, fake_logits, self.real_target)  # The paper has no factor 1/2.
        self.step((optimizer_d, loss_d))

        loss_g = non_saturating_loss(self.discriminator(self.add_input_noise(fake)))
        self.step((optimizer_g, loss_g))
        self.log_dict({"train/loss_d": loss_d, "train/loss_g": loss_g}, prog_bar=True)

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimizer for the discriminator, one for the generator."""
        names = ("lr", "betas", "weight_decay")
        settings = {name: self.hparams[name] for name in names}
        return [torch.optim.Adam(network.parameters(), **settings) for network in (self.discriminator, self.generator)]
