"""How many different images a model draws, as far as their features differ."""

from __future__ import annotations

from torch import Tensor

from lightning_gen.functional.distances import vendi_score
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples


class VendiScore(SampleMetric):
    """Effective number of different samples, by the cosine of their features (Friedman & Dieng 2023).

    From 1, all alike, to the number of samples, all at right angles; it knows no real images: noise scores high. It
    grows with the number of samples, so compare it with the value of as many real images.
    """

    short_name = "vendi"
    higher_is_better = True
    generated: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("generated", [], dist_reduce_fx="cat")

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role == "generated":
            self.generated.append(self._read(samples, "features").detach())

    def compute(self) -> Tensor:
        self.protocol = "cosine"
        return vendi_score(self._rows("generated"))
