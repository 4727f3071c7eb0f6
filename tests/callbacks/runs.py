"""Tiny fits on real digits, and stand-ins whose figures are easy to check."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_gen._lightning import Callback, Trainer, seed_everything
from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.metrics.base import SampleMetric, Samples
from lightning_gen.models import GAN, VAE, GenerativeModule
from lightning_gen.nn.features import FeatureExtractor, Features
from tests.digits import quiet_trainer


class MeanPixel(SampleMetric):
    """Mean pixel of the samples less that of the reference; counts what it is given."""

    short_name, needs_features, higher_is_better = "mean_pixel", False, True

    def __init__(self) -> None:
        super().__init__()
        for role in ("generated", "reference", "tuning"):
            self.add_state(f"{role}_sum", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{role}_count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, samples: Samples, batch: Any = None, role: str = "generated") -> None:
        setattr(self, f"{role}_sum", getattr(self, f"{role}_sum") + samples.images.double().mean((1, 2, 3)).sum())
        setattr(self, f"{role}_count", getattr(self, f"{role}_count") + len(samples.images))

    def compute(self) -> Tensor:
        self.counts = {role: int(getattr(self, f"{role}_count")) for role in ("generated", "reference", "tuning")}
        return self.generated_sum / self.generated_count - self.reference_sum / self.reference_count


class MeanFeature(MeanPixel):
    """The same on features."""

    short_name, needs_features = "mean_feature", True

    def update(self, samples: Samples, batch: Any = None, role: str = "generated") -> None:
        features = samples.features
        assert features is not None
        super().update(Samples(features[:, :, None, None], None, None), batch, role)


class Halves(FeatureExtractor):
    """Mean of the upper and of the lower half; counts how often it runs."""

    name, num_features, num_classes = "halves", 2, 2

    def __init__(self) -> None:
        super().__init__(torch.nn.Identity())
        self.num_images = 0

    def _extract(self, images: Tensor) -> Features:
        self.num_images += len(images)
        means = torch.stack([half.mean((1, 2, 3)) for half in images.chunk(2, 2)], 1)  # (N, 2)
        return Features(means, means)


class LabelledVAE(VAE):
    """A VAE that is sampled under labels, and shows them in its first pixel."""

    condition_keys = ("label",)

    def _sample(self, num_samples: int, condition: Any, generator: torch.Generator | None) -> Tensor:
        images = super()._sample(num_samples, condition, generator)
        images[:, 0, 0, 0] = condition["label"] / 10
        return images


def small_vae(**arguments: Any) -> VAE:
    return VAE(hidden_size=16, latent_dim=2, init_std=None, num_importance_samples=10, **arguments)


def small_gan() -> GAN:
    """A GAN that moves from the first batch on; the paper's first weights are too small for that."""
    model = GAN(hidden_size=16, latent_dim=4, maxout_units=8, maxout_pieces=2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def fit(
    callbacks: list[Callback],
    make_model: Callable[[], GenerativeModule] = small_vae,
    epochs: int = 2,
    ckpt_path: Any = None,
    **arguments: Any,
) -> Trainer:
    """Train on 300 digits an epoch, drawn and shuffled anew, and validate on 200."""
    seed_everything(7, verbose=False)
    data = DigitsDataModule(batch_size=50, binarization="dynamic")
    limits = {"limit_train_batches": 6, "limit_val_batches": 4, "limit_test_batches": 4, "num_sanity_val_steps": 1}
    trainer = quiet_trainer(max_epochs=epochs, callbacks=callbacks, **{**limits, **arguments})
    trainer.fit(make_model(), datamodule=data, ckpt_path=ckpt_path)
    return trainer


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.lightning_module.state_dict().items()}


def assert_bit_equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    different = [name for name in one if not torch.equal(one[name], two[name])]
    assert not different, f"differ: {different}"
