"""How evenly samples are spread over the classes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples

if TYPE_CHECKING:
    from lightning_gen.nn.features import FeatureExtractor


class ClassEntropy(SampleMetric):
    """Entropy, in nats, of the classes that the extractor reads in the samples: are all of them drawn?

    From 0, all samples are read as one class, to log K, each of the K classes is read equally often. Each sample counts
    for its most probable class alone: the mean of the class probabilities would be even for samples that are unclear.
    It does not see whether samples of a class differ, nor whether they are legible.
    """

    short_name = "class_entropy"
    higher_is_better = True
    generated: Tensor

    def bind(self, extractor: FeatureExtractor) -> None:
        super().bind(extractor)
        # How many samples are read as each class.
        counts = torch.zeros(extractor.num_classes, dtype=torch.float64, device=self.device)
        self.add_state("generated", counts, dist_reduce_fx="sum")

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role == "generated":
            classes = self._read(samples, "logits").argmax(1)
            self.generated = self.generated + classes.bincount(minlength=len(self.generated))

    def compute(self) -> Tensor:
        if not self.generated.any():
            raise self._too_few("generated", 0, 1)
        shares = self.generated / self.generated.sum()
        self.protocol = f"nats, at most {math.log(len(shares)):.3f}"
        return -torch.xlogy(shares, shares).sum()
