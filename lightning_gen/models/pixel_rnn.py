r"""Pixel recurrent and convolutional neural networks, and the multi-scale one.

van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel Recurrent Neural Networks" (ICML 2016),
https://arxiv.org/abs/1601.06759.

The probability of an image is a product over its pixels, row by row, and over the colours of a pixel, and exact:

    p(x) = prod_i p(x_i,R | x_<i) p(x_i,G | x_<i, x_i,R) p(x_i,B | x_<i, x_i,R, x_i,G),

each factor a softmax over the levels of intensity, or a Bernoulli distribution for black and white. One network gives
all of them at once, as none of its layers lets a pixel see itself or a later one. In three kinds: masked convolutions
(PixelCNN), or an LSTM that runs from row to row (Row LSTM) or from diagonal to diagonal (Diagonal BiLSTM). See
configs/pixel_rnn/README.md for what differs from the paper and why.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gen.arguments import Count, ImageShape, NonNegative, Several, Size
from lightning_gen.errors import ConditionError, DataError
from lightning_gen.models.base import Batch, Condition, LikelihoodModule
from lightning_gen.models.pixel_rnn_sampling import sampler
from lightning_gen.nn.masked import MaskedConv2d, colour_of
from lightning_gen.nn.pixel_lstm import PixelLSTM, diagonal_order, row_order

Variant = Literal["pixelcnn", "row_lstm", "diagonal_bilstm"]


def check_levels(model: str, levels: int, images: Tensor, error: type[DataError] | type[ConditionError]) -> None:
    """Refuse values that are no k / (levels - 1), k = 0..levels - 1."""
    scaled = images.double() * (levels - 1)
    nearest = scaled.round().clamp(0, levels - 1)
    off = ~((scaled - nearest).abs() <= 0.1)  # Also NaN. Bytes as float16 are off by 0.06 at most, as bfloat16 by 0.5.
    if off.any():
        raise error(
            f"{model} with levels={levels} scores pixels k/{levels - 1} and got {images[off][0].item():.6g}, which is "
            "none: give 8-bit images divided by 255 and levels=256, without noise or interpolation after the division, "
            "or round them; and not in bfloat16 (precision bf16-true), which has no room for 256 levels."
        )


class PixelLayer(nn.Module):
    """A residual block: 2h features to h hidden units, and these to 2h features that are added (figure 5).

    Args:
        hidden_size: h.
        num_colours: channels of the image.
        skip: give 2h more, for the output of the network.
        inputs: maps that a small image's features are added to; 0 without one.
        context_size: features of the small image.
    """

    def __init__(self, hidden_size: int, num_colours: int, skip: bool, inputs: int, context_size: int) -> None:
        super().__init__()
        stacks = 2 if skip else 1
        self.expand = MaskedConv2d(hidden_size, stacks * 2 * hidden_size, 1, "B", num_colours, stacks)
        self.context = nn.Conv2d(context_size, inputs, 1, bias=False) if context_size else None

    def hidden(self, x: Tensor, context: Tensor | float) -> Tensor:
        """The hidden units, `(N, 2h, H, W) -> (N, h, H, W)`."""
        raise NotImplementedError

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.expand(self.hidden(x, 0.0 if self.context is None else self.context(context)))


class PixelCNNLayer(PixelLayer):
    """The block of the PixelCNN: a masked 3x3 convolution between two of 1x1."""

    def __init__(self, hidden_size: Size, num_colours: Count, skip: bool, context_size: Size) -> None:
        super().__init__(hidden_size, num_colours, skip, hidden_size, context_size)
        self.reduce = MaskedConv2d(2 * hidden_size, hidden_size, 1, "B", num_colours)
        self.conv = MaskedConv2d(hidden_size, hidden_size, 3, "B", num_colours)

    def hidden(self, x: Tensor, context: Tensor | float) -> Tensor:
        return F.relu(self.conv(F.relu(self.reduce(F.relu(x)))) + context)


class PixelLSTMLayer(PixelLayer):
    """The block of the Row LSTM and of the Diagonal BiLSTM, with a learned initial state."""

    def __init__(self, hidden_size: Size, num_colours: Count, skip: bool, context_size: Size, diagonal: bool) -> None:
        self.diagonal = diagonal
        self.directions = 2 if diagonal else 1
        self.hidden_size = hidden_size
        stacks, taps = 4 * self.directions, 2 if diagonal else 3
        super().__init__(hidden_size, num_colours, skip, stacks * hidden_size, context_size)
        kernel = (1, 1) if diagonal else (1, 3)
        self.input_to_state = MaskedConv2d(2 * hidden_size, stacks * hidden_size, kernel, "B", num_colours, stacks)
        self.state_to_state = nn.Parameter(torch.empty(self.directions, taps, hidden_size, 4 * hidden_size))
        self.initial = nn.Parameter(torch.zeros(2, self.directions, hidden_size))  # hidden and cell state
        bound = (taps * hidden_size) ** -0.5
        nn.init.uniform_(self.state_to_state, -bound, bound)

    def hidden(self, x: Tensor, context: Tensor | float) -> Tensor:
        inputs = self.input_to_state(x) + context  # (N, D 4h, H, W)
        height, width = x.shape[2:]
        order = (diagonal_order if self.diagonal else row_order)(height, width, x.device)
        with torch.autocast(x.device.type, enabled=False):  # Sums over tens of steps need more than 16 bits.
            inputs = inputs.permute(2, 3, 0, 1).flatten(0, 1).unflatten(-1, (self.directions, -1))  # (P, N, D, 4h)
            states = PixelLSTM.apply(inputs.to(self.initial.dtype), self.state_to_state, self.initial, order)
        states = states.unflatten(0, (height, width))  # (H, W, N, D, h)
        hidden = states[..., 0, :]
        if self.diagonal:  # What comes from the right has seen the pixels to the right, which its next row may see.
            hidden = hidden + F.pad(states[:-1, ..., 1, :], (0, 0, 0, 0, 0, 0, 1, 0))
        return hidden.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


class PixelNet(nn.Module):
    """The network: a 7x7 convolution, the layers, and two hidden 1x1 convolutions before the logits (table 1).

    Args:
        image_shape: `(C, H, W)`.
        num_logits: K of each colour of a pixel.
        variant: kind of the layers.
        num_layers: how many.
        hidden_size: h, their hidden units.
        head_size: maps of the two convolutions before the logits.
        residual: whether a layer's output is added to its input, or takes its place.
        skip: whether all layers reach the head.
        context_size: features of a small image that the layers take; 0 for none.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        num_logits: int,
        variant: Variant,
        num_layers: int,
        hidden_size: int,
        head_size: int,
        residual: bool,
        skip: bool,
        context_size: int = 0,
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.variant = variant
        self.residual = residual
        self.skip = skip
        colours, features = image_shape[0], 2 * hidden_size

        def layer() -> PixelLayer:
            if variant == "pixelcnn":
                return PixelCNNLayer(hidden_size, colours, skip, context_size)
            return PixelLSTMLayer(hidden_size, colours, skip, context_size, variant == "diagonal_bilstm")

        self.stem = MaskedConv2d(colours, features, 7, "A", colours)
        self.layers = nn.ModuleList([layer() for _ in range(num_layers)])
        sizes = [features, head_size, head_size, colours * num_logits]
        self.head = nn.ModuleList([MaskedConv2d(a, b, 1, "B", colours) for a, b in pairwise(sizes)])
        self.to(memory_format=torch.channels_last)  # The faster one of the two on a CPU as well.

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """The logits of every colour of every pixel, given all before.

        Args:
            inputs: images in [-1, 1], `(N, C, H, W)`.
            context: features of a small image, `(N, context_size, H, W)`.

        Returns:
            `(N, C, K, H, W)`.
        """
        x = self.stem(inputs.contiguous(memory_format=torch.channels_last))
        skips: Tensor | float = 0.0
        for layer in self.layers:
            update, *skip = layer(x, context).chunk(2 if self.skip else 1, 1)
            x = x + update if self.residual else update
            skips = skips + skip[0] if skip else skips
        x = x + skips
        for conv in self.head:
            x = conv(F.relu(x))
        return x.unflatten(1, (self.image_shape[0], -1))


class PixelRNN(LikelihoodModule):
    """PixelCNN, Row LSTM or Diagonal BiLSTM. The defaults are the paper's best network for binarised MNIST.

    `sample` returns draws, pixel after pixel. It completes images under a condition with `image` `(N, C, H, W)` and
    `mask` `(N, 1, H, W)`: where the mask is 1 the pixel is the image's, and each other pixel is drawn given all pixels
    before it, row by row. So the rows below given ones are drawn from the exact conditional distribution, and given
    pixels do not reach those before them; `completion_log_weights` makes up for that.

    Args:
        image_shape: `(C, H, W)`.
        variant: pixelcnn, row_lstm or diagonal_bilstm.
        levels: of intensity, k / (levels - 1): 2 for black and white, 256 for bytes.
        num_layers: blocks; the paper has 1 or 7 on MNIST, 12 (PixelCNN: 15) on CIFAR-10.
        hidden_size: h; a block has 2h features.
        head_size: maps of each of the two last hidden layers.
        residual: add a block's output to its input.
        skip: let every block reach the head.
        optimizer: the paper's RMSProp, or Adam.
        lr: step size.

    Raises:
        DataError: if there are fewer than 2 levels, or maps cannot be shared by the colours; in `fit`, `validate` and
            `test`, if pixels are of no level.
    """

    likelihood = "exact"
    optional_condition_keys = ("image", "mask")

    def __init__(
        self,
        image_shape: ImageShape = (1, 28, 28),
        variant: Variant = "diagonal_bilstm",
        levels: Several = 2,
        num_layers: Count = 7,
        hidden_size: Size = 16,
        head_size: Size = 32,
        residual: bool = True,
        skip: bool = False,
        optimizer: Literal["rmsprop", "adam"] = "rmsprop",
        lr: NonNegative = 1e-3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.image_shape = tuple(map(int, image_shape))
        for size in (hidden_size, head_size):
            colour_of(size, self.image_shape[0])
        self.levels = levels
        self.binary = levels == 2
        self.net = self.make_net(self.image_shape)

    def make_net(self, image_shape: tuple[int, ...], context_size: int = 0) -> PixelNet:
        """A network for images of a shape, with the sizes of the hyper-parameters."""
        names = ("variant", "num_layers", "hidden_size", "head_size", "residual", "skip")
        num_logits = 1 if self.levels == 2 else self.levels
        settings = {name: self.hparams[name] for name in names}
        return PixelNet(image_shape, num_logits, context_size=context_size, **settings)

    # The model --------------------------------------------------------------------------------------------------

    def logits(self, images: Tensor) -> Tensor:
        """The logits of each subpixel's levels (of white, if there are two) given those before it.

        Args:
            images: `(N, C, H, W)` in [0, 1].

        Returns:
            `(N, C, K, H, W)`.
        """
        return self.net(2 * images - 1)

    def subpixel_log_prob(self, images: Tensor, logits: Tensor) -> Tensor:
        """The log-probability of each subpixel under its logits, nats, `(N, C, H, W)`."""
        logits = logits.to(images.dtype)
        if self.levels == 2:
            return -F.binary_cross_entropy_with_logits(logits.squeeze(2), images, reduction="none")
        targets = (images * (self.levels - 1)).round().long()
        return -F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")

    def log_prob(self, images: Tensor, condition: Condition | None = None) -> Tensor:
        """The exact log-likelihood.

        Args:
            images: `(N, C, H, W)`, each value k / (levels - 1).
            condition: none is taken.

        Returns:
            Nats, `(N,)`.
        """
        return self.conditional_log_probs(images).flatten(1).sum(1)

    def conditional_log_probs(self, images: Tensor) -> Tensor:
        """The log-probability of each subpixel given those before it, nats, `(N, C, H, W)`."""
        return self.subpixel_log_prob(images, self.logits(images))

    def completion_log_weights(self, images: Tensor, mask: Tensor) -> Tensor:
        """How much completions count as draws of the missing pixels given *all* that is given.

        `sample` draws each missing pixel given what is before it. That is a draw of the conditional where the given
        pixels come first in the raster; elsewhere, and in a multi-scale model, it does not know of given pixels after
        it. These importance weights make up for that: of many completions x of one image,
        `x[log_weights.softmax(0).multinomial(n)]` are draws of the conditional, the better the more there are.

        Args:
            images: completions by `sample`, `(N, C, H, W)`.
            mask: 1 where a pixel was given, `(N, 1, H, W)`.

        Returns:
            Log-probability of the given pixels, each given those before it; nats, `(N,)`.
        """
        return (self.conditional_log_probs(images) * mask).flatten(1).sum(1)

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        return self.draw(self.net, num_samples, *self.given(num_samples, condition), generator)

    def given(self, num_samples: int, condition: Condition | None) -> tuple[Tensor, Tensor]:
        """The image and the mask of a completion; nothing is given without a condition."""
        like = self.net.stem.weight
        if condition is None:
            return like.new_zeros(num_samples, *self.image_shape), like.new_zeros(num_samples, 1, *self.image_shape[1:])
        return condition["image"], condition["mask"].to(like.dtype)

    def draw(
        self,
        net: PixelNet,
        num_samples: int,
        known: Tensor,
        mask: Tensor,
        generator: torch.Generator | None,
        context: Tensor | None = None,
    ) -> Tensor:
        """Draw images from a network, one subpixel after the other; those in the mask are known."""
        # Rounded to 16 bits, uniform numbers would draw rare levels too often.
        dtype = torch.promote_types(self.dtype, torch.float32)
        uniform = torch.rand(num_samples, *net.image_shape, generator=generator, device=self.device, dtype=dtype)
        with torch.autocast(self.device.type, enabled=False):
            return sampler(net, num_samples, context).run(uniform, self.levels, known, mask)

    # Checks, training -------------------------------------------------------------------------------------------

    def check_batch(self, batch: Batch) -> None:
        """Also refuse pixels of no level."""
        super().check_batch(batch)
        check_levels(type(self).__name__, self.levels, batch["image"], DataError)

    def check_condition(
        self, condition: Condition | None, num_samples: int, generator: torch.Generator | None = None
    ) -> Condition | None:
        """Also check the sizes of a completion's image and mask."""
        condition = super().check_condition(condition, num_samples, generator)
        if condition is None:
            return None
        images, mask = condition["image"], condition["mask"]
        for name, rows, shape in (("image", images, self.image_shape), ("mask", mask, (1, *self.image_shape[1:]))):
            if tuple(rows.shape[1:]) != shape:
                raise ConditionError(
                    f"The condition {name!r} has the shape {tuple(rows.shape)}; expected {(num_samples, *shape)}"
                    + (", 1 where a pixel is given and 0 where not." if name == "mask" else ".")
                )
        if not ((mask == 0) | (mask == 1)).all():
            raise ConditionError("The condition 'mask' holds other values than 0 and 1, which marks a given pixel.")
        check_levels(type(self).__name__, self.levels, images * mask, ConditionError)
        return condition

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Minimise the negative log-likelihood, a mean over the batch."""
        loss = -self.log_prob(self.as_batch(batch)["image"]).mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        kind = {"rmsprop": torch.optim.RMSprop, "adam": torch.optim.Adam}[self.hparams["optimizer"]]
        return kind(self.parameters(), lr=self.hparams["lr"])


class MultiScalePixelRNN(PixelRNN):
    """Multi-scale PixelRNN (section 3.6): a network draws a small image s, another the image around it,

        log p(x) = log p(s) + sum_{i not in s} log p(x_i | x_<i, s).

    The small image is every k-th pixel of every k-th row. Its features, by transposed convolutions as large as the
    image, are added to the input-to-state maps of every layer of the second network.

    A completion draws the small image's missing pixels first, from its given ones alone: it is a draw of the
    conditional only where all given pixels are of the small image. `completion_log_weights` makes up for that.

    Args:
        image_shape: `(C, H, W)`, square.
        small_size: side of the small image; the image's side divided by a power of two.
        variant: as for `PixelRNN`, of both networks; so are the others.
        levels: of intensity.
        num_layers: blocks.
        hidden_size: h.
        head_size: maps of each of the two last hidden layers.
        residual: add a block's output to its input.
        skip: let every block reach the head.
        optimizer: the paper's RMSProp, or Adam.
        lr: step size.

    Raises:
        DataError: if the sides are of no such ratio, and as for `PixelRNN`.
    """

    def __init__(
        self,
        image_shape: ImageShape = (1, 28, 28),
        small_size: Size = 7,
        variant: Variant = "diagonal_bilstm",
        levels: Several = 2,
        num_layers: Count = 7,
        hidden_size: Size = 16,
        head_size: Size = 32,
        residual: bool = True,
        skip: bool = False,
        optimizer: Literal["rmsprop", "adam"] = "rmsprop",
        lr: NonNegative = 1e-3,
    ) -> None:
        super().__init__(
            image_shape, variant, levels, num_layers, hidden_size, head_size, residual, skip, optimizer, lr
        )
        channels, *sides = self.image_shape
        self.ratio = max(sides) // max(small_size, 1)
        if any(side != self.ratio * small_size for side in sides) or self.ratio.bit_count() != 1 or self.ratio < 2:
            raise DataError(
                f"small_size is {small_size} for images of {sides[0]} x {sides[1]}; expected the side of square images "
                "divided by 2, 4, 8 or another power of two."
            )
        self.small_net = self.make_net((channels, small_size, small_size))
        features = 2 * hidden_size
        sizes = [channels] + [features] * int(math.log2(self.ratio))
        self.upsample = nn.Sequential()
        for a, b in pairwise(sizes):
            self.upsample.extend([nn.ConvTranspose2d(a, b, 4, stride=2, padding=1), nn.ReLU()])
        self.net = self.make_net(self.image_shape, context_size=features)

    def shrink(self, images: Tensor) -> Tensor:
        """The small images, or masks: every k-th pixel of every k-th row."""
        return images[..., :: self.ratio, :: self.ratio]

    def enlarge(self, small: Tensor) -> Tensor:
        """Small images with their pixels at their places in large ones, which are 0 elsewhere."""
        large = small.new_zeros(*small.shape[:2], *self.image_shape[1:])
        self.shrink(large).copy_(small)
        return large

    def logits(self, images: Tensor) -> Tensor:
        """The logits of each subpixel's levels given those before it and the small image, `(N, C, K, H, W)`."""
        return self.net(2 * images - 1, self.upsample(2 * self.shrink(images) - 1))

    def conditional_log_probs(self, images: Tensor) -> Tensor:
        """Of the small image's subpixels given those before; of the others given it too; nats, `(N, C, H, W)`."""
        small = self.shrink(images)
        log_probs = self.subpixel_log_prob(images, self.logits(images))
        self.shrink(log_probs).copy_(self.subpixel_log_prob(small, self.small_net(2 * small - 1)))
        return log_probs

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        known, mask = self.given(num_samples, condition)
        small = self.draw(self.small_net, num_samples, self.shrink(known), self.shrink(mask), generator)
        grid = self.enlarge(torch.ones_like(small[:, :1]))
        known, mask = torch.where(grid.bool(), self.enlarge(small), known), torch.maximum(grid, mask)
        return self.draw(self.net, num_samples, known, mask, generator, self.upsample(2 * small - 1))
