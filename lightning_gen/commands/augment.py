"""`lightning-gen augment`: what a class-conditional model's samples are worth to a classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_gen.commands.data import Data
from lightning_gen.commands.pictures import Device, load
from lightning_gen.commands.probe import balanced
from lightning_gen.errors import LightningGenError

if TYPE_CHECKING:
    from torch import Tensor, nn

    Labelled = tuple[Tensor, Tensor]  # images (N, C, H, W), labels (N,)

BATCH = 100


def augment(
    ckpt_path: str,
    num_labels: list[int] = [100, 1000],  # noqa: B006
    num_samples: int = 10_000,
    num_steps: int = 500,
    repeats: int = 3,
    root: str | None = None,
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Train a classifier on samples, on real images, and on both, and test it on real images.

    If a model draws what it is asked for, and all of it, its samples can stand for the images. The classifier, three
    convolutions and a linear layer, is trained for as many updates on each set; of both, half of each batch are
    samples. The generator has seen all training labels: beside a hundred of them, its samples bring the others along.
    The data are those that the checkpoint was trained on.

    Args:
        ckpt_path: the checkpoint of a model under labels, such as a CGAN.
        num_labels: real images that the classifier sees, equally many of each class, drawn at random; all of them come
            last in any case.
        num_samples: drawn once, labels as frequent as in training.
        num_steps: updates by batches of 100.
        repeats: trainings of each kind, with other real images and weights.
        root: folder of the data, if it is no longer where it was.
        seed: of the random numbers.
        device: where to train; auto takes the GPU if there is one.
    """
    for name, value in {"num_samples": num_samples, "num_steps": num_steps, "repeats": repeats}.items():
        if value < 1:
            raise LightningGenError(f"{name} is {value}; expected at least 1.")
    import torch

    model: Any = load(ckpt_path, device, seed)
    if tuple(model.condition_keys) != ("label",):
        raise LightningGenError(f"{type(model).__name__} draws no classes that one can ask for; a CGAN does.")
    data = Data(ckpt_path, root)
    num_classes = data.module.num_classes
    train, test = ((rows["image"], rows["label"]) for rows in map(data.first, ("train", "test")))
    fewest = train[1].bincount(minlength=num_classes).min().item()
    for number in num_labels:
        if number < 1 or number % num_classes or number > fewest * num_classes:
            raise LightningGenError(
                f"num_labels is {num_labels}; expected multiples of {num_classes}, as many as there are classes, up to "
                f"{fewest * num_classes}, as the rarest has {fewest} training images."
            )

    labels = model.draw_condition(num_samples)["label"]
    samples = torch.cat([model.sample(len(part), {"label": part}).cpu() for part in labels.split(BATCH)]), labels.cpu()
    print(f"{'classifier trained on':32} {'test accuracy in percent':>24}")

    def row(name: str, subset: int | None, *, real: bool, drawn: bool) -> None:
        accuracies = []
        for repeat in range(repeats):
            torch.manual_seed(seed + repeat)  # The same images and the same first weights in each row.
            sets = [subset_of(train, subset, num_classes)] if real else []
            classifier = trained([*sets, samples] if drawn else sets, num_classes, num_steps, model.device)
            accuracies.append(100 * accuracy(classifier, test))
        values = torch.tensor(accuracies)
        spread = f" ± {values.std() / repeats**0.5:.2f}" if repeats > 1 else ""
        print(f"{name:32} {f'{values.mean():.2f}{spread}':>24}", flush=True)

    row(f"{num_samples:,} samples", None, real=False, drawn=True)
    for subset in (*num_labels, None):
        name = f"{subset or len(train[0]):,} real images"
        row(name, subset, real=True, drawn=False)
        row(f"{name} and the samples", subset, real=True, drawn=True)
    print(
        f"{len(test[0]):,} real test images, {num_steps:,} updates by batches of {BATCH}, mean and standard error of "
        f"{repeats} trainings, without a choice on any images."
    )


def subset_of(rows: Labelled, number: int | None, num_classes: int) -> Labelled:
    """So many rows at random, equally many of each class; all of them if no number is given."""
    import torch

    if number is None:
        return rows
    chosen = torch.cat([balanced(rows[1] == label, number // num_classes) for label in range(num_classes)])
    return rows[0][chosen], rows[1][chosen]


def network(channels: int, num_classes: int) -> nn.Module:
    """Three convolutions, the maps averaged to 4 x 4, and a linear layer, for images of any size."""
    from torch import nn

    from lightning_gen.nn.digits import convolution

    return nn.Sequential(
        *convolution(channels, 32, kernel_size=5, stride=2),
        *convolution(32, 64, kernel_size=3, stride=2),
        *convolution(64, 64, kernel_size=3, stride=1),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(1024, num_classes),
    )


def trained(sets: list[Labelled], num_classes: int, num_steps: int, device: Any) -> nn.Module:
    """A classifier after as many updates, an equal part of each batch from each set."""
    import torch
    from torch.nn import functional as F

    classifier = network(sets[0][0].shape[1], num_classes).to(device)
    optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.004, total_steps=num_steps)
    for _ in range(num_steps):
        rows = [torch.randint(len(labels), (BATCH // len(sets),)) for _, labels in sets]
        images = torch.cat([images[chosen] for (images, _), chosen in zip(sets, rows, strict=True)])
        labels = torch.cat([labels[chosen] for (_, labels), chosen in zip(sets, rows, strict=True)])
        loss = F.cross_entropy(classifier(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return classifier.eval()


def accuracy(classifier: nn.Module, rows: Labelled) -> float:
    """Share of right classes."""
    import torch

    device = next(classifier.parameters()).device
    with torch.no_grad():
        found = torch.cat([classifier(part.to(device)).argmax(1).cpu() for part in rows[0].split(10 * BATCH)])
    return (found == rows[1]).float().mean().item()
