"""`lightning-gen move`: the same noise and words while a box, or keypoints, go from one place to another."""

from __future__ import annotations

from typing import Any

from lightning_gen.commands.pictures import Condition, Device, load, new_output, require_latent
from lightning_gen.errors import LightningGenError


def move(
    ckpt_path: str,
    output: str,
    condition: Condition,
    to: Condition,
    num_samples: int = 8,
    num_steps: int = 8,
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Draw what a model makes of a place that moves, grows or is stretched (Reed et al. 2016, figures 4 and 5).

    The first row shows the places, each other one what the same noise becomes in them.

    Args:
        ckpt_path: the checkpoint of a GAWWN.
        output: a .png.
        condition: what all images are conditioned on, with the first box or keypoints.
        to: the last box or keypoints; those between lie on straight lines. Nothing else.
        num_samples: rows, each with noise of its own.
        num_steps: images in a row, both ends included, at least 2.
        seed: of the noise.
        device: where to draw; auto takes the GPU if there is one.
    """
    if num_steps < 2 or num_samples < 1:
        raise LightningGenError(f"num_steps is {num_steps} and num_samples {num_samples}; expected at least 2 and 1.")
    first, last = condition.rows(1) or {}, to.rows(1) or {}
    if len(last) != 1 or not last.keys() <= first.keys() & {"box", "keypoints"}:
        raise LightningGenError(
            f"A way from {sorted(first)} to {sorted(last)} was asked for; give --condition.box and --to.box, or "
            "--condition.keypoints and --to.keypoints."
        )
    with new_output(output) as draft:
        import torch

        from lightning_gen.callbacks.files import image_grid, write_png
        from lightning_gen.functional.placement import keypoint_maps, paste_boxes

        model: Any = load(ckpt_path, device, seed)
        require_latent(model, condition)
        ((key, end),) = last.items()
        if end.shape != first[key].shape:
            raise LightningGenError(f"--condition.{key} and --to.{key} differ in how many numbers they hold.")
        way = torch.lerp(first[key], end, torch.linspace(0, 1, num_steps).view(-1, *[1] * (end.ndim - 1)))
        z = model.sample_latent(num_samples)
        side = model.image_shape[1]
        if key == "box":
            shown = paste_boxes(torch.ones(num_steps, 1, side, side), way)
        else:
            shown = keypoint_maps(way, side).amax(1, keepdim=True)
        pictures = [shown.expand(-1, model.image_shape[0], -1, -1)]
        with model.evaluating(), torch.no_grad():
            for noise in z:
                rows = {**(condition.rows(num_steps) or {}), key: way}
                pictures.append(model.decode(noise.expand(num_steps, -1), rows).cpu())
        write_png(image_grid(torch.cat(pictures), num_steps), draft)
    print(f"{num_samples} rows of {num_steps} places in {output}")
