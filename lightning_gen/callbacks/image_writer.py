"""Images as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_gen._lightning import LightningModule, pl
from lightning_gen.arguments import check_arguments
from lightning_gen.callbacks.base import log_folder
from lightning_gen.callbacks.files import image_grid, side_by_side, whole_file, write_png
from lightning_gen.errors import LightningGenError


class ImageWriter(pl.callbacks.BasePredictionWriter):
    """Write every result of `predict` as a file, named as the source's or by the index of the row that it is of.

    The index is the data set's, so that ranks never take each other's names; where the data set has `paths` of
    different names, these are taken. A video becomes a strip of its frames. An image that was made of another stands
    between its source and, if there is one, the target. Vectors and keypoints are written as `.pt`, texts as `.txt`.

    Args:
        output_dir: folder for the files `000000.png`, `000001.png` and so on; made if it is not there. The folder
            `results` in the run's if None.

    Raises:
        LightningGenError: at the start of `predict`, if the folder cannot be written to.
    """

    def __init__(self, output_dir: str | None = None) -> None:
        check_arguments(ImageWriter.__init__, locals())
        super().__init__(write_interval="batch")
        self.given_dir = output_dir

    def setup(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._written = 0  # by this rank
        if stage != "predict" or trainer.fast_dev_run:
            return
        self.output_dir = log_folder(trainer) / "results" if self.given_dir is None else Path(self.given_dir)
        trial = self.output_dir / f".trial.{trainer.global_rank}"
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            trial.touch()
            trial.unlink()
        except OSError as error:
            raise LightningGenError(
                f"Images cannot be written to {self.output_dir} ({error.strerror}); give output_dir another folder."
            ) from error

    def write_on_batch_end(
        self,
        trainer: Any,
        pl_module: LightningModule,
        prediction: Tensor | Sequence[str],
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        if trainer.fast_dev_run:  # A trial, which leaves nothing behind.
            return
        if not batch_indices:  # A loader without a sampler: each rank numbers its own, leaving room for the others.
            start = (batch_idx * trainer.world_size + trainer.global_rank) * len(prediction)
            batch_indices = range(start, start + len(prediction))
        prefix = f"{dataloader_idx}-" if dataloader_idx else ""
        names = self._names(trainer, dataloader_idx)
        for row, (index, value) in enumerate(zip(batch_indices, prediction, strict=True)):
            path = self.output_dir / f"{prefix}{names[index] if names else f'{index:06d}'}.png"
            if isinstance(value, str):
                with whole_file(path.with_suffix(".txt")) as temporary:
                    temporary.write_text(value, encoding="utf-8")
            elif value.ndim < 3:
                with whole_file(path.with_suffix(".pt")) as temporary:
                    torch.save(value.cpu().clone(), temporary)
            else:
                image = value.float()
                if image.ndim == 4:
                    image = image_grid(image[None], 1, padding=0)
                if isinstance(batch, Mapping) and "source" in batch:
                    image = side_by_side(batch["source"][row], image, batch["image"][row] if "image" in batch else None)
                write_png(image.clamp(0, 1), path)
        self._written += len(prediction)

    @staticmethod
    def _names(trainer: Any, dataloader_idx: int) -> list[str]:
        """The names of the files that the rows were read from; none if they are not known, or not different."""
        loaders = trainer.predict_dataloaders
        loader = loaders[dataloader_idx] if isinstance(loaders, (list, tuple)) else loaders
        names = [Path(path).stem for path in getattr(getattr(loader, "dataset", None), "paths", ())]
        return names if len(set(names)) == len(names) else []

    def on_predict_end(self, trainer: Any, pl_module: LightningModule) -> None:
        """Say what was written, by all ranks."""
        number = trainer.strategy.reduce(torch.tensor(float(self._written), device=pl_module.device), reduce_op="sum")
        if not trainer.fast_dev_run:
            pl.utilities.rank_zero_info(f"{int(number)} results of predict in {self.output_dir}")
