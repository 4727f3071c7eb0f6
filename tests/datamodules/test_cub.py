"""Birds: the real ones where LIGHTNING_GEN_DATA has them, and a small tree made here."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from lightning_gen.datamodules import CUBDataModule
from lightning_gen.errors import DataError, DatasetNotFoundError

from .test_mnist import DATA

needs_birds = pytest.mark.skipif(
    not (DATA / "CUB_200_2011").is_dir(), reason="LIGHTNING_GEN_DATA names no folder with CUB_200_2011"
)
PARTS = ["back", "left eye", "right eye"]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """40 pictures of 40 x 20 pixels of two species, each with a white box and its parts at the box's corners."""
    folder = tmp_path / "CUB_200_2011"
    (folder / "parts").mkdir(parents=True)
    tables: dict[str, list[str]] = {name: [] for name in ("images", "image_class_labels", "bounding_boxes")}
    tables |= {"train_test_split": [], "parts/part_locs": []}
    for number in range(1, 41):
        species = f"00{1 + number % 2}.Bird"
        path, x, y = f"{species}/bird_{number}.jpg", 4 + number % 8, 4
        picture = Image.new("RGB", (40, 20))
        picture.paste((255, 255, 255), (x, y, x + 20, y + 10))
        (folder / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / "images" / path, quality=95)
        text = tmp_path / "text_c10" / f"{species}/bird_{number}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("".join(f"bird {number}, caption {i}\n" for i in range(10)))
        tables["images"].append(f"{number} {path}")
        tables["image_class_labels"].append(f"{number} {1 + number % 2}")
        tables["bounding_boxes"].append(f"{number} {x} {y} 20.0 10.0")
        tables["train_test_split"].append(f"{number} {int(number > 10)}")
        tables["parts/part_locs"] += [f"{number} 1 0.0 0.0 0", f"{number} 2 {x} {y} 1", f"{number} 3 {x + 20} {y} 1"]
    tables["parts/parts"] = [f"{index} {name}" for index, name in enumerate(PARTS, start=1)]
    for name, lines in tables.items():
        (folder / f"{name}.txt").write_text("\n".join(lines))
    return tmp_path


def number_of(captions: list[str]) -> int:
    return int(captions[0].split()[1].strip(","))


def white_box(image: Tensor) -> Tensor:
    """Left, top, width, height of what is white, in shares of the square."""
    white = image[0] > 0.5
    (rows,), (columns,) = white.any(1).nonzero(as_tuple=True), white.any(0).nonzero(as_tuple=True)
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    return torch.stack(box) / image.shape[-1]


def test_published_split(made: Path) -> None:
    data = CUBDataModule(made, image_size=32, load_size=40)
    data.setup()
    numbers = {
        split: [number_of(row) for row in dataset.columns["caption"]] for split, dataset in data.datasets.items()
    }
    assert numbers["test"] == list(range(1, 11))
    assert len(numbers["val"]) == 3
    assert sorted(numbers["train"] + numbers["val"]) == list(range(11, 41))
    for dataset in data.datasets.values():
        assert dataset.columns["label"].tolist() == [number_of(row) % 2 for row in dataset.columns["caption"]]
        assert {len(row) for row in dataset.columns["caption"]} == {10}
    again = CUBDataModule(made, image_size=32, load_size=40)
    again.setup()
    assert again.datasets["train"].columns["caption"] == data.datasets["train"].columns["caption"]


def test_species_that_no_training_image_shows(made: Path) -> None:
    (made / "CUB_200_2011" / "testclasses.txt").write_text("002.Bird\n150.Bird\n")
    data = CUBDataModule(made, split="zero_shot")
    data.setup()
    assert {split: dataset.columns["label"].unique().tolist() for split, dataset in data.datasets.items()} == {
        "train": [0],
        "val": [0],
        "test": [1],
    }
    (made / "CUB_200_2011" / "testclasses.txt").write_text("150.Bird\n")
    with pytest.raises(DataError, match=r"none of the 1 species in testclasses.txt.*split=official"):
        CUBDataModule(made, split="zero_shot").setup()


def test_boxes_and_keypoints_go_with_the_pixels(made: Path) -> None:
    torch.manual_seed(0)
    data = CUBDataModule(made, image_size=48, load_size=64, batch_size=27)
    moved = set()
    for _ in range(4):
        batch: Any = next(iter(data.train_dataloader()))
        assert batch["image"].shape == (27, 3, 48, 48)
        for image, box, keypoints in zip(batch["image"], batch["box"], batch["keypoints"], strict=True):
            torch.testing.assert_close(box, white_box(image), rtol=0, atol=2.1 / 48)
            assert box[2:].min() > 0
            assert (box[:2] + box[2:]).max() <= 1
            back, left, right = keypoints
            assert not back.any()
            for eye, x in ((left, box[0]), (right, box[0] + box[2])):  # The left one is on the left in every mirror.
                if eye[2]:
                    torch.testing.assert_close(eye[:2], torch.stack([x, box[1]]))
                else:
                    assert not eye.any()
            moved.add(tuple(box.tolist()))
    assert len(moved) > 60


def test_held_out_birds_stay_as_they_are(made: Path) -> None:
    data = CUBDataModule(made, image_size=40, load_size=64)
    (batch,) = data.test_dataloader()
    x = torch.tensor([4 + number % 8 for number in range(1, 11)]) / 40
    expected = torch.stack([x, torch.full_like(x, 0.2), torch.full_like(x, 0.5), torch.full_like(x, 0.5)], 1)
    torch.testing.assert_close(batch["box"], expected)
    torch.testing.assert_close(batch["keypoints"][:, 1, :2], expected[:, :2])
    data = CUBDataModule(made, image_size=40, load_size=40, flip=False, classes=[1])
    (batch,) = data.train_dataloader()
    assert set(batch["label"].tolist()) == {1}
    assert not data.draws


def test_what_is_wrong_is_named(made: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"images.txt is not there.*text_c10"):
        CUBDataModule(tmp_path / "nowhere").setup()
    with pytest.raises(DataError, match="image_size=64 is cut out of load_size=32"):
        CUBDataModule(made, load_size=32)
    caption = made / "text_c10" / "002.Bird" / "bird_1.txt"
    caption.write_text("\n")
    with pytest.raises(DataError, match=r"bird_1.txt holds no captions"):
        CUBDataModule(made).setup()
    caption.unlink()
    with pytest.raises(DatasetNotFoundError, match=r"bird_1.txt is not there"):
        CUBDataModule(made).setup()
    (made / "CUB_200_2011" / "images" / "002.Bird" / "bird_3.jpg").write_bytes(b"no picture")
    caption.write_text("a bird\n")
    with pytest.raises(DataError, match=r"bird_3.jpg cannot be read"):
        CUBDataModule(made).setup()
    (made / "CUB_200_2011" / "bounding_boxes.txt").write_text("1 0 0 1 1\n")
    with pytest.raises(DataError, match="40 images, 40 labels, 1 boxes and 120 places of 3 parts"):
        CUBDataModule(made).setup()


@needs_birds
def test_the_real_birds() -> None:
    data = CUBDataModule(DATA, classes=[0, 1])
    batch: Any = next(iter(data.train_dataloader()))
    assert batch["image"].shape[1:] == (3, 64, 64)
    assert batch["keypoints"].shape[1:] == (15, 3)
    assert (batch["keypoints"][..., 2].sum(1) > 3).all()
    (test,) = [next(iter(data.test_dataloader()))]
    assert (test["box"][:, 2:] > 0.05).all()
    shown = test["keypoints"][..., 2] > 0
    low, high = test["box"][:, None, :2] - 0.05, (test["box"][:, :2] + test["box"][:, 2:])[:, None] + 0.05
    inside = ((test["keypoints"][..., :2] > low) & (test["keypoints"][..., :2] < high)).all(2)
    assert inside[shown].float().mean() > 0.98  # Parts of a bird are in its box.
