"""Annealed importance sampling of checkpoints, from the command line."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal

from lightning_gen.cli import main
from lightning_gen.commands.ais import Settings, annealed, likelihood, simulated_gap
from lightning_gen.datamodules import FakeDataModule
from lightning_gen.models import CGAN, GAN, NADE, VAE, GenerativeModule
from tests.digits import quiet_trainer
from tests.test_cli import one_line_error

LINE = re.compile(r"(\S+) ± (\S+) nats(?: \(at most (\S+) bits per dimension\))?: annealed importance sampling, ")


def save(model: GenerativeModule, folder: Path) -> Path:
    if hasattr(model, "initialized"):
        model.initialized.fill_(True)  # The data are grey, and not what it would look at.
    trainer = quiet_trainer(max_epochs=0, num_sanity_val_steps=0)
    trainer.fit(model, datamodule=FakeDataModule(image_shape=(1, 4, 4), num_samples=30))
    trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


@pytest.fixture(scope="module")
def gan() -> GAN:
    torch.manual_seed(0)
    model = GAN((1, 4, 4), latent_dim=1, hidden_size=20, maxout_units=4)
    for parameter in model.generator.parameters():
        parameter.data.mul_(12)  # Weights that matter.
    return model.requires_grad_(False).eval()


def test_a_gan_with_gaussian_pixels_by_quadrature(gan) -> None:
    """The noise is uniform: log p(x) is an integral over one bounded variable."""
    images = gan.decode(torch.tensor([[-1.5], [0.1], [0.9]])) + 0.2 * torch.randn(3, 1, 4, 4)
    z = torch.linspace(-math.sqrt(3), math.sqrt(3), 4001)[1::2, None]  # Midpoints.
    log_likelihood = Normal(gan.decode(z)[:, None], 0.2).log_prob(images).flatten(2).sum(-1)
    exact = log_likelihood.double().logsumexp(0) - math.log(len(z))
    torch.manual_seed(1)
    lower, effective, acceptance = annealed(gan, images, 0.2, Settings(64, 60, 5))
    torch.testing.assert_close(lower, exact, rtol=0, atol=0.25)
    assert (effective > 10).all()
    assert (acceptance > 0.3).all()
    u = torch.tensor([[[0.3]], [[-0.2]]]).expand(2, 3, 1)
    expected = Normal(gan.decode(gan.latent_from_normal(u[:, 0]))[:, None], 0.2).log_prob(images).flatten(2).sum(-1)
    torch.testing.assert_close(likelihood(gan, images, 0.2)(u), expected)


def test_bounds_enclose_images_of_the_models_own() -> None:
    torch.manual_seed(2)
    model = VAE((1, 4, 4), latent_dim=2, hidden_size=8, init_std=0.7).requires_grad_(False)
    gap, error = simulated_gap(model, 20, None, Settings(8, 60, 5))
    assert -3 * error < gap < 0.5


def test_a_line_for_a_gan_names_the_protocol(gan, tmp_path, capsys) -> None:
    options = ["--num_images", "3", "--num_chains", "2", "--num_steps", "4", "--num_leapfrog", "2"]
    path = save(GAN((1, 4, 4), latent_dim=1, hidden_size=20, maxout_units=4), tmp_path)
    main(["ais", "--ckpt_path", str(path), *options, "--num_simulated", "2"])
    first, second = capsys.readouterr().out.splitlines()
    found = LINE.match(first)
    assert found, first
    assert float(found[3]) == pytest.approx(8 - float(found[1]) / 16 / math.log(2), abs=0.001)
    for part in ("3 test images, 2 chains of 4 steps of 2 leapfrogs", "of 6, chosen on 10 validation", "of 2 (least"):
        assert part in first
    assert "nats between lower and upper bound on 2 images drawn from the model" in second
    main(["ais", "--ckpt_path", str(path), *options, "--sigma", "0.3"])
    assert "Gaussian pixels, sigma 0.3 given, uniform noise" in capsys.readouterr().out


def test_a_vae_is_scored_by_its_own_pixels(checkpoint, capsys) -> None:
    main(["ais", "--ckpt_path", str(checkpoint), "--num_images", "2", "--num_chains", "2", "--num_steps", "3"])
    line = capsys.readouterr().out
    assert "the model's own p(x|z)" in line
    assert "bits" not in line


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (NADE((1, 4, 4), hidden_size=4), [], "NADE does not decode one latent variable of known density"),
        (CGAN((1, 4, 4), num_classes=10), [], "CGAN does not decode one latent variable"),
        (VAE((1, 4, 4), hidden_size=4), [], "scores black and white pixels and got grey ones"),
        (GAN((1, 4, 4), hidden_size=4), ["--num_images", "31"], "num_images is 31; FakeDataModule has 30 test images"),
        (GAN((1, 4, 4), hidden_size=4), ["--num_steps", "0"], "num_steps is 0; expected at least 1"),
        (GAN((1, 4, 4), hidden_size=4), ["--sigma", "0"], "sigma is 0.0"),
    ],
    ids=["no latent", "classes", "grey", "too few images", "no steps", "no width"],
)
def test_bad_input(model, options, message, tmp_path, capsys) -> None:
    options = ["--num_images", "2", *options]
    assert message in one_line_error(capsys, "ais", "--ckpt_path", str(save(model, tmp_path)), *options)
