"""A fit to be killed or interrupted: python -m tests.callbacks.run_to_kill FOLDER CKPT_PATH|- SECONDS_PER_BATCH."""

import sys
import time
from pathlib import Path
from typing import Any

import torch

from lightning_gen._lightning import Callback, pl
from lightning_gen.callbacks import RandomState, SampleEvaluation
from tests.callbacks.runs import MeanPixel, fit


class Slow(Callback):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        time.sleep(self.seconds)
        print(f"batch {trainer.current_epoch} {args[-1]}", flush=True)


def run(folder: Path, ckpt_path: str | None, seconds: float) -> None:
    callbacks = [
        Slow(seconds),
        RandomState(),
        SampleEvaluation([MeanPixel()], num_samples=10),
        pl.callbacks.ModelCheckpoint(folder / "checkpoints", save_last=True),
    ]
    trainer = fit(callbacks, epochs=4, ckpt_path=ckpt_path, default_root_dir=folder, enable_checkpointing=True)
    torch.save(trainer.lightning_module.state_dict(), folder / "end.pt")


if __name__ == "__main__":
    run(Path(sys.argv[1]), None if sys.argv[2] == "-" else sys.argv[2], float(sys.argv[3]))
