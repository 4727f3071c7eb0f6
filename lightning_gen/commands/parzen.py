"""`lightning-gen parzen`: what a Parzen window says of real images."""

from __future__ import annotations

import time
from typing import Any, Literal, cast

import torch

from lightning_gen.datamodules import MNISTDataModule
from lightning_gen.errors import DataError
from lightning_gen.functional import k_means
from lightning_gen.metrics import ParzenLogLikelihood, Samples


def parzen(
    root: str | None = None,
    num_samples: int = 10_000,
    sigmas: Literal["fine", "log"] = "fine",
    centroids: list[int] = [],  # noqa: B006
    num_iterations: int = 20,
    seed: int = 0,
) -> None:
    """Score MNIST's training images as if a model had drawn them, by a Parzen window, and centroids of them.

    These are the rows "true distribution", 243 nats, and "k-means", 313, of Theis, van den Oord and Bethge 2016, table
    1: real images score less than some models, and means of real images, which nobody would call a model of digits,
    more than all of them, so the estimate does not rank models. The samples are the first training images, the width of
    the windows is chosen on the first 1,000 of the 10,000 validation images, and the 10,000 test images are scored.

    Args:
        root: folder that holds MNIST/raw; the environment variable LIGHTNING_GEN_DATA if None, else ./data.
        num_samples: training images that are taken as samples, 1 to 50,000.
        sigmas: grid of widths; `fine` is 0.10, 0.11, ..., 0.29, `log` ten from 0.1 to 1.
        centroids: numbers of centroids, as in [1000,10000]; each set is fitted to all training images, and scored.
        num_iterations: of k-means, at most.
        seed: of the images that k-means begins from.

    Raises:
        DatasetNotFoundError: if MNIST is not there.
        DataError: if there are not so many training images.
    """
    data = MNISTDataModule(root=root, train_size=50_000)
    data.setup()
    train, val, test = (cast(Any, data.datasets[split]) for split in ("train", "val", "test"))
    if not 1 <= num_samples <= len(train):
        raise DataError(f"num_samples is {num_samples}; there are 1 to {len(train)} training images to take.")
    if not all(1 <= number <= len(train) for number in centroids):
        raise DataError(f"centroids is {centroids}; expected numbers from 1 to {len(train)}, the training images.")

    def score(samples: Samples, what: str, start: float) -> None:
        metric = ParzenLogLikelihood(sigmas)
        metric.update(samples)
        metric.update(_first(val), role="tuning")  # It takes the first 1,000.
        metric.update(_first(test), role="reference")
        value = metric.compute().item()
        print(
            f"{value:.2f} ± {metric.standard_error:.2f} nats: {what} as samples, {len(test):,} test images, "
            f"{metric.protocol} ({time.perf_counter() - start:.1f} s)"
        )

    score(_first(train, num_samples), f"{num_samples:,} training images", time.perf_counter())
    for number in centroids:
        start = time.perf_counter()
        images = _first(train).images
        found = k_means(images, number, num_iterations, torch.Generator().manual_seed(seed))
        what = f"{number:,} centroids of {len(images):,} training images after {len(found.objectives) - 1} iterations"
        score(Samples(found.centroids.view(-1, *images.shape[1:])), what, start)


def _first(dataset: Any, number: int | None = None) -> Samples:
    """The first images of a data set, all by default."""
    return Samples(dataset.__getitems__(range(len(dataset))[:number])["image"])
