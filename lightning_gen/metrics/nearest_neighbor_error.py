"""Whether samples under labels teach a classifier what real images do."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from lightning_gen.errors import DataError
from lightning_gen.functional.neighbors import nearest_neighbors
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples


class NearestNeighborError(SampleMetric):
    """Share of the held-out images whose nearest sample, by pixels, was asked for with another label.

    The error of a nearest-neighbour classifier that has learned from samples alone (Radford et al. 2016, appendix,
    table 3, with 50,000 and 10,000,000 samples). It falls with the number of samples: compare only equal numbers.
    Beside it stands the error of as many training images.

    Raises:
        DataError: if samples or held-out images come without labels.
    """

    short_name = "nearest_neighbor_error"
    batch_keys = ("label",)
    needs_features = False
    needs_held_out = True
    higher_is_better = False
    generated: list[Tensor]
    generated_labels: list[Tensor]
    reference: list[Tensor]
    reference_labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("generated", "generated_labels", "reference", "reference_labels"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role not in ("generated", "reference"):
            return
        images = self._read(samples, "images").detach().flatten(1)
        if batch is None or "label" not in batch:
            raise DataError(
                f"NearestNeighborError learns from labels and got {role} images without; leave it out for a model that "
                "is not sampled under labels."
            )
        getattr(self, role).append(images.mul(255).round().byte())  # A quarter of the memory.
        getattr(self, f"{role}_labels").append(batch["label"].to(images.device))

    def compute(self) -> Tensor:
        samples, images = self._rows("generated"), self._rows("reference")
        nearest = nearest_neighbors(images, samples).indices[:, 0]
        wrong = (dim_zero_cat(self.generated_labels)[nearest] != dim_zero_cat(self.reference_labels)).double()
        self.standard_error = (wrong.var(correction=0) / len(wrong)).sqrt().item()
        self.protocol = "of a classifier by the nearest sample, pixels"
        return wrong.mean()
