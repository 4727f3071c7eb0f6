"""`lightning-gen parzen`: what a Parzen window says of real images."""

from __future__ import annotations

import time
from typing import Any, Literal, cast

from lightning_gen.datamodules import MNISTDataModule
from lightning_gen.errors import DataError
from lightning_gen.metrics import ParzenLogLikelihood, Samples


def parzen(root: str | None = None, num_samples: int = 10_000, sigmas: Literal["fine", "log"] = "fine") -> None:
    """Score MNIST's training images as if a model had drawn them, by a Parzen window.

    This is the row "true distribution" of Theis, van den Oord and Bethge 2016, table 1, 243 nats: real images score
    less than some models, so the estimate does not rank models. The samples are the first training images, the width of
    the windows is chosen on the first 1,000 of the 10,000 validation images, and the 10,000 test images are scored.

    Args:
        root: folder that holds MNIST/raw; the environment variable LIGHTNING_GEN_DATA if None, else ./data.
        num_samples: training images that are taken as samples, 1 to 50,000.
        sigmas: grid of widths; `fine` is 0.10, 0.11, ..., 0.29, `log` ten from 0.1 to 1.

    Raises:
        DatasetNotFoundError: if MNIST is not there.
        DataError: if there are not so many training images.
    """
    data = MNISTDataModule(root=root, train_size=50_000)
    data.setup()
    train, val, test = (cast(Any, data.datasets[split]) for split in ("train", "val", "test"))
    if not 1 <= num_samples <= len(train):
        raise DataError(f"num_samples is {num_samples}; there are 1 to {len(train)} training images to take.")
    start = time.perf_counter()
    metric = ParzenLogLikelihood(sigmas)
    metric.update(_first(train, num_samples))
    metric.update(_first(val), role="tuning")  # It takes the first 1,000.
    metric.update(_first(test), role="reference")
    value = metric.compute().item()
    print(
        f"{value:.2f} ± {metric.standard_error:.2f} nats: {num_samples:,} training images as samples, {len(test):,} "
        f"test images, {metric.protocol} ({time.perf_counter() - start:.1f} s)"
    )


def _first(dataset: Any, number: int | None = None) -> Samples:
    """The first images of a data set, all by default."""
    return Samples(dataset.__getitems__(range(len(dataset))[:number])["image"])
