"""Checkpoints are written whole or not at all; read, they may come from anywhere: data only, and no foreign class."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from lightning_gen._lightning import LightningDataModule, LightningModule, pl
from lightning_gen.callbacks.files import whole_file
from lightning_gen.errors import CheckpointError, LightningGenError
from lightning_gen.models.base import GenerativeModule
from lightning_gen.nn.frozen import resolve_class
from lightning_gen.recipes import recipe_names


class WholeCheckpoints(pl.plugins.TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it once all of it is on the disk: `Trainer(plugins=...)`.

    Lightning writes to the system's folder for temporary files first. Where that is another disk, it then copies, and a
    process killed meanwhile or a full disk leaves half a checkpoint in the place of the one before.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if "://" in str(path):  # An object store has no half files.
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            with whole_file(Path(path)) as temporary, temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error  # A full disk does not say what for.


def checkpoint_path(given: str | Path) -> Path:
    """The checkpoint that is meant: a file, a run's folder, or a folder of runs or a recipe, for the newest training.

    Raises:
        CheckpointError: if there is none.
    """
    path = Path(given)
    if not path.exists() and str(given) in recipe_names():
        path = Path("logs", str(given).replace("/", "_"))
    if path.is_file():
        return path
    found = [*path.glob("checkpoints/*.ckpt"), *path.glob("*/checkpoints/*.ckpt"), *path.glob("*.ckpt")]
    if not found:
        raise CheckpointError(
            f"There is no checkpoint {path}; fit writes them as logs/<recipe>/version_0/checkpoints/last.ckpt, and the "
            "folder logs/<recipe> stands for the newest of its runs."
        )
    newest = max(found, key=os.path.getmtime)
    last = newest.with_name("last.ckpt")
    return last if last in found else newest


def read_checkpoint(given: str | Path) -> dict[str, Any]:
    """Read a Lightning checkpoint onto the CPU; nothing in it is run.

    Args:
        given: see `checkpoint_path`.

    Raises:
        CheckpointError: if there is no such file, or it is truncated, holds code, or is not a Lightning checkpoint.
    """
    path = checkpoint_path(given)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # Weights are paged in as used.
    except Exception as error:  # A foreign file can break the reader in any way.
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: it is cut short, of another kind, or holds code, which is never "
            f"run ({type(error).__name__})."
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise CheckpointError(f"{path} holds no state_dict; expected a checkpoint that a Trainer has saved.")
    return checkpoint


def run_config(path: str | Path) -> dict[str, Any] | None:
    """What the run was told that has left a checkpoint: kept in it, or, by older ones, beside it; None if neither.

    Raises:
        CheckpointError: if what is there is no configuration of a run.
    """
    kept = read_checkpoint(path).get("run")
    beside = checkpoint_path(path).parent.parent / "config.yaml"
    text = kept.get("config") if isinstance(kept, dict) else beside.read_text("utf-8") if beside.is_file() else None
    if text is None:
        return None
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, AttributeError) as error:
        raise CheckpointError(f"The configuration of the run that wrote {path} cannot be read: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("trainer"), dict):
        raise CheckpointError(f"The configuration of the run that wrote {path} has no section trainer.")
    return config


def find_checkpoint(word: str, folder: str, root: str) -> Path | None:
    """The checkpoint that Lightning means by a word, looked for in all runs below a folder.

    Args:
        word: `last`, the newest that a ModelCheckpoint wrote as its last, or a run that was stopped; `best`, what the
            newest of all checkpoints calls the best by its monitor; `hpc`, what Lightning left when SLURM ended a job.
        folder: of `last` and `best`.
        root: the trainer's `default_root_dir`, of `hpc`.

    Returns:
        Its path, None if there is none.
    """
    if word == "hpc":
        numbered = {path.stem.removeprefix("hpc_ckpt_"): path for path in Path(root).glob("hpc_ckpt_*.ckpt")}
        return max(((int(n), path) for n, path in numbered.items() if n.isdigit()), default=(0, None))[1]
    found = sorted(Path(folder).rglob("*.ckpt"), key=os.path.getmtime, reverse=True)
    if word == "last":
        return next((path for path in found if path.stem.startswith("last") or path.stem == "interrupted"), None)
    if not found:
        return None
    states = read_checkpoint(found[0]).get("callbacks", {})
    named = (state["best_model_path"] for key, state in states.items() if key.startswith("ModelCheckpoint"))
    best = next(filter(None, named), "")
    places = (Path(best), found[0].with_name(Path(best).name))  # The latter if the run's folder has been moved.
    return next((path for path in places if best and path.is_file()), None)


def load_weights(model: LightningModule, path: str | Path) -> None:
    """Take over those of a checkpoint's weights and buffers that the model has too, and name the others in a warning.

    Raises:
        CheckpointError: if there are none, or the file is not a checkpoint.
    """
    checkpoint = read_checkpoint(path)
    model.on_load_checkpoint(checkpoint)
    given = checkpoint["state_dict"]
    with suppress(RuntimeError):  # Other shapes; by then modules whose buffers grow have made room.
        model.load_state_dict(given, strict=False)
    own = model.state_dict()
    fitting = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    if not any(value.is_floating_point() for value in fitting.values()):
        raise CheckpointError(f"No weight in {path} has the name and the shape of one of {type(model).__name__}.")
    model.load_state_dict(fitting, strict=False)
    left = [
        f"{name} ({tuple(given[name].shape) if name in given else 'none'} in the checkpoint, "
        f"{tuple(own[name].shape) if name in own else 'none'} here)"
        for name in dict.fromkeys([*own, *given])
        if name not in fitting
    ]
    if left:
        named = ", ".join(left[:8]) + (f" and {len(left) - 8} more" if len(left) > 8 else "")
        pl.utilities.rank_zero_warn(f"Not taken over from {path}: {named}.")


def module_config(checkpoint: Mapping[str, Any], key: str, base: type) -> dict[str, Any]:
    """What a checkpoint's hyper-parameters say about the module they belong to, as in a recipe.

    Args:
        checkpoint: as `read_checkpoint` gives it.
        key: `hyper_parameters` or `datamodule_hyper_parameters`.
        base: the class that the module must derive from.

    Returns:
        `{"class_path": ..., "init_args": {...}}`.

    Raises:
        CheckpointError: if there are no hyper-parameters, or they name a class that is not to be trusted.
    """
    class_path = saved_class(checkpoint, key)
    if class_path is None:
        raise CheckpointError(
            f"The checkpoint has no {key} with their class; expected one saved by a module of this package."
        )
    found: type = resolve_class(class_path, base)
    accepted = inspect.signature(found).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    init_args = {
        name: value
        for name, value in checkpoint[key].items()
        if name in accepted or (takes_all and not name.startswith("_"))  # Lightning's own have an underscore.
    }
    check_class_paths(init_args)
    return {"class_path": f"{found.__module__}.{found.__qualname__}", "init_args": init_args}


def saved_class(checkpoint: Mapping[str, Any], key: str) -> Any:
    """The class path of what a checkpoint's hyper-parameters belong to, None where there is none.

    It stands beside them, under `class_paths`; older checkpoints hold it among them.
    """
    arguments, paths = checkpoint.get(key), checkpoint.get("class_paths")
    if not isinstance(arguments, Mapping):
        return None
    return paths[key] if isinstance(paths, Mapping) and key in paths else arguments.get("_class_path")


def check_class_paths(config: Any) -> None:
    """Refuse nested values with a `class_path` that is neither ours nor imported, and transforms that are no modules.

    A parser makes a transform of any class that is named, whatever that does when it is made.
    """
    if isinstance(config, (list, tuple)):
        for value in config:
            check_class_paths(value)
    elif isinstance(config, Mapping):
        for key, value in config.items():
            check_class_paths(value)
            if key == "train_transform" and isinstance(value, Mapping):
                resolve_class(value.get("class_path"), nn.Module)
        if "class_path" in config:
            resolve_class(config["class_path"], object)


def load_model(path: str | Path) -> GenerativeModule:
    """Rebuild a model from its checkpoint alone, on the CPU.

    Raises:
        CheckpointError: if the file is not a checkpoint of a generative module that can be trusted, or does not fit it.
    """
    checkpoint = read_checkpoint(path)
    config = module_config(checkpoint, "hyper_parameters", GenerativeModule)
    model_class: Any = resolve_class(config["class_path"], GenerativeModule)
    with fitting(path, model_class, TypeError):
        inspect.signature(model_class).bind(**config["init_args"])
    with fitting(path, model_class, LightningGenError):  # All else that goes wrong in a constructor is its own.
        model = model_class(**config["init_args"])
    model.on_load_checkpoint(checkpoint)
    with fitting(path, model_class, RuntimeError):
        model.load_state_dict(checkpoint["state_dict"])
    return model


@contextmanager
def fitting(path: str | Path, kind: type, error_kind: type[Exception]) -> Iterator[None]:
    """Say of an error that a checkpoint does not fit a class."""
    try:
        yield
    except error_kind as error:
        raise CheckpointError(f"{path} does not fit {kind.__name__}: {' '.join(str(error).split())}") from error


def load_data(path: str | Path, root: str | None = None) -> LightningDataModule:
    """Rebuild the data module that a checkpoint was trained on.

    Args:
        path: the checkpoint.
        root: folder of the data, if it is no longer where it was.

    Raises:
        CheckpointError: if the checkpoint names no data module that can be trusted, or one that reads no folder.
    """
    checkpoint = read_checkpoint(path)
    checkpoint.get("datamodule_hyper_parameters", {}).pop("train_transform", None)  # Nothing is trained here.
    config = module_config(checkpoint, "datamodule_hyper_parameters", LightningDataModule)
    kind = resolve_class(config["class_path"], LightningDataModule)
    if root is not None and "root" not in inspect.signature(kind).parameters:
        raise CheckpointError(
            f"root is {root}, and {kind.__name__}, on which {path} was trained, reads no folder; leave it out."
        )
    return kind(**config["init_args"] | ({} if root is None else {"root": root}))
