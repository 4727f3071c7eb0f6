"""What the commands share that turn a checkpoint into pictures: where they write, and on which device they draw."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from lightning_gen.errors import LightningGenError

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_gen.models.base import GenerativeModule

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass
class Condition:
    """What all samples are conditioned on, for models that take it.

    Args:
        label: class of every image.
        caption: description of every image.
        source: path of the picture that every image is made of.
        image: path of the picture that every video begins with.
        video: path of the animation (.gif) whose first frames every video continues.
        box: left, top, width and height of what is drawn, in shares of the image.
        keypoints: for each part x and y in shares of the image, and 1, or [0, 0, 0] for one that is not there; null for
            one that the model is to place.
    """

    label: int | None = None
    caption: str | None = None
    source: str | None = None
    image: str | None = None
    video: str | None = None
    box: list[float] | None = None
    keypoints: list[list[float] | None] | None = None

    def rows(self, number: int) -> dict[str, Any] | None:
        """The same condition for each of a number of images."""
        import torch

        given: dict[str, Any] = {}
        if self.label is not None:
            given["label"] = torch.full((number,), self.label)
        if self.caption is not None:
            given["caption"] = [self.caption] * number
        for key, path in (("source", self.source), ("image", self.image)):
            if path is not None:
                given[key] = read_source(path).expand(number, -1, -1, -1)
        if self.video is not None:
            given["video"] = read_gif(self.video).expand(number, -1, -1, -1, -1)
        if self.box is not None:
            given["box"] = torch.tensor([self.box] * number)
        if self.keypoints is not None:
            given["keypoints"] = read_keypoints(self.keypoints).expand(number, -1, -1)
        return given or None


def read_keypoints(keypoints: list[list[float] | None]) -> Tensor:
    """Keypoints as they are typed, `(P, 3)`; NaN for those that are not given."""
    import torch

    for index, point in enumerate(keypoints):
        if point is not None and len(point) != 3:
            raise LightningGenError(f"Keypoint {index} is {point}; expected [x, y, 1], [0, 0, 0] or null.")
    return torch.tensor([[torch.nan] * 3 if point is None else point for point in keypoints])


def read_source(path: str) -> Tensor:
    """A picture in its own size, grey or in colour as it was saved: `(C, H, W)` in [0, 1]."""
    from lightning_gen.datamodules.image_folder import channels_of, upright
    from lightning_gen.datamodules.paired_images import pixels

    with upright(Path(path)) as picture:
        return pixels(picture, channels_of(picture)).float().div_(255)


def read_gif(path: str) -> Tensor:
    """The frames of an animation, in colour if any of them is: `(C, T, H, W)` in [0, 1]."""
    import torch
    from PIL import Image, ImageSequence
    from torchvision.transforms.functional import pil_to_tensor

    from lightning_gen.datamodules.image_folder import naming

    with naming(Path(path)), Image.open(path) as animation:
        frames = [pil_to_tensor(frame.convert("RGB")) for frame in ImageSequence.Iterator(animation)]
    video = torch.stack(frames, 1).float().div_(255)
    return video[:1] if (video == video[:1]).all() else video


@contextmanager
def new_output(output: str, suffixes: Sequence[str] = (".png",), folders: bool = False) -> Iterator[Path]:
    """Give a path to write to, which becomes the output once the block has ended without an error.

    Raises:
        LightningGenError: at once, if the output has none of the suffixes (with `folders`, and is no new folder), or
            cannot be written.
    """
    target = Path(output)
    if target.suffix not in (("", *suffixes) if folders else suffixes):
        expected = " or ".join([*suffixes, *(["a folder without suffix"] if folders else [])])
        raise LightningGenError(f"The output {output} ends in {target.suffix!r}; expected {expected}.")
    if target.is_dir() if target.suffix else target.exists():
        raise LightningGenError(
            f"The output {output} is there already and is not a {target.suffix or suffixes[0]} file; give another name."
        )
    try:  # A folder beside the output takes what is half-written, and shows now whether writing is possible.
        scratch = TemporaryDirectory(prefix=".lightning-gen-", dir=target.absolute().parent)
    except OSError as error:
        raise LightningGenError(f"The output {output} cannot be written: {error.strerror}.") from error
    with scratch as folder:
        draft = Path(folder) / target.name
        yield draft
        os.replace(draft, target)


def load(ckpt_path: str, device: Device, seed: int) -> GenerativeModule:
    """A checkpoint's model on a device, `auto` for the GPU if there is one, and the random stream at its seed.

    From here on a warning stands in one line, as an error does.
    """
    import torch

    from lightning_gen.checkpoints import load_model

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    name: str = device
    if device == "auto":
        name = accelerator.type if accelerator else "cpu"
    elif device != "cpu" and (accelerator is None or device != accelerator.type):
        raise LightningGenError(f"There is no {device} device here; give --device auto or cpu.")
    model = load_model(ckpt_path).to(name)  # With it comes Lightning, which has a format of its own.
    warnings.formatwarning = lambda message, *_, **__: f"lightning-gen: warning: {' '.join(str(message).split())}\n"
    torch.manual_seed(seed)
    return model


def require_latent(model: Any, condition: Condition) -> None:
    """Refuse models whose images are no function of a vector, or that would be given one label and then another."""
    if not (hasattr(model, "sample_latent") and hasattr(model, "decode")):
        raise LightningGenError(f"{type(model).__name__} has no noise vectors to move in; a GAN, a DCGAN or a VAE has.")
    if model.condition_keys and condition == Condition():
        wanted = " ".join(f"--condition.{key}" for key in model.condition_keys)
        raise LightningGenError(f"{type(model).__name__} needs one condition for the whole picture; give {wanted}.")


def decode(model: Any, z: Tensor, condition: Condition) -> Tensor:
    """The images of noise vectors, `(N, *image_shape)` on the CPU."""
    import torch

    with model.evaluating(), torch.no_grad():
        return model.decode(z, model.check_condition(condition.rows(len(z)), len(z))).cpu()
