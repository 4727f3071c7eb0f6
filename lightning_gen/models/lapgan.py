r"""LAPGAN: a Laplacian pyramid of adversarial networks, with or without classes.

Denton, Chintala, Szlam and Fergus, "Deep generative image models using a Laplacian pyramid of adversarial networks"
(2015), https://arxiv.org/abs/1506.05751.

With d the blurring and shrinking of images, u their enlarging, I_0 an image and I_{k+1} = d(I_k), a generator draws the
smallest image I_K, and one more for each level what enlarging misses, the band h_k = I_k - l_k, l_k = u(I_{k+1}):

    I_k = u(I_{k+1}) + G_k(z_k, u(I_{k+1})),   k = K - 1, ..., 0          (equation 6)

Each is trained against a discriminator of its own, on the l_k of real images, so no level depends on another:

    min_G max_D  E[log D_k(h_k, l_k)] + E[log(1 - D_k(G_k(z_k, l_k), l_k))]

Levels are counted from the smallest image here. See configs/lapgan/README.md for what differs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gen.arguments import Count, ImageShape, NonNegative, Positive, Share, Size
from lightning_gen.errors import DataError
from lightning_gen.functional.adversarial import discriminator_loss, non_saturating_loss
from lightning_gen.functional.parzen import parzen_log_likelihood
from lightning_gen.functional.pyramid import check_sizes, downsample, laplacian_pyramid, upsample
from lightning_gen.models.adversarial import AdversarialModule
from lightning_gen.models.base import Batch, Condition
from lightning_gen.models.conditional import ConditionalModule

SMALLEST = 5
"""Side of the smallest band that the discriminators' two convolutions leave a pixel of; sides below 9 are padded."""

WIDTHS = torch.logspace(-1.5, 0.5, 21, dtype=torch.float64)
"""Of Parzen windows, to choose from; in units of the standardised images."""

NUM_COARSE, CHUNK = 10_000, 1000
"""Windows on the smallest image; how many are drawn at a time."""

# Networks: all take (z or band, l, classes); l is zero for the smallest image, and there may be no classes ------------


def normal(layer: nn.Linear, std: float) -> nn.Linear:
    """The layer with weights drawn from N(0, std^2) and no biases."""
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer


def beside(x: Tensor, y: Tensor | None) -> Tensor:
    """Vectors or planes with those of the classes behind them, if there are classes."""
    return x if y is None else torch.cat([x, y], 1)


class ClassPlane(nn.Sequential):
    """Classes as one rectified plane, `(N, num_classes) -> (N, 1, size, size)`."""

    def __init__(self, num_classes: int, size: int) -> None:
        super().__init__(nn.Linear(num_classes, size * size), nn.ReLU(), nn.Unflatten(1, (1, size, size)))


class CoarseGenerator(nn.Module):
    """Noise, and the class, through two rectified layers to the smallest image; linear."""

    def __init__(self, latent_dim: int, num_classes: int, hidden_size: int, image_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.noise_shape: tuple[int, ...] = (latent_dim,)
        self.layers = nn.Sequential(
            normal(nn.Linear(latent_dim + num_classes, hidden_size), 0.05),
            nn.ReLU(),
            normal(nn.Linear(hidden_size, hidden_size), 0.05),
            nn.ReLU(),
            normal(nn.Linear(hidden_size, math.prod(image_shape)), 0.05),
            nn.Unflatten(1, image_shape),
        )

    def forward(self, z: Tensor, low: Tensor, y: Tensor | None) -> Tensor:
        return self.layers(beside(z, y))


class CoarseDiscriminator(nn.Module):
    """The smallest image, and the class, through two rectified layers with dropout to a logit."""

    def __init__(self, num_pixels: int, num_classes: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            normal(nn.Linear(num_pixels + num_classes, hidden_size), 0.005),
            nn.ReLU(),
            nn.Dropout(dropout),
            normal(nn.Linear(hidden_size, hidden_size), 0.005),
            nn.ReLU(),
            nn.Dropout(dropout),
            normal(nn.Linear(hidden_size, 1), 0.005),
        )

    def forward(self, image: Tensor, low: Tensor, y: Tensor | None) -> Tensor:
        return self.layers(beside(image.flatten(1), y))  # (N, 1)


class BandGenerator(nn.Module):
    """A plane of noise, that of the class and the enlarged image through three convolutions to a band; linear."""

    def __init__(self, num_classes: int, channels: int, band_shape: tuple[int, int, int]) -> None:
        super().__init__()
        colours, size, _ = band_shape
        self.noise_shape: tuple[int, ...] = (1, size, size)
        self.classes = ClassPlane(num_classes, size) if num_classes else None
        self.layers = nn.Sequential(
            nn.Conv2d(1 + bool(num_classes) + colours, channels, 7, padding=3),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 7, padding=3),
            nn.ReLU(),
            nn.Conv2d(channels, colours, 5, padding=2),
        )

    def forward(self, z: Tensor, low: Tensor, y: Tensor | None) -> Tensor:
        planes = beside(z, None if self.classes is None else self.classes(y))
        return self.layers(torch.cat([planes, low], 1))


class BandDiscriminator(nn.Module):
    """The sum of a band and the enlarged image, and the plane of the class, through two convolutions to a logit."""

    def __init__(self, num_classes: int, channels: int, dropout: float, band_shape: tuple[int, int, int]) -> None:
        super().__init__()
        colours, size, _ = band_shape
        padding = 0 if size >= 9 else 2
        left = (size + 2 * padding - 4 - 5) // 2 + 1
        self.classes = ClassPlane(num_classes, size) if num_classes else None
        self.layers = nn.Sequential(
            nn.Conv2d(colours + bool(num_classes), channels, 5, padding=padding),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 5, stride=2),  # (N, channels, left, left)
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(channels * left * left, 1),
        )

    def forward(self, band: Tensor, low: Tensor, y: Tensor | None) -> Tensor:
        return self.layers(beside(band + low, None if self.classes is None else self.classes(y)))  # (N, 1)


# The model ----------------------------------------------------------------------------------------------------------


class LAPGAN(ConditionalModule, AdversarialModule):
    """A Laplacian pyramid of adversarial networks; the defaults are the paper's for CIFAR-10.

    Args:
        image_shape: `(C, H, H)`.
        sizes: sides of the levels, the smallest first, the last one H; all but the first at least 5.
        class_conditional: show all networks the label.
        num_classes: how many labels there are.
        latent_dim: length of the smallest image's noise; that of a band is one plane. Uniform in [-1, 1].
        hidden_sizes: units of both hidden layers of the smallest image's generator, and of its discriminator.
        channels: of the hidden layers of both networks of each band.
        dropout: share that the discriminators drop of each of their last hidden layers.
        standardization: subtract the mean and divide by the standard deviation over the training images of each
            `pixel`; or, where some pixels never change, of each `channel`. Samples are brought back.
        level: train this level alone, counted from 0, the smallest image; the others keep their weights.
        parzen_samples: bands drawn for each held-out image and level to estimate the paper's Parzen log-likelihood at
            validation and test; 0 for no estimate.
        optimizer: the paper's SGD, or Adam with betas of 0.5 and 0.999.
        lr: step size at the start.
        lr_decay: it is divided by this after each epoch, for the smallest image and for all bands.
        momentum: of SGD, at the start and at the end.
        momentum_growth: added to the momentum after each epoch.
        gradient_clip_val: see `AdversarialModule`.
        accumulate_grad_batches: see `AdversarialModule`.

    Raises:
        DataError: if the sizes do not fit the images, or there is no such level.
    """

    mean: Tensor
    std: Tensor
    widths: Tensor

    def __init__(
        self,
        image_shape: ImageShape = (3, 28, 28),
        sizes: tuple[Size, ...] = (8, 14, 28),
        class_conditional: bool = False,
        num_classes: Count = 10,
        latent_dim: Size = 100,
        hidden_sizes: tuple[Size, Size] = (1200, 600),
        channels: tuple[Size, ...] = (64, 128),
        dropout: Share = 0.5,
        standardization: Literal["pixel", "channel"] = "pixel",
        level: Count | None = None,
        parzen_samples: Count = 0,
        optimizer: Literal["sgd", "adam"] = "sgd",
        lr: NonNegative = 0.02,
        lr_decay: tuple[Positive, Positive] = (1.0004, 1.00004),
        momentum: tuple[Share, Share] = (0.5, 0.8),
        momentum_growth: NonNegative = 0.0008,
        gradient_clip_val: NonNegative | None = None,
        accumulate_grad_batches: Size = 1,
    ) -> None:
        super().__init__(gradient_clip_val, accumulate_grad_batches)
        self.save_hyperparameters()
        self.image_shape = image_shape = tuple(map(int, image_shape))
        self.sizes = sizes = tuple(map(int, sizes))
        check_sizes(self.sizes, self.image_shape, SMALLEST)
        if len(channels) != len(sizes) - 1:
            raise DataError(f"channels={list(channels)} has {len(channels)} values for {len(sizes) - 1} bands.")
        if level is not None and not 0 <= level < len(sizes):
            raise DataError(f"level is {level}; expected 0 to {len(sizes) - 1}, one of sizes={list(sizes)}.")
        if class_conditional:
            self.set_condition("label", num_classes, None)
        self.trained = range(len(sizes)) if level is None else range(level, level + 1)
        self.standardization = standardization
        self.parzen_samples = parzen_samples
        colours, classes = self.image_shape[0], self.condition_size
        coarse_shape = (colours, sizes[0], sizes[0])
        generators: list[nn.Module] = [CoarseGenerator(latent_dim, classes, hidden_sizes[0], coarse_shape)]
        discriminators: list[nn.Module] = [
            CoarseDiscriminator(math.prod(coarse_shape), classes, hidden_sizes[1], dropout)
        ]
        for size, width in zip(sizes[1:], channels, strict=True):
            generators.append(BandGenerator(classes, width, (colours, size, size)))
            discriminators.append(BandDiscriminator(classes, width, dropout, (colours, size, size)))
        self.generators, self.discriminators = nn.ModuleList(generators), nn.ModuleList(discriminators)
        self.register_buffer("mean", torch.zeros(self.image_shape))
        self.register_buffer("std", torch.ones(self.image_shape))
        self.register_buffer("widths", torch.ones(len(sizes), dtype=torch.float64))
        self._scores: dict[int, list[Tensor]] = defaultdict(list)  # (N, levels, K) of each batch of a held-out loader
        self.to(memory_format=torch.channels_last)  # The faster one of the two on a CPU as well.

    # Between images in [0, 1] and what the networks see ------------------------------------------------------------

    def initialize_from(self, batches: Iterable[Any]) -> None:
        """Take mean and standard deviation from the data, and keep how frequent labels are."""
        count, total, square = 0, torch.zeros(()), torch.zeros(())
        for images in self.checked_images(batches):
            images = images.cpu().double()
            count, total, square = count + len(images), total + images.sum(0), square + images.square().sum(0)
        mean, square = total / count, square / count
        if self.standardization == "channel":
            mean, square = (moment.mean((1, 2), keepdim=True).expand(self.image_shape) for moment in (mean, square))
        self.mean.copy_(mean)
        self.std.copy_((square - mean.square()).clamp(min=0).sqrt() + 1e-7)

    def standardize(self, images: Tensor) -> Tensor:
        """Images with mean 0 and variance 1 over the training images."""
        return (images - self.mean) / self.std

    def restore(self, images: Tensor) -> Tensor:
        """Images of any size in [0, 1], of standardised ones."""
        mean, std = (downsample(moment, images.shape[-1]) for moment in (self.mean, self.std))
        return (images * std + mean).clamp(0, 1)

    # Sampling -------------------------------------------------------------------------------------------------------

    def sample_noise(self, level: int, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw a level's noise, uniform in [-1, 1]: `(num_samples, latent_dim)`, or planes `(num_samples, 1, s, s)`."""
        network: Any = self.generators[level]
        shape = (num_samples, *network.noise_shape)
        return 2 * torch.rand(shape, generator=generator, device=self.device, dtype=self.dtype) - 1

    def classes(self, condition: Condition | Batch) -> Tensor | None:
        """One-hot labels `(N, num_classes)`; None for a model without classes."""
        return self.embed(condition) if self.condition_keys else None

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw the noise of all levels, the smallest first, side by side: `(num_samples, latent_dim + s^2 + ...)`."""
        levels = range(len(self.sizes))
        return torch.cat([self.sample_noise(level, num_samples, generator).flatten(1) for level in levels], 1)

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The images of all levels' noise under labels, drawn if None: `(N, ...) -> (N, C, H, H)` in [0, 1]."""
        return self.restore(self.chain(z, self.classes(self.check_condition(condition, z.shape[0]) or {}))[-1])

    def chain(self, z: Tensor, y: Tensor | None) -> list[Tensor]:
        """From the smallest image on, what each level makes of its noise and of the one before; standardised."""
        networks: list[Any] = list(self.generators)
        noises = z.split([math.prod(network.noise_shape) for network in networks], 1)
        low = self.mean.new_zeros(z.shape[0], self.image_shape[0], self.sizes[0], self.sizes[0])
        images: list[Tensor] = []
        for level, (network, noise) in enumerate(zip(networks, noises, strict=True)):
            if level:
                low = upsample(images[-1], self.sizes[level])
            images.append(low + network(noise.unflatten(1, network.noise_shape).contiguous(), low, y))
        return images

    def stages(
        self, num_samples: int, condition: Condition | None = None, *, generator: torch.Generator | None = None
    ) -> list[Tensor]:
        """Sample, and give the image of every level on the way, the smallest first; the last is what `sample` gives."""
        y = self.classes(self.check_condition(condition, num_samples, generator))
        with self.evaluating(), torch.no_grad():
            return [self.restore(images) for images in self.chain(self.sample_latent(num_samples, generator), y)]

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        return self.restore(self.chain(self.sample_latent(num_samples, generator), self.classes(condition or {}))[-1])

    # Training -------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """On each level D sees one half of the batch as it is and generated bands in the other; then G moves.

        The losses of the levels are summed: they have no parameter in common.
        """
        optimizer_d, optimizer_g = self.optimizers()  # type: ignore[attr-defined]
        batch = self.as_batch(batch)
        y = self.classes(batch)
        bands, lows = laplacian_pyramid(self.standardize(batch["image"]), self.sizes)
        half = len(bands[0]) // 2
        if not half:  # One image has no other half.
            return

        fakes: dict[int, Tensor] = {}
        losses_d: dict[int, Tensor] = {}
        for k in self.trained:
            fakes[k] = self.generators[k](self.sample_noise(k, len(bands[k])), lows[k], y)
            seen = torch.cat([bands[k][:half], fakes[k][half:]])
            logits = self.discriminators[k](seen, lows[k], y)
            losses_d[k] = discriminator_loss(logits[:half], logits[half:])
        self.step((optimizer_d, torch.stack(list(losses_d.values())).sum()))

        losses_g = {k: non_saturating_loss(self.discriminators[k](fakes[k], lows[k], y)) for k in self.trained}
        self.step((optimizer_g, torch.stack(list(losses_g.values())).sum()))

        for name, losses in (("train/loss_d", losses_d), ("train/loss_g", losses_g)):
            self.log(name, torch.stack(list(losses.values())).mean(), prog_bar=True)
            self.log_dict({f"{name}_{self.sizes[k]}": loss for k, loss in losses.items()})

    def on_train_epoch_start(self) -> None:
        """Set step sizes and momentum to the epoch's."""
        for optimizer in self.own_optimizers():
            for level, group in zip(self.trained, optimizer.param_groups, strict=False):  # Others may have added some.
                group["lr"] = self.lr_at(self.current_epoch, level, self.first_lr(group))
                if "momentum" in group:
                    group["momentum"] = group["dampening"] = self.momentum_at(self.current_epoch)

    def lr_at(self, epoch: int, level: int, start_lr: float | None = None) -> float:
        """Step size of a level in an epoch, counted from 0, of one that begins with `start_lr`; `lr` if None."""
        lr = self.hparams["lr"] if start_lr is None else start_lr
        return lr / self.hparams["lr_decay"][min(level, 1)] ** epoch

    def momentum_at(self, epoch: int) -> float:
        """Momentum in an epoch, counted from 0."""
        start, end = self.hparams["momentum"]
        return min(start + self.hparams["momentum_growth"] * epoch, end)

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimizer for the discriminators, one for the generators; a group of parameters for each level.

        Torch's SGD, which the authors trained with, damps what enters the velocity: v = m v + (1 - m) g, so that the
        step stays what `lr` says.
        """
        optimizers: list[Optimizer] = []
        for networks in (self.discriminators, self.generators):
            groups = [{"params": list(networks[level].parameters())} for level in self.trained]
            if self.hparams["optimizer"] == "adam":
                optimizers.append(torch.optim.Adam(groups, lr=self.hparams["lr"], betas=(0.5, 0.999)))
            else:
                momentum = self.momentum_at(0)
                optimizers.append(torch.optim.SGD(groups, self.hparams["lr"], momentum, dampening=momentum))
        return optimizers

    # The Parzen estimate of the paper -------------------------------------------------------------------------------

    def parzen_log_likelihood(
        self,
        images: Tensor,
        condition: Condition | None = None,
        widths: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Log-density of each level of images under Gaussian windows on what its generator draws (section 5).

        The smallest image's windows are on 10,000 samples of it; those of a band on `parzen_samples` bands drawn on the
        image's own, true l. The sum over levels is a density of standardised pyramids, not of pixels: compare it with
        others of the same sizes and data alone.

        Args:
            images: `(N, C, H, H)` in [0, 1].
            condition: as for `sample`; that of the images.
            widths: of the windows of each level, `(levels, K)`; those chosen at the last validation if None.
            generator: source of randomness on the module's device; the global one if None.

        Returns:
            Nats, float64, `(N, levels, K)`.
        """
        widths = self.widths[:, None] if widths is None else widths
        with self.evaluating(), torch.no_grad():
            bands, lows = laplacian_pyramid(self.standardize(images), self.sizes)
            coarse = torch.cat([self._coarse_samples(generator) for _ in range(NUM_COARSE // CHUNK)])
            levels = [parzen_log_likelihood(bands[0], coarse, widths[0])]  # (N, K)
            y, number = self.classes(condition or {}), self.parzen_samples
            for k in range(1, len(bands)):
                rows = []
                for i in range(len(images)):
                    z, low = self.sample_noise(k, number, generator), lows[k][i].expand(number, -1, -1, -1)
                    drawn = self.generators[k](z, low, None if y is None else y[i].expand(number, -1))
                    rows.append(parzen_log_likelihood(bands[k][i : i + 1], drawn, widths[k]))
                levels.append(torch.cat(rows))
        return torch.stack(levels, 1)

    def _coarse_samples(self, generator: torch.Generator | None) -> Tensor:
        """Smallest images, standardised, under labels as frequent as in training."""
        y = self.classes(self.check_condition(None, CHUNK, generator))
        low = self.mean.new_zeros(CHUNK, self.image_shape[0], self.sizes[0], self.sizes[0])
        return self.generators[0](self.sample_noise(0, CHUNK, generator), low, y)

    def figure_protocols(self, stage: str) -> dict[str, str]:
        chosen = "widths chosen on validation images" + (", the same that are scored" if stage == "val" else "")
        return {"parzen_pyramid": f"nats, {NUM_COARSE} and {self.parzen_samples} samples for each band, {chosen}"}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score validation images with every width, if `parzen_samples` asks for it."""
        if self.parzen_samples and (self._trainer is None or not self._trainer.sanity_checking):
            self._score(batch, batch_idx, dataloader_idx, WIDTHS.to(self.device).expand(len(self.sizes), -1))

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score test images with the widths chosen at validation."""
        if self.parzen_samples:
            self._score(batch, batch_idx, dataloader_idx, self.widths[:, None])

    def _score(self, batch: Any, batch_idx: int, dataloader_idx: int, widths: Tensor) -> None:
        batch = self.as_batch(batch)
        generator = torch.Generator(self.device).manual_seed(batch_idx)  # Training's own stream stays untouched.
        scores = self.parzen_log_likelihood(batch["image"], batch, widths, generator)
        self._scores[dataloader_idx].append(scores)

    def on_validation_epoch_end(self) -> None:
        """Choose the widths, and log `val/parzen_pyramid` with its standard error, `..._stderr`.

        Those chosen on the first loader's images are kept.
        """
        for dataloader_idx, parts in self._scores.items():
            scores = torch.cat(parts)
            best = self.reduce(scores.sum(0), "sum").argmax(1)  # (levels,)
            if dataloader_idx == 0:
                self.widths.copy_(WIDTHS.to(best.device)[best])
            self._log_scores("val", dataloader_idx, scores, best)
        self._scores.clear()

    def on_test_epoch_end(self) -> None:
        """Log `test/parzen_pyramid` with its standard error, `..._stderr`."""
        for dataloader_idx, parts in self._scores.items():
            only = torch.zeros(len(self.sizes), dtype=torch.int64, device=self.device)
            self._log_scores("test", dataloader_idx, torch.cat(parts), only)
        self._scores.clear()

    def _log_scores(self, stage: str, dataloader_idx: int, scores: Tensor, chosen: Tensor) -> None:
        """Mean over all images of all ranks, with each level's chosen width."""
        scores = scores.gather(2, chosen.expand(len(scores), -1)[..., None]).sum((1, 2))
        moments = torch.stack([scores.new_tensor(len(scores)), scores.sum(), scores.square().sum()])
        count, total, square = self.reduce(moments, "sum").tolist()
        mean = total / count
        error = (max(square / count - mean**2, 0.0) / max(count - 1, 1)) ** 0.5
        figures = {f"{stage}/parzen_pyramid": mean, f"{stage}/parzen_pyramid_stderr": error}
        self.log_of_loader(figures, dataloader_idx, rank_zero_only=False)
