"""The class-conditional nets of the DCGAN paper's experiment on MNIST.

Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks" (2016), https://arxiv.org/abs/1511.06434, appendix; the authors' mnist/train_cond_dcgan.py.

As in `dcgan.py`, with the label y beside what enters every layer of both networks, as units or as maps:

    D descends  -mean log D(x, y) - mean log(1 - D(G(z, y), y)),    then G  -mean log D(G(z, y), y)

G draws under the labels of the batch. A nearest-neighbour classifier that learns from samples judges them. See
configs/dcgan/README.md for what differs.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_gen.arguments import Count, Decay, ImageShape, NonNegative, Size
from lightning_gen.functional.adversarial import discriminator_loss, non_saturating_loss
from lightning_gen.models.base import Condition
from lightning_gen.models.conditional import ConditionalModule
from lightning_gen.models.dcgan import DCGAN, MNISTDiscriminator, MNISTGenerator, make_plan


class ConditionalDCGAN(ConditionalModule, DCGAN):
    """Convolutional adversarial nets under labels, of the authors' experiment on MNIST.

    Args:
        image_shape: `(C, H, W)`, of a side in `dcgan.SIDES`.
        num_classes: how many labels there are.
        latent_dim: length of the noise z, uniform in [-1, 1].
        base_channels: channels of the discriminator's first layer and of the generator's last hidden one; each halving
            of the side doubles them.
        kernel_size: of all convolutions.
        hidden_size: units of the hidden layers.
        lr: Adam's step size.
        betas: Adam's decay rates.
        lr_decay_epochs: the step size falls linearly from the first of these epochs on, to 0 at the second.
        weight_decay: added to the gradient of every parameter, times the parameter.
        gradient_clip_val: see `AdversarialModule`.
        accumulate_grad_batches: see `AdversarialModule`.

    Raises:
        DataError: if there is no network for such images.
        ConditionError: if there is no class.
    """

    def __init__(
        self,
        image_shape: ImageShape = (1, 28, 28),
        num_classes: Size = 10,
        latent_dim: Size = 100,
        base_channels: Size = 64,
        kernel_size: Size = 5,
        hidden_size: Size = 1024,
        lr: NonNegative = 2e-4,
        betas: tuple[Decay, Decay] = (0.5, 0.999),
        lr_decay_epochs: tuple[Count, Count] | None = (100, 200),
        weight_decay: NonNegative = 2.5e-5,
        gradient_clip_val: NonNegative | None = None,
        accumulate_grad_batches: Size = 1,
    ) -> None:
        super().__init__(
            image_shape,
            "mnist",
            gradient_clip_val=gradient_clip_val,
            accumulate_grad_batches=accumulate_grad_batches,
        )
        self.save_hyperparameters()
        self.set_condition("label", num_classes, None)
        self.latent_dim = latent_dim
        plan = make_plan("mnist", self.image_shape, base_channels, kernel_size)
        self.generator = MNISTGenerator(latent_dim, plan, hidden_size, num_classes)
        self.discriminator = MNISTDiscriminator(plan, hidden_size, num_classes)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Update D on real and on generated images of the same labels, then G on the latter."""
        optimizer_d, optimizer_g = self.optimizers()  # type: ignore[attr-defined]
        batch = self.as_batch(batch)
        images, y = batch["image"], self.embed(batch)

        fake = self.generator(self.sample_latent(len(images)), y)
        loss_d = 2 * discriminator_loss(self.discriminator(images, y), self.discriminator(fake, y))
        self.step((optimizer_d, loss_d))

        loss_g = non_saturating_loss(self.discriminator(fake, y))
        self.step((optimizer_g, loss_g))
        self.log_dict({"train/loss_d": loss_d, "train/loss_g": loss_g}, prog_bar=True)

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The images of noise under labels, drawn if None, `(N, latent_dim) -> (N, *image_shape)` in [0, 1]."""
        return self.generator(z, self.embed(self.check_condition(condition, z.shape[0])))

    def _sample(self, num_samples: int, condition: Condition | None, generator: Any) -> Tensor:
        return self.decode(self.sample_latent(num_samples, generator), condition)
