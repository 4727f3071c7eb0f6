r"""Plug & Play Generative Networks: chains in a space of codes, steered by any network.

Nguyen, Clune, Bengio, Dosovitskiy and Yosinski, "Plug & Play Generative Networks: conditional iterative generation of
images in latent space" (2017), https://arxiv.org/abs/1612.00005.

A model p(h, y) = p(h) p(y | h) is walked through by approximate Langevin steps with step sizes set apart (equation 5):

    h' = h + e1 d log p(h)/dh + e2 d log p(y = c | G(h))/dh + N(0, e3^2)

A denoising autoencoder R gives the first term, R(h) - h (up to its noise's variance); a network of images that was
plugged in gives the second, through the generator G of DGN-AM. The variants differ in R:

    x          on images, without codes: R is a convolutional denoiser, and h the image itself
    dgn_am     none: e1 = 0, no noise
    h          a denoiser of codes
    joint      E(G(h)), where G was trained with noise on the image, on the comparator's maps and on the code
    noiseless  the same, where G was trained without noise, as in DGN-AM

See configs/ppgn/README.md for what differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gen.arguments import Decay, ImageShape, NonNegative, Size
from lightning_gen.errors import ConditionError
from lightning_gen.functional.chains import langevin_step, linear_schedule, scaled_step
from lightning_gen.models.base import Condition
from lightning_gen.models.dgn_am import DGNAM, Steering, Watch, squared_error

Variant = Literal["x", "dgn_am", "h", "joint", "noiseless"]

EPSILONS: dict[str, tuple[float, float, float]] = {
    "x": (1.0, 10.0, 0.02),  # Ours: the paper's were not to be had.
    "dgn_am": (0.0, 1.0, 0.0),
    "h": (1e-5, 1.0, 1e-5),
    "joint": (1e-5, 1.0, 1e-5),
    "noiseless": (1e-5, 1.0, 1e-17),
}
"""e1, e2 and e3 of each variant."""


class CodeDenoiser(nn.Sequential):
    """R_h: rectified dense layers from a noisy code to the code, `(N, K) -> (N, K)`."""

    def __init__(self, code_size: int, units: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise((code_size, *units)):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(*layers, nn.Linear(units[-1] if units else code_size, code_size))


class ImageDenoiser(nn.Sequential):
    """R_x: 3 x 3 convolutions that keep the size, each seeing further than the one before, then back again."""

    def __init__(self, image_channels: int, channels: int) -> None:
        layers: list[nn.Module] = []
        before = image_channels
        for dilation in (1, 2, 4, 2):
            layers += [nn.Conv2d(before, channels, 3, padding=dilation, dilation=dilation), nn.ReLU()]
            before = channels
        super().__init__(*layers, nn.Conv2d(channels, image_channels, 3, padding=1))


class PPGN(DGNAM):
    """Plug & Play Generative Networks of 2017; the defaults are the main model's for 227 x 227.

    `h` trains the denoiser of codes beside the generator, on the same codes; it can be sampled as `dgn_am` and as
    `noiseless` too, whose generators are trained alike: set `model.variant`.

    A condition is as in `DGNAM`. With `image` `(N, C, H, W)` and `mask` `(N, 1, H, W)`, 1 inside a hole, images are
    completed: pixels outside the hole stay as they are.

    Args:
        image_shape: see `DGNAM`.
        variant: what the prior is.
        encoder: see `DGNAM`, as for all that is not described here.
        encoder_args: of its constructor.
        encoder_weights: file with its weights.
        code_layer: the layer whose output is the code, h.
        comparator_layer: the layer that compares images, h1.
        generator_units: of the generator's dense layers.
        generator_channels: of its convolutions.
        discriminator_layers: of the discriminator's convolutions.
        discriminator_units: of its dense layers.
        denoiser_units: hidden units of the denoiser of codes.
        denoiser_channels: of the denoiser of images.
        denoiser_noise: deviation of the noise that they remove: in units of the images' range, or of each code unit's
            deviation.
        image_weight: for the sum of squared errors of an image's pixels in 0..255.
        feature_weight: for that of the comparator.
        code_weight: for that of the code, in `joint`.
        adversarial_weight: of -log D.
        noise: deviation of the noise in the training of `joint`, as a share of the mean activation.
        pause_d_below: D is not updated while L_D is less than so many times -log D(G(h)).
        pause_g_above: G is not updated while L_D is more than so many times that.
        lr: Adam's step size.
        betas: Adam's decay rates.
        sampler: `released`, the authors' code: each step is scaled to a mean absolute change, and the class's gradient
            goes through its own logit alone; or `equation`, as printed.
        num_steps: of a chain.
        step_size: mean absolute change of a code in the first step of `released`,
        step_size_end: and towards the last; it changes linearly.
        start: see `DGNAM`.
        epsilons: e1, e2 and e3; the variant's if None.
        context_weight: e4, of the pixels around a hole, in 0..255.
        code_limit: codes are cut to [0, code_limit]; for None to the mean and three deviations of each unit.
        gradient_clip_val: see `AdversarialModule`.
        accumulate_grad_batches: see `AdversarialModule`.

    Raises:
        DataError: if there is no such variant, or a size does not serve.
        CheckpointError: if the encoder cannot be had.
    """

    optional_condition_keys = ("unit", "caption", "image", "mask")
    no_density = ""

    def __init__(
        self,
        image_shape: ImageShape = (3, 227, 227),
        variant: Variant = "noiseless",
        encoder: str = "lightning_gen.nn.TorchvisionClassifier",
        encoder_args: dict[str, Any] | None = None,
        encoder_weights: str | None = None,
        code_layer: str = "network.classifier.2",
        comparator_layer: str = "network.features.12",
        generator_units: tuple[Size, ...] = (4096, 4096, 4096),
        generator_channels: tuple[tuple[Size, ...], ...] = ((256, 512), (256, 256), (128, 128), (64,), (32,)),
        discriminator_layers: tuple[tuple[Size, Size, Size], ...] = (
            (32, 7, 4),
            (64, 5, 1),
            (128, 3, 2),
            (256, 3, 1),
            (256, 3, 2),
        ),
        discriminator_units: tuple[Size, ...] = (1024, 512, 512),
        denoiser_units: tuple[Size, ...] = (4096, 2048, 1024, 500, 1024, 2048, 4096),
        denoiser_channels: Size = 64,
        denoiser_noise: NonNegative = 0.1,
        image_weight: NonNegative = 2e-6,
        feature_weight: NonNegative = 0.01,
        code_weight: NonNegative = 0.01,
        adversarial_weight: NonNegative = 100.0,
        noise: NonNegative = 0.01,
        pause_d_below: NonNegative = 0.1,
        pause_g_above: NonNegative | None = 10.0,
        lr: NonNegative = 2e-4,
        betas: tuple[Decay, Decay] = (0.9, 0.999),
        sampler: Literal["released", "equation"] = "released",
        num_steps: Size = 200,
        step_size: NonNegative = 1.0,
        step_size_end: NonNegative = 1.0,
        start: Literal["normal", "codes"] = "normal",
        epsilons: tuple[NonNegative, NonNegative, NonNegative] | None = None,
        context_weight: NonNegative = 1e-9,
        code_limit: NonNegative | None = 30.0,
        gradient_clip_val: NonNegative | None = None,
        accumulate_grad_batches: Size = 1,
    ) -> None:
        super().__init__(
            image_shape=image_shape,
            encoder=encoder,
            encoder_args=encoder_args,
            encoder_weights=encoder_weights,
            code_layer=code_layer,
            comparator_layer=comparator_layer,
            generator_units=generator_units,
            generator_channels=generator_channels,
            discriminator_layers=discriminator_layers,
            discriminator_units=discriminator_units,
            image_weight=image_weight,
            feature_weight=feature_weight,
            adversarial_weight=adversarial_weight,
            pause_d_below=pause_d_below,
            pause_g_above=pause_g_above,
            lr=lr,
            betas=betas,
            num_steps=num_steps,
            step_size=step_size,
            step_size_end=step_size_end,
            start=start,
            gradient_clip_val=gradient_clip_val,
            accumulate_grad_batches=accumulate_grad_batches,
        )
        self.save_hyperparameters()
        self.variant: Variant = variant
        self.denoiser_noise = denoiser_noise
        if variant == "x":
            del self.generator, self.discriminator
            self.denoiser: nn.Module = ImageDenoiser(self.image_shape[0], denoiser_channels)
        elif variant == "h":
            self.denoiser = CodeDenoiser(len(self.code_mean), denoiser_units)

    # Training ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Update D and G, and beside them the variant's denoiser."""
        images = self.as_batch(batch)["image"]
        data = images if self.variant == "x" else self.train_generator(images)
        if self.variant not in ("x", "h"):
            return
        optimizers: Any = self.optimizers()
        scale = self.denoiser_noise * (1.0 if self.variant == "x" else self.code_std)
        loss = squared_error(self.denoiser(data + scale * self.noise_like(data)), data)
        self.step((optimizers if self.variant == "x" else optimizers[2], loss))
        self.log("train/denoiser_error", loss, prog_bar=True)

    def noise_like(self, values: Tensor) -> Tensor:
        """Standard normal noise, of the same shape."""
        return torch.randn_like(values)

    def corrupt(self, images: Tensor, codes: Tensor) -> Tensor:
        """What G is given: in `joint` the code of a noisy image, by noisy maps, with noise."""
        if self.variant != "joint":
            return codes
        hook = self.encoder.network.get_submodule(self.comparator_layer).register_forward_hook(
            lambda _module, _inputs, maps: self._noisy(maps)
        )
        try:
            codes = self.encode(self._noisy(images))
        finally:
            hook.remove()
        return self._noisy(codes)

    def _noisy(self, values: Tensor) -> Tensor:
        return values + self.hparams["noise"] * values.abs().mean() * self.noise_like(values)

    def errors(self, fake: Tensor, images: Tensor, codes: Tensor, maps: Tensor) -> dict[str, Tensor]:
        """In `joint` that of the code as well."""
        if self.variant != "joint":
            return super().errors(fake, images, codes, maps)
        found, found_codes = self.encoder(fake, [self.comparator_layer, self.code_layer])
        return {
            "image_error": self.hparams["image_weight"] * squared_error(255 * fake, 255 * images),
            "feature_error": self.hparams["feature_weight"] * squared_error(found, maps),
            "code_error": self.hparams["code_weight"] * squared_error(found_codes.flatten(1), codes),
        }

    def configure_optimizers(self) -> list[Optimizer]:
        """One for the discriminator, one for the generator, one for a denoiser, as far as the variant has them."""
        if self.variant == "x":
            return [self.adam(self.denoiser)]
        return super().configure_optimizers() + ([self.adam(self.denoiser)] if self.variant == "h" else [])

    # Sampling ---------------------------------------------------------------------------------------------------

    def check_condition(
        self, condition: Condition | None, num_samples: int, generator: torch.Generator | None = None
    ) -> Condition:
        """Also refuse an image without a hole, a hole without an image, and those of another size."""
        condition = super().check_condition(condition, num_samples, generator)
        image, mask = condition.get("image"), condition.get("mask")
        if image is None and mask is None:
            return condition
        if not isinstance(image, Tensor) or not isinstance(mask, Tensor):
            raise ConditionError("PPGN completes an image inside a mask's hole; give image and mask both, as tensors.")
        shapes = (tuple(image.shape[1:]), tuple(mask.shape[1:]))
        if shapes[0] != self.image_shape or shapes[1] not in (self.image_shape, (1, *self.image_shape[1:])):
            raise ConditionError(
                f"PPGN got images of {shapes[0]} and masks of {shapes[1]}; expected {self.image_shape} and "
                f"{(1, *self.image_shape[1:])}."
            )
        hole = mask > 0.5
        if not hole.flatten(1).any(1).all():
            raise ConditionError("A mask is empty: nothing is to be drawn; set it to 1 inside the hole.")
        return {**condition, "mask": hole}

    def _climb(
        self,
        num_samples: int,
        condition: Condition,
        generator: torch.Generator | None,
        steering: Steering,
        watch: Watch | None,
    ) -> Tensor:
        """Walk through codes (images for `x`): a forward and a backward pass of G and the network in each step."""
        given = self.hparams
        released = given["sampler"] == "released"
        e1, e2, e3 = given["epsilons"] or EPSILONS[self.variant]
        image, hole = condition.get("image"), condition.get("mask")
        is_own = steering.network is self.encoder.network  # Then one forward pass gives score and code.
        reads_code = self.variant in ("joint", "noiseless")
        state = self._start(num_samples, condition, generator)
        low, high = torch.zeros_like(state[:1]), self._upper_bounds(state)
        for step in range(given["num_steps"]):
            state = state.detach().requires_grad_()
            drawn = state if self.variant == "x" else self.generate(state)
            seen = drawn if hole is None else torch.where(hole, drawn, image)  # type: ignore[arg-type]
            more = [self.code_layer] if reads_code and is_own and steering.captions is None else []
            score, shown, codes = steering(seen, "truncated" if released else "log_prob", more)
            objective = e2 * score.sum()
            if hole is not None:
                around = 255 * torch.where(hole, 0.0, drawn - image)  # type: ignore[operator]
                objective = objective - given["context_weight"] / 2 * around.square().sum()
            gradient = torch.autograd.grad(objective, state)[0]
            if watch is not None:
                watch(step, seen.detach().clamp(0, 1), shown)
            with torch.no_grad():
                state = state.detach()
                if reads_code:
                    prior = (codes[0].flatten(1) if more else self.encode(seen)) - state
                else:
                    prior = self.denoiser(state) - state if self.variant != "dgn_am" else torch.zeros_like(state)
                noise = e3 * torch.randn(state.shape, generator=generator, device=state.device, dtype=state.dtype)
                # The gradient is weighted already: that of the class and that of a hole's surroundings are one.
                if released:
                    length = linear_schedule(given["step_size"], given["step_size_end"], step, given["num_steps"])
                    state = scaled_step(state, e1 * prior + gradient + noise, length)
                else:
                    state = langevin_step(state, prior, gradient, noise, e1, 1.0)
                state = torch.minimum(torch.maximum(state, low), high)
        with torch.no_grad():
            images = state if self.variant == "x" else self.decode(state)
            return images if hole is None else torch.where(hole, images, image)  # type: ignore[arg-type]

    def _start(self, num_samples: int, condition: Condition, generator: torch.Generator | None) -> Tensor:
        """Standard normal codes, or uniform pixels for `x`; of an image with a hole, the code of what there is."""
        if "image" in condition:
            rest = torch.where(condition["mask"], self.image_mean, condition["image"])
            with torch.no_grad():
                return rest if self.variant == "x" else self.encode(rest)
        if self.variant != "x":
            return self.draw_start(num_samples, generator)
        size = (num_samples, *self.image_shape)
        return torch.rand(size, generator=generator, device=self.device, dtype=self.image_mean.dtype)

    def _upper_bounds(self, state: Tensor) -> Tensor:
        if self.variant == "x":
            return torch.ones_like(state[:1])
        limit = self.hparams["code_limit"]
        return self.code_bounds if limit is None else torch.full_like(self.code_bounds, limit)
