"""Random values for every batch key."""

import pytest
import torch

from lightning_gen.datamodules import FakeDataModule
from lightning_gen.datamodules.fake import KEYS
from lightning_gen.errors import DataError


def test_every_key_is_valid():
    datamodule = FakeDataModule((3, 4, 16, 12), keys=KEYS, num_classes=7, batch_size=32)
    batch = next(iter(datamodule.train_dataloader()))
    assert set(batch) == set(KEYS)
    for key in ("image", "source", "video"):
        assert batch[key].dtype == torch.float32
        assert 0 <= batch[key].min() < 0.1 < 0.9 < batch[key].max() <= 1
    assert batch["video"].shape == (32, 3, 4, 16, 12)
    assert torch.equal(batch["image"], batch["video"][:, :, 0])
    assert batch["label"].dtype == torch.int64
    assert set(batch["label"].tolist()) == set(range(7))

    text = batch["text"]
    assert (text.shape, text.dtype) == ((32, 10, 201), torch.int64)
    assert (text.min(), text.max()) == (0, 70)
    lengths = (text > 0).sum(-1)
    assert lengths.min() >= 1
    assert torch.equal(text > 0, torch.arange(201) < lengths.unsqueeze(-1))  # Zeros only at the end.
    assert batch["text_embedding"].shape == (32, 1024)
    assert len(batch["caption"]) == 32
    assert all(len(captions) == 10 and all(isinstance(c, str) for c in captions) for captions in batch["caption"])

    left, top, width, height = batch["box"].unbind(1)
    assert min(left.min(), top.min()) >= 0
    assert min(width.min(), height.min()) > 0
    assert max((left + width).max(), (top + height).max()) <= 1 + 1e-6
    assert batch["keypoints"].shape == (32, 15, 3)
    assert batch["keypoints"][..., :2].max() <= 1
    assert set(batch["keypoints"][..., 2].unique().tolist()) == {0, 1}
    assert batch["mask"].shape == (32, 1, 16, 12)
    assert set(batch["mask"].unique().tolist()) == {0, 1}

    for key, shape in datamodule.condition_shapes.items():
        assert batch[key].shape[1:] == shape, key


def test_rows_repeat_and_splits_differ():
    first, second = (next(iter(FakeDataModule().val_dataloader()))["image"] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, next(iter(FakeDataModule().test_dataloader()))["image"])


def test_only_the_keys_asked_for():
    datamodule = FakeDataModule((3, 8, 8), keys=["image", "box"], num_samples=5)
    assert set(next(iter(datamodule.train_dataloader()))) == {"image", "box"}
    assert datamodule.num_classes == 0
    assert datamodule.condition_shapes == {"box": (4,)}


def test_unknown_key():
    with pytest.raises(DataError, match=r"\['lable'\].*label"):
        FakeDataModule(keys=["image", "lable"])


@pytest.mark.parametrize(("shape", "keys"), [((3, 8, 8), ["video"]), ((3, 4, 8, 8), ["image"])])
def test_shape_that_does_not_fit_the_keys(shape, keys):
    with pytest.raises(DataError, match="image_shape="):
        FakeDataModule(shape, keys=keys)
