"""Images as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_gen._lightning import LightningModule, pl
from lightning_gen.arguments import check_arguments
from lightning_gen.callbacks.files import image_grid, side_by_side, write_png
from lightning_gen.errors import LightningGenError


class ImageWriter(pl.callbacks.BasePredictionWriter):
    """Write every sample of `predict` as a PNG, named by the index of the batch row that it was drawn for.

    The index is the data set's, so that ranks never take each other's names. A video becomes a strip of its frames. An
    image that was made of another stands between its source and, if there is one, the target.

    Args:
        output_dir: folder for the files `000000.png`, `000001.png` and so on; made if it is not there.

    Raises:
        LightningGenError: at the start of `predict`, if the folder cannot be written to.
    """

    def __init__(self, output_dir: str) -> None:
        check_arguments(ImageWriter.__init__, locals())
        super().__init__(write_interval="batch")
        self.output_dir = Path(output_dir)

    def setup(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage != "predict" or trainer.fast_dev_run:
            return
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
        prediction: Tensor,
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
        for row, (index, image) in enumerate(zip(batch_indices, prediction.float(), strict=True)):
            if image.ndim == 4:
                image = image_grid(image[None], 1, padding=0)
            if isinstance(batch, Mapping) and "source" in batch:
                image = side_by_side(batch["source"][row], image, batch["image"][row] if "image" in batch else None)
            write_png(image.clamp(0, 1), self.output_dir / f"{prefix}{index:06d}.png")
