"""The Toronto faces, 48 x 48 grey, for those who have them.

Susskind, Anderson and Hinton, "The Toronto face data set", technical report, University of Toronto 2010.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Size
from lightning_gen.datamodules.base import Batch, ImageDataModule, Loading, Split
from lightning_gen.datamodules.files import read_mat
from lightning_gen.errors import DataError, DatasetNotFoundError


class TorontoFacesDataModule(ImageDataModule):
    """The Toronto face data set, 48 x 48 grey, from `TFD_48x48.mat`, which is not public and cannot be downloaded.

    As in the papers on adversarial nets and moment matching networks, training takes the faces without an expression's
    label (98,058), and validation and test those of one of the five published folds.

    Args:
        root: folder of the file; the environment variable LIGHTNING_GEN_DATA if None, else `./data`.
        batch_size: images a batch, on each rank.
        num_workers: processes that load; 0 is the fastest.
        fold: which of the five, from 0.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if there is no such fold.
    """

    def __init__(
        self,
        root: str | None = None,
        batch_size: Size = 100,
        num_workers: Count = 0,
        fold: Count = 0,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(root, batch_size, num_workers, **loading)
        if fold >= 5:
            raise DataError(f"fold is {fold}; the Toronto faces have the folds 0 to 4.")
        self.fold = fold
        self.path = self.root / "TFD_48x48.mat"

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (1, 48, 48)

    def load(self) -> dict[Split, Dataset[Batch]]:
        if not self.path.exists():
            raise DatasetNotFoundError(
                f"The Toronto faces were looked for in {self.path.absolute()} and are not there; name the folder that "
                "holds TFD_48x48.mat by root or the environment variable LIGHTNING_GEN_DATA. They were given on "
                "request; OlivettiDataModule has public faces."
            )
        images, folds = read_mat(self.path, ["images", "folds"])
        if images.shape[1:] != (48, 48) or images.dtype != np.uint8 or folds.shape != (len(images), 5):
            raise DataError(
                f"{self.path} holds images {images.shape} of {images.dtype} and folds {folds.shape}; expected "
                "(N, 48, 48) of uint8 and (N, 5)."
            )
        part = folds[:, self.fold]

        def rows(number: int) -> dict[str, Tensor]:
            return {"image": torch.from_numpy(images[part == number]).unsqueeze(1)}

        return self.in_memory({"train": rows(0), "val": rows(2), "test": rows(3)})  # 1: labelled, for training.
