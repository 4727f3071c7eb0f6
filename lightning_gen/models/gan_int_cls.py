r"""GAN-INT-CLS: images of captions.

Reed, Akata, Yan, Logeswaran, Schiele and Lee, "Generative Adversarial Text to Image Synthesis" (2016),
https://arxiv.org/abs/1605.05396.

Generator and discriminator see a caption through a frozen encoder, h = phi(t). The discriminator also learns that a
real image beside a caption of another is wrong (CLS, algorithm 1); the generator also draws what lies between two
captions, of which no image exists (INT, equation 5):

    D ascends  log D(x, h) + 1/2 log(1 - D(x', h)) + 1/2 log(1 - D(G(z, h), h))
    G ascends  log D(G(z, h), h)  and  log D(G(z, h'), h'),  h' = b h1 + (1 - b) h2,  b = 1/2

A third network S inverts the generator once that stands still, min E |z - S(G(z, h))|^2 (equation 6): S(x) is the style
of a picture, which can be drawn under another caption. See configs/gan_int_cls/README.md for what differs.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import StepLR

from lightning_gen.arguments import Count, Decay, ImageShape, NonNegative, Share, Size
from lightning_gen.errors import ConditionError, DataError
from lightning_gen.functional.precision import widen
from lightning_gen.models.adversarial import AdversarialModule
from lightning_gen.models.base import Batch, Condition
from lightning_gen.models.captioned import CaptionedModule
from lightning_gen.nn.frozen import make_frozen
from lightning_gen.nn.initialization import initialize_convolutions

HALVING: dict[str, Any] = {"kernel_size": 4, "stride": 2, "padding": 1}
"""Of convolutions that halve the side of maps, and of transposed ones that double it."""


def cls_loss(real: Tensor, wrong: Tensor, fake: Tensor, weight: float, counts: Tensor | None = None) -> Tensor:
    r"""The discriminator's loss, $-E \log D(x, h) - w E \log(1 - D(x', h)) - (1 - w) E \log(1 - D(G(z, h), h))$.

    Args:
        real: logits of real images beside their captions.
        wrong: logits of real images beside captions of others, `(N, 1)`.
        fake: logits of generated images beside their captions.
        weight: w; 0 gives the loss of a conditional GAN.
        counts: `(N,)`, 0 for the rows of `wrong` to leave out; all count if None.

    Returns:
        Nats, a scalar.

    >>> cls_loss(torch.zeros(4, 1), torch.zeros(4, 1), torch.zeros(4, 1), weight=0.5)  # 2 log 2, for any weight
    tensor(1.3863)
    """
    real, wrong, fake = widen(real), widen(wrong), widen(fake)
    of_wrong = F.softplus(wrong.squeeze(1))
    counts = torch.ones_like(of_wrong) if counts is None else counts.to(of_wrong.dtype)
    on_wrong = (counts * of_wrong).sum() / counts.sum().clamp(min=1)
    return F.softplus(-real).mean() + weight * on_wrong + (1 - weight) * F.softplus(fake).mean()


def midpoints(text: Tensor, beta: float) -> Tensor:
    """Points between the first half of a batch and the second, `(B, D) -> (B // 2, D)`, without images of their own.

    >>> midpoints(torch.tensor([[0.0], [2.0], [4.0], [8.0]]), beta=0.5)
    tensor([[2.],
            [5.]])
    """
    half = len(text) // 2
    return beta * text[:half] + (1 - beta) * text[half : 2 * half]


# Networks -----------------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Three convolutions by way of a quarter of the channels, beside the identity."""

    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        inner = channels // 4
        self.layers = nn.Sequential(
            nn.Conv2d(channels, inner, 1),
            nn.BatchNorm2d(inner),
            activation,
            nn.Conv2d(inner, inner, 3, padding=1),
            nn.BatchNorm2d(inner),
            activation,
            nn.Conv2d(inner, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
        )
        self.activation = activation

    def forward(self, maps: Tensor) -> Tensor:
        return self.activation(maps + self.layers(maps))


class Generator(nn.Module):
    """Noise and caption become maps of 4 x 4, which transposed convolutions double; tanh at the end.

    The first two sizes of maps have a residual block each, with no rectifier before it.
    """

    def __init__(
        self, image_shape: tuple[int, ...], latent_dim: int, text_dim: int, text_features: int, base_channels: int
    ) -> None:
        super().__init__()
        self.text = nn.Sequential(nn.Linear(text_dim, text_features), nn.LeakyReLU(0.2))
        widths = [base_channels * 2**level for level in reversed(range(halvings(image_shape)))]  # 1024 512 256 128
        smallest = nn.ConvTranspose2d(latent_dim + text_features, widths[0], 4)
        layers: list[nn.Module] = [smallest, nn.BatchNorm2d(widths[0]), Residual(widths[0], nn.ReLU())]
        for index, (before, after) in enumerate(pairwise(widths)):
            layers += [
                nn.ConvTranspose2d(before, after, **HALVING),
                nn.BatchNorm2d(after),
                nn.ReLU() if index else Residual(after, nn.ReLU()),
            ]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], image_shape[0], **HALVING), nn.Tanh())
        initialize_convolutions(self)

    def forward(self, z: Tensor, text: Tensor) -> Tensor:
        """Images in (-1, 1), `(N, C, H, W)`, of noise and embeddings."""
        return self.layers(torch.cat([z, self.text(text)], 1)[..., None, None])


class ImageTrunk(nn.Sequential):
    """Convolutions that halve images to maps of 4 x 4, and a residual block.

    From the third on they have no rectifier, as in the authors' code of this model (their script for COCO has them).
    """

    def __init__(self, image_shape: tuple[int, ...], base_channels: int) -> None:
        widths = [image_shape[0], *(base_channels * 2**level for level in range(halvings(image_shape)))]
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(widths)):
            layers.append(nn.Conv2d(before, after, **HALVING))
            layers += [nn.BatchNorm2d(after)] if index else []
            layers += [nn.LeakyReLU(0.2)] if index < 2 else []
        super().__init__(*layers, Residual(widths[-1], nn.LeakyReLU(0.2)))
        self.num_channels = widths[-1]


class Discriminator(nn.Module):
    """The caption stands beside every place of the image's last maps; a logit of both."""

    def __init__(self, image_shape: tuple[int, ...], text_dim: int, text_features: int, base_channels: int) -> None:
        super().__init__()
        self.image = ImageTrunk(image_shape, base_channels)
        self.text = nn.Sequential(nn.Linear(text_dim, text_features), nn.BatchNorm1d(text_features), nn.LeakyReLU(0.2))
        channels = self.image.num_channels
        self.joint = nn.Sequential(
            nn.Conv2d(channels + text_features, channels, 1),
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 1, 4),
            nn.Flatten(),
        )
        initialize_convolutions(self)

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        """Logits of images in [-1, 1] beside embeddings, `(N, 1)`."""
        maps = self.image(images)  # (N, 512, 4, 4)
        text = self.text(text)[..., None, None].expand(-1, -1, *maps.shape[2:])
        return self.joint(torch.cat([maps, text], 1))


class StyleEncoder(nn.Sequential):
    """The noise that an image was made of: the discriminator's trunk with as many outputs."""

    def __init__(self, image_shape: tuple[int, ...], latent_dim: int, base_channels: int) -> None:
        trunk = ImageTrunk(image_shape, base_channels)
        super().__init__(trunk, nn.Conv2d(trunk.num_channels, latent_dim, 4), nn.Flatten())
        initialize_convolutions(self)


def halvings(image_shape: tuple[int, ...]) -> int:
    """How often the sides of square images are halved to come to 4."""
    side = image_shape[1]
    if side < 8 or image_shape[1:] != (side, side) or side & (side - 1):
        raise DataError(
            f"GANINTCLS got image_shape={tuple(image_shape)}; it makes square images with a side of 8, 16, 32, 64, ..."
        )
    return side.bit_length() - 3


# The model ----------------------------------------------------------------------------------------------------------


class GANINTCLS(CaptionedModule, AdversarialModule):
    """The adversarial nets of 2016 that draw captions. The defaults are the authors' for birds at 64 x 64.

    With `cls_weight=0` and `interp_weight=0` it is a plain GAN under captions; with one of them GAN-INT or GAN-CLS.

    A condition has `caption`, a text or a list of texts for each image, of which the first `num_captions` count, or
    `text_embedding`, `(N, text_dim)`; and, once the style encoder has learned, it may have `source`, images whose style
    takes the place of noise.

    Args:
        image_shape: `(C, H, W)`; square, with a side of 8, 16, 32, 64, ...
        text_dim: length of a caption's embedding.
        encoder: class path of the text encoder, `lightning_gen.models.CharCNNRNN`; None if the data bring embeddings.
        encoder_args: of its constructor.
        encoder_weights: its checkpoint, read once at the start of the first `fit` and kept in ours.
        num_captions: so many captions of an image, drawn anew each time, are averaged; 1 in the paper's text.
        latent_dim: length of the noise z, standard normal.
        text_features: numbers that each network makes of an embedding.
        generator_channels: of the generator's last maps before the image; each halving of the side doubles them.
        discriminator_channels: of the discriminator's first maps; each halving of the side doubles them.
        biases: let convolutions learn their biases, which the authors set to 0 before each evaluation.
        cls_weight: w, what real images beside captions of others weigh in the discriminator's loss; 0 for none.
        interp_weight: what images of points between captions weigh in the generator's loss; 0 for none.
        interp_beta: b, where these points lie.
        mismatch: what makes an image one of another caption: another `label`, other `attributes`, or that it is
            another `image` of the batch; or the data bring it, as `wrong_image`, of the shape of `image`.
        joint_normalization: let the discriminator normalise right, wrong and generated pairs as one batch, of which
            both losses come. In batches of their own, as published, what sets all pairs of one kind apart from all of
            another can be read off the statistics of the batch, and D need not look at the pair.
        style_from_epoch: from this epoch on, G and D stand still and the style encoder learns; None for no such
            encoder.
        lr: Adam's step size in the first epochs.
        betas: Adam's decay rates.
        halve_every_n_epochs: the step size is halved each time so many epochs have passed.
        gradient_clip_val: see `AdversarialModule`.
        accumulate_grad_batches: see `AdversarialModule`.

    Raises:
        DataError: if there are no networks for such images, or a `cls_weight` is no share.
        CheckpointError: if the encoder cannot be had.
    """

    smallest_batch = 2
    style_learned: Tensor

    def __init__(
        self,
        image_shape: ImageShape = (3, 64, 64),
        text_dim: Size = 1024,
        encoder: str | None = None,
        encoder_args: dict[str, Any] | None = None,
        encoder_weights: str | None = None,
        num_captions: Size = 4,
        latent_dim: Size = 100,
        text_features: Count = 128,
        generator_channels: Size = 128,
        discriminator_channels: Size = 64,
        biases: bool = False,
        cls_weight: Share = 0.5,
        interp_weight: NonNegative = 1.0,
        interp_beta: Share = 0.5,
        mismatch: Literal["label", "attributes", "image", "wrong_image"] = "label",
        joint_normalization: bool = False,
        style_from_epoch: Count | None = None,
        lr: NonNegative = 2e-4,
        betas: tuple[Decay, Decay] = (0.5, 0.999),
        halve_every_n_epochs: Size = 100,
        gradient_clip_val: NonNegative | None = None,
        accumulate_grad_batches: Size = 1,
    ) -> None:
        super().__init__(gradient_clip_val, accumulate_grad_batches)
        self.save_hyperparameters()
        self.image_shape = image_shape = tuple(map(int, image_shape))
        self.num_captions = num_captions
        self.latent_dim = latent_dim
        self.cls_weight = cls_weight
        self.interp_weight = interp_weight
        self.interp_beta = interp_beta
        self.mismatch = mismatch
        self.joint_normalization = joint_normalization
        self.style_from_epoch = style_from_epoch
        self.generator = Generator(image_shape, latent_dim, text_dim, text_features, generator_channels)
        self.discriminator = Discriminator(image_shape, text_dim, text_features, discriminator_channels)
        if style_from_epoch is not None:
            self.style_encoder = StyleEncoder(image_shape, latent_dim, discriminator_channels)
            self.register_buffer("style_learned", torch.tensor(False))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
                module.bias.requires_grad_(biases)
        self.set_text(text_dim, None if encoder is None else make_frozen(encoder, encoder_args or {}), encoder_weights)

    # Images -----------------------------------------------------------------------------------------------------

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw standard normal noise, `(num_samples, latent_dim)`."""
        return torch.randn(num_samples, self.latent_dim, generator=generator, device=self.device, dtype=self.dtype)

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The images of noise under captions, `(N, latent_dim) -> (N, *image_shape)` in [0, 1]."""
        return self.generator(z, self.check_condition(condition, z.shape[0])["text_embedding"]) / 2 + 0.5

    def encode(self, images: Tensor) -> Tensor:
        """The style of images: the noise that the generator would make them of, whatever their captions.

        Args:
            images: `(N, *image_shape)` in [0, 1].

        Returns:
            `(N, latent_dim)`.

        Raises:
            ConditionError: if there is no style encoder, or it has learned nothing yet, or images have another shape.
        """
        if self.style_from_epoch is None or not self.style_learned:
            raise ConditionError(
                f"This {type(self).__name__} has no style encoder that has learned; train it with "
                "--model.style_from_epoch N and more than N epochs."
            )
        if tuple(images.shape[1:]) != self.image_shape:
            raise ConditionError(
                f"The source has the shape {tuple(images.shape[1:])}; the style is read from images of "
                f"{self.image_shape}."
            )
        return self.style_encoder(2 * images - 1)

    def check_condition(
        self, condition: Condition | None, num_samples: int, generator: torch.Generator | None = None
    ) -> Condition:
        """Check captions or embeddings, which are returned as embeddings, and sources of a style if there are any."""
        given = None if condition is None else dict(condition)
        source = {} if given is None or "source" not in given else {"source": given.pop("source")}
        if source and len(source["source"]) != num_samples:
            raise ConditionError(f"The condition 'source' has {len(source['source'])} rows for {num_samples} samples.")
        for key in (
            "caption",
            "text_embedding",
        ):  # Of an image with more captions the first ones, as many as in training.
            rows = None if given is None else given.get(key)
            if given is not None and isinstance(rows, Tensor) and rows.ndim == 3:
                given[key] = rows[:, : self.num_captions]
            elif given is not None and isinstance(rows, list):
                given[key] = [row[: self.num_captions] if isinstance(row, list) else row for row in rows]
        return {**super().check_condition(given, num_samples, generator), **source}

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        assert condition is not None
        if "source" in condition:
            z = self.encode(condition["source"].to(self.device))
        else:
            z = self.sample_latent(num_samples, generator)
        return self.generator(z, condition["text_embedding"]) / 2 + 0.5

    # Training ---------------------------------------------------------------------------------------------------

    def check_batch(self, batch: Batch) -> None:
        """Also refuse a batch in which no image is one of another caption."""
        super().check_batch(batch)
        if not (self.training and self.cls_weight):
            return
        if self.mismatch != "image" and self.mismatch not in batch:
            raise DataError(
                f"The batch holds {sorted(batch)}; mismatch={self.mismatch} needs {self.mismatch!r}: give --model."
                "mismatch image, where every other image is one of another caption."
            )
        if self.mismatch == "wrong_image":
            if (found := tuple(batch["wrong_image"].shape)) != (expected := tuple(batch["image"].shape)):
                raise DataError(f"The batch holds wrong images of shape {found} beside images of {expected}.")
        elif not self.do_not_fit(batch).any():
            raise DataError(
                f"All {len(batch['image'])} images of a batch have the same {self.mismatch}, so that every caption "
                "fits each; give larger batches of more classes, another --model.mismatch, or --model.cls_weight 0."
            )

    def do_not_fit(self, batch: Batch) -> Tensor:
        """Which images, in columns, a caption, in rows, does not fit: `(N, N)`, true or false."""
        images = batch["image"]
        kinds = torch.arange(len(images), device=images.device) if self.mismatch == "image" else batch[self.mismatch]
        kinds = kinds.view(len(images), -1)
        return (kinds[:, None] != kinds).any(2)

    def draw_mismatches(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """For each caption an image of the batch that it does not fit, each such one as likely.

        Returns:
            Their rows, `(N,)`, and which of the captions have one, `(N,)`.
        """
        others = self.do_not_fit(batch)
        return ((1 + torch.rand(others.shape, device=others.device)) * others).argmax(1), others.any(1)

    def wrong_images(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """For each caption an image that it does not fit, in [-1, 1], and which of them count, `(N,)`; None for all."""
        if self.mismatch == "wrong_image":
            return 2 * batch["wrong_image"] - 1, None
        rows, counts = self.draw_mismatches(batch)
        return 2 * batch["image"][rows] - 1, counts

    def with_midpoints(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """The texts that G draws for its own loss, those between captions among them, and what each weighs, `(M,)`."""
        weights = torch.ones(len(text), device=self.device)
        if not self.interp_weight:
            return text, weights
        between = midpoints(text, self.interp_beta)
        return torch.cat([text, between]), torch.cat([weights, self.interp_weight * weights.new_ones(len(between))])

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Update D on right, wrong and generated pairs, and G on images of captions and of points between them."""
        batch = self.as_batch(batch)
        images, text = 2 * batch["image"] - 1, self.draw_text(batch, self.num_captions)
        if not self.is_playing:
            return self.style_step(text)
        play = self.joint_losses if self.joint_normalization else self.separate_losses
        loss_d, loss_g = play(batch, images, text)
        self.log_dict({"train/loss_d": loss_d, "train/loss_g": loss_g}, prog_bar=True)

    def separate_losses(self, batch: Batch, images: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """As published: D sees pairs of each kind as a batch of their own and moves, then G on new images."""
        optimizer_d, optimizer_g = self.optimizers()[:2]  # type: ignore[index]
        with torch.no_grad():
            fake = self.generator(self.sample_latent(len(text)), text)
        real_logits, fake_logits = self.discriminator(images, text), self.discriminator(fake, text)
        wrong_logits, counts = fake_logits, None
        if self.cls_weight:
            wrong, counts = self.wrong_images(batch)
            wrong_logits = self.discriminator(wrong, text)
        loss_d = cls_loss(real_logits, wrong_logits, fake_logits, self.cls_weight, counts)
        self.step((optimizer_d, loss_d))

        text, weights = self.with_midpoints(text)  # Each image is judged beside the text that it was made of.
        logits = self.discriminator(self.generator(self.sample_latent(len(text)), text), text)
        loss_g = (weights * F.softplus(-widen(logits).squeeze(1))).mean()
        self.step((optimizer_g, loss_g))
        return loss_d, loss_g

    def joint_losses(self, batch: Batch, images: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """D sees all pairs as one batch, and both networks move by what it says of them."""
        optimizer_d, optimizer_g = self.optimizers()[:2]  # type: ignore[index]
        drawn_text, weights = self.with_midpoints(text)
        fake = self.generator(self.sample_latent(len(drawn_text)), drawn_text)
        pairs, counts = [(images, text)], None
        if self.cls_weight:
            wrong, counts = self.wrong_images(batch)
            pairs.append((wrong, text))
        seen, beside = (torch.cat(parts) for parts in zip(*pairs, (fake, drawn_text), strict=True))
        logits = self.discriminator(seen, beside).split([len(text)] * len(pairs) + [len(drawn_text)])
        fake_logits = logits[-1]
        of_captions = fake_logits[: len(text)]
        wrong_logits = logits[1] if self.cls_weight else of_captions
        loss_d = cls_loss(logits[0], wrong_logits, of_captions, self.cls_weight, counts)
        loss_g = (weights * F.softplus(-widen(fake_logits).squeeze(1))).mean()
        self.step((optimizer_d, loss_d), (optimizer_g, loss_g))
        return loss_d, loss_g

    @property
    def is_playing(self) -> bool:
        """False once the networks of the game stand still and the style encoder learns."""
        return self.style_from_epoch is None or self.current_epoch < self.style_from_epoch

    def style_step(self, text: Tensor) -> None:
        """Update S on images that the generator makes of known noise under captions, `(N, text_dim)`."""
        z = self.sample_latent(len(text))
        with torch.no_grad():
            images = self.generator(z, text)
        loss = (z - self.style_encoder(images)).square().mean()
        self.step((self.optimizers()[2], loss))  # type: ignore[index]
        self.style_learned.fill_(True)
        self.log("train/loss_style", loss, prog_bar=True)

    def on_train_epoch_start(self) -> None:
        """Let G stand still, normalised by its running statistics, while S learns."""
        if not self.is_playing:
            self.generator.eval()

    def on_train_start(self) -> None:
        super().on_train_start()
        GANINTCLS.on_train_epoch_start(self)  # A run resumed within an epoch begins here.

    def on_train_epoch_end(self) -> None:
        """Let the step sizes of the game fall, as long as it is played."""
        if not self.is_playing:
            return
        for schedule in self.own_schedules():
            schedule.step()

    def configure_optimizers(self) -> tuple[list[Optimizer], list[StepLR]]:
        """Adam for the discriminator, the generator and the style encoder if there is one."""
        networks = [self.discriminator, self.generator]
        if self.style_from_epoch is not None:
            networks.append(self.style_encoder)
        optimizers: list[Optimizer] = [
            torch.optim.Adam(network.parameters(), lr=self.hparams["lr"], betas=tuple(self.hparams["betas"]))
            for network in networks
        ]
        return optimizers, [
            StepLR(optimizer, self.hparams["halve_every_n_epochs"], 0.5) for optimizer in optimizers[:2]
        ]

    # How well S inverts G ---------------------------------------------------------------------------------------

    def figure_protocols(self, stage: str) -> dict[str, str]:
        return {"style_error": "mean squared error of the noise that S reads from samples; 1 for no guess"}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log `val/style_error` once S has learned."""
        self._score(self.as_batch(batch), batch_idx, "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log `test/style_error` if S has learned."""
        self._score(self.as_batch(batch), batch_idx, "test")

    def _score(self, batch: Batch, batch_idx: int, stage: str) -> None:
        if self.style_from_epoch is None or not self.style_learned:
            return
        number = len(batch["image"])
        z = self.sample_latent(number, torch.Generator(self.device).manual_seed(batch_idx))
        images = self.decode(z, {key: batch[key] for key in self.condition_keys})
        error = (z - self.encode(images)).square().mean()
        self.log(f"{stage}/style_error", error, batch_size=number, sync_dist=True)
