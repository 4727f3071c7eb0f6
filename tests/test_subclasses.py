"""Strangers' subclasses: no rule of ours binds what is theirs, and their checkpoints make them again."""

import math
import shutil
import sys
from collections import UserDict, UserList
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_gen._lightning import LightningDataModule, pl
from lightning_gen.checkpoints import load_data, load_model
from lightning_gen.cli import main
from lightning_gen.datamodules import DigitsDataModule, FakeDataModule
from lightning_gen.errors import CheckpointError, DataError
from lightning_gen.models import VAE, GenerativeModule, ImageModule
from tests import own
from tests.conftest import DATA, QUIET
from tests.digits import quiet_trainer
from tests.tiny import TINY, tiny

SMALL: dict[str, Any] = {"image_shape": (1, 8, 6), "hidden_size": 9, "decoder": "gaussian"}

FORMS: dict[type[GenerativeModule], dict[str, Any]] = {
    own.PassedOn: {**SMALL, "latent_dim": 7, "offset": -2.0},
    own.Saving: {**SMALL, "latent_dim": 7, "offset": -2.0},
    own.SavingFirst: {**SMALL, "latent_dim": 7, "offset": -2.0},
    own.Partly: {"latent_dim": 7, "offset": -2.0},
    own.Without: {**SMALL, "latent_dim": 7},
    own.KeywordOnly: {**SMALL, "latent_dim": 7, "offset": -2.0},
    own.Fixed: {**SMALL, "latent_dim": 7, "offset": -2.0},
    own.Meaning: {"image_shape": (1, 8, 6), "decoder": "gaussian", "latent_dim": 7, "offset": -2.0},
    own.Ignoring: {**SMALL, "latent_dim": 7, "offset": -2.0},
    own.Configured: {"config": {**SMALL, "latent_dim": 7, "offset": -2.0}},
    own.Mixed: {**SMALL, "latent_dim": 7, "offset": -2.0},
    own.Foreign: {**SMALL, "latent_dim": 7, "offset": -2.0},
    own.Promising: {**SMALL, "latent_dim": 7, "offset": -2.0},
}


def trained(model: GenerativeModule, path: Path, data: LightningDataModule | None = None) -> Path:
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(model, datamodule=data or FakeDataModule((1, 8, 6), num_samples=8))
    trainer.save_checkpoint(path)
    return path


@pytest.mark.parametrize("kind", FORMS, ids=lambda kind: kind.__name__)
def test_every_form_of_subclass_is_made_again_by_its_checkpoint(kind: Any, tmp_path: Path) -> None:
    model = kind(**FORMS[kind])
    path = trained(model, tmp_path / "x.ckpt")
    for loaded in (kind.load_from_checkpoint(path, weights_only=True), load_model(path)):
        assert type(loaded) is kind
        assert loaded.latent_dim == 7
        assert [getattr(loaded, name, None) for name in ("offset", "clip", "queue_size")] == [
            getattr(model, name, None) for name in ("offset", "clip", "queue_size")
        ]
        assert loaded.arguments == model.arguments
        before, after = (m.sample(3, generator=torch.Generator().manual_seed(0)) for m in (model, loaded))
        assert torch.equal(before, after)


def test_arguments_by_place_are_kept_by_name(tmp_path: Path) -> None:
    model = own.Mixed((1, 8, 6), 7, 9, decoder="gaussian")
    loaded = own.Mixed.load_from_checkpoint(trained(model, tmp_path / "x.ckpt"), weights_only=True)
    assert (loaded.latent_dim, loaded.image_shape, loaded.offset) == (7, (1, 8, 6), -1.0)


def test_bounds_of_the_parent_hold_for_what_it_is_given() -> None:
    for kind in (own.PassedOn, own.KeywordOnly, own.Partly):
        with pytest.raises(DataError, match=rf"^{kind.__name__} got latent_dim=0; expected int >= 1\.$"):
            kind(latent_dim=0)
    assert own.PassedOn(offset=-math.inf, queue_size=-3, **SMALL).offset == -math.inf
    assert own.Partly(transform=torch.relu).transform is torch.relu


def test_an_error_in_a_constructor_is_its_own() -> None:
    with pytest.raises(AttributeError, match="'Buggy' object has no attribute 'hiden_size'"):
        own.Buggy()


@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError, KeyError])
def test_an_error_in_a_sampler_is_its_own(error: type[Exception]) -> None:
    with pytest.raises(error, match="mine"):
        own.Breaking(error, **SMALL).sample(2)


@pytest.mark.parametrize("name", TINY)
def test_subclasses_of_every_model_are_made_again(name: str, tmp_path: Path) -> None:
    parent, _ = tiny(name)
    kind: Any = type(parent)

    class Own(kind):  # type: ignore[misc]
        def __init__(self, offset: float = -1.0, clip: float = math.inf, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.offset = offset

    model: ImageModule = Own(offset=-2.0, **parent.arguments)
    checkpoint: dict[str, Any] = {"state_dict": model.state_dict(), "pytorch-lightning_version": pl.__version__}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "x.ckpt")
    loaded = Own.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert loaded.arguments == {**parent.arguments, "offset": -2.0, "clip": math.inf}


# Values of any kind ---------------------------------------------------------------------------------------------


class Decoder(Enum):
    GAUSSIAN = "gaussian"


def test_hyper_parameters_are_plain_whatever_came(tmp_path: Path) -> None:
    model = own.PassedOn(
        image_shape=UserList([1, np.int64(8), 6]),  # Hydra's lists are no lists, Optuna's numbers NumPy's.
        latent_dim=np.int64(7),
        hidden_size=9,
        decoder="gaussian",
        offset=np.float32(-2),
        clip=Path("a"),
        queue_size=UserDict({Decoder.GAUSSIAN: (np.arange(2), Decoder.GAUSSIAN)}),
    )
    expected = {
        **{"image_shape": [1, 8, 6], "latent_dim": 7, "hidden_size": 9, "decoder": "gaussian"},
        **{"offset": -2.0, "clip": "a", "queue_size": {"gaussian": ([0, 1], "gaussian")}},
    }
    assert {name: model.hparams[name] for name in expected} == expected
    model.hparams["clip"] = Path("a")  # Later, as tuners change them.
    path = trained(model, tmp_path / "x.ckpt")
    assert torch.load(path, weights_only=True)["hyper_parameters"] == expected
    assert load_model(path).latent_dim == 7


def of_numpy(value: Any) -> Any:
    """The same with NumPy's numbers, and rows and mappings that are no lists and no dicts."""
    if isinstance(value, (list, tuple)):
        return UserList(map(of_numpy, value))
    if isinstance(value, dict):
        return UserDict({key: of_numpy(one) for key, one in value.items()})
    kinds: dict[type, Any] = {int: np.int64, float: np.float64}
    return kinds.get(type(value), lambda same: same)(value)


@pytest.mark.parametrize("name", TINY)
def test_every_model_takes_numbers_of_numpy(name: str) -> None:
    model, _ = tiny(name)
    made = type(model)(**{key: of_numpy(value) for key, value in model.arguments.items()})
    assert not {"numpy", "collections"} & {type(part).__module__ for part in flat(made.hparams)}


def flat(value: Any) -> Iterator[Any]:
    yield value
    for one in value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ():
        yield from flat(one)


# Data modules ---------------------------------------------------------------------------------------------------


class Cropped(DigitsDataModule):
    def __init__(self, offset: float = -1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.offset = offset


def test_data_modules_are_made_again(tmp_path: Path) -> None:
    data = Cropped(offset=-2.0, batch_size=np.int64(3), classes=[1])
    path = trained(VAE(hidden_size=9, decoder="gaussian"), tmp_path / "x.ckpt", data)
    for loaded in (Cropped.load_from_checkpoint(path, weights_only=True), load_data(path)):
        assert (type(loaded), loaded.offset, loaded.batch_size, loaded.classes) == (Cropped, -2.0, 3, [1])
    with pytest.raises(DataError, match=r"^Cropped got batch_size=0; expected int >= 1\.$"):
        Cropped(batch_size=0)


# Checkpoints of before ------------------------------------------------------------------------------------------


def test_checkpoints_with_the_class_among_the_arguments_still_load(tmp_path: Path) -> None:
    data = FakeDataModule((1, 8, 6), num_samples=8)
    path = trained(VAE(**SMALL), tmp_path / "x.ckpt", data)
    checkpoint = torch.load(path, weights_only=True)
    for key, class_path in checkpoint.pop("class_paths").items():
        checkpoint[key]["_class_path"] = class_path
    torch.save(checkpoint, path)
    assert VAE.load_from_checkpoint(path, weights_only=True).arguments == load_model(path).arguments
    assert load_data(path).batch_size == 16


def test_arguments_that_a_class_needs_and_a_checkpoint_lacks_are_named(tmp_path: Path) -> None:
    path = trained(own.Configured(**FORMS[own.Configured]), tmp_path / "x.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"].clear()
    torch.save(checkpoint, path)
    with pytest.raises(
        CheckpointError, match=r"x\.ckpt does not fit Configured: missing a required argument: 'config'"
    ):
        load_model(path)


# The command line -----------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package in the working directory, which is not on Python's path."""
    (tmp_path / "my_package").mkdir()
    shutil.copy(own.__file__, tmp_path / "my_package" / "models.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    for name in ("my_package", "my_package.models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "my_package.models"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    for name in ("my_package", "my_package.models"):
        monkeypatch.delitem(sys.modules, name)


def test_own_models_at_the_command_line(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", f"{package}.PassedOn", "--model.offset=-2", "--model.latent_dim=7", "--model.hidden_size=9"]
    main(["fit", f"--import={package}", *model, "--model.decoder=gaussian", *DATA, *QUIET, "--trainer.max_epochs=1"])
    (path,) = Path("logs").rglob("last.ckpt")
    held = torch.load(path, weights_only=True)
    assert held["hyper_parameters"]["offset"] == -2
    assert held["class_paths"]["hyper_parameters"] == "my_package.models.PassedOn"
    capsys.readouterr()

    sample = ["sample", "--ckpt_path", str(path), "--num_samples=4", "--output=a.png"]
    forget(monkeypatch)
    with pytest.raises(SystemExit):
        main(sample)
    assert "import it before: --import my_package.models on the command line." in capsys.readouterr().err
    main([*sample, "--import", package])
    assert Path("a.png").stat().st_size > 0
    for command in (
        ["test", "--ckpt_path", str(path), *QUIET],
        ["predict", "--ckpt_path", str(path), *QUIET],
        ["evaluate", "--ckpt_path", str(path), "--num_samples=20"],
        ["compare", str(path.parent.parent), "--output=page.html"],
    ):
        forget(monkeypatch)
        main([*command, "--import", package])
        assert "my_package" in sys.modules


def test_a_module_that_is_not_there_is_named(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["list", "--import", "my_package.modles"])
    assert "There is no module my_package.modles in" in capsys.readouterr().err
    Path("my_package", "broken.py").write_text("import nothing_of_the_kind")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_the_kind"):
        main(["list", "--import", "my_package.broken"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model=GAN", "--model.latent_dim=0"], "GAN got latent_dim=0; expected int >= 1."),
        (["--model=GAN", "--model.latent_dim=x"], "--model.latent_dim: Expected int. Got value: x"),
        (["--model=GAN", "--model.lr=.nan"], "GAN got lr=nan; expected float >= 0."),
        (["--model=VAE", "--data.batch_size=0"], "FakeDataModule got batch_size=0; expected int >= 1."),
        (["--model=VAE", "--trainer.callbacks+=SampleGrid", "--trainer.callbacks.num_samples=0"], "num_samples=0"),
        (["--model=VAE", "--trainer.accelerator=abacus"], "abacus"),
        (["--model={package}.PassedOn", "--model.latent_dim=0"], "PassedOn got latent_dim=0; expected int >= 1."),
    ],
)
def test_a_wrong_value_is_one_line(
    package: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--import", package, *DATA, *QUIET, *(option.format(package=package) for option in options)])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lightning-gen: error: ")]
    assert len(said) == 1
    assert message in said[0]


def test_a_bug_in_an_own_class_shows_its_traceback(package: str) -> None:
    with pytest.raises(AttributeError, match="hiden_size"):
        main(["fit", "--import", package, f"--model={package}.Buggy", *DATA, *QUIET])
