"""`lightning-gen arithmetic`: sums and differences of noise vectors, as images."""

from __future__ import annotations

from typing import Any

from lightning_gen.commands.pictures import Condition, Device, decode, load, new_output, require_latent
from lightning_gen.errors import LightningGenError


def arithmetic(
    ckpt_path: str,
    output: str,
    start: list[int],
    minus: list[int],
    plus: list[int],
    num_samples: int = 64,
    noise: float = 0.25,
    condition: Condition = Condition(),  # noqa: B008
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Draw start - minus + plus, each the mean noise of samples of one kind (Radford et al. 2016, figure 7).

    `lightning-gen sample` with the same `seed` and `num_samples` shows what there is to choose from; the first image is
    number 0, and numbers grow along rows. The paper takes three samples of a kind, as the noise of a single one is
    unstable under sums. Rows of the picture: the samples of one kind, the image of their mean, and a row of a square of
    nine, with the result in its middle and variations of it around.

    Args:
        ckpt_path: the checkpoint of any model with `sample_latent` and `decode`.
        output: a .png.
        start: numbers of the samples to start from, as in [3,8,21].
        minus: numbers of the samples whose mean is taken away.
        plus: numbers of the samples whose mean is added.
        num_samples: samples to choose from.
        noise: half width of the uniform noise that makes the variations.
        condition: what all images are conditioned on, for models that take it.
        seed: of the random numbers.
        device: where to draw; auto takes the GPU if there is one.
    """
    kinds = {"start": start, "minus": minus, "plus": plus}
    for name, numbers in kinds.items():
        if not numbers or not all(0 <= number < num_samples for number in numbers):
            raise LightningGenError(f"{name} is {numbers}; expected numbers from 0 to {num_samples - 1}, as in [3,8].")
    with new_output(output) as draft:
        import torch

        from lightning_gen.callbacks.files import image_grid, write_png

        model: Any = load(ckpt_path, device, seed)
        require_latent(model, condition)
        z = model.sample_latent(num_samples)
        means = {name: z[numbers].mean(0) for name, numbers in kinds.items()}
        result = means["start"] - means["minus"] + means["plus"]
        square = result + noise * (2 * torch.rand(9, *result.shape, device=z.device) - 1)
        square[4] = result

        columns = max(map(len, kinds.values()))
        rows = []
        for index, (name, numbers) in enumerate(kinds.items()):
            row = torch.cat([z[numbers], means[name][None], square[3 * index : 3 * index + 3]])
            members, mean, variations = decode(model, row, condition).split([len(numbers), 1, 3])
            white = torch.ones_like(mean)
            gap = white.expand(columns - len(numbers) + 1, *mean.shape[1:])
            rows += [members, gap, mean, white, variations]
        write_png(image_grid(torch.cat(rows), columns + 6), draft)
    print(f"{start} - {minus} + {plus} in {output}")
