"""The random state of a process, kept and given back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of Python's, numpy's and torch's global generators, as tensors and plain values.

    Args:
        device: its generator is included where it is a CUDA device.
    """
    version, numbers, gauss = random.getstate()
    mersenne: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    state = {
        "python": (version, torch.tensor(numbers), gauss),
        "numpy": (torch.from_numpy(mersenne["state"]["key"].astype(np.int64)), mersenne["state"]["pos"]),
        "numpy_gauss": (mersenne["has_gauss"], mersenne["gauss"]),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put the global generators into a state from `random_state`."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    keys, position = state["numpy"]
    mersenne = ("MT19937", keys.numpy().astype(np.uint32), position, *state["numpy_gauss"])
    np.random.set_state(mersenne)  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Run a block on its own random numbers, and leave every global generator as it was before.

    Unlike `torch.random.fork_rng`, Python's and numpy's generators are covered too: loaders draw from them.
    """
    state = random_state(device)
    try:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        yield
    finally:
        set_random_state(state, device)
