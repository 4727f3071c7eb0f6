"""A run has one folder, whatever its logger, and what it was told is found again wherever its checkpoint lies."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_gen.checkpoints import checkpoint_path
from lightning_gen.cli import main
from lightning_gen.commands.runs import find_run, read_curves
from lightning_gen.errors import CheckpointError
from lightning_gen.recipes import recipe_folder, recipe_name, recipe_names
from tests.conftest import DATA, QUIET

MODEL = ["--model", "VAE", "--model.hidden_size", "9", "--model.decoder=gaussian", "--trainer.max_epochs", "1"]
GRID = ["--trainer.callbacks+=SampleGrid", "--trainer.callbacks.num_samples=2"]
FIT = ["fit", *MODEL, *DATA, *QUIET, *GRID]
LOGGERS = {
    "tensorboard": [],
    "csv": ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=runs"],
    "wandb": [
        *("--trainer.logger=WandbLogger", "--trainer.logger.offline=true", "--trainer.logger.project=p"),
        "--trainer.logger.save_dir=runs",
    ],
    "mlflow": ["--trainer.logger=MLFlowLogger", "--trainer.logger.tracking_uri=sqlite:///m.db"],
    "none": ["--trainer.logger=false"],
    "dirpath": ["--checkpoint.dirpath=elsewhere"],
    "two": [
        '--trainer.logger=[{"class_path": "CSVLogger", "init_args": {"save_dir": "runs"}}, '
        '{"class_path": "TensorBoardLogger", "init_args": {"save_dir": "other"}}]'
    ],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    return tmp_path


def fit(logger: str, *options: str) -> None:
    """As in a process of its own: MLflow keeps what it has opened by its address, W&B the run that is open."""
    if logger in ("wandb", "mlflow"):
        package = pytest.importorskip(logger)
    main([*FIT, *(option.replace("sqlite:///", f"sqlite:///{Path.cwd()}/") for option in LOGGERS[logger]), *options])
    if logger == "wandb":
        package.finish()


@pytest.mark.parametrize("name", LOGGERS)
def test_runs_have_a_folder_each(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for size in (9, 10):
        fit(name, f"--model.hidden_size={size}")
    configs = sorted(folder.rglob("config.yaml"), key=lambda path: path.stat().st_mtime)
    configs = [path for path in configs if "files" not in path.parts and "artifacts" not in path.parts]
    assert [yaml.safe_load(path.read_text())["model"]["init_args"]["hidden_size"] for path in configs] == [9, 10]
    for path in configs:
        assert (path.parent / "samples" / "epoch=0000.png").is_file()
        assert json.loads((path.parent / "figures.json").read_text())["fit"]["model"] == "VAE"
        if name != "dirpath":
            assert (path.parent / "checkpoints" / "last.ckpt").is_file()
    assert not [path for path in folder.iterdir() if path.is_file() and path.name != "m.db"]
    last = max(folder.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    assert find_run(str(last)).folder.resolve() == configs[1].parent.resolve()

    moved = folder / "moved" / "x.ckpt"  # The callbacks are found wherever it lies.
    moved.parent.mkdir()
    last.rename(moved)
    main(["test", "--ckpt_path=moved/x.ckpt", *QUIET, "--trainer.logger=null", "--trainer.default_root_dir=t"])
    assert "callbacks" not in capsys.readouterr().err
    assert list((folder / "t").rglob("samples/test.png"))


def test_loggers_are_given_what_the_run_has_left(folder: Path) -> None:
    fit("wandb")
    (files,) = (folder / "runs").glob("wandb/offline-run-*/files")
    assert {"config.yaml", "figures.json"} <= {path.name for path in files.iterdir()}
    assert list(files.rglob("val/samples_*.png"))

    fit("mlflow")
    with sqlite3.connect("m.db") as database:
        told = dict(database.execute("select key, value from params"))
        (uri,) = database.execute("select artifact_uri from runs").fetchone()
    assert (told["seed"], told["hidden_size"], told["data.num_samples"]) == ("0", "9", "32")
    artifacts = Path(uri.removeprefix("file://"))
    assert {"config.yaml", "figures.json", "images"} <= {path.name for path in artifacts.iterdir()}


def test_curves_of_a_csv(folder: Path) -> None:
    fit("csv", "--trainer.max_epochs=3", "--trainer.log_every_n_steps=1")
    (run,) = (folder / "runs").glob("*/version_0")
    curves = read_curves(run)
    assert {"train/loss", "val/nll"} <= set(curves)
    assert curves["val/nll"][:, 0].tolist() == pytest.approx([1, 2, 3], abs=0.51)


def test_a_recipe_names_the_folder_and_is_found_by_it(folder: Path) -> None:
    debug = ["--config", "trainer/debug", *QUIET]
    for _ in range(2):
        main(["fit", "--config", "bernoulli_mixture/digits", *debug])
    assert sorted(path.name for path in (folder / "logs/bernoulli_mixture_digits").iterdir()) == [
        "version_0",
        "version_1",
    ]
    main(["test", "--ckpt_path", "bernoulli_mixture/digits", *QUIET])
    run = folder / "logs/bernoulli_mixture_digits/version_1"
    assert (run / "test" / "version_0" / "config.yaml").is_file()
    found = find_run("logs/bernoulli_mixture_digits")  # A test is no run of its own, and its figures are the run's.
    assert found.folder.name == "version_1"
    assert any(name.startswith("test/") for name in found.figures)
    for given in ("bernoulli_mixture/digits", "logs/bernoulli_mixture_digits", run):
        assert checkpoint_path(given).resolve() == run / "checkpoints" / "last.ckpt"
    epochs = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"]
    assert {figure.epoch for figure in found.figures.values() if figure.stage == "test"} == {epochs}
    main(["sample", "--ckpt_path", "bernoulli_mixture/digits", "--num_samples=4", "--output=a.png"])
    with pytest.raises(CheckpointError, match="There is no checkpoint logs/vae_digits; fit writes"):
        checkpoint_path("vae/digits")


def test_a_recipe_has_its_name_by_any_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the README's first command names it."""
    configs = recipe_folder()
    assert recipe_name(configs / "vae" / "digits.yaml") == "vae/digits"
    assert recipe_name("mine/digits.yaml") == "digits"
    monkeypatch.chdir(configs.parent)
    assert recipe_name(f"{configs.name}/vae/digits.yaml") == "vae/digits"
    assert recipe_name(f"./{configs.name}/../{configs.name}/vae/digits.yaml") == "vae/digits"
    assert len(set(recipe_names())) > 90


def test_other_data_than_the_recipes_have_a_folder_of_their_own(folder: Path) -> None:
    debug = ["--config", "trainer/debug", *QUIET]
    main(["fit", "--config", "vae/digits", *debug, *DATA, "--model.decoder=gaussian", "--trainer.callbacks=null"])
    assert [path.name for path in (folder / "logs").iterdir()] == ["vae_fake"]


def test_a_run_that_failed_is_none(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("LIGHTNING_GEN_DATA", str(folder))
    with pytest.raises(SystemExit):
        main(["fit", "--config", "bernoulli_mixture/digits", "--data=MNISTDataModule", *QUIET])
    main(["fit", "--config", "bernoulli_mixture/digits", "--config", "trainer/debug", *QUIET])
    for name in (folder / "logs").iterdir():
        if name.name == "bernoulli_mixture_digits":
            assert find_run(str(name)).checkpoint is not None


def test_that_there_are_no_callbacks_is_said(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = torch.load(checkpoint, weights_only=True)
    del content["run"]
    torch.save(content, "bare.ckpt")
    with pytest.warns(UserWarning, match=r"bare\.ckpt does not say with which callbacks"):
        main(["test", "--ckpt_path=bare.ckpt", *QUIET])
    assert "test/nll" in capsys.readouterr().out
    content["run"] = {"config": "trainer: ["}
    torch.save(content, "broken.ckpt")
    with pytest.raises(SystemExit):
        main(["test", "--ckpt_path=broken.ckpt", *QUIET])
    assert "The configuration of the run that wrote broken.ckpt cannot be read" in capsys.readouterr().err
