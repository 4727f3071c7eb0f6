r"""Generative adversarial what-where network: images of a caption, with the object in a box or its parts at keypoints.

Reed, Akata, Mohan, Tenka, Schiele, Lee, "Learning What and Where to Draw" (2016), https://arxiv.org/abs/1610.02454.

Both networks see a caption's embedding t and a location l, a global path the whole image and a local one what is at the
place. The discriminator also sees real images beside captions of others, t':

    D descends  -log D(x, l, t) - 1/2 log(1 - D(x, l, t')) - 1/2 log(1 - D(G(z, l, t), l, t))
    G descends  -log D(G(z, l, t), l, t)

Boxes enter by spatial transformers: the generator pastes maps into the box, the discriminator cuts them out of it.
Keypoints enter as one-hot maps, and as a mask of all that are there. See configs/gawwn/README.md for what differs.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import StepLR

from lightning_gen.arguments import Decay, ImageShape, NonNegative, Size, described
from lightning_gen.errors import ConditionError, DataError
from lightning_gen.functional.adversarial import non_saturating_loss
from lightning_gen.functional.placement import crop_boxes, keypoint_maps, paste_boxes
from lightning_gen.models.adversarial import AdversarialModule
from lightning_gen.models.base import Batch, Condition
from lightning_gen.models.captioned import CaptionedModule
from lightning_gen.models.gan_int_cls import HALVING, Residual, cls_loss
from lightning_gen.nn.frozen import make_frozen
from lightning_gen.nn.initialization import initialize_convolutions

# Layers: a convolution, batch normalisation, most often an activation. Sizes in brackets are sides of maps. ---------

KEEPING: dict[str, Any] = {"kernel_size": 3, "padding": 1}
CLOSING: dict[str, Any] = {"kernel_size": 4}  # From 4 x 4 to 1 x 1, or, transposed, back.
POINTWISE: dict[str, Any] = {"kernel_size": 1}


def conv(before: int, after: int, size: dict[str, Any], *activation: nn.Module) -> nn.Sequential:
    """A convolution, normalised."""
    return nn.Sequential(nn.Conv2d(before, after, **size), nn.BatchNorm2d(after), *activation)


def up(before: int, after: int, size: dict[str, Any], *activation: nn.Module) -> nn.Sequential:
    """A transposed convolution, normalised."""
    return nn.Sequential(nn.ConvTranspose2d(before, after, **size), nn.BatchNorm2d(after), *activation)


def linear(before: int, after: int) -> nn.Sequential:
    """A layer without places, normalised and rectified."""
    return nn.Sequential(nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU())


def leaky() -> nn.Module:
    """The discriminator's activation."""
    return nn.LeakyReLU(0.2)


def spread(vectors: Tensor, size: int) -> Tensor:
    """The same vector at every place, `(N, F) -> (N, F, size, size)`."""
    return vectors[:, :, None, None].expand(-1, -1, size, size)


def halvings(size: int) -> int:
    """How often maps are halved to 4 x 4."""
    return int(size // 4).bit_length() - 1


# Boxes --------------------------------------------------------------------------------------------------------------


class BoxGenerator(nn.Module):
    """Global path: where the caption is to be, and noise; local path: what is there, made whole and pasted in."""

    def __init__(self, image_shape: tuple[int, ...], text_dim: int, latent_dim: int, n: int, size: int) -> None:
        super().__init__()
        self.size = size
        widths = [2 * n * 2**level for level in reversed(range(halvings(size) + 1))]  # 8n (4), 4n (8), 2n (16)
        self.text = nn.Linear(text_dim, 4 * n)
        self.global_noise = nn.Linear(latent_dim, 4 * n)
        self.local_noise = nn.Linear(latent_dim, 4 * n)
        self.where = nn.Sequential(
            *(conv(4 * n, 4 * n, HALVING, nn.ReLU()) for _ in widths[1:]),
            conv(4 * n, 4 * n, CLOSING, nn.ReLU()),
        )
        self.global_path = nn.Sequential(
            up(8 * n, widths[0], CLOSING, nn.ReLU()),
            *(up(before, after, HALVING, nn.ReLU()) for before, after in pairwise(widths)),
        )
        self.local_path = nn.Sequential(up(8 * n, widths[0], CLOSING))
        for before, after in pairwise(widths):
            self.local_path += nn.Sequential(Residual(before, nn.ReLU()), up(before, after, HALVING))
        doublings = halvings(4 * image_shape[1] // size)
        channels = [2 * n, *(n // 4**level for level in range(doublings - 1))]
        self.merge = nn.Sequential(
            conv(4 * n, 2 * n, KEEPING, nn.ReLU()),
            *(up(before, after, HALVING, nn.ReLU()) for before, after in pairwise(channels)),
            nn.ConvTranspose2d(channels[-1], image_shape[0], **HALVING),
            nn.Tanh(),
        )
        initialize_convolutions(self)

    def forward(self, z: Tensor, boxes: Tensor, text: Tensor) -> Tensor:
        what = self.text(text)  # (N, 4n)
        where = self.where(paste_boxes(spread(what, self.size), boxes)).flatten(1)  # (N, 4n)
        code = torch.cat([where, self.global_noise(z).relu()], 1)
        globally = self.global_path(code[..., None, None])  # (N, 2n, 16, 16)
        code = torch.cat([self.local_noise(z), what], 1).relu()
        locally = paste_boxes(self.local_path(code[..., None, None]), boxes).relu()  # (N, 2n, 16, 16)
        return self.merge(torch.cat([globally, locally], 1))  # (N, C, H, W) in (-1, 1)


class BoxDiscriminator(nn.Module):
    """Global path: the image, and where the caption is; local path: what the box cuts out of both."""

    def __init__(self, image_shape: tuple[int, ...], text_dim: int, d: int, text_channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        levels = halvings(size)
        self.trunk = trunk(image_shape, d, size)
        self.text = nn.Sequential(nn.Linear(text_dim, text_channels), leaky())
        self.inside = conv(2 * d + text_channels, 2 * d, KEEPING, leaky())
        self.region = nn.Sequential(conv(2 * d, 2 * d, POINTWISE, leaky()), nn.Conv2d(2 * d, d, **POINTWISE))
        self.image = downward(d, levels)
        widths = [text_channels, *[4 * d] * (levels - 1), d]
        self.where = nn.Sequential(*(conv(before, after, HALVING, nn.ReLU()) for before, after in pairwise(widths)))
        self.joint = nn.Sequential(
            conv(d * 2 ** (levels + 1) + d, 4 * d, POINTWISE, leaky()), conv(4 * d, d, CLOSING, leaky())
        )
        self.head = head(d)
        initialize_convolutions(self)

    def forward(self, maps: Tensor, boxes: Tensor, text: Tensor) -> Tensor:
        """Logits `(N, 1)` of what the trunk sees in images, with the object in boxes and under a caption."""
        everywhere = spread(self.text(text), self.size)
        region = self.region(crop_boxes(self.inside(torch.cat([maps, everywhere], 1)), boxes))
        where = self.where(paste_boxes(everywhere, boxes))  # (N, d, 4, 4)
        joint = self.joint(torch.cat([self.image(maps), where], 1)).flatten(1)
        return self.head(torch.cat([F.leaky_relu(region.mean((2, 3)), 0.2), joint], 1))


# Keypoints ----------------------------------------------------------------------------------------------------------


class KeypointGenerator(nn.Module):
    """Global path: all keypoints, and the caption; local path: the caption at the keypoints alone."""

    def __init__(
        self,
        image_shape: tuple[int, ...],
        num_keypoints: int,
        text_dim: int,
        latent_dim: int,
        n: int,
        size: int,
    ) -> None:
        super().__init__()
        self.size = size
        widths = [n * 2**level for level in range(halvings(size) + 1)]  # n (16), 2n (8), 4n (4)
        self.noise = nn.Linear(latent_dim, 4 * n)
        self.text = nn.Linear(text_dim, 4 * n)
        self.what = linear(8 * n, 4 * n)
        self.region = conv(4 * n, 4 * n, KEEPING, nn.ReLU())
        self.where = nn.Sequential(
            *(conv(a, b, HALVING, nn.ReLU()) for a, b in pairwise([num_keypoints, *widths[:-1]])),
            conv(widths[-2], 4 * n, CLOSING, nn.ReLU()),
        )
        self.code = linear(8 * n, 4 * n)
        self.global_path = nn.Sequential(
            up(8 * n, widths[-1], CLOSING, nn.ReLU()),
            *(up(before, after, HALVING, nn.ReLU()) for before, after in pairwise(reversed(widths))),
        )
        channels = [4 * n, *(2 * n // 2**level for level in range(halvings(4 * image_shape[1] // size) - 1))]
        self.merge = nn.Sequential(
            conv(5 * n + num_keypoints, 4 * n, KEEPING, nn.ReLU()),
            conv(4 * n, 4 * n, KEEPING),
            Residual(4 * n, nn.ReLU()),
            *(up(before, after, HALVING, nn.ReLU()) for before, after in pairwise(channels)),
            nn.ConvTranspose2d(channels[-1], image_shape[0], **HALVING),
            nn.Tanh(),
        )
        initialize_convolutions(self)

    def forward(self, z: Tensor, maps: Tensor, text: Tensor) -> Tensor:
        code = torch.cat([self.noise(z), self.text(text)], 1).relu()  # (N, 8n)
        region = self.region(spread(self.what(code), self.size) * mask(maps))  # (N, 4n, 16, 16)
        code = torch.cat([self.where(maps).flatten(1), self.code(code)], 1)
        globally = self.global_path(code[..., None, None])  # (N, n, 16, 16)
        return self.merge(torch.cat([globally, region, maps], 1))  # (N, C, H, W) in (-1, 1)


class KeypointDiscriminator(nn.Module):
    """Global path: the image and the caption; local path: what both are at the keypoints, and which these are."""

    def __init__(
        self, image_shape: tuple[int, ...], num_keypoints: int, text_dim: int, d: int, text_channels: int, size: int
    ) -> None:
        super().__init__()
        self.size = size
        levels = halvings(size)
        self.trunk = trunk(image_shape, d, size)
        self.text = nn.Sequential(nn.Linear(text_dim, text_channels), leaky())
        self.inside = conv(2 * d + text_channels, 2 * d, KEEPING, leaky())
        self.region = nn.Sequential(
            conv(2 * d + num_keypoints, 2 * d, POINTWISE, leaky()), nn.Conv2d(2 * d, d, **POINTWISE)
        )
        self.image = downward(d, levels)
        self.joint = nn.Sequential(
            conv(d * 2 ** (levels + 1) + text_channels, 4 * d, POINTWISE, leaky()), conv(4 * d, d, CLOSING, leaky())
        )
        self.head = head(d)
        initialize_convolutions(self)

    def forward(self, features: Tensor, maps: Tensor, text: Tensor) -> Tensor:
        """Logits `(N, 1)` of what the trunk sees in images, with parts at keypoints and under a caption."""
        text = self.text(text)
        inside = self.inside(torch.cat([features, spread(text, self.size)], 1)) * mask(maps)
        region = self.region(torch.cat([inside, maps], 1))
        joint = self.joint(torch.cat([self.image(features), spread(text, 4)], 1)).flatten(1)
        return self.head(torch.cat([F.leaky_relu(region.mean((2, 3)), 0.2), joint], 1))


def mask(maps: Tensor) -> Tensor:
    """1 in every cell that holds a keypoint, `(N, P, M, M) -> (N, 1, M, M)`."""
    return maps.sum(1, keepdim=True).clamp(max=1)


# Both ---------------------------------------------------------------------------------------------------------------


def trunk(image_shape: tuple[int, ...], d: int, size: int) -> nn.Sequential:
    """Layers of a discriminator that see the image alone: d (64), d (32), 2d (16), 2d (16)."""
    before, layers = image_shape[0], []
    for _ in range(halvings(4 * image_shape[1] // size) - 1):
        layers += [nn.Conv2d(before, d, **HALVING), leaky()]
        before = d
    return nn.Sequential(*layers, conv(before, 2 * d, HALVING, leaky()), conv(2 * d, 2 * d, KEEPING, leaky()))


def downward(d: int, levels: int) -> nn.Sequential:
    """Layers of a discriminator's global path: 4d (8), 8d (4)."""
    widths = [d * 2 ** (level + 1) for level in range(levels + 1)]
    return nn.Sequential(*(conv(before, after, HALVING, leaky()) for before, after in pairwise(widths)))


def head(d: int) -> nn.Sequential:
    """The logit of both paths together."""
    return nn.Sequential(nn.Linear(2 * d, d), nn.BatchNorm1d(d), leaky(), nn.Linear(d, 1))


def check_boxes(boxes: Any, error: type[DataError | ConditionError]) -> None:
    """Refuse boxes that reach beyond the image, or have no area; the first of them is named."""
    form = "left, top, width, height in shares of the image"
    if not (isinstance(boxes, Tensor) and boxes.is_floating_point() and boxes.shape[1:] == (4,)):
        raise error(f"box is {described(boxes)}; expected floats (N, 4): {form}.")
    if torch.compiler.is_compiling():  # A graph has no values to look at.
        return
    corners, sides = boxes.split(2, dim=1)
    fits = ((corners >= 0) & (sides > 0) & (corners + sides <= 1 + 1e-5)).all(1)  # NaN does not.
    if not fits.all():
        row = int(fits.logical_not().nonzero()[0])
        box = [round(value, 4) for value in boxes[row].tolist()]
        wrong = "has no area" if (sides[row] <= 0).any() else "reaches beyond the image"
        raise error(f"The box {box} {wrong}; expected {form}, as in [0.1, 0.2, 0.5, 0.6].")


def check_keypoints(keypoints: Any, number: int, error: type[DataError | ConditionError]) -> None:
    """Refuse another number of keypoints, and those beyond the image; the first of them is named."""
    form = f"floats (N, {number}, 3): x and y in [0, 1], and 1 for a keypoint that is there, else 0"
    if not (isinstance(keypoints, Tensor) and keypoints.is_floating_point() and keypoints.shape[1:] == (number, 3)):
        raise error(f"keypoints are {described(keypoints)}; expected {form}.")
    if torch.compiler.is_compiling():
        return
    fits = ((keypoints >= 0) & (keypoints <= 1)).all(2)
    if not fits.all():
        row, point = fits.logical_not().nonzero()[0].tolist()
        values = [round(value, 4) for value in keypoints[row, point].tolist()]
        raise error(f"Keypoint {point} is {values}; expected {form}.")


class GAWWN(CaptionedModule, AdversarialModule):
    """The what-where networks of 2016, for square images. The defaults are the paper's for birds with keypoints.

    Args:
        image_shape: `(C, H, W)`; the side is `map_size` doubled once or more.
        location: whether a condition says where the object is by a `box`, left, top, width, height in [0, 1],
            `(N, 4)`; or where its parts are by `keypoints`, x and y in [0, 1] and 1 if there, else 0, `(N, P, 3)`.
        num_keypoints: P, where they are asked for.
        text_dim: length of a caption's embedding.
        encoder: class path of the text encoder, such as `lightning_gen.nn.BagOfWords`; None if the data bring
            embeddings.
        encoder_args: of its constructor.
        encoder_weights: its checkpoint, read once at the start of the first `fit` and kept in ours.
        num_captions: in training the embeddings of so many captions of an image, drawn anew each time, are averaged.
        latent_dim: length of the noise z, standard normal.
        base_channels: n, of the generator's layers, in multiples and fractions.
        discriminator_channels: d, of the discriminator's layers.
        text_channels: numbers that the discriminator makes of an embedding.
        map_size: side of the maps on which places are, 4 doubled once or more.
        joint_normalization: let the discriminator normalise real and generated images as one batch. In batches of
            their own, as published, what sets all of one apart from all of the other is taken away before the last
            layer.
        lr: Adam's step size in the first epochs.
        betas: Adam's decay rates.
        halve_every_n_epochs: the step size is halved each time so many epochs have passed.
        gradient_clip_val: see `AdversarialModule`.
        accumulate_grad_batches: see `AdversarialModule`.

    Raises:
        DataError: if there are no networks for such images, or the encoder is of another width.
        CheckpointError: if the encoder cannot be had.
    """

    smallest_batch = 2

    def __init__(
        self,
        image_shape: ImageShape = (3, 128, 128),
        location: Literal["box", "keypoints"] = "keypoints",
        num_keypoints: Size = 15,
        text_dim: Size = 1024,
        encoder: str | None = None,
        encoder_args: dict[str, Any] | None = None,
        encoder_weights: str | None = None,
        num_captions: Size = 4,
        latent_dim: Size = 100,
        base_channels: Size = 128,
        discriminator_channels: Size = 128,
        text_channels: Size = 128,
        map_size: Size = 16,
        joint_normalization: bool = False,
        lr: NonNegative = 2e-4,
        betas: tuple[Decay, Decay] = (0.5, 0.999),
        halve_every_n_epochs: Size = 100,
        gradient_clip_val: NonNegative | None = None,
        accumulate_grad_batches: Size = 1,
    ) -> None:
        super().__init__(gradient_clip_val, accumulate_grad_batches)
        self.save_hyperparameters()
        self.image_shape = image_shape = tuple(map(int, image_shape))
        self.set_text(text_dim, None if encoder is None else make_frozen(encoder, encoder_args or {}), encoder_weights)
        self.condition_keys = (*self.condition_keys, location)
        self.location = location
        self.num_keypoints = num_keypoints
        self.num_captions = num_captions
        self.joint_normalization = joint_normalization
        self.latent_dim = latent_dim
        self.map_size = size = map_size
        sides = [size * 2**level for level in range(1, 6)]
        if size not in (8, 16, 32) or image_shape[1:] not in [(side, side) for side in sides]:
            raise DataError(
                f"GAWWN got image_shape={image_shape} and map_size={size}; it makes square images with a side of "
                "map_size doubled once or more, and maps of 8, 16 or 32."
            )
        n, d, t = base_channels, discriminator_channels, text_channels
        self.generator: nn.Module
        self.discriminator: nn.Module
        if location == "box":
            self.generator = BoxGenerator(image_shape, text_dim, latent_dim, n, size)
            self.discriminator = BoxDiscriminator(image_shape, text_dim, d, t, size)
        else:
            self.generator = KeypointGenerator(image_shape, num_keypoints, text_dim, latent_dim, n, size)
            self.discriminator = KeypointDiscriminator(image_shape, num_keypoints, text_dim, d, t, size)

    # Conditions -------------------------------------------------------------------------------------------------

    def check_batch(self, batch: Batch) -> None:
        """Also refuse a batch without places."""
        if self.location not in batch:
            raise DataError(f"The batch holds {sorted(batch)}; GAWWN with location={self.location} needs it there too.")
        super().check_batch(batch)

    def check_text(self, values: Any, key: str, error: type[ConditionError] | type[DataError]) -> None:
        """Check places too, where all that a batch or a condition holds is checked."""
        if key == self.location:
            self.check_place(values, error)
        else:
            super().check_text(values, key, error)

    def check_condition(
        self, condition: Condition | None, num_samples: int, generator: torch.Generator | None = None
    ) -> Condition:
        """Also refuse places that do not fit; captions are returned as embeddings."""
        condition = super().check_condition(condition, num_samples, generator)
        self.check_place(condition[self.location], ConditionError)
        return condition

    def check_place(self, place: Any, error: type[DataError | ConditionError]) -> None:
        """Refuse boxes beyond the image or without area, and keypoints of another number."""
        if self.location == "box":
            check_boxes(place, error)
        else:
            check_keypoints(place, self.num_keypoints, error)

    def place(self, condition: Condition | Batch) -> Tensor:
        """Where things are, as the networks take it: boxes `(N, 4)`, or maps `(N, P, map_size, map_size)`."""
        place = condition[self.location].to(self.dtype)
        return place if self.location == "box" else keypoint_maps(place, self.map_size)

    # Images -----------------------------------------------------------------------------------------------------

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw standard normal noise, `(num_samples, latent_dim)`."""
        return torch.randn(num_samples, self.latent_dim, generator=generator, device=self.device, dtype=self.dtype)

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The images of noise under captions and places, `(N, latent_dim) -> (N, *image_shape)` in [0, 1].

        Of several captions of an image the mean of the embeddings is taken.
        """
        return self._generate(z, self.check_condition(condition, z.shape[0]))

    def _generate(self, z: Tensor, condition: Condition) -> Tensor:
        return self.generator(z, self.place(condition), condition["text_embedding"].to(self.dtype)) / 2 + 0.5

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        assert condition is not None
        return self._generate(self.sample_latent(num_samples, generator), condition)

    # Training ---------------------------------------------------------------------------------------------------

    def mismatch(self, text: Tensor) -> Tensor:
        """Captions of other images, by a permutation of the batch; a few may stay where they are."""
        return text[torch.randperm(len(text), device=text.device)]

    def judge(self, images: Tensor, fake: Tensor, place: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of real images under their own and under others' captions, and of generated ones, `(N, 1)` each."""
        judge: Any = self.discriminator
        trunk, others = judge.trunk, self.mismatch(text)
        if self.joint_normalization:
            real, made = trunk(torch.cat([images, fake])).chunk(2)
            logits = judge(torch.cat([real, real, made]), torch.cat(3 * [place]), torch.cat([text, others, text]))
            return logits.chunk(3)
        real, made = trunk(images), trunk(fake)
        return judge(real, place, text), judge(real, place, others), judge(made, place, text)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Both updates from one forward pass, as the authors' code keeps the discriminator's activations."""
        optimizer_d, optimizer_g = self.optimizers()  # type: ignore[attr-defined]
        batch = self.as_batch(batch)
        images, place, text = 2 * batch["image"] - 1, self.place(batch), self.draw_text(batch, self.num_captions)

        fake = self.generator(self.sample_latent(len(images)), place, text)
        real_logits, mismatched_logits, fake_logits = self.judge(images, fake, place, text)
        loss_d = cls_loss(real_logits, mismatched_logits, fake_logits, weight=0.5)
        loss_g = non_saturating_loss(fake_logits)

        self.step((optimizer_d, loss_d), (optimizer_g, loss_g))
        self.log_dict({"train/loss_d": loss_d, "train/loss_g": loss_g}, prog_bar=True)

    def on_train_epoch_end(self) -> None:
        """Let the step sizes fall."""
        for schedule in self.own_schedules():
            schedule.step()

    def configure_optimizers(self) -> tuple[list[Optimizer], list[StepLR]]:
        """Adam for the discriminator and for the generator, with step sizes that are halved now and then."""
        optimizers: list[Optimizer] = [
            torch.optim.Adam(network.parameters(), lr=self.hparams["lr"], betas=tuple(self.hparams["betas"]))
            for network in (self.discriminator, self.generator)
        ]
        return optimizers, [StepLR(optimizer, self.hparams["halve_every_n_epochs"], 0.5) for optimizer in optimizers]
