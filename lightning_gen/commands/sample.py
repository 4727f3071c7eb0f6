"""`lightning-gen sample`: images or videos from a checkpoint alone, or from several."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_gen.commands.pictures import Condition, Device, load, new_output
from lightning_gen.errors import ConditionError, LightningGenError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
    milliseconds: int = 100,
    root: str | None = None,
    captions: str | None = None,
    device: Device = "auto",
) -> None:
    """Write images or videos from a checkpoint.

    Where a model continues given frames of a video, these have a blue border and its own an orange one. If no video is
    given, the test clips of the data that the checkpoint was trained on are continued, each beside what truly happened;
    a model that makes a video of a still frame is given the first frames of these.

    Args:
        ckpt_path: the checkpoint; nothing else of the run is needed. Several (--ckpt_path A --ckpt_path B), as of
            models that draw a few classes each, are sampled in turn, under a label by those that know it.
        output: a .png for one grid, or a new folder for one PNG of each image; of videos a .gif or an .mp4, a .png with
            a row of frames for each, or a new folder for one GIF of each.
        num_samples: how many images.
        condition: what they are conditioned on; a class-conditional model draws labels if none is given.
        seed: of the random numbers.
        num_columns: of the grid.
        milliseconds: between two frames of a video.
        root: folder of the test clips, if it is no longer where it was.
        captions: a text file with a caption in each line; the grid then has a row of num_columns images for each, with
            the caption beside it.
        device: where to sample; auto takes the GPU if there is one.
    """
    if num_samples < 1:
        raise LightningGenError(f"num_samples is {num_samples}; expected at least 1.")
    if milliseconds < 1:
        raise LightningGenError(f"milliseconds is {milliseconds}; expected at least 1.")
    if captions is not None:
        draw_captions(ckpt_path, output, read_captions(captions), num_columns, condition, seed, device)
        return
    with new_output(output, (".png", ".gif", ".mp4"), folders=True) as draft:
        import torch

        from lightning_gen.callbacks.files import image_grid, write_png

        models = that_fit(condition, of_one_kind({path: load(path, device, seed) for path in ckpt_path}))[:num_samples]
        is_video = models[0].data_key == "video"
        if draft.suffix in (".gif", ".mp4") and not is_video:
            raise LightningGenError(
                f"{type(models[0]).__name__} draws images; give a .png, or a folder without suffix."
            )
        turns = [slice(turn, num_samples, len(models)) for turn in range(len(models))]
        clips = held_out_clips(ckpt_path[0], root, models[0], num_samples, condition)
        images: Any = None
        for model, turn in zip(models, turns, strict=True):
            places = range(num_samples)[turn]
            for part in parts(model, len(places), condition, {key: rows[turn] for key, rows in clips.items()}):
                own, places = places[: len(part)], places[len(part) :]
                if not draft.suffix and not is_video:  # As they come: there may be more of them than memory.
                    write_images(part, draft, own)
                    continue
                images = torch.empty(num_samples, *part.shape[1:]) if images is None else images
                images[list(own)] = part
        if is_video:
            save_videos(images, draft, num_columns, milliseconds, models[0].context_frames, clips.get("video"))
        elif draft.suffix:
            write_png(image_grid(images, num_columns), draft)
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

    return torch.cat(list(parts(model, num_samples, condition)))


def parts(
    model: GenerativeModule, num_samples: int, condition: Condition, clips: dict[str, Tensor] | None = None
) -> Iterator[Tensor]:
    """The same, a few images at a time.

    Args:
        model: what is sampled.
        num_samples: how many.
        condition: of all samples.
        clips: the conditions of each sample by itself, in the place of the one of all.
    """
    for start in range(0, num_samples, CHUNK):
        size = min(CHUNK, num_samples - start)
        rows = {key: values[start : start + size] for key, values in clips.items()} if clips else condition.rows(size)
        yield model.sample(size, rows).cpu()


def held_out_clips(
    ckpt_path: str, root: str | None, model: GenerativeModule, number: int, condition: Condition
) -> dict[str, Tensor]:
    """What a model that continues videos or frames is given if nothing else is: the first test clips of its data."""
    if model.data_key != "video" or not {"video", "image"} & set(model.condition_keys) or condition != Condition():
        return {}
    from lightning_gen.commands.data import Data

    batch = Data(ckpt_path, root).first("test", number, "num_samples")
    return {key: batch[key] for key in model.condition_keys}


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


def write_images(images: Tensor, folder: Path, numbers: Iterable[int]) -> None:
    """Write single images into a folder, by their numbers."""
    from lightning_gen.callbacks.files import image_grid, write_png

    for number, image in zip(numbers, images, strict=True):
        write_png(image_grid(image[None], 1, padding=0), folder / f"{number:05}.png")


def save_videos(
    videos: Tensor, path: Path, num_columns: int, milliseconds: int, context_frames: int, real: Tensor | None
) -> None:
    """Write an animation of all videos, a row of frames for each, or a folder of animations."""
    from lightning_gen.callbacks.files import write_png
    from lightning_gen.callbacks.videos import film_frames, film_strips, write_gif, write_mp4

    if path.suffix == ".png":
        write_png(film_strips(videos, context_frames, real), path)
    elif path.suffix:
        write = write_gif if path.suffix == ".gif" else write_mp4
        write(film_frames(videos, num_columns, context_frames, real), path, milliseconds)
    else:
        for row in range(len(videos)):
            own = slice(row, row + 1)
            frames = film_frames(videos[own], 1, context_frames, None if real is None else real[own])
            write_gif(frames, path / f"{row:05}.gif", milliseconds)
