r"""The autoencoder that VGAN is compared with: its networks without the game.

Vondrick, Pirsiavash and Torralba, "Generating Videos with Scene Dynamics" (2016), section 4.1,
https://arxiv.org/abs/1609.02612.

The discriminator's layers, with a code for their output, encode a video; the generator decodes it:

    L = |x - G(E(x))|^2

A mixture of Gaussians is fitted to the codes of the training videos, and videos are G of what is drawn from it. See
configs/vgan/README.md for what differs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_gen.arguments import Decay, NonNegative, Size, VideoShape
from lightning_gen.functional.gaussian_mixture import DiagonalMixture, fit_mixture
from lightning_gen.models.base import FirstLook
from lightning_gen.models.vgan import VGAN, Discriminator


class VGANAutoencoder(VGAN):
    """Autoencoder of videos whose decoder is VGAN's generator, sampled by a mixture of Gaussians on its codes.

    The mixture is fitted at the end of each epoch, to the codes of all training videos; before, it is N(0, I).

    Args:
        video_shape: see `VGAN`.
        streams: see `VGAN`.
        latent_dim: length of the code.
        base_channels: of the decoder's last hidden layer.
        encoder_channels: of the encoder's first layer; as `base_channels` if None.
        num_components: of the mixture; there must be as many training videos.
        init_std: standard deviation of the first weights.
        lr: Adam's step size.
        betas: Adam's decay rates.
        gradient_clip_val: see `AdversarialModule`.
        accumulate_grad_batches: see `AdversarialModule`.

    Raises:
        DataError: if there is no network for such videos, and in `fit`, if there are fewer videos than components.
    """

    smallest_batch = 1
    weights: Tensor
    means: Tensor
    variances: Tensor

    def __init__(
        self,
        video_shape: VideoShape = (3, 32, 64, 64),
        streams: Literal["two", "one"] = "two",
        latent_dim: Size = 100,
        base_channels: Size = 64,
        encoder_channels: Size | None = None,
        num_components: Size = 256,
        init_std: NonNegative = 0.01,
        lr: NonNegative = 2e-4,
        betas: tuple[Decay, Decay] = (0.5, 0.999),
        gradient_clip_val: NonNegative | None = None,
        accumulate_grad_batches: Size = 1,
    ) -> None:
        super().__init__(
            video_shape,
            streams,
            latent_dim=latent_dim,
            base_channels=base_channels,
            init_std=init_std,
            lr=lr,
            betas=betas,
            gradient_clip_val=gradient_clip_val,
            accumulate_grad_batches=accumulate_grad_batches,
        )
        # Under its old name: `finetune` reads what it has learned as it reads a discriminator.
        self.discriminator = Discriminator(self.video_shape, encoder_channels or base_channels, init_std, latent_dim)
        self.register_buffer("weights", torch.full((num_components,), 1 / num_components))
        self.register_buffer("means", torch.zeros(num_components, latent_dim))
        self.register_buffer("variances", torch.ones(num_components, latent_dim))

    def encode(self, videos: Tensor) -> Tensor:
        """The codes of videos in [0, 1], `(N, C, T, H, W) -> (N, latent_dim)`."""
        return self.discriminator(2 * videos - 1)

    @property
    def mixture(self) -> DiagonalMixture:
        """What codes are drawn from."""
        return DiagonalMixture(self.weights, self.means, self.variances)

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw codes from the mixture, `(num_samples, latent_dim)`."""
        return self.mixture.sample(num_samples, generator)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Descend the squared error; after the last batch fit the mixture, so that validation samples from it."""
        videos = self.as_batch(batch)["video"]
        loss = (self.decode(self.encode(videos)) - videos).square().mean()
        self.step((self.optimizers(), loss))
        self.log("train/loss", loss, prog_bar=True)
        if self.is_last_batch:
            self.fit_codes()

    def fit_codes(self, batches: Iterable[Any] | None = None) -> None:
        """Fit the mixture to the codes of training videos, on the first rank, and give it to the others.

        A Trainer's epoch ends with it; a loop of one's own calls it.

        Args:
            batches: of all ranks, as the first rank is the only one to look at them; the Trainer's own if None.
        """

        def fit(look: FirstLook) -> DiagonalMixture:
            codes = torch.cat([self.encode(batch["video"].to(self.device)) for batch in look])
            return fit_mixture(codes, len(self.weights), generator=torch.Generator().manual_seed(0))

        devices = [self.device] if self.device.type == "cuda" else []
        with self.evaluating(), torch.no_grad(), torch.random.fork_rng(devices):  # Training's own stream stays.
            torch.manual_seed(0)
            fitted = self.look_at_data(fit, batches, needed=len(self.weights))
        for buffer, values in zip(self.mixture, fitted, strict=True):
            buffer.copy_(values)

    def configure_optimizers(self) -> list[Optimizer]:
        """One for both networks."""
        return [torch.optim.Adam(self.parameters(), lr=self.hparams["lr"], betas=self.hparams["betas"])]

    # Figures ----------------------------------------------------------------------------------------------------

    def figure_protocols(self, stage: str) -> dict[str, str]:
        return super().figure_protocols(stage) | {"squared_error": "of a held-out video and its decoded code, a pixel"}

    def _score(self, videos: Tensor, batch_idx: int, stage: str) -> None:
        super()._score(videos, batch_idx, stage)
        error = (self.decode(self.encode(videos)) - videos).square().mean()
        self.log(f"{stage}/squared_error", error, batch_size=len(videos), sync_dist=True)
