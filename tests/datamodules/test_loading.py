"""What every data module has of its base: errors of workers, `drop_last`, `train_transform`, and other sizes."""

import inspect
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

from lightning_gen import datamodules
from lightning_gen._lightning import LightningModule, Trainer
from lightning_gen.arguments import Sides, annotations_of
from lightning_gen.cli import main
from lightning_gen.datamodules import (
    DigitsDataModule,
    EdgesToDigitsDataModule,
    FakeDataModule,
    ImageDataModule,
    ImageFolderDataModule,
    MNISTDataModule,
    PairedImageDataModule,
    VideoFolderDataModule,
)
from lightning_gen.errors import DataError
from lightning_gen.models import DCGAN
from tests.hostile import classes_of, needed_by

from .test_base import PixelMean, fit

KINDS: list[Any] = [kind for kind in classes_of(datamodules) if issubclass(kind, ImageDataModule)]
QUIET = ["--trainer.accelerator", "cpu", "--trainer.logger", "false", "--trainer.enable_checkpointing", "false"]
QUIET += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]


def pictures(folder: Path, count: int = 12, size: tuple[int, int] = (40, 30)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", size, (number, 100, 200)).save(folder / f"{number:02}.png")
    return folder


def frames(folder: Path, count: int = 40) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 24, 32, 3), dtype=np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "a.npz", frames=pixels, offsets=[0, count], names=["a"], fps=[25.0])
    return folder


# All of them ----------------------------------------------------------------------------------------------------


class Darker(torch.nn.Module):
    """Pixels at a share of their value."""

    def __init__(self, share: float = 0.5) -> None:
        super().__init__()
        self.share = share

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.share * images


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_data_module_takes_what_the_base_takes(kind: Any) -> None:
    if kind is ImageDataModule:
        return
    transform = Darker()
    made = kind(**needed_by(kind), drop_last=True, train_transform=transform)
    assert made.drop_last
    assert made.train_transform is transform
    assert "drop_last" in made.hparams
    assert "train_transform" not in made.hparams  # No checkpoint can hold an object.
    assert not {"drop_last", "train_transform"} & set(kind(**needed_by(kind)).hparams)  # As in older checkpoints.
    with pytest.raises(DataError, match="got drop_last='x'; expected bool"):
        kind(**needed_by(kind), drop_last="x")


def test_drop_last_is_for_training_alone() -> None:
    data = FakeDataModule(num_samples=10, batch_size=4, drop_last=True)
    assert [len(batch["label"]) for batch in data.train_dataloader()] == [4, 4]
    assert [len(batch["label"]) for batch in data.val_dataloader()] == [4, 4, 2]


class Seen(PixelMean):
    """Remembers the means of what it was given."""

    def __init__(self, image_shape: tuple[int, ...] = (1, 28, 28), hook: bool = False) -> None:
        super().__init__(image_shape)
        self.means: dict[str, list[float]] = {"train": [], "val": []}
        if hook:
            self.on_after_batch_transfer = lambda batch, index: {**batch, "image": batch["image"] / 4}

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.means["train"].append(batch["image"].mean().item())
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.means["val"].append(batch["image"].mean().item())


@pytest.mark.parametrize("hook", [False, True])
def test_the_transform_changes_training_batches_alone(hook: bool, tmp_path: Path) -> None:
    """A model's own hook comes after it."""

    def means(**arguments: Any) -> dict[str, list[float]]:
        torch.manual_seed(0)
        model = Seen((1, 6, 6), hook)
        fit(FakeDataModule((1, 6, 6), num_samples=32, batch_size=16, **arguments), tmp_path, model)
        return model.means

    plain, darker = means(), means(train_transform=Darker(0.5))
    assert darker["train"] == pytest.approx([mean / 2 for mean in plain["train"]])
    assert darker["val"] == plain["val"]
    assert len(plain["train"]) == 2


def test_the_transform_comes_after_the_hook_of_a_subclass(tmp_path: Path) -> None:
    class Own(FakeDataModule):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return {**batch, "image": batch["image"] * 0 + 0.8}

    model = Seen((1, 6, 6))
    fit(Own((1, 6, 6), train_transform=Darker(0.5)), tmp_path, model)
    assert set(np.round(model.means["train"], 4)) == {0.4}
    assert set(np.round(model.means["val"], 4)) == {0.8}


def test_pairs_and_videos_are_transformed_as_a_whole() -> None:
    def turn(images: torch.Tensor) -> torch.Tensor:
        return images.flip(-1)

    pairs = EdgesToDigitsDataModule(train_transform=turn)
    pairs.setup()
    batch = pairs.datasets["train"].__getitems__(range(3))
    turned = pairs.transformed(batch)
    assert all(torch.equal(turned[key], batch[key].flip(-1)) for key in ("source", "image"))
    assert turned["label"] is batch["label"]
    videos = FakeDataModule((3, 4, 6, 6), keys=("video", "image"), train_transform=turn)
    videos.setup()
    batch = videos.datasets["train"].__getitems__(range(3))
    turned = videos.transformed(batch)
    assert torch.equal(turned["video"], batch["video"].flip(-1))
    assert torch.equal(turned["image"], turned["video"][:, :, 0])


def test_a_transform_that_does_not_fit_is_refused() -> None:
    data = FakeDataModule(keys=("image", "box"), train_transform=Darker())
    data.setup()
    with pytest.raises(DataError, match="batches of FakeDataModule have box, which would no longer fit"):
        data.transformed(data.datasets["train"].__getitems__([0, 1]))
    data = FakeDataModule(train_transform=torch.nn.Flatten())
    data.setup()
    with pytest.raises(DataError, match=r"made float32 \(2, 784\) of images \(2, 1, 28, 28\); expected the same shape"):
        data.transformed(data.datasets["train"].__getitems__([0, 1]))


def test_from_the_command_line_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class path, which the checkpoint holds, and with which the data module is made again."""
    monkeypatch.chdir(tmp_path)
    given: list[Any] = []
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, images: given.append(self.p) or images)
    quiet = [*QUIET[:2], *QUIET[6:], "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "0"]
    data = ["--data", "FakeDataModule", "--data.image_shape", "[1,6,6]", "--data.drop_last", "true"]
    data += ["--data.train_transform", "torch.nn.Dropout", "--data.train_transform.p", "0.3"]
    main(["fit", "--model", "VAE", "--model.hidden_size", "4", "--model.decoder", "gaussian", *data, *quiet, "--trainer.max_epochs", "1"])  # fmt: skip  # noqa: E501
    assert given == [0.3] * 2
    (path,) = tmp_path.rglob("last.ckpt")
    held = torch.load(path, weights_only=True)["datamodule_hyper_parameters"]
    assert held["train_transform"]["class_path"] == "torch.nn.Dropout"
    assert held["train_transform"]["init_args"]["p"] == 0.3
    loaded = FakeDataModule.load_from_checkpoint(path, weights_only=True)
    assert loaded.drop_last
    assert loaded.train_transform.p == 0.3
    assert loaded.hparams["train_transform"] == held["train_transform"]
    with pytest.raises(DataError, match=r"names no nn.Module that is imported; import it before\.$"):
        FakeDataModule(train_transform={"class_path": "antigravity.Fly"})
    main(["fit", "--ckpt_path", str(path), "--trainer.max_epochs", "2"])
    assert given == [0.3] * 4


# Workers --------------------------------------------------------------------------------------------------------


def damaged(path: Path) -> None:
    """A picture with a sound header and half of its pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:3000])


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("kind", ["folder", "pairs"])
def test_a_damaged_picture_is_named_first(kind: str, num_workers: int, tmp_path: Path) -> None:
    pictures(tmp_path / "train", 3)
    damaged(tmp_path / "train" / "cut.jpg")
    data: Any = (
        ImageFolderDataModule(tmp_path, image_size=8, val_fraction=0, test_fraction=0, num_workers=num_workers)
        if kind == "folder"
        else PairedImageDataModule(str(tmp_path), image_size=8, load_size=None, num_workers=num_workers)
    )
    with pytest.raises(DataError, match=r"^\S*cut\.jpg cannot be read as a picture") as error:
        list(data.train_dataloader())
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_damaged_picture_behind_workers_is_one_line_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    damaged(pictures(tmp_path / "p") / "cut.jpg")
    data = ["--data", "ImageFolderDataModule", "--data.root", "p", "--data.image_size", "16", "--data.num_workers", "1"]
    data += ["--data.val_fraction", "0", "--data.test_fraction", "0"]
    with pytest.raises(SystemExit):
        main(["fit", "--model", "VAE", "--model.hidden_size", "4", "--model.decoder", "gaussian", *data, *QUIET, "--trainer.max_epochs", "1"])  # fmt: skip  # noqa: E501
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("lightning-gen: error: p/cut.jpg cannot be read as a picture")


# Sizes that are no squares --------------------------------------------------------------------------------------


def test_all_that_resize_take_height_and_width() -> None:
    taking = {kind.__name__ for kind in KINDS if annotations_of(kind.__init__).get("image_size") == Sides}
    assert taking == {
        "CUBDataModule",
        "CocoCaptionsDataModule",
        "EdgesToDigitsDataModule",
        "Flowers102CaptionsDataModule",
        "HuggingFaceDataModule",
        "ImageFolderDataModule",
        "PairedImageDataModule",
        "RobotPushingDataModule",
        "TorchvisionDataModule",
        "VideoFolderDataModule",
    }
    for kind in KINDS:
        if kind.__name__ in taking:
            extra = {"load_size": [40, 70]} if "load_size" in inspect.signature(kind).parameters else {}
            assert kind(**needed_by(kind), image_size=[32, 64], **extra).image_shape[-2:] == (32, 64)


def test_a_picture_is_cropped_to_the_proportions_asked_for(tmp_path: Path) -> None:
    picture = Image.new("L", (90, 60))
    picture.paste(255, (30, 0, 60, 60))  # Its middle third.
    (tmp_path / "p").mkdir()
    picture.save(tmp_path / "p" / "a.png")
    data = ImageFolderDataModule(tmp_path, image_size=[20, 10], channels=1, val_fraction=0, test_fraction=0)
    (batch,) = data.train_dataloader()
    assert batch["image"].shape == (1, 1, 20, 10)
    assert batch["image"].min() > 0.9  # 30 x 60 of 90 x 60.
    data = ImageFolderDataModule(tmp_path, image_size=[10, 30], channels=1, val_fraction=0, test_fraction=0)
    (batch,) = data.train_dataloader()
    assert batch["image"].mean((0, 1, 2))[:9].max() < 0.1
    assert batch["image"].mean((0, 1, 2))[12:18].min() > 0.9


@pytest.mark.parametrize("load_size", [None, [40, 30], 50])
def test_pairs_are_squeezed_and_cut_out_together(load_size: Any, tmp_path: Path) -> None:
    rows, columns = np.mgrid[:64, :64]
    picture = np.stack([columns * 4, rows * 4, rows * 0], -1).astype(np.uint8)
    (tmp_path / "train").mkdir()
    Image.fromarray(np.concatenate([picture, picture], 1)).save(tmp_path / "train" / "a.png")
    data = PairedImageDataModule(str(tmp_path), image_size=[32, 16], load_size=load_size)
    data.setup()
    for _ in range(4):
        batch = data.datasets["train"].__getitems__([0])
        assert batch["image"].shape == (1, 3, 32, 16)
        assert torch.equal(batch["image"], batch["source"])
        across, down = batch["image"][0, 0], batch["image"][0, 1]
        assert (across.std(0) < 0.02).all()
        assert (down.std(1) < 0.02).all()
        whole = load_size or [32, 16]
        height, width = (whole, whole) if isinstance(whole, int) else whole
        assert (down.amax() - down.amin()).item() == pytest.approx(32 / height, abs=0.12)
        assert (across.amax() - across.amin()).item() == pytest.approx(16 / width, abs=0.12)


# A stream from a tar file ---------------------------------------------------------------------------------------


class Shard(IterableDataset[Any]):
    """The layout of WebDataset: files of one name, `000.png` and `000.cls`, one after the other in a tar file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Any:
        with tarfile.open(self.path, "r|") as archive:
            row: dict[str, Any] = {}
            for member in archive:
                data = archive.extractfile(member).read()  # type: ignore[union-attr]
                if member.name.endswith(".png"):
                    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(data))))
                    row["image"] = pixels.float().div(255).unsqueeze(0)
                else:
                    yield {**row, "label": int(data)}


def test_a_stream_of_a_tar_file_trains_through_a_plain_loader(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for number in range(12):
            file = io.BytesIO()
            Image.fromarray(np.full((16, 16), 20 * number, np.uint8)).save(file, "png")
            for suffix, data in {"png": file.getvalue(), "cls": str(number % 3).encode()}.items():
                entry = tarfile.TarInfo(f"{number:03}.{suffix}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    loader = DataLoader(Shard(tmp_path / "shard.tar"), batch_size=4, num_workers=1)
    assert [batch["label"].tolist() for batch in loader] == [[0, 1, 2, 0], [1, 2, 0, 1], [2, 0, 1, 2]]
    model: LightningModule = DCGAN(image_shape=(1, 16, 16), base_channels=4)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, loader)
    assert trainer.global_step == 6  # Two optimizers.


def test_videos_that_are_no_squares_reach_the_model(tmp_path: Path) -> None:
    data = VideoFolderDataModule(str(frames(tmp_path)), image_size=[12, 16], num_frames=8)
    batch = next(iter(data.train_dataloader()))
    assert batch["video"].shape[1:] == data.video_shape == (3, 8, 12, 16)


def test_digits_say_what_they_are(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        DigitsDataModule(classes=[3, 7]).setup("fit")
    assert [record.message for record in caplog.records] == [
        "800 training, 100 validation, 100 test images; 10 classes"
    ]


def test_recipes_find_their_data_in_the_folder_of_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_GEN_DATA", str(tmp_path / "mine"))
    for root, expected in {
        None: tmp_path / "mine",
        "data": tmp_path / "mine",
        "data/facades": tmp_path / "mine" / "facades",
        "pictures": Path("pictures"),
        "/data/facades": Path("/data/facades"),
    }.items():
        assert MNISTDataModule(root=root).root == expected
    (tmp_path / "data" / "facades").mkdir(parents=True)
    assert MNISTDataModule(root="data/facades").root == Path("data/facades")
    monkeypatch.delenv("LIGHTNING_GEN_DATA")
    assert MNISTDataModule().root == Path("data")
