"""Whether the labels that photographs were made of can be read in them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_gen.arguments import check_arguments
from lightning_gen.errors import DataError
from lightning_gen.functional.segmentation import label_confusion, label_scores
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples
from lightning_gen.nn.features import FeatureExtractor
from lightning_gen.nn.label_reader import LabelFeatures


class LabelScore(SampleMetric):
    """How well a network trained on real photographs reads, in samples, the labels of `batch["source"]`.

    The FCN score of Isola et al. 2017, section 4.1. Beside it stands that of training photographs, which the network
    may have learned by heart: its score on held-out ones is that of `test` on the `LabelReader`.

    Args:
        score: accuracy by pixel, its mean over labels, or the intersection over union.

    Raises:
        DataError: if the extractor is another than `LabelFeatures`, or samples come without their sources.
    """

    batch_keys = ("source",)
    higher_is_better = True
    generated: Tensor

    def __init__(self, score: Literal["pixel_accuracy", "class_accuracy", "iou"] = "pixel_accuracy") -> None:
        check_arguments(LabelScore.__init__, locals())
        super().__init__()
        self.score = score
        self.short_name = score

    def bind(self, extractor: FeatureExtractor) -> None:
        if not isinstance(extractor, LabelFeatures):
            raise DataError(f"LabelScore got the extractor {extractor.name!r}; it needs LabelFeatures.")
        super().bind(extractor)
        self._network = (extractor.network,)  # In a tuple it is no part of this module.
        size = extractor.num_classes
        self.add_state("generated", torch.zeros(size, size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role != "generated":
            return
        logits = self._read(samples, "logits")
        if batch is None or "source" not in batch:
            raise DataError("LabelScore reads the labels that samples were made of, and got no 'source'.")
        labels = self._network[0].labels_of(batch["source"].to(logits.device))
        self.generated = self.generated + label_confusion(logits.argmax(1), labels, logits.shape[1])

    def compute(self) -> Tensor:
        if not self.generated.any():
            raise self._too_few("generated", 0, 1)
        self.protocol = "the labels of the sources, read by a network trained on real photographs"
        return getattr(label_scores(self.generated), self.score)
