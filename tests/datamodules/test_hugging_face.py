"""Data sets in the formats of the Hugging Face hub, from files written here."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from lightning_gen.datamodules import HuggingFaceDataModule
from lightning_gen.errors import DataError, DatasetNotFoundError

from .test_base import PixelMean, fit

datasets = pytest.importorskip("datasets", reason="pip install 'lightning_gen[data]'")
NAMES = ["even", "odd"]


@pytest.fixture(autouse=True)
def quiet(tmp_path, monkeypatch):
    """No progress bars, no network, and the cache of this test alone."""
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def picture(number: int) -> dict:
    file = io.BytesIO()
    Image.new("RGB", (12, 8), (number, 0, 0)).save(file, "png")
    return {"bytes": file.getvalue(), "path": None}


def rows(count: int = 20, typed: bool = True, first: int = 0):
    """Pictures whose red is their number, with a class and a caption each."""
    columns = {
        "img": [picture(first + i) for i in range(count)],
        "parity": [i % 2 for i in range(count)],
        "kind": [NAMES[i % 2] for i in range(count)],
        "text": [f"number {first + i}" for i in range(count)],
        "url": ["nothing"] * count,
    }
    features = {
        "img": datasets.Image(),
        "parity": datasets.ClassLabel(names=NAMES),
        **{name: datasets.Value("string") for name in ("kind", "text", "url")},
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features) if typed else None)


COLUMNS = {"image_column": "img", "label_column": "parity", "caption_column": "text", "image_size": [4, 6]}


def reds(dataset) -> list[int]:
    batch = dataset.__getitems__(range(len(dataset))) if hasattr(dataset, "__len__") else None
    images = torch.cat([row["image"] for row in dataset]) if batch is None else batch["image"]
    return (255 * images[:, 0, 0, 0]).round().int().tolist()


def saved(form: str, folder: Path) -> Path:
    if form == "parquet":
        rows().to_parquet(folder / "rows.parquet")
        return folder / "rows.parquet"
    if form == "bare parquet":
        rows(typed=False).to_parquet(folder / "rows.parquet")
        return folder / "rows.parquet"
    rows().save_to_disk(folder / "disk")
    return folder / "disk"


@pytest.mark.parametrize("form", ["parquet", "bare parquet", "disk"])
def test_rows_are_read_and_missing_splits_drawn(form, tmp_path):
    data = HuggingFaceDataModule(str(saved(form, tmp_path)), batch_size=30, **COLUMNS)
    assert data.num_classes == 2  # Before setup.
    assert data.class_names == ([] if form == "bare parquet" else NAMES)
    data.setup()
    parts = [reds(data.datasets[split]) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [16, 2, 2]
    assert sorted([*parts[0], *parts[1], *parts[2]]) == list(range(20))
    again = HuggingFaceDataModule(str(saved(form, tmp_path / "again")), **COLUMNS) if form == "disk" else data
    again.setup()
    assert reds(again.datasets["val"]) == parts[1]
    (batch,) = data.train_dataloader()
    assert batch["image"].shape[1:] == data.image_shape == (3, 4, 6)
    numbers = (255 * batch["image"][:, 0, 0, 0]).round().long()
    assert torch.equal(batch["label"], numbers % 2)
    assert batch["caption"] == [[f"number {number}"] for number in numbers.tolist()]
    assert set(batch) == {"image", "label", "caption"}


def test_splits_by_their_usual_names_or_those_given(tmp_path):
    parts = {"train": rows(6), "validation": rows(2, first=10), "testing": rows(3, first=20)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "disk")
    data = HuggingFaceDataModule(str(tmp_path / "disk"), **COLUMNS)
    data.setup()
    assert [reds(data.datasets[split])[0] // 10 for split in ("val", "test")] == [1, 2]
    assert len(data.datasets["train"]) == 6
    named = HuggingFaceDataModule(str(tmp_path / "disk"), splits={"train": "testing", "val": "train"}, **COLUMNS)
    named.setup()
    assert sorted(reds(named.datasets["train"])) == [20, 21, 22]
    assert len(named.datasets["val"]) == 6
    with pytest.raises(DataError, match="has the splits train, validation, testing, and not dev; name them by splits"):
        HuggingFaceDataModule(str(tmp_path / "disk"), splits={"train": "dev"}, **COLUMNS).setup()


@pytest.mark.parametrize("form", ["parquet", "disk"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_stream_is_mixed_and_ends(form, num_workers, tmp_path):
    path = str(saved(form, tmp_path))
    data = HuggingFaceDataModule(path, streaming=True, batch_size=8, num_workers=num_workers, **COLUMNS)
    data.setup("fit")
    assert data.summary == "a stream of training, 0 validation, 0 test pictures; 2 classes: even, odd"
    assert data.val_dataloader() == []

    def epoch(seed):
        torch.manual_seed(seed)
        batches = list(data.train_dataloader())
        assert [len(batch["image"]) for batch in batches] == [8, 8, 4]
        numbers = (255 * torch.cat([batch["image"][:, 0, 0, 0] for batch in batches])).round().int().tolist()
        captions = [caption for batch in batches for caption in batch["caption"]]
        assert captions == [[f"number {number}"] for number in numbers]
        return numbers

    first = epoch(0)
    assert sorted(first) == list(range(20)) != first
    assert epoch(0) == first != epoch(1)
    ordered = HuggingFaceDataModule(path, streaming=True, shuffle_buffer=0, classes=[1], **COLUMNS)
    assert reds_of(ordered.train_dataloader()) == list(range(1, 20, 2))


def reds_of(loader) -> list[int]:
    return (255 * torch.cat([batch["image"][:, 0, 0, 0] for batch in loader])).round().int().tolist()


def test_classes_by_texts_and_numbers(tmp_path):
    path = str(saved("parquet", tmp_path))
    for column in ("parity", "kind"):
        data = HuggingFaceDataModule(path, classes=[1], **COLUMNS | {"label_column": column})
        assert data.class_names == NAMES
        data.setup()
        assert all(red % 2 for split in data.datasets.values() for red in reds(split))
    with pytest.raises(DataError, match=r"column kind of .* does not say how many labels"):
        HuggingFaceDataModule(path, streaming=True, **COLUMNS | {"label_column": "kind"}).setup()


@pytest.mark.parametrize("streaming", [False, True])
def test_trains_and_is_made_again_from_a_checkpoint(streaming, tmp_path):
    data = HuggingFaceDataModule(str(saved("parquet", tmp_path)), streaming=streaming, batch_size=5, **COLUMNS)
    trainer = fit(data, tmp_path, PixelMean((3, 4, 6)))
    assert trainer.global_step == 4
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    loaded = HuggingFaceDataModule.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert loaded.image_shape == (3, 4, 6)


def test_what_is_wrong_is_one_line(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"nobody/nothing could not be opened .*needs the network") as error:
        HuggingFaceDataModule("nobody/nothing").setup()
    assert "\n" not in str(error.value)
    path = str(saved("parquet", tmp_path))
    with pytest.raises(
        DataError, match="has the columns img, parity, kind, text, url, and no image; give image_column"
    ):
        HuggingFaceDataModule(path).setup()
    with pytest.raises(DataError, match="splits="):
        HuggingFaceDataModule(path, splits={"test": "test"})
    broken = rows(4, typed=False).to_dict()
    broken["img"][2]["bytes"] = b"nothing"
    datasets.Dataset.from_dict(broken).to_parquet(tmp_path / "broken.parquet")
    data = HuggingFaceDataModule(str(tmp_path / "broken.parquet"), val_fraction=0, test_fraction=0, **COLUMNS)
    data.setup()
    with pytest.raises(DataError, match=r"^.*broken\.parquet, row \d, cannot be read as a picture"):
        data.datasets["train"].__getitems__(range(4))
