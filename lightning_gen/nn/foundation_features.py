"""Features of networks that were trained on hundreds of millions of pictures without ImageNet's classes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_gen.errors import CheckpointError, WeightsNotFoundError
from lightning_gen.nn.features import FeatureExtractor, Features


class Embedding(FeatureExtractor):
    """Base of extractors whose network gives features and no classes, of pixels in 8 bits and three channels."""

    num_classes = 0

    def _extract(self, images: Tensor) -> Features:
        (features,) = self.network((255 * images).round().to(torch.uint8).expand(-1, 3, -1, -1))
        return Features(features, features.new_empty(len(features), 0))


class CLIP(Embedding):
    """The image encoder of CLIP (Radford et al. 2021), as torch-fidelity ports it; images are resized to 224 x 224.

    Scores on it carry its name, as in `fid_clip_vit_b_32`; those that need classes, as the Inception score, refuse.

    Args:
        variant: of the encoder.
        weights: path of OpenAI's weight file; torch hub's cache, where torch-fidelity keeps it, if None.
        download: fetch the file into the cache if it is not there.

    Raises:
        WeightsNotFoundError: if there is no such file, or it cannot be downloaded.
        CheckpointError: if the file holds something else.
    """

    def __init__(
        self,
        variant: Literal["vit_b_32", "vit_b_16", "vit_l_14"] = "vit_b_32",
        weights: str | None = None,
        download: bool = False,
    ) -> None:
        from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS, FeatureExtractorCLIP

        name = f"clip-{variant.replace('_', '-')}"
        digest = MODEL_METADATA[name]["hash"]
        path = Path(weights or Path(torch.hub.get_dir(), "checkpoints", f"{name}-{digest}.pt"))
        if not path.is_file() and download and weights is None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(MODEL_URLS[name], str(path), progress=False)
            except OSError as error:
                raise WeightsNotFoundError(f"Downloading CLIP's weights to {path} failed ({error}).") from error
        if not path.is_file():
            raise WeightsNotFoundError(
                f"CLIP's weights are not at {path}; pass download=True (--extractor.download true) on a machine with a "
                f"network, place {MODEL_URLS[name]} there yourself, or give weights=<path of a copy>."
            )
        if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != digest:  # A TorchScript file can run code.
            raise CheckpointError(
                f"{path} does not hold the weights of {name}: its SHA-256 is {found[:8]}... and not {digest[:8]}...; "
                "delete it and give the right file or download=True."
            )
        with torch.random.fork_rng(devices=[]):
            network = FeatureExtractorCLIP(name, ["clip"], feature_extractor_weights_path=str(path))
        super().__init__(network)
        self.name = name.replace("-", "_")
        self.num_features = network.model.visual.output_dim


class DINOv2(Embedding):
    """The encoder of DINOv2 (Oquab et al. 2023), on which Stein et al. 2023 found distances to agree best with people.

    torch-fidelity loads it by `torch.hub` from the authors' repository, whose code is run: `download` says that it may.
    Images are resized to 224 x 224. Scores on it carry its name, as in `fid_dinov2_vit_b_14`.

    Args:
        variant: of the encoder.
        download: fetch code and weights into torch hub's cache if they are not there.

    Raises:
        WeightsNotFoundError: if they are not there, or cannot be downloaded.
    """

    def __init__(
        self, variant: Literal["vit_s_14", "vit_b_14", "vit_l_14", "vit_g_14"] = "vit_b_14", download: bool = False
    ) -> None:
        from torch_fidelity.feature_extractor_dinov2 import MODEL_METADATA, FeatureExtractorDinoV2

        name = f"dinov2-{variant.replace('_', '-')}"
        hub = Path(torch.hub.get_dir())
        weights = hub / "checkpoints" / f"{MODEL_METADATA[name]}_pretrain.pth"
        if not download and not (weights.is_file() and any(hub.glob("facebookresearch_dinov2_*"))):
            raise WeightsNotFoundError(
                f"DINOv2 is not in {hub}; pass download=True (--extractor.download true) on a machine with a network, "
                f"or place the repository facebookresearch/dinov2 and its {weights.name} there as torch.hub does."
            )
        try:
            with torch.random.fork_rng(devices=[]):
                network: Any = FeatureExtractorDinoV2(name, ["dinov2"])
        except OSError as error:
            raise WeightsNotFoundError(f"DINOv2 cannot be loaded by torch.hub ({error}).") from error
        super().__init__(network)
        self.name = name.replace("-", "_")
        self.num_features = network.model.embed_dim
