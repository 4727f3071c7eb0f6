"""How far samples look real, and real images are drawn, each as a number of its own."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from lightning_gen.arguments import Size, check_arguments
from lightning_gen.functional.neighbors import manifold_coverage, manifold_density, manifold_precision
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples


class ManifoldMetric(SampleMetric):
    """Base of the scores that compare features by their k nearest neighbours.

    All depend on the number of images of either kind: compare values of the same numbers only, best of as many samples
    as real images.

    Args:
        k: neighbours that make a point's neighbourhood.
    """

    higher_is_better = True
    generated: list[Tensor]
    reference: list[Tensor]

    def __init__(self, k: Size) -> None:
        check_arguments(ManifoldMetric.__init__, locals())
        super().__init__()
        self.k = k
        self.add_state("generated", [], dist_reduce_fx="cat")
        self.add_state("reference", [], dist_reduce_fx="cat")

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role in ("generated", "reference"):
            getattr(self, role).append(self._read(samples, "features").detach())

    def compute(self) -> Tensor:
        self.protocol = f"k={self.k}"
        return self._score(self._rows("generated", self.k + 1), self._rows("reference", self.k + 1))

    @abstractmethod
    def _score(self, generated: Tensor, reference: Tensor) -> Tensor:
        """The score of features, `(N, F)` and `(M, F)`."""


class Precision(ManifoldMetric):
    """Share of the samples within the manifold of the real images: do they look real? (Kynkäänniemi et al. 2019).

    It does not see what is missing: a model that draws one perfect digit scores 1. One real outlier, whose
    neighbourhood is wide, can vouch for many samples; `Density` is robust against it.
    """

    short_name = "precision"

    def __init__(self, k: Size = 3) -> None:
        super().__init__(k)

    def _score(self, generated: Tensor, reference: Tensor) -> Tensor:
        return manifold_precision(generated, reference, self.k)


class Recall(ManifoldMetric):
    """Share of the real images within the manifold of the samples: are all drawn? (Kynkäänniemi et al. 2019).

    Samples that are far off widen their own manifold, and so can raise it; `Coverage` is robust against that.
    """

    short_name = "recall"

    def __init__(self, k: Size = 3) -> None:
        super().__init__(k)

    def _score(self, generated: Tensor, reference: Tensor) -> Tensor:
        return manifold_precision(reference, generated, self.k)


class Density(ManifoldMetric):
    """In how many neighbourhoods of real images a sample lies, over k (Naeem et al. 2020); about 1 for real images."""

    short_name = "density"

    def __init__(self, k: Size = 5) -> None:
        super().__init__(k)

    def _score(self, generated: Tensor, reference: Tensor) -> Tensor:
        return manifold_density(generated, reference, self.k)


class Coverage(ManifoldMetric):
    """Share of the real images with a sample in their neighbourhood (Naeem et al. 2020).

    For as many real images in the place of the samples about 1 - 2^-k.
    """

    short_name = "coverage"

    def __init__(self, k: Size = 5) -> None:
        super().__init__(k)

    def _score(self, generated: Tensor, reference: Tensor) -> Tensor:
        return manifold_coverage(generated, reference, self.k)
