"""Pictures of what a model makes of held-out sources."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gen._lightning import LightningModule, Trainer
from lightning_gen.arguments import Size, check_arguments
from lightning_gen.callbacks.files import image_grid, side_by_side
from lightning_gen.callbacks.sample_grid import PictureCallback
from lightning_gen.errors import LightningGenError
from lightning_gen.models.base import GenerativeModule


class TranslationGrid(PictureCallback):
    """Draw the first held-out sources, what the model makes of each, and its target, side by side.

    Args:
        num_samples: sources in the picture.
        every_n_epochs: epochs from one picture to the next; the first and the last are always drawn.
        num_columns: sources in a row.
        seed: of the noise.

    Raises:
        LightningGenError: if the model makes images of no source.
    """

    kind = "translations"
    context_keys = ("image",)

    def __init__(self, num_samples: Size = 8, every_n_epochs: Size = 1, num_columns: Size = 2, seed: int = 0) -> None:
        check_arguments(TranslationGrid.__init__, locals())
        super().__init__(every_n_epochs, num_samples, seed)
        self.num_columns = num_columns

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if "source" not in getattr(pl_module, "condition_keys", ()):
            raise LightningGenError(
                f"TranslationGrid draws what is made of a source, and {type(pl_module).__name__} takes none; take "
                "SampleGrid instead."
            )
        super().setup(trainer, pl_module, stage)

    def draw(self, trainer: Trainer, pl_module: GenerativeModule) -> Tensor:
        generator = torch.Generator(pl_module.device).manual_seed(self.seed)
        images, kept = self.sample(trainer, pl_module, self.num_samples, 0, generator)
        assert kept is not None
        return image_grid(side_by_side(kept["source"], images.cpu(), kept["image"]), self.num_columns)
