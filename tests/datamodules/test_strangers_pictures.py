"""Pictures of any kind in each place where a user's own are read: as they look, or named in one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lightning_gen.commands.pictures import read_source
from lightning_gen.datamodules import ImageFolderDataModule, PairedImageDataModule
from lightning_gen.datamodules.image_folder import read_picture
from lightning_gen.datamodules.paired_images import Pair, read_pair
from lightning_gen.datamodules.video_folder import read_stacked
from lightning_gen.errors import DataError

SIDE = 32


def scene() -> Image.Image:
    """White in the upper left quarter of black: a picture that shows how it is turned."""
    picture = Image.new("RGB", (SIDE, SIDE))
    picture.paste("white", (0, 0, SIDE // 2, SIDE // 2))
    return picture


def exif_rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by a quarter clockwise.
    scene().rotate(90).save(path, exif=exif, quality=95)


def deep(path: Path) -> None:
    grey = np.asarray(scene().convert("L"), dtype=np.uint16) * 257
    Image.fromarray(grey).save(path)


SOUND: dict[str, Callable[[Path], None]] = {
    "cmyk.jpg": lambda path: scene().convert("CMYK").save(path, quality=95),
    "16bit.png": deep,
    "animated.gif": lambda path: scene().save(path, save_all=True, append_images=[Image.new("RGB", (SIDE, SIDE))]),
    "turned.jpg": exif_rotated,
    "ключ 图 ä.png": lambda path: scene().save(path),
    "mislabelled.jpg": lambda path: scene().save(path, format="PNG"),
    "transparent.png": lambda path: scene().convert("RGBA").save(path),
}


def cut(path: Path) -> None:
    Image.effect_noise((64, 64), 90).save(path)
    path.write_bytes(path.read_bytes()[:1000])


DAMAGED: dict[str, Callable[[Path], object]] = {
    "empty.png": Path.touch,
    "cut.png": cut,
    "cut.jpg": cut,
    "text.png": lambda path: path.write_text("not a picture"),
    "page.jpg": lambda path: path.write_text("<html>404</html>"),
    "bomb.png": lambda path: Image.new("1", (30_000, 30_000)).save(path),
}


def in_folder(path: Path) -> Tensor:
    data = ImageFolderDataModule(str(path.parent), image_size=SIDE, channels=3, val_fraction=0, test_fraction=0)
    return next(iter(data.train_dataloader()))["image"][0]


def to_predict(path: Path) -> Tensor:
    data = PairedImageDataModule("nowhere", predict_dir=str(path.parent))
    return next(iter(data.predict_dataloader()))["source"][0]


READERS: dict[str, Callable[[Path], Tensor]] = {
    "folder": in_folder,
    "predict": to_predict,
    "condition": lambda path: read_source(str(path)),
    "alone": lambda path: read_picture(path, SIDE, 3) / 255,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", SOUND)
def test_read_as_it_looks(name: str, reader: str, tmp_path: Path) -> None:
    SOUND[name](tmp_path / name)
    image = READERS[reader](tmp_path / name)
    expected = torch.zeros(SIDE, SIDE)
    expected[: SIDE // 2, : SIDE // 2] = 1
    assert (image - expected).abs().mean() < 0.03


@pytest.mark.parametrize("reader", [*READERS, "frames"])
@pytest.mark.parametrize("name", DAMAGED)
def test_named_in_one_line(name: str, reader: str, tmp_path: Path) -> None:
    DAMAGED[name](tmp_path / name)
    read = READERS.get(reader, lambda path: read_stacked(path, SIDE, 3).pixels)
    with pytest.raises(DataError, match=name) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", SOUND)
def test_both_of_a_pair_are_upright(name: str, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    SOUND[name](tmp_path / name)
    SOUND[name](tmp_path / "b" / name)
    pair = read_pair(Pair(tmp_path / name, tmp_path / "b" / name))
    for side in pair:
        assert np.asarray(side.convert("L"))[SIDE // 4, SIDE // 4] > 200 or name == "16bit.png"
        assert side.convert("L").getpixel((SIDE - 4, SIDE - 4)) < 50


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_partner_is_named(name: str, tmp_path: Path) -> None:
    scene().save(tmp_path / "a.png")
    (tmp_path / "b").mkdir()
    DAMAGED[name](tmp_path / "b" / name)
    with pytest.raises(DataError, match=name) as error:
        read_pair(Pair(tmp_path / "a.png", tmp_path / "b" / name))
    assert "\n" not in str(error.value)
