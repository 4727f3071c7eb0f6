"""`lightning-gen activate`: what units of a network want to see, and how chains find it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from lightning_gen.commands.pictures import Device, load, new_output
from lightning_gen.errors import LightningGenError

if TYPE_CHECKING:
    from torch import Tensor, nn

CHUNK = 100  # Chains that run at a time.


def activate(
    ckpt_path: str,
    output: str,
    units: str | None = None,
    num_samples: int = 8,
    every: int | None = None,
    network: str | None = None,
    caption: str | None = None,
    hole: int | None = None,
    reader: str | None = None,
    variant: Literal["dgn_am", "h", "noiseless"] | None = None,
    num_steps: int | None = None,
    epsilons: tuple[float, float, float] | None = None,
    root: str | None = None,
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Draw what classes and hidden units want to see, by the chains of a DGN-AM or a PPGN.

    The picture has a row for each unit; with `every` a row for each chain, with its images every so many steps and the
    last one. The score along the chains is printed: a PPGN's probability, a DGN-AM's activation.

    Args:
        ckpt_path: the checkpoint of a DGN-AM or a PPGN.
        output: a .png.
        units: classes and units of any layer, with commas between them: 3,network.body.5:12 or, with row and column,
            network.body.5:12:3:3; all classes if None.
        num_samples: chains of each unit.
        every: steps from one image of a chain to the next.
        network: checkpoint of the network whose units they are, such as a DigitClassifier; the encoder if None.
        caption: what all images are to show, for a network that scores captions; in the place of units.
        hole: side of a square hole at a random place in test images of the data that the checkpoint was trained on,
            to be completed by a PPGN under their labels; rows of images, holes and completions are drawn.
        reader: checkpoint of a classifier of digits that reads the images: prints how often it sees the class asked
            for, how far images of a class lie apart, and how far a chain moves in its second half.
        variant: a PPGN's that was trained as h can be sampled as another one.
        num_steps: of the chains; the checkpoint's if None.
        epsilons: a PPGN's weights of the prior, of the class and of the noise; the checkpoint's if None.
        root: folder of the data, if it is no longer where it was.
        seed: of the random numbers.
        device: where to draw; auto takes the GPU if there is one.
    """
    numbers = {"num_samples": num_samples, "every": every, "hole": hole, "num_steps": num_steps}
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise LightningGenError(f"{name} is {value}; expected at least 1.")
    with new_output(output) as draft:
        import torch

        from lightning_gen.callbacks.files import image_grid, write_png

        model: Any = load(ckpt_path, device, seed)
        if not hasattr(model, "encoder") or not hasattr(model, "_climb"):
            raise LightningGenError(f"{type(model).__name__} does not climb to units; a DGNAM and a PPGN do.")
        if variant is not None:
            if getattr(model, "variant", None) not in ("h", variant):
                raise LightningGenError("Only a PPGN trained as h can be sampled as another variant.")
            model.variant = variant
        if num_steps is not None:
            model.hparams["num_steps"] = num_steps
        if epsilons is not None:
            model.hparams["epsilons"] = epsilons
        plugged = None if network is None else load_network(network).to(model.device)
        condition = aims(model, plugged, None if units is None else units.split(","), caption, num_samples)
        if hole is not None:
            condition = holes(model, ckpt_path, root, num_samples, hole, seed)
        images, strips, scores = climb(model, plugged, condition, every)
        if hole is not None:
            holed = condition["image"].masked_fill(condition["mask"] > 0.5, 0.5)
            rows = torch.cat([condition["image"], holed, images])
            write_png(image_grid(rows, num_samples), draft)
        elif every is not None:
            write_png(image_grid(strips.transpose(0, 1).flatten(0, 1), len(strips)), draft)
        else:
            write_png(image_grid(images, num_samples), draft)
        report(model, scores)
        if reader is not None:
            read(load_network(reader), images, condition, strips)
            real = test_images(ckpt_path, root)
            print(f"of real test images within a class: {within_class_distance(real['image'], real['label']):.2f}")
    print(f"{len(images)} chains of {model.hparams['num_steps']} steps in {output}")


def load_network(path: str) -> nn.Module:
    """A checkpoint's network, whatever it is, in eval mode on the CPU."""
    from lightning_gen.checkpoints import module_config, read_checkpoint
    from lightning_gen.models.base import ImageModule
    from lightning_gen.nn.frozen import resolve_class

    checkpoint = read_checkpoint(path)
    config = module_config(checkpoint, "hyper_parameters", ImageModule)
    found: Any = resolve_class(config["class_path"], ImageModule)
    network: nn.Module = found(**config["init_args"])
    network.load_state_dict(checkpoint["state_dict"])
    return network.eval()


def aims(
    model: Any, network: nn.Module | None, units: list[str] | None, caption: str | None, num_samples: int
) -> dict[str, Any]:
    """A condition for each chain, unit by unit."""
    import torch

    if caption is not None:
        return {"caption": [caption] * num_samples}
    if units is None:
        with torch.no_grad():
            probe = torch.zeros(1, *model.image_shape, device=model.device)
            logits = model.encoder(probe, ["logits"])[0] if network is None else network(probe)
        units = [str(label) for label in range(logits.shape[1])]
    named = [f"logits:{unit}" if unit.isdecimal() else unit for unit in units]
    return {"unit": [unit for unit in named for _ in range(num_samples)]}


def holes(model: Any, ckpt_path: str, root: str | None, number: int, side: int, seed: int) -> dict[str, Any]:
    """Test images with their labels, and a square hole in each."""
    import torch

    rows = test_images(ckpt_path, root)
    height, width = model.image_shape[1:]
    if len(rows["image"]) < number or max(height, width) <= side:
        raise LightningGenError(
            f"There are {len(rows['image'])} test images of {height} x {width} pixels for "
            f"num_samples={number} and hole={side}."
        )
    rows = {key: value[:number] for key, value in rows.items()}
    generator = torch.Generator().manual_seed(seed)
    top = torch.randint(height - side + 1, (number, 1, 1, 1), generator=generator)
    left = torch.randint(width - side + 1, (number, 1, 1, 1), generator=generator)
    y, x = torch.arange(height)[:, None], torch.arange(width)
    mask = (y >= top) & (y < top + side) & (x >= left) & (x < left + side)
    return {"label": rows["label"], "image": rows["image"], "mask": mask.float()}


def test_images(ckpt_path: str, root: str | None) -> dict[str, Any]:
    """All test images and labels of the data that a checkpoint was trained on."""
    from lightning_gen.checkpoints import load_data

    data: Any = load_data(ckpt_path, root)
    data.setup()
    dataset = data.datasets["test"]
    return dataset.__getitems__(range(len(dataset)))


def climb(
    model: Any, network: nn.Module | None, condition: dict[str, Any], every: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Images `(N, C, H, W)`, images along the chains `(T, N, C, H, W)` and scores `(steps, N)`, on the CPU."""
    import torch
    from rich.progress import Progress

    number, steps = len(next(iter(condition.values()))), model.hparams["num_steps"]
    period = every or max(steps // 2, 1)
    parts = []
    with Progress(transient=True) as bar:
        task = bar.add_task("Steps", total=steps * -(-number // CHUNK))
        for start in range(0, number, CHUNK):
            rows = {key: value[start : start + CHUNK] for key, value in condition.items()}
            seen: list[Tensor] = []
            scores: list[Tensor] = []

            def watch(step: int, images: Tensor, shown: Tensor, seen: Any = seen, scores: Any = scores) -> None:
                scores.append(shown.cpu())
                if step % period == 0:
                    seen.append(images.cpu())
                bar.advance(task)

            size = min(CHUNK, number - start)
            images = model.sample(size, rows, network=network, watch=watch).cpu()
            parts.append((images, torch.stack([*seen, images]), torch.stack(scores)))
    drawn, strips, along = zip(*parts, strict=True)
    return torch.cat(drawn), torch.cat(strips, 1), torch.cat(along, 1)


def report(model: Any, scores: Tensor) -> None:
    """Print the mean score along the chains."""
    is_probability = hasattr(model, "variant")
    values = scores.exp() if is_probability else scores
    steps = sorted({0, len(values) // 4, len(values) // 2, 3 * len(values) // 4, len(values) - 1})
    means = "  ".join(f"{step}: {values[step].mean():.3f}" for step in steps)
    print(f"mean {'probability' if is_probability else 'activation'} at step {means}")


def read(reader: nn.Module, images: Tensor, condition: dict[str, Any], strips: Tensor) -> None:
    """Print what another classifier reads, and how images of a class differ."""
    import torch

    labels = condition.get("label")
    if labels is None:
        asked = [unit.partition(":") for unit in condition.get("unit", ())]
        if not asked or any(layer != "logits" for layer, _, _ in asked):
            raise LightningGenError("A reader reads classes; leave it out for hidden units and captions.")
        labels = torch.tensor([int(channel) for _, _, channel in asked])
    with torch.no_grad():
        agreement = (reader(images).argmax(1) == labels).float().mean().item()
    error = (agreement * (1 - agreement) / len(images)) ** 0.5
    print(f"read as asked: {100 * agreement:.1f} ± {100 * error:.1f} % of {len(images)}")
    apart = within_class_distance(images, labels)
    middle = strips[len(strips) // 2]
    moved = (images - middle).flatten(1).norm(dim=1).mean().item()
    print(f"mean distance within a class: {apart:.2f}; of a chain's image at half time from its last: {moved:.2f}")


def within_class_distance(images: Tensor, labels: Tensor) -> float:
    """Mean Euclidean distance of the pairs of images of a label, over labels, in units of the images' range."""
    import torch

    groups = [images[labels == label].flatten(1) for label in labels.unique()]
    distances = [torch.pdist(group).mean() for group in groups if len(group) > 1]
    return torch.stack(distances).mean().item() if distances else float("nan")
