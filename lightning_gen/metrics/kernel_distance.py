"""Kernel distance between generated and real images: KID, on Inception's features."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gen.arguments import Size, check_arguments
from lightning_gen.functional.distances import kernel_distance
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples


class KernelDistance(SampleMetric):
    """Squared maximum mean discrepancy of features under a cubic kernel (Bińkowski et al. 2018).

    Unlike the Fréchet distance it has no bias, whatever the number of samples, and can fall below 0.

    Args:
        num_subsets: pairs of subsets that it is averaged over; the protocol gives the standard deviation over them.
        subset_size: images in a subset, at most the number of generated and of reference images.
        seed: of the generator that draws the subsets.
    """

    short_name = "kid"
    higher_is_better = False
    generated: list[Tensor]
    reference: list[Tensor]

    def __init__(self, num_subsets: Size = 100, subset_size: Size = 1000, seed: int = 0) -> None:
        check_arguments(KernelDistance.__init__, locals())
        super().__init__()
        self.num_subsets = num_subsets
        self.subset_size = subset_size
        self.seed = seed
        self.add_state("generated", [], dist_reduce_fx="cat")
        self.add_state("reference", [], dist_reduce_fx="cat")

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role in ("generated", "reference"):
            getattr(self, role).append(self._read(samples, "features").detach())

    def compute(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        generated, reference = self._rows("generated"), self._rows("reference")
        if (reference == reference[:1]).all():
            self._warn_of_equal_features()
        distance, std = kernel_distance(generated, reference, self.num_subsets, self.subset_size, generator)
        self.protocol = f"{self.num_subsets} subsets of {self.subset_size}, std {std.item():.2g}"
        return distance
