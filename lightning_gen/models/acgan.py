r"""Auxiliary classifier adversarial nets.

Odena, Olah, Shlens, "Conditional image synthesis with auxiliary classifier GANs" (2017),
https://arxiv.org/abs/1610.09585 (section 3, appendix A). The discriminator is not told the class: it names it, beside
telling real images from generated ones, whose classes c are drawn uniformly.

    L_S = E log P(S = real | x) + E log P(S = fake | G(c, z))
    L_C = E log P(C = c | x)    + E log P(C = c | G(c, z))

D ascends L_S + L_C, G ascends L_C - L_S, of which log P(S = real | G(c, z)) takes the place of the term in L_S. A model
may draw a few of the data's classes, as each of the paper's hundred does with ten of ImageNet's thousand. See
configs/acgan/README.md for what differs.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from lightning_gen.arguments import Count, Decay, ImageShape, NonNegative, Share, Size
from lightning_gen.errors import ConditionError, DataError
from lightning_gen.functional.adversarial import discriminator_loss, non_saturating_loss
from lightning_gen.models.adversarial import AdversarialModule
from lightning_gen.models.base import Condition, FirstLook
from lightning_gen.models.conditional import ConditionalModule
from lightning_gen.nn.initialization import initialize_normal

GENERATOR_CHANNELS = {
    28: (384, 192),  # Ours.
    32: (384, 192, 96),
    64: (768, 384, 256, 192),
    128: (768, 384, 256, 192, 64),
}
"""Channels of the generator's maps from the smallest on, by the side of the images; each layer doubles the side."""


class Generator(nn.Sequential):
    """A rectified layer makes the smallest maps, which 5 x 5 transposed convolutions double; tanh at the end."""

    def __init__(self, num_inputs: int, channels: tuple[int, ...], image_shape: tuple[int, ...]) -> None:
        side = image_shape[1] // 2 ** len(channels)

        def doubled(before: int, after: int, bias: bool) -> nn.ConvTranspose2d:
            return nn.ConvTranspose2d(before, after, 5, stride=2, padding=2, output_padding=1, bias=bias)

        layers: list[nn.Module] = [
            nn.Linear(num_inputs, channels[0] * side**2),
            nn.ReLU(),
            nn.Unflatten(1, (channels[0], side, side)),
        ]
        for before, after in pairwise(channels):
            layers += [doubled(before, after, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        output = doubled(channels[-1], image_shape[0], bias=True)
        super().__init__(*layers, output, nn.Tanh())  # (N, num_inputs) -> (N, C, H, W) in (-1, 1)
        initialize_normal(self)


class Dropout(nn.Dropout):
    """PyTorch's, with masks that take a quarter of its time on a CPU, where they were a third of a step."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        return x * ((torch.rand_like(x) >= self.p).to(x.dtype) / (1 - self.p))


class Discriminator(nn.Module):
    """3 x 3 convolutions, every other one with a stride of 2, leaky rectifiers, dropout; one layer for both heads."""

    def __init__(
        self, image_shape: tuple[int, ...], channels: tuple[int, ...], num_classes: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        side = image_shape[1]
        for index, (before, after) in enumerate(pairwise((image_shape[0], *channels))):
            stride = 1 + (index + 1) % 2  # 2, 1, 2, 1, 2, 1
            convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=index == 0)
            norm = [nn.BatchNorm2d(after)] if index else []
            self.layers.append(nn.Sequential(convolution, *norm, nn.LeakyReLU(0.2), Dropout(dropout)))
            side = (side - 1) // stride + 1
        self.output = nn.Linear(channels[-1] * side**2, 1 + num_classes)
        initialize_normal(self)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the source, `(N, 1)`, and of the classes, `(N, K)`, of images in [0, 1], `(N, C, H, W)`."""
        source, classes = self.output(self.layers(2 * images - 1).flatten(1)).tensor_split([1], 1)
        return source, classes


class ACGAN(ConditionalModule, AdversarialModule):
    """The auxiliary classifier adversarial nets of 2017, for square images.

    Args:
        image_shape: `(C, H, W)`; the paper's 128 x 128 networks by default.
        num_classes: how many labels the data have.
        classes: which of them this model draws and tells apart; all if None.
        latent_dim: length of the noise z, standard normal.
        generator_channels: of the generator's maps from the smallest on; each layer doubles the side. If None, the
            appendix's for a side of 32, 64 or 128, and ours for 28.
        discriminator_channels: of the discriminator's layers; the first, the third and the fifth halve the side.
        dropout: share of what is dropped after each layer of the discriminator.
        label_smoothing: the discriminator's target for real images is 1 minus this (Salimans et al. 2016).
        input_noise: see `AdversarialModule`; in units of the images' range [0, 1], half of the paper's.
        input_noise_epochs: see `AdversarialModule`.
        lr: Adam's step size.
        betas: Adam's decay rates.
        gradient_clip_val: see `AdversarialModule`.
        accumulate_grad_batches: see `AdversarialModule`.

    Raises:
        DataError: if there is no network for such images.
        ConditionError: if `classes` is empty, or holds a label that is out of range or there twice.
    """

    own_labels: Tensor

    def __init__(
        self,
        image_shape: ImageShape = (3, 128, 128),
        num_classes: Count = 10,
        classes: list[int] | None = None,
        latent_dim: Size = 100,
        generator_channels: tuple[Size, ...] | None = None,
        discriminator_channels: tuple[Size, ...] = (16, 32, 64, 128, 256, 512),
        dropout: Share = 0.5,
        label_smoothing: Share = 0.0,
        input_noise: NonNegative = 0.0,
        input_noise_epochs: Size | None = None,
        lr: NonNegative = 2e-4,
        betas: tuple[Decay, Decay] = (0.5, 0.999),
        gradient_clip_val: NonNegative | None = None,
        accumulate_grad_batches: Size = 1,
    ) -> None:
        super().__init__(gradient_clip_val, accumulate_grad_batches, input_noise, input_noise_epochs)
        self.save_hyperparameters()
        self.set_condition("label", num_classes, None)
        self.image_shape = image_shape = tuple(map(int, image_shape))
        self.latent_dim = latent_dim
        self.real_target = 1 - label_smoothing
        self.classes = list(range(num_classes)) if classes is None else sorted(classes)
        if (
            not self.classes
            or not set(self.classes) <= set(range(num_classes))
            or len(set(self.classes)) < len(self.classes)
        ):
            raise ConditionError(f"ACGAN got classes={classes}; expected different labels from 0 to {num_classes - 1}.")
        self.register_buffer("own_labels", torch.tensor(self.classes), persistent=False)

        side = self.image_shape[1]
        channels = GENERATOR_CHANNELS.get(side) if generator_channels is None else tuple(map(int, generator_channels))
        if self.image_shape[1:] != (side, side) or not channels or side % 2 ** len(channels):
            raise DataError(
                f"ACGAN got image_shape={self.image_shape} and generator_channels={generator_channels}; it makes "
                f"square images with a side of {', '.join(map(str, GENERATOR_CHANNELS))}, or of a multiple of 2^n with "
                "n generator_channels."
            )
        num_own = len(self.classes)
        self.generator = Generator(latent_dim + num_own, channels, self.image_shape)
        self.discriminator = Discriminator(self.image_shape, tuple(discriminator_channels), num_own, dropout)

    # Classes ----------------------------------------------------------------------------------------------------

    def check_values(self, values: Any, error: type[ConditionError | DataError]) -> None:
        """Also refuse labels of classes that are not this model's."""
        super().check_values(values, error)
        if torch.compiler.is_compiling():  # A graph has no values to look at.
            return
        if foreign := values[~torch.isin(values, self.own_labels)].unique().tolist():
            raise error(
                f"ACGAN got the labels {foreign}; this one has the classes {self.classes} of {self.condition_size}."
            )

    def initialize_from(self, batches: Iterable[Any]) -> None:
        """See that the data have images of every class and of no other; there is nothing to set.

        Raises:
            DataError: if they have not: images would be drawn under labels that D has never seen.
        """
        for _ in self.checked_images(batches):
            pass
        if isinstance(batches, FirstLook) and not batches.whole:
            return  # What was not looked at may have them.
        there = self.frequencies.nonzero().flatten().tolist()
        if absent := sorted(set(self.classes) - set(there)):
            raise DataError(
                f"The training data have no images of the classes {absent}, which ACGAN is to draw; they have {there}: "
                "give data.classes what there is."
            )

    def draw_condition(self, num_samples: int, generator: torch.Generator | None = None) -> Condition:
        """Draw labels, each class as often."""
        drawn = torch.randint(len(self.classes), (num_samples,), generator=generator, device=self.device)
        return {"label": self.own_labels[drawn]}

    def embed(self, condition: Condition) -> Tensor:
        """The labels as one-hot vectors over this model's classes, `(N, K)`."""
        return (condition["label"][:, None] == self.own_labels).to(self.dtype)

    # Images -----------------------------------------------------------------------------------------------------

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw standard normal noise, `(num_samples, latent_dim)`."""
        return torch.randn(num_samples, self.latent_dim, generator=generator, device=self.device, dtype=self.dtype)

    def generate(self, z: Tensor, c: Tensor) -> Tensor:
        """G(c, z), `(N, latent_dim)` and one-hot `(N, K) -> (N, *image_shape)` in [0, 1]."""
        return self.generator(torch.cat([z, c], 1)) / 2 + 0.5

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The images of noise under labels, drawn if None, `(N, latent_dim) -> (N, *image_shape)` in [0, 1]."""
        return self.generate(z, self.embed(self.check_condition(condition, z.shape[0])))

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        return self.decode(self.sample_latent(num_samples, generator), condition)

    # Training ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Update D on real and on generated images, which batch normalisation sees apart, then G on the latter."""
        optimizer_d, optimizer_g = self.optimizers()  # type: ignore[attr-defined]
        batch = self.as_batch(batch)
        images, y = batch["image"], self.embed(batch)
        c = self.embed(self.draw_condition(len(images)))

        fake = self.generate(self.sample_latent(len(images)), c)
        real_source, real_classes = self.discriminator(self.add_input_noise(images))
        fake_source, fake_classes = self.discriminator(self.add_input_noise(fake))
        source_loss = 2 * discriminator_loss(real_source, fake_source, self.real_target)  # -L_S, which has no 1/2.
        class_loss = F.cross_entropy(real_classes, y) + F.cross_entropy(fake_classes, c)  # -L_C
        loss_d = source_loss + class_loss
        self.step((optimizer_d, loss_d))

        fake_source, fake_classes = self.discriminator(self.add_input_noise(fake))
        loss_g = non_saturating_loss(fake_source) + F.cross_entropy(fake_classes, c)
        self.step((optimizer_g, loss_g))
        self.log_dict({"train/loss_d": loss_d, "train/loss_g": loss_g}, prog_bar=True)

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimizer for the discriminator, one for the generator."""
        settings = {name: self.hparams[name] for name in ("lr", "betas")}
        return [torch.optim.Adam(network.parameters(), **settings) for network in (self.discriminator, self.generator)]
