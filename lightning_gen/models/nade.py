r"""Neural autoregressive distribution estimator.

Larochelle & Murray, "The Neural Autoregressive Distribution Estimator" (AISTATS 2011),
https://proceedings.mlr.press/v15/larochelle11a.html.

The probability of a binary image is a product of conditionals, one for each pixel d of an ordering o, and exact:

    h_d = sigmoid(c + sum_{k < d} W_{o_k} x_{o_k})
    p(x_{o_d} = 1 | x_{o_<d}) = sigmoid(b_{o_d} + V_{o_d} . h_d)
    log p(x) = sum_d log p(x_{o_d} | x_{o_<d})

All conditionals share the weights, and each hidden vector is the one before with one pixel added, so that D of them
cost O(DH). See configs/nade/README.md for what differs from the paper and why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from lightning_gen.arguments import Count, ImageShape, NonNegative, Share, Size
from lightning_gen.errors import DataError
from lightning_gen.functional.bounds import bernoulli_log_prob
from lightning_gen.models.base import Condition, LikelihoodModule, pixel_frequencies

Activation = Literal["sigmoid", "relu"]

BLOCK = 16
"""Pixels that are scored at a time. Of 8 to 112, the fastest on one core for digits, 784 pixels and 500 units."""


def activate_(activations: Tensor, activation: Activation) -> Tensor:
    """The hidden units, in place of their activations."""
    return activations.sigmoid_() if activation == "sigmoid" else activations.relu_()


def slope(hidden: Tensor, activation: Activation) -> Tensor:
    """The derivative of the hidden units, from their values: h (1 - h), or whether h > 0."""
    return hidden - hidden.square() if activation == "sigmoid" else (hidden > 0).to(hidden.dtype)


class HiddenRows(NamedTuple):
    """The different hidden vectors within a block of K pixels.

    A hidden vector differs from the one before only where the pixel between them is not 0. In a digit that is one of
    eight, and the rest of the block's N K hidden vectors need not be computed: R rows stand for all of them. On a GPU
    their number is waited for, once a block: the price of not computing the rest.
    """

    image: Tensor  # (R,), the image that a row belongs to
    pixels: Tensor  # (R, K), the block's pixels that the row has seen; 0 for those from its own on
    entry: Tensor  # (N, K), where in the flattened (R, K) logits of rows and pixels the logit of each pixel lies


def hidden_rows(block: Tensor) -> HiddenRows:
    """Find the rows of a block of pixels, `(N, K)`."""
    new = torch.ones_like(block, dtype=torch.bool)
    new[:, 1:] = block[:, :-1] != 0
    image, first = new.nonzero(as_tuple=True)
    position = torch.arange(block.shape[1], device=block.device)
    row = new.flatten().cumsum(0).view_as(block) - 1
    return HiddenRows(image, block[image] * (position < first[:, None]), row * block.shape[1] + position)


class Conditionals(Function):
    """The logits of all conditionals, with the paper's O(DH) gradient written out.

    Both passes go through the ordering in blocks of `BLOCK` pixels. What is kept between them is one hidden vector for
    each pixel that is not 0 and one for each image and block: at most N D H numbers, a fifth of that for digits.
    """

    @staticmethod
    def forward(
        ctx: Any, pixels: Tensor, weight: Tensor, output_weight: Tensor, hidden_bias: Tensor, activation: Activation
    ) -> Tensor:
        """Logits without the pixels' own biases.

        Args:
            ctx: keeps what `backward` needs.
            pixels: `(N, D)`, in the ordering's order.
            weight: W, `(D, H)`, in the same order.
            output_weight: V, `(D, H)`, in the same order.
            hidden_bias: c, `(H,)`.
            activation: of the hidden units.

        Returns:
            `(N, D)`.
        """
        running = hidden_bias.expand(len(pixels), -1)  # (N, H): c and all pixels before the block
        logits, kept = [], []
        for block, w, v in zip(pixels.split(BLOCK, 1), weight.split(BLOCK), output_weight.split(BLOCK), strict=True):
            rows = hidden_rows(block)
            hidden = activate_(torch.addmm(running[rows.image], rows.pixels, w), activation)  # (R, H)
            logits.append((hidden @ v.T).take(rows.entry))  # (N, K)
            kept += [*rows, hidden]
            running = torch.addmm(running, block, w)
        ctx.save_for_backward(pixels, weight, output_weight, *kept)
        ctx.activation = activation
        return torch.cat(logits, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The blocks from the last to the first, with the sum of the later activations' gradients at hand."""
        pixels, weight, output_weight, *kept = ctx.saved_tensors
        grad_weight, grad_output_weight = torch.empty_like(weight), torch.empty_like(output_weight)
        grad_pixels = torch.empty_like(pixels) if ctx.needs_input_grad[0] else None
        later = grad.new_zeros(len(pixels), weight.shape[1])  # (N, H): the sum of da over all pixels after the block
        for start in reversed(range(0, pixels.shape[1], BLOCK)):
            part = slice(start, start + BLOCK)
            image, seen, entry, hidden = kept[-4:]
            del kept[-4:]
            # Each place once. put_ would do the same, but not where algorithms are to be deterministic.
            grad_logits = torch.zeros_like(seen.flatten()).scatter_(0, entry.flatten(), grad[:, part].flatten())
            grad_logits = grad_logits.view_as(seen)  # (R, K)
            grad_output_weight[part] = grad_logits.T @ hidden
            grad_activations = (grad_logits @ output_weight[part]).mul_(slope(hidden, ctx.activation))
            # A pixel's weights enter all later hidden vectors: those of its block that have seen it, and all blocks
            # after. Its own hidden vector is not among them.
            grad_weight[part] = torch.addmm(pixels[:, part].T @ later, seen.T, grad_activations)
            if grad_pixels is not None:  # Also a pixel of 0 has its slope: here each has its own da, (N, K, H).
                rows = entry // seen.shape[1]
                da = grad[:, part, None] * output_weight[part] * slope(hidden, ctx.activation)[rows]
                after = da.flip(1).cumsum(1).flip(1) - da + later[:, None]
                grad_pixels[:, part] = (after * weight[part]).sum(2)
            later.index_add_(0, image, grad_activations)
        return grad_pixels, grad_weight, grad_output_weight, later.sum(0), None


class NADE(LikelihoodModule):
    """Neural autoregressive distribution estimator with one hidden layer, for binary images.

    Args:
        image_shape: `(C, H, W)`.
        hidden_size: units of the hidden layer.
        activation: of the hidden units: the paper's sigmoid, or the rectifier of the authors' later experiments.
        tied: use W for V as well, as in the restricted Boltzmann machine that the model descends from.
        ordering: the order of the pixels. None is the raster (channel, row, column), an integer the seed of a random
            order, a list the order itself: a permutation of the pixels' numbers in the raster.
        optimizer: the paper's SGD, or Adam.
        lr: step size at the start; the paper picked from 0.05, 0.005 and 0.0005.
        lr_decay: after t batches the step size is lr / (1 + lr_decay t); the paper picked from 0, 0.001 and 1e-6.
        momentum: Nesterov's, of SGD; the paper has none.

    Raises:
        DataError: if `ordering` is no permutation; in `fit`, `validate` and `test`, if pixels are not 0 or 1.
    """

    likelihood = "exact"
    binary = True
    ordering: Tensor

    def __init__(
        self,
        image_shape: ImageShape = (1, 28, 28),
        hidden_size: Size = 500,
        activation: Activation = "sigmoid",
        tied: bool = False,
        ordering: Count | list[Count] | None = None,
        optimizer: Literal["sgd", "adam"] = "sgd",
        lr: NonNegative = 0.0005,
        lr_decay: NonNegative = 0.0,
        momentum: Share = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.image_shape = tuple(map(int, image_shape))
        self.activation: Activation = activation
        num_pixels = math.prod(self.image_shape)
        # Saved with the weights: a seed may give another permutation in another version of PyTorch.
        self.register_buffer("ordering", permutation(ordering, num_pixels))
        # Row d of these three belongs to the d-th pixel of the ordering: only images are ever permuted.
        self.weight = nn.Parameter(torch.empty(num_pixels, hidden_size))  # W
        self.output_weight = self.weight if tied else nn.Parameter(torch.empty(num_pixels, hidden_size))  # V
        self.output_bias = nn.Parameter(torch.zeros(num_pixels))  # b
        self.hidden_bias = nn.Parameter(torch.zeros(hidden_size))  # c
        nn.init.normal_(self.weight, std=0.01)
        if not tied:
            nn.init.normal_(self.output_weight, std=0.01)

    def initialize_from(self, batches: Iterable[Any]) -> None:
        """Set the output biases so that the model starts near independent pixels with the data's frequencies."""
        self.output_bias.data.copy_(pixel_frequencies(batches).logit()[self.ordering.cpu()])

    # The model --------------------------------------------------------------------------------------------------

    def conditional_logits(self, images: Tensor) -> Tensor:
        """The log-odds of each pixel being 1 given those before it, `(N, *image_shape) -> (N, *image_shape)`."""
        pixels = images.flatten(1)[:, self.ordering]  # (N, D)
        with torch.autocast(self.device.type, enabled=False):  # Sums of hundreds of terms need more than 16 bits.
            logits = self.output_bias + Conditionals.apply(
                pixels.to(self.weight.dtype), self.weight, self.output_weight, self.hidden_bias, self.activation
            )
        return logits[:, self.ordering.argsort()].unflatten(1, self.image_shape)

    def log_prob(self, images: Tensor, condition: Condition | None = None) -> Tensor:
        """The exact log-likelihood of binary images.

        Args:
            images: `(N, *image_shape)`, 0 or 1.
            condition: none is taken.

        Returns:
            Nats, `(N,)`.
        """
        return bernoulli_log_prob(images, self.conditional_logits(images))

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        """Binary draws, one pixel after the other: what is kept between two pixels is H numbers for each image."""
        shape, dtype = (num_samples, len(self.ordering)), torch.promote_types(self.dtype, torch.float32)
        uniform = torch.rand(shape, generator=generator, dtype=dtype, device=self.device)
        pixels = torch.empty_like(uniform, dtype=self.dtype)
        running = self.hidden_bias.repeat(num_samples, 1)  # (N, H)
        with torch.autocast(self.device.type, enabled=False):  # As where they are scored.
            for d in range(len(self.ordering)):
                hidden = activate_(running.clone(), self.activation)
                probability = torch.sigmoid(self.output_bias[d] + hidden @ self.output_weight[d])  # (N,)
                pixels[:, d] = uniform[:, d] < probability
                running.addr_(pixels[:, d], self.weight[d])
        return pixels[:, self.ordering.argsort()].unflatten(1, self.image_shape)

    # Training and scoring ---------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Minimise the negative log-likelihood, a mean over the batch."""
        loss = -self.log_prob(self.as_batch(batch)["image"]).mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        return decaying_optimizer(self, self.hparams["lr_decay"])


def decaying_optimizer(model: LikelihoodModule, decay: float) -> tuple[list[torch.optim.Optimizer], list[Any]]:
    """The optimizer of a model's hyper-parameters, whose step size after t batches is lr / (1 + decay t)."""
    lr, momentum = model.hparams["lr"], model.hparams["momentum"]
    if model.hparams["optimizer"] == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, nesterov=momentum > 0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + decay * t))
    return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


def permutation(ordering: int | list[int] | None, num_pixels: int) -> Tensor:
    """The order of the pixels as a tensor of their numbers, `(D,)`.

    Raises:
        DataError: if a list holds anything but each number from 0 to D - 1 once.
    """
    if ordering is None:
        return torch.arange(num_pixels)
    if isinstance(ordering, int):
        return torch.randperm(num_pixels, generator=torch.Generator().manual_seed(ordering))
    if missing := sorted(set(range(num_pixels)) - set(ordering)):
        problem = f"{missing[0]} is missing"
    elif len(ordering) != num_pixels:
        problem = f"it has {len(ordering)} entries"
    else:
        return torch.tensor(ordering)
    raise DataError(
        f"ordering is no permutation of the {num_pixels} pixels: {problem}. Give each number from 0 to "
        f"{num_pixels - 1} once, or an integer, the seed of a random order, or null, the raster."
    )
