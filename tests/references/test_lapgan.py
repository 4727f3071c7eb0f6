import pytest
import torch

from lightning_gen.functional import downsample, laplacian_pyramid, reconstruct_pyramid, upsample
from lightning_gen.models import LAPGAN
from tests.references import lapgan as paper
from tests.references.compare import close, grey, same_parameters, shaken, train, trainable
from tests.references.layers import Momentum

BATCH, STEPS, SIZES = 5, 2, (3, 7)


@pytest.mark.parametrize("sizes", [(4, 8), (4, 7, 14), (5, 11)])
def test_pyramid(sizes: tuple[int, ...]) -> None:
    """Halved and other sides."""
    x = grey(2, 3, sizes[-1], sizes[-1])
    close(downsample(x, sizes[0]), paper.downsample(x, sizes[0]))
    close(upsample(x, sizes[-1] + 3), paper.upsample(x, sizes[-1] + 3))
    bands, lows = paper.pyramid(x, sizes)
    fast = laplacian_pyramid(x, sizes)
    for actual, expected in zip([*fast.bands, *fast.lows], [*bands, *lows], strict=True):
        close(actual, expected)
    close(paper.reconstruct(bands), x)
    close(reconstruct_pyramid(bands), x)


def test_doubling_is_the_binomial_over_zeros() -> None:
    """Burt & Adelson's u: 4 x [1, 4, 6, 4, 1]^2 / 256 over an image with zeros between its pixels, inside."""
    x = grey(1, 1, 5, 5)
    spread = torch.zeros(1, 1, 10, 10, dtype=torch.float64)
    spread[..., ::2, ::2] = x
    for r in range(2, 7):
        for c in range(2, 7):
            close(upsample(x, 10)[:, :, r, c], 4 * paper.blurred(spread, r, c, (1, 4, 6, 4, 1)))


def test_training() -> None:
    model = LAPGAN((1, 7, 7), sizes=SIZES, latent_dim=3, hidden_sizes=(5, 6), channels=(2,), dropout=0.0, lr=0.5)
    shaken(model, 0.15)
    model.mean, model.std = grey(1, 7, 7, seed=7), 0.5 + grey(1, 7, 7, seed=8)
    p, optimizers = trainable(model), (Momentum(0.5, 0.5, damped=True), Momentum(0.5, 0.5, damped=True))
    batches = list(grey(STEPS, BATCH, 1, 7, 7))
    noise = [[2 * grey(BATCH, 3, seed=9 + t) - 1, 2 * grey(BATCH, 1, 7, 7, seed=19 + t) - 1] for t in range(STEPS)]
    padding = model.discriminators[1].layers[0].padding[0]
    for x, z in zip(batches, noise, strict=True):
        paper.step((x - model.mean) / model.std, z, p, SIZES, padding, *optimizers)
    train(model, [{"image": x} for x in batches], [z for level in noise for z in level], "sample_noise")
    same_parameters(model, p)
