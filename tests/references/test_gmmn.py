import pytest
from torch import Tensor

from lightning_gen.functional import mmd2, sqrt_mmd2
from lightning_gen.functional.mmd import Gaussian, RationalQuadratic
from lightning_gen.models import GMMN
from tests.references import gmmn as paper
from tests.references.compare import BFLOAT16, close, grey, same_parameters, shaken, train, trainable
from tests.references.layers import Momentum

SHAPE, BATCH, STEPS = (1, 5, 7), 5, 3
BANDWIDTHS = (0.5, 2.0, 10.0)


def clouds() -> tuple[Tensor, Tensor]:
    """5 and 3 points."""
    return grey(5, 4, seed=1), grey(3, 4, seed=2)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("kernel", ["gaussian", "rational_quadratic"])
def test_discrepancy(kernel: str, biased: bool) -> None:
    x, y = clouds()
    fast = (Gaussian if kernel == "gaussian" else RationalQuadratic)(BANDWIDTHS)
    close(mmd2(x, y, fast, biased), paper.mmd2(x, y, BANDWIDTHS, kernel, biased))


def test_gradient_of_the_root() -> None:
    x, y = clouds()
    y.requires_grad_()
    sqrt_mmd2(x, y, BANDWIDTHS).backward()
    root = paper.mmd2(x, y.detach(), BANDWIDTHS) ** 0.5
    close(y.grad, paper.mmd2_gradient(x, y.detach(), BANDWIDTHS) / (2 * root))


def test_discrepancy_in_bfloat16() -> None:
    """The points are rounded by the caller, not within: distances and sums are wider."""
    x, y = (cloud.bfloat16() for cloud in clouds())
    close(mmd2(x, y, BANDWIDTHS), paper.mmd2(x.double(), y.double(), BANDWIDTHS), rtol=BFLOAT16, atol=0)


@pytest.mark.parametrize("code_sizes", [(), (6, 3)])
def test_training(code_sizes: tuple[int, ...]) -> None:
    """GMMN matches images, GMMN+AE codes; three batches with momentum."""
    model = shaken(GMMN(SHAPE, latent_dim=3, hidden_sizes=(4, 5), bandwidths=BANDWIDTHS, code_sizes=code_sizes))
    model.steps = [10_000, 0]  # The autoencoder has been trained.
    p, optimizer = trainable(model), Momentum(2.0, 0.9)
    batches = list(grey(STEPS, BATCH, *SHAPE))
    z = [2 * noise - 1 for noise in grey(STEPS, BATCH, 3, seed=5)]
    for x, noise in zip(batches, z, strict=True):
        data = paper.encoder(x.flatten(1), p).detach() if code_sizes else x.flatten(1)
        optimizer.step(p, paper.gradients(data, noise, p, BANDWIDTHS))
    train(model, [{"image": x} for x in batches], z)
    same_parameters(model, p)
    samples = paper.generator(z[0], p)
    close(model.decode(z[0]).flatten(1), paper.decoder(samples, p) if code_sizes else samples, rtol=1e-8)
