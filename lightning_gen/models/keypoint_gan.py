r"""Conditional keypoint generator: where the parts of an object are, given a caption and some of them.

Reed, Akata, Mohan, Tenka, Schiele, Lee, "Learning What and Where to Draw" (2016), https://arxiv.org/abs/1610.02454,
section 4.4. Parts k that a user gives, by switches s, stay as they are, and a network f draws the others:

    G(z, t, k, s) = s k + (1 - s) f(z, t, s k)

It is trained against a discriminator of keypoints and captions, with every switch on one time in ten. What it draws
goes to `GAWWN`, which then makes images of captions alone. See configs/keypoint_gan/README.md for what differs.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import StepLR

from lightning_gen.arguments import Decay, NonNegative, Share, Size
from lightning_gen.errors import ConditionError
from lightning_gen.functional.adversarial import discriminator_loss, non_saturating_loss
from lightning_gen.functional.mmd import median_bandwidth, mmd2
from lightning_gen.models.adversarial import AdversarialModule
from lightning_gen.models.base import Batch, Condition
from lightning_gen.models.captioned import CaptionedModule
from lightning_gen.models.gawwn import check_keypoints
from lightning_gen.nn.frozen import make_frozen
from lightning_gen.nn.initialization import initialize_convolutions


def layer(before: int, after: int, activation: nn.Module) -> nn.Sequential:
    """A layer, normalised."""
    return nn.Sequential(nn.Linear(before, after), nn.BatchNorm1d(after), activation)


class Generator(nn.Module):
    """Noise, caption and given keypoints through layers of their own, and all of them through three more; f above."""

    def __init__(self, num_keypoints: int, text_dim: int, latent_dim: int, n: int) -> None:
        super().__init__()
        self.noise = nn.Sequential(nn.Linear(latent_dim, 4 * n), nn.ReLU())
        self.text = nn.Sequential(nn.Linear(text_dim, 4 * n), nn.ReLU())
        self.given = nn.Sequential(layer(3 * num_keypoints, 4 * n, nn.ReLU()), layer(4 * n, 2 * n, nn.ReLU()))
        self.joint = nn.Sequential(
            layer(10 * n, 8 * n, nn.ReLU()), layer(8 * n, 4 * n, nn.ReLU()), layer(4 * n, 2 * n, nn.ReLU())
        )
        self.output = nn.Linear(2 * n, 3 * num_keypoints)
        initialize_convolutions(self)

    def forward(self, z: Tensor, text: Tensor, keypoints: Tensor) -> Tensor:
        """Keypoints in (0, 1), `(N, P, 3)`, from those given, 0 where not."""
        code = torch.cat([self.noise(z), self.text(text), self.given(keypoints.flatten(1))], 1)  # (N, 10n)
        return self.output(self.joint(code)).sigmoid().view_as(keypoints)


class Discriminator(nn.Module):
    """Keypoints and caption through layers of their own, then both; a logit."""

    def __init__(self, num_keypoints: int, text_dim: int, d: int) -> None:
        super().__init__()
        self.keypoints = nn.Sequential(
            layer(3 * num_keypoints, 4 * d, nn.LeakyReLU(0.2)), layer(4 * d, 2 * d, nn.LeakyReLU(0.2))
        )
        self.text = nn.Sequential(layer(text_dim, 4 * d, nn.LeakyReLU(0.2)), layer(4 * d, 2 * d, nn.LeakyReLU(0.2)))
        self.output = nn.Sequential(layer(4 * d, 2 * d, nn.LeakyReLU(0.2)), nn.Linear(2 * d, 1))
        initialize_convolutions(self)

    def forward(self, keypoints: Tensor, text: Tensor) -> Tensor:
        return self.output(torch.cat([self.keypoints(keypoints.flatten(1)), self.text(text)], 1))  # (N, 1)


class KeypointGAN(CaptionedModule, AdversarialModule):
    """The conditional keypoint generator of 2016, with the paper's values for birds.

    `sample` returns keypoints `(N, P, 3)`: x and y in [0, 1], and how surely each is there. Its condition holds
    captions, and may hold `keypoints` of which some are given: rows of NaN are those to be drawn.

    Args:
        num_keypoints: P.
        text_dim: length of a caption's embedding.
        encoder: class path of the text encoder, such as `lightning_gen.nn.BagOfWords`; None if the data bring
            embeddings.
        encoder_args: of its constructor.
        encoder_weights: its checkpoint, read once at the start of the first `fit` and kept in ours.
        num_captions: in training the embeddings of so many captions of an image, drawn anew each time, are averaged;
            one in the authors' script for keypoints.
        latent_dim: length of the noise z, standard normal.
        base_channels: n, units of the generator's layers, in multiples.
        discriminator_channels: d, units of the discriminator's layers, in multiples.
        keep_prob: in training, how often a keypoint is given.
        joint_normalization: let the discriminator normalise real and drawn keypoints as one batch; see `GAWWN`.
        lr: Adam's step size.
        betas: Adam's decay rates.
        halve_every_n_epochs: the step size is halved each time so many epochs have passed.
        gradient_clip_val: see `AdversarialModule`.
        accumulate_grad_batches: see `AdversarialModule`.

    Raises:
        DataError: if there are no keypoints, or the encoder is of another width.
        CheckpointError: if the encoder cannot be had.
    """

    smallest_batch = 2
    data_key = "keypoints"
    optional_condition_keys = ("keypoints",)

    def __init__(
        self,
        num_keypoints: Size = 15,
        text_dim: Size = 1024,
        encoder: str | None = None,
        encoder_args: dict[str, Any] | None = None,
        encoder_weights: str | None = None,
        num_captions: Size = 1,
        latent_dim: Size = 100,
        base_channels: Size = 128,
        discriminator_channels: Size = 128,
        keep_prob: Share = 0.1,
        joint_normalization: bool = False,
        lr: NonNegative = 2e-4,
        betas: tuple[Decay, Decay] = (0.5, 0.999),
        halve_every_n_epochs: Size = 100,
        gradient_clip_val: NonNegative | None = None,
        accumulate_grad_batches: Size = 1,
    ) -> None:
        super().__init__(gradient_clip_val, accumulate_grad_batches)
        self.save_hyperparameters()
        self.image_shape = (num_keypoints, 3)
        self.set_text(text_dim, None if encoder is None else make_frozen(encoder, encoder_args or {}), encoder_weights)
        self.num_captions = num_captions
        self.latent_dim = latent_dim
        self.keep_prob = keep_prob
        self.joint_normalization = joint_normalization
        self._drawn: dict[int, list[tuple[Tensor, Tensor]]] = defaultdict(list)  # of each held-out loader
        self.generator = Generator(num_keypoints, text_dim, latent_dim, base_channels)
        self.discriminator = Discriminator(num_keypoints, text_dim, discriminator_channels)

    # Conditions -------------------------------------------------------------------------------------------------

    def check_condition(
        self, condition: Condition | None, num_samples: int, generator: torch.Generator | None = None
    ) -> Condition:
        """Also refuse keypoints that do not fit; they may be left out. Captions are returned as embeddings."""
        if condition is not None:
            none_given = torch.full((num_samples, *self.image_shape), torch.nan)
            condition = {"keypoints": none_given, **condition}
        condition = super().check_condition(condition, num_samples, generator)
        given = condition["keypoints"]
        check_keypoints(given.nan_to_num() if isinstance(given, Tensor) else given, self.image_shape[0], ConditionError)
        return condition

    # Keypoints --------------------------------------------------------------------------------------------------

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw standard normal noise, `(num_samples, latent_dim)`."""
        return torch.randn(num_samples, self.latent_dim, generator=generator, device=self.device, dtype=self.dtype)

    def draw_switches(self, num_samples: int) -> Tensor:
        """Which keypoints are given in training, 0 or 1, `(num_samples, P, 1)`."""
        shares = torch.full((num_samples, self.image_shape[0], 1), self.keep_prob, device=self.device, dtype=self.dtype)
        return torch.bernoulli(shares)

    def complete(self, z: Tensor, text: Tensor, keypoints: Tensor, switches: Tensor) -> Tensor:
        """G(z, t, k, s): given keypoints as they are, and the others drawn, `(N, P, 3)`."""
        drawn = self.generator(z, text, switches * keypoints)
        return torch.where(switches > 0, keypoints, drawn)

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The keypoints of noise under captions, and with those given: `(N, latent_dim) -> (N, P, 3)`."""
        return self._generate(z, self.check_condition(condition, z.shape[0]))

    def _generate(self, z: Tensor, condition: Condition) -> Tensor:
        text, keypoints = (condition[key].to(self.dtype) for key in ("text_embedding", "keypoints"))
        switches = keypoints.isfinite().all(2, keepdim=True).to(self.dtype)
        return self.complete(z, text, keypoints.nan_to_num(), switches)

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        assert condition is not None
        return self._generate(self.sample_latent(num_samples, generator), condition)

    # Training ---------------------------------------------------------------------------------------------------

    def judge(self, real: Tensor, fake: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of real and of drawn keypoints under the same captions, `(N, 1)` each."""
        if self.joint_normalization:
            of_real, of_fake = self.discriminator(torch.cat([real, fake]), torch.cat([text, text])).chunk(2)
            return of_real, of_fake
        return self.discriminator(real, text), self.discriminator(fake, text)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Both updates from one forward pass, as in `GAWWN`."""
        optimizer_d, optimizer_g = self.optimizers()  # type: ignore[attr-defined]
        batch = self.as_batch(batch)
        keypoints, text = batch["keypoints"].to(self.dtype), self.draw_text(batch, self.num_captions)

        number = len(keypoints)
        fake = self.complete(self.sample_latent(number), text, keypoints, self.draw_switches(number))
        real_logits, fake_logits = self.judge(keypoints, fake, text)
        loss_d, loss_g = 2 * discriminator_loss(real_logits, fake_logits), non_saturating_loss(fake_logits)

        self.step((optimizer_d, loss_d), (optimizer_g, loss_g))
        self.log_dict({"train/loss_d": loss_d, "train/loss_g": loss_g}, prog_bar=True)

    # How far drawn keypoints are from real ones -------------------------------------------------------------------

    def figure_protocols(self, stage: str) -> dict[str, str]:
        return {"mmd2": f"keypoints under the captions of the {stage} images, and theirs; their median bandwidth"}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Draw keypoints under the captions of held-out images."""
        self._draw(self.as_batch(batch), batch_idx, dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Draw keypoints under the captions of test images."""
        self._draw(self.as_batch(batch), batch_idx, dataloader_idx)

    def _draw(self, batch: Batch, batch_idx: int, dataloader_idx: int) -> None:
        real = batch["keypoints"]
        generator = torch.Generator(self.device).manual_seed(batch_idx)  # Training's own stream stays untouched.
        text = {key: batch[key] for key in self.condition_keys}
        self._drawn[dataloader_idx].append((real, self.sample(len(real), text, generator=generator)))

    def on_validation_epoch_end(self) -> None:
        """Log `val/mmd2`, the squared maximum mean discrepancy of drawn and of real keypoints."""
        self._log_distance("val")

    def on_test_epoch_end(self) -> None:
        """Log `test/mmd2`."""
        self._log_distance("test")

    def _log_distance(self, stage: str) -> None:
        for dataloader_idx, pairs in self._drawn.items():
            real, drawn = (torch.cat(parts).flatten(1).float() for parts in zip(*pairs, strict=True))
            distance = mmd2(real, drawn, [median_bandwidth(real, real)])
            self.log_of_loader({f"{stage}/mmd2": distance.to(self.dtype)}, dataloader_idx, sync_dist=True)
        self._drawn.clear()

    def on_train_epoch_end(self) -> None:
        """Let the step sizes fall."""
        for schedule in self.own_schedules():
            schedule.step()

    def configure_optimizers(self) -> tuple[list[Optimizer], list[StepLR]]:
        """Adam for the discriminator and for the generator, with step sizes that are halved now and then."""
        settings = {name: self.hparams[name] for name in ("lr", "betas")}
        optimizers: list[Optimizer] = [
            torch.optim.Adam(network.parameters(), **settings) for network in (self.discriminator, self.generator)
        ]
        return optimizers, [StepLR(optimizer, self.hparams["halve_every_n_epochs"], 0.5) for optimizer in optimizers]
