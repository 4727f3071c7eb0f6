"""`lightning-gen finetune`: what a discriminator of videos has learned about motion without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_gen.commands.pictures import Device, load
from lightning_gen.errors import LightningGenError

if TYPE_CHECKING:
    from torch import Tensor, nn


def finetune(
    ckpt_path: str,
    root: str | None = None,
    num_labels: int = 100,
    steps: int = 100,
    batch_size: int = 50,
    lr: float = 2e-4,
    num_seeds: int = 3,
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Classify videos by a discriminator that goes on learning with labels (Vondrick et al. 2016, section 3.3).

    Its last layer is replaced by one with an output for each class, after dropout of a half, and all layers are
    trained on the cross-entropy of a few labelled training videos with Adam. Beside it stands the same network trained
    alike from random weights. Both see the same videos in the same order; which ones these are, and the random weights,
    change from seed to seed. The test videos are scored once, at the end.

    Args:
        ckpt_path: the checkpoint of a VGAN; the videos are those that it was trained on, and need labels.
        root: folder of the data, if it is no longer where it was.
        num_labels: labelled training videos.
        steps: updates.
        batch_size: videos in each; at most all of them.
        lr: Adam's step size.
        num_seeds: repetitions, with further seeds.
        seed: of the first repetition.
        device: where to train; auto takes the GPU if there is one.
    """
    import torch

    from lightning_gen.checkpoints import load_data

    model: Any = load(ckpt_path, device, seed)
    if not hasattr(getattr(model, "discriminator", None), "classifier"):
        raise LightningGenError(f"{type(model).__name__} has no discriminator that becomes a classifier; a VGAN has.")
    data: Any = load_data(ckpt_path, root)
    data.setup()
    if not data.num_classes:
        raise LightningGenError(f"{type(data).__name__} has no labels, which are needed here.")
    size = len(data.datasets["train"])
    if not 2 <= num_labels <= size:
        raise LightningGenError(f"num_labels is {num_labels}; expected 2 to {size}, the training videos.")
    held_out = data.datasets["test"].__getitems__(range(len(data.datasets["test"])))

    accuracies: dict[str, list[float]] = {"trained discriminator": [], "random weights": []}
    for current in range(seed, seed + num_seeds):
        torch.manual_seed(current)
        labelled = data.datasets["train"].__getitems__(torch.randperm(size)[:num_labels].tolist())
        for name, found in accuracies.items():
            torch.manual_seed(current)
            discriminator = type(model)(**model.hparams).to(model.device).discriminator
            if name == "trained discriminator":
                discriminator.load_state_dict(model.discriminator.state_dict())
            network = discriminator.classifier(data.num_classes).to(model.device)
            torch.manual_seed(current)
            train(network, labelled["video"], labelled["label"], steps, batch_size, lr)
            found.append(accuracy(network, held_out["video"], held_out["label"]))
    for name, found in accuracies.items():
        values = 100 * torch.tensor(found)
        each = " ".join(f"{value:.1f}" for value in values.tolist())
        print(f"{name:24} {values.mean():5.1f} % of test videos are classified rightly, by seed: {each}")
    print(
        f"{num_labels:,} labelled videos, {data.num_classes} classes, {steps} steps of {min(batch_size, num_labels)}, "
        f"{len(held_out['label']):,} test videos (chance {100 / data.num_classes:.1f} %)."
    )


def train(network: nn.Module, videos: Tensor, labels: Tensor, steps: int, batch_size: int, lr: float) -> None:
    """Descend the cross-entropy on videos in [0, 1], `(N, C, T, H, W)`, in batches drawn without repetition."""
    import torch

    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    network.train()
    for _ in range(steps):
        rows = torch.randperm(len(videos))[:batch_size]
        logits = network(2 * videos[rows].to(device) - 1)
        loss = torch.nn.functional.cross_entropy(logits, labels[rows].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def accuracy(network: nn.Module, videos: Tensor, labels: Tensor) -> float:
    """Share of videos whose most probable class is theirs."""
    import torch

    device = next(network.parameters()).device
    network.eval()
    with torch.no_grad():
        found = torch.cat([network(2 * part.to(device) - 1).argmax(1).cpu() for part in videos.split(100)])
    return (found == labels).float().mean().item()
