"""Inception score: are single images of a clear class, and all together of many?"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gen.arguments import Size, check_arguments
from lightning_gen.functional.distances import inception_score
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples


class InceptionScore(SampleMetric):
    """Exponential of the mean divergence of each image's class probabilities from their mean (Salimans et al. 2016).

    From 1 to the number of classes; the mean over `splits` groups of samples, which are shuffled first: groups of
    samples drawn class by class would each look as if the model knew one class alone. The paper takes 50,000 samples;
    fewer in a group give a lower score.

    Args:
        splits: number of groups; the protocol gives the standard deviation over them, which papers print.
        seed: of the generator that shuffles.
    """

    short_name = "inception_score"
    higher_is_better = True
    generated: list[Tensor]

    def __init__(self, splits: Size = 10, seed: int = 0) -> None:
        check_arguments(InceptionScore.__init__, locals())
        super().__init__()
        self.splits = splits
        self.seed = seed
        self.add_state("generated", [], dist_reduce_fx="cat")

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role == "generated":
            self.generated.append(self._read(samples, "logits").detach())

    def compute(self) -> Tensor:
        logits = self._rows("generated")
        order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(self.seed))
        score, std = inception_score(logits[order.to(logits.device)], self.splits)
        self.protocol = f"{self.splits} shuffled splits of {len(logits) // self.splits}, std {std.item():.2g}"
        return score
