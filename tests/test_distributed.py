"""Several real processes against one: the same noise and the joined batch give the same parameters."""

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

import lightning_gen
from lightning_gen._lightning import Callback
from lightning_gen.functional.placement import ink_box, stroke_keypoints
from lightning_gen.models import (
    ACGAN,
    CGAN,
    DCGAN,
    DGNAM,
    DRAW,
    GAN,
    GANINTCLS,
    GAWWN,
    GMMN,
    LAPGAN,
    NADE,
    PPGN,
    VAE,
    VGAN,
    VPN,
    AdversarialModule,
    AttributeClassifier,
    BernoulliMixture,
    Captioner,
    CharCNNRNN,
    ConditionalDCGAN,
    ConvolutionalCGAN,
    DigitClassifier,
    DRAWClassifier,
    EoNADE,
    ImprovedGAN,
    KeypointGAN,
    LabelReader,
    MultiScalePixelRNN,
    Pix2Pix,
    PixelRNN,
    VGANAutoencoder,
)
from lightning_gen.models.vae import Posterior
from tests.digits import held_out_digits, quiet_trainer
from tests.models.test_base import STEERED
from tests.ranks import spawn_ranks
from tests.test_optimizers import optimizers_in

BATCH, STEPS = 8, 3


class Rows:
    """Noise of the whole batch from a seed and the step, of which a rank takes its rows."""

    def rows(self, shape: tuple[int, ...]) -> Tensor:
        step = next(self.__dict__.setdefault("_steps", itertools.count()))
        noise = torch.rand(BATCH, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        return noise[self.global_rank :: self.world_size]


class RowsVAE(Rows, VAE):
    def reparameterize(self, posterior: Posterior, num_samples: int = 1) -> Tensor:
        eps = self.rows((self.latent_dim,)) - 0.5
        return (posterior.mean + (0.5 * posterior.log_var).exp() * eps)[None]


class RowsDRAW(Rows, DRAW):
    def draw_noise(self, num_images: int) -> Tensor:
        return self.rows((self.num_glimpses, self.glimpse_dim)).transpose(0, 1) - 0.5


class RowsGAN(Rows, GAN):
    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        return self.rows((self.latent_dim,)) - 0.5


class RowsGMMN(Rows, GMMN):
    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        return 2 * self.rows((self.latent_dim,)) - 1


class RowsEoNADE(Rows, EoNADE):
    def draw_mask(self, num_images: int) -> Tensor:
        return (self.rows(self.image_shape) < 0.5).double()


class RowsDCGAN(Rows, DCGAN):
    """Normalised by fixed statistics, as those of a batch are each rank's own; with a gradient for each network."""

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        return self.rows((self.latent_dim,)) - 0.5

    def on_train_epoch_start(self) -> None:
        for module in self.modules():
            if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                module.eval()


class EachOwnStatistics(DCGAN):
    """Batch normalisation sees each rank's own images, and both ranks still move alike."""

    def on_train_end(self) -> None:
        for ours in (self.generator[0].weight, self.discriminator.logit.weight):
            both = self.trainer.strategy.all_gather(ours.detach())
            torch.testing.assert_close(both[0], both[1], rtol=0, atol=0)
        means = self.trainer.strategy.all_gather(self.generator[1].running_mean)
        assert not torch.equal(means[0], means[1]), "the ranks drew the same noise"


class RowsACGAN(Rows, ACGAN):
    """Under a label that the image itself gives; those of generated images are given too, and there is no dropout."""

    sample_latent, on_train_epoch_start = RowsDCGAN.sample_latent, RowsDCGAN.on_train_epoch_start

    def as_batch(self, batch: Tensor) -> dict[str, Tensor]:
        return {"image": batch, "label": batch.flatten(1).sum(1).long() % 10}

    def draw_condition(self, num_samples: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        return {"label": (10 * self.rows(())).long()}


class RowsConditionalDCGAN(Rows, ConditionalDCGAN):
    """Under a label that the image itself gives."""

    as_batch = RowsACGAN.as_batch
    sample_latent, on_train_epoch_start = RowsDCGAN.sample_latent, RowsDCGAN.on_train_epoch_start


class RowsGANINTCLS(Rows, GANINTCLS):
    """Under the images' own means; the pairs that do not fit, and the noise for points between captions, are given."""

    on_train_epoch_start = RowsDCGAN.on_train_epoch_start

    def as_batch(self, batch: Tensor) -> dict[str, Tensor]:
        images = torch.nn.functional.interpolate(batch, (16, 16))
        return {"image": images, "text_embedding": torch.cat([images.mean(2), images.mean(3)], 2)[:, 0]}

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        ranks, step = self.world_size, next(self.__dict__.setdefault("_steps", itertools.count()))
        noise = torch.Generator().manual_seed(step)
        return torch.randn(num_samples * ranks, self.latent_dim, dtype=torch.float64, generator=noise)[
            self.global_rank :: ranks
        ]

    def draw_mismatches(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        rows = torch.arange(len(batch["image"]))
        return (rows + 4 // self.world_size) % len(rows), rows >= 0


class RowsAttributeClassifier(AttributeClassifier):
    """Of attributes that the image itself gives; normalised by fixed statistics."""

    on_train_epoch_start = RowsDCGAN.on_train_epoch_start

    def as_batch(self, batch: Tensor) -> dict[str, Tensor]:
        ink = batch.flatten(1).sum(1).long()
        return {"image": batch, "attributes": torch.stack([ink % 3, ink % 2], 1)}


class RowsCaptioner(Captioner):
    """Of images with as many words each, as a rank weighs its own words; normalised by fixed statistics."""

    on_train_epoch_start = RowsDCGAN.on_train_epoch_start

    def as_batch(self, batch: Tensor) -> dict[str, Any]:
        ink = batch.flatten(1).sum(1).long().tolist()
        return {"image": batch, "caption": [f"{'abc'[number % 3]} {'abc'[number % 2]}" for number in ink]}


class RowsCharCNNRNN(CharCNNRNN):
    """Beside an image's columns. Each rank tells its own images apart: one process takes their batches in turn."""

    def setup(self, stage: str) -> None:
        self._extractor = (torch.nn.Identity(),)
        super().setup(stage)

    def features(self, images: Tensor) -> Tensor:
        return images.sum((1, 2))

    def as_batch(self, batch: Tensor) -> dict[str, Any]:
        captions = [f"ink of {number}" for number in batch.flatten(1).sum(1).tolist()]
        return {"image": batch, "caption": captions, "label": torch.arange(len(batch))}

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        parts = [batch] if self.world_size == 2 else [batch[::2], batch[1::2]]
        return torch.stack([super(RowsCharCNNRNN, self).training_step(part, batch_idx) for part in parts]).mean()


class RowsImprovedGAN(Rows, ImprovedGAN):
    """Every technique that a batch may be split under, without the noise inside D."""

    def __init__(self, **_: Any) -> None:
        super().__init__(num_labels=10, reference_batch=5, historical_averaging=0.1, input_noise=0.0, hidden_noise=0.0)
        self.labelled_images.uniform_()
        self.labels.copy_(torch.arange(10))

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        return self.rows((self.latent_dim,))

    def labelled_batch(self, size: int) -> tuple[Tensor, Tensor]:
        rows = slice(self.global_rank, BATCH, self.world_size)
        return self.labelled_images[rows], self.labels[rows]


class RowsCGAN(Rows, CGAN):
    """Under a label that the image itself gives: the loader has none; with weights that move in three steps."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, std=0.3)

    def as_batch(self, batch: Tensor) -> dict[str, Tensor]:
        return {"image": batch, "label": batch.flatten(1).sum(1).long() % 10}

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        return self.rows((self.latent_dim,))


class RowsLAPGAN(Rows, LAPGAN):
    """Under a label that the image itself gives; with weights that move in three steps."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, std=0.1)

    def as_batch(self, batch: Tensor) -> dict[str, Tensor]:
        return {"image": batch[:, :, ::2, ::2], "label": batch.flatten(1).sum(1).long() % 10}

    def sample_noise(self, level: int, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        return 2 * self.rows(self.generators[level].noise_shape) - 1


class RowsConvolutionalCGAN(Rows, ConvolutionalCGAN):
    """Under the images' own sums, on a border of black; the conditions of generated ones are given too."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, std=0.1)

    def as_batch(self, batch: Tensor) -> dict[str, Tensor]:
        return {"image": torch.nn.functional.pad(batch, (2, 2, 2, 2)), "attributes": batch.mean((2, 3))}

    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        return self.rows((self.latent_dim,)) - 0.5

    def draw_condition(self, num_samples: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        return {"attributes": self.rows((1,))}


class RowsGAWWN(Rows, GAWWN):
    """At places that the image itself gives, on a border of black; wrong captions are the neighbours'."""

    def __init__(self, *values: Any, **arguments: Any) -> None:
        super().__init__(*values, **arguments)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, std=0.2)

    sample_latent, on_train_epoch_start = RowsDCGAN.sample_latent, RowsDCGAN.on_train_epoch_start

    def as_batch(self, batch: Tensor) -> dict[str, Tensor]:
        return {"image": torch.nn.functional.pad(batch, (2, 2, 2, 2)), **places(batch)}

    def mismatch(self, text: Tensor) -> Tensor:
        return text.roll(4 // self.world_size, 0)  # A rank has every other row, or every fourth.


class RowsKeypointGAN(Rows, KeypointGAN):
    """With keypoints that an image gives; which of them are given is too."""

    def __init__(self, *values: Any, **arguments: Any) -> None:
        super().__init__(*values, **arguments)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, std=0.2)

    sample_latent, on_train_epoch_start = RowsDCGAN.sample_latent, RowsDCGAN.on_train_epoch_start

    def as_batch(self, batch: Tensor) -> dict[str, Tensor]:
        return places(batch)

    def draw_switches(self, num_samples: int) -> Tensor:
        return (self.rows((5, 1)) < 0.5).double()


def places(digits: Tensor) -> dict[str, Tensor]:
    """Where digits are, and how white their columns are for captions."""
    ink = digits.squeeze(1)
    return {"box": ink_box(ink).double(), "keypoints": stroke_keypoints(ink).double(), "text_embedding": ink.mean(1)}


class RowsPix2Pix(Rows, Pix2Pix):
    """From the image's own mirror, on a border of black; normalised by each image's own statistics."""

    def as_batch(self, batch: Tensor) -> dict[str, Tensor]:
        images = torch.nn.functional.pad(batch, (2, 2, 2, 2))
        return {"image": images, "source": images.flip(-1)}

    def on_train_epoch_start(self) -> None:
        for module in self.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()


class RowsVGAN(Rows, VGAN):
    """From videos that the image becomes by moving; normalised by fixed statistics, with weights that move."""

    sample_latent = RowsDCGAN.sample_latent

    def as_batch(self, batch: Tensor) -> dict[str, Tensor]:
        images = batch[:, :, 6:22, 6:22]
        return {"video": torch.stack([images.roll(step, -1) for step in range(4)], 2)}

    def on_train_epoch_start(self) -> None:
        for module in self.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()


class RowsVGANAutoencoder(VGANAutoencoder):
    """The same videos; the mixture is the first rank's, of the codes of its own loader."""

    as_batch, on_train_epoch_start = RowsVGAN.as_batch, RowsVGAN.on_train_epoch_start

    def fit_codes(self) -> None:
        assert self.trainer.is_last_batch


class RowsVPN(VPN):
    """On three pieces of each digit for frames."""

    def as_batch(self, batch: Tensor) -> dict[str, Tensor]:
        return {"video": batch[:, :, 8:20, 8:20].unflatten(2, (3, 4))}


def without_dropout(model: DGNAM) -> DGNAM:
    """The discriminator has the paper's dropout, which each rank would draw for itself."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


class RowsPPGN(Rows, PPGN):
    def noise_like(self, values: Tensor) -> Tensor:
        return self.rows(tuple(values.shape[1:])) - 0.5


class RowsDigitClassifier(DigitClassifier):
    """Without distortions, and with the digits' negatives for non-digits; normalised by fixed statistics."""

    as_batch, on_train_epoch_start = RowsACGAN.as_batch, RowsDCGAN.on_train_epoch_start

    def redraw(self, images: Tensor) -> Tensor:
        return images

    def non_digits(self, images: Tensor) -> Tensor:
        return 1 - images


class RowsDRAWClassifier(DRAWClassifier):
    as_batch = RowsACGAN.as_batch


class RowsLabelReader(LabelReader):
    """Of black and white for labels; normalised by fixed statistics."""

    on_train_epoch_start = RowsDCGAN.on_train_epoch_start

    def as_batch(self, batch: Tensor) -> dict[str, Tensor]:
        return {"image": batch, "source": batch.expand(-1, 3, -1, -1)}


class StillGAN(GAN):
    """Checks that both ranks hold the same parameters, and does not move them."""

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        biases = self.trainer.strategy.all_gather(self.generator.output.bias.detach())
        torch.testing.assert_close(biases[0], biases[1], rtol=0, atol=0)


class Noise(Callback):
    """What each rank draws at the beginning of its first batch."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.draws = trainer.strategy.all_gather(torch.rand(4))


MODELS = {
    "vae": lambda: RowsVAE(hidden_size=16, latent_dim=3, init_std=0.2),
    "draw": lambda: RowsDRAW(num_glimpses=3, hidden_size=16, latent_dim=3),
    "draw_recomputed": lambda: RowsDRAW(num_glimpses=3, hidden_size=16, latent_dim=3, recompute=True),
    "gan": lambda: RowsGAN(hidden_size=16, latent_dim=3, input_dropout=0.0, hidden_dropout=0.0, lr=0.5),
    "gan_alternating": lambda: RowsGAN(
        hidden_size=16,
        latent_dim=3,
        input_dropout=0.0,
        hidden_dropout=0.0,
        discriminator_steps=2,
        gradient_clip_val=0.1,
    ),
    "cgan": lambda: RowsCGAN(hidden_sizes=(6, 10, 16), maxout_units=(12, 4, 12), latent_dim=3, dropout=0.0, lr=0.5),
    "lapgan": lambda: RowsLAPGAN(
        image_shape=(1, 14, 14),
        sizes=(4, 9, 14),
        class_conditional=True,
        latent_dim=3,
        hidden_sizes=(6, 6),
        channels=(3, 3),
        dropout=0.0,
        lr=0.1,
    ),
    "convolutional_cgan": lambda: RowsConvolutionalCGAN(
        image_shape=(1, 32, 32),
        condition_size=1,
        latent_dim=3,
        hidden_size=100,
        maxout_channels=(2, 2, 2),
        maxout_units=5,
        input_dropout=0.0,
        hidden_dropout=0.0,
        lr=0.5,
    ),
    "dcgan": lambda: RowsDCGAN((1, 28, 28), latent_dim=3, base_channels=2, lr=0.01),
    "conditional_dcgan": lambda: RowsConditionalDCGAN(latent_dim=3, base_channels=2, hidden_size=4, lr=0.01),
    "acgan": lambda: RowsACGAN(
        (1, 28, 28),
        latent_dim=3,
        generator_channels=(4, 2),
        discriminator_channels=(2, 4, 4),
        dropout=0.0,
        lr=0.01,
    ),
    **{
        f"gawwn_{location}": lambda location=location: RowsGAWWN(
            (1, 32, 32),
            location,
            num_keypoints=5,
            text_dim=28,
            latent_dim=3,
            base_channels=8,
            discriminator_channels=2,
            text_channels=2,
            map_size=8,
            lr=0.01,
        )
        for location in ("box", "keypoints")
    },
    "keypoint_gan": lambda: RowsKeypointGAN(
        5, text_dim=28, latent_dim=3, base_channels=8, discriminator_channels=4, lr=0.01
    ),
    "gan_int_cls": lambda: RowsGANINTCLS(
        (1, 16, 16),
        text_dim=32,
        latent_dim=3,
        text_features=4,
        generator_channels=4,
        discriminator_channels=4,
        mismatch="image",
        lr=0.01,
    ),
    "attribute_classifier": lambda: RowsAttributeClassifier((1, 28, 28), {"a": 3, "b": 2}, 2, 4),
    "captioner": lambda: RowsCaptioner((1, 28, 28), ["a", "b", "c"], 2, 3, 4, 5, lr=0.01),
    "char_cnn_rnn": lambda: RowsCharCNNRNN((1, 28, 28), "gru_512", (4, 5, 6), 28),
    "improved_gan": RowsImprovedGAN,
    "pix2pix": lambda: RowsPix2Pix(
        (1, 32, 32), num_levels=3, base_channels=2, patch_size=16, dropout=0.0, lr=0.01, constant_epochs=1
    ),
    "vgan": lambda: RowsVGAN((1, 4, 16, 16), latent_dim=3, base_channels=2, lr=0.01),
    "vgan_autoencoder": lambda: RowsVGANAutoencoder(
        (1, 4, 16, 16), latent_dim=3, base_channels=2, num_components=4, lr=0.01
    ),
    "vgan_conditional": lambda: RowsVGAN((1, 4, 16, 16), conditional=True, base_channels=2, lr=0.01),
    "gmmn": lambda: RowsGMMN(hidden_sizes=(16,), bandwidths=None),
    "gmmn_autoencoder": lambda: RowsGMMN(
        hidden_sizes=(16,),
        bandwidths=None,
        code_sizes=(6,),
        code_dropout=(0.0,),
        pretraining_steps=1,
        finetuning_steps=1,
    ),
    "dgn_am": lambda: without_dropout(DGNAM(**STEERED)),
    "ppgn_h": lambda: without_dropout(RowsPPGN(variant="h", denoiser_units=(8,), **STEERED)),
    "ppgn_x": lambda: RowsPPGN(variant="x", denoiser_channels=2, **STEERED),
    "nade": lambda: NADE(hidden_size=16, ordering=1, lr=0.01),
    "eonade": lambda: RowsEoNADE(hidden_size=16, lr=0.01, lr_decay=0.0),
    "pixel_rnn_pixelcnn": lambda: PixelRNN(variant="pixelcnn", num_layers=1, hidden_size=4, lr=0.01),
    "pixel_rnn_row_lstm": lambda: PixelRNN(variant="row_lstm", num_layers=1, hidden_size=4, lr=0.01),
    "pixel_rnn_diagonal_bilstm": lambda: PixelRNN(num_layers=1, hidden_size=4, lr=0.01),
    "pixel_rnn_multi_scale": lambda: MultiScalePixelRNN(variant="pixelcnn", num_layers=1, hidden_size=4, lr=0.01),
    "bernoulli_mixture": lambda: BernoulliMixture(num_components=5),
    "digit_classifier": lambda: RowsDigitClassifier(distortion=0.0, shift=0.0),
    "draw_classifier": lambda: RowsDRAWClassifier((1, 28, 28), num_glimpses=3, read_size=4, hidden_size=8),
    "label_reader": lambda: RowsLabelReader((1, 28, 28), ((0, 0, 0), (255, 255, 255)), base_channels=4),
    "vpn": lambda: RowsVPN((1, 3, 4, 12), 1, None, 2, 1, 1, 8, lr=0.01),
    "vpn_recomputed": lambda: RowsVPN((1, 3, 4, 12), 1, 2, 2, 1, 1, 8, recompute=True, lr=0.01),
}


class Lopsided(AdversarialModule):
    """One parameter is of both ranks' losses, one of the second rank's alone, one of none, and one is frozen."""

    image_shape = (1, 28, 28)

    def __init__(self) -> None:
        super().__init__()
        self.values = torch.nn.ParameterList(torch.ones(1) for _ in range(4))
        self.values[3].requires_grad_(False)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        both, second, *_ = self.values
        self.step((self.optimizers(), (both + second if self.global_rank == 1 else both).sum()))

    def on_train_end(self) -> None:
        mean = 1 / self.world_size  # Of a gradient of 1 on one rank, and of none on the others.
        values = torch.cat([value.detach() for value in self.values])
        torch.testing.assert_close(values, values.new_tensor([1 - STEPS, 1 - STEPS * mean, 1, 1]))

    def _sample(self, num_samples: int, condition: Any, generator: Any) -> Tensor:
        raise NotImplementedError


CHECKS = {
    "lopsided": Lopsided,
    "initialization": lambda: StillGAN(hidden_size=4),
    "batch_normalisation": lambda: EachOwnStatistics((1, 28, 28), latent_dim=3, base_channels=2, lr=0.01),
}


def _fit(name: str, devices: int, path: Path) -> None:
    """Train on three batches, and leave the parameters and what the ranks drew."""
    torch.manual_seed(0)
    model = {**MODELS, **CHECKS}[name]()
    if name in MODELS and hasattr(model, "initialized"):
        model.initialized.fill_(True)  # They would start from the images of the first rank's own loader.
    images = held_out_digits()[: BATCH * STEPS].round().double()
    # Lightning's own sampler would shuffle: here rank r of R takes rows r, r + R, ... of each batch, in order.
    rank = int(os.environ.get("RANK", 0))
    sampler = torch.utils.data.DistributedSampler(images, devices, rank, shuffle=False)
    loader = torch.utils.data.DataLoader(images, batch_size=BATCH // devices, sampler=sampler)
    trainer = quiet_trainer(
        max_epochs=1,
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        precision="64-true",
        use_distributed_sampler=False,
        callbacks=[noise := Noise()],
    )
    trainer.fit(model, loader)
    if trainer.is_global_zero:
        torch.save({"parameters": model.state_dict(), "noise": noise.draws}, path)


def _run_by_fabric(name: str, devices: int, path: Path) -> None:
    """The same by a loop of one's own."""
    torch.manual_seed(0)
    model = MODELS[name]().double()  # Before there are optimizers, which may keep numbers of the weights' type.
    if hasattr(model, "initialized"):
        model.initialized.fill_(True)
    images = held_out_digits()[: BATCH * STEPS].round().double()
    fabric = Fabric(accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", precision="64-true")
    fabric.launch()
    optimizers = list(optimizers_in(model.configure_optimizers()))
    network, *optimizers = fabric.setup(model, *optimizers) if optimizers else [fabric.setup(model)]
    fabric.call("setup", stage="fit")
    fabric.call("on_train_epoch_start")
    for batch_idx, batch in enumerate(images.split(BATCH)):
        with fabric.autocast():  # On one device Fabric leaves the precision to the loop.
            loss = network.training_step(batch[fabric.global_rank :: devices], batch_idx)
        if model.automatic_optimization:
            optimizers[0].zero_grad()
            fabric.backward(loss)
            optimizers[0].step()
    fabric.call("on_train_epoch_end")
    if fabric.is_global_zero:
        torch.save(model.state_dict(), path)


def _rank(path: Path) -> None:
    ranks = int(os.environ["WORLD_SIZE"])
    for name in [*MODELS, *CHECKS]:
        _fit(name, ranks, path / f"{name}.pt")
        if name in MODELS:
            _run_by_fabric(name, ranks, path / f"{name}_fabric.pt")


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)], ids="{} ranks".format)
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What training every model in several processes, which are started once, left of each."""
    path = tmp_path_factory.mktemp("ranks")
    spawn_ranks(_rank, path, ranks=request.param)
    return path


def test_every_model_is_here() -> None:
    here = {base.__name__ for make in MODELS.values() for base in type(make()).__mro__}
    assert set(lightning_gen.__all__) - {"judge"} <= here


@pytest.mark.parametrize("name", MODELS)
def test_ranks_equal_one_process_on_the_joined_batch(name: str, ranks: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    start = {key: parameter.detach() for key, parameter in model.named_parameters() if parameter.requires_grad}
    _fit(name, 1, tmp_path / "one.pt")
    one = torch.load(tmp_path / "one.pt", weights_only=True)["parameters"]
    several = torch.load(ranks / f"{name}.pt", weights_only=True)["parameters"]
    _run_by_fabric(name, 1, tmp_path / "fabric.pt")
    fabric, several_by_fabric = (
        torch.load(path, weights_only=True) for path in (tmp_path / "fabric.pt", ranks / f"{name}_fabric.pt")
    )
    kinds = [("ranks", several, one), ("Fabric", fabric, one), ("Fabric on ranks", several_by_fabric, fabric)]
    if isinstance(model, (AttributeClassifier, DigitClassifier)):
        del kinds[1]  # Their step size goes through one cycle in as many steps as the Trainer says.
    for key, value in one.items():
        for kind, others, expected in kinds:
            where = f"{kind}, {key}: "
            torch.testing.assert_close(
                others[key], expected[key], rtol=1e-9, atol=1e-12, msg=lambda text, where=where: where + text
            )
        assert key not in start or not torch.equal(value.float(), start[key]), f"{key} did not move"


@pytest.mark.parametrize("name", MODELS)
def test_ranks_draw_different_noise(name: str, ranks: Path) -> None:
    draws = torch.load(ranks / f"{name}.pt", weights_only=True)["noise"]
    assert len(draws.unique(dim=0)) == len(draws) > 1


def test_ranks_start_from_one_initialization(ranks: Path) -> None:
    """Each rank's own loader has another mean image; the first rank's is the bias of all."""
    left = torch.load(ranks / "initialization.pt", weights_only=True)
    mean = held_out_digits()[: BATCH * STEPS : len(left["noise"])].round().double().mean(0).flatten()
    bias = left["parameters"]["generator.output.bias"]
    torch.testing.assert_close(bias.sigmoid(), mean.clamp(1e-7, 1 - 1e-7), rtol=0, atol=1e-6)


def test_ranks_with_their_own_batch_statistics_stay_together(ranks: Path) -> None:
    assert (ranks / "batch_normalisation.pt").exists()  # Written after EachOwnStatistics held on the ranks.
