r"""Variational autoencoder.

Kingma & Welling, "Auto-Encoding Variational Bayes" (2013), https://arxiv.org/abs/1312.6114.

An encoder q(z|x) = N(mu(x), diag sigma^2(x)) and a decoder p(x|z), trained on the evidence lower bound

    log p(x) >= E_{q(z|x)}[log p(x|z)] - KL(q(z|x) || N(0, I))            (equation 3)

with the KL in closed form and z = mu + sigma * eps (equation 7, the paper's estimator B). Rezende, Mohamed & Wierstra,
"Stochastic Backpropagation and Approximate Inference in Deep Generative Models" (2014), https://arxiv.org/abs/1401.4082,
give q a covariance beyond the diagonal: C^-1 = D + u u^T, the option `posterior="rank_one"`. See configs/vae/README.md
for what differs from the papers and why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR

from lightning_gen.arguments import Count, ImageShape, NonNegative, Positive, Size
from lightning_gen.errors import DataError
from lightning_gen.functional.bounds import (
    bernoulli_log_prob,
    effective_sample_size,
    gaussian_kl,
    importance_weighted_bound,
    normal_log_prob,
)
from lightning_gen.functional.precision import widen
from lightning_gen.models.base import Batch, Condition, LikelihoodModule, pixel_frequencies

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


class Posterior(NamedTuple):
    """q(z|x): a diagonal Gaussian for each image."""

    mean: Tensor  # (N, J)
    log_var: Tensor  # (N, J), the log of sigma^2

    def transform(self, eps: Tensor) -> Tensor:
        """Z = mu + sigma * eps, `(L, N, J) -> (L, N, J)`."""
        return self.mean + (0.5 * self.log_var).exp() * eps

    def kl(self) -> Tensor:
        """KL(q(z|x) || N(0, I)) in nats, `(N,)`."""
        return gaussian_kl(self.mean, self.log_var)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log q(z|x) in nats, `(L, N, J) -> (L, N)`."""
        squares = (z - self.mean).square() * (-self.log_var).exp()
        return -0.5 * (squares + self.log_var + math.log(2 * math.pi)).sum(-1)


class RankOnePosterior(NamedTuple):
    """q(z|x) = N(mu, C) with C^-1 = D + u u^T for each image (Rezende et al. 2014, section 4.3): one direction u along
    which it is narrower than D says; u = 0 gives the diagonal one.

    By the matrix inversion and determinant lemmas, with s = u^T D^-1 u and eta = 1 / (1 + s),

        C = D^-1 - eta D^-1 u u^T D^-1,        log|C| = log eta - log|D|,
        C = R R^T,  R = D^(-1/2) - (1 - sqrt(eta)) / s D^-1 u u^T D^(-1/2).
    """

    mean: Tensor  # (N, J)
    log_var: Tensor  # (N, J), minus the log of D
    direction: Tensor  # (N, J), u

    def transform(self, eps: Tensor) -> Tensor:
        """Z = mu + R eps, `(L, N, J) -> (L, N, J)`."""
        scaled = (0.5 * self.log_var).exp() * eps  # D^(-1/2) eps
        projection = (self.direction * scaled).sum(-1, keepdim=True)
        factor = self.eta / (1 + self.eta.sqrt())  # (1 - sqrt(eta)) / s without the 0 / 0 at u = 0
        return self.mean + scaled - factor * self.log_var.exp() * self.direction * projection

    def kl(self) -> Tensor:
        """KL(q(z|x) || N(0, I)) = (tr C + mu^T mu - J - log|C|) / 2 in nats, `(N,)`."""
        variances = self.log_var.exp() - self.eta * (self.log_var.exp() * self.direction).square()  # diag C
        return 0.5 * ((variances + self.mean.square() - 1).sum(-1) - self.log_det())

    def log_prob(self, z: Tensor) -> Tensor:
        """Log q(z|x) in nats, `(L, N, J) -> (L, N)`."""
        centred = z - self.mean
        squares = (centred.square() * (-self.log_var).exp()).sum(-1) + (centred * self.direction).sum(-1).square()
        return -0.5 * (squares + self.log_det() + z.shape[-1] * math.log(2 * math.pi))

    @property
    def eta(self) -> Tensor:
        """1 / (1 + u^T D^-1 u), `(N, 1)`."""
        return 1 / (1 + (self.direction.square() * self.log_var.exp()).sum(-1, keepdim=True))

    def log_det(self) -> Tensor:
        """Log|C|, `(N,)`."""
        return self.eta.log().squeeze(-1) + self.log_var.sum(-1)


POSTERIORS: dict[str, type[Posterior] | type[RankOnePosterior]] = {"diagonal": Posterior, "rank_one": RankOnePosterior}


class Perceptron(nn.Sequential):
    """Hidden layers and a linear head, `(..., num_inputs) -> (..., num_outputs)` (appendices C.1 and C.2)."""

    def __init__(self, num_inputs: int, hidden_size: int, num_layers: int, activation: str, num_outputs: int) -> None:
        sizes = [num_inputs] + [hidden_size] * num_layers
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
        super().__init__(*layers, nn.Linear(sizes[-1], num_outputs))


class VAE(LikelihoodModule):
    """Variational autoencoder with fully connected networks.

    Args:
        image_shape: `(C, H, W)`.
        latent_dim: number of latent variables J.
        hidden_size: units of each hidden layer.
        num_layers: hidden layers of each of the two networks.
        activation: of the hidden layers.
        decoder: the distribution of a pixel given z: `bernoulli` on binary pixels, `gaussian` N(mu, I), or
            `gaussian_learned_variance` N(mu, diag sigma^2). The Gaussian means pass through a sigmoid (appendix C.2).
        posterior: the family of q(z|x): `diagonal`, or `rank_one` with a precision D + u u^T (Rezende et al. 2014).
        num_posterior_samples: draws of z for each image in training, the paper's L.
        num_importance_samples: draws of z for each image in `log_prob`, and so in `test`.
        optimizer: the paper's Adagrad, or Adam.
        lr: step size; the paper picked from 0.01, 0.02 and 0.1.
        lr_milestones: after each of these epochs the step size is multiplied by `lr_gamma`.
        lr_gamma: see `lr_milestones`.
        weight_decay: on the loss per image; the paper's prior N(0, I) on the weights is 1 / number of training images.
        init_std: weights are drawn from N(0, init_std^2), biases are 0; None keeps PyTorch's initialisation.
        mean_bias: start the means' output biases at the logits of the training images' mean, as Burda et al. 2015 do.

    Raises:
        DataError: in `fit`, `validate` and `test`, if a Bernoulli decoder gets pixels that are not 0 or 1.
    """

    likelihood = "bound"

    def __init__(
        self,
        image_shape: ImageShape = (1, 28, 28),
        latent_dim: Size = 20,
        hidden_size: Size = 500,
        num_layers: Count = 1,
        activation: Literal["tanh", "relu"] = "tanh",
        decoder: Literal["bernoulli", "gaussian", "gaussian_learned_variance"] = "bernoulli",
        posterior: Literal["diagonal", "rank_one"] = "diagonal",
        num_posterior_samples: Size = 1,
        num_importance_samples: Size = 200,
        optimizer: Literal["adagrad", "adam"] = "adagrad",
        lr: NonNegative = 0.02,
        lr_milestones: tuple[Size, ...] = (),
        lr_gamma: Positive = 0.1,
        weight_decay: NonNegative = 2e-5,
        init_std: NonNegative | None = 0.01,
        mean_bias: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.image_shape = tuple(map(int, image_shape))
        self.latent_dim = latent_dim
        self.discrete = self.binary = decoder == "bernoulli"
        self.num_posterior_samples = num_posterior_samples
        self.num_importance_samples = num_importance_samples
        num_pixels = math.prod(self.image_shape)
        per_pixel = 2 if decoder == "gaussian_learned_variance" else 1
        self.family = POSTERIORS[posterior]
        num_heads = len(self.family._fields)  # mu and log sigma^2, and u of a rank-one posterior
        self.encoder = Perceptron(num_pixels, hidden_size, num_layers, activation, num_heads * latent_dim)
        self.decoder = Perceptron(latent_dim, hidden_size, num_layers, activation, per_pixel * num_pixels)
        if init_std is not None:
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=init_std)
                    nn.init.zeros_(layer.bias)

    def initialize_from(self, batches: Iterable[Any]) -> None:
        """With `mean_bias`, let the decoder start from independent pixels with the data's frequencies."""
        if self.hparams["mean_bias"]:
            head: Any = self.decoder[-1]
            head.bias.data[: math.prod(self.image_shape)] = pixel_frequencies(batches).logit()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checkpoints from before `mean_bias` do not say that there is nothing to set."""
        super().on_load_checkpoint(checkpoint)
        checkpoint["state_dict"].setdefault("initialized", torch.tensor(True))

    # The model --------------------------------------------------------------------------------------------------

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw z from the prior N(0, I), `(num_samples, J)`."""
        return torch.randn(num_samples, self.latent_dim, generator=generator, device=self.device, dtype=self.dtype)

    def latent_from_normal(self, u: Tensor) -> Tensor:
        """A draw of N(0, I) is one of the prior."""
        return u

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The mean image given z, `(..., J) -> (..., *image_shape)` in [0, 1]."""
        return self._pixels(z)[0].sigmoid()

    def encode(self, images: Tensor) -> Tensor:
        """The mean of q(z|x), `(N, *image_shape) -> (N, J)`."""
        return self.posterior(images).mean

    def posterior(self, images: Tensor) -> Posterior | RankOnePosterior:
        """q(z|x) of each image, in one pass of the encoder: amortised inference."""
        return self.family(*widen(self.encoder(images.flatten(1))).chunk(len(self.family._fields), -1))

    def refine_posterior(
        self, images: Tensor, num_steps: int = 200, num_samples: int = 10, lr: float = 0.05
    ) -> Posterior | RankOnePosterior:
        """Classical variational inference: climb the bound of each image by its own parameters of q(z|x).

        They start from the encoder's, and Adam's step size falls linearly to 0, so that the noise of the draws averages
        out. What this gains is the amortisation gap; what remains to log p(x) is due to the family of q. Works in
        inference mode too, and leaves the networks and their gradients alone.

        Args:
            images: `(N, *image_shape)`.
            num_steps: of Adam.
            num_samples: draws of z for each image and step.
            lr: the first step size.

        Returns:
            q(z|x) of each image; `elbo(images, posterior=...)` gives its bound.
        """
        with torch.inference_mode(False), torch.enable_grad():
            images = images.clone()  # Inside, a clone is a tensor that gradients may be taken through.
            start = self.posterior(images)
            posterior = type(start)(*(values.detach().clone().requires_grad_() for values in start))
            optimizer = torch.optim.Adam(posterior, lr)
            schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, num_steps)
            for _ in range(num_steps):
                bound = self.elbo(images, num_samples, posterior).sum()
                for values, gradient in zip(posterior, torch.autograd.grad(-bound, tuple(posterior)), strict=True):
                    values.grad = gradient
                optimizer.step()
                schedule.step()
        return type(start)(*(values.detach() for values in posterior))

    def reparameterize(self, posterior: Posterior | RankOnePosterior, num_samples: int = 1) -> Tensor:
        """Draw z ~ q(z|x) as a function of eps ~ N(0, I), `(num_samples, N, J)`."""
        mean = posterior.mean
        return posterior.transform(torch.randn(num_samples, *mean.shape, dtype=mean.dtype, device=mean.device))

    def conditional_log_prob(self, images: Tensor, z: Tensor) -> Tensor:
        """Log p(x|z) in nats, `(N, *image_shape), (L, N, J) -> (L, N)`."""
        location, log_var = self._pixels(z)
        if self.discrete:
            return bernoulli_log_prob(images, location)
        return normal_log_prob(images, location.sigmoid(), log_var)

    def conditional_sample(self, z: Tensor) -> Tensor:
        """Draw x ~ p(x|z), `(..., J) -> (..., *image_shape)`; Gaussian pixels may leave [0, 1]."""
        location, log_var = self._pixels(z)
        if self.discrete:
            return location.sigmoid().bernoulli()
        return torch.normal(location.sigmoid(), torch.as_tensor(0.5 * log_var, device=z.device).exp())

    def _pixels(self, z: Tensor) -> tuple[Tensor, Tensor | float]:
        """Logits of the pixel means, and the log of the pixel variances."""
        outputs = self.decoder(z.to(self.dtype)).unflatten(-1, (-1, *self.image_shape))  # (..., 1 or 2, C, H, W)
        location = outputs.select(-4, 0)
        return location, outputs.select(-4, 1) if outputs.shape[-4] == 2 else 0.0

    def elbo(
        self, images: Tensor, num_samples: int = 1, posterior: Posterior | RankOnePosterior | None = None
    ) -> Tensor:
        """The evidence lower bound by estimator B: closed KL, sampled reconstruction.

        Args:
            images: `(N, *image_shape)`.
            num_samples: draws of z for each image.
            posterior: q(z|x); the encoder's if None.

        Returns:
            Nats, `(N,)`.
        """
        posterior = self.posterior(images) if posterior is None else posterior
        z = self.reparameterize(posterior, num_samples)
        return self.conditional_log_prob(images, z).mean(0) - posterior.kl()

    def log_prob(
        self, images: Tensor, condition: Condition | None = None, *, num_importance_samples: int | None = None
    ) -> Tensor:
        """The importance-weighted bound on log p(x) (Burda et al. 2015), one draw for many images at a time.

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
        """Log p(x, z) - log q(z | x) of draws of z, `(num_samples, N)` nats; the constructor's number if None."""
        k = self.num_importance_samples if num_samples is None else num_samples
        if k < 1:
            raise DataError(f"num_importance_samples is {k}; expected at least 1.")
        posterior = self.posterior(images)
        log_weights = []
        for start in range(0, k, 10):  # A chunk of draws bounds the memory at 10 decoded batches.
            z = self.reparameterize(posterior, min(10, k - start))  # (L, N, J)
            log_prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
            log_weights.append(self.conditional_log_prob(images, z) + log_prior - posterior.log_prob(z))
        return torch.cat(log_weights)

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        """Mean images, as the paper shows them."""
        return self.decode(self.sample_latent(num_samples, generator))

    # Training and scoring ---------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Minimise the negative bound, a mean over the batch."""
        batch = self.as_batch(batch)
        loss = -self.elbo(batch["image"], self.num_posterior_samples).mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[MultiStepLR]]:
        kind = {"adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam}[self.hparams["optimizer"]]
        optimizer = kind(self.parameters(), lr=self.hparams["lr"], weight_decay=self.hparams["weight_decay"])
        return [optimizer], [MultiStepLR(optimizer, self.hparams["lr_milestones"], self.hparams["lr_gamma"])]

    def _score(self, batch: Batch) -> Tensor:
        return self.elbo(batch["image"])

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score a batch of test images by the importance-weighted bound, and log how many samples make it."""
        log_weights = self.log_weights(self.as_batch(batch)["image"])
        self._log_probs[dataloader_idx].append(importance_weighted_bound(log_weights))
        effective = effective_sample_size(log_weights).mean()
        self.log("test/effective_samples", effective, batch_size=log_weights.shape[1], sync_dist=True)

    def figure_protocols(self, stage: str) -> dict[str, str]:
        effective = f"of {self.num_importance_samples} importance samples, mean over images"
        return super().figure_protocols(stage) | ({"effective_samples": effective} if stage == "test" else {})

    def likelihood_protocol(self, stage: str) -> str:
        """How `val/nll` and `test/nll` were computed, for tables."""
        if stage == "test":
            return f"importance-weighted bound, {self.num_importance_samples} samples"
        return "evidence lower bound, 1 sample"
