"""How many different images a model can draw, by the birthday paradox."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_gen.arguments import check_arguments
from lightning_gen.functional.neighbors import closest_pairs, count_pairs
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples


class SupportSize(SampleMetric):
    """How many different images a model draws, from how often two samples are near-duplicates (Arora & Zhang 2017).

    Of N samples drawn evenly from n images, N (N - 1) / 2n pairs are equal on average: N (N - 1) / 2 over the number of
    near-duplicates estimates n. Images that are not drawn evenly are equal more often, so it is a lower bound on what
    there is. Two samples are near-duplicates if they are as near to each other as the nearest two of the held-out
    images; the authors asked a person, who can look at `ClosestPairs`. Beside it stands the value of as many training
    images.

    Args:
        on: what the distances are between, `images` or an extractor's `features`.
    """

    short_name = "support"
    needs_held_out = True
    higher_is_better = True
    generated: list[Tensor]
    reference: list[Tensor]

    def __init__(self, on: Literal["images", "features"] = "images") -> None:
        check_arguments(SupportSize.__init__, locals())
        super().__init__()
        self.on: Literal["images", "features"] = on
        self.needs_features = on == "features"
        self.add_state("generated", [], dist_reduce_fx="cat")
        self.add_state("reference", [], dist_reduce_fx="cat")

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role in ("generated", "reference"):
            getattr(self, role).append(self._read(samples, self.on).detach().flatten(1))

    def compute(self) -> Tensor:
        generated, reference = self._rows("generated", least=2), self._rows("reference", least=2)
        radius = closest_pairs(reference, 1).distances.item()
        duplicates = count_pairs(generated, radius)
        number = len(generated) * (len(generated) - 1) // 2
        self.protocol = f"{duplicates} of {number} pairs as near as the nearest two held-out images ({radius:.3g})"
        if not duplicates:
            self.protocol += ", at least"
        return torch.tensor(number / max(duplicates, 1), dtype=torch.float64, device=generated.device)
