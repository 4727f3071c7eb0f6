"""Another class of optimizer for any model: `fit --optimizer AdamW --optimizer.weight_decay 0.01`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiplicativeLR

from lightning_gen._lightning import LightningModule
from lightning_gen.errors import LightningGenError


def choose_optimizer(model: LightningModule, kind: type[Optimizer], settings: dict[str, Any]) -> None:
    """Let a model train with optimizers of another class.

    Each optimizer that its `configure_optimizers` makes is replaced by one with the same groups of parameters, the same
    step sizes, and the same schedules.

    Args:
        model: any LightningModule.
        kind: the class.
        settings: what it is made with, but for parameters and step size.

    Raises:
        LightningGenError: in `fit`, if the class refuses the parameters.
    """
    configure: Any = partial(_configure, model.configure_optimizers, kind, settings)
    model.configure_optimizers = configure  # type: ignore[method-assign]


def _configure(configure: Callable[[], Any], kind: type[Optimizer], settings: dict[str, Any]) -> Any:
    """What `configure_optimizers` gives, of any of the forms that Lightning takes, with the other class."""
    made: dict[Optimizer, Optimizer] = {}

    def replace(given: Any) -> Any:
        if isinstance(given, Optimizer):
            if given not in made:
                made[given] = _replacement(given, kind, settings)
            return made[given]
        if isinstance(given, LRScheduler):
            given.optimizer = replace(given.optimizer)
            MultiplicativeLR(given.optimizer, lambda _: 1.0)  # Marks its `step`, for which schedules look.
            return given
        if isinstance(given, dict):
            return {key: replace(value) for key, value in given.items()}
        return type(given)(map(replace, given)) if isinstance(given, (list, tuple)) else given

    return replace(configure())


def _replacement(given: Optimizer, kind: type[Optimizer], settings: dict[str, Any]) -> Optimizer:
    """An optimizer of another class; a group keeps what that class has no setting for, as schedules' own entries."""
    accepted = set(inspect.signature(kind).parameters)
    kept = {"params", "lr"} | set(given.param_groups[0]) - accepted
    groups = [{key: value for key, value in group.items() if key in kept} for group in given.param_groups]
    if "lr" in accepted:
        settings = {**settings, "lr": given.defaults["lr"]}
    try:
        return kind(groups, **settings)
    except (TypeError, ValueError) as error:
        raise LightningGenError(
            f"{kind.__name__} cannot take the place of {type(given).__name__} here: {error}"
        ) from error
