"""The linear probe of a discriminator."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_gen.cli import main
from lightning_gen.commands.probe import balanced, measure_statistics, vectors
from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.models import DCGAN
from tests.digits import quiet_trainer, training_digits
from tests.test_cli import one_line_error


@pytest.fixture(scope="module")
def dcgan_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small DCGAN after two batches."""
    torch.manual_seed(0)
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=0)
    trainer.fit(DCGAN((1, 28, 28), base_channels=4), datamodule=DigitsDataModule())
    path = tmp_path_factory.mktemp("dcgan") / "last.ckpt"
    trainer.save_checkpoint(path)
    return path


def test_normalisation_takes_the_statistics_of_all_images() -> None:
    images = training_digits()[:300]
    discriminator = DCGAN((1, 28, 28), base_channels=4).discriminator
    discriminator(torch.rand(10, 1, 28, 28))  # What it has seen before is forgotten.
    measure_statistics(discriminator, images)
    first, (convolution, norm, _) = discriminator.layers
    with torch.no_grad():
        maps = convolution(first(2 * images - 1))
    torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, maps.var((0, 2, 3)), rtol=0.01, atol=0)  # A mean over three batches.


def test_vectors_do_not_depend_on_the_batch() -> None:
    images = training_digits()[:101]
    discriminator = DCGAN((1, 28, 28), base_channels=4).discriminator
    measure_statistics(discriminator, images)
    assert isinstance(discriminator, nn.Module)
    torch.testing.assert_close(vectors(discriminator, images)[100:], vectors(discriminator, images[100:]))
    assert vectors(discriminator, images).shape == (101, 16 * (4 + 8))
    assert vectors(None, images).shape == (101, 784)


def test_balanced_draws_rows_of_one_class() -> None:
    mask = torch.tensor([True, False] * 10)
    rows = balanced(mask, 4)
    assert len(set(rows.tolist())) == 4
    assert mask[rows].all()


def test_the_three_probes_stand_side_by_side(dcgan_checkpoint, capsys):
    pytest.importorskip("sklearn")
    main(["probe", "--ckpt_path", str(dcgan_checkpoint), "--labels_per_class", "20"])
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:24].strip(): line[24:].split() for line in lines[1:4]}
    assert {name: row[0] for name, row in rows.items()} == {
        "discriminator": "192",
        "untrained discriminator": "192",
        "raw pixels": "784",
    }
    for row in rows.values():
        assert 50 < float(row[3]) < 95, "a machine on 200 digits reads most of 500 others, by chance one in ten"
    assert "200 train, 500 val, 500 test" in lines[4]


def test_without_scikit_learn_the_extra_is_named(dcgan_checkpoint, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    assert "pip install 'lightning_gen[probe]'" in one_line_error(capsys, "probe", "--ckpt_path", str(dcgan_checkpoint))


def test_models_without_a_discriminator_are_named(checkpoint, capsys):
    pytest.importorskip("sklearn")
    assert "VAE has no discriminator" in one_line_error(capsys, "probe", "--ckpt_path", str(checkpoint))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--root", "elsewhere"), "FakeDataModule, on which .* was trained, reads no folder; leave it out"),
        (("--seed", "99999999999999999999"), "--seed is 99999999999999999999; expected a whole number of 64 bits"),
    ],
)
def test_options_that_mean_nothing_are_named(options: tuple[str, str], message: str, checkpoint, capsys) -> None:
    assert re.search(message, one_line_error(capsys, "retrieve", "--ckpt_path", str(checkpoint), *options))
