"""Averaged weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_gen._lightning import Callback, LightningModule, Trainer
from lightning_gen.arguments import Decay, check_arguments
from lightning_gen.errors import LightningGenError


class EMA(Callback):
    """Sample and score an exponential moving average of the weights.

    After training batch n, average = d * average + (1 - d) * weights with d = min(decay, (1 + n) / (10 + n)), so that
    the first weights are soon forgotten. Batches are counted, whatever the number of optimizers.

    In validation the module holds the averages, and gets its training weights back bit for bit after. A checkpoint's
    `state_dict` holds the averages, so what was scored is what `load_from_checkpoint`, `test`, `predict` and `sample`
    read; the training weights stand in the callback's own state, and `fit` goes on from them. (A checkpoint saved with
    `save_weights_only=True` passes callbacks by: it holds the training weights.) After `fit` the module keeps the
    averages. The running statistics of batch normalisation are averaged like the weights: those of the training weights
    would not fit the averages.

    Args:
        decay: d, in [0, 1).
        modules: names of the submodules to average, those that sampling uses; if None, all but those whose name begins
            with `discriminator`.

    Raises:
        LightningGenError: if `decay` is out of range, or the model has no such submodule.
    """

    def __init__(self, decay: Decay = 0.999, modules: list[str] | None = None) -> None:
        check_arguments(EMA.__init__, locals())
        self.decay = decay
        self.modules = modules
        self.num_batches = 0
        self._weights: dict[str, Tensor] = {}  # the module's own parameters; none before training begins
        self._others: dict[str, Tensor] = {}  # the averages; while the module holds them, the training weights
        self._swapped = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the parameters."""
        if stage != "fit":
            return
        for name in self.modules or []:
            if not hasattr(pl_module, name):
                children = ", ".join(name for name, _ in pl_module.named_children())
                raise LightningGenError(f"EMA got modules=[{name!r}]; {type(pl_module).__name__} has {children}.")
        self.num_batches = 0
        self._weights, self._others, self._swapped = {}, {}, False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the weights as they are: here `initialize_from` has run and a checkpoint has been read."""
        frozen = {name for name, parameter in pl_module.named_parameters() if not parameter.requires_grad}
        for name, value in pl_module.state_dict().items():
            if value.is_floating_point() and name not in frozen and self._is_averaged(name):
                self._weights[name] = value
        self._others = {n: self._others.get(n, w).to(w.device, copy=True) for n, w in self._weights.items()}

    def _is_averaged(self, name: str) -> bool:
        if self.modules is not None:
            return any(name.startswith(f"{module}.") for module in self.modules)
        return not any(part.startswith("discriminator") for part in name.split("."))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.num_batches += 1
        decay = min(self.decay, (1 + self.num_batches) / (10 + self.num_batches))
        torch._foreach_lerp_(list(self._others.values()), list(self._weights.values()), 1 - decay)

    def _swap(self) -> None:
        """Exchange the module's weights for the averages, or back."""
        for name, weight in self._weights.items():
            kept = weight.clone()
            weight.copy_(self._others[name])
            self._others[name].copy_(kept)
        self._swapped = not self._swapped

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._swap()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._swap()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the averages in the module, for `test`, `predict` and whoever trained it."""
        if not self._weights:
            self.on_train_start(trainer, pl_module)  # A run that was at its end already: nothing was trained.
        state = pl_module.state_dict()
        self._weights = {name: state[name] for name in self._weights}  # Now on the CPU.
        self._swap()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the averages where weights are looked for, and the training weights beside them."""
        if not self._weights:
            return
        averages, training = (self._weights, self._others) if self._swapped else (self._others, self._weights)
        checkpoint["state_dict"].update(averages)
        checkpoint["callbacks"][self.state_key] = {"num_batches": self.num_batches, "training_weights": training}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on training from the training weights; a test keeps the averages that it has read."""
        state = checkpoint["callbacks"].get(self.state_key)
        if state is None or trainer.state.fn != "fit":
            return
        self.num_batches = state["num_batches"]
        self._others = {name: checkpoint["state_dict"][name] for name in state["training_weights"]}
        pl_module.load_state_dict(state["training_weights"], strict=False)
