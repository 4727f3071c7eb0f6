"""Whether samples have the attributes that their captions ask for."""

from __future__ import annotations

from typing import Literal

import torch

from lightning_gen.arguments import check_arguments
from lightning_gen.errors import DataError
from lightning_gen.metrics.base import Batch, Role, SampleMetric, Samples
from lightning_gen.nn.attributes import AttributeFeatures
from lightning_gen.nn.features import FeatureExtractor


class AttributeAgreement(SampleMetric):
    """Share of the samples in which an attribute is read as it was asked for, `batch["attributes"]`.

    Args:
        attribute: its name, such as `colour`.
        part: count all samples, those of conditions `seen` in training, or those of `held_out` ones.

    Raises:
        DataError: if the extractor is another than `AttributeFeatures` or knows no such attribute, or samples come
            without attributes.
    """

    higher_is_better = True
    generated: torch.Tensor

    def __init__(self, attribute: str, part: Literal["all", "seen", "held_out"] = "all") -> None:
        check_arguments(AttributeAgreement.__init__, locals())
        super().__init__()
        self.attribute = attribute
        self.part = part
        self.short_name = attribute if part == "all" else f"{attribute}_{part}"
        self.batch_keys = ("attributes",) if part == "all" else ("attributes", "held_out")
        # How many there are, and how many are read as what they should be.
        self.add_state("generated", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def bind(self, extractor: FeatureExtractor) -> None:
        if not isinstance(extractor, AttributeFeatures) or self.attribute not in extractor.names:
            known = ", ".join(extractor.names) if isinstance(extractor, AttributeFeatures) else "none"
            raise DataError(
                f"AttributeAgreement reads {self.attribute!r} and got the extractor {extractor.name!r}, which knows "
                f"{known}; it needs AttributeFeatures."
            )
        super().bind(extractor)
        self._network = (extractor.network,)  # In a tuple it is no part of this module.
        self._place = extractor.names.index(self.attribute)

    def update(self, samples: Samples, batch: Batch | None = None, role: Role = "generated") -> None:
        if role != "generated":
            return
        network, features = self._network[0], self._read(samples, "features")
        with torch.autocast(features.device.type, enabled=False):  # As the extractor reads them.
            found = network.read(network.head(features))[:, self._place]
        if batch is None or not set(self.batch_keys) <= set(batch):
            raise DataError(f"AttributeAgreement needs {' and '.join(self.batch_keys)} of what was asked for.")
        right = found == batch["attributes"][:, self._place].to(found.device)
        if self.part != "all":
            right = right[batch["held_out"].to(found.device) == (self.part == "held_out")]
        self.generated = self.generated + torch.stack([right.sum().new_tensor(len(right)), right.sum()])

    def compute(self) -> torch.Tensor:
        number, agreeing = self.generated
        if number < 1:
            raise self._too_few("generated", 0, 1)
        share = agreeing / number
        self.standard_error = (share * (1 - share) / number).sqrt().item()
        whose = {"all": "", "seen": " of conditions seen in training", "held_out": " of conditions never seen"}
        self.protocol = f"{int(number)} samples{whose[self.part]}, read as was asked for"
        return share
