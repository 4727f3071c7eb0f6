"""Checkpoints that may come from anywhere: read as data, and nothing in them is run."""

import os
import pickle
import time
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from lightning_gen._lightning import LightningModule
from lightning_gen.checkpoints import load_model, module_config, read_checkpoint
from lightning_gen.cli import main
from lightning_gen.datamodules import FakeDataModule
from lightning_gen.errors import CheckpointError, DataError
from lightning_gen.models import VAE
from lightning_gen.nn.frozen import resolve_class
from tests.conftest import QUIET
from tests.test_cli import one_line_error

MARKER = "it_was_run"


class Payload:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def altered(checkpoint: Path, path: Path, **entries: object) -> Path:
    """A copy of a checkpoint with some of its entries replaced."""
    torch.save({**torch.load(checkpoint, weights_only=True), **entries}, path)
    return path


def bad_checkpoint(kind: str, checkpoint: Path, folder: Path) -> Path:
    """One of the ways in which a checkpoint can be bad; those with code would make a file named MARKER."""
    path = folder / "bad.ckpt"
    good = torch.load(checkpoint, weights_only=True)["hyper_parameters"]
    (folder / "marker_module.py").write_text(
        f"open({str(folder / MARKER)!r}, 'w')\nfrom lightning_gen.models import VAE\n"
    )
    if kind == "truncated":
        path.write_bytes(checkpoint.read_bytes()[:-200])
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "foreign zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "b")
    elif kind == "no state_dict":
        torch.save({"weights": torch.zeros(2)}, path)
    elif kind == "code":
        altered(checkpoint, path, payload=Payload(folder / MARKER))
    elif kind == "bare pickle with code":
        path.write_bytes(pickle.dumps(Payload(folder / MARKER)))
    elif kind == "function in place of a class":
        arguments = {"command": f"touch {folder / MARKER}"}
        altered(checkpoint, path, hyper_parameters=arguments, class_paths={"hyper_parameters": "os.system"})
    elif kind == "class of a module not imported":
        altered(checkpoint, path, class_paths={"hyper_parameters": "marker_module.VAE"})
    elif kind == "the same, where older ones hold it":
        altered(checkpoint, path, hyper_parameters={**good, "_class_path": "marker_module.VAE"}, class_paths={})
    elif kind == "function as a nested class":
        nested = {"class_path": "marker_module.VAE"}
        altered(checkpoint, path, hyper_parameters={**good, "lr": [nested]})
    elif kind == "class that is no module":
        altered(checkpoint, path, class_paths={"hyper_parameters": "pathlib.Path"})
    elif kind == "no class":
        altered(checkpoint, path, class_paths={})
    elif kind == "classes of another kind":
        altered(checkpoint, path, class_paths=["lightning_gen.models.vae.VAE"])
    elif kind == "data module that is none":
        paths = {"hyper_parameters": "lightning_gen.models.VAE", "datamodule_hyper_parameters": "os.system"}
        arguments = {"command": f"touch {folder / MARKER}"}
        altered(checkpoint, path, datamodule_hyper_parameters=arguments, class_paths=paths)
    return path


UNREADABLE = ["truncated", "empty", "text", "foreign zip", "no state_dict", "code", "bare pickle with code"]
UNTRUSTED = [
    "function in place of a class",
    "class of a module not imported",
    "the same, where older ones hold it",
    "function as a nested class",
    "class that is no module",
    "no class",
    "classes of another kind",
]


@pytest.mark.parametrize("command", ["sample", "test"])
@pytest.mark.parametrize("kind", [*UNREADABLE, *UNTRUSTED])
def test_bad_checkpoint_is_refused_in_one_line_and_nothing_runs(
    command, kind, checkpoint, tmp_path, monkeypatch, capsys
):
    path = bad_checkpoint(kind, checkpoint, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    files = sorted(tmp_path.iterdir())
    output = ["--output", str(tmp_path / "grid.png")] if command == "sample" else []
    error = one_line_error(capsys, command, "--ckpt_path", str(path), *output)
    assert "checkpoint" in error or str(path) in error
    assert sorted(tmp_path.iterdir()) == files
    assert not (tmp_path / MARKER).exists()


def test_data_module_that_is_none_is_refused(checkpoint, tmp_path, capsys):
    path = bad_checkpoint("data module that is none", checkpoint, tmp_path)
    assert "os.system" in one_line_error(capsys, "test", "--ckpt_path", str(path))
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize("inside", [False, True])
def test_the_runs_config_is_trusted_no_more(inside, checkpoint, tmp_path, monkeypatch, capsys):
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    bad_checkpoint("truncated", checkpoint, tmp_path)  # For its module.
    monkeypatch.syspath_prepend(tmp_path)
    config = "trainer: {callbacks: [{class_path: marker_module.VAE}], logger: null}"
    content = torch.load(checkpoint, weights_only=True)
    if inside:
        content["run"]["config"] = config
    else:  # As older ones have it.
        del content["run"]
        (tmp_path / "config.yaml").write_text(config)
    torch.save(content, path)
    assert "marker_module.VAE" in one_line_error(capsys, "test", "--ckpt_path", str(path))
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize("place", ["data", "run", "both"])
def test_no_program_is_run_in_the_place_of_a_transform(place, checkpoint, tmp_path, capsys):
    marker = tmp_path / MARKER
    transform = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", str(marker)]}}
    content = torch.load(checkpoint, weights_only=True)
    run = yaml.safe_load(content["run"]["config"])
    harmless = {"class_path": "torch.nn.Identity"}
    if place != "run":
        content["datamodule_hyper_parameters"]["train_transform"] = transform if place == "data" else harmless
    run["data"]["init_args"]["train_transform"] = harmless if place == "data" else transform
    content["run"]["config"] = yaml.safe_dump(run)
    torch.save(content, path := tmp_path / "x.ckpt")
    options = ["--ckpt_path", str(path), "--trainer.max_epochs", "2", "--trainer.default_root_dir", str(tmp_path)]
    if place == "run":  # What the data were is read from the checkpoint, which names none.
        main(["fit", *options, *QUIET])
    else:
        assert "subprocess.Popen', which is no Module" in one_line_error(capsys, "fit", *options)
    if place == "data":
        with pytest.raises(DataError, match=r"names no nn\.Module"):
            FakeDataModule.load_from_checkpoint(path, weights_only=True)
    time.sleep(0.2)
    assert not marker.exists()


def test_the_markers_would_be_made(tmp_path):
    """The files of the tests above are loaded guns: read carelessly, they do go off."""
    pickle.loads(pickle.dumps(Payload(tmp_path / MARKER)))
    assert (tmp_path / MARKER).exists()


def test_missing_file(capsys):
    assert "There is no checkpoint nowhere.ckpt" in one_line_error(capsys, "test", "--ckpt_path", "nowhere.ckpt")


def test_rebuilt_model_is_the_saved_one(checkpoint):
    model = load_model(checkpoint)
    assert isinstance(model, VAE)
    assert model.image_shape == (1, 8, 6)  # Linked from the data, and saved.
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


def test_checkpoint_of_the_command_line_loads_by_its_class_alone(checkpoint):
    images = []
    for model in (VAE.load_from_checkpoint(checkpoint, weights_only=True), load_model(checkpoint)):
        torch.manual_seed(0)
        images.append(model.sample(3))
    assert torch.equal(*images)


def test_data_are_rebuilt_with_what_was_typed(checkpoint):
    from lightning_gen._lightning import LightningDataModule

    config = module_config(read_checkpoint(checkpoint), "datamodule_hyper_parameters", LightningDataModule)
    assert config["class_path"].endswith("FakeDataModule")
    assert list(config["init_args"]["image_shape"]) == [1, 8, 6]
    assert config["init_args"]["num_samples"] == 32


def test_weights_that_do_not_fit_are_named(checkpoint, tmp_path):
    hyper_parameters = {**torch.load(checkpoint, weights_only=True)["hyper_parameters"], "hidden_size": 10}
    path = altered(checkpoint, tmp_path / "other.ckpt", hyper_parameters=hyper_parameters)
    with pytest.raises(CheckpointError, match="does not fit VAE"):
        load_model(path)


def test_own_classes_are_imported_and_others_only_if_they_are():
    assert resolve_class("lightning_gen.models.vae.VAE", LightningModule) is VAE
    with pytest.raises(CheckpointError, match="no LightningModule"):
        resolve_class("lightning_gen.models.vae.Posterior", LightningModule)
    for name in ("antigravity.Path", "lightning_gen.nothing.VAE", "lightning_gen.models.Nothing", "VAE", "", None):
        with pytest.raises(CheckpointError, match="neither of lightning_gen nor imported"):
            resolve_class(name, LightningModule)
