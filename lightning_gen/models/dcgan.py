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

import math
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from lightning_gen.arguments import Count, Decay, ImageShape, NonNegative, Share, Size
from lightning_gen.errors import DataError
from lightning_gen.functional.adversarial import discriminator_loss, non_saturating_loss
from lightning_gen.functional.latent import to_sphere, uniform_from_normal
from lightning_gen.models.adversarial import LinearDecay
from lightning_gen.models.base import Condition
from lightning_gen.nn.initialization import initialize_normal

SIDES = {16: 4, 32: 4, 64: 4, 128: 4, 28: 7, 56: 7, 112: 7}
"""Sides of images, and of the smallest maps that are halved or doubled to get there (7 in the paper's MNIST net)."""


class Plan(NamedTuple):
    """The convolutions of a discriminator, which a generator mirrors."""

    channels: tuple[int, ...]  # From the image to the smallest maps: 3, 128, 256, 512, 1024 for 64 x 64 in colour.
    strides: tuple[int, ...]
    kernel_size: int
    side: int  # Of the smallest maps.


def make_plan(network: str, image_shape: tuple[int, ...], base_channels: int, kernel_size: int) -> Plan:
    """Halve a side down to the smallest maps, and double the channels each time; `imagenet` at every second layer.

    Raises:
        DataError: if there is no network for such images.
    """
    if image_shape[1] not in SIDES or image_shape[1:] != (image_shape[1],) * 2:
        raise DataError(
            f"DCGAN got image_shape={image_shape}; it makes square images with a side of "
            f"{', '.join(map(str, sorted(SIDES)))}: let the data be scaled to one of them."
        )
    side = SIDES[image_shape[1]]
    halvings = range((image_shape[1] // side).bit_length() - 1)
    strides = (1, 2) if network == "imagenet" else (2,)
    channels = [int(base_channels) * 2**i for i in halvings for _ in strides]
    return Plan((image_shape[0], *channels), strides * len(halvings), kernel_size, side)


def transposed(before: int, after: int, stride: int, kernel_size: int) -> nn.ConvTranspose2d:
    """A fractionally strided convolution that multiplies the side by its stride, without a bias."""
    padding, rest = divmod(kernel_size - 1, 2)
    output_padding = 0 if stride == 1 else 1 - rest
    return nn.ConvTranspose2d(before, after, kernel_size, stride, padding, output_padding, bias=False)


class Generator(nn.Sequential):
    """Noise is projected to the smallest maps, which fractionally strided convolutions double; tanh at the end."""

    def __init__(self, latent_dim: int, plan: Plan) -> None:
        hidden, strides = plan.channels[:0:-1], plan.strides[::-1]
        units = hidden[0] * plan.side**2
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, units, bias=False),
            nn.BatchNorm1d(units, eps=1e-8),
            nn.ReLU(),
            nn.Unflatten(1, (hidden[0], plan.side, plan.side)),
        ]
        for (before, after), stride in zip(pairwise(hidden), strides, strict=False):
            layers += [
                transposed(before, after, stride, plan.kernel_size),
                nn.BatchNorm2d(after, eps=1e-8),
                nn.ReLU(),
            ]
        output = transposed(hidden[-1], plan.channels[0], strides[-1], plan.kernel_size)
        super().__init__(*layers, output, nn.Tanh())  # (N, latent_dim) -> (N, C, H, W) in (-1, 1)
        initialize_normal(self)


class Discriminator(nn.Module):
    """Strided convolutions with leaky rectifiers, and a logit of the last maps."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for index, (pair, stride) in enumerate(zip(pairwise(plan.channels), plan.strides, strict=True)):
            convolution = nn.Conv2d(*pair, plan.kernel_size, stride, (plan.kernel_size - 1) // 2, bias=False)
            norm = [nn.BatchNorm2d(pair[1], eps=1e-8)] if index else []
            self.layers.append(nn.Sequential(convolution, *norm, nn.LeakyReLU(0.2)))
        self.logit = nn.Linear(plan.channels[-1] * plan.side**2, 1, bias=False)
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


# The nets of the MNIST experiment (the authors' mnist/train_cond_dcgan.py) -------------------------------------------


def beside(x: Tensor, y: Tensor | None) -> Tensor:
    """Units or maps with the label beside them, `(N, C, ...)` and one-hot `(N, K) -> (N, C + K, ...)`."""
    if y is None:
        return x
    return torch.cat([x, y if x.ndim == 2 else y[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)


class MNISTGenerator(nn.Module):
    """Two hidden layers of units before the maps, normalisation without gains, a sigmoid; labels enter every layer."""

    def __init__(self, latent_dim: int, plan: Plan, hidden_size: int, num_classes: int = 0) -> None:
        super().__init__()
        hidden, k = plan.channels[:0:-1], num_classes
        self.maps = (hidden[0], plan.side, plan.side)
        units = (latent_dim, hidden_size, math.prod(self.maps))
        self.units = nn.ModuleList(
            nn.Sequential(nn.Linear(n + k, m, bias=False), nn.BatchNorm1d(m, eps=1e-8, affine=False), nn.ReLU())
            for n, m in pairwise(units)
        )
        self.layers = nn.ModuleList(
            nn.Sequential(
                transposed(n + k, m, 2, plan.kernel_size), nn.BatchNorm2d(m, eps=1e-8, affine=False), nn.ReLU()
            )
            for n, m in pairwise(hidden)
        )
        self.output = nn.Sequential(transposed(hidden[-1] + k, plan.channels[0], 2, plan.kernel_size), nn.Sigmoid())
        initialize_normal(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Noise under one-hot labels, `(N, latent_dim), (N, K) -> (N, C, H, W)` in (0, 1)."""
        for layer in self.units:
            z = layer(beside(z, y))
        maps = z.unflatten(1, self.maps)
        for layer in self.layers:
            maps = layer(beside(maps, y))
        return self.output(beside(maps, y))


class MNISTDiscriminator(nn.Module):
    """A hidden layer of units behind the maps, which see 13 of 28 pixels; labels enter every layer."""

    def __init__(self, plan: Plan, hidden_size: int, num_classes: int = 0) -> None:
        super().__init__()
        k = num_classes
        self.layers = nn.ModuleList()
        for index, (n, m) in enumerate(pairwise(plan.channels)):
            convolution = nn.Conv2d(n + k, m, plan.kernel_size, 2, (plan.kernel_size - 1) // 2, bias=False)
            norm = [nn.BatchNorm2d(m, eps=1e-8, affine=False)] if index else []
            self.layers.append(nn.Sequential(convolution, *norm, nn.LeakyReLU(0.2)))
        units = plan.channels[-1] * plan.side**2
        self.hidden = nn.Sequential(
            nn.Linear(units + k, hidden_size, bias=False),
            nn.BatchNorm1d(hidden_size, eps=1e-8, affine=False),
            nn.LeakyReLU(0.2),
        )
        self.logit = nn.Linear(hidden_size + k, 1, bias=False)
        initialize_normal(self)

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits of images in [0, 1] under one-hot labels, `(N, C, H, W), (N, K) -> (N, 1)`."""
        for layer in self.layers:
            images = layer(beside(images, y))
        return self.logit(beside(self.hidden(beside(images.flatten(1), y)), y))


class DCGAN(LinearDecay):
    """The convolutional adversarial nets of 2015, for square images of a side in `SIDES`.

    Args:
        image_shape: `(C, H, W)`; the paper's 64 x 64 network by default.
        network: `faces`, the 64 x 64 net of LSUN and of faces with as many layers as the side takes; `mnist`, the nets
            of the MNIST experiment, with hidden layers of units (64 `base_channels`); or `imagenet`, the 32 x 32 net of
            the features, whose every second layer keeps the side (`kernel_size` 3, `latent_dim` 256).
        latent_dim: length of the noise z, uniform in [-1, 1].
        spherical_z: project the noise onto the sphere of radius sqrt(latent_dim).
        base_channels: channels of the discriminator's first layer and of the generator's last hidden one; each halving
            of the side doubles them.
        kernel_size: of all convolutions; 5, or 4 as in the second author's code in Torch; 3 in `imagenet`.
        hidden_size: units of the hidden layers of `mnist`.
        label_smoothing: the discriminator's target for real images is 1 minus this (Salimans et al. 2016).
        input_noise: see `AdversarialModule`; in units of the images' range [0, 1].
        input_noise_epochs: see `AdversarialModule`.
        lr: Adam's step size.
        betas: Adam's decay rates.
        lr_decay_epochs: the step size falls linearly from the first of these epochs on, to 0 at the second; 100 and 200
            in the MNIST experiment. None for never.
        weight_decay: added to the gradient of every parameter, times the parameter; of the authors' code, 2.5e-5 in the
            MNIST experiment.
        gradient_clip_val: see `AdversarialModule`.
        accumulate_grad_batches: see `AdversarialModule`.

    Raises:
        DataError: if there is no network for such images.
    """

    smallest_batch = 2

    def __init__(
        self,
        image_shape: ImageShape = (3, 64, 64),
        network: Literal["faces", "mnist", "imagenet"] = "faces",
        latent_dim: Size = 100,
        spherical_z: bool = False,
        base_channels: Size = 128,
        kernel_size: Size = 5,
        hidden_size: Size = 1024,
        label_smoothing: Share = 0.0,
        input_noise: NonNegative = 0.0,
        input_noise_epochs: Size | None = None,
        lr: NonNegative = 2e-4,
        betas: tuple[Decay, Decay] = (0.5, 0.999),
        lr_decay_epochs: tuple[Count, Count] | None = None,
        weight_decay: NonNegative = 1e-5,
        gradient_clip_val: NonNegative | None = None,
        accumulate_grad_batches: Size = 1,
    ) -> None:
        super().__init__(gradient_clip_val, accumulate_grad_batches, input_noise, input_noise_epochs)
        self.save_hyperparameters()
        self.image_shape = image_shape = tuple(map(int, image_shape))
        self.latent_dim = latent_dim
        self.spherical_z = spherical_z
        self.real_target = 1 - label_smoothing
        self.has_sigmoid = network == "mnist"
        plan = make_plan(network, self.image_shape, base_channels, kernel_size)
        self.generator: nn.Module
        self.discriminator: nn.Module
        if network == "mnist":
            self.generator = MNISTGenerator(latent_dim, plan, hidden_size)
            self.discriminator = MNISTDiscriminator(plan, hidden_size)
        else:
            self.generator, self.discriminator = Generator(latent_dim, plan), Discriminator(plan)

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw noise, uniform in [-1, 1], `(num_samples, latent_dim)`."""
        z = 2 * torch.rand(num_samples, self.latent_dim, generator=generator, device=self.device, dtype=self.dtype) - 1
        return to_sphere(z) if self.spherical_z else z

    def latent_from_normal(self, u: Tensor) -> Tensor:
        """Noise as `sample_latent` draws it, as a function of draws u of N(0, I); both `(..., latent_dim)`."""
        z = uniform_from_normal(u, -1, 1)
        return to_sphere(z) if self.spherical_z else z

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The images that the generator makes of noise, `(N, latent_dim) -> (N, *image_shape)` in [0, 1]."""
        return self.generator(z) if self.has_sigmoid else self.generator(z) / 2 + 0.5

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        return self.decode(self.sample_latent(num_samples, generator))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Update D on real and on generated images, which batch normalisation sees apart, then G on the latter."""
        optimizer_d, optimizer_g = self.optimizers()  # type: ignore[attr-defined]
        images = self.as_batch(batch)["image"]

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
