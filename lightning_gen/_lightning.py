"""The one place that names Lightning's distribution.

`pytorch_lightning` and `lightning.pytorch` are the same code under two class hierarchies, and a Trainer of one refuses
a module of the other. This package runs on `pytorch_lightning`, or on `lightning` where the environment variable
`LIGHTNING_GEN_BACKEND=lightning` is set before the first import.
"""

import os
import warnings
from importlib import import_module
from subprocess import Popen
from typing import TYPE_CHECKING, Any

BACKEND = os.environ.get("LIGHTNING_GEN_BACKEND", "pytorch_lightning")

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
    ):
        warnings.filterwarnings("ignore", text)


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


def make_optimizers_again(trainer: Any) -> None:
    """Call `configure_optimizers` anew, as before training: a tuner leaves schedules as they were made before it."""
    trainer.strategy.setup_optimizers(trainer)


def live_display(trainer: Any) -> Any:
    """The rich display of a trainer's bars, None if it shows none; rich refuses a second one beside it."""
    bar = trainer.progress_bar_callback
    return bar.progress if isinstance(bar, pl.callbacks.RichProgressBar) else None


def reads_after_training(callback: Any) -> bool:
    """Whether a ModelCheckpoint or an EarlyStopping reads its monitor at the end of every training epoch.

    Else it does so at the end of validation. Neither has a public attribute for it.
    """
    if isinstance(callback, pl.callbacks.ModelCheckpoint):
        return bool(callback._save_on_train_epoch_end)
    return bool(callback._check_on_train_epoch_end)


__all__ = [
    "BACKEND",
    "Callback",
    "LightningDataModule",
    "LightningModule",
    "Trainer",
    "dump_checkpoint",
    "end_order_of_epoch",
    "live_display",
    "make_optimizers_again",
    "misconfiguration",
    "pl",
    "reads_after_training",
    "relaunches",
    "seed_everything",
    "silence_warnings_without_use",
    "started_processes",
]
