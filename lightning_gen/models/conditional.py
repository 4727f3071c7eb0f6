"""Models under a condition of any kind: labels, which networks see as one-hot vectors, or vectors as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gen.errors import ConditionError, DataError
from lightning_gen.models.base import Batch, Condition, GenerativeModule, as_batch, check_labels


class ConditionalModule(GenerativeModule):
    """A model under one condition; to stand before another base, as in `class CGAN(ConditionalModule, ...)`.

    Before `set_condition`, or without it, the model is unconditional.

    Attributes:
        has_labels: whether the condition is a label.
        condition_size: length of what the networks see: the number of classes, or of numbers in a vector.
        frequencies: of the labels in training, `(condition_size,)`.
    """

    has_labels: bool = False
    condition_size: int = 0
    frequencies: Tensor

    def set_condition(self, key: str, num_classes: int, size: int | None) -> None:
        """Say what the condition is; in `__init__`.

        Args:
            key: its batch key: `label`, integers `(N,)`; or another one, for vectors.
            num_classes: how many labels there are.
            size: length of vectors, `(N, size)`; None for labels.

        Raises:
            ConditionError: if neither labels nor vectors are described.
        """
        self.has_labels = key == "label"
        condition_size = num_classes if self.has_labels else size
        if self.has_labels and num_classes == 0:
            raise ConditionError(
                f"{type(self).__name__} is trained under labels, and the data have none (num_classes=0); a folder of "
                "images needs one subfolder for each class."
            )
        if not condition_size or condition_size < 1:
            raise ConditionError(
                f"{type(self).__name__} got num_classes={num_classes}, condition_key={key} and condition_size={size}; "
                "expected labels and at least one class, or another key and the length of its vectors."
            )
        self.condition_keys = (key,)
        self.condition_size = condition_size
        if self.has_labels:
            self.register_buffer("frequencies", torch.full((condition_size,), 1 / condition_size))

    def check_values(self, values: Any, error: type[ConditionError | DataError]) -> None:
        """Check that a condition's tensor holds labels in range, or vectors of the right length."""
        if self.has_labels:
            check_labels(values, self.condition_size, type(self).__name__, error)
        elif not (isinstance(values, Tensor) and values.shape[1:] == (self.condition_size,)):
            found = f"{values.dtype} of shape {tuple(values.shape)}" if isinstance(values, Tensor) else repr(values)
            raise error(
                f"{type(self).__name__} got {self.condition_keys[0]} as {found}; expected floats of shape "
                f"(N, {self.condition_size})."
            )

    def check_batch(self, batch: Batch) -> None:
        """Also refuse a batch without a condition that fits."""
        super().check_batch(batch)
        for key in self.condition_keys:
            if key not in batch:
                raise DataError(f"The batch holds {sorted(batch)}; {type(self).__name__} needs {key!r}.")
            self.check_values(batch[key], DataError)

    def check_condition(
        self, condition: Condition | None, num_samples: int, generator: torch.Generator | None = None
    ) -> Condition:
        """Also refuse labels out of range and vectors of another length."""
        condition = super().check_condition(condition, num_samples, generator) or {}
        for key in self.condition_keys:
            self.check_values(condition[key], ConditionError)
        return condition

    def draw_condition(self, num_samples: int, generator: torch.Generator | None = None) -> Condition:
        """Draw labels as frequent as in training."""
        if not self.has_labels:
            return super().draw_condition(num_samples, generator)
        return {"label": self.frequencies.multinomial(num_samples, replacement=True, generator=generator)}

    def embed(self, condition: Condition | Batch) -> Tensor:
        """What the networks see of a condition: `(N, condition_size)`, one-hot for labels."""
        values = condition[self.condition_keys[0]]
        return (
            F.one_hot(values.long(), self.condition_size).to(self.dtype) if self.has_labels else values.to(self.dtype)
        )

    def checked_images(self, batches: Iterable[Any]) -> Iterator[Tensor]:
        """Images of all batches, for `initialize_from`; all conditions are checked, and how frequent labels are kept.

        Raises:
            DataError: if a batch does not fit. (Later a label out of range would be no clear error.)
        """
        counts = torch.zeros(self.condition_size, dtype=torch.float64)
        for batch in map(as_batch, batches):
            self.check_batch(batch)
            if self.has_labels:
                counts += batch["label"].long().bincount(minlength=self.condition_size).cpu()
            yield batch["image"]
        if self.has_labels:
            self.frequencies.copy_(counts / counts.sum())
