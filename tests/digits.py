"""Real digits for tests: the embedded 5,000, trained on by the real Trainer."""

from functools import cache
from typing import Any

from torch import Tensor

from lightning_gen._lightning import Trainer
from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.metrics import FrechetDistance, Samples
from lightning_gen.models import GenerativeModule
from lightning_gen.nn import DigitFeatures


@cache
def _images(split: str) -> Tensor:
    data = DigitsDataModule(batch_size=5000)
    data.setup("fit")
    loader = data.train_dataloader() if split == "train" else data.val_dataloader()
    return next(iter(loader))["image"]


def training_digits() -> Tensor:
    """4,000 grey digits, `(4000, 1, 28, 28)`, in no particular order."""
    return _images("train")


def held_out_digits() -> Tensor:
    """500 grey digits, `(500, 1, 28, 28)`."""
    return _images("val")


def digits_distance(images: Tensor) -> float:
    """Fréchet distance between images and the held-out digits, by the features of the judge of digits."""
    extractor, distance = DigitFeatures(), FrechetDistance()
    distance.bind(extractor)
    distance.update(Samples(held_out_digits(), *extractor(held_out_digits())), role="reference")
    distance.update(Samples(images, *extractor(images)))
    return distance.compute().item()


def quiet_trainer(**arguments: Any) -> Trainer:
    """A Trainer that prints and writes nothing unless asked."""
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(**{**silent, "enable_model_summary": False, "accelerator": "cpu", **arguments})


def train_on_digits(model: GenerativeModule, epochs: int, binarization: str = "dynamic", **arguments: Any) -> Tensor:
    """Train on the embedded digits; returns the grey training images."""
    quiet_trainer(max_epochs=epochs, limit_val_batches=0, **arguments).fit(
        model, datamodule=DigitsDataModule(batch_size=100, binarization=binarization)
    )
    return training_digits()
