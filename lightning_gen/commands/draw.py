"""`lightning-gen draw`: how images come to be, a DRAW's glimpse by glimpse or a LAPGAN's level by level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_gen.commands.pictures import Condition, Device, load, new_output
from lightning_gen.errors import LightningGenError

if TYPE_CHECKING:
    from torch import Tensor

READ, WRITTEN = (0.2, 0.6, 1.0), (1.0, 0.2, 0.2)  # blue and red
PAUSE = 2000  # Milliseconds that the last frame of an animation stands.


def draw(
    ckpt_path: str,
    output: str,
    num_samples: int = 16,
    condition: Condition = Condition(),  # noqa: B008
    redraw: bool = False,
    boxes: bool = True,
    num_columns: int = 8,
    scale: int = 4,
    milliseconds: int = 100,
    root: str | None = None,
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Write the canvases of samples, with the windows that the model attends to (figures 1 and 7 of DRAW's paper).

    A .gif shows all samples at once, one frame for each glimpse or level; a .png has a row for each sample, with
    canvases evenly spaced in time, the last one among them. Red boxes are where the model writes, blue ones where it
    reads; the border is as wide as the filters (within 1 to 4 `scale` pixels).

    Args:
        ckpt_path: the checkpoint of a DRAW or a LAPGAN.
        output: a .gif or a .png.
        num_samples: how many images.
        condition: what they are conditioned on; a class-conditional model draws labels if none is given.
        redraw: let a DRAW look at test images of the data that the checkpoint was trained on and draw them again, with
            the windows that read; else draw samples. In a .png the image itself comes first in its row.
        boxes: whether the windows are drawn.
        num_columns: images in a row of the animation, or canvases in a row of the .png.
        scale: side of an image's pixel in the picture.
        milliseconds: between two frames.
        root: folder of the data, if it is no longer where it was.
        seed: of the random numbers.
        device: where to draw; auto takes the GPU if there is one.
    """
    numbers = {"num_samples": num_samples, "num_columns": num_columns, "scale": scale, "milliseconds": milliseconds}
    for name, value in numbers.items():
        if value < 1:
            raise LightningGenError(f"{name} is {value}; expected at least 1.")
    with new_output(output, (".gif", ".png")) as draft:
        import torch

        from lightning_gen.callbacks.files import image_grid, write_png
        from lightning_gen.callbacks.videos import write_gif

        model: Any = load(ckpt_path, device, seed)
        images = None
        windows: tuple[Any, ...] = ()
        if hasattr(model, "stages") and not redraw:
            side = model.image_shape[-1]  # The smaller images in squares, as large as the last one.
            stages = model.stages(num_samples, condition.rows(num_samples))
            canvases = torch.stack([torch.nn.functional.interpolate(stage, size=side) for stage in stages])
        elif hasattr(model, "redraw"):
            model.check_condition(condition.rows(num_samples), num_samples)
            images = held_out_images(ckpt_path, root, num_samples).to(model.device) if redraw else None
            drawing = model.draw(num_samples) if images is None else model.redraw(images)
            canvases = drawing.canvases
            windows = ((drawing.write_boxes, WRITTEN), (drawing.read_boxes, READ)) if boxes else ()
        else:
            what = "draws no image again" if redraw else "does not draw step by step; a DRAW or a LAPGAN does"
            raise LightningGenError(f"{type(model).__name__} {what}.")
        frames = outlined(canvases, windows, scale)  # (T, N, 3, H, W)
        if draft.suffix == ".gif":
            write_gif([image_grid(frame, num_columns) for frame in frames], draft, milliseconds, PAUSE)
        else:
            steps = torch.linspace(0, len(frames) - 1, min(num_columns, len(frames))).round().long()
            rows = frames[steps]
            if images is not None:
                rows = torch.cat([outlined(images[None], (), scale), rows])
            write_png(image_grid(rows.transpose(0, 1).flatten(0, 1), len(rows)), draft)
    print(f"{num_samples} drawings of {len(frames)} steps in {output}")


def held_out_images(ckpt_path: str, root: str | None, number: int) -> Tensor:
    """The first test images of the data that a checkpoint was trained on, `(number, C, H, W)`."""
    from lightning_gen.checkpoints import load_data

    data: Any = load_data(ckpt_path, root)
    data.setup()
    dataset = data.datasets["test"]
    if len(dataset) < number:
        raise LightningGenError(f"num_samples is {number}; {type(data).__name__} has {len(dataset)} test images.")
    return dataset.__getitems__(range(number))["image"]


def outlined(canvases: Tensor, windows: tuple[tuple[Tensor | None, tuple[float, ...]], ...], scale: int) -> Tensor:
    """Canvases `(T, N, C, H, W)` in colour, larger, and with windows `(T, N, 5)` as rectangles of a colour."""
    import torch

    pictures = canvases.cpu().repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    pictures = pictures.expand(-1, -1, 3, -1, -1)
    height, width = pictures.shape[-2:]
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    for boxes, colour in windows:
        if boxes is None:
            continue
        left, top, across, down, sigma = (boxes.cpu() * torch.tensor([width, height, width, height, width])).unbind(-1)
        beyond_x = torch.maximum(left[..., None] - x, x - (left + across)[..., None])  # Negative inside.
        beyond_y = torch.maximum(top[..., None] - y, y - (top + down)[..., None])
        distance = torch.maximum(beyond_x[..., None, :], beyond_y[..., None])  # (T, N, H, W)
        border = distance.abs() <= sigma.clamp(1, 4 * scale)[..., None, None] / 2
        pictures = torch.where(border[:, :, None], torch.tensor(colour)[:, None, None], pictures)
    return pictures
