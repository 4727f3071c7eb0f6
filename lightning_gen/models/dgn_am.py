r"""DGN-AM: what a network's units want to see, drawn by a deep generator network.

Nguyen, Dosovitskiy, Yosinski, Brox and Clune, "Synthesizing the preferred inputs for neurons in neural networks via
deep generator networks" (2016), https://arxiv.org/abs/1605.09304, with the generator of Dosovitskiy and Brox,
"Generating images with perceptual similarity metrics based on deep networks" (2016), https://arxiv.org/abs/1602.02644.

A frozen network E gives a code h = E(x); the generator G learns to turn codes back into images, under a comparator C
(an earlier layer of E) and a discriminator D, both of which see the difference in their own way:

    L_G = l_img |G(h) - x|^2 + l_feat |C(G(h)) - C(x)|^2 - l_adv log D(G(h), h)
    L_D = -log D(x, h) - log(1 - D(G(h), h))

Then gradient ascent in the space of codes finds h* = arg max Phi_k(G(h)) - lambda |h|^2 for any unit k of any network
Phi that takes the images. See configs/dgn_am/README.md for what differs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_gen.arguments import Decay, ImageShape, NonNegative, Share, Size
from lightning_gen.errors import ConditionError, DataError, WeightsNotFoundError
from lightning_gen.functional.adversarial import discriminator_loss, non_saturating_loss
from lightning_gen.functional.chains import ascent_step, class_log_prob, linear_schedule, truncated_class_score
from lightning_gen.functional.precision import widen
from lightning_gen.models.adversarial import AdversarialModule
from lightning_gen.models.base import Condition, as_batch, check_pixels
from lightning_gen.nn.frozen import FrozenNetwork, TorchvisionClassifier, read_layers

SMALLEST = 4  # Side of the generator's smallest maps.
NUM_BOUND_IMAGES = 10_000  # Training images whose codes bound each unit of the code.

Watch = Callable[[int, Tensor, Tensor], None]
"""Called at each step of a chain with its number from 0, the images `(N, C, H, W)` and their scores `(N,)`."""


class Generator(nn.Sequential):
    """Dense layers, then 4 x 4 transposed convolutions that double the side, and 3 x 3 ones that keep it.

    Leaky rectifiers of slope 0.3 after each layer but the last, no normalisation; the biases of convolutions stay 0.

    Args:
        code_size: length of a code.
        units: of the dense layers; the last one's are the first maps, of 4 x 4.
        channels: for each doubling but the last, those of the layer that doubles and of the layers that follow.
        image_channels: of the last doubling, which is linear.
    """

    def __init__(
        self, code_size: int, units: Sequence[int], channels: Sequence[Sequence[int]], image_channels: int
    ) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise((code_size, *units)):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.3)]
        maps = units[-1] // SMALLEST**2
        layers.append(nn.Unflatten(1, (maps, SMALLEST, SMALLEST)))
        for level in channels:
            for index, after in enumerate(level):
                kernel, stride = (3, 1) if index else (4, 2)
                layers += [nn.ConvTranspose2d(maps, after, kernel, stride, padding=1), nn.LeakyReLU(0.3)]
                maps = after
        super().__init__(*layers, nn.ConvTranspose2d(maps, image_channels, 4, 2, 1))
        for layer in self:
            if isinstance(layer, (nn.Linear, nn.ConvTranspose2d)):
                initialize_for_leaky(layer)
            if isinstance(layer, nn.ConvTranspose2d):
                layer.bias.requires_grad_(False)  # type: ignore[union-attr]


class Discriminator(nn.Module):
    """Convolutions averaged over space, beside dense layers on the code; both meet in a layer of two outputs.

    Shape:
        images `(N, C, H, W)` in units of their range and codes `(N, K)` -> logits of being real, `(N,)`.
    """

    def __init__(
        self, image_channels: int, code_size: int, layers: Sequence[Sequence[int]], units: Sequence[int]
    ) -> None:
        super().__init__()
        self.image = nn.Sequential()
        before = image_channels
        for channels, kernel, stride in layers:
            self.image += nn.Sequential(nn.Conv2d(before, channels, kernel, stride), nn.LeakyReLU(0.3))
            before = channels
        *own, joint = units
        self.code = nn.Sequential()
        for fan_in, fan_out in pairwise((code_size, *own)):
            self.code += nn.Sequential(nn.Linear(fan_in, fan_out), nn.LeakyReLU(0.3))
        seen = before + (own[-1] if own else code_size)
        self.output = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(seen, joint), nn.LeakyReLU(0.3), nn.Dropout(0.5), nn.Linear(joint, 2)
        )
        for layer in self.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                initialize_for_leaky(layer)

    def forward(self, images: Tensor, codes: Tensor) -> Tensor:
        seen = torch.cat([self.image(images).mean((2, 3)), self.code(codes)], 1)
        return self.output(seen).diff().squeeze(1)  # The log-odds of a softmax over generated and real.


def initialize_for_leaky(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> None:
    """He et al. 2015: variance 2 / ((1 + 0.3^2) n) for the n inputs that a unit sums; biases 0."""
    if isinstance(layer, nn.ConvTranspose2d):
        fan_in = layer.in_channels * math.prod(layer.kernel_size) // math.prod(layer.stride)
    else:
        fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, std=math.sqrt(2 / (1.09 * fan_in)))
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


# What a chain climbs ------------------------------------------------------------------------------------------------


class Unit(NamedTuple):
    """A unit of a network.

    Attributes:
        layer: as `read_layers` names it.
        channel: its channel, or its place in a dense layer.
        position: row and column in the maps of a convolution; the centre if None.
    """

    layer: str
    channel: int
    position: tuple[int, int] | None = None

    @classmethod
    def read(cls, text: str) -> Unit:
        """A unit as it is typed: `layer:channel`, or `layer:channel:row:column`."""
        layer, *numbers = text.split(":")
        if len(numbers) not in (1, 3) or not all(number.isdecimal() for number in numbers):
            raise ConditionError(
                f"The unit {text!r} is none; expected layer:channel, or layer:channel:row:column in a layer of maps, "
                "such as logits:3 or network.body.5:12:3:3."
            )
        channel, *position = map(int, numbers)
        return cls(layer, channel, (position[0], position[1]) if position else None)


class Steering:
    """The score of images that a chain climbs: of classes, of units of any layer, or of captions.

    Args:
        network: of images in [0, 1]; gives logits `(N, K)`, or has `log_prob(images, captions) -> (N,)` in nats. It is
            put in eval mode if it is not.
        condition: with one of `label`, `unit` and `caption`, a row for each image.
        image_shape: of the images that will come.
        device: where they will be.
        dtype: and in which precision.

    Raises:
        ConditionError: if the network does not take such images, has no gradient by them, or has no such layer or unit.
    """

    def __init__(
        self,
        network: nn.Module,
        condition: Condition,
        image_shape: tuple[int, ...],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.network = network
        self.name = type(network).__name__
        if any(module.training for module in network.modules()):
            warnings.warn(f"{self.name} was in train mode; it is in eval mode now.", stacklevel=2)
            network.eval()
        self.captions = condition.get("caption")
        units = [Unit.read(text) for text in condition.get("unit", ())]
        if "label" in condition:
            units = [Unit("logits", label) for label in condition["label"].tolist()]
        self.layers = list(dict.fromkeys(unit.layer for unit in units))
        if self.captions is not None and not hasattr(network, "log_prob"):
            raise ConditionError(f"{self.name} cannot score captions: it has no log_prob(images, captions).")

        with torch.inference_mode(False), torch.enable_grad():
            probe = torch.zeros(1, *image_shape, device=device, dtype=dtype, requires_grad=True)
            try:
                if self.captions is None:
                    maps = ends = read_layers(network, probe, self.layers)
                else:
                    maps, ends = [], [network.log_prob(probe, self.captions[:1])]  # type: ignore[operator]
            except (RuntimeError, ValueError, TypeError) as error:
                if isinstance(error, ConditionError):
                    raise
                raise ConditionError(
                    f"{self.name} does not take images of shape {image_shape} in [0, 1] on {device}: "
                    f"{' '.join(str(error).split())}; resize and scale inside it, and move it there."
                ) from error
            if not all(end.requires_grad for end in ends):
                raise ConditionError(
                    f"{self.name} has no gradient by its images, which a chain follows; look for rounding, arg max, "
                    "detach or no_grad inside it."
                )
        self.groups: list[tuple[Tensor, tuple[Tensor, ...], Tensor]] = []
        for layer, found in zip(self.layers, maps, strict=True):
            rows = [row for row, unit in enumerate(units) if unit.layer == layer]
            places = [self._place(units[row], tuple(found.shape[1:])) for row in rows]
            index = torch.tensor([place[1:] for place in places], dtype=torch.long, device=device)
            channels = torch.tensor([place[0] for place in places], device=device)
            self.groups.append((torch.tensor(rows, device=device), index.unbind(1) if index.numel() else (), channels))

    def _place(self, unit: Unit, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Channel, and row and column if the layer has maps."""
        if len(shape) not in (1, 3):
            raise ConditionError(f"The layer {unit.layer!r} of {self.name} has outputs of {shape}: no units or maps.")
        position = unit.position
        if len(shape) == 3 and position is None:
            position = (shape[1] // 2, shape[2] // 2)
        place = (unit.channel, *(position or ()))
        if len(place) != len(shape) or any(at >= size for at, size in zip(place, shape, strict=True)):
            what = ":".join(["channel", "row", "column"][: len(shape)])
            there = ", ".join(f"0 to {size - 1}" for size in shape)
            kind = "class" if unit.layer == "logits" else f"unit of {unit.layer!r}"
            raise ConditionError(
                f"{self.name} has no {kind} {':'.join(map(str, place))}; there are {there} for {what}."
            )
        return place

    def __call__(
        self, images: Tensor, kind: Literal["activation", "log_prob", "truncated"], more: Sequence[str] = ()
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Score images, from one forward pass.

        Args:
            images: `(N, C, H, W)`.
            kind: the units' activations; their log-probabilities in nats under a softmax over the channels; or the
                latter with a truncated gradient (see `truncated_class_score`). Captions have a log-probability alone.
            more: layers to read as well.

        Returns:
            What to climb and what to show, `(N,)` each, and the other layers.
        """
        if self.captions is not None:
            score = self.network.log_prob(images, self.captions)  # type: ignore[operator]
            return score, score.detach(), []
        maps = read_layers(self.network, images, [*self.layers, *more])
        score = shown = images.new_zeros(len(images), dtype=torch.promote_types(images.dtype, torch.float32))
        for found, (rows, position, channels) in zip(maps, self.groups, strict=False):
            place: Any = (rows, slice(None), *position)
            units = found[place]  # (n, K)
            if kind == "activation":
                own = seen = units.gather(1, channels[:, None]).squeeze(1)
            else:
                own = seen = class_log_prob(units, channels)
                own = truncated_class_score(units, channels) if kind == "truncated" else own
            shown = shown.index_add(0, rows, seen.detach().to(score.dtype))  # Autocast does not widen what is added.
            score = score.index_add(0, rows, own.to(score.dtype))
        return score, shown, maps[len(self.layers) :]


class DGNAM(AdversarialModule):
    """Deep generator network for activation maximisation; the defaults are the paper's for 227 x 227.

    It is no probabilistic model: the same unit gives nearly the same image each time, and there is no density.

    A condition has one of `label`, classes `(N,)`; `unit`, a list of `layer:channel` or `layer:channel:row:column`; and
    `caption`, a list of texts.

    Args:
        image_shape: `(C, H, W)`; the middle of the generator's square canvas.
        encoder: class path of the frozen network: any that takes images in [0, 1] and gives logits.
        encoder_args: of its constructor.
        encoder_weights: file with its weights, read once at the start of the first `fit`; None if it brings its own.
        code_layer: the layer whose output is the code, as `read_layers` names it; one of rectified units.
        comparator_layer: the layer that compares images, before that.
        generator_units: of the generator's dense layers; the last is a multiple of 16.
        generator_channels: of its convolutions, see `Generator`; the canvas has a side of 8 times 2 for each entry.
        discriminator_layers: channels, side of the kernel and stride of each convolution.
        discriminator_units: of its dense layers: those on the code, and the one after both branches.
        image_weight: l_img, for the sum of squared errors of an image's pixels in 0..255.
        feature_weight: l_feat, for the sum of squared errors of the comparator.
        adversarial_weight: l_adv.
        pause_d_below: D is not updated while L_D is less than so many times -log D(G(h)).
        pause_g_above: G is not updated while L_D is more than so many times that; None for never.
        lr: Adam's step size.
        betas: Adam's decay rates.
        num_steps: of the ascent.
        step_size: mean absolute change of a code in the first step,
        step_size_end: and towards the last; it falls linearly.
        start: of the codes: `normal`, N(0, I), or `codes`, normal with the training codes' mean and deviation.
        decay: what a code is multiplied by after each step; the paper's lambda.
        gradient_clip_val: see `AdversarialModule`.
        accumulate_grad_batches: see `AdversarialModule`.

    Raises:
        DataError: if the canvas is smaller than the image, or a size does not serve.
        CheckpointError: if the encoder cannot be had.
    """

    condition_keys = ("label",)
    optional_condition_keys: tuple[str, ...] = ("unit", "caption")
    no_density = (
        "activation maximisation climbs to one image for a unit: its images are no draws from a distribution, and a "
        "likelihood of them means nothing"
    )
    image_mean: Tensor
    code_mean: Tensor
    code_std: Tensor
    code_bounds: Tensor

    def __init__(
        self,
        image_shape: ImageShape = (3, 227, 227),
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
        image_weight: NonNegative = 2e-6,
        feature_weight: NonNegative = 0.01,
        adversarial_weight: NonNegative = 100.0,
        pause_d_below: NonNegative = 0.1,
        pause_g_above: NonNegative | None = None,
        lr: NonNegative = 2e-4,
        betas: tuple[Decay, Decay] = (0.9, 0.999),
        num_steps: Size = 200,
        step_size: NonNegative = 8.0,
        step_size_end: NonNegative = 1e-10,
        start: Literal["normal", "codes"] = "normal",
        decay: Share = 0.99,
        gradient_clip_val: NonNegative | None = None,
        accumulate_grad_batches: Size = 1,
    ) -> None:
        super().__init__(gradient_clip_val, accumulate_grad_batches)
        self.save_hyperparameters()
        self.image_shape = tuple(map(int, image_shape))
        self.canvas = 2 * SMALLEST * 2 ** len(generator_channels)
        if max(self.image_shape[1:]) > self.canvas:
            raise DataError(
                f"{type(self).__name__} got image_shape={self.image_shape} and {len(generator_channels)} entries in "
                f"generator_channels, which make {self.canvas} x {self.canvas} pixels; give as many entries as "
                "halvings bring the larger side to 8 or less."
            )
        if generator_units[-1] % SMALLEST**2:
            raise DataError(f"generator_units end in {generator_units[-1]}; expected a multiple of {SMALLEST**2}.")
        self.code_layer, self.comparator_layer = code_layer, comparator_layer
        self.pause_d_below, self.pause_g_above = pause_d_below, pause_g_above
        self.encoder = FrozenNetwork(encoder, encoder_args or {})
        with torch.no_grad():
            code_size = self.encode(torch.zeros(1, *self.image_shape)).shape[1]
        self.register_buffer("image_mean", torch.zeros(self.image_shape[0], 1, 1))
        for name in ("mean", "std", "bounds"):  # Of each unit of the code.
            self.register_buffer(f"code_{name}", torch.zeros(code_size))
        self.make_networks(code_size)

    def make_networks(self, code_size: int) -> None:
        """The networks that are trained."""
        channels = self.image_shape[0]
        given = self.hparams
        self.generator = Generator(code_size, given["generator_units"], given["generator_channels"], channels)
        self.discriminator = Discriminator(
            channels, code_size, given["discriminator_layers"], given["discriminator_units"]
        )

    @property
    def can_sample(self) -> bool:
        """Codes have no bounds before the first training."""
        return bool(self.initialized)

    def initialize_from(self, batches: Iterable[Any]) -> None:
        """Read the encoder's weights; measure the mean colour, and mean and deviation of each unit of the code.

        Raises:
            WeightsNotFoundError: if the encoder has no weights.
        """
        weights = self.hparams["encoder_weights"]
        if weights is not None:
            self.encoder.read_weights(weights)
        elif isinstance(self.encoder.network, TorchvisionClassifier):
            raise WeightsNotFoundError(
                f"The encoder {self.encoder.network.network.__class__.__name__} of {type(self).__name__} has no "
                "weights; give --model.encoder_weights a file of torchvision's, or another --model.encoder."
            )
        colours, codes, count = [], [], 0
        with torch.no_grad():
            for batch in batches:
                images = as_batch(batch)["image"].to(self.device, self.dtype)
                colours.append(images.mean((0, 2, 3)))
                codes.append(self.encode(images))
                count += len(images)
                if count >= NUM_BOUND_IMAGES:
                    break
        every = torch.cat(codes)
        self.image_mean.copy_(torch.stack(colours).mean(0)[:, None, None])
        self.code_mean.copy_(every.mean(0))
        self.code_std.copy_(every.std(0))
        self.code_bounds.copy_(self.code_mean + 3 * self.code_std)

    # Codes and images -------------------------------------------------------------------------------------------

    def encode(self, images: Tensor) -> Tensor:
        """The codes of images, `(N, C, H, W) -> (N, K)`."""
        return self.encoder(images, [self.code_layer])[0].flatten(1)

    def generate(self, codes: Tensor) -> Tensor:
        """G(h), `(N, K) -> (N, C, H, W)` in units of the images' range but not within it: the output is linear."""
        height, width = self.image_shape[1:]
        top, left = (self.canvas - height) // 2, (self.canvas - width) // 2
        return self.generator(codes)[..., top : top + height, left : left + width] + self.image_mean

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The images of codes, `(N, K) -> (N, C, H, W)`, cut to [0, 1]."""
        return self.generate(z).clamp(0, 1)

    # Training ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Update D, then G, each unless it is paused."""
        self.train_generator(self.as_batch(batch)["image"])

    def train_generator(self, images: Tensor) -> Tensor:
        """One update of D and of G; returns the codes of the images, `(N, K)`."""
        optimizer_d, optimizer_g = self.optimizers()[:2]  # type: ignore[index]
        with torch.no_grad():
            codes, maps = self.encoder(images, [self.code_layer, self.comparator_layer])
            codes = codes.flatten(1)
            given = self.corrupt(images, codes)
        fake = self.generate(given)
        fake_logits = self.discriminator(fake, codes)
        loss_d = 2 * discriminator_loss(self.discriminator(images, codes), fake_logits)  # The paper's has no 1/2.
        adversarial = non_saturating_loss(fake_logits)
        ratio = self._of_all_ranks(loss_d) / self._of_all_ranks(adversarial)
        updates_d = ratio >= self.pause_d_below
        updates_g = self.pause_g_above is None or ratio <= self.pause_g_above
        if updates_d:
            self.step((optimizer_d, loss_d))
            adversarial = non_saturating_loss(self.discriminator(fake, codes))
        if updates_g:
            errors = self.errors(fake, images, codes, maps)
            self.step((optimizer_g, sum(errors.values()) + self.hparams["adversarial_weight"] * adversarial))
            self.log_dict({f"train/{name}": error for name, error in errors.items()})
        self.log_dict({"train/loss_d": loss_d, "train/loss_g": adversarial}, prog_bar=True)
        self.log_dict({"train/d_paused": float(not updates_d), "train/g_paused": float(not updates_g)}, on_epoch=True)
        return codes

    def corrupt(self, images: Tensor, codes: Tensor) -> Tensor:
        """What G is given for the images: their codes."""
        return codes

    def errors(self, fake: Tensor, images: Tensor, codes: Tensor, maps: Tensor) -> dict[str, Tensor]:
        """The weighted sums of squared errors, as means over the batch."""
        found = self.encoder(fake, [self.comparator_layer])[0]
        return {
            "image_error": self.hparams["image_weight"] * squared_error(255 * fake, 255 * images),
            "feature_error": self.hparams["feature_weight"] * squared_error(found, maps),
        }

    def _of_all_ranks(self, loss: Tensor) -> float:
        """A loss as one number, the same on all ranks: they pause together."""
        return float(self.reduce(loss.detach(), "mean"))

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimizer for the discriminator, one for the generator."""
        return [self.adam(self.discriminator), self.adam(self.generator)]

    def adam(self, network: nn.Module) -> Optimizer:
        """Adam on a network."""
        return torch.optim.Adam(network.parameters(), lr=self.hparams["lr"], betas=tuple(self.hparams["betas"]))

    # Sampling ---------------------------------------------------------------------------------------------------

    def check_condition(
        self, condition: Condition | None, num_samples: int, generator: torch.Generator | None = None
    ) -> Condition:
        """One of `label`, `unit` and `caption`, and what else the model takes; labels are drawn if there is none."""
        if num_samples < 1:
            raise ConditionError(f"num_samples is {num_samples}; expected at least 1.")
        if condition is None:
            return self.draw_condition(num_samples, generator)
        aims = ("label", "unit", "caption")
        keys = (*self.condition_keys, *self.optional_condition_keys)
        given = [key for key in aims if key in condition]
        if len(given) != 1 or set(condition) - set(keys):
            raise ConditionError(
                f"{type(self).__name__} got the condition {sorted(condition)}; it takes {', '.join(keys)}, of which "
                "one is of label, unit and caption."
            )
        for key, value in condition.items():
            if len(value) != num_samples:
                raise ConditionError(f"The condition {key!r} has {len(value)} rows for {num_samples} samples.")
        if "label" in condition:
            labels = condition["label"]
            if not isinstance(labels, Tensor) or labels.ndim != 1 or labels.is_floating_point() or labels.min() < 0:
                raise ConditionError(
                    f"{type(self).__name__} got labels {labels!r}; expected integers from 0, of shape (N,)."
                )
        if "image" in condition:
            check_pixels(condition["image"], "image", ConditionError)
        # Copies: what was made in inference mode has no place in a graph.
        with torch.inference_mode(False):
            moved = {k: v.to(self.device).clone() if isinstance(v, Tensor) else v for k, v in condition.items()}
            return self.converted(moved)

    def draw_condition(self, num_samples: int, generator: torch.Generator | None = None) -> Condition:
        """Draw classes of the encoder, each as often."""
        with torch.no_grad():
            probe = torch.zeros(1, *self.image_shape, device=self.device, dtype=self.dtype)
            logits = self.encoder(probe, ["logits"])[0]
        high = logits.shape[1]
        return {"label": torch.randint(high, (num_samples,), generator=generator, device=self.device)}

    def sample(
        self,
        num_samples: int,
        condition: Condition | None = None,
        *,
        generator: torch.Generator | None = None,
        network: nn.Module | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Draw images by a chain that follows the gradient of a network, in eval mode.

        Args:
            num_samples: how many, all in one batch.
            condition: what is to be seen, a row for each image; classes are drawn if None.
            generator: source of randomness on the module's device; the global one if None.
            network: that gives the gradient: any module of images in [0, 1] that gives logits, or for captions has
                `log_prob`; the encoder if None. It is never trained, and may be another one in every call.
            watch: sees each step.

        Returns:
            Images in [0, 1], `(num_samples, *image_shape)`, float32, on the module's device.

        Raises:
            ConditionError: if the condition is not one, or the network cannot serve.
        """
        if not self.can_sample:
            raise ConditionError(f"This {type(self).__name__} is not trained: its codes have no bounds. Call fit.")
        with self.evaluating(), torch.inference_mode(False), torch.enable_grad():
            given = self.check_condition(condition, num_samples, generator)
            steered = self.encoder.network if network is None else network
            steering = Steering(steered, given, self.image_shape, self.device, self.image_mean.dtype)
            return self._climb(num_samples, given, generator, steering, watch).detach().float()

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        return self.sample(num_samples, condition, generator=generator)

    def draw_start(self, num_samples: int, generator: torch.Generator | None) -> Tensor:
        """The codes that chains start from, `(N, K)`."""
        size = (num_samples, len(self.code_mean))
        codes = torch.randn(size, generator=generator, device=self.device, dtype=self.code_mean.dtype)
        return codes if self.hparams["start"] == "normal" else self.code_mean + self.code_std * codes

    def _climb(
        self,
        num_samples: int,
        condition: Condition,
        generator: torch.Generator | None,
        steering: Steering,
        watch: Watch | None,
    ) -> Tensor:
        """Activation maximisation: the images of the last codes."""
        given, codes = self.hparams, self.draw_start(num_samples, generator)
        for step in range(given["num_steps"]):
            codes = codes.detach().requires_grad_()
            images = self.generate(codes)
            score, shown, _ = steering(images, "log_prob" if steering.captions is not None else "activation")
            gradient = torch.autograd.grad(score.sum(), codes)[0]
            if watch is not None:
                watch(step, images.detach().clamp(0, 1), shown)
            length = linear_schedule(given["step_size"], given["step_size_end"], step, given["num_steps"])
            codes = ascent_step(codes.detach(), gradient, length, self.code_bounds, given["decay"])
        with torch.no_grad():
            return self.decode(codes)


def squared_error(found: Tensor, wanted: Tensor) -> Tensor:
    """The sum of squared errors of an image, a mean over the batch."""
    return (widen(found) - widen(wanted)).square().sum() / len(found)
