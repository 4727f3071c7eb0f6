"""`lightning-gen retrieve`: whether images of one class lie together in what a model has learned without labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lightning_gen.commands.pictures import Device, load
from lightning_gen.commands.probe import measure_statistics, read_splits, vectors
from lightning_gen.errors import LightningGenError

if TYPE_CHECKING:
    from torch import Tensor

NEIGHBOURS = 10
STARTS = 10  # Of k-means; the one with the least squared distances counts.


def retrieve(ckpt_path: str, root: str | None = None, seed: int = 0, device: Device = "auto") -> None:
    """Search images by images, and cluster them, on what a model's encoder or discriminator makes of them.

    Precision at 10 is the share of a test image's ten nearest training images that are of its class, by Euclidean
    distance; purity that of test images which belong to their cluster's most frequent class, for as many clusters of
    k-means as there are classes. Beside the model stand the same model as it was before its training, and raw pixels.
    The data are those that the checkpoint was trained on.

    Args:
        ckpt_path: the checkpoint of a model with `encode`, or whose discriminator has `features`.
        root: folder of the data, if it is no longer where it was.
        seed: of the untrained model and of k-means.
        device: where latents are computed; auto takes the GPU if there is one.
    """
    import torch

    from lightning_gen.functional import k_means, purity, retrieval_precision

    model: Any = load(ckpt_path, device, seed)
    splits = read_splits(ckpt_path, root)
    untrained = type(model)(**model.arguments).to(model.device)
    train = splits["train"]["image"]
    readers = {"model": reader(model, train), "untrained": reader(untrained, train), "raw pixels": flat}
    train_labels, labels = splits["train"]["label"], splits["test"]["label"]
    num_classes = len(labels.unique())
    print(f"{'latents':12} {'number':>6} {f'precision at {NEIGHBOURS}':>18} {'purity':>7}   in percent")
    for name, read in readers.items():
        points, queries = read(train), read(splits["test"]["image"])
        precision = retrieval_precision(queries, labels, points, train_labels, NEIGHBOURS)
        draws = torch.Generator().manual_seed(seed)
        starts = [k_means(queries, num_classes, 100, draws) for _ in range(STARTS)]
        clusters = min(starts, key=lambda found: found.objectives[-1])
        error = precision.std().item() / len(precision) ** 0.5
        value = f"{100 * precision.mean():.1f} ± {100 * error:.1f}"
        print(f"{name:12} {queries.shape[1]:6} {value:>18} {100 * purity(clusters.assignment, labels):7.1f}")
    print(
        f"{len(labels):,} test images, {len(train):,} training images to search; {num_classes} clusters of the test "
        f"images, the best of {STARTS} starts of k-means by its own objective."
    )


def reader(model: Any, images: Tensor) -> Callable[[Tensor], Tensor]:
    """What turns images into vectors on the CPU; batch normalisation takes the statistics of the given images.

    Raises:
        LightningGenError: if the model makes no vectors of images.
    """
    import torch

    if hasattr(getattr(model, "discriminator", None), "features"):
        measure_statistics(model.discriminator, images)
        return lambda x: vectors(model.discriminator, x)

    def encoded(x: Tensor) -> Tensor:
        with model.evaluating(), torch.no_grad():
            return torch.cat([model.encode(part.to(model.device)).cpu() for part in x.split(100)])

    if hasattr(model, "encode"):
        found = encoded(images[:1])
        if found.ndim == 2 and found.is_floating_point():
            return encoded
    raise LightningGenError(
        f"{type(model).__name__} makes no vectors of images; a VAE's encoder and a DCGAN's discriminator do."
    )


def flat(images: Tensor) -> Tensor:
    """The pixels themselves."""
    return images.flatten(1)
