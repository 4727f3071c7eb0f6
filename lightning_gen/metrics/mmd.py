"""Maximum mean discrepancy between samples and real images or videos."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lightning_gen.arguments import Size, check_arguments
from lightning_gen.functional.mmd import median_bandwidth, mmd2
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples


class MMD(SampleMetric):
    """Squared maximum mean discrepancy of whole images or videos, without bias (Gretton et al. 2012).

    The kernel is Gaussian, its width the median distance of the held-out images among each other, so that the same
    images are always seen by the same kernel. 0 where two sets come from one distribution; it can fall below.

    Args:
        on: what is compared, `images` (pixels of images or videos) or an extractor's `features`.
        num_images: samples and real images that are taken, the first ones of each.
    """

    short_name = "mmd2"
    higher_is_better = False
    generated: list[Tensor]
    reference: list[Tensor]

    def __init__(self, on: Literal["images", "features"] = "images", num_images: Size = 1000) -> None:
        check_arguments(MMD.__init__, locals())
        super().__init__()
        self.on: Literal["images", "features"] = on
        self.needs_features = on == "features"
        self.num_images = num_images
        self.add_state("generated", [], dist_reduce_fx="cat")
        self.add_state("reference", [], dist_reduce_fx="cat")

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role in ("generated", "reference") and sum(map(len, getattr(self, role))) < self.num_images:
            getattr(self, role).append(self._read(samples, self.on).detach().flatten(1))

    def compute(self) -> Tensor:
        x = self._rows("generated", least=2)[: self.num_images]
        y = self._rows("reference", least=2)[: self.num_images]
        half = len(y) // 2
        bandwidth = median_bandwidth(y[:half], y[half:])
        self.protocol = f"{len(x)} and {len(y)} {self.on}, Gaussian kernel of their median distance, unbiased"
        return mmd2(x, y, [bandwidth], biased=False)
