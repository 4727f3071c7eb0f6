"""CIFAR-10: small files made here, and the packed ones where LIGHTNING_GEN_DATA has them."""

import hashlib
import pickle
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from lightning_gen.datamodules import CIFAR10DataModule
from lightning_gen.errors import DataError, DatasetNotFoundError

from .test_base import PixelMean, fit
from .test_mnist import DATA

needs_packed = pytest.mark.skipif(
    not (DATA / "cifar10").is_dir(), reason="LIGHTNING_GEN_DATA names no folder with cifar10"
)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Batches of ten images in the published layout, taken for the published ones: red is the image's number."""
    root = tmp_path / "made"
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for index, (name, _) in enumerate([*CIFAR10.train_list, *CIFAR10.test_list]):
        number = 10 * (index % 5) + np.arange(10)  # The last file holds the test images.
        pixels = np.concatenate([np.repeat(number[:, None] * k, 1024, 1) for k in (1, 2, 3)], 1).astype(np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": (number % 10).tolist()}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    for attribute in ("train_list", "test_list"):
        sums = [[name, md5(folder / name)] for name, _ in getattr(CIFAR10, attribute)]
        monkeypatch.setattr(CIFAR10, attribute, sums)
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(folder / "batches.meta")})
    return root


def test_original_files_in_their_order(made):
    datamodule = CIFAR10DataModule(made, train_size=40000)
    datamodule.setup()
    for split, first, last in (("train", 0, 40), ("val", 40, 50), ("test", 0, 10)):
        columns = datamodule.datasets[split].columns
        number = torch.arange(first, last)
        assert torch.equal(
            columns["image"].long(), (number[:, None] * torch.tensor([1, 2, 3]))[..., None, None].expand(-1, -1, 32, 32)
        )
        assert torch.equal(columns["label"], number % 10)


def test_a_read_only_root_and_a_checkpoint(made, tmp_path):
    for path in [*made.rglob("*"), made]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    datamodule = CIFAR10DataModule(made, classes=[3], train_size=45000, batch_size=2)
    fit(datamodule, tmp_path, PixelMean((3, 32, 32))).save_checkpoint(tmp_path / "x.ckpt")
    loaded = CIFAR10DataModule.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    loaded.setup()
    assert loaded.datasets["train"].columns["image"][:, 0, 0, 0].tolist() == [3, 13, 23, 33, 43]
    for path in [made, *made.rglob("*")]:
        path.chmod(0o755)


def test_a_pickle_that_is_not_the_published_one_is_not_read(made):
    class Payload:
        def __reduce__(self):
            return open, (str(made / "marker"), "w")

    (made / "cifar-10-batches-py" / "data_batch_2").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(DataError, match="other files than the published ones"):
        CIFAR10DataModule(made).setup()
    assert not (made / "marker").exists()


def test_missing_files_and_wrong_sizes(tmp_path):
    for pixels, name in (("original", "cifar-10-batches-py"), ("jpeg", "cifar10_jpeg.npz"), ("subset", "subset.npz")):
        with pytest.raises(DatasetNotFoundError, match=f"{name} and is not there; set download=true"):
            CIFAR10DataModule(tmp_path, pixels=pixels).setup()
    with pytest.raises(DataError, match="train_size is 50001"):
        CIFAR10DataModule(train_size=50001)
    (tmp_path / "cifar10").mkdir()
    arrays = {
        f"{part}_{key}": np.zeros((3, 3, 9, 9), np.uint8) for part in ("train", "test") for key in ("images", "labels")
    }
    np.savez(tmp_path / "cifar10" / "cifar10_exact_subset.npz", **arrays)
    with pytest.raises(DataError, match=r"does not hold images of \(3, 32, 32\)"):
        CIFAR10DataModule(tmp_path, pixels="subset").setup()


def test_download(made, tmp_path, monkeypatch):
    """The archive comes from a server on this machine."""
    archive = tmp_path / "cifar.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(made / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/cifar.tar.gz")
        monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
        datamodule = CIFAR10DataModule(tmp_path / "new" / "data", download=True)
        datamodule.prepare_data()
        server.shutdown()
    datamodule.setup()
    assert [path.name for path in datamodule.root.iterdir()] == ["cifar-10-batches-py"]
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/")  # The discard port: nobody answers.
    datamodule.prepare_data()  # Nothing is missing: no network needed.
    with pytest.raises(DatasetNotFoundError, match="CIFAR-10 could not be downloaded"):
        CIFAR10DataModule(tmp_path / "other", download=True).prepare_data()
    assert not (tmp_path / "other").exists()


@needs_packed
def test_packed_forms_hold_the_same_pictures(monkeypatch):
    """The lossy pixels differ from the exact ones of the same place by little, and say that they are lossy."""
    exact = CIFAR10DataModule(DATA, pixels="subset")
    exact.setup()
    assert [len(exact.datasets[split]) for split in ("train", "val", "test")] == [4576, 509, 1017]
    read = CIFAR10DataModule._read
    monkeypatch.setattr(CIFAR10DataModule, "_read", lambda self, part: read(self, "test"))  # A fifth of the time.
    lossy = CIFAR10DataModule(DATA, pixels="jpeg")
    with pytest.warns(UserWarning, match="do not belong beside published ones"):
        lossy.setup()
    assert len(lossy.datasets["test"]) == 10000
    index = torch.from_numpy(np.load(exact.path)["test_index"])
    ours, theirs = exact.datasets["test"].columns, lossy.datasets["test"].columns
    assert torch.equal(theirs["label"][index], ours["label"])
    error = (theirs["image"][index].float() - ours["image"].float()).square().mean()
    assert 1 < error.sqrt() < 12
