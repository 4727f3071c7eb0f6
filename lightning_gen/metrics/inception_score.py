"""Inception score: are single images of a clear class, and all together of many?"""

from __future__ import annotations

from torch import Tensor

from lightning_gen.arguments import Size, check_arguments
from lightning_gen.functional.distances import inception_score
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples


class InceptionScore(SampleMetric):
    """Exponential of the mean divergence of each image's class probabilities from their mean (Salimans et al. 2016).

    From 1 to the number of classes; the mean over `splits` consecutive groups, in the order of generation (on several
    ranks: rank by rank). The paper takes 50,000 samples; fewer in a group give a lower score.

    Args:
        splits: number of groups; the protocol gives the standard deviation over them, which papers print.
    """

    short_name = "inception_score"
    higher_is_better = True
    generated: list[Tensor]

    def __init__(self, splits: Size = 10) -> None:
        check_arguments(InceptionScore.__init__, locals())
        super().__init__()
        self.splits = splits
        self.add_state("generated", [], dist_reduce_fx="cat")

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role == "generated":
            self.generated.append(self._read(samples, "logits").detach())

    def compute(self) -> Tensor:
        logits = self._rows("generated")
        score, std = inception_score(logits, self.splits)
        self.protocol = f"{self.splits} splits of {len(logits) // self.splits}, std {std.item():.2g}"
        return score
