"""`lightning-gen sample`: images from a checkpoint alone."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from lightning_gen.errors import LightningGenError

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 100  # Images drawn at a time.


@dataclass
class Condition:
    """What all samples are conditioned on, for models that take it.

    Args:
        label: class of every image.
        caption: description of every image.
    """

    label: int | None = None
    caption: str | None = None


def sample(
    ckpt_path: str,
    output: str,
    num_samples: int = 64,
    condition: Condition = Condition(),  # noqa: B008
    seed: int = 0,
    num_columns: int = 8,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
) -> None:
    """Write images from a checkpoint.

    Args:
        ckpt_path: the checkpoint; nothing else of the run is needed.
        output: a .png for one grid, or a new folder for one PNG of each image.
        num_samples: how many images.
        condition: what they are conditioned on; a class-conditional model draws labels if none is given.
        seed: of the random numbers.
        num_columns: of the grid.
        device: where to sample; auto takes the GPU if there is one.
    """
    target = Path(output)
    if num_samples < 1:
        raise LightningGenError(f"num_samples is {num_samples}; expected at least 1.")
    if target.suffix not in ("", ".png"):
        raise LightningGenError(
            f"The output {output} ends in {target.suffix}; expected .png, or a folder without suffix."
        )
    if target.is_dir() if target.suffix else target.exists():
        raise LightningGenError(f"The output {output} is there already and is not a .png file; give another name.")
    try:  # A folder beside the output takes what is half-written, and shows now whether writing is possible.
        scratch = TemporaryDirectory(prefix=".sample-", dir=target.absolute().parent)
    except OSError as error:
        raise LightningGenError(f"The output {output} cannot be written: {error.strerror}.") from error
    with scratch as folder:
        draft = Path(folder) / target.name
        images = draw(
            ckpt_path, num_samples, {k: v for k, v in asdict(condition).items() if v is not None}, seed, device
        )
        save(images, draft, num_columns)
        os.replace(draft, target)
    print(f"{num_samples} samples in {output}")


def draw(ckpt_path: str, num_samples: int, condition: dict[str, Any], seed: int, device: str) -> Tensor:
    """Sample a checkpoint's model in chunks, `(num_samples, *image_shape)` on the CPU."""
    import torch

    from lightning_gen.checkpoints import load_model

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if device == "auto":
        device = accelerator.type if accelerator else "cpu"
    elif device != "cpu" and (accelerator is None or device != accelerator.type):
        raise LightningGenError(f"There is no {device} device here; give --device auto or cpu.")
    model = load_model(ckpt_path).to(device)
    torch.manual_seed(seed)
    images = []
    for start in range(0, num_samples, CHUNK):
        rows = min(CHUNK, num_samples - start)
        given = {k: [v] * rows if isinstance(v, str) else torch.full((rows,), v) for k, v in condition.items()}
        images.append(model.sample(rows, given or None).cpu())
    return torch.cat(images)


def save(images: Tensor, path: Path, num_columns: int) -> None:
    """Write a grid, or a folder of single images."""
    from lightning_gen.callbacks.files import image_grid, write_png

    if path.suffix:
        write_png(image_grid(images, num_columns), path)
        return
    for index in range(len(images)):
        write_png(image_grid(images[index : index + 1], 1, padding=0), path / f"{index:05}.png")
