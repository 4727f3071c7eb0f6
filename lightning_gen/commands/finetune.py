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
    change from seed to seed. Below stands logistic regression on what the last of these layers gives as it was before,
    of either network. The test videos are scored once, at the end.

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

    names = ["trained discriminator", "random weights"]
    accuracies: dict[str, list[float]] = {f"{name}{how}": [] for how in ("", ", linear") for name in names}
    for current in range(seed, seed + num_seeds):
        torch.manual_seed(current)
        labelled = data.datasets["train"].__getitems__(torch.randperm(size)[:num_labels].tolist())
        for name in names:
            torch.manual_seed(current)
            discriminator = type(model)(**model.arguments).to(model.device).discriminator
            if name == "trained discriminator":
                discriminator.load_state_dict(model.discriminator.state_dict())
            network = discriminator.classifier(data.num_classes).to(model.device)
            rows = features(network[0], labelled["video"]), features(network[0], held_out["video"])
            machine = logistic_regression(rows[0], labelled["label"], data.num_classes)
            right = machine(rows[1]).argmax(1) == held_out["label"]
            accuracies[f"{name}, linear"].append(right.float().mean().item())
            torch.manual_seed(current)
            train(network, labelled["video"], labelled["label"], steps, batch_size, lr)
            accuracies[name].append(accuracy(network, held_out["video"], held_out["label"]))
    for name, found in accuracies.items():
        values = 100 * torch.tensor(found)
        each = " ".join(f"{value:.1f}" for value in values.tolist())
        print(f"{name:30} {values.mean():5.1f} % of test videos are classified rightly, by seed: {each}")
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


def features(layers: nn.Module, videos: Tensor) -> Tensor:
    """What the layers give for videos in [0, 1], in evaluation: `(N, C, T, H, W) -> (N, D)`, on the CPU."""
    import torch

    device = next(layers.parameters()).device
    layers.eval()
    with torch.no_grad():
        return torch.cat([layers(2 * part.to(device) - 1).flatten(1).cpu() for part in videos.split(100)])


def logistic_regression(x: Tensor, labels: Tensor, num_classes: int) -> nn.Module:
    """The minimum of the summed cross-entropy and half the squared weights, for rows with standard deviation 1.

    Args:
        x: `(N, D)`; scaled by the mean and the deviation of each column, which further rows are too.
        labels: `(N,)`, int64.
        num_classes: K.

    Returns:
        A network `(M, D)` -> logits `(M, K)`.
    """
    import torch

    mean, deviation = x.mean(0), x.std(0).clamp(min=1e-6)
    linear = torch.nn.Linear(x.shape[1], num_classes)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    optimizer = torch.optim.LBFGS(linear.parameters(), max_iter=500, line_search_fn="strong_wolfe")
    scaled = (x - mean) / deviation

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(linear(scaled), labels, reduction="sum")
        value = value + 0.5 * linear.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        linear.weight.div_(deviation)
        linear.bias.sub_(linear.weight @ mean)
    return linear


def accuracy(network: nn.Module, videos: Tensor, labels: Tensor) -> float:
    """Share of videos whose most probable class is theirs."""
    import torch

    device = next(network.parameters()).device
    network.eval()
    with torch.no_grad():
        found = torch.cat([network(2 * part.to(device) - 1).argmax(1).cpu() for part in videos.split(100)])
    return (found == labels).float().mean().item()
