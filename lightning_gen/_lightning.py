"""The one place that names Lightning's distribution, and the door to what of Lightning is not public.

`pytorch_lightning` and `lightning.pytorch` are the same code under two class hierarchies, and a Trainer of one refuses
a module of the other. This package runs on the one that is imported before it, and on `pytorch_lightning` if that is
both or none; the environment variable `LIGHTNING_GEN_BACKEND`, set before the first import, says otherwise.
"""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from subprocess import Popen
from typing import TYPE_CHECKING, Any

from rich import get_console
from rich.table import Column, Table
from torch import Tensor

OTHERS = {"pytorch_lightning": "lightning.pytorch", "lightning": "pytorch_lightning"}
"""By the name of each distribution, the module by which the other one is known to be imported."""


def choose_backend() -> str:
    """The variable's distribution, or that of the Trainer which is there already."""
    only_lightning = "lightning.pytorch" in sys.modules and "pytorch_lightning" not in sys.modules
    return os.environ.get("LIGHTNING_GEN_BACKEND", "lightning" if only_lightning else "pytorch_lightning")


BACKEND = choose_backend()

if TYPE_CHECKING or BACKEND == "pytorch_lightning":
    import pytorch_lightning as pl  # noqa: TID251
elif BACKEND == "lightning":
    import lightning.pytorch as pl  # noqa: TID251
else:
    raise ImportError(f"LIGHTNING_GEN_BACKEND is {BACKEND!r}; expected 'pytorch_lightning' or 'lightning'.")

Callback = pl.Callback
LightningDataModule = pl.LightningDataModule
LightningModule = pl.LightningModule
Trainer = pl.Trainer
seed_everything = pl.seed_everything

__all__ = [
    "BACKEND",
    "Callback",
    "LightningDataModule",
    "LightningModule",
    "Trainer",
    "pl",
    "reads_after_training",
    "seed_everything",
]


# The doors to what Lightning does not promise to keep: each a function with its reason, and the issue if there is one.


def misconfiguration() -> type[Exception]:
    """What Lightning raises for settings that do not go together; it is exported nowhere else."""
    return import_module(f"{pl.__name__}.utilities.exceptions").MisconfigurationException


def silence_warnings_without_use() -> None:
    """Leave out Lightning's warnings that say nothing to who types our commands; they have no category of their own."""
    for text in (
        "The dirpath has changed",  # A resumed run has its own folder; the list of best checkpoints begins anew.
        ".*could not find the monitored key",  # Before the first validation; after it, it is an error.
        r".*isinstance\(treespec, LeafSpec\)",  # Of PyTorch, about a line of Lightning.
        "Be aware that when using `ckpt_path`",  # Whoever tests needs no callbacks of training.
        r"Found \d+ module\(s\) in eval mode",  # Frozen networks are to be.
        "Precision .* is not supported by the model summary",
    ):
        warnings.filterwarnings("ignore", text)
    logging.getLogger(f"{pl.__name__}.utilities.rank_zero").addFilter(is_no_advertisement)


def is_no_advertisement(record: logging.LogRecord) -> bool:
    """Whether a message is about the run, and not about a product to install."""
    return "Tip: For seamless cloud" not in record.getMessage()


class ModelSummary(pl.callbacks.ModelSummary):
    """Lightning's table of a model's parts, without its counts of operations, which are 0 where no input is known."""

    @staticmethod
    def summarize(
        summary_data: Any,
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Print the parts; called on the first rank."""
        columns = dict(summary_data)
        table = Table("name", "type", Column("parameters", justify="right"))
        for row in zip(columns["Name"], columns["Type"], columns["Params"], strict=True):
            table.add_row(*map(str, row))
        console = get_console()
        console.print(table)
        count = pl.utilities.model_summary.model_summary.get_human_readable_count
        kinds = f"{count(total_parameters)} parameters, {count(trainable_parameters)} of them trained"
        console.print(f"{' '.join(kinds.split())}; {model_size:.3g} MB", highlight=False)


def leave_out_operations(trainer: Any) -> None:
    """Let a trainer's tables of a model's parts be the one above."""
    for place, callback in enumerate(trainer.callbacks):
        if isinstance(callback, pl.callbacks.RichModelSummary):
            trainer.callbacks[place] = ModelSummary(callback._max_depth)


def relaunches(trainer: Any) -> bool:
    """Whether the other processes of a run are started by repeating what was typed; the launcher's class is private."""
    return isinstance(trainer.strategy.launcher, pl.strategies.launchers._SubprocessScriptLauncher)


def started_processes(trainer: Any) -> list[Popen[bytes]]:
    """The processes that the launcher has started for the other ranks: only it knows them (issue 8130)."""
    return getattr(trainer.strategy.launcher, "procs", [])


def dump_checkpoint(trainer: Any) -> dict[str, Any]:
    """A checkpoint as `trainer.save_checkpoint` writes it, which waits for all ranks at a barrier (issue 20187)."""
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)


def end_order_of_epoch(checkpoint: dict[str, Any]) -> None:
    """Say in a checkpoint that torchdata's loader is at the end of its order, which no longer epoch will ask it for.

    Lightning stores its state as it is; the name is torchdata's own.
    """
    for state in checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", ()):
        state["_iterator_finished"] = True


def batches_done(trainer: Any) -> int:
    """How many batches of this epoch have been trained on."""
    return int(trainer.fit_loop.epoch_loop.batch_progress.current.processed)


def between_epochs(trainer: Any, begun: bool) -> bool:
    """Whether an epoch is at its end, all that comes after its batches too, and no batch of the next has begun.

    Args:
        trainer: in `fit`.
        begun: whether an epoch that has started has also begun its first batch, which its progress does not say.
    """
    progress = trainer.fit_loop.epoch_progress.total
    return progress.completed == progress.processed and not (begun and progress.started > progress.processed)


def reset_batches(trainer: Any) -> None:
    """Take back the start of an epoch without batches.

    Lightning keeps the last epoch's count of batches until the first batch of the next, and a checkpoint from in
    between would be taken for one at the end of that next epoch, which is then left out. As `_TrainingEpochLoop.reset`.
    """
    loop = trainer.fit_loop.epoch_loop
    for progress in (loop.batch_progress, loop.scheduler_progress, loop.automatic_optimization.optim_progress):
        progress.reset_on_run()
    loop.val_loop.batch_progress.total.reset()
    for progress in (trainer.fit_loop.epoch_progress.total, trainer.fit_loop.epoch_progress.current):
        progress.ready = progress.started = progress.processed


def is_of_whole_epochs(checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint was written at the end of an epoch, or between two."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["total"]
    return bool(progress["ready"] == progress["processed"])


def make_optimizers_again(trainer: Any) -> None:
    """Call `configure_optimizers` anew, as before training: a tuner leaves schedules as they were made before it."""
    trainer.strategy.setup_optimizers(trainer)


def logged_step(trainer: Any) -> int:
    """The step at which Lightning logs: batches, where `global_step` counts each optimizer's step."""
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)


def live_display(trainer: Any) -> Any:
    """The rich display of a trainer's bars, None if it shows none; rich refuses a second one beside it."""
    bar = trainer.progress_bar_callback
    return bar.progress if isinstance(bar, pl.callbacks.RichProgressBar) else None


def stop_bars(trainer: Any) -> None:
    """End the live display of a trainer's bars, which otherwise goes on until the last callback's teardown."""
    if (display := live_display(trainer)) is not None:
        display.stop()


def reads_after_training(callback: Any) -> bool:
    """Whether a ModelCheckpoint or an EarlyStopping reads its monitor at the end of every training epoch.

    Else it does so at the end of validation. Neither has a public attribute for it.
    """
    if isinstance(callback, pl.callbacks.ModelCheckpoint):
        return bool(callback._save_on_train_epoch_end)
    return bool(callback._check_on_train_epoch_end)


def warn_of_mixture(name: str) -> None:
    """Say to which Trainer a new module belongs, if the other distribution has been imported too.

    Its Trainer would say no more than "`model` must be a `LightningModule`", and asks the module nothing before that.
    """
    other = OTHERS[BACKEND]
    if other in sys.modules and "LIGHTNING_GEN_BACKEND" not in os.environ:
        wanted = other.partition(".")[0]
        warnings.warn(
            f"{name} is a module of {pl.__name__}, and {other} is imported too, whose Trainer would refuse it; for "
            f"that one import {wanted} alone before lightning_gen, or set LIGHTNING_GEN_BACKEND={wanted} before Python "
            f"starts (LIGHTNING_GEN_BACKEND={BACKEND} keeps what is, without this line).",
            stacklevel=3,
        )


class TrainingBatches:
    """A Trainer's training batches as `training_step` gets them, read beside training; each pass begins anew.

    `fit_loop._data_source` is asked, as `Trainer.train_dataloader` is there only once training has begun, and
    `setup_data`, which would bring it, must not come before a checkpoint has been restored. The hooks around the
    transfer, a data module's or the model's, have no public caller either.
    """

    def __init__(self, trainer: Trainer) -> None:
        loader: Any = trainer.fit_loop._data_source.dataloader()
        combined = pl.utilities.combined_loader.CombinedLoader
        self.trainer = trainer
        self.loader = loader if isinstance(loader, combined) else combined(loader, "max_size_cycle")

    def __iter__(self) -> Iterator[Any]:
        module: Any = self.trainer.lightning_module
        for batch, _, _ in self.loader:
            batch = self.trainer.precision_plugin.convert_input(batch)
            yield self.trainer.strategy.batch_to_device(module._on_before_batch_transfer(batch))

    @property
    def limit(self) -> float:
        """How many of them all processes together see in an epoch, by `limit_train_batches`; once a pass has begun."""
        limit = self.trainer.limit_train_batches
        if isinstance(limit, int):
            return limit * self.trainer.world_size
        return float("inf") if limit == 1.0 else limit * len(self.loader)

    @property
    def empty(self) -> bool:
        """Whether it is known without reading that there is none."""
        data: Any = pl.utilities.combined_loader
        return any(data.sized_len(loader) == 0 for loader in self.loader.flattened)

    @property
    def quiet(self) -> bool:
        """Whether a bar of ours would disturb: the Trainer shows none, or the one live display that there may be."""
        bar = self.trainer.progress_bar_callback
        return not getattr(bar, "is_enabled", False) or getattr(bar, "progress", None) is not None


def loss_scaler(module: LightningModule) -> Any:
    """The gradient scaler of what runs a module, Trainer or Fabric; None if its precision has none."""
    precision = module.trainer.precision_plugin if module.fabric is None else module.fabric.strategy.precision
    return getattr(precision, "scaler", None)


def before_backward(module: LightningModule, loss: Tensor) -> Tensor:
    """What precedes the gradient of a loss in hand-written steps: the Trainer's hooks, and the scaler's factor."""
    if module.fabric is None:
        return module.trainer.precision_plugin.pre_backward(loss, module)
    scaler = loss_scaler(module)
    return loss if scaler is None else scaler.scale(loss)


def before_optimizer_step(module: LightningModule, optimizer: Any) -> None:
    """Call the module's hook of this name under Fabric, with unscaled gradients; a Trainer does so by itself."""
    if module.fabric is not None:
        module.fabric.strategy.precision.unscale_gradients(optimizer.optimizer)
        module.on_before_optimizer_step(optimizer.optimizer)
