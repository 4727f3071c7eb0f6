"""Grids of units, strips of chains, and holes completed, from checkpoints alone."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from lightning_gen.cli import main
from lightning_gen.commands.activate import within_class_distance
from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.models import DGNAM, PPGN, DigitClassifier
from tests.digits import quiet_trainer
from tests.models.test_base import STEERED
from tests.test_cli import one_line_error

CELL = 30


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PPGN, a DGN-AM and a classifier, hardly trained."""
    path = tmp_path_factory.mktemp("activate")
    torch.manual_seed(0)
    models = {
        "ppgn": PPGN(variant="h", denoiser_units=(4,), num_steps=6, code_limit=None, **STEERED),
        "dgn_am": DGNAM(num_steps=3, **STEERED),
        "classifier": DigitClassifier(),
    }
    for name, model in models.items():
        trainer = quiet_trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=0)
        trainer.fit(model, datamodule=DigitsDataModule(batch_size=10))
        trainer.save_checkpoint(path / f"{name}.ckpt")
    return path


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_a_grid_has_a_row_for_each_unit(checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "a.png"
    command = ["activate", "--ckpt_path", str(checkpoints / "dgn_am.ckpt"), "--output", str(output)]
    main([*command, "--num_samples", "3", "--units", "3,network.body.5:7,network.body.5:7:0:13"])
    assert size(output) == (3 * CELL + 2, 3 * CELL + 2)
    assert "mean activation at step 0:" in capsys.readouterr().out


def test_strips_and_another_network_and_a_reader(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, classifier = tmp_path / "a.png", str(checkpoints / "classifier.ckpt")
    command = ["activate", "--ckpt_path", str(checkpoints / "ppgn.ckpt"), "--output", str(output), "--every", "2"]
    main([*command, "--num_samples", "2", "--network", classifier, "--reader", classifier, "--variant", "noiseless"])
    assert size(output) == (4 * CELL + 2, 20 * CELL + 2)  # Steps 0, 2, 4 and the end, of two chains for each class.
    said = capsys.readouterr().out
    assert "read as asked" in said
    assert "of real test images within a class: 8.87" in said


def test_holes_are_completed_under_the_images_own_labels(checkpoints: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.png"
    command = ["activate", "--ckpt_path", str(checkpoints / "ppgn.ckpt"), "--output", str(output)]
    main([*command, "--num_samples", "5", "--hole", "10"])
    assert size(output) == (5 * CELL + 2, 3 * CELL + 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--units", "12"], "no class 12; there are 0 to 9"),
        (["--hole", "28"], "hole=28"),
        (["--variant", "noiseless"], "Only a PPGN trained as h"),
        (["--every", "0"], "every is 0; expected at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_named(
    options: list[str], message: str, checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["activate", "--ckpt_path", str(checkpoints / "dgn_am.ckpt"), "--output", str(tmp_path / "a.png")]
    assert message in one_line_error(capsys, *command, *options)


def test_distances_are_within_classes_alone() -> None:
    images, labels = torch.zeros(4, 1, 2, 2), torch.tensor([0, 0, 1, 1])
    images[1], images[2:] = 1, 100
    assert within_class_distance(images, labels) == pytest.approx(1.0)  # 2 in one class, 0 in the other.
