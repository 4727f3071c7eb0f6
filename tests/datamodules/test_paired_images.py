"""Pairs of pictures from real files, in both layouts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lightning_gen.datamodules import EdgesToDigitsDataModule, PairedImageDataModule
from lightning_gen.datamodules.edges_to_digits import edges
from lightning_gen.errors import DataError, DatasetNotFoundError


def coordinates(size: int, blue: int) -> np.ndarray:
    """A picture whose red is its column and whose green is its row; blue tells A from B."""
    rows, columns = np.mgrid[:size, :size]
    return np.stack([columns, rows, np.full_like(rows, blue)], -1).astype(np.uint8)


@pytest.fixture(params=["side_by_side", "parallel"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Three training and two test pairs of 64 x 64."""
    a, b = coordinates(64, 10), coordinates(64, 200)
    for split, number in {"train": 3, "test": 2}.items():
        for name in map(str, range(number)):
            if request.param == "side_by_side":
                save(np.concatenate([a, b], 1), tmp_path / split / f"{name}.png")
            else:
                save(a, tmp_path / "A" / split / f"{name}.png")
                save(b, tmp_path / "B" / split / f"{name}.bmp")
    return tmp_path


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def blue(images: Tensor) -> set[int]:
    return set((255 * images[:, 2]).round().int().flatten().tolist())


@pytest.mark.parametrize("direction", ["a_to_b", "b_to_a"])
def test_the_direction_says_which_is_the_source(folder: Path, direction: str) -> None:
    data = PairedImageDataModule(str(folder), direction, image_size=64, load_size=None, flip=False, batch_size=2)
    data.setup()
    assert {split: len(dataset) for split, dataset in data.datasets.items()} == {"train": 3, "val": 0, "test": 2}
    (batch,) = data.test_dataloader()
    assert batch["image"].shape == (2, *data.image_shape) == (2, 3, 64, 64)
    assert batch["source"].shape[1:] == data.condition_shapes["source"]
    expected = {"source": {10}, "image": {200}} if direction == "a_to_b" else {"source": {200}, "image": {10}}
    assert {key: blue(batch[key]) for key in expected} == expected
    assert data.val_dataloader() == []


def test_splits_by_their_other_names(folder: Path) -> None:
    for path in [folder, folder / "A", folder / "B"]:
        if (path / "train").is_dir():
            (path / "train").rename(path / "Training")
            (path / "test").rename(path / "TEST")
    data = PairedImageDataModule(str(folder), image_size=64, load_size=None)
    data.setup()
    assert {split: len(dataset) for split, dataset in data.datasets.items()} == {"train": 3, "val": 0, "test": 2}


def test_both_are_moved_and_mirrored_together(folder: Path) -> None:
    """Red and green of both pictures are the same coordinates, wherever they were cut out."""
    torch.manual_seed(0)
    data = PairedImageDataModule(str(folder), image_size=40, load_size=64, batch_size=3)
    assert data.draws
    seen = []
    for _ in range(8):
        (batch,) = data.train_dataloader()
        torch.testing.assert_close(batch["source"][:, :2], batch["image"][:, :2], rtol=0, atol=0)
        seen += [tuple((255 * image[:2, 0, 0]).round().int().tolist()) for image in batch["image"]]
        steps = (255 * (batch["image"][:, 0, 0, 1] - batch["image"][:, 0, 0, 0])).round()
        assert set(steps.tolist()) <= {1.0, -1.0}
    columns, rows = zip(*seen, strict=True)
    assert max(rows) <= 24
    assert len(set(rows)) > 5
    assert any(column < 25 for column in columns)
    assert any(column >= 39 for column in columns)  # Mirrored: the first column is the last of the square.


def test_held_out_pairs_are_whole(folder: Path) -> None:
    data = PairedImageDataModule(str(folder), image_size=32, load_size=48, batch_size=2)
    data.setup()
    (first,), (second,) = data.test_dataloader(), data.test_dataloader()
    assert torch.equal(first["image"], second["image"])
    assert 255 * first["image"][0, 0].max() > 60


def test_grey_and_colour(folder: Path) -> None:
    data = PairedImageDataModule(str(folder), image_size=32, source_channels=1, batch_size=2)
    data.setup()
    (batch,) = data.test_dataloader()
    assert batch["source"].shape == (2, 1, 32, 32)
    assert batch["image"].shape == (2, 3, 32, 32)


def test_sources_to_predict_keep_their_sizes(folder: Path, tmp_path: Path) -> None:
    save(coordinates(48, 7)[:32], tmp_path / "inputs" / "wide.png")
    save(coordinates(16, 7), tmp_path / "inputs" / "small.png")
    data = PairedImageDataModule("nowhere", predict_dir=str(tmp_path / "inputs"))
    data.setup("predict")
    assert [tuple(batch["source"].shape) for batch in data.predict_dataloader()] == [(1, 3, 16, 16), (1, 3, 32, 48)]
    with pytest.raises(DatasetNotFoundError, match="no pictures to translate"):
        PairedImageDataModule(str(folder), predict_dir=str(tmp_path / "nothing")).predict_dataloader()


def test_faults_are_named(tmp_path: Path) -> None:
    def read() -> None:
        data = PairedImageDataModule(str(tmp_path), image_size=32, load_size=None)
        data.setup()
        list(data.train_dataloader())

    with pytest.raises(DatasetNotFoundError, match="has no training pairs"):
        read()
    save(coordinates(33, 0), tmp_path / "train" / "odd.png")
    with pytest.raises(DataError, match=r"odd.png is 33 pixels wide, an odd number"):
        read()
    (tmp_path / "train" / "odd.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"odd.png cannot be read"):
        read()
    save(coordinates(32, 0), tmp_path / "a" / "train" / "one.png")
    with pytest.raises(DataError, match=r"one.png has no partner of the same name in the other folder \(1"):
        read()
    save(coordinates(30, 0), tmp_path / "b" / "train" / "one.png")
    with pytest.raises(DataError, match=r"32 x 32 pixels and its partner .*30 x 30"):
        read()
    with pytest.raises(DatasetNotFoundError, match="is not a folder"):
        PairedImageDataModule(str(tmp_path / "nowhere")).setup()


@pytest.mark.parametrize("arguments", [{"image_size": 0}, {"channels": 2}, {"image_size": 64, "load_size": 60}])
def test_impossible_settings_are_refused(arguments: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(DataError):
        PairedImageDataModule(str(tmp_path), **arguments)


# Edges --------------------------------------------------------------------------------------------------------------


def test_edges_of_a_square_are_its_outline() -> None:
    """One pixel wide on every side, nothing inside and nothing outside."""
    images = torch.zeros(1, 1, 20, 20)
    images[..., 5:15, 6:14] = 1
    found = edges(images)[0, 0]
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert not found[7:13, 8:12].any()
    assert not found[:3].any()
    assert not found[:, :4].any()
    assert found[8:12].sum(1).tolist() == [2] * 4
    assert found[:, 9:11].sum(0).tolist() == [2] * 2
    assert not edges(torch.full((1, 1, 9, 9), 0.7)).any()
    torch.testing.assert_close(edges(images.transpose(2, 3)), edges(images).transpose(2, 3))


def test_digits_and_their_edges() -> None:
    data = EdgesToDigitsDataModule(image_size=48, classes=[3, 8], batch_size=50)
    data.setup()
    batch = next(iter(data.test_dataloader()))
    assert batch["image"].shape == batch["source"].shape == (50, 1, 48, 48)
    assert set(batch["label"].tolist()) == {3, 8}
    torch.testing.assert_close(batch["source"], edges(batch["image"]))
    assert data.condition_shapes == {"source": (1, 48, 48), "label": ()}
    with pytest.raises(DataError, match="expected no less"):
        EdgesToDigitsDataModule(image_size=20)
