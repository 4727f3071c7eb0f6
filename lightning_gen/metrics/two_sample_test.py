"""Whether samples can be told from real images at all."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_gen.arguments import Size, check_arguments
from lightning_gen.functional.mmd import median_bandwidth, two_sample_test
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples


class TwoSamplePValue(SampleMetric):
    """P-value of a kernel test that samples and held-out images come from one distribution (Gretton et al. 2012).

    At most 0.05 for a twentieth of models that are perfect; near 0 a difference is certain, however small it may be.
    The more images, the smaller a difference it finds. The kernel is Gaussian, its width the median distance of the
    images tested, samples and real ones alike, so that the test stays exact.

    Args:
        on: what is compared, `images` or an extractor's `features`.
        num_images: samples and real images that are taken, drawn from each; at most 1,000.
        num_permutations: random divisions of these; the p-value is at least 1 / (num_permutations + 1).
        seed: of the generator that draws both.
    """

    short_name = "mmd_p_value"
    higher_is_better = True
    generated: list[Tensor]
    reference: list[Tensor]

    def __init__(
        self,
        on: Literal["images", "features"] = "images",
        num_images: Size = 1000,
        num_permutations: Size = 1000,
        seed: int = 0,
    ) -> None:
        check_arguments(TwoSamplePValue.__init__, locals())
        super().__init__()
        self.on: Literal["images", "features"] = on
        self.needs_features = on == "features"
        self.num_images = min(num_images, 1000)  # What median_bandwidth looks at.
        self.num_permutations = num_permutations
        self.seed = seed
        self.add_state("generated", [], dist_reduce_fx="cat")
        self.add_state("reference", [], dist_reduce_fx="cat")

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role in ("generated", "reference"):
            getattr(self, role).append(self._read(samples, self.on).detach().flatten(1))

    def compute(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        x, y = (self._draw(self._rows(role, least=2), generator) for role in ("generated", "reference"))
        test = two_sample_test(x, y, [median_bandwidth(x, y)], self.num_permutations, generator)
        self.protocol = (
            f"{len(x)} and {len(y)} {self.on}, Gaussian kernel of the median distance, {self.num_permutations} "
            f"permutations, MMD^2 {test.statistic:.2g}"
        )
        return torch.tensor(test.p_value, dtype=torch.float64, device=x.device)

    def _draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """`num_images` of the rows: the first ones may be of a few classes alone."""
        if len(rows) <= self.num_images:
            return rows
        return rows[torch.randperm(len(rows), generator=generator)[: self.num_images].to(rows.device)]
