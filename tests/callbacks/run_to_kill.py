"""A fit to be killed or interrupted.

    python -m tests.callbacks.run_to_kill FOLDER CKPT_PATH|- SECONDS_PER_BATCH [place]

With `place` it saves after every batch and keeps its place in the data.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch

from lightning_gen._lightning import Callback, pl
from lightning_gen.callbacks import KeepPlace, RandomState, SampleEvaluation
from tests.callbacks.runs import MeanPixel, fit


class Slow(Callback):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        time.sleep(self.seconds)
        print(f"batch {trainer.current_epoch} {args[-1]}", flush=True)


def run(folder: Path, ckpt_path: str | None, seconds: float, place: bool = False) -> None:
    save = pl.callbacks.ModelCheckpoint(
        folder / "checkpoints", save_last=True, every_n_train_steps=1 if place else None
    )
    callbacks = [
        *([KeepPlace()] if place else []),
        Slow(seconds),
        RandomState(),
        SampleEvaluation([MeanPixel()], num_samples=10),
        save,
    ]
    trainer = fit(callbacks, epochs=4, ckpt_path=ckpt_path, default_root_dir=folder, enable_checkpointing=True)
    torch.save(trainer.lightning_module.state_dict(), folder / "end.pt")


if __name__ == "__main__":
    run(Path(sys.argv[1]), None if sys.argv[2] == "-" else sys.argv[2], float(sys.argv[3]), bool(sys.argv[4:]))
