r"""VGAN: videos with scene dynamics, a moving foreground over a background that stands still.

Vondrick, Pirsiavash and Torralba, "Generating Videos with Scene Dynamics" (2016), https://arxiv.org/abs/1609.02612.

One stream of the generator makes the video f of what moves and a mask m, another one the image b of what does not:

    G(z) = m(z) * f(z) + (1 - m(z)) * b(z),     z ~ N(0, I)                                        (equation 3)
    min_G max_D  E log D(x) + E log(1 - D(G(z))) + lambda |m(z)|_1                               (equation 1, section 3)

A discriminator of spatio-temporal convolutions judges whole clips. With `conditional` an encoding of a still frame x_0
takes the place of the noise, and lambda |G(x_0)_1 - x_0|_1 that of the mask's penalty (section 4.4). See
configs/vgan/README.md for what differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gen.arguments import Decay, NonNegative, Size, VideoShape
from lightning_gen.errors import ConditionError, DataError
from lightning_gen.functional.adversarial import discriminator_loss, non_saturating_loss
from lightning_gen.functional.motion import mask_iou, mean_frame_difference, moving_pixels
from lightning_gen.models.adversarial import AdversarialModule
from lightning_gen.models.base import Condition
from lightning_gen.nn.initialization import initialize_normal

HALVE: dict[str, Any] = {"kernel_size": 4, "stride": 2, "padding": 1}
"""Convolutions halve every side, transposed ones double it."""


class Streams(NamedTuple):
    """What a generator makes of each code; the last two are missing where there is one stream."""

    foreground: Tensor  # (N, C, T, H, W)
    mask: Tensor | None  # (N, 1, T, H, W) in (0, 1): the share of the foreground
    background: Tensor | None  # (N, C, H, W)

    @property
    def video(self) -> Tensor:
        """The streams blended, `(N, C, T, H, W)`: equation 3."""
        if self.mask is None or self.background is None:
            return self.foreground
        return self.mask * self.foreground + (1 - self.mask) * self.background[:, :, None]


def doubling(dims: Literal[2, 3], widths: Sequence[int]) -> list[nn.Module]:
    """Transposed convolutions from each width to the next, each with batch normalisation and a rectifier."""
    convolution: Any = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [convolution(before, after, **HALVE), normalise(dims, after)]
    return layers


def normalise(dims: Literal[2, 3], channels: int, eps: float = 1e-5) -> nn.Module:
    """Batch normalisation and a rectifier."""
    return nn.Sequential((nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d)(channels, eps), nn.ReLU())


class Generator(nn.Module):
    """One or two streams from a code: noise, or the smallest maps of a still frame's encoder.

    Shape:
        noise `(N, latent_dim)`, or with `conditional` frames `(N, C, H, W)` in [-1, 1] -> streams in (-1, 1).
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        latent_dim: int,
        base_channels: int,
        two_stream: bool,
        conditional: bool,
        init_std: float,
    ) -> None:
        super().__init__()
        channels, frames, *_ = image_shape
        levels = num_levels(image_shape)
        widths = [base_channels * 2**level for level in reversed(range(levels))]  # 512 256 128 64
        duration = frames >> levels  # 2, and the smallest maps have 4 x 4 pixels.

        self.encoder = self.encode(channels, widths[::-1]) if conditional else None
        code, size = (widths[0], 1) if conditional else (latent_dim, 4)
        self.features = nn.Sequential(  # (N, code, 1, size, size) -> (N, base_channels, T / 2, H / 2, W / 2)
            nn.ConvTranspose3d(code, widths[0], (duration, size, size)), normalise(3, widths[0]), *doubling(3, widths)
        )
        self.foreground = nn.Sequential(nn.ConvTranspose3d(base_channels, channels, **HALVE), nn.Tanh())
        self.mask = self.background = None
        if two_stream:
            self.mask = nn.Sequential(nn.ConvTranspose3d(base_channels, 1, **HALVE), nn.Sigmoid())
            first = [] if conditional else [nn.ConvTranspose2d(code, widths[0], size), normalise(2, widths[0])]
            last = nn.ConvTranspose2d(base_channels, channels, **HALVE)
            self.background = nn.Sequential(*first, *doubling(2, widths), last, nn.Tanh())
        initialize_normal(self, init_std)

    @staticmethod
    def encode(channels: int, widths: Sequence[int]) -> nn.Sequential:
        """Convolutions to the smallest maps, `(N, C, H, W) -> (N, widths[-1], 4, 4)`.

        At first the variance of the first normalised maps is some 2e-5: the authors' eps of 1e-3 holds these back.
        """
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], **HALVE), nn.ReLU()]
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, **HALVE), normalise(2, after, eps=1e-3)]
        return nn.Sequential(*layers)

    def forward(self, given: Tensor) -> Streams:
        code = given[:, :, None, None] if self.encoder is None else self.encoder(given)
        features = self.features(code[:, :, None])
        if self.mask is None or self.background is None:
            return Streams(self.foreground(features), None, None)
        return Streams(self.foreground(features), self.mask(features), self.background(code))


class Discriminator(nn.Module):
    """Spatio-temporal convolutions, and two logits: real and generated; or a code, for the autoencoder.

    Shape:
        `(N, C, T, H, W)` in [-1, 1] -> `(N, num_outputs)`.
    """

    def __init__(self, image_shape: tuple[int, ...], base_channels: int, init_std: float, num_outputs: int = 2) -> None:
        super().__init__()
        self.init_std = init_std
        levels = num_levels(image_shape)
        widths = [base_channels * 2**level for level in range(levels)]  # 64 128 256 512
        layers: list[nn.Module] = [nn.Conv3d(image_shape[0], widths[0], **HALVE), nn.LeakyReLU(0.2)]
        for before, after in pairwise(widths):
            layers += [nn.Conv3d(before, after, **HALVE), nn.BatchNorm3d(after, eps=1e-3), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)  # -> (N, 512, 2, 4, 4)
        self.output = nn.Conv3d(widths[-1], num_outputs, (image_shape[1] >> levels, 4, 4))
        initialize_normal(self, init_std)

    def forward(self, videos: Tensor) -> Tensor:
        return self.output(self.layers(videos)).flatten(1)

    def classifier(self, num_classes: int, dropout: float = 0.5) -> nn.Sequential:
        """The same layers with an output for each class in the place of real and generated (section 3.3).

        They are shared, not copied; only the output is new.

        Returns:
            A network `(N, C, T, H, W)` in [-1, 1] -> logits `(N, num_classes)`.
        """
        output = nn.Conv3d(self.output.in_channels, num_classes, self.output.kernel_size)  # type: ignore[arg-type]
        initialize_normal(output, self.init_std)
        return nn.Sequential(self.layers, nn.Dropout(dropout), output, nn.Flatten())


def num_levels(image_shape: tuple[int, ...]) -> int:
    """How often the sides are halved down to maps of 4 x 4: 4 for 64 x 64."""
    return (image_shape[-1] // 4).bit_length() - 1


class VGAN(AdversarialModule):
    """Generator and discriminator of videos of 2016. The defaults are the paper's for 32 frames of 64 x 64.

    Batches have the key `video`, `(N, C, T, H, W)` in [0, 1]. A conditional model is sampled under still frames,
    `image` `(N, C, H, W)`, with which its videos begin; it learns from the first frame of each training video.

    Args:
        video_shape: `(C, T, H, W)`: square frames with a side of 8, 16, 32, ..., a number of them that can be halved as
            often as the side down to 4.
        streams: `two`, or `one` that makes the whole video as a foreground (equation 2).
        conditional: make the video of a still frame instead of noise.
        latent_dim: length of the noise z; without use in the conditional network.
        base_channels: of the generator's last hidden layer; each halving doubles them. 64 if None, and 128 in the
            conditional network.
        discriminator_channels: of the discriminator's first layer; as `base_channels` if None.
        mask_weight: lambda of the penalty, 0.1 times the mean of the mask; without use in the conditional network.
        frame_weight: lambda of the mean difference between the still frame and the video's first one, pixels in
            [-1, 1]; of the conditional network alone.
        init_std: standard deviation of the first weights; 0.01 in the authors' code, while DCGAN has 0.02.
        lr: Adam's step size.
        betas: Adam's decay rates.
        gradient_clip_val: see `AdversarialModule`.
        accumulate_grad_batches: see `AdversarialModule`.

    Raises:
        DataError: if there is no network for such videos.
    """

    smallest_batch = 2
    data_key = "video"

    def __init__(
        self,
        video_shape: VideoShape = (3, 32, 64, 64),
        streams: Literal["two", "one"] = "two",
        conditional: bool = False,
        latent_dim: Size = 100,
        base_channels: Size | None = None,
        discriminator_channels: Size | None = None,
        mask_weight: NonNegative = 0.1,
        frame_weight: NonNegative = 10.0,
        init_std: NonNegative = 0.01,
        lr: NonNegative = 2e-4,
        betas: tuple[Decay, Decay] = (0.5, 0.999),
        gradient_clip_val: NonNegative | None = None,
        accumulate_grad_batches: Size = 1,
    ) -> None:
        super().__init__(gradient_clip_val, accumulate_grad_batches)
        self.save_hyperparameters()
        self.image_shape = tuple(map(int, video_shape))
        check_shape(self.video_shape)
        self.two_stream = streams == "two"
        self.conditional = conditional
        self.condition_keys = ("image",) if conditional else ()
        self.latent_dim = latent_dim
        self.mask_weight = mask_weight
        self.frame_weight = frame_weight
        width = base_channels or (128 if conditional else 64)
        self.generator = Generator(self.video_shape, latent_dim, width, self.two_stream, conditional, init_std)
        self.discriminator = Discriminator(self.video_shape, discriminator_channels or width, init_std)

    # Sampling ---------------------------------------------------------------------------------------------------

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw noise of N(0, I), `(num_samples, latent_dim)`."""
        return torch.randn(num_samples, self.latent_dim, generator=generator, device=self.device, dtype=self.dtype)

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The videos that the generator makes of noise, `(N, latent_dim) -> (N, C, T, H, W)` in [0, 1].

        A conditional one makes them of the condition's still frames, and does not look at the noise.
        """
        if self.conditional:
            checked = self.check_condition(condition, z.shape[0]) or {}
            z = 2 * checked["image"] - 1
        return self.generator(z).video / 2 + 0.5

    def check_condition(
        self, condition: Condition | None, num_samples: int, generator: torch.Generator | None = None
    ) -> Condition | None:
        """Also refuse still frames of another size than the videos'."""
        condition = super().check_condition(condition, num_samples, generator)
        channels, _, *sides = self.video_shape
        if condition is not None and tuple(condition["image"].shape[1:]) != (channels, *sides):
            raise ConditionError(
                f"VGAN got still frames of {tuple(condition['image'].shape[1:])}; expected {(channels, *sides)}, as "
                "the frames that it was trained on."
            )
        return condition

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        return self._streams(num_samples, condition, generator).video

    def sample_streams(
        self, num_samples: int, condition: Condition | None = None, *, generator: torch.Generator | None = None
    ) -> Streams:
        """What `sample` blends: foreground, mask and background, all in [0, 1]."""
        condition = self.check_condition(condition, num_samples, generator)
        with self.evaluating(), torch.no_grad():
            return self._streams(num_samples, condition, generator)

    def _streams(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Streams:
        still = None if condition is None else 2 * condition["image"] - 1
        foreground, mask, background = self.generator(
            self.sample_latent(num_samples, generator) if still is None else still
        )
        return Streams(foreground / 2 + 0.5, mask, None if background is None else background / 2 + 0.5)

    # Training ---------------------------------------------------------------------------------------------------

    def judge(self, videos: Tensor) -> Tensor:
        """The log-odds of being real that D gives to videos in [-1, 1], `(N,)`: the difference of its two logits."""
        real, generated = self.discriminator(videos).unbind(1)
        return real - generated

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Update D on real and on generated videos, which batch normalisation sees apart, then G on the latter."""
        optimizer_d, optimizer_g = self.optimizers()  # type: ignore[attr-defined]
        videos = 2 * self.as_batch(batch)["video"] - 1
        still = videos[:, :, 0]

        streams = self.generator(still if self.conditional else self.sample_latent(len(videos)))
        fake = streams.video
        loss_d = 2 * discriminator_loss(self.judge(videos), self.judge(fake.detach()))  # The paper has no factor 1/2.
        self.step((optimizer_d, loss_d))

        adversarial = non_saturating_loss(self.judge(fake))
        loss_g = adversarial + self.penalty(streams.mask, fake, still)
        self.step((optimizer_g, loss_g))
        self.log_dict({"train/loss_d": loss_d, "train/loss_g": adversarial}, prog_bar=True)

    def penalty(self, mask: Tensor | None, fake: Tensor, still: Tensor) -> Tensor:
        """What G pays beside the game: for its mask, or for another first frame than the still one.

        Args:
            mask: `(N, 1, T, H, W)`, None with one stream.
            fake: generated videos, `(N, C, T, H, W)` in [-1, 1].
            still: `(N, C, H, W)` in [-1, 1].

        Returns:
            A scalar.
        """
        if self.conditional:
            return self.frame_weight * (fake[:, :, 0] - still).abs().mean()
        return fake.new_zeros(()) if mask is None else self.mask_weight * mask.mean()

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimizer for the discriminator, one for the generator."""
        settings = {name: self.hparams[name] for name in ("lr", "betas")}
        return [torch.optim.Adam(network.parameters(), **settings) for network in (self.discriminator, self.generator)]

    # Figures ----------------------------------------------------------------------------------------------------

    def figure_protocols(self, stage: str) -> dict[str, str]:
        return {
            "motion": "mean absolute difference of successive frames, pixels in [0, 1]",
            "motion_real": "of the held-out videos",
            "first_frame_l1": "mean absolute difference to the still frame, pixels in [0, 1]",
            "mask": "mean of the mask",
            "mask_iou": "mask over 0.5 against pixels over 0.1 from their median in time, as sets of all clips",
        }

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log `val/motion`, and where there are a mask and a still frame `val/mask_iou`, `val/first_frame_l1`."""
        self._score(self.as_batch(batch)["video"], batch_idx, "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log `test/motion`, and where there are a mask and a still frame `test/mask_iou`, `test/first_frame_l1`."""
        self._score(self.as_batch(batch)["video"], batch_idx, "test")

    def _score(self, videos: Tensor, batch_idx: int, stage: str) -> None:
        """Figures of as many generated videos as the batch has, from noise that training does not share."""
        generator = torch.Generator(self.device).manual_seed(batch_idx)
        still = videos[:, :, 0]
        streams = self.sample_streams(len(videos), {"image": still} if self.conditional else None, generator=generator)
        figures = {
            "motion": mean_frame_difference(streams.video),
            "motion_real": mean_frame_difference(videos),
        }
        if self.conditional:
            figures["first_frame_l1"] = (streams.video[:, :, 0] - still).abs().mean()
        if streams.mask is not None:
            figures["mask"] = streams.mask.mean()
            figures["mask_iou"] = mask_iou(streams.mask > 0.5, moving_pixels(streams.video))
        self.log_dict({f"{stage}/{k}": v for k, v in figures.items()}, batch_size=len(videos), sync_dist=True)


def check_shape(video_shape: tuple[int, ...]) -> None:
    """Refuse videos that the networks cannot halve down to frames of 4 x 4."""
    if len(video_shape) == 4:
        _, frames, height, width = video_shape
        levels = num_levels(video_shape)
        if height == width == 4 << levels and levels and frames and not frames % (1 << levels):
            return
    raise DataError(
        f"VGAN got video_shape={video_shape}; expected (C, T, H, W) with square frames of a side of 8, 16, 32, 64, ... "
        "pixels, and frames that can be halved as often as the side down to 4: 32 of 64 x 64, 16 of 32 x 32."
    )
