"""The Olivetti faces: 400 portraits, 64 x 64 grey.

Samaria and Harter, "Parameterisation of a stochastic model for human face identification", WACV 1994.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Size
from lightning_gen.datamodules.base import Batch, ImageDataModule, Loading, Split
from lightning_gen.datamodules.files import read_mat
from lightning_gen.errors import DataError, DatasetNotFoundError


class OlivettiDataModule(ImageDataModule):
    """The Olivetti faces, 64 x 64 grey, ten pictures of each of 40 people, from `olivetti/olivettifaces.mat`.

    The label is the person. The split is one of people, in the order of the file: 32 to train on (320 pictures), 4 for
    validation and 4 to test on (40 pictures each); so held-out faces are of strangers.

    Args:
        root: folder of the data; the environment variable LIGHTNING_GEN_DATA if None, else `./data`.
        batch_size: images a batch, on each rank.
        num_workers: processes that load; 0 is the fastest.
        classes: keep only these people.
        loading: `drop_last` and `train_transform`, see `Loading`.
    """

    def __init__(
        self,
        root: str | None = None,
        batch_size: Size = 20,
        num_workers: Count = 0,
        classes: list[int] | None = None,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(root, batch_size, num_workers, classes=classes, **loading)
        self.path = self.root / "olivetti" / "olivettifaces.mat"

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (1, 64, 64)

    @property
    def num_classes(self) -> int:
        return 40

    def load(self) -> dict[Split, Dataset[Batch]]:
        if not self.path.exists():
            raise DatasetNotFoundError(
                f"The Olivetti faces were looked for in {self.path.absolute()} and are not there; put "
                "olivettifaces.mat of https://cs.nyu.edu/~roweis/data.html there, or name the folder that holds "
                "olivetti/olivettifaces.mat by root or the environment variable LIGHTNING_GEN_DATA."
            )
        (faces,) = read_mat(self.path, ["faces"])
        if faces.shape != (4096, 400) or faces.dtype != np.uint8:
            raise DataError(f"{self.path} holds faces {faces.shape} of {faces.dtype}; expected (4096, 400) of uint8.")
        images = torch.from_numpy(faces.T.copy()).view(400, 1, 64, 64).mT.contiguous()  # Columns come first in MATLAB.
        labels = torch.arange(400) // 10
        rows: dict[Split, slice] = {"train": slice(320), "val": slice(320, 360), "test": slice(360, 400)}
        return self.in_memory({split: {"image": images[part], "label": labels[part]} for split, part in rows.items()})
