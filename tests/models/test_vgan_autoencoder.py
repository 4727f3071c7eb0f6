"""The autoencoder beside VGAN: its networks, the update, the mixture on its codes, and a real training."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_gen.errors import DataError
from lightning_gen.functional import DiagonalMixture, fit_mixture
from lightning_gen.models import VGAN, VGANAutoencoder
from tests.digits import quiet_trainer
from tests.models.test_vgan import SHAPE, batches_of, numel, scenes


def small(**arguments: object) -> VGANAutoencoder:
    return VGANAutoencoder(SHAPE, **{"latent_dim": 4, "base_channels": 2, "num_components": 3, **arguments})


def test_published_sizes() -> None:
    """The discriminator's layers with 100 outputs for 2, and the generator."""
    with torch.device("meta"):
        model, vgan = VGANAutoencoder(), VGAN()
    assert numel(model.generator) == numel(vgan.generator) == 16_245_383
    assert numel(model.discriminator) == 11_057_858 + 98 * (512 * 2 * 4 * 4 + 1)
    assert model.encode(torch.empty(2, 3, 32, 64, 64, device="meta")).shape == (2, 100)
    assert model.weights.shape == (256,)


def test_the_density_is_a_sum_of_normal_ones() -> None:
    torch.manual_seed(0)
    weights, means, variances = torch.tensor([0.2, 0.8]), torch.randn(2, 3), torch.rand(2, 3) + 0.1
    points = torch.randn(5, 3)
    normal = torch.distributions.Normal(means, variances.sqrt())
    expected = (normal.log_prob(points[:, None]).sum(2).exp() * weights).sum(1).log()
    torch.testing.assert_close(DiagonalMixture(weights, means, variances).log_prob(points), expected)


def test_no_step_lowers_the_likelihood_and_draws_are_of_the_mixture() -> None:
    torch.manual_seed(0)
    rows = torch.tensor([0.3, 0.7]), torch.tensor([[-2.0, 0], [2, 1]]), torch.tensor([[1.0, 4], [2, 1]])
    true = DiagonalMixture(*(row.double() for row in rows))
    points, held_out = true.sample(20_000), true.sample(20_000)
    means = true.weights @ true.means
    torch.testing.assert_close(points.mean(0), means, rtol=0, atol=0.05)
    variances = true.weights @ (true.variances + true.means**2) - means**2
    torch.testing.assert_close(points.var(0), variances, rtol=0.03, atol=0)
    found = [fit_mixture(points, 2, steps, torch.Generator().manual_seed(0)) for steps in (0, 1, 2, 5, 200)]
    likelihoods = [mixture.log_prob(points).mean().item() for mixture in found]
    assert all(later > earlier - 1e-6 for earlier, later in itertools.pairwise(likelihoods))
    assert likelihoods[-1] > likelihoods[0] + 1e-3
    order = found[-1].means[:, 0].argsort()
    torch.testing.assert_close(found[-1].means[order], true.means, rtol=0, atol=0.15)
    torch.testing.assert_close(found[-1].weights[order], true.weights, rtol=0, atol=0.03)
    assert found[-1].log_prob(held_out).mean() == pytest.approx(true.log_prob(held_out).mean().item(), abs=0.01)


def test_a_component_of_one_point_has_a_finite_density() -> None:
    points = torch.tensor([[0.0, 1], [1, 1], [100, 3]])
    mixture = fit_mixture(points, 3, generator=torch.Generator().manual_seed(0))
    assert mixture.log_prob(points).isfinite().all()
    assert (mixture.variances >= 0.01 * points.var(0, correction=0) - 1e-3).all()
    with pytest.raises(DataError, match="4 centroids were asked for, of 3 points"):
        fit_mixture(points, 4)


def test_training_is_adam_on_the_squared_error_and_ends_with_the_mixture() -> None:
    torch.manual_seed(0)
    model, reference = (small(lr=0.01).double() for _ in range(2))
    reference.load_state_dict(model.state_dict())
    videos = scenes(8).double()
    quiet_trainer(max_epochs=1, precision="64-true", limit_val_batches=0).fit(model, batches_of(videos, 4))

    optimizer = torch.optim.Adam(reference.parameters(), lr=0.01, betas=(0.5, 0.999))
    for batch in videos.split(4):
        foreground, mask, background = reference.generator(reference.discriminator(2 * batch - 1))
        decoded = mask * foreground + (1 - mask) * background.unsqueeze(2)
        optimizer.zero_grad()
        ((decoded + 1) / 2 - batch).square().mean().backward()
        optimizer.step()
    for name, value in reference.named_parameters():
        if value.grad.abs().max() > 1e-12:  # Biases before batch normalisation have none.
            torch.testing.assert_close(model.get_parameter(name), value, rtol=1e-6, atol=1e-8, msg=name)
    with torch.no_grad():
        codes = model.eval().encode(videos)
    expected = fit_mixture(codes, 3, generator=torch.Generator().manual_seed(0))
    for found, values in zip(model.mixture, expected, strict=True):
        torch.testing.assert_close(found, values)


def test_samples_are_decoded_draws_of_the_mixture_and_survive_a_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = small()
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(model, batches_of(scenes(8), 4))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = VGANAutoencoder.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    videos, again = (m.sample(2, generator=torch.Generator().manual_seed(1)) for m in (model, loaded))
    assert torch.equal(videos, again)
    with torch.no_grad():
        expected = model.eval().decode(model.sample_latent(2, torch.Generator().manual_seed(1)))
    torch.testing.assert_close(videos, expected)
    for buffer in (model.means, model.variances):
        buffer.fill_(0)
    one, two = model.sample(2)
    assert torch.equal(one, two)


def test_fewer_videos_than_components_are_refused() -> None:
    with pytest.raises(DataError, match="9 centroids were asked for, of 8 points"):
        quiet_trainer(max_epochs=1, limit_val_batches=0).fit(small(num_components=9), batches_of(scenes(8), 4))


def test_figures_name_the_error() -> None:
    class Blind(VGANAutoencoder):
        def decode(self, z: torch.Tensor, condition: object = None) -> torch.Tensor:
            return torch.zeros(len(z), *SHAPE)

    model = Blind(SHAPE, base_channels=2)
    (figures,) = quiet_trainer().validate(model, batches_of(torch.full((4, *SHAPE), 0.5), 2), verbose=False)
    assert figures["val/squared_error"] == pytest.approx(0.25)
    assert {f"val/{name}" for name in model.figure_protocols("val")} >= set(figures)
    assert isinstance(model.discriminator.classifier(8), nn.Module)


def test_learns_to_decode_held_out_videos() -> None:
    """Baseline: the mean of all training videos."""
    torch.manual_seed(0)
    train, held_out = scenes(320), scenes(400)[320:]
    model = VGANAutoencoder(SHAPE, latent_dim=32, base_channels=8, num_components=16, init_std=0.02, lr=2e-3)
    trainer = quiet_trainer(max_epochs=5, limit_val_batches=0)
    trainer.fit(model, DataLoader([{"video": video} for video in train], 8, shuffle=True))
    with torch.no_grad():
        error = (model.eval().decode(model.encode(held_out)) - held_out).square().mean()
    baseline = (held_out - train.mean(0)).square().mean()
    assert error < 0.7 * baseline  # 0.57 with this seed.
    samples = model.sample(80)
    assert math.isclose(samples.mean().item(), held_out.mean().item(), abs_tol=0.05)
