r"""Improved techniques for training generative adversarial networks.

Salimans, Goodfellow, Zaremba, Cheung, Radford, Chen (2016), https://arxiv.org/abs/1606.03498.

Semi-supervised learning (section 5): the discriminator is a classifier of K classes whose logits l also say how real an
image is, with the logit of the class "generated" fixed at 0,

    D(x) = Z(x) / (Z(x) + 1),   Z(x) = sum_k exp l_k(x)
    L_D  = -E log p(y | x, y <= K)  -  1/2 (E log D(x) + E log(1 - D(G(z))))

and the generator matches the features f of the discriminator's last hidden layer (section 3.1)

    L_G  = || E f(x) - E f(G(z)) ||^2.

Minibatch discrimination (3.2), historical averaging (3.3), one-sided label smoothing (3.4) and virtual batch
normalisation (3.5) are options. Networks and schedules are those of the authors' experiments on MNIST and CIFAR-10. See
configs/improved_gan/README.md for what differs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector
from torch.optim import Optimizer

from lightning_gen.arguments import Count, Decay, ImageShape, NonNegative, Share, Size
from lightning_gen.errors import DataError
from lightning_gen.functional.adversarial import discriminator_loss, non_saturating_loss, saturating_loss
from lightning_gen.functional.precision import widen
from lightning_gen.models.adversarial import LinearDecay
from lightning_gen.models.base import Batch, Condition, FirstLook, check_labels
from lightning_gen.nn.minibatch_discrimination import MinibatchDiscrimination
from lightning_gen.nn.virtual_batch_norm import VirtualBatchNorm
from lightning_gen.nn.weight_norm import WeightNorm, initialize_from_data

INITIAL_IMAGES = 500
"""How many images the data-dependent initialisation looks at."""


class GaussianNoise(nn.Module):
    """Add noise to every number in training."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        return x + self.std * torch.randn_like(x) if self.training and self.std else x


class Rescale(nn.Module):
    """Between our range of pixels, [0, 1], and that of the authors' colour images, [-1, 1]."""

    def __init__(self, scale: float, shift: float) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.shift


Layer = TypeVar("Layer", nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def normal(layer: Layer, std: float) -> Layer:
    """The layer with weights drawn from N(0, std^2)."""
    nn.init.normal_(layer.weight, std=std)
    return layer


def normalization(num_features: int, spatial: bool, num_reference: int) -> nn.Module:
    """Batch normalisation without a gain, or virtual batch normalisation where there is a reference batch."""
    if num_reference:
        return VirtualBatchNorm(num_features, num_reference)
    norm = (nn.BatchNorm2d if spatial else nn.BatchNorm1d)(num_features, eps=1e-6)
    norm.weight.requires_grad_(False)
    return norm


class MNISTGenerator(nn.Sequential):
    """Two softplus layers with batch normalisation and a sigmoid for each pixel."""

    def __init__(self, latent_dim: int, image_shape: tuple[int, ...], num_reference: int) -> None:
        first, second = nn.Linear(latent_dim, 500, bias=False), nn.Linear(500, 500, bias=False)
        output = nn.Linear(500, math.prod(image_shape), bias=False)
        for layer in (first, second, output):
            nn.init.xavier_uniform_(layer.weight)
        super().__init__(
            first,
            normalization(500, False, num_reference),
            nn.Softplus(),
            second,
            normalization(500, False, num_reference),
            nn.Softplus(),
            WeightNorm(output, train_scale=True, init_std=None),
            nn.Sigmoid(),
            nn.Unflatten(1, image_shape),
        )  # (N, Z) -> (N, C, H, W)


class CIFAR10Generator(nn.Sequential):
    """A dense layer and three transposed convolutions with batch normalisation, 4 x 4 to 32 x 32."""

    def __init__(self, latent_dim: int, image_shape: tuple[int, ...], num_reference: int) -> None:
        def doubled(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
            return normal(nn.ConvTranspose2d(in_channels, out_channels, 5, 2, 2, output_padding=1, bias=False), 0.05)

        super().__init__(
            normal(nn.Linear(latent_dim, 512 * 4 * 4, bias=False), 0.05),
            normalization(512 * 4 * 4, False, num_reference),
            nn.ReLU(),
            nn.Unflatten(1, (512, 4, 4)),
            doubled(512, 256),  # (N, 256, 8, 8)
            normalization(256, True, num_reference),
            nn.ReLU(),
            doubled(256, 128),  # (N, 128, 16, 16)
            normalization(128, True, num_reference),
            nn.ReLU(),
            WeightNorm(doubled(128, image_shape[0]), train_scale=True, init_std=0.1),
            nn.Tanh(),
            Rescale(0.5, 0.5),
        )


class MNISTFeatures(nn.Sequential):
    """Five rectified layers with Gaussian noise before each."""

    num_features = 250

    def __init__(self, image_shape: tuple[int, ...], input_noise: float, hidden_noise: float) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        std = input_noise
        for inputs, units in ((math.prod(image_shape), 1000), (1000, 500), (500, 250), (250, 250), (250, 250)):
            layers += [GaussianNoise(std), WeightNorm(normal(nn.Linear(inputs, units, bias=False), 0.1)), nn.ReLU()]
            std = hidden_noise
        super().__init__(*layers)  # (N, C, H, W) -> (N, 250)


class CIFAR10Features(nn.Sequential):
    """Nine convolutions with leaky rectifiers, and dropout on the input and after each stage, averaged over space."""

    num_features = 192

    def __init__(self, image_shape: tuple[int, ...], input_noise: float, hidden_noise: float) -> None:
        def conv(inputs: int, units: int, size: int = 3, stride: int = 1, padding: int = 1) -> list[nn.Module]:
            layer = normal(nn.Conv2d(inputs, units, size, stride, padding, bias=False), 0.05)
            return [WeightNorm(layer), nn.LeakyReLU(0.2)]

        super().__init__(
            Rescale(2, -1),
            nn.Dropout(input_noise),
            *conv(image_shape[0], 96),
            *conv(96, 96),
            *conv(96, 96, stride=2),  # (N, 96, 16, 16)
            nn.Dropout(hidden_noise),
            *conv(96, 192),
            *conv(192, 192),
            *conv(192, 192, stride=2),  # (N, 192, 8, 8)
            nn.Dropout(hidden_noise),
            *conv(192, 192, padding=0),  # (N, 192, 6, 6)
            *conv(192, 192, size=1, padding=0),
            *conv(192, 192, size=1, padding=0),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),  # (N, 192)
        )


class Discriminator(nn.Module):
    """Features f(x), then how near the other images of the batch are, if asked for, then the logits of the classes."""

    def __init__(self, features: MNISTFeatures | CIFAR10Features, minibatch: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.minibatch = minibatch
        self.head = head

    def forward(self, images: Tensor, num_sets: int = 1) -> Tensor:
        """Logits, `(N, C, H, W) -> (N, K)`.

        Args:
            images: several batches of equal size one after the other; only images of one batch are compared.
            num_sets: how many batches.
        """
        features = self.features(images)
        return self.head(torch.cat([self.minibatch(f) for f in features.chunk(num_sets)]))


class History(nn.Module):
    """Historical averaging (section 3.3): the squared distance of a network's parameters from their mean so far."""

    mean: Tensor
    steps: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, parameters: Iterable[Tensor]) -> Tensor:
        """Take the parameters into the mean, and return ||theta - (1/t) sum_{i <= t} theta[i]||^2."""
        theta = parameters_to_vector(parameters)
        self.steps += 1
        self.mean += (theta.detach() - self.mean) / self.steps
        return (theta - self.mean).square().sum()


class ImprovedGAN(LinearDecay):
    """The semi-supervised adversarial nets of 2016, and each of the paper's techniques.

    A training image whose label is -1 has none. Of the others `num_labels` are drawn before the first fit, equally many
    of each class; no other label is learned from. They are kept with the model, so that a resumed run and every rank
    learn from the same ones.

    Args:
        image_shape: `(C, H, W)`.
        num_classes: K.
        semi_supervised: learn to classify; without it, D has one logit and no label is needed.
        num_labels: how many labelled images to learn from; a multiple of `num_classes`.
        label_seed: of the draw of these images.
        network: the authors' for `mnist` (fully connected, any shape) or `cifar10` (convolutional, 32 x 32).
        latent_dim: length of the noise z, uniform in [0, 1].
        generator_loss: `feature_matching`, `saturating` log(1 - D(G(z))), or `non_saturating` -log D(G(z)).
        generator_steps: updates of the generator for each one of the discriminator.
        unlabelled_weight: of the loss on unlabelled and generated images, against that on labelled ones.
        minibatch_kernels: kernels B of minibatch discrimination, 0 for none (the authors' CIFAR-10 nets have 100).
        minibatch_kernel_dim: their dimension C.
        historical_averaging: weight of the historical averaging in the loss of each network.
        label_smoothing: the discriminator's target for real images is 1 minus this.
        reference_batch: examples in the reference batch of virtual batch normalisation, in the generator; 0 for batch
            normalisation.
        input_noise: on the images that D sees: standard deviation of Gaussian noise (`mnist`), or the share of pixels
            dropped (`cifar10`, where the authors' is 0.2).
        hidden_noise: the same after each hidden layer (`mnist`) or stage (`cifar10`).
        lr: step size of Adam.
        betas: decay rates of Adam.
        lr_decay_epochs: the step size falls linearly from the first of these epochs on, to 0 at the second.
        gradient_clip_val: see `AdversarialModule`.
        accumulate_grad_batches: see `AdversarialModule`.

    Raises:
        DataError: if `num_labels` is no multiple of `num_classes`, or the images are not 32 x 32 with `cifar10`.
    """

    smallest_batch = 2
    labelled_images: Tensor
    labels: Tensor
    reference_z: Tensor

    def __init__(
        self,
        image_shape: ImageShape = (1, 28, 28),
        num_classes: Size = 10,
        semi_supervised: bool = True,
        num_labels: Size = 100,
        label_seed: int = 0,
        network: Literal["mnist", "cifar10"] = "mnist",
        latent_dim: Size = 100,
        generator_loss: Literal["feature_matching", "saturating", "non_saturating"] = "feature_matching",
        generator_steps: Size = 1,
        unlabelled_weight: NonNegative = 1.0,
        minibatch_kernels: Count = 0,
        minibatch_kernel_dim: Size = 5,
        historical_averaging: NonNegative = 0.0,
        label_smoothing: Share = 0.0,
        reference_batch: Count = 0,
        input_noise: NonNegative = 0.3,
        hidden_noise: NonNegative = 0.5,
        lr: NonNegative = 0.003,
        betas: tuple[Decay, Decay] = (0.5, 0.999),
        lr_decay_epochs: tuple[Count, Count] | None = None,
        gradient_clip_val: NonNegative | None = None,
        accumulate_grad_batches: Size = 1,
    ) -> None:
        super().__init__(gradient_clip_val, accumulate_grad_batches)
        self.save_hyperparameters()
        self.image_shape = image_shape = tuple(map(int, image_shape))
        self.num_classes = num_classes
        self.semi_supervised = semi_supervised
        self.latent_dim = latent_dim
        self.real_target = 1 - label_smoothing
        mnist = network == "mnist"
        if not mnist and self.image_shape[1:] != (32, 32):
            raise DataError(
                f"The images are {self.image_shape[1]} x {self.image_shape[2]}, and network=cifar10 is made for "
                "32 x 32; take network=mnist, which is for any size."
            )

        make_generator = MNISTGenerator if mnist else CIFAR10Generator
        self.generator = make_generator(latent_dim, self.image_shape, reference_batch)
        self.register_buffer("reference_z", torch.rand(reference_batch, latent_dim))

        features = (MNISTFeatures if mnist else CIFAR10Features)(self.image_shape, input_noise, hidden_noise)
        minibatch: nn.Module = nn.Identity()
        if minibatch_kernels:
            minibatch = MinibatchDiscrimination(features.num_features, minibatch_kernels, minibatch_kernel_dim)
        outputs = num_classes if semi_supervised else 1
        logits = nn.Linear(features.num_features + minibatch_kernels, outputs, bias=False)
        head = nn.Sequential(
            GaussianNoise(hidden_noise if mnist else 0.0),
            WeightNorm(normal(logits, 0.1 if mnist else 0.05), train_scale=True, init_std=1.0 if mnist else 0.1),
        )
        self.discriminator = Discriminator(features, minibatch, head)

        players = (self.discriminator, self.generator)
        self.learned = [[name for name, p in net.named_parameters() if p.requires_grad] for net in players]
        self.histories = nn.ModuleList()
        if historical_averaging:
            sizes = [sum(p.numel() for p in parameters) for parameters in self.players()]
            self.histories.extend(History(size) for size in sizes)

        if semi_supervised:
            if num_labels % num_classes:
                raise DataError(
                    f"num_labels is {num_labels}; expected a multiple of the {num_classes} classes, such as "
                    f"{10 * num_classes}, as each class gets equally many."
                )
            self.register_buffer("labelled_images", torch.zeros(num_labels, *self.image_shape))
            self.register_buffer("labels", torch.zeros(num_labels, dtype=torch.long))

    def players(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The parameters that the discriminator and the generator learn, were none of them frozen since."""
        d, g = self.learned
        return [self.discriminator.get_parameter(name) for name in d], [
            self.generator.get_parameter(name) for name in g
        ]

    # Before training ------------------------------------------------------------------------------------------------

    @property
    def needed_images(self) -> int:
        """Of labelled ones all that may be looked at, until there are enough of each class."""
        return self.init_images if self.semi_supervised else INITIAL_IMAGES

    def initialize_from(self, batches: Iterable[Any]) -> None:
        """Draw the labelled images; set the scale and bias of each weight-normalised layer on 500 images."""
        if self.semi_supervised:
            images, labels = self.draw_labelled(batches)
            self.labelled_images.copy_(images)
            self.labels.copy_(labels)
        images = torch.empty(0, *self.image_shape)
        for batch in batches:
            images = torch.cat([images, self.as_batch(batch)["image"].cpu()])
            if len(images) >= INITIAL_IMAGES:
                break
        initialize_from_data(self.discriminator, images[:INITIAL_IMAGES].to(self.device, self.dtype))
        initialize_from_data(self.generator, torch.cat([self.reference_z, self.sample_latent(INITIAL_IMAGES)]))

    def draw_labelled(self, batches: Iterable[Any]) -> tuple[Tensor, Tensor]:
        """Draw equally many labelled images of each class, in one pass that holds no more than these in memory.

        Every image gets a random number, and those with the lowest numbers of each class stay.
        """
        num_labels, generator = len(self.labels), torch.Generator().manual_seed(self.hparams["label_seed"])
        each = num_labels // self.num_classes
        images, labels = torch.empty(0, *self.image_shape), torch.empty(0, dtype=torch.long)
        numbers = torch.empty(0)
        for batch in batches:
            batch = self.as_batch(batch)
            known = (given := self.labels_of(batch).cpu()) >= 0
            images, labels = torch.cat([images, batch["image"].cpu()[known]]), torch.cat([labels, given[known]])
            numbers = torch.cat([numbers, torch.rand(len(known), generator=generator)[known]])
            order = numbers.argsort()
            place = F.one_hot(labels[order], self.num_classes).cumsum(0).gather(1, labels[order][:, None])[:, 0]
            kept = order[place <= each]
            images, labels, numbers = images[kept], labels[kept], numbers[kept]
            if isinstance(batches, FirstLook) and len(labels) == num_labels:
                batches.needed = INITIAL_IMAGES
        counts = labels.bincount(minlength=self.num_classes)
        if len(labels) < num_labels:
            fewest = int(counts.argmin())
            raise DataError(
                f"Class {fewest} has {counts[fewest]} labelled training images, and num_labels={num_labels} asks for "
                f"{each} of each of the {self.num_classes} classes; ask for fewer, or set semi_supervised=false."
            )
        return images, labels

    def labels_of(self, batch: Batch) -> Tensor:
        """The labels of a batch, `(N,)`.

        Raises:
            DataError: if there are none, or one is out of range.
        """
        if "label" not in batch:
            raise DataError(
                f"The batch holds {sorted(batch)}; ImprovedGAN needs 'label' too (-1 for an image without), or "
                "semi_supervised=false."
            )
        check_labels(batch["label"], self.num_classes, type(self).__name__, least=-1)
        return batch["label"]

    # Sampling -------------------------------------------------------------------------------------------------------

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw noise, uniform in [0, 1], `(num_samples, latent_dim)`."""
        return torch.rand(num_samples, self.latent_dim, generator=generator, device=self.device, dtype=self.dtype)

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The images that the generator makes of noise, `(N, latent_dim) -> (N, *image_shape)` in [0, 1]."""
        return self.generator(torch.cat([self.reference_z, z]))[len(self.reference_z) :]

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        return self.decode(self.sample_latent(num_samples, generator))

    # Training -------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One update of the discriminator, then those of the generator, each on new noise."""
        optimizer_d, optimizer_g = self.optimizers()  # type: ignore[attr-defined]
        images = self.as_batch(batch)["image"]
        loss_d = self.loss_d(images)
        self.step((optimizer_d, loss_d))
        for _ in range(self.hparams["generator_steps"]):
            loss_g = self.loss_g(images)
            self.step((optimizer_g, loss_g))
        self.log_dict({"train/loss_d": loss_d, "train/loss_g": loss_g}, prog_bar=True)

    def loss_d(self, images: Tensor) -> Tensor:
        """L_D on a batch of images, as many labelled and as many generated ones."""
        with torch.no_grad():
            sets = [images, self.decode(self.sample_latent(len(images)))]
        if self.semi_supervised:
            labelled, labels = self.labelled_batch(len(images))
            sets.append(labelled)
        logits = self.discriminator(torch.cat(sets), len(sets)).chunk(len(sets))  # of (N, K)
        real, fake = widen(logits[0]).logsumexp(1), widen(logits[1]).logsumexp(1)  # log Z, the logit of D
        loss = self.hparams["unlabelled_weight"] * discriminator_loss(real, fake, self.real_target)
        if self.semi_supervised:
            loss = loss + F.cross_entropy(logits[2], labels)
        return loss + self.historical_averaging(0)

    def labelled_batch(self, size: int) -> tuple[Tensor, Tensor]:
        """`size` of the labelled images: without replacement, or all of them again and again where they are fewer."""
        rows = torch.randperm(len(self.labels), device=self.device).repeat(math.ceil(size / len(self.labels)))[:size]
        return self.labelled_images[rows], self.labels[rows]

    def loss_g(self, images: Tensor) -> Tensor:
        """L_G against a batch of images, or the loss on the logit of D."""
        fake = self.decode(self.sample_latent(len(images)))
        if (kind := self.hparams["generator_loss"]) == "feature_matching":
            with torch.no_grad():
                real_mean = widen(self.discriminator.features(images)).mean(0)
            difference = widen(self.discriminator.features(fake)).mean(0) - real_mean
            # The means are over the images of all ranks; step() averages the gradients, which pass each rank's own.
            everywhere = self.reduce(difference.detach().clone(), "mean")
            difference = difference + (everywhere - difference).detach()
            squared = self.hparams["network"] == "mnist"  # The authors' code for colour images takes absolute values.
            loss = (difference.square() if squared else difference.abs()).mean()
        else:
            logits = widen(self.discriminator(fake)).logsumexp(1)
            loss = saturating_loss(logits) if kind == "saturating" else non_saturating_loss(logits)
        return loss + self.historical_averaging(1)

    def historical_averaging(self, player: int) -> Tensor | float:
        """The weighted penalty of player 0, the discriminator, or 1, the generator; 0 if there is none."""
        if not self.histories:
            return 0.0
        return self.hparams["historical_averaging"] * self.histories[player](self.players()[player])

    def configure_optimizers(self) -> list[Optimizer]:
        """One Adam for the discriminator, one for the generator.

        The authors divide by sqrt(v + 1e-8), which PyTorch's sqrt(v) + eps is nearest to with eps = 1e-4.
        """
        lr, betas = self.hparams["lr"], tuple(self.hparams["betas"])
        return [torch.optim.Adam(parameters, lr=lr, betas=betas, eps=1e-4) for parameters in self.players()]

    # Classification -------------------------------------------------------------------------------------------------

    def classify(self, images: Tensor) -> Tensor:
        """The most probable class of each image, `(N, *image_shape) -> (N,)`."""
        return self.discriminator(images).argmax(1)

    def figure_protocols(self, stage: str) -> dict[str, str]:
        learned = f"learned from {self.hparams['num_labels']} labels"
        return {"error_rate": f"share of wrong classes, {learned}", "errors": f"wrong classes, {learned}"}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log `val/error_rate` and `val/errors`, their number."""
        self._score(self.as_batch(batch), "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log `test/error_rate` and `test/errors`, their number."""
        self._score(self.as_batch(batch), "test")

    def _score(self, batch: Batch, stage: str) -> None:
        if self.semi_supervised:
            wrong = (self.classify(batch["image"]) != self.labels_of(batch)).float()
            self.log(f"{stage}/error_rate", wrong.mean(), batch_size=len(wrong), sync_dist=True)
            self.log(f"{stage}/errors", wrong.sum(), batch_size=len(wrong), reduce_fx="sum", sync_dist=True)
