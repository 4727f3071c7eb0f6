"""`lightning-gen sample`: images from a checkpoint alone, or from several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lightning_gen.commands.pictures import Condition, Device, load, new_output
from lightning_gen.errors import ConditionError, LightningGenError

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_gen.models.base import GenerativeModule

CHUNK = 100  # Images drawn at a time.


def sample(
    ckpt_path: list[str],
    output: str,
    num_samples: int = 64,
    condition: Condition = Condition(),  # noqa: B008
    seed: int = 0,
    num_columns: int = 8,
    device: Device = "auto",
) -> None:
    """Write images from a checkpoint.

    Args:
        ckpt_path: the checkpoint; nothing else of the run is needed. Several (--ckpt_path A --ckpt_path B), as of
            models that draw a few classes each, are sampled in turn, under a label by those that know it.
        output: a .png for one grid, or a new folder for one PNG of each image.
        num_samples: how many images.
        condition: what they are conditioned on; a class-conditional model draws labels if none is given.
        seed: of the random numbers.
        num_columns: of the grid.
        device: where to sample; auto takes the GPU if there is one.
    """
    if num_samples < 1:
        raise LightningGenError(f"num_samples is {num_samples}; expected at least 1.")
    with new_output(output, folders=True) as draft:
        import torch

        models = that_fit(condition, of_one_kind({path: load(path, device, seed) for path in ckpt_path}))[:num_samples]
        shares = [len(range(turn, num_samples, len(models))) for turn in range(len(models))]
        drawn = [draw(model, share, condition) for model, share in zip(models, shares, strict=True)]
        images = torch.empty(num_samples, *drawn[0].shape[1:])
        for turn, part in enumerate(drawn):
            images[turn :: len(drawn)] = part
        save(images, draft, num_columns)
    print(f"{num_samples} samples in {output}")


def draw(model: GenerativeModule, num_samples: int, condition: Condition) -> Tensor:
    """Images from the random stream as it stands, `(num_samples, *image_shape)` on the CPU."""
    import torch

    sizes = [min(CHUNK, num_samples - start) for start in range(0, num_samples, CHUNK)]
    return torch.cat([model.sample(size, condition.rows(size)).cpu() for size in sizes])


def of_one_kind(models: dict[str, GenerativeModule]) -> list[GenerativeModule]:
    """Models that are sampled together, by their checkpoints, if they draw the same kind of images."""
    kinds = {f"{type(model).__name__} of {model.image_shape}": path for path, model in models.items()}
    if len(kinds) > 1:
        found = ", ".join(f"{path} of {kind}" for kind, path in kinds.items())
        raise LightningGenError(f"The checkpoints are of different models: {found}; sample those of a kind together.")
    return list(models.values())


def that_fit(condition: Condition, models: list[GenerativeModule]) -> list[GenerativeModule]:
    """Those of several models that take the condition, as those whose classes hold its label."""
    if len(models) == 1 or condition == Condition():
        return models
    fitting, refusals = [], []
    for model in models:
        try:
            model.check_condition(condition.rows(1), 1)
            fitting.append(model)
        except ConditionError as error:
            refusals.append(str(error))
    if not fitting:
        raise ConditionError(f"No checkpoint of {len(models)} takes this: {' '.join(dict.fromkeys(refusals))}")
    return fitting


def save(images: Tensor, path: Path, num_columns: int) -> None:
    """Write a grid, or a folder of single images."""
    from lightning_gen.callbacks.files import image_grid, write_png

    if path.suffix:
        write_png(image_grid(images, num_columns), path)
        return
    for index in range(len(images)):
        write_png(image_grid(images[index : index + 1], 1, padding=0), path / f"{index:05}.png")
