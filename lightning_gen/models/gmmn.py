r"""Generative moment matching network, with and without an autoencoder.

Li, Swersky & Zemel, "Generative Moment Matching Networks" (2015), https://arxiv.org/abs/1502.02761; Dziugaite, Roy &
Ghahramani, "Training generative neural networks via maximum mean discrepancy optimization" (2015),
https://arxiv.org/abs/1505.03906.

A generator G of uniform noise is trained without an adversary: its samples have to agree with as many images in all
moments that a kernel sees,

    L = sqrt(MMD^2(x, G(z)))                                              (equation 6)

With an autoencoder, x are the codes of the images and the samples are decoded (section 4). The discrepancy is one
between whole batches, so the batch of all ranks together is what counts. See configs/gmmn/README.md for what differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from lightning_gen.arguments import ImageShape, NonNegative, Positive, Share, Size
from lightning_gen.errors import CheckpointError, DataError
from lightning_gen.functional.latent import uniform_from_normal
from lightning_gen.functional.mmd import Gaussian, Kernel, RationalQuadratic, median_bandwidth, mmd2, sqrt_mmd2
from lightning_gen.models.adversarial import AdversarialModule
from lightning_gen.models.base import Condition

KERNELS: dict[str, Callable[[tuple[float, ...]], Kernel]] = {
    "gaussian": Gaussian,
    "rational_quadratic": RationalQuadratic,
}


def linear(num_inputs: int, num_outputs: int, init_std: float | None) -> nn.Linear:
    """A layer with weights from N(0, init_std^2), or from N(0, 1 / num_inputs) if None, and biases of 0."""
    layer = nn.Linear(num_inputs, num_outputs)
    nn.init.normal_(layer.weight, std=num_inputs**-0.5 if init_std is None else init_std)
    nn.init.zeros_(layer.bias)
    return layer


class Generator(nn.Sequential):
    """Rectified layers and a sigmoid for each pixel or number of the code."""

    def __init__(
        self, latent_dim: int, hidden_sizes: tuple[int, ...], num_outputs: int, init_std: float | None
    ) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise((latent_dim, *hidden_sizes)):
            layers += [linear(before, after, init_std), nn.ReLU()]
        super().__init__(*layers, linear(hidden_sizes[-1], num_outputs, init_std), nn.Sigmoid())


class Autoencoder(nn.Module):
    """Sigmoid layers to a code in (0, 1) and back, with dropout on the input of each layer of the encoder."""

    def __init__(
        self, num_pixels: int, sizes: tuple[int, ...], dropout: tuple[float, ...], init_std: float | None = 0.1
    ) -> None:
        super().__init__()
        self.dropout = dropout
        pairs = list(pairwise((num_pixels, *sizes)))
        self.encoder = nn.ModuleList(linear(before, after, init_std) for before, after in pairs)
        self.decoder = nn.ModuleList(linear(after, before, init_std) for before, after in pairs)  # In the same order.

    def encode_layer(self, index: int, x: Tensor) -> Tensor:
        """One layer of the encoder; what is not dropped keeps its size, and in evaluation all is scaled down."""
        p = self.dropout[index]
        return self.encoder[index]((1 - p) * F.dropout(x, p, self.training)).sigmoid()

    def encode(self, x: Tensor, num_layers: int | None = None) -> Tensor:
        """`(N, D)` to the code, `(N, K)`, or to the output of the first layers."""
        for index in range(len(self.encoder) if num_layers is None else num_layers):
            x = self.encode_layer(index, x)
        return x

    def decode(self, code: Tensor) -> Tensor:
        """`(N, K) -> (N, D)` in (0, 1)."""
        return self.decode_logits(code).sigmoid()

    def decode_logits(self, code: Tensor) -> Tensor:
        """The same before its last sigmoid."""
        for layer in reversed(self.decoder[1:]):
            code = layer(code).sigmoid()
        return self.decoder[0](code)

    def layer_loss(self, index: int, x: Tensor) -> Tensor:
        """How badly one pair of layers makes what enters it of itself, in nats (greedy layer-wise pre-training)."""
        logits = self.decoder[index](self.encode_layer(index, x))
        return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)

    def loss(self, x: Tensor) -> Tensor:
        """Binary cross-entropy of the whole, in nats."""
        logits = self.decode_logits(self.encode(x))
        return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)


class GMMN(AdversarialModule):
    """Generative moment matching network; with `code_sizes`, GMMN+AE.

    One `fit` goes through all phases, which are logged as `train/phase`: the autoencoder's layers one by one (0, 1,
    ...), the autoencoder as a whole, and the matching. There are samples only in the last.

    Args:
        image_shape: `(C, H, W)`.
        latent_dim: length of the noise z, uniform in [-1, 1].
        hidden_sizes: units of the generator's rectified layers.
        kernel: `gaussian`, or `rational_quadratic` (Dziugaite et al.).
        bandwidths: of the Gaussians, whose sum is the kernel: variances, which the paper calls sigma; or the exponents
            of the rational quadratics. None takes the median squared distance in the first batch that is matched.
        biased: the paper's loss, the root of the biased estimate; else the unbiased estimate itself, the loss of
            Dziugaite et al., which can be negative.
        code_sizes: units of the layers of the autoencoder's encoder, the last of which is the code; none for GMMN.
        code_dropout: share of the input of each of these layers that is dropped in the autoencoder's training.
        pretraining_steps: updates of each layer of the autoencoder by itself.
        finetuning_steps: updates of the whole autoencoder.
        code_batch_size: images of an update of the autoencoder; the loader's batch is split.
        code_lr: step size of the autoencoder.
        lr: step size of the generator.
        momentum: of the generator.
        lr_drop_step: from this update of the generator on, a tenth of lr and of 1 - momentum.
        init_std: standard deviation of all first weights; 0.1 in the released code. None takes that of each layer as
            1 / sqrt(number of inputs), what the authors' library had after the release.
        chunk_size: noise vectors that the generator's activations are kept for at a time; the others are computed anew
            in the backward pass. The gradient is the same.
        gradient_clip_val: see `AdversarialModule`; the cap of the paper's autoencoder, far above the gradients of the
            generator.
        accumulate_grad_batches: see `AdversarialModule`. It does not join batches: use `chunk_size` for large ones.

    Raises:
        DataError: if a size, a bandwidth or the batch does not serve.
    """

    progress: Tensor
    median: Tensor

    def __init__(
        self,
        image_shape: ImageShape = (1, 28, 28),
        latent_dim: Size = 10,
        hidden_sizes: tuple[Size, ...] = (64, 256, 256, 1024),
        kernel: Literal["gaussian", "rational_quadratic"] = "gaussian",
        bandwidths: tuple[Positive, ...] | None = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0),
        biased: bool = True,
        code_sizes: tuple[Size, ...] = (),
        code_dropout: tuple[Share, ...] = (0.2, 0.5),
        pretraining_steps: Size = 3000,
        finetuning_steps: Size = 3000,
        code_batch_size: Size = 100,
        code_lr: NonNegative = 0.1,
        lr: NonNegative = 2.0,
        momentum: Share = 0.9,
        lr_drop_step: Size = 10000,
        init_std: Positive | None = 0.1,
        chunk_size: Size | None = None,
        gradient_clip_val: NonNegative | None = 10.0,
        accumulate_grad_batches: Size = 1,
    ) -> None:
        super().__init__(gradient_clip_val, accumulate_grad_batches)
        self.save_hyperparameters()
        if code_sizes and len(code_dropout) != len(code_sizes):
            raise DataError(f"code_dropout has {len(code_dropout)} numbers for the {len(code_sizes)} of code_sizes.")
        self.image_shape = tuple(map(int, image_shape))
        self.latent_dim = latent_dim
        self.biased = biased
        self.code_batch_size = code_batch_size
        self.chunk_size = chunk_size
        num_pixels = math.prod(self.image_shape)
        self.autoencoder = None
        if code_sizes:
            self.autoencoder = Autoencoder(num_pixels, tuple(code_sizes), tuple(code_dropout), init_std)
        num_outputs = code_sizes[-1] if code_sizes else num_pixels
        self.generator = Generator(latent_dim, tuple(hidden_sizes), num_outputs, init_std)
        self.kernel: Callable[[tuple[float, ...]], Kernel] = KERNELS[kernel]
        if bandwidths is not None:
            self.kernel(tuple(bandwidths))  # Checked.
        self.register_buffer("median", torch.tensor(0.0, dtype=torch.float64))
        # Updates of the autoencoder and of the generator so far; `steps` is the same, read without a wait.
        self.register_buffer("progress", torch.zeros(2, dtype=torch.int64))
        self.steps = [0, 0]
        self.register_load_state_dict_post_hook(_read_progress)  # type: ignore[no-untyped-call]

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw noise, uniform in [-1, 1], `(num_samples, latent_dim)`."""
        return (
            2 * torch.rand(num_samples, self.latent_dim, generator=generator, device=self.device, dtype=self.dtype) - 1
        )

    def latent_from_normal(self, u: Tensor) -> Tensor:
        """Noise as `sample_latent` draws it, as a function of draws u of N(0, I); both `(..., latent_dim)`."""
        return uniform_from_normal(u, -1, 1)

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The images made of noise, `(N, latent_dim) -> (N, *image_shape)` in [0, 1]."""
        pixels = self.generator(z)
        if self.autoencoder is not None:
            pixels = self.autoencoder.decode(pixels)
        return pixels.unflatten(1, self.image_shape)

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        if not self.can_sample:
            raise CheckpointError(
                f"This GMMN is in phase {self.phase} of {len(self.hparams['code_sizes']) + 1}: its generator is not "
                "trained yet. Go on with fit --ckpt_path."
            )
        return self.decode(self.sample_latent(num_samples, generator))

    # The phases -------------------------------------------------------------------------------------------------

    @property
    def phase(self) -> int:
        """0, 1, ... for each layer of the autoencoder, one more for all its layers, and one more for the matching."""
        layers = len(self.hparams["code_sizes"])
        if self.steps[0] >= self.autoencoder_steps:
            return layers + 1
        return min(self.steps[0] // self.hparams["pretraining_steps"], layers)

    @property
    def autoencoder_steps(self) -> int:
        """Updates of the autoencoder in all."""
        layers = len(self.hparams["code_sizes"])
        return layers * self.hparams["pretraining_steps"] + self.hparams["finetuning_steps"] if layers else 0

    @property
    def can_sample(self) -> bool:
        """Whether the generator has been trained at all: evaluation waits for it."""
        return self.steps[1] > 0

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Updates of the phase at hand."""
        images = self.as_batch(batch)["image"].flatten(1)
        self.log("train/phase", float(self.phase), prog_bar=True)
        if self.steps[0] < self.autoencoder_steps:
            for part in images.split(self.code_batch_size):
                if self.steps[0] < self.autoencoder_steps:
                    self._train_autoencoder(part)
        else:
            self._match(images)

    def _train_autoencoder(self, images: Tensor) -> None:
        """Section 4.1: one layer at a time on the codes of the layers below, then all of them."""
        assert self.autoencoder is not None
        phase, layers = self.phase, len(self.hparams["code_sizes"])
        optimizer = self.own_optimizers()[phase]
        if phase < layers:
            with self.evaluating(), torch.no_grad():
                codes = self.autoencoder.encode(images, phase)
            loss = self.autoencoder.layer_loss(phase, codes)
        else:
            loss = self.autoencoder.loss(images)
            step = self.steps[0] - layers * self.hparams["pretraining_steps"]
            for group in optimizer.param_groups:
                if "momentum" in group:
                    group["momentum"] = 0.0 if step < 50 else 0.5 if step < 200 else 0.9
        self.step((optimizer, loss))
        self._count(0)
        self.log("train/autoencoder_loss", loss, prog_bar=True)

    def _match(self, images: Tensor) -> None:
        """Algorithms 1 and 2: samples against as many images, or against their codes."""
        optimizer = self.own_optimizers()[-1]
        momentum, dropped = self.hparams["momentum"], self.steps[1] >= self.hparams["lr_drop_step"]
        for group in optimizer.param_groups:
            group["lr"] = self.first_lr(group) / 10 if dropped else self.first_lr(group)
            if "momentum" in group:
                group["momentum"] = 1 - (1 - momentum) / 10 if dropped else momentum

        data = images
        if self.autoencoder is not None:
            with self.evaluating(), torch.no_grad():
                data = self.autoencoder.encode(images)
        chunks = self.sample_latent(len(images)).split(self.chunk_size or len(images))
        if self.chunk_size is None:
            samples = self.generator(chunks[0])
        else:
            samples = torch.cat([checkpoint(self.generator, z, use_reentrant=False) for z in chunks])
        data, samples = self._of_all_ranks(data), self._of_all_ranks(samples)

        bandwidths = self.hparams["bandwidths"]
        if bandwidths is None:
            if self.steps[1] == 0:
                self.median.fill_(median_bandwidth(data, data))
            bandwidths = (self.median.item(),)
        kernel = self.kernel(tuple(bandwidths))
        loss = sqrt_mmd2(data, samples, kernel) if self.biased else mmd2(data, samples, kernel, biased=False)
        # Each rank has the gradient by its own samples: the ranks' mean, which `step` takes, is to be their sum.
        self.step((optimizer, loss * self.world_size))
        self._count(1)
        self.log("train/loss", loss.float(), prog_bar=True)

    def _of_all_ranks(self, rows: Tensor) -> Tensor:
        """The rows of all ranks, `(N, D) -> (ranks * N, D)`; with a gradient where they are this rank's own."""
        if self.world_size == 1:
            return rows
        gathered = list(self.all_gather(rows.detach()))
        gathered[self.global_rank] = rows
        return torch.cat(gathered)

    def _count(self, which: int) -> None:
        self.steps[which] += 1
        self.progress[which] += 1

    def configure_optimizers(self) -> list[Optimizer]:
        """One for each phase, so that each begins without velocity."""
        optimizers: list[Optimizer] = []
        if self.autoencoder is not None:
            lr = self.hparams["code_lr"]
            for layers in zip(self.autoencoder.encoder, self.autoencoder.decoder, strict=True):
                parameters = [parameter for layer in layers for parameter in layer.parameters()]
                optimizers.append(torch.optim.SGD(parameters, lr=lr, momentum=0.5))
            optimizers.append(torch.optim.SGD(self.autoencoder.parameters(), lr=lr))
        lr, momentum = self.hparams["lr"], self.hparams["momentum"]
        optimizers.append(torch.optim.SGD(self.generator.parameters(), lr=lr, momentum=momentum))
        return optimizers


def _read_progress(module: GMMN, incompatible: Any) -> None:
    module.steps = module.progress.tolist()
