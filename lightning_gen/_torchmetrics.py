"""The one place that knows what torchmetrics keeps to itself: each a function with its reason."""

from __future__ import annotations

from torchmetrics import Metric


def state_names(metric: Metric) -> list[str]:
    """Names of the states that `add_state` has made; `metric_state` would gather their values too."""
    return list(metric._defaults)


def is_joined(metric: Metric) -> bool:
    """Within `compute`, whether the states of all ranks have been joined: whether there are other ranks."""
    return metric._is_synced
