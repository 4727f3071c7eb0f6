"""The network that reads a map of labels from a photograph, and judges photographs made of such maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_gen.errors import CheckpointError
from lightning_gen.functional.precision import widen
from lightning_gen.nn.features import FeatureExtractor, Features


class LabelNetwork(nn.Module):
    """Convolutions that keep the size of an image, each second one seeing twice as far: a logit per pixel and label.

    Args:
        in_channels: of the photographs.
        palette: colour of each label in the maps, red, green and blue in 0..255.
        base_channels: of every layer.

    Shape:
        photographs `(N, in_channels, H, W)` in [0, 1] -> logits `(N, K, H, W)`; `body` gives the last hidden maps.
    """

    palette: Tensor

    def __init__(self, in_channels: int, palette: Sequence[Sequence[int]], base_channels: int) -> None:
        super().__init__()
        self.register_buffer("palette", torch.tensor(palette, dtype=torch.float32) / 255)  # (K, 3)
        layers: list[nn.Module] = []
        for index, dilation in enumerate((1, 1, 2, 4, 8, 16)):
            before = base_channels if index else in_channels
            layers += [
                nn.Conv2d(before, base_channels, 3, padding=dilation, dilation=dilation, bias=False),
                nn.BatchNorm2d(base_channels),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(base_channels, len(palette), 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))

    def labels_of(self, maps: Tensor) -> Tensor:
        """The label with the nearest colour, `(N, 3, H, W)` in [0, 1] -> integers `(N, H, W)`."""
        maps = widen(maps)
        palette = self.palette.to(maps.dtype)
        with torch.autocast(maps.device.type, enabled=False):  # A difference of squares.
            products = torch.einsum("nchw,kc->nkhw", maps, palette)
        return (palette.square().sum(1)[:, None, None] - 2 * products).argmin(1)


class LabelFeatures(FeatureExtractor):
    """A trained `LabelReader`, as a judge of photographs that were made of maps of labels.

    Its logits are those of every pixel, `(N, K, H, W)`, for `LabelScore`; its features are the last hidden maps,
    averaged over space.

    Args:
        ckpt_path: checkpoint of a `LabelReader`.

    Raises:
        CheckpointError: if the file holds something else.
    """

    name = "labels"
    network: LabelNetwork

    def __init__(self, ckpt_path: str) -> None:
        try:
            checkpoint = torch.load(ckpt_path, map_location="cpu", weights_only=True)
            given = checkpoint["hyper_parameters"]
            with torch.random.fork_rng(
                devices=[]
            ):  # The weights to be replaced cost no draws of the training's stream.
                network = LabelNetwork(given["image_shape"][0], given["palette"], given["base_channels"])
            prefix = "network."
            weights = {key.removeprefix(prefix): value for key, value in checkpoint["state_dict"].items()}
            network.load_state_dict(weights)
        except Exception as error:  # Whatever a damaged file makes the reader of pickles raise.
            raise CheckpointError(
                f"{ckpt_path} is no checkpoint of a LabelReader ({' '.join(str(error).split())}); train one: "
                "lightning-gen fit --config label_reader/facades_64"
            ) from error
        self.num_features, self.num_classes = given["base_channels"], len(given["palette"])
        super().__init__(network)

    def _extract(self, images: Tensor) -> Features:
        maps = self.network.body(images)
        return Features(maps.mean((2, 3)), self.network.head(maps))
