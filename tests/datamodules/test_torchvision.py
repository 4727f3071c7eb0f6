"""Public picture sets, from small files made here in the layout that torchvision reads."""

import hashlib
from io import BytesIO
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import STL10, SVHN, CelebA

from lightning_gen.datamodules import TorchvisionDataModule
from lightning_gen.errors import DataError, DatasetNotFoundError

from .test_base import PixelMean, fit


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def reds(datamodule, split):
    """The red of the middle pixel of every picture, in order: its number."""
    datamodule.setup()
    dataset = datamodule.datasets[split]
    side = datamodule.image_size
    return (255 * dataset.__getitems__(range(len(dataset)))["image"][:, 0, side // 2, side // 2]).round().int().tolist()


@pytest.fixture
def svhn(tmp_path, monkeypatch):
    """20 and 5 house numbers; the digit 0 has the label 10 in the file."""
    savemat = pytest.importorskip("scipy.io").savemat
    for split, size in (("train", 20), ("test", 5)):
        pixels = np.zeros((32, 32, 3, size), np.uint8)
        pixels[:, :, 0] = np.arange(size)
        path = tmp_path / f"{split}_32x32.mat"
        savemat(path, {"X": pixels, "y": (np.arange(size) % 10 + 1)[:, None]})
        monkeypatch.setitem(SVHN.split_list, split, ["", path.name, md5(path)])
    return tmp_path


def test_svhn_holds_out_drawn_pictures(svhn, tmp_path):
    datamodule = TorchvisionDataModule("svhn", 32, svhn, val_size=6, batch_size=7)
    train, val = reds(datamodule, "train"), reds(datamodule, "val")
    assert len(val) == 6
    assert sorted(train + val) == list(range(20))
    assert val == sorted(val) != list(range(14, 20))
    assert val == reds(TorchvisionDataModule("svhn", 32, svhn, val_size=6), "val")
    assert reds(datamodule, "test") == list(range(5))
    batch = next(iter(datamodule.train_dataloader()))
    assert torch.equal(batch["label"], ((255 * batch["image"][:, 0, 0, 0]).round().long() + 1) % 10)
    trainer = fit(datamodule, tmp_path, PixelMean((3, 32, 32)))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    loaded = TorchvisionDataModule.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert reds(loaded, "val") == val


def test_classes_are_kept_without_reading_pictures(svhn):
    datamodule = TorchvisionDataModule("svhn", 32, svhn, val_size=0, classes=[0, 3])
    assert reds(datamodule, "train") == [2, 9, 12, 19]
    assert reds(datamodule, "test") == [2]
    with pytest.raises(DataError, match="TorchvisionDataModule has no labels"):
        TorchvisionDataModule("stl10", classes=[0]).setup()


def test_files_with_another_sum_are_refused(svhn):
    path = svhn / "test_32x32.mat"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DatasetNotFoundError, match=r"SVHN's files of 'test'.*corrupted"):
        TorchvisionDataModule("svhn", 32, svhn, val_size=0).setup()


def test_stl10_trains_on_pictures_without_labels(tmp_path, monkeypatch):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    for name, size in (("train_X.bin", 1), ("unlabeled_X.bin", 9), ("test_X.bin", 2)):
        pixels = np.zeros((size, 3, 96, 96), np.uint8)
        pixels[:, 0] = np.arange(size)[:, None, None]
        pixels[:, :, :, :24] += 100  # The left quarter is lighter; columns come first in the file.
        (folder / name).write_bytes(pixels.transpose(0, 1, 3, 2).tobytes())
    for name in ("train_y.bin", "test_y.bin"):
        (folder / name).write_bytes(bytes([1, 2]))
    for attribute in ("train_list", "test_list"):
        monkeypatch.setattr(STL10, attribute, [[name, md5(folder / name)] for name, _ in getattr(STL10, attribute)])
    datamodule = TorchvisionDataModule("stl10", 48, tmp_path, val_size=3)
    assert sorted(reds(datamodule, "train") + reds(datamodule, "val")) == list(range(9))
    batch = next(iter(datamodule.test_dataloader()))
    assert set(batch) == {"image"}
    assert batch["image"].shape == (2, 3, 48, 48)
    assert (batch["image"][..., :10] > batch["image"][..., -10:]).all()
    assert datamodule.num_classes == 0


def test_celeba_has_its_own_validation_and_attributes(tmp_path, monkeypatch):
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{number:06}.jpg" for number in range(7)]
    for number, name in enumerate(names):
        Image.new("RGB", (178, 218), (40 * number, 0, 0)).save(folder / "img_align_celeba" / name, quality=100)
    tables = {
        "list_eval_partition.txt": [f"{name} {part}" for name, part in zip(names, [0, 0, 0, 1, 1, 2, 2], strict=True)],
        "identity_CelebA.txt": [f"{name} 1" for name in names],
        "list_bbox_celeba.txt": ["7", "image_id x", *(f"{name} 1" for name in names)],
        "list_landmarks_align_celeba.txt": ["7", "x", *(f"{name} 1" for name in names)],
        "list_attr_celeba.txt": [
            "7",
            " ".join(f"a{k}" for k in range(40)),
            *(
                f"{name} " + " ".join("1" if k == number else "-1" for k in range(40))
                for number, name in enumerate(names)
            ),
        ],
    }
    for name, lines in tables.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(CelebA, "file_list", [("", md5(folder / name), name) for name in tables])
    datamodule = TorchvisionDataModule("celeba", 16, tmp_path, batch_size=3)
    datamodule.setup()
    assert [len(datamodule.datasets[split]) for split in ("train", "val", "test")] == [3, 2, 2]
    batch = next(iter(datamodule.test_dataloader()))
    assert torch.equal(batch["attributes"], torch.eye(40, dtype=torch.long)[5:7])
    assert datamodule.condition_shapes == {"attributes": (40,)}
    assert batch["image"][:, 0].mean((1, 2)).tolist() == pytest.approx([200 / 255, 240 / 255], abs=0.01)


def test_lsun_is_read_from_its_database(tmp_path):
    lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed")
    for split, size in (("train", 8), ("val", 3)):
        with (
            lmdb.open(str(tmp_path / f"tower_{split}_lmdb"), map_size=2**24) as database,
            database.begin(write=True) as t,
        ):
            for number in range(size):
                file = BytesIO()
                Image.new("RGB", (90, 70), (20 * number, 0, 0)).save(file, "webp", lossless=True)
                t.put(f"{number:03}".encode(), file.getvalue())
        (tmp_path / f"tower_{split}_lmdb" / "lock.mdb").unlink()
    for path in tmp_path.glob("*"):
        path.chmod(0o555)
    datamodule = TorchvisionDataModule("lsun", 32, tmp_path, val_size=2, category="tower", num_workers=1)
    assert sorted(reds(datamodule, "train") + reds(datamodule, "val")) == [20 * number for number in range(8)]
    (batch,) = datamodule.test_dataloader()  # In a worker.
    assert batch["image"].shape == (3, 3, 32, 32)
    assert not list(tmp_path.rglob("lock.mdb"))
    for path in tmp_path.glob("*"):
        path.chmod(0o755)


def test_svhn_is_downloaded_whole_or_not_at_all(svhn, tmp_path_factory, monkeypatch):
    """torchvision checks the sums of what it fetches; here its fetching copies files made before."""
    root = tmp_path_factory.mktemp("empty") / "below"

    def copy(url, folder, filename, md5):
        Path(folder, filename).write_bytes((svhn / filename).read_bytes())

    monkeypatch.setattr("torchvision.datasets.svhn.download_url", copy)
    datamodule = TorchvisionDataModule("svhn", 32, root, val_size=6, download=True)
    datamodule.prepare_data()
    assert sorted(path.name for path in root.iterdir()) == ["test_32x32.mat", "train_32x32.mat"]
    assert sorted(reds(datamodule, "train") + reds(datamodule, "val")) == list(range(20))

    def fail(*arguments):
        raise AssertionError("it is there already")

    monkeypatch.setattr("torchvision.datasets.svhn.download_url", fail)
    TorchvisionDataModule("svhn", 32, root, download=True).prepare_data()


@pytest.mark.parametrize("name", ["svhn", "stl10", "celeba", "lsun", "imagenet"])
def test_without_a_network_a_download_is_one_line(name, tmp_path, monkeypatch):
    def refuse(*arguments, **settings):
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("torchvision.datasets.celeba.download_file_from_google_drive", refuse)
    what = "could not be downloaded" if name in ("svhn", "stl10", "celeba") else "or get it from https"
    with pytest.raises(DatasetNotFoundError, match=what) as error:
        TorchvisionDataModule(name, root=tmp_path, download=True).prepare_data()
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_picture_is_named_first(tmp_path, num_workers):
    lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed")
    file = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, "jpeg")
    for split in ("train", "val"):
        with (
            lmdb.open(str(tmp_path / f"bedroom_{split}_lmdb"), map_size=2**24) as database,
            database.begin(write=True) as t,
        ):
            for number in range(3):
                t.put(f"k{number}".encode(), file.getvalue()[: 1000 if number == 1 else None])
    datamodule = TorchvisionDataModule("lsun", 32, tmp_path, val_size=0, num_workers=num_workers)
    with pytest.raises(DataError, match=r"^\S*bedroom_val_lmdb under the key k1 cannot be read as a picture") as error:
        list(datamodule.test_dataloader())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("svhn", "give --data.download true"),
        ("stl10", "give --data.download true"),
        ("celeba", "give --data.download true"),
        ("lsun", r"bedroom_train_lmdb.data\.mdb.*https://www\.yf\.io/p/lsun"),
        ("imagenet", r"ILSVRC2012.*https://image-net\.org, on request"),
    ],
)
def test_missing_sets_name_folder_and_remedy(tmp_path, name, remedy):
    with pytest.raises(DatasetNotFoundError, match=remedy) as error:
        TorchvisionDataModule(name, root=tmp_path).setup()
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments(svhn):
    with pytest.raises(DataError, match="name='cifar'; expected one of svhn, stl10, celeba"):
        TorchvisionDataModule("cifar")
    with pytest.raises(DataError, match="image_size=0"):
        TorchvisionDataModule("svhn", 0)
    with pytest.raises(DataError, match="val_size is 20, and svhn has 20 training pictures"):
        TorchvisionDataModule("svhn", 32, svhn, val_size=20).setup()
