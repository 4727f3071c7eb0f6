r"""Ensemble of orderless neural autoregressive distribution estimators.

Uria, Murray & Larochelle, "A Deep and Tractable Density Estimator" (ICML 2014), https://arxiv.org/abs/1310.1757.

One network gives the conditionals of a binary image under every order o of its D pixels: it sees the pixels known so
far and a mask m of which these are, and predicts all others. Trained on a random order o and a random number d - 1 of
known pixels of each image, it minimises an unbiased estimate of the mean of -log p(x | o) over all orders,

    J = D / (D - d + 1) sum_{i not in o_<d} -log p(x_i | x_{o_<d}),

and the model is an ensemble: p(x) = 1/K sum_k p(x | o_k), exact as each p(x | o_k) is. See configs/eonade/README.md for
what differs from the paper and why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gen.arguments import ImageShape, NonNegative, Share, Size
from lightning_gen.errors import DataError
from lightning_gen.models.base import Batch, Condition, LikelihoodModule, pixel_frequencies
from lightning_gen.models.nade import Activation, decaying_optimizer, permutation

BLOCK = 16
"""Pixels of an ordering that are scored at a time."""


class EoNADE(LikelihoodModule):
    """Orderless NADE, trained for all orders of the pixels at once and evaluated as an ensemble over some.

    Ordering k of the ensemble is the random permutation with the seed k.

    Args:
        image_shape: `(C, H, W)`.
        hidden_size: units of each hidden layer.
        num_layers: hidden layers; the paper has one and two.
        activation: of the hidden units.
        num_orderings: K, of the ensemble that `log_prob`, and so `test`, and `sample` average over. The paper has 1, 2,
            16 and 128. Validation scores a single ordering.
        optimizer: the paper's SGD, or Adam.
        lr: step size at the start.
        lr_decay: after t batches the step size is lr / (1 + lr_decay t). None, as in the authors' code, lets it fall
            linearly to 0 at the end of the run.
        momentum: Nesterov's, of SGD, from the third epoch on; 0 before, as in the authors' code.

    Raises:
        DataError: if `num_layers` or `num_orderings` is less than 1; in `fit`, `validate` and `test`, if pixels are not
            0 or 1.
    """

    likelihood = "exact"
    binary = True

    def __init__(
        self,
        image_shape: ImageShape = (1, 28, 28),
        hidden_size: Size = 500,
        num_layers: Size = 2,
        activation: Activation = "relu",
        num_orderings: Size = 128,
        optimizer: Literal["sgd", "adam"] = "sgd",
        lr: NonNegative = 0.001,
        lr_decay: NonNegative | None = None,
        momentum: Share = 0.9,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.image_shape = tuple(map(int, image_shape))
        self.num_pixels = math.prod(self.image_shape)
        self.num_orderings = num_orderings
        self.activation = torch.sigmoid if activation == "sigmoid" else torch.relu
        # Row i of the first three belongs to pixel i.
        self.weight = nn.Parameter(torch.empty(self.num_pixels, hidden_size))  # W, of the known pixels' values
        self.mask_weight = nn.Parameter(
            torch.empty(self.num_pixels, hidden_size)
        )  # of the mask that says which they are
        self.output_weight = nn.Parameter(torch.empty(self.num_pixels, hidden_size))  # V
        self.output_bias = nn.Parameter(torch.zeros(self.num_pixels))  # b
        self.hidden_bias = nn.Parameter(torch.zeros(hidden_size))  # c
        for parameter in (self.weight, self.mask_weight, self.output_weight):
            nn.init.normal_(parameter, std=0.01)
        self.deeper = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(num_layers - 1))

    def initialize_from(self, batches: Iterable[Any]) -> None:
        """Set the output biases so that the model starts near independent pixels with the data's frequencies."""
        self.output_bias.data.copy_(pixel_frequencies(batches).logit())

    # The model --------------------------------------------------------------------------------------------------

    def hidden(self, activations: Tensor) -> Tensor:
        """The last hidden layer, from the first one's activations, `(..., H) -> (..., H)`."""
        hidden = self.activation(activations)
        for layer in self.deeper:
            hidden = self.activation(layer(hidden))
        return hidden

    def conditional_logits(self, images: Tensor, mask: Tensor) -> Tensor:
        """The log-odds of each pixel being 1 given the pixels in the mask; of no meaning for these themselves.

        Args:
            images: `(N, *image_shape)`.
            mask: `(N, *image_shape)`, 1 where a pixel is known, 0 where not.

        Returns:
            `(N, *image_shape)`.
        """
        known = mask.flatten(1)
        activations = self.hidden_bias + (images.flatten(1) * known) @ self.weight + known @ self.mask_weight  # (N, H)
        logits = self.hidden(activations) @ self.output_weight.T + self.output_bias
        return logits.unflatten(1, self.image_shape)

    def log_prob(
        self, images: Tensor, condition: Condition | None = None, *, num_orderings: int | None = None
    ) -> Tensor:
        """The exact log-likelihood under the ensemble: the log of the mean of p(x | o_k).

        Args:
            images: `(N, *image_shape)`, 0 or 1.
            condition: none is taken.
            num_orderings: K; the constructor's if None.

        Returns:
            Nats, `(N,)`.

        Raises:
            DataError: if K is less than 1.
        """
        k = self.num_orderings if num_orderings is None else num_orderings
        if k < 1:
            raise DataError(f"num_orderings is {k}; expected at least 1.")
        log_probs = [self.log_prob_in_order(images, permutation(seed, self.num_pixels)) for seed in range(k)]
        return torch.stack(log_probs).logsumexp(0) - math.log(k)

    def log_prob_in_order(self, images: Tensor, ordering: Tensor) -> Tensor:
        """Log p(x | o) of one ordering, the pixels' numbers `(D,)`; nats, `(N,)`.

        As in NADE the first layer's activations are those before with one pixel added; the layers above are computed
        anew for each pixel, but their output for that pixel alone.
        """
        total = images.new_zeros(len(images))
        ordering = ordering.to(images.device)
        with torch.autocast(self.device.type, enabled=False):  # Sums of hundreds of terms need more than 16 bits.
            pixels = images.flatten(1).to(self.weight.dtype)
            activations = self.hidden_bias.expand(len(images), 1, -1)  # (N, 1, H)
            for block in ordering.split(BLOCK):
                added = pixels[:, block, None] * self.weight[block] + self.mask_weight[block]  # (N, K, H)
                activations = torch.cat([activations[:, -1:], added], 1).cumsum(1)  # before each pixel, and after all
                weight, bias = self.output_weight[block], self.output_bias[block]
                logits = (self.hidden(activations[:, :-1]) * weight).sum(-1) + bias  # (N, K)
                total = total - F.binary_cross_entropy_with_logits(logits, pixels[:, block], reduction="none").sum(1)
        return total

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        """Binary draws from the ensemble: each image has one of the K orderings, drawn at random."""
        drawn = torch.randint(self.num_orderings, (num_samples,), generator=generator, device=self.device).tolist()
        orderings = torch.stack([permutation(seed, self.num_pixels) for seed in drawn]).to(self.device)  # (N, D)
        # Rounded to 16 bits, uniform numbers would draw rare pixels too often.
        dtype = torch.promote_types(self.dtype, torch.float32)
        uniform = torch.rand(num_samples, self.num_pixels, generator=generator, device=self.device, dtype=dtype)
        images = torch.zeros_like(uniform, dtype=self.dtype)
        activations = self.hidden_bias.expand(num_samples, -1)  # (N, H)
        for d, pixel in enumerate(orderings.T):  # (N,)
            logits = (self.hidden(activations) * self.output_weight[pixel]).sum(1) + self.output_bias[pixel]
            value = (uniform[:, d] < logits.sigmoid()).to(images.dtype)[:, None]
            images.scatter_(1, pixel[:, None], value)
            activations = activations + value * self.weight[pixel] + self.mask_weight[pixel]
        return images.unflatten(1, self.image_shape)

    # Training and scoring ---------------------------------------------------------------------------------------

    def draw_mask(self, num_images: int) -> Tensor:
        """Draw which pixels are known, the first d - 1 of a random order, with d from 1 to D; `(N, *image_shape)`."""
        known = torch.randint(self.num_pixels, (num_images, 1), device=self.device)  # d - 1
        position = torch.rand(num_images, self.num_pixels, device=self.device).argsort(1)
        return (position < known).to(self.dtype).unflatten(1, self.image_shape)

    def orderless_loss(self, images: Tensor, mask: Tensor) -> Tensor:
        """J, an unbiased estimate of the mean of -log p(x | o) over all orders o (equation 9 of the paper).

        Args:
            images: `(N, *image_shape)`, 0 or 1.
            mask: `(N, *image_shape)`, as `draw_mask` gives it: at least one pixel is not known.

        Returns:
            Nats, `(N,)`.
        """
        logits = self.conditional_logits(images, mask)
        losses = F.binary_cross_entropy_with_logits(logits, images, reduction="none") * (1 - mask)
        return self.num_pixels * losses.flatten(1).sum(1) / (1 - mask).flatten(1).sum(1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Minimise J, a mean over the batch; each image has a mask of its own."""
        images = self.as_batch(batch)["image"]
        loss = self.orderless_loss(images, self.draw_mask(len(images))).mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_train_epoch_start(self) -> None:
        """Begin without momentum: for the first two epochs."""
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            if "momentum" in group:
                group["momentum"] = self.hparams["momentum"] if self.current_epoch >= 2 else 0.0

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        optimizers, schedules = decaying_optimizer(self, self.hparams["lr_decay"] or 0.0)
        steps = self.training_steps() if self.hparams["lr_decay"] is None else None
        if steps is not None:
            share = torch.optim.lr_scheduler.LambdaLR(optimizers[0], lambda t: max(0.0, 1 - t / steps))
            schedules[0]["scheduler"] = share
        return optimizers, schedules

    def _score(self, batch: Batch) -> Tensor:
        testing = self._trainer is not None and self._trainer.testing
        return self.log_prob(batch["image"], num_orderings=None if testing else 1)

    def likelihood_protocol(self, stage: str) -> str:
        """How `val/nll` and `test/nll` were computed, for tables."""
        if stage == "test":
            return f"exact log-likelihood of an ensemble of {self.num_orderings} orderings"
        return "exact log-likelihood of one ordering"
