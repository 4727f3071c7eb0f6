"""Stop when training has broken down."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_gen._lightning import Callback, LightningModule, Trainer
from lightning_gen.arguments import Size, check_arguments
from lightning_gen.errors import TrainingError


class NanGuard(Callback):
    """Stop training when a loss is not finite: the step's own, or a logged value whose name begins with `train/loss`.

    A loss once NaN stays so, as the weights do; so it is enough to look now and then, and at the end of an epoch.

    Args:
        every_n_batches: batches from one look to the next; each waits for the device.

    Raises:
        TrainingError: naming the model, the epoch, the batch and the losses.
    """

    def __init__(self, every_n_batches: Size = 50) -> None:
        check_arguments(NanGuard.__init__, locals())
        self.every_n_batches = every_n_batches

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % self.every_n_batches and not trainer.is_last_batch:
            return
        losses = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("train/loss")}
        returned = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(returned, Tensor):
            losses["the step's loss"] = returned
        if not losses:
            return
        values = torch.stack([value.detach().float().mean() for value in losses.values()])
        # All ranks stop together: one that went on alone would wait for the others for ever.
        if trainer.strategy.reduce_boolean_decision(bool(values.isfinite().all()), all=True):
            return
        broken = [f"{name} is {value:g}" for name, value in zip(losses, values.tolist(), strict=True)]
        broken = [text for text in broken if text.endswith(("nan", "inf"))] or ["a loss on another process"]
        raise TrainingError(
            f"{type(pl_module).__name__} broke down: {', '.join(broken)} in epoch {trainer.current_epoch}, found at "
            f"batch {batch_idx} (looked at every {self.every_n_batches}). Try a smaller model.lr, clip gradients, "
            "--trainer.precision 32-true, or look for bad values in the data."
        )
