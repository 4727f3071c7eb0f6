"""A loader that keeps its place in the data in checkpoints, by torchdata, which only those who ask for it need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import RandomSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from lightning_gen.datamodules.base import in_own_words


class Order(RandomSampler):
    """Another order in each epoch, of which Lightning tells it; on ranks it puts a DistributedSampler in its place."""

    def __init__(self, dataset: Any) -> None:
        self.seed = torch.initial_seed()
        self.epoch = 0
        super().__init__(dataset, generator=torch.Generator())

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        return super().__iter__()


class PlacedLoader(StatefulDataLoader):  # type: ignore[misc]
    """Begins its order with the first batch; Lightning begins before it tells a sampler the epoch."""

    def __iter__(self) -> Iterator[Any]:
        yield from in_own_words(super().__iter__())
