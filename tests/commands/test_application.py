"""Samples and latents in an application: classifiers, retrieval, clusters."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gen.cli import main
from lightning_gen.commands.augment import accuracy, network, subset_of, trained
from lightning_gen.datamodules import DigitsDataModule, FakeDataModule
from lightning_gen.models import CGAN, GAN, VAE, BernoulliMixture, GenerativeModule
from tests.digits import quiet_trainer
from tests.test_cli import one_line_error


def save(model: GenerativeModule, folder: Path, data: Any, **arguments: Any) -> str:
    if hasattr(model, "initialized"):
        model.initialized.fill_(True)  # The data are grey, and not what it would look at.
    trainer = quiet_trainer(**{"max_epochs": 0, "num_sanity_val_steps": 0, **arguments})
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(folder / "model.ckpt")
    return str(folder / "model.ckpt")


def test_a_classifier_learns_what_it_is_given() -> None:
    """300 digits against the same number with permuted labels, 40 updates each."""
    torch.manual_seed(0)
    data = DigitsDataModule()
    data.setup()
    datasets: dict[Any, Any] = data.datasets
    train, test = (datasets[split].__getitems__(range(500)) for split in ("train", "test"))
    rows = train["image"], train["label"]
    subset = subset_of(rows, 300, 10)
    assert subset[1].bincount().tolist() == [30] * 10
    assert subset_of(rows, None, 10) is rows
    held_out = test["image"], test["label"]
    assert accuracy(trained([subset], 10, 40, "cpu"), held_out) > 0.6
    false = subset[0], subset[1][torch.randperm(300)]
    assert accuracy(trained([false], 10, 40, "cpu"), held_out) < 0.4


def test_the_classifier_takes_images_of_any_size() -> None:
    assert network(3, 7)(torch.rand(2, 3, 20, 33)).shape == (2, 7)


def test_the_rows_stand_side_by_side(tmp_path, capsys) -> None:
    path = save(CGAN(), tmp_path, DigitsDataModule())
    options = ["--num_samples", "50", "--num_steps", "3", "--repeats", "2", "--num_labels", "[20]"]
    main(["augment", "--ckpt_path", path, *options])
    lines = capsys.readouterr().out.splitlines()
    names = [line[:36].strip() for line in lines[1:6]]
    assert [name.split("  ")[0] for name in names] == [
        "50 samples",
        "20 real images",
        "20 real images and the samples",
        "4,000 real images",
        "4,000 real images and the samples",
    ]
    assert all(0 <= float(line[32:].split(" ± ")[0].split()[-1]) <= 100 for line in lines[1:6])
    assert "500 real test images, 3 updates by batches of 100, mean and standard error of 2 trainings" in lines[6]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_labels", "[15]"], "num_labels is [15]; expected multiples of 10"),
        (["--num_labels", "[50000]"], "up to 4000, as the rarest has 400 training images"),
        (["--repeats", "0"], "repeats is 0; expected at least 1"),
    ],
)
def test_bad_options(options, message, tmp_path, capsys) -> None:
    path = save(CGAN(), tmp_path, DigitsDataModule())
    assert message in one_line_error(capsys, "augment", "--ckpt_path", path, *options)


def test_a_model_without_classes_is_named(checkpoint, capsys) -> None:
    assert "VAE draws no classes" in one_line_error(capsys, "augment", "--ckpt_path", str(checkpoint))


def test_a_trained_encoder_gathers_classes(tmp_path, capsys) -> None:
    """A VAE after a few batches of real digits against the same one untrained; by chance one in ten is right."""
    torch.manual_seed(0)
    vae = VAE(latent_dim=10, hidden_size=200, optimizer="adam", lr=1e-3, init_std=None, activation="relu")
    path = save(vae, tmp_path, DigitsDataModule(binarization="dynamic"), max_epochs=6, limit_val_batches=0)
    main(["retrieve", "--ckpt_path", path])
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:12].strip(): line[12:].split() for line in lines[1:4]}
    assert [row[0] for row in rows.values()] == ["10", "10", "784"]
    model, untrained, pixels = (float(rows[name][1]) for name in ("model", "untrained", "raw pixels"))
    assert model > untrained + 2
    assert 80 < pixels < 95
    assert all(20 < float(row[-1]) <= 100 for row in rows.values())
    assert "500 test images, 4,000 training images to search; 10 clusters" in lines[4]


@pytest.mark.parametrize("model", [GAN((1, 4, 4), hidden_size=4), BernoulliMixture((1, 4, 4), num_components=3)])
def test_models_that_make_no_vectors_are_named(model, tmp_path, capsys) -> None:
    path = save(model, tmp_path, FakeDataModule(image_shape=(1, 4, 4), num_samples=30, num_classes=2))
    assert f"{type(model).__name__} makes no vectors of images" in one_line_error(
        capsys, "retrieve", "--ckpt_path", path
    )
