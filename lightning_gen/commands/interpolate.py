"""`lightning-gen interpolate`: the images on the way from one noise vector to another."""

from __future__ import annotations

from typing import Any

from lightning_gen.commands.pictures import Condition, Device, decode, load, new_output, require_latent
from lightning_gen.errors import LightningGenError


def interpolate(
    ckpt_path: str,
    output: str,
    num_points: int = 9,
    num_steps: int = 10,
    spherical: bool = False,
    condition: Condition = Condition(),  # noqa: B008
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Walk between random points of a model's latent space (Radford et al. 2016, figure 4).

    Each row of the picture goes from one point to the next, the last row back to the first point. A model that has
    learned more than single images changes smoothly on the way.

    Args:
        ckpt_path: the checkpoint of any model with `sample_latent` and `decode`.
        output: a .png.
        num_points: random points, at least 2.
        num_steps: images in a row, both ends included, at least 2.
        spherical: walk along great circles, which suits Gaussian and spherical noise; else along straight lines.
        condition: what all images are conditioned on, for models that take it.
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
        require_latent(model, condition)
        points = model.sample_latent(num_points)
        rows = [between(points[i - 1], points[i], num_steps, spherical) for i in (*range(1, num_points), 0)]
        write_png(image_grid(decode(model, torch.cat(rows), condition), num_steps), draft)
    print(f"{num_points} walks of {num_steps} images in {output}")
