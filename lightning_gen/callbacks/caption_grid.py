"""Pictures of what a model makes of captions."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gen._lightning import LightningModule, Trainer
from lightning_gen.arguments import Size, check_arguments
from lightning_gen.callbacks.files import captioned_grid
from lightning_gen.callbacks.sample_grid import PictureCallback
from lightning_gen.errors import LightningGenError
from lightning_gen.models.base import Batch, GenerativeModule


class CaptionGrid(PictureCallback):
    """Draw captions, a row of samples for each with the caption on its left, from the same noise as training goes on.

    Args:
        captions: one for each row, from the top.
        num_columns: samples in a row.
        every_n_epochs: epochs from one picture to the next; the first and the last are always drawn.
        seed: of the noise.

    Raises:
        LightningGenError: if the model draws no captions.
    """

    kind = "captions"

    def __init__(self, captions: list[str], num_columns: Size = 8, every_n_epochs: Size = 1, seed: int = 0) -> None:
        check_arguments(CaptionGrid.__init__, locals())
        super().__init__(every_n_epochs, len(captions) * num_columns, seed)
        self.captions = captions
        self.num_columns = num_columns

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if "caption" not in getattr(pl_module, "condition_keys", ()):
            raise LightningGenError(
                f"CaptionGrid draws captions, and {type(pl_module).__name__} takes none; take SampleGrid instead."
            )
        super().setup(trainer, pl_module, stage)

    def observe(
        self, trainer: Trainer, pl_module: GenerativeModule, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        """Nothing: the captions are given."""

    def draw(self, trainer: Trainer, pl_module: GenerativeModule) -> Tensor:
        generator = torch.Generator(pl_module.device).manual_seed(self.seed)
        rows = [caption for caption in self.captions for _ in range(self.num_columns)]
        with trainer.precision_plugin.forward_context():
            images = pl_module.sample(len(rows), {"caption": rows}, generator=generator)
        return captioned_grid(images.float(), self.captions, self.num_columns)
