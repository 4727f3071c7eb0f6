"""Which checkpoint is meant, and what it is begun from: `--ckpt_path last`, `--init_from`; runs that leave nothing."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_gen.checkpoints import load_weights
from lightning_gen.cli import main
from lightning_gen.models import ConvolutionalCGAN
from tests.conftest import DATA, MODEL, QUIET
from tests.test_cli import one_line_error

RUN = ["fit", *MODEL, *DATA, *QUIET]


def state_of(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs in logs/vae_fake, the second with the better first epoch: its likelihood falls."""
    monkeypatch.chdir(tmp_path)
    monitor = ["--checkpoint.monitor", "val/nll", "--checkpoint.filename", "{epoch}", "--checkpoint.save_top_k", "-1"]
    for epochs, mode in ((1, "min"), (2, "max")):
        main([*RUN, *monitor, "--checkpoint.mode", mode, "--trainer.max_epochs", str(epochs)])
    return tmp_path / "logs" / "vae_fake"


def test_last_and_best_of_the_newest_run(runs: Path, capsys: Any) -> None:
    test = ["test", *QUIET, "--trainer.default_root_dir", "elsewhere"]
    for word, name in (("last", "last"), ("best", "epoch=0")):
        given = [*test, "--checkpoint.dirpath", str(runs), "--ckpt_path", word]
        for options in (given, [*given, *MODEL, *DATA]):  # With a model it is looked for once all is built.
            main(options)
            output = " ".join(capsys.readouterr().out.split())
            assert f"version_1/checkpoints/{name}.ckpt" in output
    main(["validate", "--ckpt_path", "last", *QUIET])
    assert "logs/vae_fake/version_1/checkpoints/last.ckpt" in capsys.readouterr().out
    main([*RUN, "--ckpt_path", "last", "--trainer.max_epochs", "3"])
    assert state_of(runs / "version_2" / "checkpoints" / "last.ckpt")["epoch"] == 2
    os.rename(runs / "version_1", runs / "moved")
    main(["predict", "--ckpt_path", "best", *QUIET, "--checkpoint.dirpath", str(runs / "moved")])


def test_a_stopped_run_and_what_slurm_leaves(runs: Path, capsys: Any) -> None:
    last = runs / "version_0" / "checkpoints" / "last.ckpt"
    (interrupted := last.with_name("interrupted.ckpt")).write_bytes(last.read_bytes())
    main(["test", "--ckpt_path", "last", *QUIET])
    assert str(interrupted.relative_to(Path.cwd())) in capsys.readouterr().out
    for number in (9, 10):
        Path(f"hpc_ckpt_{number}.ckpt").write_bytes(last.read_bytes())
    main(["test", "--ckpt_path", "hpc", *QUIET])
    assert "hpc_ckpt_10.ckpt" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "word", "what"),
    [
        ("test", "last", "last checkpoint below logs"),
        ("validate", "best", "best checkpoint below logs"),
        ("predict", "hpc", r"hpc_ckpt_\*.ckpt in "),
        ("fit", "best", "best checkpoint below logs"),
    ],
)
@pytest.mark.parametrize("model", [[], [*MODEL, *DATA]], ids=["alone", "with a model"])
def test_none_is_one_line(
    command: str, word: str, what: str, model: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    error = one_line_error(capsys, command, "--ckpt_path", word, *model, *QUIET)
    assert f"--ckpt_path {word}: there is no" in error
    assert what.replace("\\", "") in error
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_job_that_is_queued_again_types_the_same(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for epochs in (1, 2):
        main([*RUN, "--ckpt_path", "last", "--checkpoint.dirpath", "saved", "--trainer.max_epochs", str(epochs)])
        assert max(state_of(path)["epoch"] for path in Path("saved").glob("last*.ckpt")) == epochs - 1


def test_weights_alone_cannot_be_resumed_but_begun_from(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    main([*RUN, "--checkpoint.save_weights_only", "true", "--trainer.max_epochs", "1"])
    path = "logs/vae_fake/version_0/checkpoints/last.ckpt"
    error = one_line_error(capsys, "fit", "--ckpt_path", path)
    assert f"{path} holds weights alone (save_weights_only)" in error
    assert error.endswith(f"lightning-gen fit --init_from {path}")
    main(["fit", "--init_from", path, "--trainer.max_epochs", "1"])
    main(["test", "--ckpt_path", path, *QUIET])


def test_a_run_begins_anew_from_weights(checkpoint: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """On other data, with another step size so small that the weights stay: new moments, epoch 0, own settings."""
    monkeypatch.chdir(tmp_path)
    other = ["--data", "FakeDataModule", "--data.image_shape", "[1,8,6]", "--data.num_samples", "48"]
    settings = ["--model.lr", "1e-12", "--trainer.max_epochs", "1", "--trainer.default_root_dir", "logs"]
    main(["fit", "--init_from", str(checkpoint), *other, *settings, *QUIET])
    before, after = state_of(checkpoint), state_of(tmp_path / "logs/vae_fake/version_0/checkpoints/last.ckpt")
    for name, value in before["state_dict"].items():
        torch.testing.assert_close(after["state_dict"][name], value)
    assert (before["epoch"], after["epoch"]) == (0, 0)
    assert before["global_step"] == 2
    assert after["global_step"] == 3
    assert after["hyper_parameters"]["lr"] == 1e-12
    assert after["datamodule_hyper_parameters"]["num_samples"] == 48
    (group,) = after["optimizer_states"][0]["param_groups"]
    assert group["lr"] == 1e-12
    config = yaml.safe_load((tmp_path / "logs/vae_fake/version_0/config.yaml").read_text())
    assert config["init_from"] == str(checkpoint)
    assert any("SampleGrid" in callback["class_path"] for callback in config["trainer"]["callbacks"])


def test_weights_that_do_not_fit_are_named(checkpoint: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    larger = ["--data", "FakeDataModule", "--data.image_shape", "[1,8,8]", "--data.num_samples", "16"]
    settings = ["--trainer.max_epochs", "1", "--trainer.default_root_dir", "logs"]
    with pytest.warns(UserWarning, match=r"encoder.0.weight \(\(9, 48\) in the checkpoint, \(9, 64\) here\)"):
        main(["fit", "--init_from", str(checkpoint), *larger, *settings, *QUIET])
    saved = state_of(tmp_path / "logs/vae_fake/version_0/checkpoints/last.ckpt")
    assert saved["hyper_parameters"]["image_shape"] == (1, 8, 8)
    other = ["--model", "GAN", *DATA, *QUIET]
    assert "No weight in" in one_line_error(capsys, "fit", "--init_from", str(checkpoint), *other)
    assert "There is no checkpoint nowhere" in one_line_error(capsys, "fit", "--init_from", "nowhere", *other)


def test_a_run_that_goes_on_does_not_begin_anew(checkpoint: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for epochs in (2, 3):
        options = ["--init_from", str(checkpoint), "--ckpt_path", "last", "--checkpoint.dirpath", "saved"]
        main([*RUN, *options, "--trainer.max_epochs", str(epochs)])
    assert max(state_of(path)["global_step"] for path in Path("saved").glob("*.ckpt")) == 6


def test_buffers_that_grow_are_taken_over(tmp_path: Path) -> None:
    """ConvolutionalCGAN keeps the conditions of its training images, as many as there are."""
    small = {"condition_size": 3, "hidden_size": 100, "maxout_channels": (2, 2, 2), "maxout_units": 4}
    one, two = (ConvolutionalCGAN((1, 32, 32), **small) for _ in range(2))
    buffers = dict(one.named_buffers())
    (name,) = [name for name, value in buffers.items() if value.ndim == 2]
    setattr(one, name, torch.rand(50, 3))
    torch.save({"state_dict": one.state_dict()}, path := tmp_path / "one.ckpt")
    load_weights(two, path)
    assert torch.equal(getattr(one, name), getattr(two, name))


def test_what_is_kept_as_the_best_was_measured(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """The command line saves after every epoch; with a validation in every second, the others have an old value."""
    monkeypatch.chdir(tmp_path)
    run = [
        *RUN,
        "--trainer.max_epochs",
        "5",
        "--trainer.check_val_every_n_epoch",
        "2",
        "--checkpoint.monitor",
        "val/nll",
    ]
    error = one_line_error(capsys, *run)
    assert "ModelCheckpoint reads val/nll also where it has not been measured" in error
    assert "ModelCheckpoint every_n_epochs=2" in error
    main([*run, "--checkpoint.every_n_epochs", "2", "--checkpoint.save_top_k", "-1"])
    folder = tmp_path / "logs" / "vae_fake" / "version_0" / "checkpoints"
    assert sorted(state_of(path)["epoch"] for path in folder.glob("epoch*.ckpt")) == [1, 3]


def test_a_tuner_is_for_new_runs(checkpoint: Path, capsys: Any) -> None:
    tuner = "--trainer.callbacks+=LearningRateFinder"
    error = one_line_error(capsys, "fit", "--ckpt_path", str(checkpoint), tuner, *QUIET)
    assert "LearningRateFinder is for a new run" in error


CALLBACKS = [
    f"--trainer.callbacks+=lightning_gen.callbacks.{name}"
    for name in ("SampleGrid", "ImageWriter", "EMA", "SampleEvaluation", "ClosestPairs", "LatentManifold")
]
CALLBACKS.insert(2, "--trainer.callbacks.output_dir=images")
CALLBACKS.insert(5, "--trainer.callbacks.metrics=[lightning_gen.metrics.ParzenLogLikelihood]")


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_a_trial_leaves_nothing(command: str, checkpoint: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    callbacks = [*CALLBACKS, "--model.latent_dim=2"] if command == "fit" else CALLBACKS[:-1]
    start = [*MODEL, *DATA] if command == "fit" else ["--ckpt_path", str(checkpoint)]
    main([command, *start, *QUIET, *callbacks, "--trainer.fast_dev_run", "1"])
    assert not list(tmp_path.iterdir())


def test_a_run_for_its_speed(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    barebones = ["--trainer.barebones", "true", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1"]
    main(["fit", *MODEL, *DATA, *barebones])
    main(
        [
            "fit",
            "--config",
            "gan/digits",
            "--trainer.callbacks",
            "null",
            *barebones,
            "--trainer.limit_train_batches",
            "2",
        ]
    )
    assert not list(tmp_path.iterdir())
    error = one_line_error(capsys, "fit", *MODEL, *DATA, *barebones, "--trainer.profiler", "simple")
    assert "barebones=True, profiler='simple'" in error
