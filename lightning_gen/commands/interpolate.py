"""`lightning-gen interpolate`: the images on the way from one noise vector or caption to another."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from lightning_gen.commands.pictures import Condition, Device, decode, load, new_output, require_latent
from lightning_gen.errors import LightningGenError

if TYPE_CHECKING:
    from torch import Tensor


def interpolate(
    ckpt_path: str,
    output: str,
    num_points: int = 9,
    num_steps: int = 10,
    spherical: bool = False,
    condition: Condition = Condition(),  # noqa: B008
    captions: list[str] | None = None,
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Walk between random points of a model's latent space (Radford et al. 2016, figure 4), or between captions.

    Each row of the picture goes from one point to the next, the last row back to the first point. A model that has
    learned more than single images changes smoothly on the way.

    Between captions (Reed et al. 2016, figure 8) the point stands still in each row, and what the text encoder makes of
    the captions changes, from the first caption to the next ones.

    Args:
        ckpt_path: the checkpoint of any model with `sample_latent` and `decode`.
        output: a .png.
        num_points: random points, at least 2.
        num_steps: images in a row, both ends included, at least 2.
        spherical: walk along great circles, which suits Gaussian and spherical noise; else along straight lines.
        condition: what all images are conditioned on, for models that take it.
        captions: at least two (--captions A --captions B), for models that draw captions.
        seed: of the random numbers.
        device: where to draw; auto takes the GPU if there is one.
    """
    for name, value in {"num_points": num_points, "num_steps": num_steps}.items():
        if value < 2:
            raise LightningGenError(f"{name} is {value}; expected at least 2.")
    with new_output(output) as draft:
        import torch

        from lightning_gen.callbacks.files import image_grid, write_png
        from lightning_gen.functional import interpolate as between

        model: Any = load(ckpt_path, device, seed)
        if captions is not None:
            images = between_captions(model, captions, num_points, num_steps)
            write_png(image_grid(images, num_steps * (len(captions) - 1)), draft)
            print(f"{num_points} walks from caption to caption in {output}")
            return
        require_latent(model, condition)
        points = model.sample_latent(num_points)
        rows = [between(points[i - 1], points[i], num_steps, spherical) for i in (*range(1, num_points), 0)]
        write_png(image_grid(decode(model, torch.cat(rows), condition), num_steps), draft)
    print(f"{num_points} walks of {num_steps} images in {output}")


def between_captions(model: Any, captions: list[str], num_points: int, num_steps: int) -> Tensor:
    """Images of each of so many random points on the way from caption to caption, on the CPU."""
    import torch

    from lightning_gen.functional import interpolate as between

    if "caption" not in model.condition_keys or len(captions) < 2:
        raise LightningGenError(
            f"{type(model).__name__} got {len(captions)} captions to walk between; expected at least two, and a model "
            "that draws captions, such as GANINTCLS."
        )
    ends = model.embed_captions(captions)
    way = torch.cat([between(start, end, num_steps) for start, end in pairwise(ends)])
    points = model.sample_latent(num_points).repeat_interleave(len(way), 0)
    with model.evaluating(), torch.no_grad():
        return model.decode(points, {"text_embedding": way.repeat(num_points, 1)}).cpu()
