"""Whether samples are copies of training images."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from lightning_gen.arguments import Share, check_arguments
from lightning_gen.functional.neighbors import nearest_neighbors
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples

FLAG = 0.5
"""A share of samples over this is flagged."""


class Memorization(SampleMetric):
    """Share of the samples that lie nearer to a training image than nearly all held-out images do.

    A model that draws from the distribution of the data scores `quantile`, as held-out images do; one that replays
    training images scores 1, which is why the training images beside it do. Over 0.5 the protocol says so. Euclidean
    distances do not see through a shift, a blurred image lies near to many, and pixels that are drawn anew at each
    access (`binarization="dynamic"`) hide copies: look at `SampleNeighbors`.

    Args:
        on: what the distances are between: `images`, pixels rounded to 8 bits, or an extractor's `features`.
        quantile: of the held-out images' distances to their nearest training image, what is near.
    """

    short_name = "memorized"
    higher_is_better = False
    needs_training = True
    needs_held_out = True
    generated: list[Tensor]
    reference: list[Tensor]

    def __init__(self, on: Literal["images", "features"] = "images", quantile: Share = 0.05) -> None:
        check_arguments(Memorization.__init__, locals())
        super().__init__()
        self.on: Literal["images", "features"] = on
        self.needs_features = on == "features"
        self.quantile = quantile
        self.add_state("generated", [], dist_reduce_fx="cat")
        self.add_state("reference", [], dist_reduce_fx="cat")
        # Not a state: every rank looks for the neighbours among its own share, and only distances are exchanged.
        self._training_rows: list[Tensor] = []
        self._held_out: Tensor | None = None  # the reference's distances, computed once

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role == "tuning":
            return
        rows = self._read(samples, self.on).detach().flatten(1)
        if self.on == "images":
            rows = rows.mul(255).round().byte()  # A quarter of the memory.
        if role != "generated":
            self._held_out = None
        (self._training_rows if role == "training" else getattr(self, role)).append(rows)

    def compute(self) -> Tensor:
        generated = self._distances(self._rows("generated"))
        if self._held_out is None:
            self._held_out = self._distances(self._rows("reference"))
        near = torch.quantile(self._held_out, self.quantile)
        share = (generated <= near).double().mean()
        self.standard_error = (share * (1 - share) / len(generated)).sqrt().item()
        self.protocol = (
            f"nearer to one of {self._num_training} training images than {1 - self.quantile:.0%} of the held-out ones"
        )
        if share > FLAG:
            self.protocol += f", over {FLAG:g}: MEMORISED"
        return share

    def _distances(self, rows: Tensor) -> Tensor:
        """From each row to the nearest training image of all ranks, `(N,)`."""
        training = torch.cat([rows[:0], *self._training_rows])
        self._training_rows = [training]
        self._num_training = int(self._of_all_ranks(torch.tensor(len(training), device=rows.device)).sum())
        if self._num_training < 1:
            raise self._too_few("training", 0, 1)
        distances = rows.new_full((len(rows),), math.inf, dtype=torch.float64)
        if len(training):  # This rank may have none.
            distances = nearest_neighbors(rows, training).distances[:, 0].double()
        return self._of_all_ranks(distances).amin(0)

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._training_rows, self._held_out = [], None
