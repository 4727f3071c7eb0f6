import math

import pytest
import torch
from torch import Tensor

from lightning_gen.models import DRAW
from tests.references import draw as paper
from tests.references.compare import BFLOAT16, binary, close, in_bfloat16, parameters_of, shaken

BATCH, GLIMPSES, LATENTS, READ, WRITE = 3, 4, 3, 2, 3
SHAPES = [(1, 5, 7), (3, 6, 5)]


def tiny(shape: tuple[int, ...], attention: bool, std: float = 0.4) -> tuple[DRAW, Tensor]:
    model = DRAW(
        shape,
        attention=attention,
        num_glimpses=GLIMPSES,
        read_size=READ,
        write_size=WRITE,
        hidden_size=6,
        latent_dim=LATENTS,
    )
    return shaken(model, std), binary(BATCH, *shape)


def runs_of(model: DRAW, images: Tensor, seed: int, draws: int = 1) -> list[list[tuple[Tensor, float, float]]]:
    """The reference's runs of each image, with the noise that the model draws after this seed."""
    torch.manual_seed(seed)
    eps = torch.stack([model.draw_noise(BATCH) for _ in range(draws)]).double()  # (draws, T, N, J)
    torch.manual_seed(seed)
    p, sizes = parameters_of(model), (READ, WRITE) if model.hparams["attention"] else (None, None)
    return [[paper.run(x.double(), eps[k, :, n], p, *sizes) for k in range(draws)] for n, x in enumerate(images)]


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_bounds(shape: tuple[int, ...], attention: bool) -> None:
    model, images = tiny(shape, attention)
    expected = [
        -paper.reconstruction_loss(x, canvas) - loss_z
        for x, [(canvas, loss_z, _)] in zip(images, runs_of(model, images, 3), strict=True)
    ]
    close(model.elbo(images), torch.tensor(expected, dtype=torch.float64))
    torch.manual_seed(3)
    close(model.training_step({"image": images}, 0), -torch.tensor(expected, dtype=torch.float64).mean())
    expected = []
    for x, runs in zip(images, runs_of(model, images, 4, draws=3), strict=True):
        weights = [math.exp(log_ratio - paper.reconstruction_loss(x, canvas)) for canvas, _, log_ratio in runs]
        expected.append(math.log(sum(weights) / 3))
    close(model.log_prob(images, num_importance_samples=3), torch.tensor(expected, dtype=torch.float64))


def test_bound_in_bfloat16() -> None:
    """In each of 4 glimpses, 6 layers round sums of at most 1/2 to 2^-8; the canvas errs by as much, and so does the
    log-probability of each of 35 pixels. Of either sign, these add up as the root of their number, here doubled.
    """
    model, images = tiny(SHAPES[0], True, std=0.1)
    in_bfloat16(model)
    images = images.bfloat16()
    expected = [
        -paper.reconstruction_loss(x, canvas) - loss_z
        for x, [(canvas, loss_z, _)] in zip(images, runs_of(model, images, 3), strict=True)
    ]
    close(
        model.elbo(images),
        torch.tensor(expected, dtype=torch.float64),
        rtol=0,
        atol=(35 * GLIMPSES * 6) ** 0.5 * BFLOAT16,
    )
