"""Whether samples are further from the training images than these are from each other."""

from __future__ import annotations

from torch import Tensor

from lightning_gen.functional.neighbors import authentic
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples


class Authenticity(SampleMetric):
    """Share of the samples that are no near copy of a training image (Alaa et al. 2022; AuthPct is 100 times it).

    A sample counts as one if its nearest training image has a training image that is still nearer. The training images
    themselves, in the place of samples, score 0, and samples far from all images 1: it is to be read beside `fid`.
    """

    short_name = "authenticity"
    higher_is_better = True
    needs_training = True
    generated: list[Tensor]
    training_images: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("generated", [], dist_reduce_fx="cat")
        self.add_state("training_images", [], dist_reduce_fx="cat")

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role in ("generated", "training"):
            rows = self.generated if role == "generated" else self.training_images
            rows.append(self._read(samples, "features").detach())

    def compute(self) -> Tensor:
        generated, training = self._rows("generated"), self._rows("training_images", 2)
        share = authentic(generated, training).double().mean()
        self.standard_error = (share * (1 - share) / len(generated)).sqrt().item()
        self.protocol = f"further from {len(training)} training images than these from each other"
        return share
