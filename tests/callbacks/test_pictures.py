from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from lightning_gen._lightning import pl
from lightning_gen.callbacks import ImageWriter, LatentManifold, SampleGrid, TranslationGrid
from lightning_gen.callbacks.files import image_grid, side_by_side, whole_file, write_png
from lightning_gen.datamodules import DigitsDataModule, EdgesToDigitsDataModule, PairedImageDataModule
from lightning_gen.errors import LightningGenError
from lightning_gen.models import VAE, Pix2Pix
from tests.callbacks.runs import LabelledVAE, fit, small_gan, small_vae
from tests.digits import quiet_trainer
from tests.tiny import tiny


def pixels(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return pil_to_tensor(image)


def test_a_grid_in_each_epoch_from_the_same_noise(tmp_path: Path) -> None:
    logger = pl.loggers.TensorBoardLogger(tmp_path, name=None)
    grid = SampleGrid(num_samples=6, num_columns=3)
    trainer = fit([grid], lambda: LabelledVAE(hidden_size=8), epochs=2, logger=logger, limit_test_batches=1)
    trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)
    folder = tmp_path / "version_0" / "samples"
    assert sorted(path.name for path in folder.iterdir()) == ["epoch=0000.png", "epoch=0001.png", "test.png"]
    assert grid.pictures == [folder / "test.png"]
    for path in folder.iterdir():
        assert pixels(path).shape == (3, 2 * 28 + 3 * 2, 3 * 28 + 4 * 2)

    # What the picture shows: the final model's samples from seed 0, under the first held-out labels.
    labels = next(iter(trainer.datamodule.val_dataloader()))["label"][:6]
    model = trainer.lightning_module
    expected = model.sample(6, {"label": labels}, generator=torch.Generator().manual_seed(0))
    shown = pixels(folder / "epoch=0001.png")[:1, 2:30, 32:60] / 255
    torch.testing.assert_close(shown, expected[1], atol=0.5 / 255 + 1e-6, rtol=0)

    logger.experiment.flush()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "version_0"), size_guidance={"images": 0}).Reload()
    batches = trainer.num_training_batches
    assert [event.step for event in events.Images("val/samples")] == [batches - 1, 2 * batches - 1], "as curves stand"
    assert [event.step for event in events.Images("test/samples")] == [2 * batches]


def test_a_row_for_each_label(tmp_path: Path) -> None:
    grid = SampleGrid(num_samples=6, num_columns=3, labels=[7, 2])
    fit([grid], lambda: LabelledVAE(hidden_size=8), epochs=1, limit_train_batches=1, default_root_dir=tmp_path)
    shown = pixels(tmp_path / "samples" / "epoch=0000.png")[0] / 255
    labels = shown[2::30, 2::30][:2, :3]  # LabelledVAE shows them in its first pixel.
    torch.testing.assert_close(labels, torch.tensor([[0.7] * 3, [0.2] * 3]), atol=1 / 255, rtol=0)


def test_a_logger_that_logs_images_gets_them(tmp_path: Path) -> None:
    class Pictures(pl.loggers.CSVLogger):
        seen: list[Any] = []

        def log_image(self, key: str, images: list[Any], caption: list[str]) -> None:
            self.seen.append((key, tuple(images[0].shape), caption))

    fit([SampleGrid(2, num_columns=2)], epochs=1, limit_train_batches=1, logger=Pictures(tmp_path))
    assert Pictures.seen == [("val/samples", (3, 32, 62), ["epoch 0"])]


def test_the_manifold_runs_over_equal_shares_of_the_prior(tmp_path: Path) -> None:
    class Coordinates(VAE):
        """Shows the probability below each latent variable in its left and right half."""

        def decode(self, z: torch.Tensor, condition: Any = None) -> torch.Tensor:
            share = torch.special.ndtr(z)
            images = torch.zeros(len(z), 1, 28, 28)
            images[..., :14], images[..., 14:] = share[:, 0, None, None, None], share[:, 1, None, None, None]
            return images

    make = lambda: Coordinates(hidden_size=4, latent_dim=2)  # noqa: E731
    fit([LatentManifold(num_columns=5)], make, epochs=1, limit_train_batches=1, default_root_dir=tmp_path)
    picture = pixels(tmp_path / "manifold" / "epoch=0000.png")[0] / 255
    assert picture.shape == (5 * 28, 5 * 28)
    rows, columns = picture[14::28, 7::28], picture[14::28, 21::28]
    shares = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    torch.testing.assert_close(rows, shares[:, None].expand(5, 5), atol=1 / 255, rtol=0)
    torch.testing.assert_close(columns, shares[None].expand(5, 5), atol=1 / 255, rtol=0)


def test_the_manifold_refuses_other_models() -> None:
    with pytest.raises(LightningGenError, match=r"VAE has latent_dim=3; set model.latent_dim to 2"):
        fit([LatentManifold()], lambda: VAE(latent_dim=3))
    with pytest.raises(LightningGenError, match=r"GAN has latent_dim=4"):
        fit([LatentManifold()], small_gan)


def test_predict_writes_one_file_for_each_sample(tmp_path: Path) -> None:
    data = DigitsDataModule(batch_size=20)
    trainer = quiet_trainer(callbacks=[ImageWriter(str(tmp_path / "new" / "images"))], limit_predict_batches=3)
    predictions = torch.cat(trainer.predict(small_vae(), data))
    files = sorted((tmp_path / "new" / "images").iterdir())
    assert [path.name for path in files] == [f"{index:06d}.png" for index in range(60)]
    for path, image in zip(files, predictions, strict=True):
        assert torch.equal(pixels(path), image.mul(255).round().byte())


@pytest.mark.parametrize("name", ["KeypointGAN", "CharCNNRNN", "VGAN", "AttributeClassifier", "Captioner"])
def test_whatever_predict_gives_is_written(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Points, embeddings, videos, labels, captions; and one line says how many, and where."""
    model, data = tiny(name)
    quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0).fit(model, data)
    trainer = quiet_trainer(callbacks=[ImageWriter()], limit_predict_batches=1, default_root_dir=tmp_path)
    with caplog.at_level("INFO"):
        (prediction,) = trainer.predict(model, data)
    files = sorted((tmp_path / "results").iterdir())
    assert [path.stem for path in files] == [f"{index:06d}" for index in range(len(prediction))]
    assert f"{len(files)} results of predict in {tmp_path / 'results'}" in caplog.messages
    if isinstance(prediction[0], str):
        assert files[0].read_text(encoding="utf-8") == prediction[0]
    elif prediction[0].ndim < 3:
        assert torch.equal(torch.load(files[-1], weights_only=True), prediction[-1])
    else:
        assert files[0].suffix == ".png"


def test_results_have_the_names_of_their_sources(tmp_path: Path) -> None:
    for split in ("train", "val", "test", "mine"):
        (tmp_path / "pairs" / split).mkdir(parents=True)
        for name in ("10", "2"):
            size = (32, 32) if split == "mine" else (64, 32)
            Image.new("L", size).save(tmp_path / "pairs" / split / f"{name}.png")
    sources = str(tmp_path / "pairs" / "mine")
    data = PairedImageDataModule(
        str(tmp_path / "pairs"), source_channels=1, channels=1, image_size=32, load_size=32, predict_dir=sources
    )
    quiet_trainer(callbacks=[ImageWriter(str(tmp_path / "out"))]).predict(small_pix2pix(), data)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["10.png", "2.png"]


def small_pix2pix() -> Pix2Pix:
    return Pix2Pix((1, 32, 32), num_levels=3, base_channels=2, patch_size=16, dropout=0.0)


def test_translations_stand_between_source_and_target(tmp_path: Path) -> None:
    """In the pictures of training, two sources in a row; and in the files of `predict`, with or without targets."""
    torch.manual_seed(0)
    data, model = EdgesToDigitsDataModule(batch_size=4), small_pix2pix()
    grid = TranslationGrid(num_samples=4)
    limits = {"limit_train_batches": 1, "limit_val_batches": 2}
    trainer = quiet_trainer(max_epochs=1, callbacks=[grid], default_root_dir=tmp_path, **limits)
    trainer.fit(model, data)
    rows = next(iter(data.val_dataloader()))
    made = model.sample(4, {"source": rows["source"]})
    expected = side_by_side(rows["source"], made, rows["image"])
    shown = pixels(tmp_path / "translations" / "epoch=0000.png") / 255
    assert shown.shape == (3, 2 * (32 + 2) + 2, 2 * (96 + 2) + 2)
    torch.testing.assert_close(shown[:, 36:68, 2:98], expected[2], atol=0.5 / 255 + 1e-6, rtol=0)

    batches = [rows, {"source": rows["source"]}]
    trainer = quiet_trainer(callbacks=[ImageWriter(str(tmp_path / "images"))])
    trainer.predict(model, torch.utils.data.DataLoader(batches, batch_size=None))
    files = [pixels(path) for path in sorted((tmp_path / "images").iterdir())]
    assert [file.shape[-1] for file in files] == [96] * 4 + [64] * 4
    torch.testing.assert_close(files[2] / 255, expected[2], atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(files[6], files[2][:, :, :64], atol=0, rtol=0)


def test_nothing_is_translated_without_a_source() -> None:
    with pytest.raises(LightningGenError, match="VAE takes none; take SampleGrid"):
        fit([TranslationGrid()], small_vae, epochs=1)


def test_a_folder_that_cannot_be_written_is_named_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    trainer = quiet_trainer(callbacks=[ImageWriter(str(tmp_path / "file" / "images"))])
    with pytest.raises(LightningGenError, match=r"cannot be written to .*file/images \(Not a directory\)"):
        trainer.predict(small_vae(), DigitsDataModule())


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    def write(text: str, fail: bool) -> None:
        with whole_file(tmp_path / "new" / "file.txt") as path:
            path.write_text(text)
            assert not fail, "half-written"

    with pytest.raises(AssertionError, match="half-written"):
        write("half", fail=True)
    assert list((tmp_path / "new").iterdir()) == []
    write("whole", fail=False)
    assert [path.read_text() for path in (tmp_path / "new").iterdir()] == ["whole"]


def test_colour_grey_and_videos(tmp_path: Path) -> None:
    for shape in [(1, 5, 7), (3, 5, 7)]:
        image = torch.rand(shape)
        write_png(image, tmp_path / "image.png")
        assert torch.equal(pixels(tmp_path / "image.png"), image.mul(255).round().byte())
    videos = torch.rand(4, 3, 6, 8, 8)  # (N, C, T, H, W)
    strip = image_grid(videos, num_columns=1, padding=0)
    assert torch.equal(strip[:, 8:16, 24:32], videos[1, :, 3])
