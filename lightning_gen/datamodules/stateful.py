"""A loader that keeps its place in the data in checkpoints, by torchdata, which only those who ask for it need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import RandomSampler
from torchdata.stateful_dataloader import StatefulDataLoader, sampler


class Order(sampler.RandomSampler, RandomSampler):  # type: ignore[misc]
    """torchdata's shuffle, which goes on where it was; being torch's too, Lightning shares it out among ranks."""


class PlacedLoader(StatefulDataLoader):  # type: ignore[misc]
    """Begins its order with the first batch; Lightning begins before it tells ranks which epoch's order is theirs."""

    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()
