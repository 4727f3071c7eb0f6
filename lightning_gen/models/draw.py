r"""DRAW: an image is drawn in many glimpses, by a recurrent variational autoencoder that attends to small windows.

Gregor, Danihelka, Graves, Rezende & Wierstra, "DRAW: A Recurrent Neural Network For Image Generation" (2015),
https://arxiv.org/abs/1502.04623.

For t = 1..T, with the canvas c and the error image x' = x - sigmoid(c_{t-1}) (equations 3 to 8),

    r_t = read(x, x', h_dec_{t-1})                      h_enc_t = LSTM([r_t, h_dec_{t-1}])
    z_t ~ q(z_t | h_enc_t) = N(mu_t, diag sigma_t^2)    h_dec_t = LSTM(z_t)       c_t = c_{t-1} + write(h_dec_t)

and the loss is a bound on the negative log-likelihood (equations 9 to 12)

    L = -log p(x | c_T) + sum_t KL(q(z_t | h_enc_t) || N(0, I)).

See configs/draw/README.md for what differs from the paper and why.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_gen.arguments import Decay, ImageShape, NonNegative, Size
from lightning_gen.errors import DataError
from lightning_gen.functional.bounds import (
    bernoulli_log_prob,
    effective_sample_size,
    gaussian_kl,
    importance_weighted_bound,
)
from lightning_gen.functional.filterbank import filterbank, read_patch, write_patch
from lightning_gen.functional.precision import widen
from lightning_gen.models.base import Batch, Condition, LikelihoodModule, pixel_frequencies

# Attention ----------------------------------------------------------------------------------------------------------


class Window(NamedTuple):
    """A grid of n x n Gaussian filters on each image of a batch; all entries `(N,)`, pixels counted from 1."""

    centre_x: Tensor
    centre_y: Tensor
    stride: Tensor  # pixels from one filter to the next
    log_var: Tensor  # of the filters, in square pixels
    log_intensity: Tensor  # of what is read; what is written is divided by it


class Attention(nn.Module):
    """A window placed by a hidden state (section 3.2): W(h) -> its position, size, sharpness and intensity.

    Args:
        hidden_size: of the state.
        image_shape: `(C, H, W)`.
        size: filters n on each side of the grid.

    Raises:
        DataError: if the grid has a single filter, for which no stride exists, or more than the image has pixels.
    """

    def __init__(self, hidden_size: int, image_shape: tuple[int, ...], size: int) -> None:
        super().__init__()
        self.height, self.width = image_shape[-2:]
        if not 2 <= size <= min(self.height, self.width):
            raise DataError(
                f"A grid of {size} x {size} filters was asked for, on images of {self.height} x {self.width} pixels; "
                "expected at least 2 (one filter has no stride) and no more than the image has; set read_size and "
                "write_size, or attention=false."
            )
        self.size = size
        self.linear = nn.Linear(hidden_size, len(Window._fields))
        # At first filters are as wide as half their stride, and leave no gaps to hide strokes in.
        stride = (max(self.height, self.width) - 1) / (size - 1)
        nn.init.constant_(self.linear.bias[2], 2 * math.log(stride / 2))  # log sigma^2

    def forward(self, hidden: Tensor) -> Window:
        """The window of each state, `(N, hidden_size) -> (N,)` each; h = 0 and W = 0 span the image exactly."""
        x, y, log_var, log_stride, log_intensity = widen(self.linear(hidden)).unbind(-1)  # equation 21
        centre_x, centre_y = (self.width + 1) / 2 * (x + 1), (self.height + 1) / 2 * (y + 1)
        stride = (max(self.height, self.width) - 1) / (self.size - 1) * log_stride.exp()  # equations 22 to 24
        return Window(centre_x, centre_y, stride, log_var, log_intensity)

    def filters(self, window: Window) -> tuple[Tensor, Tensor]:
        """`F_Y` `(N, n, H)` and `F_X` `(N, n, W)`."""
        return (
            filterbank(window.centre_y, window.stride, window.log_var, self.size, self.height),
            filterbank(window.centre_x, window.stride, window.log_var, self.size, self.width),
        )

    def read(self, images: Tensor, window: Window) -> Tensor:
        """`(N, C, H, W) -> (N, C * n * n)`, equation 27."""
        patch = read_patch(widen(images), *self.filters(window)).flatten(1)
        return window.log_intensity.exp()[:, None] * patch

    def write(self, patch: Tensor, window: Window) -> Tensor:
        """`(N, C, n, n) -> (N, C, H, W)`, equation 29: the transposed filters, and one over the intensity."""
        scale = (-window.log_intensity).exp()[:, None, None, None]
        return write_patch(scale * widen(patch), *self.filters(window))

    def boxes(self, window: Window) -> Tensor:
        """Where the outermost filters stand and how sharp they are, as shares of the image.

        Returns:
            `(N, 5)`: left, top, width, height, and sigma as a share of the width. A box may reach beyond the image.
        """
        span = (self.size - 1) * window.stride
        left, top = window.centre_x - 0.5 - span / 2, window.centre_y - 0.5 - span / 2  # Pixel 1 is centred at 0.5.
        across, down = 1 / self.width, 1 / self.height
        sigma = (0.5 * window.log_var).exp()
        return torch.stack([left * across, top * down, span * across, span * down, sigma * across], -1)


# One glimpse --------------------------------------------------------------------------------------------------------


class State(NamedTuple):
    """What one glimpse leaves to the next."""

    canvas: Tensor  # (N, C, H, W), logits
    hidden_enc: Tensor  # (N, hidden_size), as the three below
    cell_enc: Tensor
    hidden_dec: Tensor
    cell_dec: Tensor


class Glimpse(nn.Module):
    """One step of the recurrence, which `compile()` compiles in place.

    Args:
        image_shape: `(C, H, W)`.
        read_size: filters on each side of the grid that reads; None reads the whole image.
        write_size: of the grid that writes; None writes the whole image.
        hidden_size: units of each of the two LSTMs.
        latent_dim: latent variables J of a glimpse.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        read_size: int | None,
        write_size: int | None,
        hidden_size: int,
        latent_dim: int,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.reader = None if read_size is None else Attention(hidden_size, image_shape, read_size)
        self.writer = None if write_size is None else Attention(hidden_size, image_shape, write_size)
        read_area = height * width if read_size is None else read_size**2
        self.patch_shape = (channels, height, width) if write_size is None else (channels, write_size, write_size)
        self.encoder = nn.LSTMCell(2 * channels * read_area + hidden_size, hidden_size)
        self.posterior = nn.Linear(hidden_size, 2 * latent_dim)  # mu and log sigma, equations 1 and 2
        self.decoder = nn.LSTMCell(latent_dim, hidden_size)
        self.patch = nn.Linear(hidden_size, math.prod(self.patch_shape))

    def forward(self, images: Tensor, eps: Tensor, state: State) -> tuple[State, Tensor, Tensor]:
        """Look, infer z = mu + sigma * eps, and draw.

        Args:
            images: `(N, C, H, W)`.
            eps: standard normal noise, `(N, J)`.
            state: after the glimpse before.

        Returns:
            The state after this one, and mu and log sigma, `(N, J)` each.
        """
        glimpse = self.read(images, state).to(state.hidden_dec.dtype)
        hidden, cell = self.encoder(torch.cat([glimpse, state.hidden_dec], 1), (state.hidden_enc, state.cell_enc))
        mean, log_sigma = widen(self.posterior(hidden)).chunk(2, -1)
        z = (mean + log_sigma.exp() * eps).to(eps.dtype)
        return self.draw(z, state._replace(hidden_enc=hidden, cell_enc=cell)), mean, log_sigma

    def read(self, images: Tensor, state: State) -> Tensor:
        """The image and its error, through the window that the decoder's last state places; `(N, R)`."""
        both = torch.cat([images, images - state.canvas.sigmoid()], 1)  # (N, 2C, H, W)
        return both.flatten(1) if self.reader is None else self.reader.read(both, self.reader(state.hidden_dec))

    def draw(self, z: Tensor, state: State) -> State:
        """Decode z `(N, J)` and add to the canvas what the decoder's new state says."""
        hidden, cell = self.decoder(z, (state.hidden_dec, state.cell_dec))
        patch = self.patch(hidden).unflatten(1, self.patch_shape)
        written = patch if self.writer is None else self.writer.write(patch, self.writer(hidden))
        return state._replace(canvas=state.canvas + written, hidden_dec=hidden, cell_dec=cell)


# The model ----------------------------------------------------------------------------------------------------------


class Drawing(NamedTuple):
    """How images came to be, glimpse by glimpse; boxes as in `Attention.boxes`, None without attention."""

    canvases: Tensor  # (T, N, C, H, W) in [0, 1]
    read_boxes: Tensor | None  # (T, N, 5); None where nothing is read
    write_boxes: Tensor | None  # (T, N, 5)


class DRAW(LikelihoodModule):
    """A recurrent variational autoencoder that draws its images glimpse by glimpse.

    The defaults are the paper's for binarised MNIST (its table 3).

    Args:
        image_shape: `(C, H, W)`, of any height and width.
        attention: read and write through windows; else each glimpse sees and changes the whole image.
        num_glimpses: T.
        read_size: filters on each side of the window that reads.
        write_size: of the window that writes.
        hidden_size: units of each of the two LSTMs.
        latent_dim: latent variables J of each glimpse.
        decoder: the distribution of the pixels: `bernoulli` on binary ones, or `intensity`, the paper's treatment of
            colour: the cross-entropy of intensities in [0, 1] as if they were Bernoulli means, which is no probability.
        num_importance_samples: draws of all z of an image in `log_prob`, and so in `test`.
        recompute: keep only the states between the glimpses for the gradient, and compute what is inside them again:
            the same gradient, less memory, one more forward pass.
        lr: step size of Adam.
        betas: of Adam.

    Raises:
        DataError: if a window has one filter or more than the image has pixels; in `fit`, if the glimpses of a batch
            need more memory than the device has; in `fit`, `validate` and `test`, if `bernoulli` gets other pixels
            than 0 and 1.
    """

    likelihood = "bound"

    def __init__(
        self,
        image_shape: ImageShape = (1, 28, 28),
        attention: bool = True,
        num_glimpses: Size = 64,
        read_size: Size = 2,
        write_size: Size = 5,
        hidden_size: Size = 256,
        latent_dim: Size = 100,
        decoder: Literal["bernoulli", "intensity"] = "bernoulli",
        num_importance_samples: Size = 10,
        recompute: bool = False,
        lr: NonNegative = 1e-3,
        betas: tuple[Decay, Decay] = (0.9, 0.999),
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.image_shape = tuple(map(int, image_shape))
        self.discrete = self.binary = decoder == "bernoulli"
        self.num_glimpses = num_glimpses
        self.glimpse_dim = latent_dim
        self.num_importance_samples = num_importance_samples
        self.recompute = recompute
        windows = (read_size, write_size) if attention else (None, None)
        self.cell = Glimpse(self.image_shape, windows[0], windows[1], hidden_size, latent_dim)
        self.canvas = nn.Parameter(torch.zeros(self.image_shape))  # c_0
        self.hidden_enc = nn.Parameter(torch.zeros(hidden_size))
        self.hidden_dec = nn.Parameter(torch.zeros(hidden_size))

    def initialize_from(self, batches: Iterable[Any]) -> None:
        """Begin with the mean image on the empty canvas, so that the first glimpses need not paint the ground."""
        self.canvas.data.copy_(pixel_frequencies(batches).logit().view(self.image_shape))

    def start(self, num_images: int) -> State:
        """The state before the first glimpse: learned, and the same for all images."""
        canvas, hidden_enc, hidden_dec = (
            parameter.expand(num_images, *parameter.shape)
            for parameter in (self.canvas, self.hidden_enc, self.hidden_dec)
        )
        return State(canvas, hidden_enc, torch.zeros_like(hidden_enc), hidden_dec, torch.zeros_like(hidden_dec))

    # Inference and generation -----------------------------------------------------------------------------------

    def infer(self, images: Tensor, eps: Tensor) -> tuple[list[State], Tensor, Tensor]:
        """Look at images and draw them again.

        Args:
            images: `(N, *image_shape)`.
            eps: noise of q(z_t | h_enc_t), `(T, N, J)`.

        Returns:
            The T + 1 states, the first before any glimpse; and mu and log sigma, `(T, N, J)` each.
        """
        states, means, log_sigmas = [self.start(len(images))], [], []
        for noise in eps:
            arguments = (images, noise, states[-1])
            if self.recompute and torch.is_grad_enabled():
                state, mean, log_sigma = checkpoint(  # No stream of noise to restore: it is an argument.
                    self.cell, *arguments, use_reentrant=False, preserve_rng_state=False
                )
            else:
                state, mean, log_sigma = self.cell(*arguments)
            states.append(state)
            means.append(mean)
            log_sigmas.append(log_sigma)
        return states, torch.stack(means), torch.stack(log_sigmas)

    def generate(self, z: Tensor) -> list[State]:
        """The T + 1 states of drawing from z, `(T, N, J)`."""
        states = [self.start(z.shape[1])]
        for latent in z:
            states.append(self.cell.draw(latent, states[-1]))
        return states

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw the z of all glimpses from the prior N(0, I), `(num_samples, T * J)`, one glimpse after the other."""
        shape = (num_samples, self.num_glimpses * self.glimpse_dim)
        return torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The mean image of the last canvas given all z, `(N, T * J) -> (N, *image_shape)` in [0, 1]."""
        return self.generate(self._by_glimpse(z))[-1].canvas.sigmoid()

    def _by_glimpse(self, z: Tensor) -> Tensor:
        """`(N, T * J) -> (T, N, J)`."""
        return z.unflatten(1, (self.num_glimpses, self.glimpse_dim)).transpose(0, 1)

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        """Mean images, as the paper shows them."""
        return self.decode(self.sample_latent(num_samples, generator))

    def draw(self, num_samples: int, *, generator: torch.Generator | None = None) -> Drawing:
        """Sample, and give every canvas on the way; the last ones are what `sample` gives for the same noise."""
        with self.evaluating(), torch.no_grad():
            return self._drawing(self.generate(self._by_glimpse(self.sample_latent(num_samples, generator))), False)

    def redraw(self, images: Tensor) -> Drawing:
        """Look at images `(N, *image_shape)` and draw them again, also with the windows that read."""
        with self.evaluating(), torch.no_grad():
            return self._drawing(self.infer(images, self.draw_noise(len(images)))[0], True)

    def _drawing(self, states: list[State], reads: bool) -> Drawing:
        """The canvases after each glimpse, the window that it read (by the state before) and the one it wrote."""
        reader, writer = self.cell.reader, self.cell.writer
        canvases = torch.stack([state.canvas.sigmoid() for state in states[1:]])
        hidden = torch.stack([state.hidden_dec for state in states])  # (T + 1, N, hidden_size)
        return Drawing(
            canvases,
            None if reader is None or not reads else reader.boxes(reader(hidden[:-1])),
            None if writer is None else writer.boxes(writer(hidden[1:])),
        )

    # Bounds -----------------------------------------------------------------------------------------------------

    def draw_noise(self, num_images: int) -> Tensor:
        """Standard normal noise of all glimpses, `(T, N, J)`."""
        shape = (self.num_glimpses, num_images, self.glimpse_dim)
        return torch.randn(shape, device=self.device, dtype=self.dtype)

    def elbo(self, images: Tensor, num_samples: int = 1) -> Tensor:
        """The evidence lower bound: closed KL of every glimpse, sampled reconstruction.

        Args:
            images: `(N, *image_shape)`.
            num_samples: draws of all z for each image.

        Returns:
            Nats, `(N,)`.
        """
        repeated = images.repeat(num_samples, 1, 1, 1)  # (L * N, ...)
        states, mean, log_sigma = self.infer(repeated, self.draw_noise(len(repeated)))
        bound = bernoulli_log_prob(repeated, states[-1].canvas) - gaussian_kl(mean, 2 * log_sigma).sum(0)
        return bound.view(num_samples, -1).mean(0)

    def log_prob(
        self, images: Tensor, condition: Condition | None = None, *, num_importance_samples: int | None = None
    ) -> Tensor:
        """The importance-weighted bound on log p(x) (Burda et al. 2015), its samples the z of all glimpses together.

        Args:
            images: `(N, *image_shape)`.
            condition: none is taken.
            num_importance_samples: k; the constructor's if None.

        Returns:
            Nats, `(N,)`.

        Raises:
            DataError: if k is less than 1.
        """
        return importance_weighted_bound(self.log_weights(images, num_importance_samples))

    def log_weights(self, images: Tensor, num_samples: int | None = None) -> Tensor:
        """Log p(x, z) - log q(z | x) of draws of all z, whose mean is the plain bound; `(num_samples, N)` nats."""
        k = self.num_importance_samples if num_samples is None else num_samples
        if k < 1:
            raise DataError(f"num_importance_samples is {k}; expected at least 1.")
        log_weights = []
        for _ in range(k):  # One by one: the glimpses of a batch fill a device as it is.
            eps = self.draw_noise(len(images))
            states, mean, log_sigma = self.infer(images, eps)
            z = mean + log_sigma.exp() * eps
            log_ratio = (0.5 * (eps.square() - z.square()) + log_sigma).sum((0, 2))  # log p(z) - log q(z | x)
            log_weights.append(bernoulli_log_prob(images, states[-1].canvas) + log_ratio)
        return torch.stack(log_weights)

    # Training and scoring ---------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Minimise the negative bound, a mean over the batch."""
        batch = self.as_batch(batch)
        loss = -self.elbo(batch["image"]).mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"], betas=tuple(self.hparams["betas"]))

    def check_batch(self, batch: Batch) -> None:
        """Also refuse, before the first step, a batch whose glimpses do not fit into memory."""
        super().check_batch(batch)
        if not self.training or (total := device_memory(self.device)) is None:
            return
        needed = self.memory(batch["image"])
        if needed > total:
            raise DataError(
                f"{self.num_glimpses} glimpses at {len(batch['image'])} images a batch keep about {needed / 1e9:.1f} "
                f"GB for the gradient, and {self.device} has {total / 1e9:.1f} GB; take fewer num_glimpses, a smaller "
                "batch_size" + ("." if self.recompute else ", or recompute=true.")
            )

    def memory(self, images: Tensor) -> int:
        """Bytes that all glimpses at these images keep for the gradient, by what one of them keeps."""
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        start = self.start(len(images))
        shared = {tensor.untyped_storage().data_ptr() for tensor in (images, *self.parameters())}
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            eps = images.new_zeros(len(images), self.glimpse_dim)
            state, *_ = self.cell(images, eps, start)
        inside = sum(size for pointer, size in kept.items() if pointer not in shared)
        between = sum(tensor.numel() * tensor.element_size() for tensor in (*state, eps))
        return inside + self.num_glimpses * between if self.recompute else self.num_glimpses * inside

    def _score(self, batch: Batch) -> Tensor:
        return self.elbo(batch["image"])

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score test images by the importance-weighted bound; log the plain one and the effective samples too."""
        log_weights = self.log_weights(self.as_batch(batch)["image"])
        self._log_probs[dataloader_idx].append(importance_weighted_bound(log_weights))
        figures = {
            "test/elbo": log_weights.mean(),
            "test/effective_samples": effective_sample_size(log_weights).mean(),
        }
        self.log_dict(figures, batch_size=log_weights.shape[1], sync_dist=True)

    def figure_protocols(self, stage: str) -> dict[str, str]:
        of_test = {
            "elbo": f"nats, evidence lower bound, mean of {self.num_importance_samples} samples",
            "effective_samples": f"of {self.num_importance_samples} importance samples, mean over images",
        }
        return super().figure_protocols(stage) | (of_test if stage == "test" else {})

    def likelihood_protocol(self, stage: str) -> str:
        """How `val/nll` and `test/nll` were computed, for tables."""
        kind = "" if self.discrete else ", cross-entropy of intensities, no probability"
        if stage == "test":
            return f"importance-weighted bound, {self.num_importance_samples} samples{kind}"
        return f"evidence lower bound, 1 sample{kind}"


def device_memory(device: torch.device) -> int | None:
    """Bytes of memory that a device has in all; None where that cannot be told at once."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
