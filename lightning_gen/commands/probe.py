"""`lightning-gen probe`: what a discriminator has learned about images without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_gen.commands.pictures import Device, load
from lightning_gen.errors import LightningGenError

if TYPE_CHECKING:
    from torch import Tensor

PENALTIES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 1e-1, 1.0)
"""C of the support vector machine: the seven of the paper's SVHN experiment, and two more that raw pixels may want."""


def probe(
    ckpt_path: str, root: str | None = None, labels_per_class: int | None = None, seed: int = 0, device: Device = "auto"
) -> None:
    """Classify images by a linear machine on what a discriminator sees in them (Radford et al. 2016, section 5).

    The maps of every convolution of the discriminator, max-pooled to 4 x 4, are one vector; an L2-regularised linear
    support vector machine with squared hinge loss is trained on the training images' vectors and labels. Its C is the
    one with the best accuracy on the validation images; then it is scored once on the test images. Batch normalisation
    takes the statistics of all training images. Beside it stand the same probe of a discriminator as it was before its
    training, and one of the raw pixels. The data are those that the checkpoint was trained on.

    Args:
        ckpt_path: the checkpoint of a model whose discriminator has `features`.
        root: folder of the data, if it is no longer where it was.
        labels_per_class: training images of each class that the machine learns from, drawn at random; all if None.
        seed: of that draw, of the untrained discriminator and of the machine.
        device: where features are computed; auto takes the GPU if there is one.
    """
    try:
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise LightningGenError(
            "The probe trains scikit-learn's machine; type: pip install 'lightning_gen[probe]'"
        ) from error
    import torch

    model: Any = load(ckpt_path, device, seed)
    if not hasattr(getattr(model, "discriminator", None), "features"):
        raise LightningGenError(f"{type(model).__name__} has no discriminator with features; a DCGAN has.")
    splits = read_splits(ckpt_path, root)
    untrained = type(model)(**model.arguments).to(model.device)
    readers = {"discriminator": model.discriminator, "untrained discriminator": untrained.discriminator}
    for discriminator in readers.values():
        measure_statistics(discriminator, splits["train"]["image"])
    images, labels = splits["train"]["image"], splits["train"]["label"]
    if labels_per_class is not None:
        rows = torch.cat([balanced(labels == label, labels_per_class) for label in labels.unique()])
        splits["train"] = {"image": images[rows], "label": labels[rows]}

    print(f"{'features':24} {'number':>6} {'C':>7} {'validation':>10} {'test':>15}   accuracy in percent")
    for name, discriminator in (*readers.items(), ("raw pixels", None)):
        x = {split: vectors(discriminator, columns["image"]).numpy() for split, columns in splits.items()}
        y = {split: columns["label"].numpy() for split, columns in splits.items()}
        machines = [
            LinearSVC(C=c, dual="auto", max_iter=10_000, random_state=seed).fit(x["train"], y["train"])
            for c in PENALTIES
        ]
        best = max(machines, key=lambda machine: machine.score(x["val"], y["val"]))
        accuracy = best.score(x["test"], y["test"])
        deviation = (accuracy * (1 - accuracy) / len(y["test"])) ** 0.5
        score = f"{100 * accuracy:.2f} ± {100 * deviation:.2f}"
        print(f"{name:24} {x['test'].shape[1]:6} {best.C:7} {100 * best.score(x['val'], y['val']):10.2f} {score:>15}")
    sizes = ", ".join(f"{len(columns['label']):,} {split}" for split, columns in splits.items())
    print(f"{sizes} images; C chosen on the validation images, the same images scored once on test.")


def read_splits(ckpt_path: str, root: str | None) -> dict[str, dict[str, Tensor]]:
    """All images and labels of the data that a checkpoint was trained on, by split."""
    from lightning_gen.checkpoints import load_data

    data: Any = load_data(ckpt_path, root)
    data.setup()
    splits = {split: dataset.__getitems__(range(len(dataset))) for split, dataset in data.datasets.items()}
    for split, columns in splits.items():
        if not len(columns.get("label", ())):
            raise LightningGenError(f"{type(data).__name__} has no labels in its {split} split, which are needed here.")
    return splits


def measure_statistics(discriminator: Any, images: Tensor) -> None:
    """Give batch normalisation the means and variances over all images, as the paper's feature extractor has them.

    In training it saw real and generated images in turn, and remembers both.
    """
    from torch.optim.swa_utils import update_bn

    update_bn(images.split(100), discriminator, device=next(discriminator.parameters()).device)


def vectors(discriminator: Any, images: Tensor) -> Tensor:
    """A row for each image: its features, or its pixels where there is no discriminator, on the CPU."""
    import torch

    if discriminator is None:
        return images.flatten(1)
    device = next(discriminator.parameters()).device
    with torch.no_grad():
        return torch.cat([discriminator.eval().features(part.to(device)).cpu() for part in images.split(100)])


def balanced(mask: Tensor, number: int) -> Tensor:
    """Row numbers of so many of the rows in a mask, drawn at random."""
    import torch

    rows = mask.nonzero().squeeze(1)
    return rows[torch.randperm(len(rows))[:number]]
