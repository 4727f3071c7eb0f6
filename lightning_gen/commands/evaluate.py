"""`lightning-gen evaluate`: a folder of images, judged as a model is."""

from __future__ import annotations

from typing import Literal

from lightning_gen._lightning import pl
from lightning_gen.callbacks import ClosestPairs, ClosingTable, SampleNeighbors
from lightning_gen.checkpoints import checkpoint_path, load_data
from lightning_gen.datamodules import ImageDataModule  # With it all data modules are found by name, as extractors are.
from lightning_gen.errors import LightningGenError
from lightning_gen.judging import as_model, score
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
    if ckpt_path is not None and samples is None:
        real = data or load_data(ckpt_path)
    elif samples is not None and ckpt_path is None:
        if data is None:
            raise LightningGenError("A folder is compared with real images; name them: --data DigitsDataModule")
        real = data
    else:
        raise LightningGenError("Give one of --samples, a folder of images, and --ckpt_path, a checkpoint.")
    model, number = as_model(ckpt_path or samples, real, num_samples, seed)
    number = number or 1000
    score(
        model,
        real,
        extractor,
        None,
        number,
        split,
        "held_out",
        seed,
        [
            ClosingTable(),
            ClosestPairs(min(number, 5000), extractor=extractor, seed=seed),
            SampleNeighbors(min(number, 12), extractor=extractor, seed=seed),
        ],
        None if ckpt_path is None else str(checkpoint_path(ckpt_path)),
        accelerator=accelerator,
        logger=pl.loggers.TensorBoardLogger("logs", "evaluate"),
    )
