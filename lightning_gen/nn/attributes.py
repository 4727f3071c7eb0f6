"""The network that reads several attributes of an image at once, and judges images that were asked for by them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_gen.errors import CheckpointError
from lightning_gen.nn.features import FeatureExtractor, Features


class AttributeNetwork(nn.Module):
    """Three convolutions, two of which halve the image, a dense layer, and an output for each value of each attribute.

    Args:
        image_shape: `(C, H, W)`.
        attributes: how many values each attribute has, by its name.
        base_channels: of the first layer; each layer doubles them.
        num_features: of the dense layer.

    Shape:
        images `(N, C, H, W)` in [0, 1] -> logits `(N, sum of the values)`; `body` gives the features, `(N, F)`.
    """

    def __init__(
        self, image_shape: tuple[int, ...], attributes: Mapping[str, int], base_channels: int, num_features: int
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        layers: list[nn.Module] = []
        for index, after in enumerate((base_channels, 2 * base_channels, 4 * base_channels)):
            layers += [
                nn.Conv2d(channels, after, 3, 2 if index else 1, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
            channels = after
        places = (-(-height // 4)) * (-(-width // 4))
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * places, num_features), nn.ReLU())
        self.head = nn.Linear(num_features, sum(attributes.values()))
        self.sizes = tuple(attributes.values())

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))

    def read(self, logits: Tensor) -> Tensor:
        """The most probable value of each attribute, `(N, sum of the values) -> (N, A)`."""
        return torch.stack([part.argmax(1) for part in logits.split(self.sizes, 1)], 1)


class AttributeFeatures(FeatureExtractor):
    """A trained `AttributeClassifier`, as a judge of images that were asked for by attributes.

    Its logits are those of the first attribute, the digit of captioned digits; `network.read(network.head(features))`
    tells all of them.

    Args:
        ckpt_path: checkpoint of an `AttributeClassifier`.

    Raises:
        CheckpointError: if the file holds something else.
    """

    name = "attributes"
    network: AttributeNetwork

    def __init__(self, ckpt_path: str) -> None:
        try:
            checkpoint = torch.load(ckpt_path, map_location="cpu", weights_only=True)
            given = checkpoint["hyper_parameters"]
            sizes = (given["image_shape"], given["attributes"], given["base_channels"], given["num_features"])
            with torch.random.fork_rng(devices=[]):  # The weights to be replaced cost no draws of training's stream.
                network = AttributeNetwork(*sizes)
            prefix = "network."
            weights = {key.removeprefix(prefix): value for key, value in checkpoint["state_dict"].items()}
            network.load_state_dict(weights)
        except Exception as error:  # Whatever a damaged file makes the reader of pickles raise.
            raise CheckpointError(
                f"{ckpt_path} cannot be read as a checkpoint of an AttributeClassifier ({type(error).__name__}); train "
                "one with lightning-gen fit --config attribute_classifier/digits."
            ) from error
        super().__init__(network)
        self.names = tuple(given["attributes"])
        self.num_features = given["num_features"]
        self.num_classes = network.sizes[0]

    def _extract(self, images: Tensor) -> Features:
        features = self.network.body(images)
        return Features(features, self.network.head(features)[:, : self.num_classes])
