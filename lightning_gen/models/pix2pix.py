r"""pix2pix: image-to-image translation with conditional adversarial networks.

Isola, Zhu, Zhou and Efros, "Image-to-Image Translation with Conditional Adversarial Networks" (2017),
https://arxiv.org/abs/1611.07004.

A generator turns a source x into an image close to its partner y; a discriminator that sees both judges its patches:

    G* = arg min_G max_D  E[log D(x, y)] + E[log(1 - D(x, G(x, z)))] + lambda E |y - G(x, z)|      (equations 1, 3, 4)

The noise z is dropout in the generator, when sampling too. See configs/pix2pix/README.md for what is not in the paper.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_gen.arguments import Count, Decay, ImageShape, NonNegative, Several, Share, Size
from lightning_gen.errors import ConditionError, DataError
from lightning_gen.functional.adversarial import discriminator_loss, non_saturating_loss
from lightning_gen.functional.latent import drop
from lightning_gen.functional.ms_ssim import ms_ssim, num_scales
from lightning_gen.models.adversarial import AdversarialModule
from lightning_gen.models.base import Batch, Condition, check_pixels
from lightning_gen.nn.initialization import initialize_normal

PATCHES = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4, 286: 5}
"""Sides of the patch that a logit of the discriminator sees, in pixels, and how many of its layers halve the side."""


class MemorylessNorm(nn.BatchNorm2d):
    """Normalisation by the images at hand: those of the batch in training, each image by itself afterwards.

    The authors never switch to running statistics and test with one image at a time (section 3.3); this gives the same
    images at any batch size.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features, track_running_stats=False)

    def forward(self, maps: Tensor) -> Tensor:
        if self.training:
            return super().forward(maps)
        return F.instance_norm(maps, weight=self.weight, bias=self.bias, eps=self.eps)


class Generator(nn.Module):
    """Strided convolutions down to the smallest maps and transposed ones back up; tanh at the end.

    With `skips` it is the U-Net: each layer on the way up also sees the maps of its size from the way down.

    Shape:
        source `(N, source_channels, H, W)` in [-1, 1] -> `(N, target_channels, H, W)` in (-1, 1); both sides divisible
        by 2^num_levels.
    """

    def __init__(
        self, source_channels: int, target_channels: int, base_channels: int, num_levels: int, skips: bool
    ) -> None:
        super().__init__()
        self.skips = skips
        self.num_dropouts = min(3, num_levels - 3)
        widths = [base_channels * min(2**level, 8) for level in range(num_levels)]  # 64 128 256 512 512 ...
        size: dict[str, Any] = {"kernel_size": 4, "stride": 2, "padding": 1}
        self.down = nn.ModuleList([nn.Conv2d(source_channels, widths[0], bias=False, **size)])
        for before, after in pairwise(widths):
            smallest = len(self.down) == num_levels - 1  # Maps of 1 x 1, of which their own statistics make zero.
            norm = [] if smallest else [MemorylessNorm(after)]
            self.down.append(nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(before, after, bias=False, **size), *norm))
        self.up = nn.ModuleList()
        for before, after in pairwise(reversed(widths)):
            inputs = 2 * before if skips and len(self.up) else before
            self.up.append(
                nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(inputs, after, bias=False, **size), MemorylessNorm(after))
            )
        inputs = 2 * widths[0] if skips else widths[0]
        self.up.append(nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(inputs, target_channels, **size), nn.Tanh()))
        initialize_normal(self)

    def forward(self, source: Tensor, dropout: float, generator: torch.Generator | None = None) -> Tensor:
        maps, passed = source, []
        for layer in self.down:
            maps = layer(maps)
            passed.append(maps)
        for index, layer in enumerate(self.up):
            if self.skips and index:
                maps = torch.cat([maps, passed[-1 - index]], 1)
            maps = layer(maps)
            if index < self.num_dropouts:
                maps = drop(maps, dropout, generator)
        return maps


class Discriminator(nn.Sequential):
    """A logit for each patch of a pair: convolutions of which the last two keep the size (PatchGAN).

    Shape:
        `(N, channels, H, W)` in [-1, 1] -> logits `(N, 1, H', W')`.
    """

    def __init__(self, channels: int, base_channels: int, patch_size: int) -> None:
        halvings = PATCHES[patch_size]
        widths = [base_channels * min(2**level, 8) for level in range(max(halvings, 1) + 1)]
        strides = [2] * halvings + [1] * (len(widths) - halvings)
        size: dict[str, Any] = {"kernel_size": 4, "padding": 1} if halvings else {"kernel_size": 1}
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], stride=strides[0], **size), nn.LeakyReLU(0.2)]
        for (before, after), stride in zip(pairwise(widths), strides[1:], strict=True):
            layers += [
                nn.Conv2d(before, after, stride=stride, bias=False, **size),
                MemorylessNorm(after),
                nn.LeakyReLU(0.2),
            ]
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, **size))
        initialize_normal(self)


class Pix2Pix(AdversarialModule):
    """Image-to-image translation of 2016. The defaults are the paper's for 256 x 256.

    A batch holds the images to be made, `image`, and what they are made from, `source` `(N, source_channels, H, W)` in
    [0, 1]. Sampling takes sources of any size that can be halved `num_levels` times.

    Args:
        image_shape: `(C, H, W)` of the images to be made.
        source_channels: channels of the sources; those of the images if None.
        architecture: of the generator: `unet`, or `encoder_decoder` without the connections across.
        base_channels: channels of the first layer of either network; each halving doubles them, up to eight times.
        num_levels: how often the generator halves the sides; 8 brings 256 x 256 to 1 x 1.
        patch_size: side of the patches that the discriminator judges, in pixels: one of 1, 16, 34, 70, 142 and 286.
        gan: whether the discriminator sees the source too (`conditional`), the image alone (`unconditional`), or is
            left out (`none`).
        l1_weight: lambda, for pixels in [-1, 1].
        dropout: share of the units that are dropped in the generator's first layers on the way up, its only noise.
        lr: Adam's step size.
        betas: Adam's decay rates.
        constant_epochs: the step size is constant for so many epochs,
        decay_epochs: and then falls linearly to 0 in so many.
        gradient_clip_val: see `AdversarialModule`.
        accumulate_grad_batches: see `AdversarialModule`.

    Raises:
        DataError: if there is no such discriminator, a size cannot be halved so often, or nothing is to be learned.
    """

    condition_keys = ("source",)

    def __init__(
        self,
        image_shape: ImageShape = (3, 256, 256),
        source_channels: Size | None = None,
        architecture: Literal["unet", "encoder_decoder"] = "unet",
        base_channels: Size = 64,
        num_levels: Several = 8,
        patch_size: Size = 70,
        gan: Literal["conditional", "unconditional", "none"] = "conditional",
        l1_weight: NonNegative = 100.0,
        dropout: Share = 0.5,
        lr: NonNegative = 2e-4,
        betas: tuple[Decay, Decay] = (0.5, 0.999),
        constant_epochs: Count = 100,
        decay_epochs: Count = 100,
        gradient_clip_val: NonNegative | None = None,
        accumulate_grad_batches: Size = 1,
    ) -> None:
        super().__init__(gradient_clip_val, accumulate_grad_batches)
        self.save_hyperparameters()
        self.image_shape = tuple(map(int, image_shape))
        if patch_size not in PATCHES:
            raise DataError(f"patch_size is {patch_size}; there are discriminators of {', '.join(map(str, PATCHES))}.")
        if gan == "none" and not l1_weight:
            raise DataError("gan=none and l1_weight=0 leave nothing to learn; give one of the two.")
        self.source_channels = self.image_shape[0] if source_channels is None else source_channels
        self.num_levels = num_levels
        self.gan = gan
        self.l1_weight = l1_weight
        self.dropout = dropout
        self.check_sides(self.image_shape[1:], DataError)
        self.generator = Generator(
            self.source_channels, self.image_shape[0], base_channels, num_levels, architecture == "unet"
        )
        seen = self.image_shape[0] + (self.source_channels if gan == "conditional" else 0)
        self.discriminator = Discriminator(seen, base_channels, patch_size)

    # What is translated -----------------------------------------------------------------------------------------

    def check_sides(self, sides: tuple[int, ...], error: type[DataError] | type[ConditionError]) -> None:
        """Refuse a height or width that cannot be halved as often as the generator does, and name the nearest."""
        unit = 2**self.num_levels
        if any(side % unit for side in sides):
            nearest = " x ".join(str(max(1, round(side / unit)) * unit) for side in sides)
            raise error(
                f"An image of {' x '.join(map(str, sides))} pixels cannot be halved {self.num_levels} times; give both "
                f"sides as multiples of {unit}, the nearest are {nearest}, or another num_levels."
            )

    def check_source(self, source: Any, error: type[DataError] | type[ConditionError]) -> None:
        """Refuse sources that are no images of the right channels and sides."""
        if not (isinstance(source, Tensor) and source.ndim == 4 and source.shape[1] == self.source_channels):
            found = f"the shape {tuple(source.shape)}" if isinstance(source, Tensor) else repr(type(source).__name__)
            raise error(
                f"Pix2Pix got a source of {found}; expected (N, {self.source_channels}, H, W), by the model's "
                "source_channels."
            )
        self.check_sides(tuple(source.shape[2:]), error)

    def check_batch(self, batch: Batch) -> None:
        """Also refuse a batch without sources, or with sources of another size than the images."""
        super().check_batch(batch)
        if "source" not in batch:
            raise DataError(
                f"The batch holds {sorted(batch)}; Pix2Pix needs 'source' too, as PairedImageDataModule has it."
            )
        self.check_source(batch["source"], DataError)
        check_pixels(batch["source"], "source")
        if batch["source"].shape[2:] != batch["image"].shape[2:]:
            raise DataError(
                f"Sources have {tuple(batch['source'].shape[2:])} pixels, images {tuple(batch['image'].shape[2:])}."
            )

    def check_condition(
        self, condition: Condition | None, num_samples: int, generator: torch.Generator | None = None
    ) -> Condition | None:
        """Also refuse sources that the generator cannot take."""
        condition = super().check_condition(condition, num_samples, generator)
        assert condition is not None
        self.check_source(condition["source"], ConditionError)
        return condition

    def translate(self, source: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What the generator makes of sources, with new dropout: both `(N, channels, H, W)` in [0, 1]."""
        return self.generator(2 * source - 1, self.dropout, generator) / 2 + 0.5

    def forward(self, source: Tensor) -> Tensor:  # type: ignore[override]
        """The images that sources in [0, 1] become, `(N, source_channels, H, W) -> (N, C, H, W)`, with new dropout."""
        return self.translate(source)

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        assert condition is not None
        return self.translate(condition["source"], generator)

    # Training ---------------------------------------------------------------------------------------------------

    def judge(self, source: Tensor, images: Tensor) -> Tensor:
        """Logits of the patches of images, all in [-1, 1], beside their sources if D is conditional."""
        return self.discriminator(torch.cat([source, images], 1) if self.gan == "conditional" else images)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Update D on real and on generated pairs, then G on the latter, which are made once."""
        optimizer_d, optimizer_g = self.optimizers()  # type: ignore[attr-defined]
        batch = self.as_batch(batch)
        source, target = 2 * batch["source"] - 1, 2 * batch["image"] - 1

        fake = self.generator(source, self.dropout)
        l1 = (target - fake).abs().mean()
        loss_g = self.l1_weight * l1
        losses = {"train/l1": l1 / 2}  # For pixels in [0, 1], as in validation.
        if self.gan != "none":
            loss_d = discriminator_loss(self.judge(source, target), self.judge(source, fake.detach()))
            self.step((optimizer_d, loss_d))
            adversarial = non_saturating_loss(self.judge(source, fake))
            loss_g = loss_g + adversarial
            losses |= {"train/loss_d": loss_d, "train/loss_g": adversarial}
        self.step((optimizer_g, loss_g))
        self.log_dict(losses, prog_bar=True)

    def on_train_epoch_end(self) -> None:
        """Let the step sizes fall."""
        schedules = self.own_schedules()
        for schedule in schedules if self.gan != "none" else schedules[1:]:  # Without a game D does not move.
            schedule.step()

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LambdaLR]]:
        """Adam for the discriminator and for the generator, each with a constant and then falling step size."""
        constant, decay = self.hparams["constant_epochs"], self.hparams["decay_epochs"]
        optimizers: list[Optimizer] = [
            torch.optim.Adam(network.parameters(), lr=self.hparams["lr"], betas=tuple(self.hparams["betas"]))
            for network in (self.discriminator, self.generator)
        ]

        def share(epoch: int) -> float:  # As in the authors' code: above 0 in the last epoch.
            return max(0.0, 1 - max(0, epoch + 1 - constant) / (decay + 1))

        return optimizers, [LambdaLR(optimizer, share) for optimizer in optimizers]

    # Scores -----------------------------------------------------------------------------------------------------

    def figure_protocols(self, stage: str) -> dict[str, str]:
        return {
            "l1": "mean absolute difference to the target, pixels in [0, 1], one draw each",
            "ms_ssim_to_target": f"{num_scales(min(self.image_shape[1:]))} scales, one draw each",
        }

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log `val/l1` and `val/ms_ssim_to_target`."""
        self._score(self.as_batch(batch), batch_idx, "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log `test/l1` and `test/ms_ssim_to_target`."""
        self._score(self.as_batch(batch), batch_idx, "test")

    def _score(self, batch: Batch, batch_idx: int, stage: str) -> None:
        generator = torch.Generator(self.device).manual_seed(batch_idx)  # Training's own stream stays untouched.
        made, target = self.translate(batch["source"], generator), batch["image"]
        scores = {"l1": (made - target).abs().mean(), "ms_ssim_to_target": ms_ssim(made, target).mean()}
        self.log_dict(
            {f"{stage}/{name}": score for name, score in scores.items()}, batch_size=len(target), sync_dist=True
        )
