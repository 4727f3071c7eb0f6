"""Fréchet distance without its bias by the number of samples."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gen.arguments import Several, check_arguments
from lightning_gen.functional.distances import frechet_distance_infinity
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples


class FrechetDistanceInfinity(SampleMetric):
    """Fréchet distance of infinitely many samples, by a line through those of fewer (Chong & Forsyth 2020).

    The distance of N samples lies above that of infinitely many by about a constant over N. The line is fitted over
    1 / N at `num_points` numbers from a tenth of the samples, but at most 5,000, to all of them, drawn without
    replacement (the draws are random samples, as in Stein et al. 2023, not Sobol points). The real images' own number
    still matters. Unlike a distance, it can be negative.

    Args:
        num_points: how many distances the line goes through.
        seed: of the draws.
    """

    short_name = "fid_infinity"
    higher_is_better = False
    generated: list[Tensor]
    reference: list[Tensor]

    def __init__(self, num_points: Several = 15, seed: int = 0) -> None:
        check_arguments(FrechetDistanceInfinity.__init__, locals())
        super().__init__()
        self.num_points = num_points
        self.seed = seed
        self.add_state("generated", [], dist_reduce_fx="cat")
        self.add_state("reference", [], dist_reduce_fx="cat")

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role in ("generated", "reference"):
            getattr(self, role).append(self._read(samples, "features").detach())

    def compute(self) -> Tensor:
        generated, reference = self._rows("generated", 20), self._rows("reference", 2)
        generator = torch.Generator().manual_seed(self.seed)
        self.protocol = f"line through {self.num_points} numbers of samples"
        return frechet_distance_infinity(generated, reference, self.num_points, generator)
