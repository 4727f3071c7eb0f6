r"""Convolutional conditional adversarial nets for faces.

Gauthier, "Conditional generative adversarial nets for convolutional face generation" (2014),
https://cs231n.stanford.edu/reports/2015/pdfs/jgauthie_final_report.pdf.

    J_D = -1/2n (sum_i log D(x_i, y_i) + sum_i log(1 - D(G(z_i, y'_i), y'_i)))
    J_G = -1/n   sum_i log D(G(z_i, y'_i), y'_i)

y are a face's attributes. Those of generated faces, y', are not the data's but drawn from a density that is fitted to
them, so that the generator cannot learn one face for each y by heart. The attributes enter the generator with the noise
and the discriminator before its last layer of maxout units. See configs/cgan/README.md for what differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from lightning_gen.arguments import Count, ImageShape, NonNegative, Positive, Share, Size
from lightning_gen.functional.adversarial import discriminator_loss, non_saturating_loss
from lightning_gen.functional.parzen import parzen_log_likelihood
from lightning_gen.models.base import Condition, as_batch
from lightning_gen.models.conditional import ConditionalModule
from lightning_gen.models.gan import DecayedSGD, mean_image
from lightning_gen.nn.convolutional_maxout import ConvolutionalDiscriminator, ConvolutionalGenerator

WIDTHS = torch.logspace(-2, 0.5, 26)
"""Tried for the density's windows, in standard deviations of the attributes."""


class ConvolutionalCGAN(ConditionalModule, DecayedSGD):
    """Conditional adversarial nets for 32 x 32 faces and vectors that describe them.

    Without a condition, `sample` draws one from the density of training conditions.

    Args:
        image_shape: `(C, 32, 32)`.
        condition_key: the batch key of the vectors.
        condition_size: their length; 40 are CelebA's attributes.
        latent_dim: length of the noise z, standard normal.
        hidden_size: units of the generator's two layers, a hundred for each of its maps.
        maxout_channels: of the discriminator's three convolutions.
        maxout_units: units of its layer after these.
        maxout_pieces: affine maps that each of these units takes the maximum of.
        input_dropout: share of the pixels that the discriminator does not see.
        hidden_dropout: share of each of its layers that is dropped.
        lr: step size at the start.
        lr_decay: the step size is divided by this after every batch.
        lr_min: and never falls below this.
        momentum: at the start, and from epoch `momentum_epochs` on.
        momentum_epochs: momentum grows linearly from epoch 1 to this one.
        gradient_clip_val: see `AdversarialModule`.
        accumulate_grad_batches: see `AdversarialModule`.

    Attributes:
        conditions: the training set's, `(N, condition_size)`, on which the density has its windows.
        width: standard deviation of the windows.

    Raises:
        DataError: if the images are not of 32 x 32.
        ConditionError: if vectors have no length.
    """

    generator: ConvolutionalGenerator
    conditions: Tensor
    width: Tensor

    def __init__(
        self,
        image_shape: ImageShape = (3, 32, 32),
        condition_key: str = "attributes",
        condition_size: Size = 40,
        latent_dim: Size = 100,
        hidden_size: Size = 8000,
        maxout_channels: tuple[Size, Size, Size] = (64, 64, 192),
        maxout_units: Size = 500,
        maxout_pieces: Size = 5,
        input_dropout: Share = 0.2,
        hidden_dropout: Share = 0.5,
        lr: NonNegative = 0.004,
        lr_decay: Positive = 1.000004,
        lr_min: NonNegative = 1e-6,
        momentum: tuple[Share, Share] = (0.5, 0.7),
        momentum_epochs: Count = 250,
        gradient_clip_val: NonNegative | None = None,
        accumulate_grad_batches: Size = 1,
    ) -> None:
        super().__init__(gradient_clip_val, accumulate_grad_batches)
        self.save_hyperparameters()
        self.set_condition(condition_key, 0, condition_size)
        self.image_shape = tuple(map(int, image_shape))
        self.latent_dim = latent_dim
        self.generator = ConvolutionalGenerator(latent_dim + condition_size, hidden_size, self.image_shape, 0.005)
        self.discriminator = ConvolutionalDiscriminator(
            image_shape[0], maxout_channels, maxout_units, maxout_pieces, input_dropout, hidden_dropout, condition_size
        )
        self.register_buffer("conditions", torch.zeros(1, condition_size))
        self.register_buffer("width", torch.tensor(1.0))
        self.register_load_state_dict_pre_hook(_resize_conditions)  # type: ignore[no-untyped-call]

    def initialize_from(self, batches: Iterable[Any]) -> None:
        """Set the generator's output bias to the mean image of the data, and fit the density of conditions.

        The windows have the width that gives the highest likelihood to a tenth of the conditions, at most 1,000, under
        windows on the others.
        """
        kept: list[Tensor] = []

        def keep() -> Iterator[Any]:
            for batch in map(as_batch, batches):
                yield batch
                kept.append(self.embed(batch).cpu())

        self.generator.output.bias.data.copy_(mean_image(self.checked_images(keep())).logit())
        conditions = torch.cat(kept)
        self.conditions = conditions.to(self.device)
        held_out, windows = conditions[torch.randperm(len(conditions))].tensor_split([min(len(conditions) // 10, 1000)])
        if len(held_out):
            widths = conditions.std(0).mean() * WIDTHS
            self.width.copy_(widths[parzen_log_likelihood(held_out, windows, widths).mean(0).argmax()])

    def draw_condition(self, num_samples: int, generator: torch.Generator | None = None) -> Condition:
        """Draw from the density: a training condition and normal noise of standard deviation `width`."""
        rows = torch.randint(len(self.conditions), (num_samples,), generator=generator, device=self.device)
        chosen = self.conditions[rows]
        noise = torch.randn(chosen.shape, generator=generator, device=self.device, dtype=chosen.dtype)
        return {self.condition_keys[0]: chosen + self.width * noise}

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw standard normal noise, `(num_samples, latent_dim)`."""
        return torch.randn(num_samples, self.latent_dim, generator=generator, device=self.device, dtype=self.dtype)

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The faces made of noise under a condition, drawn if None, `(N, latent_dim) -> (N, C, 32, 32)` in [0, 1]."""
        return self.generator(torch.cat([z, self.embed(self.check_condition(condition, z.shape[0]))], 1))

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        return self.decode(self.sample_latent(num_samples, generator), condition)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Both updates from one forward pass, real faces under their own attributes, generated ones under others."""
        optimizer_d, optimizer_g = self.optimizers()  # type: ignore[attr-defined]
        batch = self.as_batch(batch)
        images, y = batch["image"], self.embed(batch)
        drawn = self.embed(self.draw_condition(len(images)))

        fake = self.generator(torch.cat([self.sample_latent(len(images)), drawn], 1))
        real_logits, fake_logits = self.discriminator(torch.cat([images, fake]), torch.cat([y, drawn])).chunk(2)
        loss_d = discriminator_loss(real_logits, fake_logits)
        loss_g = non_saturating_loss(fake_logits)  # Through the same dropout masks.

        self.step((optimizer_d, loss_d), (optimizer_g, loss_g))
        self.decay_lr()
        self.log_dict({"train/loss_d": loss_d, "train/loss_g": loss_g}, prog_bar=True)


def _resize_conditions(module: ConvolutionalCGAN, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Make room for as many conditions as the state to be loaded has."""
    if (saved := state_dict.get(f"{prefix}conditions")) is not None:
        module.conditions = module.conditions.new_zeros(saved.shape)
