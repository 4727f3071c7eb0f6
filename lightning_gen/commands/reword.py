"""`lightning-gen reword`: what one other word in a caption changes in the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_gen.commands.data import Data
from lightning_gen.commands.pictures import Device, load
from lightning_gen.errors import LightningGenError

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 250  # Pictures drawn at a time.


def reword(
    ckpt_path: str,
    judge: str,
    num_samples: int = 500,
    root: str | None = None,
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Change one attribute in captions of digits, and read what the same noise becomes under both.

    The captions are those of the first test images, of the ten forms in turn. For each attribute another value is
    drawn, and the caption written anew with the same synonyms for all the rest. A change counts where the attribute is
    read as the new word says, was not before, and every other attribute is read as before.

    Args:
        ckpt_path: the checkpoint of a model under captions, trained on CaptionedDigitsDataModule.
        judge: the checkpoint of an AttributeClassifier.
        num_samples: how many captions.
        root: folder of the data, if it is no longer where it was.
        seed: of the noise and of the new values.
        device: where to draw; auto takes the GPU if there is one.
    """
    import torch

    from lightning_gen.datamodules import CaptionedDigitsDataModule
    from lightning_gen.nn import AttributeFeatures

    model: Any = load(ckpt_path, device, seed)
    data = Data(ckpt_path, root)
    if "caption" not in getattr(model, "condition_keys", ()) or not isinstance(data.module, CaptionedDigitsDataModule):
        raise LightningGenError(
            f"{type(model).__name__} was trained on {type(data.module).__name__}; expected a model under captions, "
            "trained on CaptionedDigitsDataModule."
        )
    reader = AttributeFeatures(judge).to(model.device).network
    names, sizes = data.module.attribute_names, data.module.attribute_sizes
    if reader.sizes != sizes:
        raise LightningGenError(f"{judge} reads attributes of {reader.sizes} values; the captions have {sizes}.")
    attributes = data.first("test", num_samples, "num_samples")["attributes"]

    def read(values: Tensor) -> Tensor:
        """What the judge sees in pictures under captions of these attributes, `(N, A)`."""
        texts = [forms[row % len(forms)] for row, forms in enumerate(data.module.describe(values))]
        noise = torch.Generator(model.device).manual_seed(seed)
        found = []
        for start in range(0, len(texts), CHUNK):
            part = texts[start : start + CHUNK]
            images = model.sample(len(part), {"caption": part}, generator=noise)
            with torch.no_grad():
                found.append(reader.read(reader(images)).cpu())
        return torch.cat(found)

    before = read(attributes)
    draws = torch.Generator().manual_seed(seed)
    print(f"{'word changed':14} {'read as told':>12} {'others stay':>12} {'both':>12}   in percent")
    for column, (name, size) in enumerate(zip(names, sizes, strict=True)):
        changed = attributes.clone()
        shift = torch.randint(1, size, (num_samples,), generator=draws)
        changed[:, column] = (changed[:, column] + shift) % size
        print(f"{name:14} " + " ".join(f"{share:>12}" for share in shares(before, read(changed), changed, column)))
    print(f"{num_samples} captions of test images, the same noise under both; read by {judge}")


def shares(before: Tensor, after: Tensor, asked: Tensor, column: int) -> list[str]:
    """How often one attribute follows, how often all others stay, and how often both, in percent.

    Args:
        before: what is read in pictures, `(N, A)`.
        after: what is read once one attribute is asked for otherwise.
        asked: the attributes asked for then.
        column: the one that is changed.
    """
    follows = (after[:, column] == asked[:, column]) & (before[:, column] != asked[:, column])
    same = after == before
    same[:, column] = True
    stay = same.all(1)
    found = []
    for event in (follows, stay, follows & stay):
        share = event.float().mean().item()
        found.append(f"{100 * share:.1f} ± {100 * (share * (1 - share) / len(event)) ** 0.5:.1f}")
    return found
