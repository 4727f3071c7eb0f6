"""Good likelihoods of bad samples, the reverse, and three divergences, from the command line."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_gen.cli import main
from lightning_gen.commands.mixture import judge, table_log_prob
from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.models import BernoulliMixture
from tests.digits import held_out_digits, quiet_trainer
from tests.test_cli import one_line_error


@pytest.fixture(scope="module")
def mixture_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of 20 Bernoulli distributions after two steps of expectation maximisation on binary digits."""
    torch.manual_seed(0)
    trainer = quiet_trainer(max_epochs=2, limit_val_batches=0)
    trainer.fit(
        BernoulliMixture(num_components=20), datamodule=DigitsDataModule(batch_size=500, binarization="dynamic")
    )
    path = tmp_path_factory.mktemp("mixture") / "last.ckpt"
    trainer.save_checkpoint(path)
    return path


def test_likelihood_and_samples_part(mixture_checkpoint, capsys) -> None:
    main(["mixture", "--ckpt_path", str(mixture_checkpoint), "--num_samples", "300"])
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:32].strip(): line[32:].replace(" ± ", "±").split() for line in lines[1:7]}
    nats = {name: float(row[0].split("±")[0]) for name, row in rows.items()}
    fid = {name: float(row[1]) for name, row in rows.items()}
    assert nats["noise q"] == pytest.approx(-784 * math.log(2), abs=0.01)
    assert nats["model p"] - math.log(100) - 0.01 <= nats["0.01 p + 0.99 q"] < nats["model p"] - 4
    assert fid["0.01 p + 0.99 q"] > 2 * fid["model p"]
    assert nats["training images, 0 flipped"] == -math.inf
    assert fid["training images, 0 flipped"] < fid["model p"]
    assert nats["training images, 0.0001 flipped"] < nats["training images, 0.01 flipped"] < nats["model p"]
    assert "500 binary test images, exact; 300 samples" in lines[-1]
    assert "by the noise; log 100 is 4.605" in lines[-1]


def test_probabilities_of_a_table_sum_to_one() -> None:
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)
    table = images[[3, 3, 9]]
    assert table_log_prob(images, table, 0.1).exp().sum().item() == pytest.approx(1)
    exact = table_log_prob(images, table, 0.0).exp()
    assert exact[[3, 9]].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert exact.sum().item() == pytest.approx(1)
    by_hand = math.log(
        (2 * 0.1**2 * 0.9**2 + 0.1**4 * 1) / 3
    )  # 0000 is two flips from 0011, and 0110 is four from 1001
    assert table_log_prob(images[[0]], table, 0.1).item() == pytest.approx(
        math.log((2 * 0.1**2 * 0.9**2 + 0.1**2 * 0.9**2) / 3)
    )
    assert table_log_prob(images[[6]], images[[3, 3, 9]], 0.1).item() == pytest.approx(by_hand)


def test_the_judge_prefers_digits() -> None:
    digits = held_out_digits()
    real, noise = judge(digits[:250], digits[250:]), judge(torch.rand(250, 1, 28, 28), digits[250:])
    assert real[0] < 0.1 * noise[0]
    assert real[1] > 0.9 > noise[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weight", "1"], "weight is 1.0"),
        (["--flips", "[1]"], "flips is [1.0]"),
        (["--num_samples", "1"], "num_samples is 1; expected at least 2"),
    ],
)
def test_bad_options(options, message, mixture_checkpoint, capsys) -> None:
    assert message in one_line_error(capsys, "mixture", "--ckpt_path", str(mixture_checkpoint), *options)


def test_a_model_with_a_bound_is_named(checkpoint, capsys) -> None:
    assert "VAE has no exact likelihood" in one_line_error(capsys, "mixture", "--ckpt_path", str(checkpoint))


def test_divergences_make_three_compromises(tmp_path, capsys) -> None:
    output = tmp_path / "three.png"
    main(["divergences", "--output", str(output)])
    lines = capsys.readouterr().out.splitlines()
    names = lines[0].split()[-3:]
    table = {line.split()[0]: line.split()[-4:] for line in lines[1:4]}
    sigma, scores = {}, {}
    for name, (width, *values) in table.items():
        sigma[name], scores[name] = float(width), dict(zip(names, map(float, values), strict=True))
    assert sigma["KL"] > sigma["MMD^2"] > sigma["JSD"]
    for name in names:  # Each is the best by its own measure.
        assert min(scores, key=lambda fitted: scores[fitted][name]) == name
    assert sigma["JSD"] == pytest.approx(0.6**0.5, abs=0.05)  # One part, and the other given up.
    picture = np.asarray(Image.open(output))
    assert picture.shape == (188, 4 * 184 + 4, 3)
    picture = picture.astype(int)
    coloured = [(panel[..., 0] > panel[..., 2] + 50).sum() for panel in np.split(picture[:, 2:-2], 4, axis=1)]
    assert coloured[0] == 0
    assert coloured[1] > coloured[3] > 100


def test_a_bandwidth_must_be_positive(tmp_path, capsys) -> None:
    error = one_line_error(capsys, "divergences", "--output", str(tmp_path / "a.png"), "--bandwidth", "0")
    assert "bandwidth is 0.0" in error
