r"""Mixture of Bernoulli distributions, by expectation maximisation.

Dempster, Laird & Rubin, "Maximum likelihood from incomplete data via the EM algorithm" (1977); for images as in Bishop,
"Pattern Recognition and Machine Learning" (2006), section 9.3.3.

A hidden component k says with which probability each pixel d is white; its posterior is a softmax, so nothing need be
approximated:

    p(x) = sum_k w_k prod_d mu_kd^x_d (1 - mu_kd)^(1 - x_d)                                        (Bishop 9.47)
    E step: r_nk = p(k | x_n)          M step: w_k = N_k / N,  mu_k = sum_n r_nk x_n / N_k         (Bishop 9.56 to 9.60)

It is the classical route that variational autoencoders left: exact, and one full pass over the data for each step. The
means have a Beta prior, without which a pixel never seen white in a component would make an image impossible. See
configs/bernoulli_mixture/README.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from lightning_gen.arguments import ImageShape, Positive, Size
from lightning_gen.errors import DataError
from lightning_gen.models.base import Condition, LikelihoodModule, as_batch


class BernoulliMixture(LikelihoodModule):
    """Mixture of Bernoulli distributions over binary pixels; one epoch is one step of expectation maximisation.

    Args:
        image_shape: `(C, H, W)`.
        num_components: K.
        smoothing: weight of the prior, in images: each component has seen that many copies of the mean training image
            before any other. The posterior's maximum is found in the place of the likelihood's.

    Attributes:
        weights: probabilities of the components, `(K,)`.
        logits: log-odds of each pixel to be white, `(K, *image_shape)`: in float32 a probability near 1 becomes 1.

    Raises:
        DataError: if `num_components` is less than 1 or `smoothing` is not positive; in `fit`, `validate` and `test`,
            if pixels are not 0 or 1, and in `fit`, if there are fewer training images than components.
    """

    likelihood = "exact"
    binary = True

    def __init__(
        self, image_shape: ImageShape = (1, 28, 28), num_components: Size = 500, smoothing: Positive = 1.0
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.image_shape = tuple(map(int, image_shape))
        self.smoothing = smoothing
        # Parameters although they get no gradient: they are what is learnt, and `ddp` refuses a module without any.
        self.weights = nn.Parameter(torch.full((num_components,), 1 / num_components))
        self.logits = nn.Parameter((0.25 + 0.5 * torch.rand(num_components, *self.image_shape)).logit())

    @property
    def needed_images(self) -> int:
        return len(self.weights)

    def initialize_from(self, batches: Iterable[Any]) -> None:
        """Start each component half way from the mean training image to an image of its own."""
        images: list[Tensor] = []
        for batch in batches:
            images.extend(as_batch(batch)["image"].to(self.dtype))
            if len(images) >= len(self.weights):
                break
        else:
            raise DataError(
                f"num_components is {len(self.weights)} and there are {len(images)} training images; each component "
                "starts from an image of its own, so give --model.init_args.num_components at most that many."
            )
        mean = (torch.stack(images).sum(0) + 1) / (len(images) + 2)  # Strictly between 0 and 1: rule of succession.
        self.logits.data.copy_((0.5 * torch.stack(images[: len(self.weights)]) + 0.5 * mean).logit())

    # The model --------------------------------------------------------------------------------------------------

    @property
    def means(self) -> Tensor:
        """Probability of each pixel to be white, `(K, *image_shape)`: the mean images of the components."""
        return self.logits.sigmoid()

    def log_joint(self, images: Tensor) -> Tensor:
        """Log p(x, k) of each image and component, `(N, *image_shape) -> (N, K)`, in nats: one matrix product."""
        logits = self.logits.flatten(1)  # (K, D)
        with torch.autocast(images.device.type, enabled=False):  # Rounded to 8 bits, hundreds of nats are off by one.
            return images.flatten(1) @ logits.T + (self.weights.log() - F.softplus(logits).sum(1))

    def log_prob(self, images: Tensor, condition: Condition | None = None) -> Tensor:
        """Log p(x) in nats, exact, `(N, *image_shape) -> (N,)`."""
        return self.log_joint(images).logsumexp(1)

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw components, `(num_samples,)`, int64."""
        return torch.multinomial(self.weights, num_samples, replacement=True, generator=generator)

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The mean images of components, `(N,) -> (N, *image_shape)` in [0, 1]."""
        return self.means[z]

    def encode(self, images: Tensor) -> Tensor:
        """The most probable component of each image, `(N, *image_shape) -> (N,)`."""
        return self.log_joint(images).argmax(1)

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        """Binary draws, to which the likelihood applies; the prototypes that textbooks show are `means`."""
        return self.decode(self.sample_latent(num_samples, generator)).bernoulli(generator=generator)

    # Training ---------------------------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        """Forget the last epoch's sums. They are no buffers: `ddp` would give every rank those of the first."""
        self._counts, self._sums = torch.zeros_like(self.weights), torch.zeros_like(self.logits)

    on_train_start = on_train_epoch_start  # A run resumed within an epoch sums over what is left of it.

    @torch.no_grad()
    def training_step(self, batch: Any, batch_idx: int) -> None:
        """The E step on a batch; after the last one the M step, so that validation sees its result."""
        images = self.as_batch(batch)["image"]
        log_joint = self.log_joint(images)
        log_prob = log_joint.logsumexp(1)
        responsibilities = (log_joint - log_prob[:, None]).exp()  # (N, K)
        with torch.autocast(images.device.type, enabled=False):
            self._counts += responsibilities.sum(0)
            self._sums += torch.tensordot(responsibilities, images, dims=([0], [0]))
        if self._trainer is not None:
            # A batch is a step, though no optimizer counts it: ModelCheckpoint saves nothing while global_step stands.
            steps = self._trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
            steps.increment_ready()
            steps.increment_completed()
        if self.is_last_batch:
            self._maximize_all()
        self.log("train/loss", -log_prob.mean(), prog_bar=True)

    def on_train_epoch_end(self) -> None:
        """The M step of a loop of one's own, of which nobody knows the last batch before."""
        if self._trainer is None:
            self._maximize_all()

    def _maximize_all(self) -> None:
        """The M step on the sums of all ranks."""
        self.maximize(self.reduce(self._counts, "sum"), self.reduce(self._sums, "sum"))

    @torch.no_grad()
    def maximize(self, counts: Tensor, sums: Tensor) -> None:
        """The M step.

        Args:
            counts: responsibilities of each component, summed over all images, `(K,)`.
            sums: images, summed with these responsibilities, `(K, *image_shape)`.
        """
        total = counts.sum()
        mean = (sums.sum(0) + 1) / (total + 2)  # Responsibilities of an image sum to one: this is the mean image.
        seen = counts.view(-1, *[1] * len(self.image_shape))
        self.weights.copy_(counts / total)
        white = sums + self.smoothing * mean
        black = (seen - sums).clamp(min=0) + self.smoothing * (1 - mean)  # Rounded, a difference may be negative.
        self.logits.copy_(white.log() - black.log())  # The log-odds of the mean white / (white + black).

    def configure_optimizers(self) -> list[Optimizer]:
        """None: each M step jumps to its maximum."""
        return []
