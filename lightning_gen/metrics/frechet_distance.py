"""Fréchet distance between generated and real images: FID, on Inception's features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gen.functional.distances import frechet_distance
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples

if TYPE_CHECKING:
    from lightning_gen.nn.features import FeatureExtractor


class FrechetDistance(SampleMetric):
    """Fréchet distance between Gaussians fitted to the features of generated and of real images (Heusel et al. 2017).

    Biased upward by about 1 / N: compare values of one number of samples only. With no more images than features the
    covariance is singular; the authors advise 10,000 samples or more, and 50,000 are common.
    """

    short_name = "fid"
    higher_is_better = False
    generated: Tensor
    reference: Tensor

    def bind(self, extractor: FeatureExtractor) -> None:
        super().bind(extractor)
        # Sums of (1, f)' (1, f): the count, the sum of features f and of their products, in one matrix. In float64 such
        # sums lose digits only where a feature's mean is ten thousand times its deviation.
        size = extractor.num_features + 1
        for role in ("generated", "reference"):
            sums = torch.zeros(size, size, dtype=torch.float64, device=self.device)
            self.add_state(role, sums, dist_reduce_fx="sum")

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role not in ("generated", "reference"):
            return
        rows = F.pad(self._read(samples, "features").detach().double(), (1, 0), value=1.0)
        setattr(self, role, getattr(self, role) + rows.T @ rows)

    def compute(self) -> Tensor:
        distance = frechet_distance(*self._gaussian("generated"), *self._gaussian("reference"))
        num_features = len(self.generated) - 1
        fewest = int(min(self.generated[0, 0], self.reference[0, 0]))
        self.protocol = f"{num_features} features" + (" of fewer images" if fewest <= num_features else "")
        return distance

    def _gaussian(self, role: Role) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the features, with the divisor N - 1."""
        sums = getattr(self, role)
        number = sums[0, 0]
        if number < 2:
            raise self._too_few(role, int(number), 2)
        mean = sums[0, 1:] / number
        covariance = (sums[1:, 1:] - number * torch.outer(mean, mean)) / (number - 1)
        if role == "reference" and covariance.trace() <= 1e-12 * mean.square().sum():  # Nothing but rounding.
            self._warn_of_equal_features()
        return mean, covariance
