r"""Conditional generative adversarial network.

Mirza and Osindero, "Conditional Generative Adversarial Nets" (2014), https://arxiv.org/abs/1411.1784.

Generator and discriminator both see what an image is to be, y:

    min_G max_D  E[log D(x|y)] + E[log(1 - D(G(z|y)|y))]                  (equation 2)

Noise and condition enter the generator, and image and condition the discriminator, each through a layer of its own.
Dropout in the generator is its noise, also when sampling: it all but ignores z. See configs/cgan/README.md for what is
not in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gen.arguments import Count, ImageShape, NonNegative, Positive, Share, Size
from lightning_gen.functional.adversarial import discriminator_loss, non_saturating_loss
from lightning_gen.functional.latent import drop, to_sphere
from lightning_gen.models.base import Condition
from lightning_gen.models.conditional import ConditionalModule
from lightning_gen.models.gan import DecayedSGD, mean_image
from lightning_gen.nn.maxout import Maxout


class Generator(nn.Module):
    """Rectified layers for noise and condition, one for both, and a sigmoid for each pixel; weights within 0.05."""

    def __init__(
        self, latent_dim: int, condition_size: int, sizes: tuple[int, int, int], image_shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        noise_size, branch_size, joint_size = sizes
        self.image_shape = image_shape
        self.noise = nn.Linear(latent_dim, noise_size)
        self.condition = nn.Linear(condition_size, branch_size)
        self.joint = nn.Linear(noise_size + branch_size, joint_size)
        self.output = nn.Linear(joint_size, math.prod(image_shape))
        for layer in (self.noise, self.condition, self.joint, self.output):
            nn.init.uniform_(layer.weight, -0.05, 0.05)
            nn.init.zeros_(layer.bias)

    def forward(self, z: Tensor, y: Tensor, dropout: float, generator: torch.Generator | None = None) -> Tensor:
        hidden = torch.cat([self.noise(z), self.condition(y)], 1).relu()  # (N, 1200)
        hidden = self.joint(drop(hidden, dropout, generator)).relu()  # (N, 1200)
        return self.output(drop(hidden, dropout, generator)).sigmoid().unflatten(-1, self.image_shape)  # (N, C, H, W)


class Discriminator(nn.Module):
    """Maxout layers for image and condition, one for both, and a logit; weights within 0.005.

    Dropout on the image and on what follows, none on the condition.
    """

    def __init__(
        self, num_pixels: int, condition_size: int, units: tuple[int, int, int], pieces: tuple[int, int], dropout: float
    ) -> None:
        super().__init__()
        image_units, branch_units, joint_units = units
        branch_pieces, joint_pieces = pieces
        self.dropout = nn.Dropout(dropout)
        self.image = Maxout(num_pixels, image_units, branch_pieces, irange=0.005)
        self.condition = Maxout(condition_size, branch_units, branch_pieces, irange=0.005)
        self.joint = Maxout(image_units + branch_units, joint_units, joint_pieces, irange=0.005)
        self.logit = nn.Linear(joint_units, 1)
        nn.init.uniform_(self.logit.weight, -0.005, 0.005)
        nn.init.zeros_(self.logit.bias)

    def forward(self, images: Tensor, y: Tensor) -> Tensor:
        hidden = torch.cat([self.image(self.dropout(images.flatten(1))), self.condition(y)], 1)  # (N, 290)
        return self.logit(self.dropout(self.joint(self.dropout(hidden))))  # (N, 1)


class CGAN(ConditionalModule, DecayedSGD):
    """The conditional adversarial nets of 2014, for labels or for vectors of any length.

    Args:
        image_shape: `(C, H, W)`.
        num_classes: how many labels there are, which both networks see as one-hot vectors.
        condition_key: the batch key of the condition: `label`, integers `(N,)`; or another one, for vectors.
        condition_size: length of such vectors, `(N, condition_size)`; None for labels.
        latent_dim: length of the noise z, which is uniform in the unit hypercube.
        spherical_z: project the noise onto the sphere of radius sqrt(latent_dim).
        hidden_sizes: units of the generator's layers for noise, for the condition, and for both.
        maxout_units: units of the discriminator's layers for the image, for the condition, and for both.
        maxout_pieces: affine maps that each unit takes the maximum of, in the first two of them and in the third.
        dropout: share of what is dropped in both networks: of the image's pixels and of every hidden layer's output.
        sample_dropout: keep the generator's dropout when sampling, as a part of its noise.
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

    Raises:
        ConditionError: if neither labels nor vectors are described.
    """

    generator: Generator

    def __init__(
        self,
        image_shape: ImageShape = (1, 28, 28),
        num_classes: Count = 10,
        condition_key: str = "label",
        condition_size: Size | None = None,
        latent_dim: Size = 100,
        spherical_z: bool = False,
        hidden_sizes: tuple[Size, Size, Size] = (200, 1000, 1200),
        maxout_units: tuple[Size, Size, Size] = (240, 50, 240),
        maxout_pieces: tuple[Size, Size] = (5, 4),
        dropout: Share = 0.5,
        sample_dropout: bool = True,
        label_smoothing: Share = 0.0,
        input_noise: NonNegative = 0.0,
        input_noise_epochs: Size | None = None,
        lr: NonNegative = 0.1,
        lr_decay: Positive = 1.00004,
        lr_min: NonNegative = 1e-6,
        momentum: tuple[Share, Share] = (0.5, 0.7),
        momentum_epochs: Count = 250,
        gradient_clip_val: NonNegative | None = None,
        accumulate_grad_batches: Size = 1,
    ) -> None:
        super().__init__(gradient_clip_val, accumulate_grad_batches, input_noise, input_noise_epochs)
        self.save_hyperparameters()
        self.set_condition(condition_key, num_classes, condition_size)
        self.image_shape = tuple(map(int, image_shape))
        self.latent_dim = latent_dim
        self.spherical_z = spherical_z
        self.dropout = dropout
        self.sample_dropout = sample_dropout
        self.real_target = 1 - label_smoothing
        size = self.condition_size
        self.generator = Generator(latent_dim, size, hidden_sizes, self.image_shape)
        self.discriminator = Discriminator(math.prod(self.image_shape), size, maxout_units, maxout_pieces, dropout)

    def initialize_from(self, batches: Iterable[Any]) -> None:
        """Set the generator's output bias to the mean image of the data, and keep how frequent labels are."""
        self.generator.output.bias.data.copy_(mean_image(self.checked_images(batches)).logit())

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw noise from the unit hypercube, `(num_samples, latent_dim)`."""
        z = torch.rand(num_samples, self.latent_dim, generator=generator, device=self.device, dtype=self.dtype)
        return to_sphere(z) if self.spherical_z else z

    def decode(self, z: Tensor, condition: Condition | None = None, generator: torch.Generator | None = None) -> Tensor:
        """The images that the generator makes of noise under a condition, with new dropout if `sample_dropout`.

        Args:
            z: `(N, latent_dim)`.
            condition: as for `sample`, N rows; drawn if None.
            generator: source of the dropout; the global one if None.

        Returns:
            `(N, *image_shape)` in [0, 1].
        """
        y = self.embed(self.check_condition(condition, z.shape[0], generator))
        return self.generator(z, y, self.dropout if self.sample_dropout else 0.0, generator)

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        return self.decode(self.sample_latent(num_samples, generator), condition, generator)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Both updates from one forward pass; images are generated under the conditions of the batch."""
        optimizer_d, optimizer_g = self.optimizers()  # type: ignore[attr-defined]
        batch = self.as_batch(batch)
        images, y = batch["image"], self.embed(batch)

        fake = self.generator(self.sample_latent(len(images)), y, self.dropout)
        real_logits = self.discriminator(self.add_input_noise(images), y)
        fake_logits = self.discriminator(self.add_input_noise(fake), y)
        loss_d = discriminator_loss(real_logits, fake_logits, self.real_target)
        loss_g = non_saturating_loss(fake_logits)  # Through the same dropout masks.

        self.step((optimizer_d, loss_d), (optimizer_g, loss_g))
        self.decay_lr()
        self.log_dict({"train/loss_d": loss_d, "train/loss_g": loss_g}, prog_bar=True)
