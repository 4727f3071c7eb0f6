"""Exact tests of the variational autoencoder on models small enough for quadrature, and a real training."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.errors import DataError
from lightning_gen.functional import bernoulli_log_prob, gaussian_kl, importance_weighted_bound, normal_log_prob
from lightning_gen.models import VAE
from lightning_gen.models.vae import Posterior, RankOnePosterior
from tests.digits import held_out_digits, quiet_trainer, train_on_digits


@pytest.fixture
def tiny() -> VAE:
    """Six binary pixels, one latent variable, float64, weights large enough to matter."""
    torch.manual_seed(0)
    return VAE((1, 2, 3), latent_dim=1, hidden_size=5, init_std=0.8).double()


def all_binary_images(num_pixels: int = 6) -> Tensor:
    rows = list(itertools.product([0.0, 1.0], repeat=num_pixels))
    return torch.tensor(rows, dtype=torch.float64).view(-1, 1, 2, num_pixels // 2)


def quadrature(model: VAE, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The nodes z, log p(x, z) at each of them, and log p(x), by a fine grid over one latent variable."""
    z = torch.linspace(-9, 9, 4001, dtype=torch.float64).view(-1, 1, 1)
    log_joint = model.conditional_log_prob(images, z.expand(-1, len(images), 1)) + Normal(0.0, 1.0).log_prob(z)[..., 0]
    step = (z[1] - z[0]).item()
    return z[..., 0], log_joint, torch.logsumexp(log_joint, 0) + math.log(step)


def test_kl_agrees_with_torch_distributions() -> None:
    mean, log_var = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    expected = kl_divergence(Normal(mean, (0.5 * log_var).exp()), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(gaussian_kl(mean, log_var), expected, rtol=0, atol=1e-6)


@pytest.fixture
def rank_one() -> RankOnePosterior:
    """Two posteriors over four variables; the second has u = 0 and is diagonal."""
    torch.manual_seed(9)
    mean, log_var, direction = torch.randn(3, 2, 4, dtype=torch.float64)
    direction[1] = 0
    return RankOnePosterior(mean, log_var, direction)


def test_rank_one_without_a_direction_is_diagonal(rank_one: RankOnePosterior) -> None:
    diagonal, z = Posterior(rank_one.mean, rank_one.log_var), torch.randn(3, 2, 4, dtype=torch.float64)
    torch.testing.assert_close(rank_one.kl()[1], diagonal.kl()[1])
    torch.testing.assert_close(rank_one.log_prob(z)[:, 1], diagonal.log_prob(z)[:, 1])
    torch.testing.assert_close(rank_one.transform(z)[:, 1], diagonal.transform(z)[:, 1])


def test_rank_one_bound_closes_on_the_likelihood() -> None:
    """Its bounds stay below log p(x), by quadrature over two latent variables, and importance weights close the gap."""
    torch.manual_seed(10)
    model = VAE((1, 2, 3), latent_dim=2, hidden_size=5, init_std=0.8, posterior="rank_one").double()
    model.encoder[-1].weight.data.mul_(0.3)  # Wide enough for importance sampling, with a direction that matters.
    images = all_binary_images()[1::9]
    assert model.posterior(images).direction.square().sum(-1).mean() > 0.2
    axis = torch.linspace(-8, 8, 321, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)[:, None].expand(-1, len(images), -1)
    log_joint = model.conditional_log_prob(images, z) + Normal(0.0, 1.0).log_prob(z).sum(-1)
    log_px = torch.logsumexp(log_joint, 0) + 2 * math.log(16 / 320)
    bound = model.elbo(images, num_samples=50_000)
    assert (bound < log_px).all()
    repeats = images.repeat_interleave(500, 0)
    tight = model.log_prob(repeats, num_importance_samples=300).view(len(images), -1).mean(-1)
    torch.testing.assert_close(tight, log_px, rtol=0, atol=0.02)


def test_losses_on_numbers_worked_by_hand() -> None:
    images = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    logits = torch.tensor([0.0, math.log(3.0)]).view(1, 1, 1, 2)  # p = 1/2, 3/4: log p(x) = log 1/2 + log 1/4
    assert bernoulli_log_prob(images, logits).item() == pytest.approx(-3 * math.log(2))
    densities = normal_log_prob(images, torch.zeros_like(images), math.log(4.0))
    assert densities.item() == pytest.approx(-1 / 8 - math.log(2 * math.pi) - math.log(4.0))


def test_probabilities_of_all_images_sum_to_one(tiny: VAE) -> None:
    _, _, log_px = quadrature(tiny, all_binary_images())
    assert log_px.exp().sum().item() == pytest.approx(1.0, abs=1e-9)


def test_gap_between_bound_and_likelihood_is_the_divergence_of_the_posteriors(tiny: VAE) -> None:
    """log p(x) - ELBO = KL(q(z|x) || p(z|x)), each side by quadrature or from the model's own bound."""
    images = all_binary_images()[::7]
    z, log_joint, log_px = quadrature(tiny, images)
    mean, log_var = tiny.posterior(images)
    log_q = Normal(mean[:, 0], (0.5 * log_var[:, 0]).exp()).log_prob(z)
    step = (z[1] - z[0]).item()
    divergence = (log_q.exp() * (log_q - (log_joint - log_px))).sum(0) * step
    torch.manual_seed(1)
    elbo = tiny.elbo(images, num_samples=200_000)
    assert (elbo <= log_px + 1e-3).all()
    torch.testing.assert_close(log_px - elbo, divergence, rtol=0, atol=0.01)


def test_importance_weighted_bound_grows_towards_the_likelihood(tiny: VAE) -> None:
    images = all_binary_images()[::9]
    tiny.encoder[-1].weight.data.mul_(0.2)  # A posterior wide enough for importance sampling.
    log_px = quadrature(tiny, images)[2]
    torch.manual_seed(2)
    repeats = images.repeat_interleave(1000, 0)
    bounds = [tiny.log_prob(repeats, num_importance_samples=k).view(len(images), -1).mean(-1) for k in (1, 2, 10, 200)]
    for lower, upper in itertools.pairwise([*bounds, log_px]):
        assert (lower <= upper + 0.01).all()
    assert (log_px - bounds[0]).max() > 0.1  # There was a gap to close.
    torch.testing.assert_close(bounds[-1], log_px, rtol=0, atol=0.02)


def test_importance_weighted_bound_on_a_worked_toy() -> None:
    """z ~ N(0,1), x|z ~ N(z,1), x = 1.3, q = N(0.2, 1.1^2): log p(x) = log N(1.3; 0, 2) = -1.68801."""
    torch.manual_seed(3)
    for k, expected in ((1, -2.151), (2, -1.833), (5, -1.732), (20, -1.696)):
        z = 0.2 + 1.1 * torch.randn(k, 400_000, dtype=torch.float64)
        log_weights = (
            Normal(0.0, 1.0).log_prob(z) + Normal(z, 1.0).log_prob(torch.tensor(1.3)) - Normal(0.2, 1.1).log_prob(z)
        )
        assert importance_weighted_bound(log_weights).mean().item() == pytest.approx(expected, abs=0.006)


def test_one_impossible_weight_is_harmless_and_order_does_not_matter() -> None:
    weights = torch.tensor([-1.0, -math.inf, -2.0])
    expected = math.log((math.exp(-1) + math.exp(-2)) / 3)
    assert importance_weighted_bound(weights).item() == pytest.approx(expected)
    assert importance_weighted_bound(weights.flip(0)).item() == pytest.approx(expected)


def test_exact_posterior_makes_the_bound_tight() -> None:
    """Linear-Gaussian model with one latent variable: the ELBO of the exact posterior is log N(x; b, w w^T + s^2 I)."""
    torch.manual_seed(4)
    w, b, x = (torch.randn(4, dtype=torch.float64) for _ in range(3))
    variance = 0.3
    posterior_variance = 1 / (1 + w.square().sum() / variance)
    posterior_mean = posterior_variance * (w * (x - b)).sum() / variance
    nodes = posterior_mean + posterior_variance.sqrt() * torch.linspace(-9, 9, 4001, dtype=torch.float64)
    q = Normal(posterior_mean, posterior_variance.sqrt()).log_prob(nodes).exp() * (nodes[1] - nodes[0])
    images, means = x.view(1, 1, 4), (nodes[:, None] * w + b).view(-1, 1, 1, 4)
    expected_log_prob = (q * normal_log_prob(images, means, math.log(variance))).sum()
    elbo = expected_log_prob - gaussian_kl(posterior_mean.view(1), posterior_variance.log().view(1))
    covariance = torch.outer(w, w) + variance * torch.eye(4, dtype=torch.float64)
    assert elbo.item() == pytest.approx(MultivariateNormal(b, covariance).log_prob(x).item(), abs=1e-9)


def test_sizes() -> None:
    """784-500-20 of the paper, and a deeper one."""
    assert (
        sum(p.numel() for p in VAE().parameters()) == 784 * 500 + 500 + 500 * 40 + 40 + 20 * 500 + 500 + 500 * 784 + 784
    )
    deep = VAE(latent_dim=2, hidden_size=5, num_layers=3)
    assert [m.out_features for m in deep.encoder if isinstance(m, torch.nn.Linear)] == [5, 5, 5, 4]
    assert [m.out_features for m in deep.decoder if isinstance(m, torch.nn.Linear)] == [5, 5, 5, 784]


def test_gradient_equals_finite_differences(tiny: VAE) -> None:
    images = all_binary_images()[5:8]
    parameters = dict(tiny.named_parameters())

    def bound(*values: Tensor) -> Tensor:
        torch.manual_seed(7)
        with torch.nn.utils.stateless._reparametrize_module(tiny, dict(zip(parameters, values, strict=True))):
            return tiny.elbo(images).sum()

    values = [p.detach().clone().requires_grad_() for p in parameters.values()]
    assert torch.autograd.gradcheck(bound, values)


def test_reparameterization() -> None:
    model = VAE((1, 2, 3), latent_dim=2)
    mean = torch.tensor([[0.3, -2.0]])
    certain = model.reparameterize(Posterior(mean, torch.full((1, 2), -math.inf)))
    torch.testing.assert_close(certain[0], mean)
    log_var = torch.tensor([[math.log(4.0), math.log(0.25)]])
    torch.manual_seed(8)
    draws = model.reparameterize(Posterior(mean, log_var), 200_000)
    torch.testing.assert_close(draws.var(0), log_var.exp(), rtol=0.02, atol=0)


def test_posterior_falls_back_to_the_prior_when_the_decoder_ignores_it(tiny: VAE) -> None:
    torch.nn.init.zeros_(tiny.decoder[0].weight)
    tiny.decoder[0].weight.requires_grad_(False)
    images = all_binary_images()
    optimizer = torch.optim.Adam(tiny.encoder.parameters(), lr=0.03)
    for _ in range(400):
        optimizer.zero_grad()
        (-tiny.elbo(images)).mean().backward()
        optimizer.step()
    assert gaussian_kl(*tiny.posterior(images)).mean().item() < 1e-3


def test_refined_posterior_reaches_the_best_gaussian(tiny: VAE) -> None:
    """The best bound of any Gaussian, by a search with quadrature in the place of draws."""
    images = all_binary_images()[::5]
    z, log_joint, log_px = quadrature(tiny, images)
    z, log_joint = z.detach(), log_joint.detach()

    def bound(posterior: Posterior) -> Tensor:
        log_q = Normal(posterior.mean[:, 0], (0.5 * posterior.log_var[:, 0]).exp()).log_prob(z)
        return (log_q.exp() * (log_joint - log_q)).sum(0) * (z[1] - z[0])

    best = Posterior(*(values.detach().clone().requires_grad_() for values in tiny.posterior(images)))
    optimizer = torch.optim.LBFGS(best, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -bound(best).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.manual_seed(11)
    refined, amortised = bound(tiny.refine_posterior(images)), bound(tiny.posterior(images))
    torch.testing.assert_close(refined, bound(best), rtol=0, atol=2e-3)
    assert (bound(best) - amortised).max() > 0.1  # There was a gap to close.
    assert (refined < log_px).all()


@pytest.mark.parametrize("posterior", ["diagonal", "rank_one"])
def test_refined_posterior_gains_on_real_digits(posterior: str) -> None:
    """Also under the Trainer's inference mode, and without a trace in the networks."""

    class Refining(VAE):
        def test_step(self, batch: Tensor, batch_idx: int) -> None:
            assert torch.is_inference_mode_enabled()
            refined = self.refine_posterior(batch, num_steps=60)
            gains.append(self.elbo(batch, 100, refined) - self.elbo(batch, 100))

    gains: list[Tensor] = []
    torch.manual_seed(0)
    model = Refining(activation="relu", optimizer="adam", lr=1e-3, init_std=None, posterior=posterior)
    train_on_digits(model, epochs=4)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    model.zero_grad()
    images = held_out_digits()[:60].bernoulli(generator=torch.Generator().manual_seed(0))
    quiet_trainer().test(model, torch.utils.data.DataLoader(images, 60), verbose=False)
    assert gains[0].min() > -1.0  # Nats; the difference of two means of 100 draws has an error of some tenths.
    assert gains[0].mean() > 2.0
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_learns_real_digits_better_than_independent_pixels() -> None:
    """Baseline: each pixel on its own, at the training set's frequency."""
    torch.manual_seed(0)
    model = VAE(activation="relu", optimizer="adam", lr=1e-3, weight_decay=0.0, init_std=None)
    train = train_on_digits(model, epochs=12)
    images = held_out_digits().bernoulli(generator=torch.Generator().manual_seed(0))
    baseline = bernoulli_log_prob(images, train.mean(0).clamp(1e-3, 1 - 1e-3).logit()).mean().item()
    with torch.no_grad():
        bound = model.log_prob(images, num_importance_samples=10).mean().item()
    assert bound > baseline + 70


def test_grey_pixels_are_refused_by_the_bernoulli_decoder() -> None:
    with pytest.raises(DataError, match="binarization=dynamic"):
        VAE().as_batch(torch.full((2, 1, 28, 28), 0.5))
    VAE(decoder="gaussian").as_batch(torch.full((2, 1, 28, 28), 0.5))


def test_zero_importance_samples_are_refused() -> None:
    with pytest.raises(DataError, match="at least 1"):
        VAE().log_prob(torch.zeros(2, 1, 28, 28), num_importance_samples=0)


def test_the_table_of_test_tells_how_many_samples_count() -> None:
    """Of 50 importance samples; after training the posterior is a good proposal, and more than one counts."""
    model = VAE((1, 28, 28), latent_dim=2, hidden_size=20, num_importance_samples=50)
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=5, limit_val_batches=0, limit_test_batches=2)
    data = DigitsDataModule(binarization="dynamic")
    trainer.fit(model, datamodule=data)
    (figures,) = trainer.test(model, datamodule=data, verbose=False)
    assert 1 < figures["test/effective_samples"] <= 50
    assert model.figure_protocols("test")["effective_samples"] == "of 50 importance samples, mean over images"
    assert "effective_samples" not in model.figure_protocols("val")


def test_step_size_falls_at_the_milestones() -> None:
    seen = []

    class Watched(VAE):
        def on_train_epoch_start(self) -> None:
            seen.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    model = Watched((1, 1, 2), 1, 2, lr=1.0, lr_milestones=(1, 3), lr_gamma=0.5)
    quiet_trainer(max_epochs=4).fit(model, torch.utils.data.DataLoader(torch.zeros(4, 1, 1, 2), batch_size=2))
    assert seen == [1.0, 0.5, 0.5, 0.25]


def test_the_decoder_may_start_at_the_mean_image() -> None:
    """Frequencies with one white and one black image more; and checkpoints from before this option load."""
    images = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]).view(4, 1, 1, 2)
    model = VAE((1, 1, 2), 1, 2, lr=0.0, mean_bias=True)
    quiet_trainer(max_epochs=1).fit(model, torch.utils.data.DataLoader(images, batch_size=2))
    torch.testing.assert_close(model.decoder[-1].bias.sigmoid(), torch.tensor([4 / 6, 2 / 6]))
    state = model.state_dict()
    del state["initialized"]
    checkpoint = {"state_dict": state}
    model.on_load_checkpoint(checkpoint)
    VAE((1, 1, 2), 1, 2).load_state_dict(checkpoint["state_dict"])
