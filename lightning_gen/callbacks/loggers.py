"""What loggers are given beside numbers, each in the way of its own interface: pictures, animations, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor

from lightning_gen._lightning import pl


def add_image(logger: Any, name: str, picture: Tensor, step: int, epoch: int) -> None:
    """Give a picture `(3, H, W)` in [0, 1] to a logger that takes some: TensorBoard, W&B, MLflow, Comet.

    Others of one's own take it by `log_image` as W&B's, or by `experiment.add_image` as TensorBoard's. (Lightning no
    longer exports a logger of Neptune.)
    """
    from torchvision.transforms.functional import to_pil_image  # Here: it takes a second to import.

    pixels = to_pil_image(picture.mul(255).round().byte().cpu())
    if isinstance(logger, pl.loggers.MLFlowLogger):
        logger.experiment.log_image(logger.run_id, pixels, key=name, step=step)
    elif isinstance(logger, pl.loggers.CometLogger):
        logger.experiment.log_image(pixels, name=name, step=step)
    elif hasattr(logger, "log_image"):
        logger.log_image(key=name, images=[picture], caption=[f"epoch {epoch}"])
    elif add := getattr(getattr(logger, "experiment", None), "add_image", None):
        add(name, picture, step)


def add_animation(logger: Any, name: str, path: Path, step: int, epoch: int) -> None:
    """Give a GIF to loggers that take videos; TensorBoard shows it among its images, where it moves.

    Its own `SummaryWriter.add_video` fails with moviepy 2.
    """
    if isinstance(logger, pl.loggers.TensorBoardLogger):
        with Image.open(path) as animation:
            width, height = animation.size
        picture = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=path.read_bytes())
        logger.experiment.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=picture)]), step)
    elif hasattr(logger, "log_video"):
        logger.log_video(key=name, videos=[str(path)], caption=[f"epoch {epoch}"])
    else:
        add_file(logger, path)


def add_file(logger: Any, path: Path) -> None:
    """Give a file to a logger that keeps files: W&B, MLflow, Comet; TensorBoard shows its text."""
    if isinstance(logger, pl.loggers.WandbLogger):
        logger.experiment.save(str(path), base_path=str(path.parent), policy="now")
    elif isinstance(logger, pl.loggers.MLFlowLogger):
        logger.experiment.log_artifact(logger.run_id, str(path))
    elif isinstance(logger, pl.loggers.CometLogger):
        logger.experiment.log_asset(str(path), file_name=path.name)
    elif isinstance(logger, pl.loggers.TensorBoardLogger):
        lines = path.read_text(encoding="utf-8").splitlines()
        logger.experiment.add_text(path.stem, "\n".join(f"    {line}" for line in lines))  # Markdown's for code.
