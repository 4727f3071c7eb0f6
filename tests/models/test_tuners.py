"""What Lightning's tuners find is what a run then uses."""

from pathlib import Path
from typing import Any

import pytest

from lightning_gen._lightning import Callback, pl, seed_everything
from lightning_gen.datamodules import FakeDataModule
from lightning_gen.models import DigitClassifier
from tests.digits import quiet_trainer
from tests.tiny import tiny


class StepSizes(Callback):
    """Of every batch."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen += [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]


def step_sizes(folder: Path, model: Any, data: Any, tuner: Callback | None = None, **limits: Any) -> list[float]:
    seen = StepSizes()
    trainer = quiet_trainer(
        max_epochs=5, limit_val_batches=0, callbacks=[seen, *filter(None, [tuner])], default_root_dir=folder, **limits
    )
    trainer.fit(model, data)
    return seen.seen


@pytest.mark.parametrize("name", ["DigitClassifier", "NADE", "VAE"])  # One cycle, a falling step size, none.
def test_the_step_size_found_is_the_one_used(name: str, tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    model, data = tiny(name)
    before = model.hparams["lr"]
    finder = pl.callbacks.LearningRateFinder(1e-6, 1e-2, num_training_steps=16, early_stop_threshold=None)
    tuned = step_sizes(tmp_path, model, data, finder, limit_train_batches=6)
    assert model.hparams["lr"] == finder.optimal_lr.suggestion() != before
    again = type(model)(**model.hparams)
    assert tuned == pytest.approx(step_sizes(tmp_path, again, data, limit_train_batches=6), rel=1e-9)


def test_a_schedule_has_as_many_steps_as_there_are_batches_of_the_size_found(tmp_path: Path) -> None:
    """One cycle ends after so many steps, and fails in the next."""
    data = FakeDataModule((1, 28, 28), num_classes=10, num_samples=64, batch_size=32)
    finder = pl.callbacks.BatchSizeFinder(steps_per_trial=1, init_val=16, max_trials=1)
    sizes = step_sizes(tmp_path, DigitClassifier(), data, finder)
    assert data.batch_size == 16
    assert len(sizes) == 5 * 64 // 16
    assert sizes[-1] < 1e-3 * max(sizes), "the cycle is at its end"
