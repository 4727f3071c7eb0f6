"""Flowers and COCO in their published layouts, with real digits for pictures."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lightning_gen.datamodules import CocoCaptionsDataModule, Flowers102CaptionsDataModule
from lightning_gen.errors import DataError, DatasetNotFoundError
from tests.digits import held_out_digits

SILENT = json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": None}]})


def save(path: Path, row: int) -> None:
    """A digit of 28 x 28, twice as wide as high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digit = held_out_digits()[row, 0].mul(255).byte().numpy()
    Image.fromarray(digit).convert("RGB").resize((56, 28)).save(path, quality=100)


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """24 pictures of three species, the second of which is for the test."""
    folder = tmp_path / "flowers-102"
    for number in range(1, 25):
        save(folder / "jpg" / f"image_{number:05}.jpg", number)
        text = folder / "text_c10" / f"class_{(1, 2, 102)[number % 3]:05}" / f"image_{number:05}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("".join(f"flower {number}, caption {i}\n" for i in range(10)))
    (folder / "testclasses.txt").write_text("class_00002\nclass_00050\n")
    return tmp_path


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """20 pictures to learn from and 4 for the test, with five captions each."""
    folder = tmp_path / "coco"
    for name, numbers in (("train2014", range(1, 21)), ("val2014", range(21, 25))):
        images = [{"id": 7 * number, "file_name": f"COCO_{name}_{7 * number:012}.jpg"} for number in numbers]
        annotations = [
            {"image_id": 7 * number, "id": 100 * number + i, "caption": f"picture {number}, caption {i}. \n"}
            for i in range(5)
            for number in numbers
        ]
        for number, image in zip(numbers, images, strict=True):
            save(folder / name / str(image["file_name"]), number)
        (folder / "annotations").mkdir(exist_ok=True)
        written = {"info": {}, "licenses": [], "images": images, "annotations": annotations}
        (folder / "annotations" / f"captions_{name}.json").write_text(json.dumps(written))
    return tmp_path


def number_of(captions: list[str]) -> int:
    return int(captions[0].split()[1].strip(","))


def shown(image: torch.Tensor) -> int:
    """Which digit a picture shows."""
    small = torch.nn.functional.interpolate(image[None], (28, 28), mode="bilinear", antialias=True)[0, :1]
    return int((held_out_digits()[:25] - small).square().sum((1, 2, 3)).argmin())


def test_flowers_of_the_authors_species_are_for_the_test(flowers: Path) -> None:
    data = Flowers102CaptionsDataModule(str(flowers), image_size=32, load_size=32, flip=False)
    batches: dict[str, Any] = {
        "train": next(iter(data.train_dataloader())),
        "val": next(iter(data.val_dataloader())),
        "test": next(iter(data.test_dataloader())),
    }
    numbers = {split: [number_of(row) for row in batch["caption"]] for split, batch in batches.items()}
    assert numbers["test"] == [number for number in range(1, 25) if number % 3 == 1]
    assert len(numbers["val"]) == 1
    assert sorted(number for part in numbers.values() for number in part) == list(range(1, 25))
    for split, batch in batches.items():
        assert batch["image"].shape == (len(numbers[split]), 3, 32, 32)
        assert [shown(image) for image in batch["image"]] == numbers[split]
        assert batch["label"].tolist() == [(0, 1, 101)[number % 3] for number in numbers[split]]
        assert batch["caption"][0] == [f"flower {numbers[split][0]}, caption {i}" for i in range(10)]
    some = Flowers102CaptionsDataModule(str(flowers), classes=[0])
    assert set(next(iter(some.train_dataloader()))["label"].tolist()) == {0}


def test_coco_has_captions_and_no_labels(coco: Path) -> None:
    data = CocoCaptionsDataModule(str(coco), image_size=32, load_size=32, flip=False)
    batch: Any = next(iter(data.test_dataloader()))
    assert sorted(batch) == ["caption", "image"]
    assert [number_of(row) for row in batch["caption"]] == [21, 22, 23, 24]
    assert batch["caption"][2] == [f"picture 23, caption {i}." for i in range(5)]
    assert [shown(image) for image in batch["image"]] == [21, 22, 23, 24]
    assert (len(data.datasets["train"]), len(data.datasets["val"])) == (18, 2)  # type: ignore[arg-type]
    again = CocoCaptionsDataModule(str(coco), image_size=32, load_size=32, flip=False)
    (first,), (second,) = list(data.val_dataloader()), list(again.val_dataloader())
    assert first["caption"] == second["caption"]
    assert data.condition_shapes == {}


def test_training_pictures_are_moved_and_mirrored(coco: Path) -> None:
    torch.manual_seed(0)
    data = CocoCaptionsDataModule(str(coco), image_size=24, load_size=28)
    data.setup()
    dataset: Any = data.datasets["train"]
    whole = CocoCaptionsDataModule(str(coco), image_size=28, load_size=28, flip=False)
    whole.setup()
    other: Any = whole.datasets["train"]
    original = other[0]["image"]
    cuts = {
        (top, left, mirrored): cut.flip(-1) if mirrored else cut
        for top in range(5)
        for left in range(5)
        for mirrored in (False, True)
        for cut in (original[:, top : top + 24, left : left + 24],)
    }
    seen = set()
    for _ in range(300):
        image = dataset[0]["image"]
        seen.add(next(key for key, cut in cuts.items() if torch.equal(cut, image)))
    assert len(seen) > 40  # Of 50.
    held_out: Any = data.datasets["val"]
    assert torch.equal(held_out[0]["image"], held_out[0]["image"])


def test_what_is_wrong_with_flowers_is_named(flowers: Path) -> None:
    folder = flowers / "flowers-102"
    with pytest.raises(DataError, match="image_size=64 is cut out of load_size=32"):
        Flowers102CaptionsDataModule(load_size=32)
    (folder / "testclasses.txt").write_text("class_00050\n")
    with pytest.raises(DataError, match=r"has no species of .*testclasses.txt"):
        Flowers102CaptionsDataModule(str(flowers)).setup()
    (folder / "jpg" / "image_00003.jpg").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"image_00003.jpg is not there.*text_c10"):
        Flowers102CaptionsDataModule(str(flowers)).setup()
    (folder / "text_c10" / "class_00001" / "image_00003.txt").write_text(" \n")
    with pytest.raises(DataError, match=r"image_00003.txt holds no captions"):
        Flowers102CaptionsDataModule(str(flowers)).setup()
    (folder / "testclasses.txt").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"testclasses.txt is not there"):
        Flowers102CaptionsDataModule(str(flowers)).setup()


def test_what_is_wrong_with_coco_is_named(coco: Path) -> None:
    file = coco / "coco" / "annotations" / "captions_train2014.json"
    held = json.loads(file.read_text())
    (coco / "coco" / "train2014" / "COCO_train2014_000000000014.jpg").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"COCO_train2014_000000000014.jpg is not there"):
        CocoCaptionsDataModule(str(coco)).setup()
    of_others = [row for row in held["annotations"] if row["image_id"] != 21]
    file.write_text(json.dumps({**held, "annotations": of_others}))
    with pytest.raises(DataError, match=r"has no captions of COCO_train2014_000000000021.jpg"):
        CocoCaptionsDataModule(str(coco)).setup()
    for wrong in ("{", "[]", json.dumps({"images": held["images"]}), json.dumps({**held, "images": []}), SILENT):
        file.write_text(wrong)
        with pytest.raises(DataError, match=r"captions_train2014.json cannot be read"):
            CocoCaptionsDataModule(str(coco)).setup()
    with pytest.raises(DataError, match="has no labels"):
        CocoCaptionsDataModule(str(coco), classes=[1]).setup()
    file.unlink()
    with pytest.raises(DatasetNotFoundError, match=r"captions_train2014.json is not there.*cocodataset"):
        CocoCaptionsDataModule(str(coco)).setup()
