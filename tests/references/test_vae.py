import pytest
import torch
from torch import Tensor

from lightning_gen.models import VAE
from lightning_gen.models.vae import RankOnePosterior
from tests.references import vae as paper
from tests.references.compare import BFLOAT16, binary, close, grey, in_bfloat16, parameters_of, shaken

DECODERS = ["bernoulli", "gaussian", "gaussian_learned_variance"]
SHAPE, BATCH, LATENTS, DRAWS = (1, 5, 7), 3, 3, 13  # More draws than the model decodes at a time, 10.


def tiny(decoder: str) -> tuple[VAE, Tensor]:
    model = shaken(VAE(SHAPE, latent_dim=LATENTS, hidden_size=9, decoder=decoder))
    return model, binary(BATCH, *SHAPE) if decoder == "bernoulli" else grey(BATCH, *SHAPE)


def noise(num_draws: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """What the model draws after this seed, at most ten draws at a time."""
    torch.manual_seed(3)
    sizes = [10] * (num_draws // 10) + [num_draws % 10] * (num_draws % 10 > 0)
    eps = torch.cat([torch.randn(size, BATCH, LATENTS, dtype=dtype) for size in sizes])
    torch.manual_seed(3)
    return eps.double()


@pytest.mark.parametrize("decoder", DECODERS)
def test_bounds(decoder: str) -> None:
    model, images = tiny(decoder)
    p = parameters_of(model)
    eps = noise(4)
    expected = [paper.elbo(x.flatten(), p, eps[:, n], decoder) for n, x in enumerate(images)]
    close(model.elbo(images, num_samples=4), torch.tensor(expected, dtype=torch.float64))
    eps = noise(DRAWS)
    expected = [paper.importance_weighted_bound(x.flatten(), p, eps[:, n], decoder) for n, x in enumerate(images)]
    close(model.log_prob(images, num_importance_samples=DRAWS), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("decoder", DECODERS)
def test_loss(decoder: str) -> None:
    """The mean over the batch of the negative bound with one draw."""
    model, images = tiny(decoder)
    eps = noise(1)
    bounds = [paper.elbo(x.flatten(), parameters_of(model), eps[:, n], decoder) for n, x in enumerate(images)]
    close(model.training_step({"image": images}, 0), torch.tensor(-sum(bounds) / BATCH, dtype=torch.float64))


@pytest.mark.parametrize("decoder", DECODERS[:2])
def test_bound_in_bfloat16(decoder: str) -> None:
    """A rounded layer changes a pixel's output by about 2^-8 of its size, here at most 4, and the output changes the
    pixel's log-probability by at most as much; the errors of 35 pixels and both networks, of either sign, add up as the
    root of their number.
    """
    model, images = tiny(decoder)
    in_bfloat16(model)
    images = images.bfloat16()
    eps = noise(1, torch.float32)
    expected = [
        paper.elbo(x.flatten().double(), parameters_of(model), eps[:, n], decoder) for n, x in enumerate(images)
    ]
    close(model.elbo(images), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=(2 * 35) ** 0.5 * 4 * BFLOAT16)


def test_rank_one_posterior() -> None:
    torch.manual_seed(0)
    mean, log_var, u, eps = torch.randn(4, BATCH, LATENTS, dtype=torch.float64)
    posterior = RankOnePosterior(mean, log_var, u)
    z = posterior.transform(eps[None])
    for n in range(BATCH):
        d = torch.exp(-log_var[n])
        covariance, root = paper.rank_one_covariance(d, u[n]), paper.rank_one_root(d, u[n])
        close(root @ root.T, covariance)
        close(z[0, n], mean[n] + root @ eps[n])
        close(posterior.kl()[n], paper.full_kl(mean[n], covariance))
        close(posterior.log_prob(z)[0, n], paper.log_full_normal(z[0, n], mean[n], covariance))
