"""Whether samples are what was asked for."""

from __future__ import annotations

import torch

from lightning_gen.errors import DataError
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples


class Agreement(SampleMetric):
    """Share of the samples that the extractor gives the class they were asked for, `batch["label"]`.

    It does not see whether samples of a class differ. Beside it stands the extractor's accuracy on real images.

    Raises:
        DataError: if the samples come without labels, or with one that the extractor does not know.
    """

    short_name = "agreement"
    batch_keys = ("label",)
    higher_is_better = True
    generated: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        # How many there are, and how many are read as what they should be.
        self.add_state("generated", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role != "generated":
            return
        logits = self._read(samples, "logits")
        if batch is None or "label" not in batch:
            raise DataError(
                "Agreement compares samples with the labels they were asked for, and got none; leave it out for a "
                "model that is not sampled under labels."
            )
        labels = batch["label"].to(logits.device)
        if labels.shape != logits.shape[:1] or labels.max() >= logits.shape[1]:
            raise DataError(
                f"Agreement got labels of shape {tuple(labels.shape)} up to {labels.max().item()} for {len(logits)} "
                f"samples; the extractor {self.extractor_name!r} knows 0 to {logits.shape[1] - 1}."
            )
        agreeing = (logits.argmax(1) == labels).sum()
        self.generated = self.generated + torch.stack([agreeing.new_tensor(len(labels)), agreeing])

    def compute(self) -> torch.Tensor:
        number, agreeing = self.generated
        if number < 1:
            raise self._too_few("generated", 0, 1)
        share = agreeing / number
        self.standard_error = (share * (1 - share) / number).sqrt().item()
        self.protocol = "read as the class asked for"
        return share
