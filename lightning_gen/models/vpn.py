r"""Video Pixel Networks.

Kalchbrenner, van den Oord, Simonyan, Danihelka, Vinyals, Graves & Kavukcuoglu, "Video Pixel Networks" (ICML 2017),
https://arxiv.org/abs/1610.00527.

The probability of a video is a product over its frames, the rows and columns of a frame, and the colours of a pixel,
and exact:

    p(x) = prod_t prod_i p(x_t,i,R | x_<) p(x_t,i,G | x_<, x_t,i,R) p(x_t,i,B | x_<, x_t,i,R, x_t,i,G),

where x_< are all pixels of earlier frames, and those above and to the left in the same one. Encoders that keep the
resolution see a frame each, a convolutional LSTM runs over what they make of it, and a PixelCNN gives a frame's pixels
under the LSTM's output after the frame before. The paper's baseline drops what lies in the same frame. See
configs/vpn/README.md for what differs from the paper and why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lightning_gen.arguments import Count, NonNegative, Several, Size, VideoShape
from lightning_gen.errors import ConditionError, DataError, LightningGenError
from lightning_gen.functional.bounds import bernoulli_entropy, bernoulli_log_prob
from lightning_gen.models.base import Batch, Condition, LikelihoodModule, as_batch
from lightning_gen.models.pixel_rnn import check_levels
from lightning_gen.models.pixel_rnn_sampling import draw_levels
from lightning_gen.models.vpn_sampling import CachedDecoder
from lightning_gen.nn.masked import MaskedConv2d

Layer = Callable[[Tensor], Tensor]


# The layers of encoder and decoder ----------------------------------------------------------------------------------


def convolution(in_channels: int, out_channels: int, kernel_size: int, stacks: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A convolution that sees all around, of the same size out as in; of stacks it knows nothing."""
    padding = dilation * (kernel_size // 2)
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation)


def masked_convolution(
    in_channels: int, out_channels: int, kernel_size: int, stacks: int = 1, num_colours: int = 1
) -> nn.Conv2d:
    """A convolution of the pixels before, and of the pixel's own colours up to a map's colour."""
    return MaskedConv2d(in_channels, out_channels, kernel_size, "B", num_colours, stacks, equal=False)


def multiplicative_unit(h: Tensor, gates: Tensor) -> Tensor:
    """Gate maps, g1 tanh(g2 h + g3 u).

    Args:
        h: `(N, c, ...)`.
        gates: g1, g2 and g3 before their sigmoid, and u before its tanh, one after the other, `(N, 4c, ...)`.

    Returns:
        `(N, c, ...)` in (-1, 1).
    """
    g1, g2, g3, u = gates.chunk(4, 1)
    return g1.sigmoid() * torch.tanh(g2.sigmoid() * h + g3.sigmoid() * u.tanh())


class Block(nn.Module):
    """A residual block: 2c maps to c, convolutions of these, and back to 2c maps that are added.

    Args:
        channels: c.
        conv: makes its convolutions.
        num_convs: 3 x 3 convolutions in it.
        stacks: times c maps that each of these gives.
    """

    def __init__(self, channels: int, conv: Callable[..., nn.Conv2d], num_convs: int, stacks: int) -> None:
        super().__init__()
        self.reduce = conv(2 * channels, channels, 1)
        self.convs = nn.ModuleList([conv(channels, stacks * channels, 3, stacks) for _ in range(num_convs)])
        self.expand = conv(channels, 2 * channels, 1)

    def forward(self, h: Tensor) -> Tensor:
        return self.compute(h, self.reduce, list(self.convs), self.expand)

    def compute(self, h: Tensor, reduce: Layer, convs: list[Any], expand: Layer) -> Tensor:
        """The block's formula with these layers: its own, or what stands for them at one pixel."""
        raise NotImplementedError


class MultiplicativeBlock(Block):
    """Residual multiplicative block: two multiplicative units."""

    def __init__(self, channels: Size, conv: Callable[..., nn.Conv2d]) -> None:
        super().__init__(channels, conv, num_convs=2, stacks=4)

    def compute(self, h: Tensor, reduce: Layer, convs: list[Any], expand: Layer) -> Tensor:
        x = reduce(h)
        for conv in convs:
            x = multiplicative_unit(x, conv(x))
        return h + expand(x)


class ReLUBlock(Block):
    """Half of what the ReLU variant has in the place of a multiplicative block."""

    def __init__(self, channels: Size, conv: Callable[..., nn.Conv2d]) -> None:
        super().__init__(channels, conv, num_convs=1, stacks=1)

    def compute(self, h: Tensor, reduce: Layer, convs: list[Any], expand: Layer) -> Tensor:
        return h + expand(convs[0](reduce(h.relu()).relu()).relu())


class Blocks(nn.Module):
    """Residual blocks one after the other, with an action's vector added to the input of each.

    Args:
        blocks: the blocks, of 2c maps.
        channels: c.
        vector_size: of the state and action, 0 for none.
        recompute: do not keep what is inside a block for the backward pass.
    """

    def __init__(self, blocks: list[Block], channels: int, vector_size: int, recompute: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        vectors = [nn.Linear(vector_size, 2 * channels, bias=False) for _ in blocks if vector_size]
        self.vectors = nn.ModuleList(vectors)
        self.recompute = recompute

    def forward(self, h: Tensor, vectors: Tensor | None) -> Tensor:
        for index, block in enumerate(self.blocks):
            if vectors is not None:
                h = h + self.vectors[index](vectors)[..., None, None]
            h = checkpoint(block, h, use_reentrant=False) if self.recompute and self.training else block(h)
        return h


def make_blocks(
    kind: str, number: int, channels: int, convs: Sequence[Callable[..., nn.Conv2d]], vector_size: int, recompute: bool
) -> Blocks:
    """`number` multiplicative blocks, or two ReLU blocks for each; the n-th has the n-th way of convolving, cycled."""
    blocks: list[Block] = []
    for index in range(number):
        conv = convs[index % len(convs)]
        if kind == "multiplicative":
            blocks.append(MultiplicativeBlock(channels, conv))
        else:
            blocks += [ReLUBlock(channels, conv), ReLUBlock(channels, conv)]
    return Blocks(blocks, channels, vector_size, recompute)


# The networks -------------------------------------------------------------------------------------------------------


class ConvLSTM(nn.Module):
    """A convolutional LSTM over frames, of the same resolution and as many maps out as in.

    Shape:
        `(N, T, maps, H, W)` -> the same, and the last hidden state and cell, `(2, N, maps, H, W)`.
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.input = convolution(maps, 4 * maps, 3)
        self.state = nn.Conv2d(maps, 4 * maps, 3, padding=1, bias=False)

    def forward(self, x: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        inputs = self.input(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        outputs = []
        for frame in inputs.unbind(1):
            if start is None:
                i, _, o, g = frame.chunk(4, 1)
                cell = i.sigmoid() * g.tanh()
            else:
                i, f, o, g = (frame + self.state(start[0])).chunk(4, 1)
                cell = f.sigmoid() * start[1] + i.sigmoid() * g.tanh()
            start = torch.stack([o.sigmoid() * cell.tanh(), cell])
            outputs.append(start[0])
        assert start is not None, "there is at least one frame"
        return torch.stack(outputs, 1), start


class Encoder(nn.Module):
    """Sees each frame in full resolution, and all frames before through the LSTM."""

    def __init__(self, colours: int, channels: int, blocks: Blocks) -> None:
        super().__init__()
        self.stem = nn.Conv2d(colours, 2 * channels, 1)
        self.blocks = blocks
        self.lstm = ConvLSTM(2 * channels)

    def forward(self, frames: Tensor, vectors: Tensor | None, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What follows each frame.

        Args:
            frames: in [-1, 1], `(N, T, C, H, W)`.
            vectors: state and action in each frame, `(N, T, D)`.
            start: the LSTM's state after the frames before.

        Returns:
            The context of each frame after, `(N, T, 2c, H, W)`, and the LSTM's state after the last one.
        """
        features = self.stem(frames.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        features = self.blocks(features, None if vectors is None else vectors.flatten(0, 1))
        return self.lstm(features.unflatten(0, frames.shape[:2]), start)


class Decoder(nn.Module):
    """The PixelCNN of a frame under its context; the baseline's sees the context alone.

    Args:
        colours: C.
        num_logits: K of each colour of a pixel.
        channels: c.
        head_size: maps of the layer before the logits.
        blocks: its blocks.
        conv: makes its 1 x 1 convolutions.
        sees_frame: false for the baseline.
    """

    def __init__(
        self,
        colours: int,
        num_logits: int,
        channels: int,
        head_size: int,
        blocks: Blocks,
        conv: Callable[..., nn.Conv2d],
        sees_frame: bool,
    ) -> None:
        super().__init__()
        self.colours = colours
        # The only layer that sees the frame itself, and not the pixel: from here on, a unit may pass on what it holds.
        self.stem = MaskedConv2d(colours, 2 * channels, 3, "A", colours, equal=False) if sees_frame else None
        self.context = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.blocks = blocks
        self.top = conv(2 * channels, head_size, 1)
        self.logits = conv(head_size, colours * num_logits, 1)

    def forward(self, frames: Tensor, contexts: Tensor, vectors: Tensor | None) -> Tensor:
        """The logits of every colour of every pixel.

        Args:
            frames: in [-1, 1], `(N, C, H, W)`.
            contexts: `(N, 2c, H, W)`.
            vectors: state and action in the frame, `(N, D)`.

        Returns:
            `(N, C, K, H, W)`.
        """
        x = self.context(contexts.contiguous(memory_format=torch.channels_last))
        if self.stem is not None:
            x = x + self.stem(frames.contiguous(memory_format=torch.channels_last))
        x = self.blocks(x, vectors)
        return self.logits(self.top(x.relu()).relu()).unflatten(1, (self.colours, -1))


# The model ----------------------------------------------------------------------------------------------------------


class VPN(LikelihoodModule):
    """Video Pixel Network. The defaults are the paper's for Moving MNIST.

    `sample` continues videos: the first `context_frames` frames of the condition `video` `(N, C, T', H, W)` are given,
    and the others are drawn, pixel after pixel (with `levels=None`, where there is nothing to draw from, each pixel is
    the mean under those before it). With states and actions the condition also has `state` `(N, T, state_dim)` and
    `action` `(N, T, action_dim)`; of the states only those of given frames are used.

    Args:
        video_shape: `(C, T, H, W)`.
        context_frames: the first frames, which are given and neither scored nor drawn; 0 to T - 1.
        levels: of intensity, k / (levels - 1), each colour of a pixel a softmax over them: 256 for bytes. None takes
            grey values for probabilities of white, as the paper does on Moving MNIST: this cross-entropy is no
            likelihood, and no less than the entropy of the grey values themselves.
        channels: c; blocks have 2c maps.
        encoder_blocks: residual multiplicative blocks.
        decoder_blocks: residual multiplicative blocks.
        head_size: maps of the layer before the logits; 1536 for robot pushing.
        dilations: of the encoder's blocks in turn; (1,) for none.
        block: multiplicative, or two relu blocks in the place of each.
        decoder: pixelcnn, or the baseline's, in which the pixels of a frame are independent given earlier frames.
        state_dim: size of a frame's state, 0 for none.
        action_dim: size of a frame's action, 0 for none.
        recompute: compute what is inside a block a second time in the backward pass, and save its memory.
        optimizer: the paper's RMSProp, or Adam.
        lr: step size.
        patience: validations without a better score after which the step size falls to 0.3 of itself; None for never.

    Raises:
        DataError: if a shape or number is out of range; in `fit`, `validate` and `test`, if pixels are of no level.
    """

    changes: Tensor
    likelihood = "exact"
    data_key = "video"

    def __init__(
        self,
        video_shape: VideoShape = (1, 20, 64, 64),
        context_frames: Count = 10,
        levels: Several | None = None,
        channels: Size = 128,
        encoder_blocks: Count = 8,
        decoder_blocks: Count = 12,
        head_size: Size = 768,
        dilations: tuple[Size, ...] = (1, 2, 4, 8),
        block: Literal["multiplicative", "relu"] = "multiplicative",
        decoder: Literal["pixelcnn", "independent"] = "pixelcnn",
        state_dim: Count = 0,
        action_dim: Count = 0,
        recompute: bool = False,
        optimizer: Literal["rmsprop", "adam"] = "rmsprop",
        lr: NonNegative = 3e-4,
        patience: Count | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.image_shape = tuple(map(int, video_shape))
        colours, num_frames, *_ = self.image_shape
        if not 0 <= context_frames < num_frames:
            raise DataError(
                f"context_frames is {context_frames}; a clip has {num_frames} frames, of which 0 to {num_frames - 1} "
                "can be given."
            )
        self.context_frames = context_frames
        self.levels = levels
        sizes = {"video": context_frames, "state": state_dim, "action": action_dim}
        self.condition_keys = tuple(key for key, size in sizes.items() if size)
        dilated = [partial(convolution, dilation=dilation) for dilation in dilations]
        conv = partial(masked_convolution, num_colours=colours) if decoder == "pixelcnn" else convolution
        options = (state_dim + action_dim, recompute)
        self.encoder = Encoder(colours, channels, make_blocks(block, encoder_blocks, channels, dilated, *options))
        self.decoder = Decoder(
            colours,
            1 if levels in (None, 2) else levels,
            channels,
            head_size,
            make_blocks(block, decoder_blocks, channels, [conv], *options),
            conv,
            sees_frame=decoder == "pixelcnn",
        )
        if levels is not None:
            self.register_buffer("changes", torch.ones(2 * levels - 1, dtype=torch.long))
        self.to(memory_format=torch.channels_last)

    # Scores -----------------------------------------------------------------------------------------------------

    def vectors(self, condition: Condition | None) -> Tensor | None:
        """State and action in each frame, `(N, T, D)`; the states of frames that are not given are 0."""
        parts = []
        if "state" in self.condition_keys:
            state = (condition or {})["state"]
            given = torch.arange(state.shape[1], device=state.device) < self.context_frames
            parts.append(state * given[:, None])
        if "action" in self.condition_keys:
            parts.append((condition or {})["action"])
        return torch.cat(parts, -1) if parts else None

    def logits(self, videos: Tensor, condition: Condition | None = None) -> Tensor:
        """The logits of each frame after the given ones: of white, or of each level.

        Args:
            videos: `(N, C, T, H, W)` in [0, 1].
            condition: with the keys `state` and `action` if the model takes them.

        Returns:
            `(N, T - context_frames, C, K, H, W)`.
        """
        first = self.context_frames
        frames = 2 * videos.transpose(1, 2) - 1  # (N, T, C, H, W)
        vectors = self.vectors(condition)
        number, num_frames, _, height, width = frames.shape
        if num_frames > 1:  # The context of a frame has seen those before it, and none of the first.
            contexts, _ = self.encoder(frames[:, :-1], None if vectors is None else vectors[:, :-1])
        else:
            contexts = frames.new_empty(number, 0, self.decoder.context.in_channels, height, width)
        contexts = F.pad(contexts, (0, 0, 0, 0, 0, 0, 1, 0))[:, first:]
        logits = self.decoder(
            frames[:, first:].flatten(0, 1),
            contexts.flatten(0, 1),
            None if vectors is None else vectors[:, first:].flatten(0, 1),
        )
        return logits.unflatten(0, (number, num_frames - first))

    def cross_entropy(self, videos: Tensor, condition: Condition | None = None) -> Tensor:
        """The paper's score on Moving MNIST, with grey values for the probabilities of white: no likelihood.

        Args:
            videos: `(N, C, T, H, W)` in [0, 1].
            condition: with the keys `state` and `action` if the model takes them.

        Returns:
            Nats for each predicted frame, a mean over these, `(N,)`.
        """
        return -self.frame_log_probs(videos, condition).mean(1)

    def log_prob(self, images: Tensor, condition: Condition | None = None) -> Tensor:
        """The exact log-likelihood of the frames after the given ones.

        Args:
            images: whole videos, `(N, C, T, H, W)`, each value k / (levels - 1).
            condition: with the keys `state` and `action` if the model takes them.

        Returns:
            Nats, `(N,)`.

        Raises:
            LightningGenError: with `levels=None`.
        """
        if self.levels is None:
            raise LightningGenError(
                "VPN with levels=None has a cross-entropy with grey values and no likelihood; call cross_entropy, or "
                "give it levels=256."
            )
        return self.frame_log_probs(images, condition).sum(1)

    def frame_log_probs(self, videos: Tensor, condition: Condition | None = None) -> Tensor:
        """The terms of `log_prob`, or the negative ones of `cross_entropy`: nats of each predicted frame, `(N, T')`."""
        frames = videos[:, :, self.context_frames :].transpose(1, 2)
        logits = self.logits(videos, condition).to(videos.dtype)  # (N, T', C, K, H, W)
        if self.levels in (None, 2):
            return bernoulli_log_prob(frames, logits.squeeze(3))
        losses = F.cross_entropy(logits.flatten(0, 2), self.in_levels(frames).flatten(0, 2), reduction="none")
        return -losses.view(*frames.shape[:2], -1).sum(2)

    def in_levels(self, videos: Tensor) -> Tensor:
        """Values in [0, 1] as integers, 0 to levels - 1."""
        return (videos * (self.hparams["levels"] - 1)).round().long()

    # Trivial predictions to compare with ------------------------------------------------------------------------

    def initialize_from(self, batches: Iterable[Any]) -> None:
        """Count by how many levels a value changes from frame to frame, and start at one change of each kind."""
        if self.levels is None:
            return
        for batch in batches:
            values = self.in_levels(as_batch(batch)["video"].to(self.changes.device))
            changes = values.diff(dim=2).flatten() + self.levels - 1
            self.changes += torch.bincount(changes, minlength=len(self.changes))

    def last_frame_log_prob(self, videos: Tensor) -> Tensor:
        """What copying the last frame makes of it: each value is the frame's before plus a change drawn by its count.

        Args:
            videos: `(N, C, T, H, W)`, each value k / (levels - 1); at least one frame is given.

        Returns:
            Nats of the predicted frames, `(N,)`.
        """
        levels = torch.arange(self.hparams["levels"], device=videos.device)
        table = self.changes.log()[levels - levels[:, None] + len(levels) - 1].log_softmax(1)  # (before, after)
        values = self.in_levels(videos[:, :, self.context_frames - 1 :])
        return table[values[:, :, :-1], values[:, :, 1:]].flatten(1).sum(1)

    # Samples ----------------------------------------------------------------------------------------------------

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        first, (colours, num_frames, height, width) = self.context_frames, self.image_shape
        like = self.encoder.stem.weight
        videos = like.new_empty(num_samples, *self.image_shape)
        shape = (num_frames - first, num_samples, colours, height, width)
        # Rounded to 16 bits, uniform numbers would draw rare levels too often.
        dtype = torch.promote_types(self.dtype, torch.float32)
        uniform = torch.rand(shape, generator=generator, device=self.device, dtype=dtype)
        vectors = self.vectors(condition)
        context, state, seen = like.new_zeros(num_samples, self.decoder.context.in_channels, height, width), None, 0
        if condition is not None and first:
            videos[:, :, :first] = condition["video"][:, :, :first]
        with torch.autocast(self.device.type, enabled=False):
            for t in range(first, num_frames):
                if t:
                    frames = 2 * videos[:, :, seen:t].transpose(1, 2) - 1
                    contexts, state = self.encoder(frames, None if vectors is None else vectors[:, seen:t], state)
                    context, seen = contexts[:, -1], t
                own = None if vectors is None else vectors[:, t]
                videos[:, :, t] = self.draw_frame(context, own, uniform[t - first])
        return videos

    def draw_frame(self, context: Tensor, vectors: Tensor | None, uniform: Tensor) -> Tensor:
        """Draw a frame in [0, 1] given its context `(N, 2c, H, W)` and random numbers `(N, C, H, W)`."""
        if self.decoder.stem is not None:
            return CachedDecoder(self.decoder, context, vectors).run(uniform, self.draw_pixels)
        logits = self.decoder(uniform.to(context.dtype), context, vectors).movedim(2, -1)  # (N, C, H, W, K)
        return self.draw_pixels(logits.flatten(0, 3), uniform.flatten()).view_as(uniform)

    def draw_pixels(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Values in [0, 1] for logits `(N, K)` and random numbers `(N,)`."""
        if self.levels is None:
            return logits[:, 0].sigmoid()
        return draw_levels(logits, uniform, self.levels)

    # Checks, training -------------------------------------------------------------------------------------------

    def check_batch(self, batch: Batch) -> None:
        """Also refuse pixels of no level, and clips without their states and actions."""
        super().check_batch(batch)
        if self.levels is not None:
            check_levels("VPN", self.levels, batch["video"], DataError)
        self.check_vectors(batch, DataError)

    def check_condition(
        self, condition: Condition | None, num_samples: int, generator: torch.Generator | None = None
    ) -> Condition | None:
        """Also check the shape of the clips that are to be continued."""
        condition = super().check_condition(condition, num_samples, generator)
        if condition is None:
            return None
        if "video" in condition:
            shape, (colours, _, height, width) = tuple(condition["video"].shape), self.image_shape
            if len(shape) != 5 or (shape[1], *shape[3:]) != (colours, height, width) or shape[2] < self.context_frames:
                raise ConditionError(
                    f"The condition 'video' has the shape {shape}; expected {num_samples} clips of {colours} x "
                    f"(at least {self.context_frames} frames) x {height} x {width}."
                )
            if self.levels is not None:
                check_levels("VPN", self.levels, condition["video"], ConditionError)
        self.check_vectors(condition, ConditionError)
        return condition

    def check_vectors(self, rows: Condition, error: type[DataError] | type[ConditionError]) -> None:
        """Refuse states and actions of another shape than `(N, T, size)`."""
        for key in ("state", "action"):
            shape = (self.image_shape[1], self.hparams[f"{key}_dim"])
            if key in self.condition_keys and (key not in rows or tuple(rows[key].shape[1:]) != shape):
                found = f"has the shape {tuple(rows[key].shape)}" if key in rows else "is missing"
                raise error(f"{key!r} {found}; VPN with {key}_dim={shape[1]} expects (N, {shape[0]}, {shape[1]}).")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Minimise the cross-entropy (nats a frame), or the negative log-likelihood (nats a dimension)."""
        batch = self.as_batch(batch)
        if self.levels is None:
            loss = self.cross_entropy(batch["video"], batch).mean()
        else:
            loss = -self.log_prob(batch["video"], batch).mean() / self.num_dims
        self.log("train/loss", loss, prog_bar=True)
        return loss

    @property
    def num_dims(self) -> int:
        """Colours of pixels in the frames that are predicted."""
        return math.prod(self.image_shape) // self.image_shape[1] * (self.image_shape[1] - self.context_frames)

    def _score(self, batch: Batch) -> Tensor:
        videos = batch["video"]
        scores = self.frame_log_probs(videos, batch)
        stage = "test" if self._trainer is not None and self._trainer.testing else "val"
        figures: dict[str, Tensor] = {}
        if self.levels is None:
            bound = bernoulli_entropy(videos[:, :, self.context_frames :].transpose(1, 2)).mean()
            figures = {"lower_bound": bound}
        elif self.context_frames:
            figures = {"last_frame_nats_per_dim": -self.last_frame_log_prob(videos).mean() / self.num_dims}
        if stage == "test":
            figures |= {f"frame_{t}": -nats for t, nats in enumerate(scores.mean(0), start=self.context_frames + 1)}
        figures = {f"{stage}/{name}": value for name, value in figures.items()}
        self.log_dict(figures, batch_size=len(videos), on_epoch=True, sync_dist=True)
        return scores.mean(1) if self.levels is None else scores.sum(1)

    def in_units(self, nll: float) -> dict[str, float]:
        if self.levels is None:
            return {"cross_entropy": nll}
        return {
            "nll": nll,
            "nats_per_dim": nll / self.num_dims,
            "bits_per_dim": nll / self.num_dims / math.log(2),
        }

    def figure_protocols(self, stage: str) -> dict[str, str]:
        first, num_frames = self.context_frames + 1, self.image_shape[1]
        given = f"frames {first} to {num_frames} given all before"
        of_test = {f"frame_{t}": f"nats of frame {t}" for t in range(first, num_frames + 1) if stage == "test"}
        if self.levels is None:
            return {
                "cross_entropy": f"cross-entropy with grey values, nats a frame, {given}",
                "lower_bound": "entropy of the grey values, nats a frame, the least that a cross-entropy can be",
            } | of_test
        return {
            "nll": f"nats, exact log-likelihood, {given}",
            "nats_per_dim": f"nats per dimension, exact log-likelihood, {given}",
            "bits_per_dim": f"bits per dimension, exact log-likelihood, {given}",
            "last_frame_nats_per_dim": "of the frame before, plus a change drawn as often as in training",
        } | of_test

    def configure_optimizers(self) -> Any:
        kind = {"rmsprop": torch.optim.RMSprop, "adam": torch.optim.Adam}[self.hparams["optimizer"]]
        optimizer = kind(self.parameters(), lr=self.hparams["lr"])
        if self.hparams["patience"] is None:
            return optimizer
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=self.hparams["patience"])
        monitor = "val/cross_entropy" if self.levels is None else "val/nll"
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": monitor}}
