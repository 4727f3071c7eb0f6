"""The end of a run, in one table."""

from __future__ import annotations

import json
import math
import shlex
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich import get_console
from rich.table import Table
from torch import Tensor

from lightning_gen._lightning import Callback, LightningModule, Trainer, stop_bars
from lightning_gen.arguments import class_path
from lightning_gen.callbacks.base import Figure, log_folder, trained_epoch
from lightning_gen.callbacks.files import whole_file, write_png
from lightning_gen.callbacks.loggers import add_file
from lightning_gen.errors import ConditionError
from lightning_gen.models.base import GenerativeModule, ImageModule, as_batch, held_out_batches, loader_suffix

LOSSES = ("nll", "bits_per_dim")
"""What a model logs by itself of which less is better."""


class ClosingTable(Callback):
    """Print every figure of the run when `fit`, `validate` or `test` ends, and write them to `figures.json`.

    The figures are those of all callbacks that have any, and those that the model logs by itself (its
    `figure_protocols`; in a test whatever else it logs, too). Each stands with an arrow to where it is better, its
    standard error, its first value in `fit`, the value that real training images get in the place of the samples, and
    how it was computed; below come the pictures, the last checkpoint, and what to type next.
    """

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.figures.clear()
        self._example: dict[str, Any] | None = None  # A condition, of one image.
        self._folder = log_folder(trainer)
        self._fitting = stage == "fit"

    # What the module logs by itself ---------------------------------------------------------------------------------

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._take_logged(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._take_logged(trainer, pl_module, "test")

    def _take_logged(self, trainer: Trainer, module: Any, stage: str) -> None:
        logged = trainer.callback_metrics
        protocols = module.figure_protocols(stage) if isinstance(module, ImageModule) else {}
        suffixes = [loader_suffix(trainer, index) for index in range(len(held_out_batches(trainer)))]
        for suffix, (name, protocol) in product(suffixes, protocols.items()):
            if f"{stage}/{name}{suffix}" not in logged:
                continue
            error = logged.get(f"{stage}/{name}_stderr{suffix}")
            self.figures.append(
                Figure(
                    name=f"{stage}/{name}{suffix}",
                    value=logged[f"{stage}/{name}{suffix}"].item(),
                    standard_error=None if error is None else error.item(),
                    real=None,
                    protocol=protocol,
                    stage=stage,
                    epoch=trained_epoch(trainer),
                    higher_is_better=False if name in LOSSES else None,
                )
            )

    def state_dict(self) -> dict[str, Any]:
        return {"figures": [figure._asdict() for figure in self.figures]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._fitting:
            self.figures = [Figure(**figure) for figure in state_dict["figures"]]

    # What to type next ----------------------------------------------------------------------------------------------

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._example is None:  # There may be no held-out images.
            self._keep_condition(pl_module, batch)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == dataloader_idx == 0:
            self._keep_condition(pl_module, batch)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == dataloader_idx == 0:
            self._keep_condition(pl_module, batch)

    def _keep_condition(self, module: LightningModule, batch: Any) -> None:
        """Keep the condition of a batch's first row, as an example of one."""
        self._example = {}
        for key in getattr(module, "condition_keys", ()):
            if key in (batch := as_batch(batch)):
                row = batch[key][0]
                self._example[key] = row.cpu() if isinstance(row, Tensor) else row

    def _next(self, trainer: Any, module: LightningModule, stage: str, checkpoint: str, kept: bool) -> list[str]:
        """The commands that say more about a checkpoint; each runs as it stands."""
        commands = []
        has_data = trainer.datamodule is not None  # They are rebuilt from the checkpoint.
        if stage != "test" and has_data:
            commands.append(("test", ""))
        if isinstance(module, GenerativeModule) and module.can_sample:
            is_video = module.data_key == "video"
            number, output = (8, "samples.gif") if is_video else (64, "grid.png")
            condition = self._condition(module, kept)
            if is_video and {"video", "image"} & set(module.condition_keys):  # `sample` takes the first test clips.
                clips = getattr(trainer.datamodule, "datasets", {}).get("test", range(number))
                condition, number = "" if has_data else None, min(number, len(clips))
            if condition is not None:
                commands.append(("sample", f"{condition} --num_samples {number} --output {output}"))
            elif has_data:  # Under the conditions of the test images.
                commands.append(("predict", ""))
        quoted = shlex.quote(checkpoint)
        return [f"lightning-gen {command} --ckpt_path {quoted}{options}" for command, options in commands]

    def _condition(self, module: GenerativeModule, kept: bool) -> str | None:
        """An example of the condition as it is typed, empty if the model draws one; None if it cannot be typed."""
        try:
            module.check_condition(None, 1, torch.Generator(module.device).manual_seed(0))
            return ""
        except ConditionError:
            example = self._example or {}
        options = ""
        for key in module.condition_keys:
            value = example.get(key)
            if key == "caption" and value:
                text = value if isinstance(value, str) else value[0]
            elif key == "box" and value is not None:  # Rounded down: it must not reach out of the image.
                text = json.dumps([math.floor(side * 1e4) / 1e4 for side in value.tolist()])
            elif key == "source" and value is not None and kept:
                path = self._folder / "source.png"
                write_png(value.float(), path)
                text = typed_path(path)
            else:
                return None
            options += f" --condition.{key} {shlex.quote(text)}"
        return options

    # The end --------------------------------------------------------------------------------------------------------

    def teardown(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        """The last hook: all checkpoints have been written."""
        if not trainer.is_global_zero or stage == "predict":
            return
        histories: dict[str, list[Figure]] = {}
        for figure in (f for callback in trainer.callbacks for f in getattr(callback, "figures", [])):
            histories.setdefault(figure.name, []).append(figure)
        for name, value in trainer.callback_metrics.items() if stage == "test" else ():
            if name.startswith("test") and name not in histories and "_stderr" not in name:
                protocol = f"as {type(pl_module).__name__} logs it"
                figure = Figure(name, value.item(), None, None, protocol, stage, trained_epoch(trainer))
                histories[name] = [figure]
        pictures = [p for callback in trainer.callbacks for p in getattr(callback, "pictures", [])]
        checkpoint = last_checkpoint(trainer)
        if histories and not trainer.fast_dev_run:
            self._write(stage, histories, pictures, checkpoint, trainer, pl_module)
        kept = not trainer.fast_dev_run
        commands = self._next(trainer, pl_module, stage, checkpoint, kept) if checkpoint else []
        stop_bars(trainer)  # Else what they showed last comes after the table once more.
        self._print(histories, pictures, checkpoint, commands, kept)

    def _write(
        self,
        stage: str,
        histories: dict[str, list[Figure]],
        pictures: list[Path],
        checkpoint: str,
        trainer: Any,
        module: LightningModule,
    ) -> None:
        """Add this stage to `figures.json`; a test may share the folder of the fit before it."""
        path = self._folder / "figures.json"
        content = json.loads(path.read_text()) if path.exists() else {}
        data = trainer.datamodule
        content[stage] = {
            "figures": [figure._asdict() for history in histories.values() for figure in history],
            "pictures": [str(picture) for picture in pictures],
            "checkpoint": checkpoint,
            "model": type(module).__name__,
            "data": {} if data is None else {"_class_path": class_path(data), **data.hparams},
        }
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2))
        for logger in trainer.loggers:
            add_file(logger, path)

    def _print(
        self,
        histories: dict[str, list[Figure]],
        pictures: list[Path],
        checkpoint: str,
        commands: list[str],
        kept: bool,
    ) -> None:
        console = get_console()

        def say(text: str) -> None:  # Paths and commands stay whole, to be copied.
            console.print(text, soft_wrap=True, markup=False, highlight=False)

        if histories:
            protocols = dict.fromkeys(history[-1].protocol for history in histories.values())
            numbers = {protocol: f"({number})" for number, protocol in enumerate(protocols, start=1)}
            arrows = ("v", "^") if console.options.ascii_only else ("↓", "↑")
            console.print(figure_table(histories, numbers, arrows))
            for protocol, number in numbers.items():
                say(f"{number} {protocol}")
        if histories and kept:
            say(f"Figures     {self._folder / 'figures.json'}")
        for folder in dict.fromkeys(picture.parent for picture in pictures):
            say(f"Pictures    {[picture for picture in pictures if picture.parent == folder][-1]}")
        if checkpoint:
            say(f"Checkpoint  {checkpoint}")
        for index, command in enumerate(commands):
            say(f"{'' if index else 'Next':12}{command}")


def figure_table(histories: dict[str, list[Figure]], numbers: dict[str, str], arrows: tuple[str, str]) -> Table:
    """One row for each figure: the last value, the first one of several, and the number of its protocol.

    Args:
        histories: the figures by name, oldest first.
        numbers: of the protocols, which have no room there.
        arrows: what says that less, and that more, is better.
    """
    starts = {history[0].epoch for history in histories.values() if len(history) > 1}
    first = f"first\n(epoch {min(starts)})" if len(starts) == 1 else "first"
    table = Table()
    table.add_column("figure", overflow="fold")
    columns = ["value", *([first] if starts else []), *(["real\nimages"] if any_real(histories) else [])]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name, history in histories.items():
        last = history[-1]
        error = "" if last.standard_error is None else f" ± {last.standard_error:.2g}"
        cells = [f"{last.value:.4g}{error}"]
        if starts:
            cells.append(f"{history[0].value:.4g}" if len(history) > 1 else "")
        if any_real(histories):
            cells.append("" if last.real is None else f"{last.real:.4g}")
        better = "" if last.higher_is_better is None else f" {arrows[last.higher_is_better]}"
        table.add_row(f"{name}{better}", *cells, numbers[last.protocol])
    return table


def any_real(histories: dict[str, list[Figure]]) -> bool:
    """Whether any figure was also taken of real images."""
    return any(history[-1].real is not None for history in histories.values())


def last_checkpoint(trainer: Trainer) -> str:
    """Path of the newest checkpoint, as it is typed; empty if there is none."""
    callback = trainer.checkpoint_callback
    path = trainer.ckpt_path if trainer.state.fn != "fit" else None
    path = path or getattr(callback, "last_model_path", "") or getattr(callback, "best_model_path", "")
    if not path:
        return ""
    return typed_path(Path(path))


def typed_path(path: Path) -> str:
    """A path as short as it can be typed here."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
