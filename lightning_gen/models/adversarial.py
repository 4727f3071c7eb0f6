"""What all adversarial models share: updates of several optimizers that are right on any number of ranks."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_gen._lightning import before_backward, before_optimizer_step, loss_scaler
from lightning_gen.arguments import NonNegative, Size, check_arguments
from lightning_gen.errors import TrainingError
from lightning_gen.models.base import GenerativeModule


class AdversarialModule(GenerativeModule):
    """Base of models that train several networks against each other by hand-written steps.

    The algorithm stands in each model's `training_step`; only the update itself is here (`step`).

    Args:
        gradient_clip_val: norm at which each optimizer's gradient is clipped, None for no clipping. The Trainer's
            argument of this name refuses hand-written steps.
        accumulate_grad_batches: how many calls of `step` make one update of an optimizer, their gradients averaged.
        input_noise: standard deviation of the Gaussian noise that `add_input_noise` adds, in the first epoch.
        input_noise_epochs: that standard deviation falls linearly to 0 in this many epochs; None for never.
    """

    def __init__(
        self,
        gradient_clip_val: NonNegative | None = None,
        accumulate_grad_batches: Size = 1,
        input_noise: NonNegative = 0.0,
        input_noise_epochs: Size | None = None,
    ) -> None:
        check_arguments(AdversarialModule.__init__, locals())
        super().__init__()
        self.automatic_optimization = False
        self.gradient_clip_val = gradient_clip_val
        self.accumulate_grad_batches = accumulate_grad_batches
        self.input_noise = input_noise
        self.input_noise_epochs = input_noise_epochs
        self._calls: dict[int, int] = {}

    @property
    def is_playing(self) -> bool:
        """Whether the networks play against each other now; models that train in phases say when."""
        return True

    def add_input_noise(self, images: Tensor) -> Tensor:
        """What a discriminator sees where real and generated images are blurred into each other by noise.

        Sonderby et al. 2017, "Amortised MAP inference for image super-resolution", section 3.2; Arjovsky and Bottou
        2017. Without `input_noise` the images are returned as they are.
        """
        std = self.input_noise
        if self.input_noise_epochs is not None:
            std *= max(1 - self.current_epoch / self.input_noise_epochs, 0.0)
        return images + std * torch.randn_like(images) if std else images

    def on_fit_start(self) -> None:
        """Also refuse an optimizer that `step` cannot step.

        Raises:
            TrainingError: if one asks for the loss within its own step.
        """
        for optimizer in self.trainer.optimizers:
            closure = inspect.signature(type(optimizer).step).parameters.get("closure")
            if closure is not None and closure.default is closure.empty:
                raise TrainingError(
                    f"{type(optimizer).__name__} computes losses within its step, and {type(self).__name__} steps by "
                    "gradients that are there already; choose another optimizer, such as AdamW."
                )
        super().on_fit_start()

    def own_optimizers(self) -> list[Any]:
        """The optimizers as a list, also where there is only one."""
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def own_schedules(self) -> list[Any]:
        """What `configure_optimizers` gave for the step sizes, perhaps nothing; a loop of one's own has them itself."""
        schedules = None if self._trainer is None else self.lr_schedulers()
        return schedules if isinstance(schedules, list) else [schedules] if schedules else []

    def first_lr(self, group: dict[str, Any]) -> float:
        """The step size that a group of parameters began with, whoever made its optimizer; kept with the group."""
        # Checkpoints of before have groups without it, and were made with `lr`.
        return group.setdefault("initial_lr", self.hparams["lr"] if self.current_epoch else group["lr"])

    def step(self, *updates: tuple[Any, Tensor]) -> None:
        """Update each optimizer on its loss, all of them from the parameters as they are now.

        Every gradient is computed before any optimizer moves, only for that optimizer's own parameters, and averaged
        over ranks in one reduction. So a simultaneous update is one call with all pairs, an alternating one is a call
        for each, and no network gets a gradient of another's loss. Parameters that are frozen, or that no rank's loss
        depends on, stay as they are.

        Args:
            updates: pairs of an optimizer (one of `self.optimizers()`) and the scalar loss that it minimises.
        """
        scaler = loss_scaler(self)
        scale = scaler.get_scale() if scaler is not None else 1.0
        owned = [
            [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
            for optimizer, _ in updates
        ]
        places: set[int] = set()
        for index, ((_, loss), parameters) in enumerate(zip(updates, owned, strict=True)):
            if not parameters:
                continue
            loss, keep = before_backward(self, loss / self.accumulate_grad_batches), index < len(updates) - 1
            gradients = torch.autograd.grad(loss, parameters, retain_graph=keep, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is None:
                    continue
                if gradient.data_ptr() in places or 0 in gradient.stride():  # Those of a sum's terms are one tensor.
                    gradient = gradient.clone()
                places.add(gradient.data_ptr())
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)

        ready = [index for index, (optimizer, _) in enumerate(updates) if self._is_due(optimizer)]
        self._average_over_ranks([p for index in ready for p in owned[index]])
        for index in ready:
            optimizer, moved = updates[index][0], [p.grad for p in owned[index] if p.grad is not None]
            if scaler is not None:
                if not moved:
                    continue  # A scaler refuses a step without any gradient.
                if scaler.get_scale() != scale:  # The optimizer before this one changed it.
                    torch._foreach_mul_(moved, scaler.get_scale() / scale)
            before_optimizer_step(self, optimizer)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _is_due(self, optimizer: Any) -> bool:
        """Count the call; true when the gradients of enough calls have come together, or the epoch ends."""
        calls = self._calls.get(id(optimizer), 0) + 1
        due = calls >= self.accumulate_grad_batches or self.is_last_batch
        self._calls[id(optimizer)] = 0 if due else calls
        return due

    def _average_over_ranks(self, parameters: list[torch.nn.Parameter]) -> None:
        """Average the gradients over ranks in one flat reduction; a parameter has one if it has one on any rank."""
        if self.world_size == 1 or not parameters:
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        used = gradients[0].new_tensor([p.grad is not None for p in parameters])
        means = self.reduce(torch.cat([*(g.flatten() for g in gradients), used]), "mean")
        *parts, used = means.split([*(g.numel() for g in gradients), len(used)])
        for index, (parameter, mean) in enumerate(zip(parameters, parts, strict=True)):
            if parameter.grad is not None:
                parameter.grad.copy_(mean.view_as(parameter))
            elif used[index] > 0:  # Of another rank; here alone does the host wait for the device.
                parameter.grad = mean.view_as(parameter).to(parameter.dtype)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip: called once gradients are whole, averaged and unscaled."""
        if self.gradient_clip_val is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.gradient_clip_val)


class LinearDecay(AdversarialModule):
    """A step size that stays, and then falls linearly to 0 from one epoch to another.

    Its settings are the hyper-parameters `lr` and `lr_decay_epochs`; None for never.
    """

    def on_train_epoch_start(self) -> None:
        """Set the step size."""
        for optimizer in self.own_optimizers():
            for group in optimizer.param_groups:
                group["lr"] = self.lr_at(self.current_epoch, self.first_lr(group))

    def lr_at(self, epoch: int, start_lr: float | None = None) -> float:
        """Step size in an epoch, counted from 0, of one that begins with `start_lr`; `lr` if None."""
        lr = self.hparams["lr"] if start_lr is None else start_lr
        if (decay := self.hparams["lr_decay_epochs"]) is None:
            return lr
        start, end = decay
        return lr * min(max((end - epoch) / (end - start), 0.0), 1.0)
