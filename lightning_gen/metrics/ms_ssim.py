"""How alike samples of a class are."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from lightning_gen.arguments import Several, check_arguments
from lightning_gen.errors import DataError
from lightning_gen.functional.ms_ssim import ms_ssim, num_scales
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples


class MSSSIM(SampleMetric):
    """Mean multi-scale structural similarity of pairs of samples of a class (Odena et al. 2017, section 4.2).

    From 0 to 1, where a model draws one image for each label, which `Agreement` would not see. To be compared with the
    value of real images beside it. The mean of the classes, of which the highest is in the protocol; a class with one
    sample has none.

    Args:
        num_pairs: random pairs of different samples in each class.
        seed: of the pairs.

    Raises:
        DataError: if the samples come without labels.
    """

    short_name = "ms_ssim"
    higher_is_better = False
    needs_features = False
    generated: list[Tensor]
    generated_labels: list[Tensor]

    def __init__(self, num_pairs: Several = 100, seed: int = 0) -> None:
        check_arguments(MSSSIM.__init__, locals())
        super().__init__()
        self.num_pairs = num_pairs
        self.seed = seed
        self.add_state("generated", [], dist_reduce_fx="cat")
        self.add_state("generated_labels", [], dist_reduce_fx="cat")

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role != "generated":
            return
        images = self._read(samples, "images")
        if batch is None or "label" not in batch:
            raise DataError(
                "MSSSIM compares samples of the same label, and got none; leave it out for a model that is not sampled "
                "under labels."
            )
        labels = batch["label"].to(images.device)
        if labels.shape != images.shape[:1]:
            raise DataError(f"MSSSIM got labels of shape {tuple(labels.shape)} for {len(images)} samples.")
        self.generated.append(images.detach())
        self.generated_labels.append(labels)

    def compute(self) -> Tensor:
        images, labels = self._rows("generated"), dim_zero_cat(self.generated_labels)
        generator = torch.Generator().manual_seed(self.seed)
        classes = []
        for label in labels.unique():
            rows = (labels == label).nonzero().flatten()
            if (number := len(rows)) < 2:
                continue
            first = torch.randint(number, (self.num_pairs,), generator=generator)
            second = (first + torch.randint(1, number, (self.num_pairs,), generator=generator)) % number
            classes.append(ms_ssim(images[rows[first]], images[rows[second]]))
        if not classes:
            raise DataError(f"MSSSIM compares two samples of a class, and each of {len(images)} has another label.")
        similarities = torch.stack(classes)  # (classes, num_pairs)
        self.standard_error = (similarities.var(1).mean() / similarities.numel()).sqrt().item()
        means = similarities.mean(1)
        self.protocol = (
            f"{num_scales(min(images.shape[2:]))} scales, {self.num_pairs} pairs in each of {len(means)} classes, "
            f"{means.max().item():.2f} in the highest"
        )
        return means.mean()
