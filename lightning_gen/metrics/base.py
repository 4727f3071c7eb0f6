"""The contract of all scores of generated images."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_gen._torchmetrics import is_joined, state_names
from lightning_gen.errors import DataError

if TYPE_CHECKING:
    from lightning_gen.nn.features import FeatureExtractor

Batch: TypeAlias = Mapping[str, Any]
"""The batch that images were generated for: its conditions are what a metric of agreement compares with."""

Role: TypeAlias = Literal["generated", "reference", "tuning", "training"]
"""What images are to a metric: generated; real and held out, to be compared with; real, to choose a parameter on; all
that the model was trained on, for the metrics that ask for them."""


class Samples(NamedTuple):
    """Images, with what an extractor sees in them."""

    images: Tensor  # (N, C, H, W) in [0, 1]
    features: Tensor | None = None  # (N, F)
    logits: Tensor | None = None  # (N, K)


class SampleMetric(Metric):
    """Base of all scores of generated images: fed by role, computed over all ranks.

    States whose names begin with `generated` hold the generated images, the others what is known of real ones.

    Attributes:
        short_name: name of the score, to which the extractor's is added.
        batch_keys: what it compares samples with, kept for conditional models beside the condition itself.
        needs_features: whether it looks at an extractor's features or logits, or at the images alone.
        needs_density: whether it takes samples as draws from a distribution, to score its likelihood.
        needs_training: whether it looks at all training images.
        needs_held_out: whether its reference must be images that the model was not trained on.
        extractor_name: whose features they are, once bound.
        standard_error: of the last computed value, None where there is no formula.
        protocol: how the last value was computed, in a few words, for tables.
    """

    full_state_update = False
    is_differentiable = False
    short_name: str
    batch_keys: tuple[str, ...] = ()
    needs_features: bool = True
    needs_density: bool = False
    needs_training: bool = False
    needs_held_out: bool = False
    extractor_name: str | None = None
    standard_error: float | None = None
    protocol: str = ""

    @property
    def name(self) -> str:
        """The name in logs and tables.

        A score on other features than the published ones carries the extractor's name (`fid_digits`): it must not be
        compared with numbers from papers.
        """
        if not self.needs_features or self.extractor_name in (None, "inception"):
            return self.short_name
        return f"{self.short_name}_{self.extractor_name}"

    def bind(self, extractor: FeatureExtractor) -> None:
        """Take names and sizes from the network that will give the features; to be called before any update."""
        self.extractor_name = extractor.name

    @abstractmethod
    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        """Take a batch of images.

        Args:
            samples: the images and what the extractor sees in them.
            batch: what they were generated for, or where they are from.
            role: what they are to the metric; a metric ignores a role that it has no use for.

        Raises:
            DataError: if what the metric needs is missing or not finite.
        """

    @abstractmethod
    def compute(self) -> Tensor:
        """The score over the images of all ranks, a scalar; sets `standard_error` and `protocol`.

        Raises:
            DataError: if there are too few images of a role.
        """

    def reset_generated(self) -> None:
        """Forget the generated images; what is known of real ones is kept."""
        kept = {name: getattr(self, name) for name in state_names(self) if not name.startswith("generated")}
        kept = {name: list(state) if isinstance(state, list) else state for name, state in kept.items()}
        Metric.reset(self)
        for name, state in kept.items():
            setattr(self, name, state)

    def _read(self, samples: Samples, field: Literal["images", "features", "logits"]) -> Tensor:
        """A field of the samples, if it is there and finite."""
        values: Tensor | None = getattr(samples, field, None)
        if values is None or (self.needs_features and self.extractor_name is None):
            raise DataError(
                f"{type(self).__name__} needs {field} of an extractor; call bind(extractor) first, and pass "
                "Samples(images, *extractor(images)) to update."
            )
        if field == "logits" and not values.shape[1]:
            raise DataError(f"{type(self).__name__} compares classes, and {self.extractor_name} knows none.")
        if not values.isfinite().all():
            raise DataError(f"{type(self).__name__} got {field} that are NaN or infinite; look at the images behind.")
        return values

    def _rows(self, role: Literal["generated", "reference", "training_images"], least: int = 1) -> Tensor:
        """All rows of the state of this name, a list of tensors, if there are as many as the score needs."""
        state = getattr(self, role)
        number = sum(map(len, state))
        if number < least:
            raise self._too_few("training" if role == "training_images" else role, number, least)
        return dim_zero_cat(state)

    def _of_all_ranks(self, values: Tensor) -> Tensor:
        """Within `compute`, a tensor of every rank, `(ranks, *values.shape)`."""
        return torch.stack(gather_all_tensors(values, self.process_group)) if is_joined(self) else values[None]

    def _warn_of_equal_features(self) -> None:
        """Say that a value near 0 is no praise."""
        warnings.warn(
            f"{self.name}: all real images have the same features, beside which any samples with these features are "
            f"perfect; {self.extractor_name} does not see what is in the images, take another extractor.",
            stacklevel=2,
        )

    def _too_few(self, role: Role, number: int, bound: int) -> DataError:
        return DataError(
            f"{type(self).__name__} has {number} {role} images; it needs at least {bound}, given to "
            f"update(samples, role={role!r})."
        )
