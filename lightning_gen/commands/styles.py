"""`lightning-gen styles`: whether pictures of one pose have one style, in what inverts the generator."""

from __future__ import annotations

from typing import Any

from lightning_gen.commands.data import Data
from lightning_gen.commands.pictures import Device, load
from lightning_gen.errors import LightningGenError

STARTS = 10  # Of k-means; the one with the least squared distances counts.


def styles(
    ckpt_path: str,
    root: str | None = None,
    num_clusters: int = 100,
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Tell pairs of test images of the same pose from others by the cosine of their styles (Reed et al. 2016, 5.2).

    Poses are clusters of the images' keypoints, by k-means. The figure is the area under the ROC curve: how probable it
    is that a pair of one cluster has a larger cosine than a pair of two; 50 for no style at all. Beside it stands the
    same of pixels, after their mean.

    Args:
        ckpt_path: the checkpoint of a GANINTCLS whose style encoder has learned, on data with keypoints.
        root: folder of the data, if it is no longer where it was.
        num_clusters: poses; 100 in the paper.
        seed: of k-means.
        device: where styles are computed; auto takes the GPU if there is one.
    """
    import torch
    from torch.nn.functional import normalize
    from torchmetrics.functional.classification import binary_auroc

    from lightning_gen.functional import k_means

    model: Any = load(ckpt_path, device, seed)
    data = Data(ckpt_path, root)
    if not hasattr(model, "style_encoder"):
        raise LightningGenError(
            f"{type(model).__name__} has no style encoder; train a GANINTCLS with --model.style_from_epoch N."
        )
    columns = data.first("test")
    if "keypoints" not in columns:
        raise LightningGenError(
            f"{type(data.module).__name__} has no keypoints; CUBDataModule and PlacedDigitsDataModule have."
        )
    images, keypoints = columns["image"], columns["keypoints"].flatten(1)
    draws = torch.Generator().manual_seed(seed)
    found = min((k_means(keypoints, num_clusters, 100, draws) for _ in range(STARTS)), key=lambda c: c.objectives[-1])
    first, second = torch.triu_indices(len(images), len(images), offset=1)
    same = found.assignment[first] == found.assignment[second]
    with model.evaluating(), torch.no_grad():
        style = torch.cat([model.encode(part.to(model.device)).cpu() for part in images.split(250)])
    pixels = images.flatten(1)
    for name, vectors in (("styles", style), ("pixels", pixels - pixels.mean(0))):
        directions = normalize(vectors)
        cosines = (directions @ directions.T)[first, second]
        print(f"{name}: {100 * binary_auroc(cosines, same.long()).item():.1f} % area under the curve")
    print(
        f"{len(images):,} test images, {int(same.sum()):,} pairs of one pose and {int((~same).sum()):,} of two; "
        f"{num_clusters} poses, the best of {STARTS} starts of k-means on the keypoints."
    )
