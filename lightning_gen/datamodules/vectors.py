"""Binary vectors: the eight sets on which density estimators of discrete variables are compared.

Larochelle, Bengio and Turian, "Tractable multivariate binary density estimation and the restricted Boltzmann forest"
(2010); Larochelle and Murray, "The Neural Autoregressive Distribution Estimator" (2011).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Size
from lightning_gen.datamodules.base import Batch, ImageDataModule, Loading, Split
from lightning_gen.errors import DataError, DatasetNotFoundError

Name = Literal["adult", "connect4", "dna", "mushrooms", "nips-0-12", "ocr-letters", "rcv1", "web"]

SIZES = {
    "adult": (123, 5000, 1414, 26147),
    "connect4": (126, 16000, 4000, 47557),
    "dna": (180, 1400, 600, 1186),
    "mushrooms": (112, 2000, 500, 5624),
    "nips-0-12": (500, 400, 100, 1240),
    "ocr-letters": (128, 32152, 10000, 10000),
    "rcv1": (150, 40000, 10000, 150000),
    "web": (300, 14000, 3188, 32561),
}
"""Variables; training, validation and test vectors."""


def read_vectors(path: Path, dim: int) -> Tensor:
    """Read binary vectors from a text file, one a line, in either form in which the eight sets are passed on.

    Args:
        path: rows of `dim` zeros and ones, or of one number more, a label, which is left out; or LIBSVM's rows: a
            label, then `index:1` for each one, counted from 1.
        dim: variables of a vector.

    Returns:
        `(N, dim)`, uint8, 0 or 1.

    Raises:
        DataError: if there is anything else in it.
    """
    try:
        with path.open() as file:
            sparse = ":" in file.readline()
        if sparse:
            lines = [line.split()[1:] for line in path.read_text().splitlines() if line.strip()]
            rows = np.zeros((len(lines), dim))
            for row, entries in zip(rows, lines, strict=True):
                for index, value in (entry.split(":") for entry in entries):
                    if not 1 <= int(index) <= dim:
                        raise ValueError(f"index {index}")
                    row[int(index) - 1] = float(value)
        else:
            rows = np.loadtxt(path, dtype=np.float32, ndmin=2)
    except ValueError as error:
        raise DataError(f"{path} cannot be read as rows of {dim} zeros and ones ({error}).") from error
    if rows.shape[1] not in (dim, dim + 1):
        raise DataError(
            f"{path} has {rows.shape[1]} columns; expected {dim} variables, and perhaps a label after them."
        )
    rows = rows[:, :dim]
    wrong = rows[(rows != 0) & (rows != 1)]
    if len(wrong):
        raise DataError(f"{path} holds the value {wrong[0]:g}; the variables are binary, 0 or 1.")
    return torch.from_numpy(rows.astype(np.uint8))


class VectorDataModule(ImageDataModule):
    """One of the eight binary sets, from `<name>_{train,valid,test}.txt` in `uci/` under `root`.

    A vector is an image one pixel high, `(1, 1, D)`, so that every model of binary images and every callback takes it.
    The splits are the published ones; `read_vectors` tells the form of the files.

    Args:
        name: of the set.
        root: folder of the data; the environment variable LIGHTNING_GEN_DATA if None, else `./data`.
        batch_size: vectors a batch, on each rank.
        num_workers: processes that load; 0 is the fastest.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if there is no such set.
    """

    def __init__(
        self,
        name: Name = "adult",
        root: str | None = None,
        batch_size: Size = 100,
        num_workers: Count = 0,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(root, batch_size, num_workers, **loading)
        self.name = name
        self.dim, *self.sizes = SIZES[name]

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (1, 1, self.dim)

    def load(self) -> dict[Split, Dataset[Batch]]:
        folder = self.root / "uci"
        parts: tuple[tuple[Split, str], ...] = (("train", "train"), ("val", "valid"), ("test", "test"))
        splits = {}
        for (split, part), size in zip(parts, self.sizes, strict=True):
            path = folder / f"{self.name}_{part}.txt"
            if not path.exists():
                raise DatasetNotFoundError(
                    f"The set {self.name} was looked for in {path.absolute()} and is not there; put "
                    f"{self.name}_{{train,valid,test}}.txt into the folder uci of root or of the environment variable "
                    "LIGHTNING_GEN_DATA."
                )
            rows = read_vectors(path, self.dim)
            if len(rows) != size:
                raise DataError(f"{path} holds {len(rows)} vectors; the published split has {size}.")
            splits[split] = {"image": 255 * rows.view(-1, *self.image_shape)}
        return self.in_memory(splits)
