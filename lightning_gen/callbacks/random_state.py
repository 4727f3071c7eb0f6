"""Exact resume: a run that was killed goes on as if nothing had happened."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from lightning_gen._lightning import (
    Callback,
    LightningModule,
    Trainer,
    batches_done,
    between_epochs,
    dump_checkpoint,
    end_order_of_epoch,
    is_of_whole_epochs,
    pl,
    reset_batches,
)
from lightning_gen.callbacks.randomness import random_state, set_random_state
from lightning_gen.errors import LightningGenError


class RandomState(Callback):
    """Keep the random state of every rank in the checkpoints, and put it back when `fit` resumes.

    A run resumed from a checkpoint at the end of an epoch then ends in the weights of an uninterrupted one, bit for
    bit. Such a checkpoint is what `ModelCheckpoint(save_on_train_epoch_end=True)` writes; one from within an epoch, or
    from the end of validation, starts a new order of the data, unless `KeepPlace` is there too. Out of reach is the
    state inside persistent workers.

    On Ctrl-C, or when a cluster ends the job by SIGTERM, `interrupted.ckpt` is written beside `ModelCheckpoint`'s. From
    between two epochs it is as exact; from within one it keeps the steps, and goes on in a new order of the data.

    Attributes:
        advice: after such an end, from which checkpoint to go on, and what is lost; empty if there is none.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer = trainer
        self._begins: Any = None  # The random state where an epoch begins, until its first batch does.
        self.advice = ""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begins = random_state(trainer.strategy.root_device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._begins = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Gather the states, unless the ranks were interrupted where they stood and may not meet."""
        states: list[Any] = [self._begins or random_state(trainer.strategy.root_device)]
        if trainer.world_size > 1 and not trainer.interrupted:
            states *= trainer.world_size
            torch.distributed.all_gather_object(states, states[trainer.global_rank])
        checkpoint["callbacks"][self.state_key] = {"ranks": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore here: later hooks come after the loader has drawn its order."""
        trainer = self._trainer
        if trainer.state.fn != "fit":
            return
        states = state_dict["ranks"]
        if len(states) != trainer.world_size:
            pl.utilities.rank_zero_warn(
                f"The checkpoint holds the random state of {len(states)} process(es) and {trainer.world_size} go on "
                "from it: training continues with other random numbers than an uninterrupted run."
            )
        if trainer.global_rank < len(states):
            set_random_state(states[trainer.global_rank], trainer.strategy.root_device)

    def on_exception(self, trainer: Any, pl_module: LightningModule, exception: BaseException) -> None:
        """Write a checkpoint if training was stopped from outside; after an error of its own it may be no good."""
        stopped = isinstance(exception, (KeyboardInterrupt, SystemExit))
        folder = getattr(trainer.checkpoint_callback, "dirpath", None)
        leaves_nothing = trainer.global_step == 0 or trainer.fast_dev_run
        if not stopped or folder is None or trainer.state.fn != "fit" or leaves_nothing:
            return
        path = Path(folder) / "interrupted.ckpt"
        done, keeps_place = batches_done(trainer), getattr(trainer.datamodule, "keeps_place", False)
        is_exact = keeps_place and not trainer.is_last_batch
        if between_epochs(trainer, begun=self._begins is None):
            reset_batches(trainer)
            done, is_exact = 0, True
        trainer.strategy.save_checkpoint(dump_checkpoint(trainer), path)  # Other ranks may have stopped elsewhere.
        self.advice = f"in epoch {trainer.current_epoch} after {done} batches; "
        if not is_exact:
            whole = newest_of_whole_epochs(path)
            if whole is None:
                self.advice += "its others will come in a new order, some images again and some not at all; "
            else:
                path, epoch = whole
                self.advice += (
                    f"what came after epoch {epoch} is trained again, bit for bit (interrupted.ckpt has it, and goes "
                    "on in a new order of the data); "
                )
        self.advice += f"go on with: lightning-gen fit --ckpt_path {path}"
        pl.utilities.rank_zero_info(f"Stopped in epoch {trainer.current_epoch}; go on with --ckpt_path {path}")


def newest_of_whole_epochs(beside: Path) -> tuple[Path, int] | None:
    """The newest other checkpoint in a file's folder that is from an epoch's end, and which; it goes on bit for bit."""
    others = (path for path in beside.parent.glob("*.ckpt") if path != beside)
    for path in sorted(others, key=os.path.getmtime, reverse=True):
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (OSError, RuntimeError, UnpicklingError):  # Somebody's own, of which nothing is known.
            continue
        if is_of_whole_epochs(checkpoint):
            return path, checkpoint["epoch"]
    return None


class KeepPlace(Callback):
    """Keep the place in the training data in checkpoints: a run killed within an epoch goes on with the next batch.

    Together with `RandomState` it ends in the weights of an uninterrupted run, bit for bit, from a checkpoint between
    two batches of an epoch (`ModelCheckpoint(every_n_train_steps=500)`, SIGTERM) or from its end. From one between the
    last batch and the end Lightning leaves out what comes between: validation, and schedules that step by epochs.

    The loader is torchdata's StatefulDataLoader, which shuffles by a random stream of its own, and validation does not
    move training's. What data sets draw inside workers (`num_workers`) begins anew.

    Raises:
        LightningGenError: if torchdata is not installed, or the data module is not one of ours; a loader of your own
            that has `state_dict` needs no callback.
    """

    def setup(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        if not hasattr(trainer.datamodule, "keeps_place"):
            raise LightningGenError(
                f"KeepPlace works on data modules of this package and got {type(trainer.datamodule).__name__}; leave "
                "it out, and let the training loader be a torchdata.stateful_dataloader.StatefulDataLoader."
            )
        if find_spec("torchdata") is None:
            raise LightningGenError("KeepPlace needs torchdata: pip install 'lightning_gen[resume]'.")
        trainer.datamodule.keeps_place = True

    def on_validation_start(self, trainer: Any, pl_module: LightningModule) -> None:
        self._state = random_state(trainer.strategy.root_device)

    def on_validation_end(self, trainer: Any, pl_module: LightningModule) -> None:
        """Put the random state back: a run resumed after it goes on as one resumed before."""
        set_random_state(self._state, trainer.strategy.root_device)

    def on_save_checkpoint(self, trainer: Any, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """After an epoch's last batch say that its order is at an end; the loader was not asked for more than that."""
        if trainer.is_last_batch:
            end_order_of_epoch(checkpoint)
