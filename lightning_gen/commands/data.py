"""The data that a checkpoint was trained on, as the commands read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_gen.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


class Data:
    """The data of a checkpoint.

    Args:
        ckpt_path: the checkpoint.
        root: folder of the data, if it is no longer where it was.
    """

    def __init__(self, ckpt_path: str, root: str | None) -> None:
        from lightning_gen.checkpoints import load_data

        self.module: Any = load_data(ckpt_path, root)
        self.module.setup("test")

    def first(self, split: str, number: int | None = None, option: str = "") -> dict[str, Tensor]:
        """The first rows of a split, all of them if there is no number.

        Args:
            split: train, val or test.
            number: how many.
            option: the name under which the user gave the number.

        Raises:
            DataError: if there are not so many.
        """
        dataset = self.module.datasets[split]
        if not 1 <= (len(dataset) if number is None else number) <= len(dataset):
            given = f"{option} is {number}; " if option else ""
            raise DataError(f"{given}{type(self.module).__name__} has {len(dataset)} {split} images.")
        return dataset.__getitems__(range(len(dataset))[:number])
