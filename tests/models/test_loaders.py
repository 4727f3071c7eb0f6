"""Several validation, test and predict loaders, with every model."""

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_gen._lightning import seed_everything
from tests.digits import quiet_trainer
from tests.tiny import TINY, tiny


def one_batch(loader: Any, rows: slice) -> DataLoader[Any]:
    batch = next(iter(loader))
    return DataLoader([{key: value[rows] for key, value in batch.items()}], batch_size=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TINY)
def test_several_held_out_loaders(name: str) -> None:
    """Each has its own figures under Lightning's names, and the first those that it has alone."""
    seed_everything(0, verbose=False)
    model, data = tiny(name)
    data.setup("fit")
    one, two = (one_batch(data.val_dataloader(), slice(start, start + 2)) for start in (0, 2))
    data.val_dataloader = data.test_dataloader = data.predict_dataloader = lambda: [one, two]  # type: ignore[method-assign]
    if name not in ("ImprovedGAN", "VGANAutoencoder"):  # They want more images to begin.
        training = one_batch(data.train_dataloader(), slice(None))
        data.train_dataloader = lambda: training  # type: ignore[method-assign]
    trainer = quiet_trainer(max_epochs=1, num_sanity_val_steps=0, limit_train_batches=1)
    trainer.fit(model, data)
    figures = {"val": set(trainer.callback_metrics)}
    seed_everything(0, verbose=False)
    trainer.test(model, data, verbose=False)
    both = dict(trainer.callback_metrics)
    figures["test"] = set(both)
    for stage, names in figures.items():
        logged = {key.removeprefix(f"{stage}/") for key in names if key.startswith(stage)}
        of_loader = [{key.split("/")[0] for key in logged if key.endswith(f"/dataloader_idx_{i}")} for i in range(2)]
        assert of_loader[0] == of_loader[1]
        assert len(logged) == 2 * len(of_loader[0]), "a figure without its loader"
        protocols = model.figure_protocols(stage)
        assert of_loader[0] <= {*protocols, *(f"{key}_stderr" for key in protocols)}
        if name not in ("GANINTCLS", "LAPGAN"):  # Not without a style encoder, or Parzen windows.
            assert bool(of_loader[0]) == bool(protocols)
    if getattr(model, "can_sample", True):
        predicted: Any = trainer.predict(model, data)
        assert [len(batches[0]) for batches in predicted] == [2, 2]
    data.test_dataloader = lambda: one  # type: ignore[method-assign]
    seed_everything(0, verbose=False)
    trainer.test(model, data, verbose=False)
    for key, value in trainer.callback_metrics.items():
        torch.testing.assert_close(both[f"{key}/dataloader_idx_0"], value, equal_nan=True)
