"""MNIST: archives made here for what can go wrong, the real ones where LIGHTNING_GEN_DATA has them."""

import gzip
import os
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_gen.datamodules import MNISTDataModule, mnist
from lightning_gen.datamodules.mnist import read_amat, read_idx
from lightning_gen.errors import DataError, DatasetNotFoundError

from .test_base import fit

DATA = Path(os.environ.get("LIGHTNING_GEN_DATA", "data"))
needs_mnist = pytest.mark.skipif(
    not (DATA / "MNIST" / "raw").is_dir(), reason="LIGHTNING_GEN_DATA names no folder with MNIST/raw"
)
needs_fixed = pytest.mark.skipif(
    not (DATA / "binarized_mnist").is_dir(), reason="LIGHTNING_GEN_DATA names no folder with binarized_mnist"
)


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), compresslevel=1))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set of MNIST's sizes whose first four pixels spell the image's number, and label is its last digit."""
    raw = tmp_path_factory.mktemp("made") / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, size in (("train", 60000), ("t10k", 10000)):
        images = np.zeros((size, 28, 28), dtype=np.uint8)
        images[:, 0, :4] = np.arange(size, dtype=">u4").view(np.uint8).reshape(-1, 4)
        write_idx(raw / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(raw / f"{part}-labels-idx1-ubyte.gz", (np.arange(size) % 10).astype(np.uint8))
    return raw.parent.parent


@pytest.fixture
def copied(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "data"))


def numbers(datamodule, split):
    datamodule.setup()
    pixels = datamodule.datasets[split].columns["image"][:, 0, 0, :4].long()
    return pixels @ torch.tensor([2**24, 2**16, 2**8, 1])


# Reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train_size", [50000, 55000, 60000])
def test_train_size_splits_in_file_order(made, train_size):
    datamodule = MNISTDataModule(made, train_size=train_size)
    assert torch.equal(numbers(datamodule, "train"), torch.arange(train_size))
    assert torch.equal(numbers(datamodule, "val"), torch.arange(train_size, 60000))
    assert torch.equal(numbers(datamodule, "test"), torch.arange(10000))
    for dataset in datamodule.datasets.values():
        rows = dataset.columns
        assert torch.equal(rows["label"], (rows["image"][:, 0, 0, :4].long() @ torch.tensor([6, 6, 6, 1])) % 10)


def test_all_60000_train_without_validation(made, tmp_path):
    datamodule = MNISTDataModule(made, train_size=60000, batch_size=30000)
    assert datamodule.val_dataloader() == []
    assert fit(datamodule, tmp_path).global_step == 2


def test_a_read_only_root_is_enough(copied):
    for path in [*copied.rglob("*"), copied]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(copied.rglob("*"))
    MNISTDataModule(copied).setup()
    assert sorted(copied.rglob("*")) == before
    for path in [copied, *copied.rglob("*")]:
        path.chmod(0o755)


def test_unpacked_files_are_read_too(copied):
    for archive in (copied / "MNIST" / "raw").glob("*.gz"):
        archive.with_suffix("").write_bytes(gzip.decompress(archive.read_bytes()))
        archive.unlink()
    assert torch.equal(numbers(MNISTDataModule(copied), "test"), torch.arange(10000))


@needs_mnist
def test_reader_agrees_with_torchvision(tmp_path):
    from torchvision.datasets import MNIST

    shutil.copytree(DATA / "MNIST", tmp_path / "MNIST")
    (tmp_path / "MNIST").chmod(0o755)
    (tmp_path / "MNIST" / "raw").chmod(0o755)
    datamodule = MNISTDataModule(DATA)
    datamodule.setup()
    train, val, test = (datamodule.datasets[split].columns for split in ("train", "val", "test"))
    reference = MNIST(tmp_path, train=True, download=True)  # Unpacks; the archives are there.
    assert torch.equal(torch.cat([train["image"], val["image"]])[:, 0], reference.data)
    assert torch.equal(torch.cat([train["label"], val["label"]]), reference.targets)
    reference = MNIST(tmp_path, train=False)
    assert torch.equal(test["image"][:, 0], reference.data)
    assert torch.equal(test["label"], reference.targets)
    assert train["label"][:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert test["label"].bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert (train["image"] / 255).mean() == pytest.approx(0.1307, abs=0.0005)


@needs_mnist
def test_binary_pixels_have_the_grey_mean():
    grey, binary = (
        MNISTDataModule(DATA, batch_size=10000),
        MNISTDataModule(DATA, batch_size=10000, binarization="dynamic"),
    )
    for split in ("train", "val", "test"):
        ours, theirs = (next(iter(getattr(d, f"{split}_dataloader")())) for d in (binary, grey))
        assert set(ours["image"].unique().tolist()) == {0, 1}
        assert ours["image"].mean() == pytest.approx(theirs["image"].mean().item(), abs=0.002)
    pixelwise = ours["image"].mean(0) - theirs["image"].mean(0)  # The same test images in the same order.
    assert pixelwise.abs().max() < 0.02


# The fixed binarisation -----------------------------------------------------------------------------------------


@needs_fixed
def test_fixed_split():
    datamodule = MNISTDataModule(DATA, binarization="fixed")
    datamodule.setup()
    assert {split: len(dataset) for split, dataset in datamodule.datasets.items()} == {
        "train": 50000, "val": 10000, "test": 10000,
    }  # fmt: skip
    packed = np.load(DATA / "binarized_mnist" / "binarized_mnist_packed.npz")
    bits = np.unpackbits(packed["valid"], axis=1)[:, :784]
    images = torch.cat([batch["image"] for batch in datamodule.val_dataloader()])
    assert torch.equal(images, torch.from_numpy(bits).view(-1, 1, 28, 28).float())
    assert datamodule.num_classes == 10
    train = datamodule.datasets["train"].columns
    assert train["label"].bincount(minlength=10).min() > 4000
    assert (train["image"] / 255).mean() == pytest.approx(0.1315, abs=0.003)
    first, second = (order["image"] for order in (datamodule.datasets["train"][0], datamodule.datasets["train"][0]))
    assert torch.equal(first, second)


@needs_fixed
@needs_mnist
def test_fixed_labels_belong_to_their_images():
    datamodule = MNISTDataModule(DATA, binarization="fixed")
    datamodule.setup()
    grey = MNISTDataModule(DATA)
    grey.setup()
    grey = grey.datasets["train"].columns
    means = torch.stack([grey["image"][grey["label"] == k].float().mean(0).flatten() for k in range(10)])
    test = datamodule.datasets["test"].columns
    nearest = torch.cdist(test["image"].flatten(1).float(), means).argmin(1)
    assert (nearest == test["label"]).float().mean() > 0.75  # 82 % is what class means reach on MNIST.


@needs_fixed
def test_fixed_text_files_equal_the_packed_one(tmp_path):
    folder = tmp_path / "binarized_mnist"
    folder.mkdir()
    packed = np.load(DATA / "binarized_mnist" / "binarized_mnist_packed.npz")
    for part in ("train", "valid", "test"):
        bits = np.unpackbits(packed[part], axis=1)[:, :784]
        text = np.full((len(bits), 1568), ord(" "), dtype=np.uint8)
        text[:, ::2] = bits + ord("0")
        text[:, -1] = ord("\n")
        text.tofile(folder / f"binarized_mnist_{part}.amat")
    from_text = MNISTDataModule(tmp_path, binarization="fixed")
    from_text.setup()
    reference = MNISTDataModule(DATA, binarization="fixed")
    reference.setup()
    for split, dataset in from_text.datasets.items():
        assert torch.equal(dataset.columns["image"], reference.datasets[split].columns["image"])
    assert from_text.num_classes == 0
    assert set(next(iter(from_text.train_dataloader()))) == {"image"}
    with pytest.raises(DataError, match="no labels"):
        MNISTDataModule(tmp_path, binarization="fixed", classes=[1]).setup()


def test_text_file_with_anything_else(tmp_path):
    path = tmp_path / "binarized_mnist_train.amat"
    path.write_text(" ".join(["0"] * 783 + ["1"]) + "\n")
    assert read_amat(path).sum() == 1
    for content in (" ".join(["0"] * 783), " ".join(["0"] * 783 + ["2"]), ""):
        path.write_text(content)
        with pytest.raises(DataError, match=r"binarized_mnist_train\.amat"):
            read_amat(path)


def test_fixed_refuses_another_split():
    with pytest.raises(DataError, match="train_size is 55000; binarization=fixed"):
        MNISTDataModule(binarization="fixed", train_size=55000)


def test_damaged_packed_file(tmp_path):
    path = tmp_path / "binarized_mnist" / "binarized_mnist_packed.npz"
    path.parent.mkdir()
    np.savez(path, train=np.zeros((5, 98), np.uint8), valid=np.zeros((5, 98), np.uint8))
    with pytest.raises(DataError, match=r"binarized_mnist_packed\.npz cannot be read.*test"):
        MNISTDataModule(tmp_path, binarization="fixed").setup()
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"binarized_mnist_packed\.npz cannot be read"):
        MNISTDataModule(tmp_path, binarization="fixed").setup()
    np.savez(path, **{part: np.zeros((5, 98), np.uint8) for part in ("train", "valid", "test")})
    with pytest.raises(DataError, match="holds 5 train images; the published split has 50000"):
        MNISTDataModule(tmp_path, binarization="fixed").setup()


# What can go wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binarization", ["none", "fixed"])
def test_missing_data_names_the_path_and_the_remedies(tmp_path, binarization):
    with pytest.raises(DatasetNotFoundError) as error:
        MNISTDataModule(tmp_path, binarization=binarization).setup()
    message = str(error.value)
    assert "\n" not in message
    for part in (str(tmp_path), "download=true", "LIGHTNING_GEN_DATA", "pip install 'lightning_gen[demo]'"):
        assert part in message


def test_train_size_out_of_range():
    with pytest.raises(DataError, match="train_size is 60001"):
        MNISTDataModule(train_size=60001)


@pytest.mark.parametrize("kept", [0, 9, 20000])
def test_cut_archive_is_named(copied, kept):
    path = copied / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz") as error:
        MNISTDataModule(copied).setup()
    assert "\n" not in str(error.value)


def test_flipped_bit_in_an_archive(copied):
    path = copied / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # In the checksum.
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz is damaged"):
        MNISTDataModule(copied).setup()


@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"\0\0\x08\x01\0\0\0\x05ab", b"\0\0\x0d\x01\0\0\0\x01abcd"])
def test_unpacked_file_of_another_format(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match="file is not a whole idx file"):
        read_idx(tmp_path / "file")


def test_archives_of_other_sizes(copied):
    write_idx(copied / "MNIST" / "raw" / "train-images-idx3-ubyte.gz", np.zeros((7, 28, 28), np.uint8))
    with pytest.raises(DataError, match=r"\(7, 28, 28\); MNIST's is \(60000, 28, 28\)"):
        MNISTDataModule(copied).setup()


def test_labels_over_nine(copied):
    write_idx(copied / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz", np.full(10000, 10, np.uint8))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz"):
        MNISTDataModule(copied).setup()


# Downloads ------------------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(monkeypatch):
    """Point the downloads at a folder on this machine, or at nothing."""
    servers = []

    def serve(folder=None):
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        url = "http://127.0.0.1:9/"  # The discard port: nobody answers.
        if folder is not None:
            handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
            servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{servers[-1].server_port}/"
        monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [url])
        monkeypatch.setattr(mnist, "FIXED_URL", url)

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("binarization", ["none", "fixed"])
def test_no_network_leaves_nothing_behind(tmp_path, mirror, binarization):
    mirror()
    with pytest.raises(DatasetNotFoundError, match="could not be downloaded") as error:
        MNISTDataModule(tmp_path / "new" / "data", download=True, binarization=binarization).prepare_data()
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_is_not_as_published_leaves_nothing_behind(made, tmp_path, mirror):
    mirror(made / "MNIST" / "raw")
    with pytest.raises(DatasetNotFoundError, match="could not be downloaded"):
        MNISTDataModule(tmp_path, download=True).prepare_data()
    assert list(tmp_path.iterdir()) == []


@needs_mnist
def test_download(tmp_path, mirror):
    mirror(DATA / "MNIST" / "raw")
    datamodule = MNISTDataModule(tmp_path / "new", download=True)
    datamodule.prepare_data()
    datamodule.setup()
    assert len(datamodule.datasets["train"]) == 50000
    assert sorted(path.name for path in (tmp_path / "new").rglob("*") if path.is_file()) == sorted(
        path.name for path in (DATA / "MNIST" / "raw").iterdir()
    )
    mirror()
    MNISTDataModule(tmp_path / "new", download=True).prepare_data()  # Nothing is missing: no network needed.


def test_download_of_the_fixed_split(tmp_path, mirror):
    source = tmp_path / "source"
    source.mkdir()
    for part in ("train", "valid", "test"):
        (source / f"binarized_mnist_{part}.amat").write_text("0 1 " * 392)
    mirror(source)
    datamodule = MNISTDataModule(tmp_path / "new", download=True, binarization="fixed")
    datamodule.prepare_data()
    assert all(path.exists() for path in datamodule.amat)
    with pytest.raises(DataError, match="holds 1 train images"):
        datamodule.setup()


def test_nothing_is_downloaded_unless_asked(tmp_path, mirror):
    mirror()
    MNISTDataModule(tmp_path).prepare_data()
    assert list(tmp_path.iterdir()) == []
