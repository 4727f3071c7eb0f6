"""Pictures of what a model generates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_gen._lightning import LightningModule, Trainer, logged_step
from lightning_gen.arguments import Size, check_arguments
from lightning_gen.callbacks.base import EvaluationCallback, Labels, Stage, trained_epoch
from lightning_gen.callbacks.files import image_grid, write_png
from lightning_gen.callbacks.loggers import add_animation, add_image
from lightning_gen.callbacks.videos import film_frames, film_strips, write_gif
from lightning_gen.errors import LightningGenError
from lightning_gen.models.base import GenerativeModule


class PictureCallback(EvaluationCallback):
    """Base of callbacks that draw a picture, on rank zero.

    It is written to `<log folder>/<kind>/epoch=0004.png` (in a test `test.png`), an animation beside it as `.gif`, and
    given to the loggers, at the step at which their curves stand.
    """

    kind: str

    def evaluate(self, trainer: Any, pl_module: GenerativeModule, stage: Stage) -> None:
        if not trainer.is_global_zero:
            return
        drawn = self.draw(trainer, pl_module)
        if trainer.fast_dev_run:  # A trial, which leaves nothing behind.
            return
        picture, frames = drawn if isinstance(drawn, tuple) else (drawn, None)
        epoch, step = trained_epoch(trainer), logged_step(trainer)
        path = self.folder / self.kind / ("test.png" if stage == "test" else f"epoch={epoch:04d}.png")
        write_png(picture, path)
        self.pictures.append(path)
        for logger in trainer.loggers:
            add_image(logger, f"{stage}/{self.kind}", picture, step, epoch)
        if frames is not None:
            path = path.with_suffix(".gif")
            write_gif(frames, path)
            self.pictures.append(path)
            for logger in trainer.loggers:
                add_animation(logger, f"{stage}/{self.kind}_video", path, step, epoch)

    def draw(self, trainer: Trainer, pl_module: GenerativeModule) -> Tensor | tuple[Tensor, list[Tensor]]:
        """The picture, `(3, H, W)` in [0, 1], and of videos also the frames of an animation, each `(3, H, W)`."""
        raise NotImplementedError


class SampleGrid(PictureCallback):
    """Draw samples from the same noise, under the conditions of the first held-out images, as training goes on.

    A video is a row of its frames, and moves in the animation. Where a model continues given frames, these have a blue
    border and its own an orange one; what truly happened stands above, and on the left in the animation.

    Args:
        num_samples: samples in the picture.
        every_n_epochs: epochs from one picture to the next; the first and the last are always drawn.
        num_columns: samples in a row; videos in a row of the animation.
        seed: of the noise.
        labels: one for each row, from the top, `all` for each class of the data; the conditions of the held-out images
            if None.
    """

    kind = "samples"

    def __init__(
        self,
        num_samples: Size = 64,
        every_n_epochs: Size = 1,
        num_columns: Size = 8,
        seed: int = 0,
        labels: Labels | None = None,
    ) -> None:
        check_arguments(SampleGrid.__init__, locals())
        super().__init__(every_n_epochs, num_samples, seed, labels)
        self.num_columns = num_columns

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self.labels is not None:
            self.labels = [label for label in self.labels for _ in range(self.num_columns)]

    def draw(self, trainer: Trainer, pl_module: GenerativeModule) -> Tensor | tuple[Tensor, list[Tensor]]:
        generator = torch.Generator(pl_module.device).manual_seed(self.seed)
        images, kept = self.sample(trainer, pl_module, self.num_samples, 0, generator)
        if pl_module.data_key != "video":  # Points are drawn, too.
            return image_grid(images, self.num_columns)
        given = pl_module.context_frames
        real = kept["video"] if given and kept is not None else None
        return film_strips(images, given, real), film_frames(images, self.num_columns, given, real)


class LatentManifold(PictureCallback):
    """Draw the images along a model's two latent variables (Kingma & Welling 2013, figure 4).

    Points on a grid over the unit square go through the inverse distribution function of the standard normal, so each
    image stands for an equal share of the prior.

    Args:
        num_columns: images on each side of the square.
        every_n_epochs: epochs from one picture to the next; the first and the last are always drawn.

    Raises:
        LightningGenError: if the model has no `decode`, or another number of latent variables than 2.
    """

    kind = "manifold"

    def __init__(self, num_columns: Size = 20, every_n_epochs: Size = 1) -> None:
        check_arguments(LatentManifold.__init__, locals())
        super().__init__(every_n_epochs, num_columns**2, seed=0)
        self.num_columns = num_columns

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        latent_dim = getattr(pl_module, "latent_dim", None)
        if latent_dim != 2 or not hasattr(pl_module, "decode"):
            raise LightningGenError(
                f"LatentManifold draws models with decode() and latent_dim=2, and {type(pl_module).__name__} has "
                f"latent_dim={latent_dim}; set model.latent_dim to 2, or remove the callback."
            )
        super().setup(trainer, pl_module, stage)

    def draw(self, trainer: Trainer, pl_module: Any) -> Tensor:
        share = (torch.arange(self.num_columns, device=pl_module.device) + 0.5) / self.num_columns
        z = torch.special.ndtri(torch.cartesian_prod(share, share))  # (columns^2, 2)
        with trainer.precision_plugin.forward_context(), torch.no_grad():
            images = pl_module.decode(z)
        return image_grid(images.float(), self.num_columns, padding=0)
