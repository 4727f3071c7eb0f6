"""Best checkpoints and early stops rest on figures that were measured."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gen._lightning import pl
from lightning_gen.callbacks import SampleEvaluation
from lightning_gen.errors import LightningGenError
from tests.callbacks.runs import MeanPixel, fit

LIMITS: dict[str, Any] = {"limit_train_batches": 1, "limit_val_batches": 1, "num_sanity_val_steps": 0}
FIGURE = "val/mean_pixel"


def epochs_of(checkpoints: pl.callbacks.ModelCheckpoint) -> list[int]:
    return sorted(torch.load(path, weights_only=True)["epoch"] for path in checkpoints.best_k_models)


@pytest.mark.parametrize("first", [True, False], ids=["evaluation first", "evaluation last"])
@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda folder: pl.callbacks.EarlyStopping(FIGURE), "EarlyStopping no check_on_train_epoch_end"),
        (lambda folder: pl.callbacks.ModelCheckpoint(folder, monitor=FIGURE), "ModelCheckpoint every_n_epochs=3"),
        (
            lambda folder: pl.callbacks.ModelCheckpoint(folder, monitor=FIGURE, every_n_epochs=2),
            "ModelCheckpoint every_n_epochs=3",
        ),
        (
            lambda folder: pl.callbacks.ModelCheckpoint(folder, monitor=FIGURE, every_n_train_steps=1),
            "ModelCheckpoint every_n_epochs=3",
        ),
    ],
)
def test_a_figure_of_every_third_epoch_is_no_figure_of_the_others(
    make: Any, remedy: str, first: bool, tmp_path: Path
) -> None:
    callbacks = [SampleEvaluation([MeanPixel()], 10, every_n_epochs=3), make(tmp_path)]
    message = f"reads {FIGURE} also where it has not been measured.* check_val_every_n_epoch=3, and {remedy}"
    with pytest.raises(LightningGenError, match=message) as caught:
        fit(callbacks if first else callbacks[::-1], epochs=1, enable_checkpointing=True, **LIMITS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("every", "forced"), [(None, None), (3, True), (3, False), (6, True)])
def test_the_best_are_of_measured_epochs(every: int | None, forced: bool | None, tmp_path: Path) -> None:
    evaluation = SampleEvaluation([MeanPixel()], 10, every_n_epochs=3)
    save = pl.callbacks.ModelCheckpoint(
        tmp_path, monitor=FIGURE, save_top_k=3, every_n_epochs=every, save_on_train_epoch_end=forced
    )
    validate = 3 if every is None else 1
    fit([evaluation, save], epochs=8, check_val_every_n_epoch=validate, enable_checkpointing=True, **LIMITS)
    measured = {figure.epoch: figure.value for figure in evaluation.figures}
    assert measured.keys() == ({2, 5} if validate == 3 else {0, 2, 5, 7})
    assert epochs_of(save) == ([5] if every == 6 else [2, 5])
    for path, value in save.best_k_models.items():
        assert value.item() == pytest.approx(measured[torch.load(path, weights_only=True)["epoch"]])


def test_what_is_saved_between_validations_is_refused(tmp_path: Path) -> None:
    """By steps it is saved before the validation, with the figure of the one before."""
    save = pl.callbacks.ModelCheckpoint(tmp_path, monitor=FIGURE, every_n_train_steps=1)
    with pytest.raises(LightningGenError, match="check_val_every_n_epoch=1, and ModelCheckpoint every_n_epochs=1"):
        fit([SampleEvaluation([MeanPixel()], 10), save], epochs=1, enable_checkpointing=True, **LIMITS)


def test_what_is_saved_after_every_epoch_is_refused_without_a_validation_in_each(tmp_path: Path) -> None:
    """As the command line saves."""
    save = pl.callbacks.ModelCheckpoint(tmp_path, monitor=FIGURE, save_on_train_epoch_end=True)
    with pytest.raises(LightningGenError, match="check_val_every_n_epoch=2, and ModelCheckpoint every_n_epochs=2"):
        fit(
            [SampleEvaluation([MeanPixel()], 10), save],
            epochs=1,
            check_val_every_n_epoch=2,
            enable_checkpointing=True,
            **LIMITS,
        )


def test_patience_counts_evaluations(tmp_path: Path) -> None:
    """A figure that never falls: three more evaluations after the first, whatever the epochs between."""
    stop = pl.callbacks.EarlyStopping(FIGURE, patience=3, min_delta=1e6)
    evaluation = SampleEvaluation([MeanPixel()], 10)
    trainer = fit([evaluation, stop], epochs=40, check_val_every_n_epoch=2, **LIMITS)
    assert [figure.epoch for figure in evaluation.figures] == [1, 3, 5, 7]
    assert trainer.current_epoch == 8


def test_other_monitors_are_left_alone(tmp_path: Path) -> None:
    save = pl.callbacks.ModelCheckpoint(tmp_path, monitor="val/nll", save_top_k=-1)
    fit(
        [SampleEvaluation([MeanPixel()], 10, every_n_epochs=3), save],
        epochs=2,
        enable_checkpointing=True,
        **LIMITS,
    )
    assert epochs_of(save) == [0, 1]
