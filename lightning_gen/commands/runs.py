"""Finished runs as the commands find them: checkpoint, figures, settings and curves."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lightning_gen._lightning import LightningDataModule
from lightning_gen.callbacks.base import Figure
from lightning_gen.checkpoints import module_config, read_checkpoint, run_config
from lightning_gen.commands.pictures import Device, load
from lightning_gen.errors import CheckpointError, LightningGenError
from lightning_gen.models.base import GenerativeModule, ImageModule
from lightning_gen.recipes import recipe_names

EXPECTED = "expected what fit leaves, as logs/<recipe>/version_0 with checkpoints/ or figures.json"
LOADING = ("root", "batch_size", "num_workers", "download")
"""Arguments of data modules that do not change what the images are. (A batch size is a setting of the training.)"""

UNKNOWN_DATA = "unknown data"
UNTOLD = (None, "none")
"""Values of such arguments that say nothing."""


class Run(NamedTuple):
    """A folder that `fit` or `test` has left, as far as it holds anything."""

    name: str  # such as gan_digits/version_0
    folder: Path
    checkpoint: Path | None
    figures: dict[str, Figure]  # the last one of each name
    settings: dict[str, Any]  # such as model.latent_dim, data.binarization
    pictures: list[Path]  # that the run has left, oldest first
    notes: list[str]  # what is missing, and what else a reader should know

    @property
    def model(self) -> str:
        """The name of the model's class."""
        return self.settings.get("model", "unknown model")

    @property
    def data(self) -> str:
        """What the images are: the data module, with what it was told about them."""
        arguments = {key.removeprefix("data."): value for key, value in self.settings.items() if key[:5] == "data."}
        told = [
            f"{key}={value}" for key, value in arguments.items() if key not in LOADING and value not in (None, "none")
        ]
        return self.settings.get("data", UNKNOWN_DATA) + (f" ({', '.join(told)})" if told else "")


def find_run(given: str) -> Run:
    """The run of a run's folder or of its checkpoint, or the newest of a folder of runs, or of a recipe's.

    Raises:
        LightningGenError: if there is no run.
        CheckpointError: if the checkpoint cannot be read or trusted.
    """
    path = Path(given)
    if not path.exists() and given in recipe_names():
        path = Path("logs", given.replace("/", "_"))
    checkpoint = path if path.is_file() else None
    folder = folder_of_checkpoint(path) if path.is_file() else run_folder(path)
    checkpoint = checkpoint or newest_checkpoint(folder)
    notes: list[str] = []
    figures = dict(read_figures(folder, checkpoint, notes))
    if not figures:
        notes.append("No figures.json: no figures. lightning-gen test --ckpt_path writes it.")
    if checkpoint is None:
        notes.append("No checkpoint: no samples.")
    sections = [section for _, section in read_sections(folder / "figures.json")]
    settings = read_settings(checkpoint, folder) if checkpoint is not None else told(sections)
    pictures = [path for section in sections for path in map(Path, section["pictures"]) if path.is_file()]
    resolved = folder.resolve()
    return Run(f"{resolved.parent.name}/{resolved.name}", folder, checkpoint, figures, settings, pictures, notes)


def load_run(run: Run, device: Device, seed: int) -> GenerativeModule:
    """A run's model on a device, and the random stream at its seed.

    Raises:
        CheckpointError: if there is no checkpoint, or it is of no model that draws images.
    """
    if run.checkpoint is None:
        raise CheckpointError(f"{run.folder} has no checkpoint to sample; name a run that still has its checkpoints/.")
    try:
        return load(str(run.checkpoint), device, seed)
    except CheckpointError as error:
        raise CheckpointError(f"{run.checkpoint}: {error}") from error


def folder_of_checkpoint(path: Path) -> Path:
    """The folder of the run that has written a checkpoint, as far as it is known and still there."""
    if path.parent.name == "checkpoints":
        return path.parent.parent
    kept = read_checkpoint(path).get("run")
    folder = Path(str(kept.get("folder"))) if isinstance(kept, dict) else path.parent
    return folder if folder.is_dir() else path.parent


def run_folder(path: Path) -> Path:
    """The folder itself if it is one of a run, else the one of its folders in which was trained last."""
    if is_run(path):
        return path
    runs = sorted(filter(is_run, path.iterdir())) if path.is_dir() else []
    trained = {run: checkpoint for run in runs if (checkpoint := newest_checkpoint(run))}
    if not runs:
        raise LightningGenError(f"{path} is no run; {EXPECTED}.")
    return max(trained, key=lambda run: os.path.getmtime(trained[run])) if trained else runs[-1]


def is_run(folder: Path) -> bool:
    """Whether a folder holds what a run leaves that has come to its first checkpoint, or to its end."""
    return any(any(folder.glob(name)) for name in ("checkpoints/*.ckpt", "figures.json"))


def newest_checkpoint(folder: Path) -> Path | None:
    """`last.ckpt`, else the newest; in the folder of a test, the one that was tested, if it is still there."""
    checkpoints = sorted(folder.glob("checkpoints/*.ckpt"), key=os.path.getmtime)
    named = [Path(section["checkpoint"]) for _, section in read_sections(folder / "figures.json")]
    found = [*(path for path in named if path.is_file()), *checkpoints, *folder.glob("checkpoints/last.ckpt")]
    return found[-1] if found else None


def read_sections(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The parts of a `figures.json`: a stage, and its `figures`, with what they are of and what else it has left."""
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sections = content if isinstance(content, dict) else {"": {"figures": content}}
        empty: dict[str, Any] = {"checkpoint": "", "pictures": [], "model": "", "data": {}}
        return [
            (stage, {**empty, **section, "figures": [Figure(**f) for f in section["figures"]]})
            for stage, section in sections.items()
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LightningGenError(
            f"{path} holds no figures as fit and test write them ({type(error).__name__}: {error})."
        ) from error


def read_figures(folder: Path, checkpoint: Path | None, notes: list[str]) -> Iterator[tuple[str, Figure]]:
    """Figures by name, oldest first: the folder's own, those of tests of its checkpoints inside it, and beside it."""
    folder = folder.resolve()
    paths = {*folder.glob("figures.json"), *folder.glob("*/*/figures.json"), *folder.parent.glob("*/figures.json")}
    for path in sorted(paths, key=os.path.getmtime):
        for stage, section in read_sections(path):
            judged = Path(section["checkpoint"])
            if path.parent != folder and judged.parts[-4:-1] != (folder.parent.name, folder.name, "checkpoints"):
                continue
            if stage != "fit" and checkpoint is not None and judged.name not in ("", checkpoint.name):
                notes.append(
                    f"The figures of {stage} are those of {judged.name}, the samples those of {checkpoint.name}."
                )
            for figure in section["figures"]:
                yield figure.name, figure


def told(sections: list[dict[str, Any]]) -> dict[str, Any]:
    """What the figures of a run without a checkpoint say of its model and its data, as `read_settings` has it."""
    settings: dict[str, Any] = {}
    for section in sections:
        arguments = dict(section["data"])
        if class_path := arguments.pop("_class_path", ""):
            settings["data"] = class_path.rpartition(".")[2].removesuffix("DataModule")
            settings |= {f"data.{name}": value for name, value in arguments.items()}
        if section["model"]:
            settings["model"] = section["model"]
    return settings


def read_settings(checkpoint: Path, folder: Path) -> dict[str, Any]:
    """What a run was told: `model`, `data` and `seed`, and each argument, as `model.latent_dim`; and its epochs."""
    content = read_checkpoint(checkpoint)
    settings: dict[str, Any] = {}
    parts: dict[str, tuple[str, type]] = {
        "model": ("hyper_parameters", ImageModule),
        "data": ("datamodule_hyper_parameters", LightningDataModule),
    }
    for part, (key, base) in parts.items():
        if part == "model" or key in content:
            try:
                config = module_config(content, key, base)
            except CheckpointError as error:
                raise CheckpointError(f"{checkpoint}: {error}") from error
            settings[part] = config["class_path"].rpartition(".")[2].removesuffix("DataModule")
            settings |= {f"{part}.{name}": value for name, value in config["init_args"].items()}
    settings["epochs"] = content.get("epoch", -1) + 1
    if (run := run_config(checkpoint)) is not None:
        settings["seed"] = run.get("seed_everything")
    return settings


def read_curves(folder: Path, num_points: int = 150) -> dict[str, np.ndarray]:
    """What a run has logged, by name: rows of epoch and value, `(at most num_points, 2)`, means where there are more.

    Loggers count steps; where the epoch was logged as well, the axis is that: 1 is the end of the first epoch.
    """
    scalars = {**read_events(folder), **read_csv(folder / "metrics.csv")}
    epochs = scalars.pop("epoch", np.zeros((0, 2)))
    ends = {int(epoch): step for step, epoch in epochs}  # The last step of each epoch.
    curves = {}
    for name, points in scalars.items():
        points = points[np.isfinite(points[:, 1])]
        if len(points) < 2:
            continue
        if ends:
            points[:, 0] = np.interp(points[:, 0], [0, *ends.values()], [0, *(epoch + 1 for epoch in ends)])
        curves[name] = np.stack([part.mean(0) for part in np.array_split(points, min(num_points, len(points)))])
    return curves


def read_events(folder: Path) -> dict[str, np.ndarray]:
    """What TensorBoard's logger has written: rows of step and value, by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1})
    events.Reload()
    names = [name for name in events.Tags()["scalars"] if name != "hp_metric"]
    return {name: np.array([(event.step, event.value) for event in events.Scalars(name)]) for name in names}


def read_csv(path: Path) -> dict[str, np.ndarray]:
    """What Lightning's CSVLogger has written: rows of step and value, by name."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {name for row in rows for name in row if name != "step"}
    points = {name: [(float(row["step"]), float(row[name])) for row in rows if row[name]] for name in columns}
    return {name: np.array(found) for name, found in sorted(points.items()) if found}
