"""Networks that a model was trained with and never trains: named by a class path, read at any of their layers."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gen.errors import CheckpointError, ConditionError, DataError, WeightsNotFoundError, did_you_mean
from lightning_gen.nn.features import FeatureExtractor, Features

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


def resolve_class(class_path: Any, base: type[T], who: str = "The checkpoint") -> type[T]:
    """The class that a name stands for, if it is a subclass of `base` and ours or already imported.

    Args:
        class_path: module and class.
        base: what it must derive from.
        who: names it, for the error.

    Raises:
        CheckpointError: if it is not; nothing has been imported then that is not ours.
    """
    module_name, _, name = str(class_path).rpartition(".")
    try:
        if module_name.partition(".")[0] == "lightning_gen":
            import_module(module_name)
        found = getattr(sys.modules[module_name], name)
    except (ImportError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{who} names the class {class_path!r}, which is neither of lightning_gen nor imported; if you trust it, "
            f"import it before: --import {module_name or 'MODULE'} on the command line."
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise CheckpointError(f"{who} names {class_path!r}, which is no {base.__name__}.")
    return found


def read_layers(network: nn.Module, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
    """What some layers of a network put out, from one forward pass.

    Args:
        network: of images in [0, 1]; an ordinary one gives logits, a `FeatureExtractor` features too.
        images: `(N, C, H, W)`.
        layers: names as in `network.named_modules()`, `logits` for the network's output, and `features` for the
            features of a `FeatureExtractor`.

    Raises:
        ConditionError: if there is no such layer.
    """
    modules = dict(network.named_modules())
    found: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    hooks = []
    for layer in found:
        if layer in modules:  # In parts, if the network cuts its batch; copied, as the next layer may work in place.
            keep = found[layer]
            hooks.append(modules[layer].register_forward_hook(lambda _m, _i, out, keep=keep: keep.append(out.clone())))
    try:
        outputs = network(images, bounded=False) if isinstance(network, FeatureExtractor) else network(images)
    finally:
        for hook in hooks:
            hook.remove()
    ends = {"logits": outputs}
    if isinstance(outputs, Features):
        ends = {"logits": outputs.logits, "features": outputs.features}
    if unknown := [layer for layer in found if layer not in ends and not found[layer]]:
        there = [*ends, *(name for name in modules if name)]
        raise ConditionError(
            f"{type(network).__name__} has no layer {unknown[0]!r}{did_you_mean(unknown[0], there)} "
            f"It has {', '.join(there)}."
        )
    return [ends[layer] if layer in ends else torch.cat(found[layer]) for layer in layers]


def make_frozen(class_path: str, args: Mapping[str, Any], option: str = "encoder") -> nn.Module:
    """A network by its class path, frozen and in eval mode.

    Args:
        class_path: of a module, ours or already imported.
        args: of its constructor.
        option: the user's option that names the class, for messages.

    Raises:
        CheckpointError: if the class is not there, or not to be trusted, or does not take the arguments.
    """
    found: Any = resolve_class(class_path, nn.Module, f"The option {option}")
    with torch.random.fork_rng(devices=[]):  # Weights to be replaced cost no draws of the training's stream.
        try:
            network: nn.Module = found(**args)
        except TypeError as error:
            raise CheckpointError(f"{class_path} was given {option}_args={dict(args)}: {error}.") from error
    return network.requires_grad_(False).eval()


def read_weights(network: nn.Module, path: str) -> None:
    """Read a checkpoint of the network's class, or a file with its state dict.

    Raises:
        WeightsNotFoundError: if there is no such file.
        CheckpointError: if it holds something else.
    """
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsNotFoundError(f"There is no file {path}; expected the encoder's weights.") from error
    except Exception as error:  # A foreign file can break the reader in any way.
        raise CheckpointError(f"{path} cannot be read as weights ({type(error).__name__}).") from error
    weights = held.get("state_dict", held) if isinstance(held, Mapping) else {}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} does not hold weights of {type(network).__name__}: {reason}; give --model.encoder_args what the "
            "encoder was trained with."
        ) from error


class FrozenNetwork(nn.Module):
    """A network by its class path, frozen and always in eval mode; its weights are part of a model's checkpoint.

    Args:
        class_path: of a module that takes images in [0, 1], `(N, C, H, W)`, and gives logits `(N, K)`, or of a
            `FeatureExtractor`; ours or already imported.
        args: of its constructor.

    Raises:
        CheckpointError: if the class is not there, or not to be trusted, or does not take the arguments.
    """

    def __init__(self, class_path: str, args: Mapping[str, Any]) -> None:
        super().__init__()
        self.network = make_frozen(class_path, args)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode."""
        return super().train(False)

    def forward(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """See `read_layers`."""
        return read_layers(self.network, images, layers)

    def read_weights(self, path: str) -> None:
        """See the function of this name."""
        target = self.network
        read_weights(target.network if isinstance(target, TorchvisionClassifier) else target, path)


class TorchvisionClassifier(nn.Module):
    """Any of torchvision's classifiers, on images in [0, 1].

    Its weights come from a file, as torchvision saves them.

    Args:
        architecture: its name there, such as `alexnet` or `resnet18`.
        image_size: side to which images are resized (bilinear, antialiased); as they are if None.
        num_classes: K.

    Shape:
        `(N, 1, H, W)` or `(N, 3, H, W)` -> logits `(N, K)`.

    Raises:
        DataError: if torchvision has no such classifier.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: str = "alexnet", image_size: int | None = None, num_classes: int = 1000) -> None:
        super().__init__()
        from torchvision.models import get_model, list_models

        if architecture not in list_models():
            hint = did_you_mean(architecture, list_models())
            raise DataError(f"torchvision has no classifier {architecture!r}{hint or '.'}")
        self.network = get_model(architecture, weights=None, num_classes=num_classes)
        self.image_size = image_size
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if self.image_size is not None and images.shape[-2:] != (self.image_size, self.image_size):
            images = F.interpolate(images, (self.image_size, self.image_size), mode="bilinear", antialias=True)
        return self.network((images.expand(-1, 3, -1, -1) - self.mean) / self.std)
