"""Log-likelihood of held-out images under a Parzen window on generated ones."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from lightning_gen.arguments import Positive, Size, check_arguments
from lightning_gen.errors import DataError
from lightning_gen.functional.parzen import parzen_log_likelihood
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples

GRIDS = {
    "log": torch.logspace(-1, 0, 10, dtype=torch.float64),
    "fine": torch.arange(10, 30, dtype=torch.float64) / 100,
}
"""Widths in use: of the adversarial nets' code (Goodfellow et al. 2014), and of the moment matching networks' (Li et
al. 2015). On MNIST the coarse grid costs a nat or more: figures by the two are not of one protocol."""


class ParzenLogLikelihood(SampleMetric):
    """Mean log-density of the reference images, in nats, under Gaussian windows on the generated ones.

    The width is the one of a grid that gives the tuning images the highest mean log-likelihood, the first of equals.
    The value depends on the number of samples, the scale of the images ([0, 1]) and the grid: compare only what has one
    protocol. A high value need not mean a good model: centroids of k-means beat real images (Theis et al. 2016).

    Args:
        sigmas: the grid. `log`: ten widths from 0.1 to 1, spaced evenly in the logarithm; `fine`: 0.10, 0.11, ...,
            0.29; or a list of widths, where a single one needs no tuning images.
        num_tuning: how many tuning images are used, the first ones; on several ranks each uses its share.

    Raises:
        DataError: if there is no width, or one is not positive.
    """

    short_name = "parzen"
    needs_features = False
    needs_density = True
    needs_held_out = True
    higher_is_better = True
    generated: list[Tensor]

    def __init__(self, sigmas: Literal["log", "fine"] | list[Positive] = "log", num_tuning: Size = 1000) -> None:
        check_arguments(ParzenLogLikelihood.__init__, locals())
        super().__init__()
        self.sigmas = GRIDS[sigmas] if isinstance(sigmas, str) else torch.tensor(sigmas, dtype=torch.float64)
        if not len(self.sigmas):
            raise DataError("ParzenLogLikelihood got no sigmas; expected one width or more.")
        self.num_tuning = num_tuning
        self.add_state("generated", [], dist_reduce_fx="cat")
        # Not states: every rank scores its own real images against the samples of all, and only sums are exchanged.
        self.reference: list[Tensor] = []
        self.tuning: list[Tensor] = []

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role != "training":
            getattr(self, role).append(self._read(samples, "images").detach().flatten(1))

    def compute(self) -> Tensor:
        samples = self._rows("generated")
        sigma, chosen = self._choose_sigma(samples)
        scores = parzen_log_likelihood(torch.cat([samples[:0], *self.reference]), samples, sigma)
        moments = torch.stack([scores.new_tensor(len(scores)), scores.sum(), scores.square().sum()])
        number, total, square = self._of_all_ranks(moments).sum(0)
        if number < 1:
            raise self._too_few("reference", 0, 1)
        mean = total / number
        variance = (square / number - mean.square()).clamp(min=0)
        self.standard_error = (variance / number).sqrt().item()
        self.protocol = f"sigma {sigma:.3g} {chosen}"
        return mean

    def _choose_sigma(self, samples: Tensor) -> tuple[float, str]:
        """The best width for the tuning images, and how it was chosen."""
        if len(self.sigmas) == 1:
            return self.sigmas.item(), "given"
        ranks = len(self._of_all_ranks(samples.new_zeros(())))
        images = torch.cat([samples[:0], *self.tuning])[: math.ceil(self.num_tuning / ranks)]
        scores = parzen_log_likelihood(images, samples, self.sigmas.to(samples.device)).sum(0)
        *totals, number = self._of_all_ranks(torch.cat([scores, scores.new_tensor([len(images)])])).sum(0).tolist()
        if number < 1:
            raise self._too_few("tuning", 0, 1)
        best = totals.index(max(totals))
        at_end = ", at the end of the grid" if best in (0, len(totals) - 1) else ""
        low, high = self.sigmas.min().item(), self.sigmas.max().item()
        return (
            self.sigmas[best].item(),
            f"of {len(totals)} in [{low:g}, {high:g}], chosen on {number:.0f} images{at_end}",
        )

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.reference, self.tuning = [], []
