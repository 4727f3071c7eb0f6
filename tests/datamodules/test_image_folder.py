"""Folders of pictures, with files of every kind written here."""

import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_gen.datamodules import ImageFolderDataModule
from lightning_gen.datamodules.image_folder import read_picture, suffixes
from lightning_gen.errors import DataError, DatasetNotFoundError

from .test_base import fit


def write(path, color=(200, 40, 10), size=(20, 20), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)


def fill(folder, count=20, suffix="png"):
    for i in range(count):
        write(folder / f"{i:03d}.{suffix}", (i, 255 - i, 7))
    return folder


def paths(datamodule, split):
    datamodule.setup()
    return {path.relative_to(datamodule.root).as_posix() for path in datamodule.datasets[split].paths}


def noise(path, size=(64, 48)):
    """A picture that does not compress, so that cutting the file cuts pixels off."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


# Kinds of pictures ----------------------------------------------------------------------------------------------


def mean_color(path, channels=3):
    return (read_picture(path, 8, channels).float().mean((1, 2))).tolist()


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp", "tiff", "ppm"])
def test_formats(tmp_path, suffix):
    write(tmp_path / f"a.{suffix}", (200, 40, 10))
    assert mean_color(tmp_path / f"a.{suffix}") == pytest.approx([200, 40, 10], abs=3)
    assert mean_color(tmp_path / f"a.{suffix}", 1) == pytest.approx([0.299 * 200 + 0.587 * 40 + 1.1], abs=3)


def test_every_format_that_pillow_writes_and_reads(tmp_path):
    assert {".png", ".jfif", ".jpe", ".jp2", ".tga", ".pcx", ".dib", ".ico", ".webp"} <= suffixes()
    assert not {".pdf", ".eps", ".ps", ".mpg", ".h5", ".wmf", ".txt", ""} & suffixes()
    picture, tried = Image.new("RGB", (64, 64), (200, 40, 10)), []
    for suffix in sorted(suffixes()):
        path = tmp_path / f"a{suffix}"
        try:
            picture.save(path)
        except (KeyError, ValueError, OSError):  # Pillow does not write it, or not in colour.
            path.unlink(missing_ok=True)
            continue
        expected = Image.open(path).convert("RGB").getpixel((32, 32))
        assert mean_color(path) == pytest.approx(expected, abs=4), suffix
        tried.append(suffix)
    assert len(tried) > 30
    assert len(paths(ImageFolderDataModule(tmp_path, image_size=8, val_fraction=0, test_fraction=0), "train")) == len(
        tried
    )


def test_what_is_left_out_is_counted(tmp_path):
    fill(tmp_path / "a", 10, "jfif")
    fill(tmp_path / "b", 10)
    for name in ("1.xyz", "2.XYZ", "notes"):
        (tmp_path / "a" / name).write_text("none")
    datamodule = ImageFolderDataModule(tmp_path, image_size=8)
    assert sum(counts(datamodule)) == 20
    assert datamodule.left_out == {".xyz": 2, "without suffix": 1}


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_one_line_before_training_says_what_was_found(tmp_path, caplog, stage):
    for name in ("a", "b", "c"):
        fill(tmp_path / name, 20)
    for number in range(90):
        (tmp_path / "a" / f"{number}.xyz").touch()
    datamodule = ImageFolderDataModule(tmp_path, image_size=8)
    with caplog.at_level("INFO"):
        datamodule.setup(stage)
    line = "48 training, 6 validation, 6 test pictures; 3 classes: a, b, c; left out: 90 .xyz"
    assert [record.message for record in caplog.records] == ([line] if stage == "fit" else [])


def test_32_bit_integers_are_taken_as_they_are(tmp_path):
    for kind in (np.int32, np.uint32):
        Image.fromarray(np.full((8, 8), 200, kind).astype(np.int32)).save(tmp_path / "a.tiff")
        assert mean_color(tmp_path / "a.tiff", 1) == [200]
    for value in (-1, 256, 70000):
        Image.fromarray(np.full((8, 8), value, np.int32)).save(tmp_path / "b.tiff")
        with pytest.raises(
            DataError, match=rf"b\.tiff cannot be read.* here from {value} to {value}, have no known range"
        ):
            read_picture(tmp_path / "b.tiff", 8, 1)


def test_a_pgm_of_16_bits_is_scaled(tmp_path):
    """Pillow opens it in a mode of 32 bits."""
    Image.fromarray(np.full((8, 8), 100, np.uint16)).save(tmp_path / "dark.pgm")
    Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(tmp_path / "light.pgm")
    assert mean_color(tmp_path / "dark.pgm", 1) == [0]
    assert mean_color(tmp_path / "light.pgm", 1) == [255]


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 64).astype(np.uint16).repeat(64).reshape(64, 64).T  # Dark left, bright right.
    for name in ("a.png", "a.tiff"):
        Image.fromarray(values.copy()).save(tmp_path / name)
        image = read_picture(tmp_path / name, 64, 1)
        assert torch.equal(image[0, 5], torch.from_numpy((values[5] / 257).round().astype(np.uint8)))
        assert (image.min(), image.max()) == (0, 255)


def test_pixels_without_a_range_are_refused(tmp_path):
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=r"a\.tiff cannot be read.*32 bits"):
        read_picture(tmp_path / "a.tiff", 8, 1)


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg")
    Image.new("CMYK", (16, 16), (255, 0, 255, 0)).save(tmp_path / "green.jpg")
    assert mean_color(tmp_path / "red.jpg") == pytest.approx([255, 0, 0], abs=5)
    assert mean_color(tmp_path / "green.jpg") == pytest.approx([0, 255, 0], abs=5)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_shows_white(tmp_path, mode):
    picture = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (8, 0, 16, 16))  # Transparent black left, opaque black right.
    picture.convert(mode).save(tmp_path / "a.png")
    image = read_picture(tmp_path / "a.png", 16, 3)
    assert (image[:, :, :6] == 255).all()
    assert (image[:, :, 10:] == 0).all()


def test_half_transparent(tmp_path):
    Image.new("RGBA", (16, 16), (0, 0, 0, 128)).save(tmp_path / "a.png")
    assert mean_color(tmp_path / "a.png", 1) == pytest.approx([127], abs=1)


def test_black_and_white_and_palette(tmp_path):
    Image.new("1", (16, 16), 1).save(tmp_path / "a.png")
    Image.new("RGB", (16, 16), (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "b.png")
    assert mean_color(tmp_path / "a.png", 1) == [255]
    assert mean_color(tmp_path / "b.png") == pytest.approx([10, 200, 30], abs=2)


def test_what_a_file_holds_counts_not_its_name(tmp_path):
    """A PNG called .jpg, in a folder and under a name that are not ASCII."""
    path = tmp_path / "Zürich" / "鳥 №1.jpg"
    write(path, (200, 40, 10), format="PNG")
    assert mean_color(path) == [200, 40, 10]
    fill(tmp_path / "b", 9)
    assert ImageFolderDataModule(tmp_path, image_size=8).class_names == ["Zürich", "b"]


@pytest.mark.parametrize("suffix", ["gif", "webp", "tiff"])
def test_of_several_frames_the_first_is_read(tmp_path, suffix):
    red, green = (Image.new("RGB", (20, 20), color) for color in ((200, 40, 10), (0, 255, 0)))
    red.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[green, green])
    assert mean_color(tmp_path / f"a.{suffix}") == pytest.approx([200, 40, 10], abs=3)


def test_a_bomb_is_named_and_not_decoded(tmp_path):
    """900 million pixels in 110 kilobytes."""
    fill(tmp_path)
    Image.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match=r"bomb\.png cannot be read as a picture .*exceeds limit") as error:
        ImageFolderDataModule(tmp_path, image_size=8).setup()
    assert "\n" not in str(error.value)
    with pytest.warns(UserWarning, match=r"Left out 1 unreadable pictures: .*bomb\.png"):
        ImageFolderDataModule(tmp_path, image_size=8, skip_corrupt=True).setup()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    upright = Image.new("RGB", (32, 32), "black")
    upright.paste("red", (0, 0, 16, 16))  # Red top left, green top right.
    upright.paste("lime", (16, 0, 32, 16))
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for operation in undo.get(orientation, []):
        stored = stored.transpose(operation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = read_picture(tmp_path / "a.jpg", 32, 3).float()
    assert image[:, 2:12, 2:12].mean((1, 2)).tolist() == pytest.approx([255, 0, 0], abs=12)
    assert image[:, 2:12, 20:30].mean((1, 2)).tolist() == pytest.approx([0, 255, 0], abs=12)
    assert image[:, 20:30].max() < 40


@pytest.mark.parametrize("size", [(90, 30), (30, 90), (1, 1), (3, 500), (31, 32)])
def test_shorter_side_is_resized_and_the_centre_kept(tmp_path, size):
    write(tmp_path / "a.png", size=size)
    assert read_picture(tmp_path / "a.png", 32, 3).shape == (3, 32, 32)


def test_crop_is_central(tmp_path):
    picture = Image.new("L", (90, 30), 0)
    picture.paste(255, (30, 0, 60, 30))
    picture.save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", 30, 1).min() == 255


def test_a_large_jpeg_is_read_like_a_small_one(tmp_path):
    checks = np.indices((1200, 1600)).sum(0) // 24 % 2 * 200 + 20  # Diagonal stripes, four pixels wide in the result.
    Image.fromarray(checks.astype(np.uint8)).save(tmp_path / "a.jpg", quality=95)
    Image.open(tmp_path / "a.jpg").save(tmp_path / "a.png")
    large, exact = (read_picture(tmp_path / name, 200, 1).float() for name in ("a.jpg", "a.png"))
    assert (large - exact).abs().mean() < 2  # An eighth of the size, the coarsest a decoder gives, is 18 off.


# Splits and labels ----------------------------------------------------------------------------------------------


def test_flat_folder_is_split_at_random_but_always_alike(tmp_path):
    fill(tmp_path, 40)
    first, second = (ImageFolderDataModule(tmp_path, image_size=8, val_fraction=0.2) for _ in range(2))
    parts = [paths(first, split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [28, 8, 4]
    assert set.union(*parts) == {f"{i:03d}.png" for i in range(40)}
    assert parts == [paths(second, split) for split in ("train", "val", "test")]
    assert parts[1] != {f"{i:03d}.png" for i in range(8)}
    batch = next(iter(first.train_dataloader()))
    assert set(batch) == {"image"}
    assert batch["image"].shape == (28, 3, 8, 8)
    assert first.num_classes == 0
    assert first.condition_shapes == {}


def test_pixels_in_unit_range(tmp_path):
    write(tmp_path / "a.png", (255, 128, 0))
    datamodule = ImageFolderDataModule(tmp_path, image_size=4, val_fraction=0, test_fraction=0)
    image = next(iter(datamodule.train_dataloader()))["image"]
    assert image.dtype == torch.float32
    assert torch.equal(image, torch.tensor([1, 128 / 255, 0]).view(1, 3, 1, 1).expand(1, 3, 4, 4))
    assert datamodule.val_dataloader() == []


def test_class_subfolders_are_labels(tmp_path):
    for k, name in enumerate(("cat", "bird", "dog")):
        fill(tmp_path / name, 5 + k)
    fill(tmp_path / "dog" / "deeper", 2)
    fill(tmp_path / ".hidden", 3)
    fill(tmp_path / "dog" / ".cache", 3)
    fill(tmp_path / "@eaDir" / "dog", 3)
    fill(tmp_path / "__MACOSX", 3)
    write(tmp_path / "dog" / "._000.png")
    datamodule = ImageFolderDataModule(tmp_path, image_size=8)
    assert datamodule.num_classes == 3  # Before setup.
    assert datamodule.condition_shapes == {"label": ()}
    assert datamodule.class_names == ["bird", "cat", "dog"]
    datamodule.setup()
    counts = torch.zeros(3, dtype=torch.int64)
    for dataset in datamodule.datasets.values():
        counts += dataset.labels.bincount(minlength=3)
        for path, label in zip(dataset.paths, dataset.labels.tolist(), strict=True):
            assert path.relative_to(tmp_path).parts[0] == datamodule.class_names[label]
    assert counts.tolist() == [6, 5, 9]
    batch = next(iter(datamodule.train_dataloader()))
    assert batch["label"].dtype == torch.int64
    assert len(batch["label"]) == len(batch["image"])


def test_classes_keep_their_numbers(tmp_path):
    for name in ("a", "b", "c"):
        fill(tmp_path / name, 10)
    datamodule = ImageFolderDataModule(tmp_path, image_size=8, classes=[2])
    assert set(next(iter(datamodule.train_dataloader()))["label"].tolist()) == {2}
    assert all(path.startswith("c/") for split in ("train", "val", "test") for path in paths(datamodule, split))
    with pytest.raises(DataError, match="labels 0 to 2"):
        ImageFolderDataModule(tmp_path, classes=[3]).setup()
    with pytest.raises(DataError, match="no labels"):
        ImageFolderDataModule(fill(tmp_path / "flat"), classes=[0]).setup()


def counts(datamodule):
    datamodule.setup()
    return [len(datamodule.datasets[split]) for split in ("train", "val", "test")]


def test_a_stray_picture_beside_class_folders_is_left_out(tmp_path):
    fill(tmp_path / "a", 5)
    fill(tmp_path / "b", 5)
    write(tmp_path / "loose.png")
    datamodule = ImageFolderDataModule(tmp_path, image_size=8)
    assert datamodule.class_names == ["a", "b"]
    assert sum(counts(datamodule)) == 10
    assert datamodule.left_out == {"beside the folders of classes (loose.png)": 1}
    only = fill(tmp_path / "one" / "pictures", 5).parent
    assert ImageFolderDataModule(only).num_classes == 0


def test_as_many_pictures_beside_subfolders_make_no_classes(tmp_path):
    fill(tmp_path, 5)
    fill(tmp_path / "a", 5)
    fill(tmp_path / "b", 7)
    datamodule = ImageFolderDataModule(tmp_path, image_size=8)
    with pytest.warns(UserWarning, match=r"no classes: 5 pictures, such as .*000\.png, lie beside the folders a, b"):
        assert datamodule.num_classes == 0
    assert sum(counts(datamodule)) == 17


def test_a_split_without_class_folders_keeps_its_pictures(tmp_path):
    fill(tmp_path / "train" / "a", 10)
    fill(tmp_path / "train" / "b", 10)
    fill(tmp_path / "val", 2)
    datamodule = ImageFolderDataModule(tmp_path, image_size=8, test_fraction=0)
    with pytest.warns(UserWarning, match=r"no classes: 2 pictures, such as .*val.000\.png"):
        assert datamodule.num_classes == 0
    assert counts(datamodule) == [20, 2, 0]


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Train", "Val", "Test"),
        ("training", "valid", "testing"),
        ("TRAIN", "validation", "test"),
        ("train", "dev", "test"),
    ],
)
def test_splits_by_all_their_names(tmp_path, names):
    for name, number in zip(names, (12, 3, 5), strict=True):
        fill(tmp_path / name, number)
    datamodule = ImageFolderDataModule(tmp_path, image_size=8)
    assert datamodule.num_classes == 0
    assert counts(datamodule) == [12, 3, 5]
    for name, split in zip(names, ("train", "val", "test"), strict=True):
        assert all(path.startswith(f"{name}/") for path in paths(datamodule, split))


@pytest.mark.parametrize(("folders", "classes"), [(("car", "plane", "train"), ["car", "plane", "train"])])
def test_a_class_that_is_called_train(tmp_path, folders, classes):
    for name in folders:
        fill(tmp_path / name, 10)
    datamodule = ImageFolderDataModule(tmp_path, image_size=8)
    assert datamodule.class_names == classes
    assert counts(datamodule) == [24, 3, 3]


def test_other_folders_and_pictures_beside_splits_are_left_out_and_said(tmp_path):
    for name in ("train", "test", "samples"):
        fill(tmp_path / name, 10)
    write(tmp_path / "logo.png")
    datamodule = ImageFolderDataModule(tmp_path, image_size=8)
    assert counts(datamodule) == [9, 1, 10]
    assert datamodule.left_out == {"in samples": 10, ".png beside train": 1}


def test_folders_without_pictures_make_no_class_of_train(tmp_path):
    fill(tmp_path / "train", 10)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("none")
    assert ImageFolderDataModule(tmp_path, image_size=8).num_classes == 0


def test_splits_that_cannot_be_told_are_refused(tmp_path):
    fill(tmp_path / "val", 3)
    fill(tmp_path / "Test", 3)
    with pytest.raises(DataError, match=r"has Test and val, and no folder train to train on; name one so"):
        ImageFolderDataModule(tmp_path).setup()
    fill(tmp_path / "train", 3)
    fill(tmp_path / "valid", 3)
    with pytest.raises(DataError, match=r"val and valid in .* are both the val split; remove one"):
        ImageFolderDataModule(tmp_path).setup()


def test_split_folders_are_used(tmp_path):
    for split, count in (("train", 12), ("val", 3), ("test", 5)):
        fill(tmp_path / split / "x", count)
        fill(tmp_path / split / "y", 1)
    datamodule = ImageFolderDataModule(tmp_path, image_size=8)
    for split, count in (("train", 13), ("val", 4), ("test", 6)):
        assert len(paths(datamodule, split)) == count
        assert all(path.startswith(f"{split}/") for path in paths(datamodule, split))
    assert datamodule.class_names == ["x", "y"]


def test_a_missing_split_folder_is_drawn_from_train(tmp_path):
    fill(tmp_path / "train", 20)
    fill(tmp_path / "test", 3)
    datamodule = ImageFolderDataModule(tmp_path, image_size=8)
    assert paths(datamodule, "test") == {f"test/{i:03d}.png" for i in range(3)}
    val = paths(datamodule, "val")
    assert len(val) == 2
    assert len(paths(datamodule, "train") | val) == 20


def test_flip_mirrors_half_of_the_training_pictures(tmp_path):
    picture = Image.new("L", (8, 8), 0)
    picture.paste(255, (0, 0, 4, 8))
    for i in range(100):
        picture.save(tmp_path / f"{i}.png")
    datamodule = ImageFolderDataModule(tmp_path, image_size=8, channels=1, flip=True, batch_size=100)
    torch.manual_seed(0)
    images = next(iter(datamodule.train_dataloader()))["image"]
    left = images[:, 0, 0, 0]
    assert torch.equal(images[:, 0, 0, 7], 1 - left)
    assert 24 <= left.sum() <= 56  # Of 80, 40 expected.
    torch.manual_seed(0)
    assert torch.equal(next(iter(datamodule.train_dataloader()))["image"], images)
    assert (next(iter(datamodule.val_dataloader()))["image"][:, 0, 0, 0] == 1).all()


def test_trains_with_workers(tmp_path):
    fill(tmp_path / "a", 10)
    fill(tmp_path / "b", 10)
    datamodule = ImageFolderDataModule(tmp_path, image_size=8, batch_size=4, num_workers=1)
    assert fit(datamodule, tmp_path / "logs").global_step == 4


# What can go wrong ----------------------------------------------------------------------------------------------


def test_missing_folder(tmp_path):
    for root in (tmp_path / "none", fill(tmp_path / "files") / "000.png"):
        with pytest.raises(DatasetNotFoundError, match=f"{root.name} is not a folder") as error:
            ImageFolderDataModule(root).setup()
        assert str(tmp_path) in str(error.value)


def test_folder_without_pictures(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(DatasetNotFoundError, match=r"hold no pictures \(left out: 1 \.txt\)\.") as error:
        ImageFolderDataModule(tmp_path).setup()
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"not a picture at all", b"\xff\xd8\xff\xe0"])
def test_a_file_that_is_no_picture_is_named_before_training(tmp_path, content):
    fill(tmp_path)
    (tmp_path / "bad one.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bad one\.png cannot be read as a picture") as error:
        ImageFolderDataModule(tmp_path, image_size=8).setup()
    assert "\n" not in str(error.value)


def test_a_cut_png_is_named_before_training(tmp_path):
    fill(tmp_path)
    noise(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:3000])
    with pytest.raises(DataError, match=r"cut\.png"):
        ImageFolderDataModule(tmp_path, image_size=8).setup()


def test_a_cut_jpeg_is_named_when_read(tmp_path):
    noise(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:2000])
    datamodule = ImageFolderDataModule(tmp_path, image_size=8, val_fraction=0, test_fraction=0)
    datamodule.setup()
    with pytest.raises(DataError, match=r"cut\.jpg cannot be read as a picture"):
        next(iter(datamodule.train_dataloader()))


def test_corrupt_files_are_skipped_only_if_asked_and_listed(tmp_path):
    fill(tmp_path, 20)
    noise(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:2000])
    (tmp_path / "empty.png").touch()
    datamodule = ImageFolderDataModule(tmp_path, image_size=8, skip_corrupt=True)
    with pytest.warns(UserWarning, match="Left out 2 unreadable pictures") as caught:
        datamodule.setup()
    assert len(caught) == 1
    assert "cut.jpg" in str(caught[0].message)
    assert "empty.png" in str(caught[0].message)
    left = set.union(*(paths(datamodule, split) for split in ("train", "val", "test")))
    assert left == {f"{i:03d}.png" for i in range(20)}
    assert sum(len(batch["image"]) for batch in datamodule.train_dataloader()) == len(paths(datamodule, "train"))


def test_nothing_is_said_about_sound_files(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageFolderDataModule(fill(tmp_path), image_size=8, skip_corrupt=True).setup()


def test_nothing_left(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.warns(UserWarning, match="Left out 1"), pytest.raises(DataError, match="No training images are left"):
        ImageFolderDataModule(tmp_path, skip_corrupt=True).setup()


@pytest.mark.parametrize(
    "options",
    [{"image_size": 0}, {"channels": 4}, {"val_fraction": -0.1}, {"val_fraction": 0.5, "test_fraction": 0.5}],
)
def test_arguments_out_of_range(tmp_path, options):
    with pytest.raises(DataError, match=next(iter(options))):
        ImageFolderDataModule(tmp_path, **options)


def test_linked_folders_are_followed(tmp_path):
    fill(tmp_path / "elsewhere", 4)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert len(paths(ImageFolderDataModule(tmp_path / "root", val_fraction=0, test_fraction=0), "train")) == 4
    shutil.rmtree(tmp_path / "root")


def test_links_back_are_not_followed(tmp_path):
    """To the folder itself, its parent, a parent on the way, and from one class to another that comes later."""
    root = tmp_path / "root"
    fill(root / "cat", 5)
    fill(root / "dog" / "deep", 6)
    fill(tmp_path / "beside", 7)
    links = {"loop": root, "cat/up": root, "cat/over": root / "dog", "a": root / "dog" / "deep", "cat/out": tmp_path}
    for name, target in links.items():
        (root / name).symlink_to(target, target_is_directory=True)
    datamodule = ImageFolderDataModule(root, image_size=8, val_fraction=0, test_fraction=0)
    assert datamodule.class_names == ["cat", "dog"]
    assert paths(datamodule, "train") == {
        *(f"cat/{i:03d}.png" for i in range(5)),
        *(f"dog/deep/{i:03d}.png" for i in range(6)),
    }
    assert datamodule.left_out == {"link to a folder that is read already": 5}
