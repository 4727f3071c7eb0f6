"""`lightning-gen sample`: images from a checkpoint alone, or from several."""

from __future__ import annotations

from dataclasses import replace
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
    captions: str | None = None,
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
        captions: a text file with a caption in each line; the grid then has a row of num_columns images for each, with
            the caption beside it.
        device: where to sample; auto takes the GPU if there is one.
    """
    if num_samples < 1:
        raise LightningGenError(f"num_samples is {num_samples}; expected at least 1.")
    if captions is not None:
        draw_captions(ckpt_path, output, read_captions(captions), num_columns, condition, seed, device)
        return
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


def read_captions(path: str) -> list[str]:
    """The lines of a text file that are not empty."""
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    if not any(lines):
        raise ConditionError(f"{path} holds no captions; expected one in each line.")
    return [line for line in lines if line]


def draw_captions(
    ckpt_path: list[str],
    output: str,
    captions: list[str],
    num_columns: int,
    condition: Condition,
    seed: int,
    device: Device,
) -> None:
    """Write a row of images for each caption; the same noise stands in each column."""
    if len(ckpt_path) > 1:
        raise LightningGenError(f"{len(ckpt_path)} checkpoints were given; with captions, give one.")
    with new_output(output) as draft:
        import torch

        from lightning_gen.callbacks.files import captioned_grid, write_png

        model = load(ckpt_path[0], device, seed)
        rows = []
        for caption in captions:
            torch.manual_seed(seed)
            rows.append(draw(model, num_columns, replace(condition, caption=caption)))
        write_png(captioned_grid(torch.cat(rows), captions, num_columns), draft)
    print(f"{len(captions)} captions, {num_columns} samples of each, in {output}")


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
