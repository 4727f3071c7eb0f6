"""CLIP's and DINOv2's features are torch-fidelity's, of weights that are whole and asked for.

The networks are small and random: the real weights are hundreds of megabytes.
"""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch_fidelity import feature_extractor_clip

from lightning_gen import judge
from lightning_gen.errors import CheckpointError, DataError, WeightsNotFoundError
from lightning_gen.metrics import InceptionScore, Samples
from lightning_gen.nn import CLIP, DINOv2

HUBCONF = """
from torch import nn
class Small(nn.Sequential):
    embed_dim = 6
def dinov2_vits14():
    return Small(nn.AvgPool2d(56), nn.Flatten(), nn.Linear(48, 6))
"""


class Held(nn.Module):
    """A module with parameters of any names."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name in dict.fromkeys(name.partition(".")[0] for name in state):
            rest = {key.partition(".")[2]: value for key, value in state.items() if key.partition(".")[0] == name}
            setattr(self, name, nn.Parameter(rest[""]) if "" in rest else Held(rest))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def test_clip(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    small = feature_extractor_clip.CLIPVisual(16, 32, 1, 64, 16)
    state = {**small.state_dict(), "text_projection": torch.zeros(4, 16)}
    path = hub / "small.pt"
    torch.jit.save(torch.jit.script(Held(state)), path)
    with pytest.raises(CheckpointError, match=r"small\.pt does not hold the weights of clip-vit-b-32"):
        CLIP(weights=str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(feature_extractor_clip.MODEL_METADATA["clip-vit-b-32"], "hash", digest)
    extractor = CLIP(weights=str(path))
    images = torch.rand(3, 3, 20, 20)
    features, logits = extractor(images)
    direct = feature_extractor_clip.FeatureExtractorCLIP(
        "clip-vit-b-32", ["clip"], feature_extractor_weights_path=str(path)
    )
    torch.testing.assert_close(features, direct((255 * images).round().byte())[0])
    assert (extractor.name, extractor.num_features, logits.shape) == ("clip_vit_b_32", 16, (3, 0))
    figures = judge(images[:, :1].repeat(20, 1, 1, 1), torch.rand(60, 1, 20, 20), extractor=extractor)
    assert "fid_clip_vit_b_32" in figures
    assert not any(name.startswith("inception") for name in figures)
    metric = InceptionScore()
    metric.bind(extractor)
    with pytest.raises(DataError, match="InceptionScore compares classes, and clip_vit_b_32 knows none"):
        metric.update(Samples(images, features, logits))


def test_dinov2(hub: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"DINOv2 is not in .*; pass download=True"):
        DINOv2("vit_s_14")
    repository = hub / "facebookresearch_dinov2_main"
    repository.mkdir()
    (repository / "hubconf.py").write_text(HUBCONF)
    (hub / "trusted_list").write_text("facebookresearch_dinov2\n")
    (hub / "checkpoints" / "dinov2_vits14_pretrain.pth").touch()
    extractor = DINOv2("vit_s_14")
    features, logits = extractor(torch.rand(2, 1, 30, 20))
    assert (features.shape, logits.shape, extractor.name) == ((2, 6), (2, 0), "dinov2_vit_s_14")
    assert not any(weight.requires_grad for weight in extractor.parameters())


def test_what_is_not_there_is_told(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"CLIP's weights are not at .*clip-vit-l-14-.*\.pt; pass download"):
        CLIP("vit_l_14")

    def fail(*given: Any, **more: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(WeightsNotFoundError, match=r"Downloading CLIP's weights to .* failed \(no route\)"):
        CLIP(download=True)
    monkeypatch.setattr(torch.hub, "load", fail)
    with pytest.raises(WeightsNotFoundError, match=r"DINOv2 cannot be loaded by torch.hub \(no route\)"):
        DINOv2(download=True)
