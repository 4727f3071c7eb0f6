import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from lightning_gen._lightning import LightningDataModule, LightningModule
from lightning_gen.cli import main
from lightning_gen.models import VAE
from tests.conftest import DATA, MODEL, QUIET
from tests.test_cli import one_line_error

ROOT = Path(__file__).parents[2]


class Foreign(LightningModule):
    """Somebody's own model, which knows nothing of ours."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.weight = torch.nn.Parameter(torch.zeros(width))

    def training_step(self, batch: object, batch_idx: int) -> torch.Tensor:
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Labelled(Foreign):
    """A model that takes `num_classes`."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.save_hyperparameters()


class Shapeless(LightningDataModule):
    """Somebody's own data, which do not tell their shape."""

    def train_dataloader(self) -> torch.utils.data.DataLoader[torch.Tensor]:
        return torch.utils.data.DataLoader(torch.rand(8, 1, 5, 5), batch_size=4)


def fit(folder: Path, *options: str) -> Path:
    """Train one epoch; returns the only run's folder."""
    main(["fit", *options, *QUIET, "--trainer.max_epochs", "1", "--trainer.default_root_dir", str(folder)])
    (run,) = folder.glob("*/version_0")
    return run


def test_fit_leaves_checkpoints_logs_and_its_config(checkpoint):
    run = checkpoint.parents[1]
    assert run.parent.name == "vae_fake"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["seed_everything"] == 0
    assert "image_shape" not in config["model"]["init_args"]  # It comes from the data.
    assert list(run.glob("events.out.tfevents.*"))
    state = torch.load(checkpoint, weights_only=True)
    assert state["epoch"] == 0
    assert state["hyper_parameters"]["image_shape"] == (1, 8, 6)
    assert state["class_paths"]["hyper_parameters"] == "lightning_gen.models.vae.VAE"
    assert any("RandomState" in name for name in state["callbacks"])


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_a_checkpoint_is_all_that_evaluation_needs(command, checkpoint, tmp_path, capsys, caplog, recwarn):
    before = len(list(checkpoint.parents[1].parent.iterdir()))
    main([command, "--ckpt_path", str(checkpoint), *QUIET, "--trainer.default_root_dir", str(tmp_path)])
    for noise in ("litlogger", "callbacks used to create the checkpoint", "LeafSpec"):
        assert noise not in caplog.text + " ".join(str(warning.message) for warning in recwarn)
    assert "DataLoader 0" not in capsys.readouterr().out  # Lightning's own table of the same figures.
    (run,) = tmp_path.glob(f"vae_fake/{command}/version_0")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["hidden_size"] == 9
    assert config["data"]["init_args"]["num_samples"] == 32
    assert list(run.rglob("*.png"))  # Judged by the callbacks of the run, or results.
    if command == "predict":
        files = sorted(path.name for path in (run / "results").iterdir())
        assert files == [f"{index:06d}.png" for index in range(32)]
    assert len(list(checkpoint.parents[1].parent.iterdir())) == before


def test_a_models_parts_are_shown_without_operations(tmp_path, capsys):
    options = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "0"]
    main(["fit", *MODEL, *DATA, *QUIET[:4], *options, "--trainer.default_root_dir", str(tmp_path)])
    output = capsys.readouterr().out
    assert "decoder" in output
    assert " parameters, " in output
    assert "FLOPs" not in output


def test_without_the_runs_config_a_checkpoint_is_still_enough(checkpoint, tmp_path, capsys):
    path = tmp_path / "checkpoints" / "copied.ckpt"
    path.parent.mkdir()
    path.write_bytes(checkpoint.read_bytes())
    main(["test", "--ckpt_path", str(path), *QUIET, "--trainer.default_root_dir", str(tmp_path)])
    assert "test/nll" in capsys.readouterr().out


def test_fit_goes_on_from_a_checkpoint_alone(checkpoint, tmp_path):
    main(
        [
            "fit",
            "--ckpt_path",
            str(checkpoint),
            "--trainer.max_epochs",
            "2",
            "--trainer.default_root_dir",
            str(tmp_path),
        ]
    )
    (resumed,) = tmp_path.rglob("last.ckpt")
    main(
        ["fit", *MODEL, *DATA, *QUIET, "--trainer.max_epochs", "2", "--trainer.default_root_dir", str(tmp_path / "two")]
    )
    (straight,) = (tmp_path / "two").rglob("last.ckpt")
    resumed, straight = (torch.load(path, weights_only=True) for path in (resumed, straight))
    assert resumed["epoch"] == straight["epoch"] == 1
    for name, value in straight["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name])


@pytest.mark.parametrize("name", ["VAE", "lightning_gen.models.VAE", "lightning_gen.models.vae.VAE"])
def test_fit_goes_on_with_the_recipe_named_again(checkpoint, tmp_path, name):
    """By whatever name the class goes: recipes say lightning_gen.models.VAE, checkpoints where it stands."""
    options = [*MODEL[:1], name, *MODEL[2:], *DATA, *QUIET, "--trainer.default_root_dir", str(tmp_path)]
    main(["fit", "--ckpt_path", str(checkpoint), *options, "--trainer.max_epochs", "2"])
    (resumed,) = tmp_path.rglob("last.ckpt")
    assert torch.load(resumed, weights_only=True)["epoch"] == 1


def test_resuming_with_another_value_is_refused(checkpoint, tmp_path, capsys):
    error = one_line_error(capsys, "fit", "--ckpt_path", str(checkpoint), "--model.hidden_size", "99")
    assert "hidden_size=99 (9 in the checkpoint)" in error
    error = one_line_error(capsys, "fit", "--ckpt_path", str(checkpoint), *MODEL, *DATA, "--model.lr", "0.5")
    assert "lr=0.5 (0.02 in the checkpoint)" in error


def test_evaluating_with_another_value_warns(checkpoint, tmp_path, capsys):
    options = ["--model.num_importance_samples", "7", *QUIET, "--trainer.default_root_dir", str(tmp_path)]
    main(["test", "--ckpt_path", str(checkpoint), *options])
    output = capsys.readouterr()
    assert "warning: num_importance_samples=7 (200 in the checkpoint)" in output.err
    assert "7 samples" in " ".join(output.out.split())


def test_evaluating_with_a_value_that_the_weights_do_not_fit_is_refused(checkpoint, capsys):
    error = one_line_error(capsys, "test", "--ckpt_path", str(checkpoint), "--model.hidden_size", "99")
    assert "do not fit VAE with hidden_size=99 (9 in the checkpoint)" in error


def test_checkpoint_of_another_model_is_refused(checkpoint, capsys):
    error = one_line_error(capsys, "test", "--ckpt_path", str(checkpoint), "--model", "GAN", *DATA)
    assert "VAE" in error
    assert "GAN was given" in error


def test_image_shape_that_does_not_fit_the_data(tmp_path, capsys):
    folder = ["--trainer.default_root_dir", str(tmp_path)]
    error = one_line_error(capsys, "fit", *MODEL, *DATA, "--model.image_shape", "[3,8,6]", *folder)
    assert "image_shape=(3, 8, 6)" in error
    assert "(1, 8, 6)" in error
    assert not list(tmp_path.iterdir())


def test_data_tell_the_number_of_classes_only_to_models_that_ask(tmp_path):
    options = ["--data", "FakeDataModule", "--data.num_classes", "4"]
    path = fit(tmp_path / "asks", "--model", f"{__name__}.Labelled", *options) / "checkpoints" / "last.ckpt"
    assert len(Labelled.load_from_checkpoint(path, weights_only=True).weight) == 4
    path = fit(tmp_path / "does not", "--model", f"{__name__}.Foreign", *options) / "checkpoints" / "last.ckpt"
    assert len(Foreign.load_from_checkpoint(path, weights_only=True).weight) == 3


def test_data_without_a_shape_leave_it_to_the_model(tmp_path):
    run = fit(tmp_path, "--data", f"{__name__}.Shapeless", *MODEL, "--model.image_shape", "[1,5,5]")
    assert VAE.load_from_checkpoint(run / "checkpoints" / "last.ckpt", weights_only=True).image_shape == (1, 5, 5)


def test_without_logger_nothing_is_overwritten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("mine")
    options = ["--trainer.logger", "false", "--trainer.enable_checkpointing", "false", "--trainer.max_epochs", "1"]
    main(["fit", *MODEL, *DATA, *QUIET, *options])
    assert (tmp_path / "config.yaml").read_text() == "mine"
    assert not list(tmp_path.rglob("*.ckpt"))


def test_log_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    folder = ["--trainer.default_root_dir", str(tmp_path / "file" / "logs")]
    assert str(tmp_path / "file") in one_line_error(capsys, "fit", *MODEL, *DATA, *QUIET, *folder)


def test_lightnings_own_refusals_are_one_line(capsys):
    assert (
        "gpu" in one_line_error(capsys, "fit", *MODEL, *DATA, "--trainer.accelerator", "gpu")
        or torch.cuda.is_available()
    )


def test_relaunching_what_was_not_typed_is_refused(capsys):
    options = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    assert "called from Python" in one_line_error(capsys, "fit", *MODEL, *DATA, *options)


def command_line(*options: str, cwd: Path, **environment: str) -> "subprocess.Popen[str]":
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "cli.py"), *options],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_ranks_on_the_other_distribution_of_lightning(tmp_path):
    pytest.importorskip("lightning")
    ranks = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_epochs", "1"]
    process = command_line("fit", *MODEL, *DATA, *QUIET, *ranks, cwd=tmp_path, LIGHTNING_GEN_BACKEND="lightning")
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    (path,) = (tmp_path / "logs").rglob("last.ckpt")
    state = torch.load(path, weights_only=True)
    assert state["global_step"] == 1  # 32 images in batches of 16 on two ranks.
    assert isinstance(VAE.load_from_checkpoint(path, weights_only=True), LightningModule)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_says_how_to_go_on(sent, tmp_path, monkeypatch):
    process = command_line("fit", *MODEL, *DATA, *QUIET, "--trainer.max_epochs", "100000", cwd=tmp_path)
    deadline = time.monotonic() + 200
    while not list(tmp_path.rglob("last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, -sent)
    (line,) = [line for line in errors.splitlines() if line.startswith("lightning-gen:")]
    advice, path = line.rsplit(" ", 1)
    assert advice.endswith("go on with: lightning-gen fit --ckpt_path")
    state = torch.load(tmp_path / path, weights_only=True)
    monkeypatch.chdir(tmp_path)
    main(["fit", "--ckpt_path", path, "--trainer.max_epochs", str(state["epoch"] + 2)])
