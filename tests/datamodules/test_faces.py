"""Faces: the real Olivetti faces where LIGHTNING_GEN_DATA has them, and small MATLAB files made here."""

import numpy as np
import pytest
import torch

from lightning_gen.datamodules import OlivettiDataModule, TorontoFacesDataModule
from lightning_gen.errors import DataError, DatasetNotFoundError

from .test_base import PixelMean, fit
from .test_mnist import DATA

savemat = pytest.importorskip("scipy.io").savemat
needs_faces = pytest.mark.skipif(
    not (DATA / "olivetti").is_dir(), reason="LIGHTNING_GEN_DATA names no folder with olivetti"
)


@pytest.fixture
def made(tmp_path):
    """400 faces whose first row of pixels begins with their number."""
    faces = np.zeros((400, 64, 64), np.uint8)
    faces[:, 0, 0], faces[:, 0, 1] = np.arange(400) // 256, np.arange(400) % 256
    (tmp_path / "olivetti").mkdir()
    savemat(tmp_path / "olivetti" / "olivettifaces.mat", {"faces": faces.transpose(0, 2, 1).reshape(400, 4096).T})
    return tmp_path


def numbers(dataset):
    return dataset.columns["image"][:, 0, 0, :2].long() @ torch.tensor([256, 1])


def test_people_are_held_out_whole(made):
    datamodule = OlivettiDataModule(made)
    datamodule.setup()
    for split, first, last in (("train", 0, 320), ("val", 320, 360), ("test", 360, 400)):
        dataset = datamodule.datasets[split]
        assert torch.equal(numbers(dataset), torch.arange(first, last))
        assert torch.equal(dataset.columns["label"], numbers(dataset) // 10)


def test_checkpoint_rebuilds_the_faces(made, tmp_path):
    fit(OlivettiDataModule(made, classes=[1, 33]), tmp_path, PixelMean((1, 64, 64))).save_checkpoint(
        tmp_path / "x.ckpt"
    )
    loaded = OlivettiDataModule.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    loaded.setup()
    assert numbers(loaded.datasets["train"]).tolist() == list(range(10, 20))
    assert len(loaded.datasets["val"]) == 10


@needs_faces
def test_real_faces_stand_upright():
    """Of one person and left-right symmetric: the mean face's halves agree better than its top and bottom do."""
    datamodule = OlivettiDataModule(DATA)
    datamodule.setup()
    images, labels = (datamodule.datasets["train"].columns[key] for key in ("image", "label"))
    assert images.shape == (320, 1, 64, 64)
    mean = images.float().mean((0, 1))
    assert (mean - mean.flip(1)).abs().mean() < 0.5 * (mean - mean.flip(0)).abs().mean()
    people = torch.stack([images[labels == person].float().mean(0) for person in range(32)])
    within = (images.float() - people[labels]).square().mean()
    assert within < 0.5 * (images.float() - mean).square().mean()


def test_missing_damaged_and_foreign_faces(made):
    path = made / "olivetti" / "olivettifaces.mat"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"olivettifaces\.mat cannot be read") as error:
        OlivettiDataModule(made).setup()
    assert "\n" not in str(error.value)
    savemat(path, {"faces": np.zeros((5, 4096), np.uint8)})
    with pytest.raises(DataError, match=r"holds faces \(5, 4096\) of uint8; expected \(4096, 400\)"):
        OlivettiDataModule(made).setup()
    savemat(path, {"people": np.zeros(3)})
    with pytest.raises(DataError, match=r"expected a MATLAB file with faces"):
        OlivettiDataModule(made).setup()
    path.unlink()
    with pytest.raises(DatasetNotFoundError, match=r"name the folder that holds olivetti/olivettifaces\.mat"):
        OlivettiDataModule(made).setup()


def test_without_scipy_the_extra_is_named(made, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    with pytest.raises(DataError, match=r"pip install 'lightning_gen\[mat\]'"):
        OlivettiDataModule(made).setup()


def test_toronto_faces_by_their_folds(tmp_path):
    """Each fold shifts the parts by one; a face's grey value is its number."""
    folds = (np.arange(20)[:, None] + np.arange(5)) % 4
    images = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None], (20, 48, 48))
    savemat(tmp_path / "TFD_48x48.mat", {"images": images, "folds": folds, "labs_ex": np.zeros((20, 1))})
    for fold in range(5):
        datamodule = TorontoFacesDataModule(tmp_path, fold=fold)
        datamodule.setup()
        for split, part in (("train", 0), ("val", 2), ("test", 3)):
            kept = datamodule.datasets[split].columns["image"]
            assert kept.shape[1:] == datamodule.image_shape
            assert kept[:, 0, 5, 7].tolist() == np.flatnonzero(folds[:, fold] == part).tolist()


def test_wrong_toronto_faces(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"TFD_48x48\.mat .*OlivettiDataModule has public faces"):
        TorontoFacesDataModule(tmp_path).setup()
    savemat(tmp_path / "TFD_48x48.mat", {"images": np.zeros((2, 96, 96), np.uint8), "folds": np.zeros((2, 5))})
    with pytest.raises(DataError, match=r"holds images \(2, 96, 96\)"):
        TorontoFacesDataModule(tmp_path).setup()
    with pytest.raises(DataError, match="fold is 5"):
        TorontoFacesDataModule(tmp_path, fold=5)
