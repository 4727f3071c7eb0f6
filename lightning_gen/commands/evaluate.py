"""`lightning-gen evaluate`: a folder of images, judged as a model is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_gen._lightning import Trainer, pl
from lightning_gen.callbacks import ClosestPairs, ClosingTable, SampleEvaluation, SampleNeighbors
from lightning_gen.checkpoints import load_data, load_model
from lightning_gen.datamodules import ImageDataModule  # With it all data modules are found by name, as extractors are.
from lightning_gen.datamodules.image_folder import as_8_bit, channels_of, find_pictures
from lightning_gen.errors import DataError, DatasetNotFoundError, LightningGenError
from lightning_gen.metrics import (
    ClassEntropy,
    Confidence,
    Coverage,
    Density,
    FrechetDistance,
    InceptionScore,
    KernelDistance,
    Memorization,
    ParzenLogLikelihood,
    Precision,
    Recall,
    SampleMetric,
    SupportSize,
    TwoSamplePValue,
)
from lightning_gen.models.base import Condition, GenerativeModule
from lightning_gen.nn import FeatureExtractor


def evaluate(
    samples: str | None = None,
    data: ImageDataModule | None = None,
    extractor: FeatureExtractor | None = None,
    ckpt_path: str | None = None,
    num_samples: int | None = None,
    split: Literal["val", "test"] = "test",
    accelerator: str = "auto",
    seed: int = 0,
) -> None:
    """Judge a folder of images, or a checkpoint, by all scores at once.

    The samples are compared with the held-out images of the data, and with the training images to find copies. Figures
    and pictures are written to a new folder, logs/evaluate/version_0, version_1 and so on.

    Args:
        samples: folder with an image file for each sample, of the size of the data's images, in whatever order.
        data: the real images; those that the checkpoint was trained on if None.
        extractor: network whose features are compared, DigitFeatures for digits, InceptionV3 or EfficientNetLite0 for
            other images; the scores of pixels alone are given if None.
        ckpt_path: a checkpoint, in the place of a folder.
        num_samples: how many samples are judged; all of a folder, 1,000 of a checkpoint if None.
        split: the held-out images.
        accelerator: where the checkpoint and the extractor run, such as cpu or gpu.
        seed: by which samples are drawn, from a checkpoint or from a folder of more than num_samples.
    """
    model: GenerativeModule
    if ckpt_path is not None and samples is None:
        model, real = load_model(ckpt_path), data or load_data(ckpt_path)
        num_samples = 1000 if num_samples is None else num_samples
    elif samples is not None and ckpt_path is None:
        if data is None:
            raise LightningGenError("A folder is compared with real images; name them: --data DigitsDataModule")
        real, model = data, Replay(Path(samples), data.image_shape, num_samples, seed)
        num_samples = len(model.paths)
    else:
        raise LightningGenError("Give one of --samples, a folder of images, and --ckpt_path, a checkpoint.")
    scores = metrics(num_samples, held_out(real, split), extractor is not None)
    if model.no_density:
        print(f"Likelihood-like scores are left out: {model.no_density}.")
        scores = [metric for metric in scores if not metric.needs_density]
    callbacks = [
        ClosingTable(),
        SampleEvaluation(scores, num_samples, extractor, seed=seed),
        ClosestPairs(min(num_samples, 5000), extractor=extractor, seed=seed),
        SampleNeighbors(min(num_samples, 12), extractor=extractor, seed=seed),
    ]
    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        callbacks=callbacks,
        logger=pl.loggers.TensorBoardLogger("logs", "evaluate"),
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    judge = trainer.test if split == "test" else trainer.validate
    judge(model, datamodule=real, ckpt_path=ckpt_path, weights_only=True, verbose=False)


def metrics(num_samples: int, num_held_out: int, on_features: bool) -> list[SampleMetric]:
    """All scores; where there are few images the kernel distance takes smaller subsets, as its protocol says."""
    on_pixels = [ParzenLogLikelihood(), TwoSamplePValue(), Memorization(), SupportSize()]
    if not on_features:
        return on_pixels
    return [
        FrechetDistance(),
        KernelDistance(subset_size=min(1000, num_samples, num_held_out)),
        InceptionScore(splits=min(10, num_samples)),
        Confidence(),
        ClassEntropy(),
        Precision(),
        Recall(),
        Density(),
        Coverage(),
        TwoSamplePValue(on="features"),
        Memorization(on="features"),
        SupportSize(on="features"),
        *on_pixels,
    ]


def held_out(data: Any, split: Literal["val", "test"]) -> int:
    """The number of held-out images."""
    data.setup()
    if not len(data.datasets[split]):
        raise DataError(f"{type(data).__name__} has no {split} images; give another --split.")
    return len(data.datasets[split])


class Replay(GenerativeModule):
    """A model whose samples are the images of a folder, shuffled, one after the other and then again from the first.

    Names often go class by class: the first ones would be no sample of the model.

    Args:
        folder: holds an image file for each sample.
        image_shape: `(C, H, W)`, of the real images.
        num_samples: how many are taken; all if None.
        seed: of the shuffling.

    Raises:
        DatasetNotFoundError: if there are no images.
        DataError: if they are of different shapes, or of another one than the real images; or there are too few.
    """

    def __init__(
        self, folder: Path, image_shape: tuple[int, ...], num_samples: int | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        found = [picture.path for picture in find_pictures(folder)]
        if not found:
            raise DatasetNotFoundError(
                f"There are no images in {folder}; write some: lightning-gen sample --ckpt_path last.ckpt --output DIR"
            )
        if not 1 <= (number := len(found) if num_samples is None else num_samples) <= len(found):
            raise DataError(f"num_samples is {number}; there are 1 to {len(found)} images in {folder} to take.")
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
        self.paths = [found[index] for index in order[:number].tolist()]
        shapes = {path: file_shape(path) for path in self.paths}
        first, shape = next(iter(shapes.items()))
        for path, other in shapes.items():
            if other != shape:
                raise DataError(f"{path} has the shape {other}, {first} {shape}; give samples of one shape.")
        if shape not in (image_shape, (3, *image_shape[1:])):
            raise DataError(
                f"The samples in {folder} have the shape {shape}, the real images {tuple(image_shape)}; give both the "
                "same size and channels, as a score is not to depend on how one of them is resized."
            )
        self._next = 0

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        rows = [(self._next + i) % len(self.paths) for i in range(num_samples)]
        self._next = (rows[-1] + 1) % len(self.paths)
        return torch.stack([read_sample(self.paths[row], self.image_shape[0]) for row in rows]).to(self.device)


def file_shape(path: Path) -> tuple[int, int, int]:
    """`(C, H, W)` by a file's header, C being 1 for grey."""
    try:
        with Image.open(path) as picture:
            return channels_of(picture), picture.height, picture.width
    except OSError as error:
        raise DataError(f"{path} cannot be read as a picture ({error}); replace or remove it.") from error


def read_sample(path: Path, channels: int) -> Tensor:
    """An image as it is, `(channels, H, W)` in [0, 1]; a grey one may have been saved with three equal channels."""
    try:
        with Image.open(path) as picture:
            pixels = torch.from_numpy(np.array(as_8_bit(picture, "L" if channels_of(picture) == 1 else "RGB")))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} cannot be read as a picture ({error}); replace or remove it.") from error
    pixels = pixels.view(*pixels.shape[:2], -1).permute(2, 0, 1)  # (C, H, W)
    if len(pixels) > channels:
        if not (pixels == pixels[:1]).all():
            raise DataError(f"{path} is in colour, and the real images are grey; give samples in grey.")
        pixels = pixels[:1]
    return pixels.float() / 255
