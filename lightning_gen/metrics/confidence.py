"""How many samples a classifier takes for a clear case."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gen.arguments import Share, check_arguments
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples


class Confidence(SampleMetric):
    """Share of the samples to one of whose classes the extractor gives more than `threshold`: are they legible?

    It does not see whether they differ: a model that draws one perfect digit scores 1.

    Args:
        threshold: of the largest class probability.
    """

    short_name = "confident"
    higher_is_better = True
    generated: Tensor

    def __init__(self, threshold: Share = 0.9) -> None:
        check_arguments(Confidence.__init__, locals())
        super().__init__()
        self.threshold = threshold
        # How many there are, and how many are over the threshold.
        self.add_state("generated", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role == "generated":
            largest = self._read(samples, "logits").detach().double().softmax(1).amax(1)
            self.generated = self.generated + torch.stack(
                [largest.new_tensor(len(largest)), (largest > self.threshold).sum()]
            )

    def compute(self) -> Tensor:
        number, confident = self.generated
        if number < 1:
            raise self._too_few("generated", 0, 1)
        share = confident / number
        self.standard_error = (share * (1 - share) / number).sqrt().item()
        self.protocol = f"over {self.threshold:g}"
        return share
