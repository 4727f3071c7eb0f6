"""Shapes that PyTorch would broadcast to each other in silence, where the result would be a wrong number."""

from __future__ import annotations

from torch import Tensor

from lightning_gen.errors import DataError


def check_same_shape(last: int = 0, **tensors: Tensor) -> None:
    """Refuse tensors of different shapes.

    Args:
        last: how many dimensions from the end are compared; 0 for all.
        tensors: by the names of the arguments that they are.

    Raises:
        DataError: if one has another shape than the first.

    >>> import torch
    >>> check_same_shape(mean=torch.zeros(3, 2), log_var=torch.zeros(3, 1))
    Traceback (most recent call last):
    lightning_gen.errors.DataError: mean has the shape (3, 2), log_var (3, 1); expected the same.
    """
    first, *others = tensors.values()
    if any(other.shape[-last:] != first.shape[-last:] for other in others):
        name, *names = tensors
        shapes = ", ".join(f"{name} {tuple(other.shape)}" for name, other in zip(names, others, strict=True))
        where = f" in the last {last} dimensions" if last else ""
        raise DataError(f"{name} has the shape {tuple(first.shape)}, {shapes}; expected the same{where}.")
