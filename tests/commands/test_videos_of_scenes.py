"""What the commands make of a VGAN's checkpoint: samples, streams, and a classifier."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from lightning_gen.cli import main
from lightning_gen.commands.draw import stream_canvases
from lightning_gen.commands.finetune import logistic_regression
from lightning_gen.datamodules import DigitScenesDataModule, DigitsDataModule
from lightning_gen.models import GAN, VGAN
from tests.digits import quiet_trainer
from tests.test_cli import one_line_error

DATA = {"image_size": 16, "digit_size": 8, "num_frames": 4, "epoch_size": 16, "held_out_size": 12, "batch_size": 8}


def checkpoint_of(folder: Path, **arguments: object) -> Path:
    torch.manual_seed(0)
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(VGAN((3, 4, 16, 16), base_channels=2, **arguments), datamodule=DigitScenesDataModule(**DATA))
    path = folder / "last.ckpt"
    trainer.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_of(tmp_path_factory.mktemp("vgan"))


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_of(tmp_path_factory.mktemp("conditional"), conditional=True)


def test_samples_after_loading_equal_samples_before(checkpoint: Path, tmp_path: Path) -> None:
    model = VGAN.load_from_checkpoint(checkpoint, weights_only=True)
    quiet_trainer().test(model, datamodule=DigitScenesDataModule(**DATA), verbose=False)
    again = VGAN.load_from_checkpoint(checkpoint, weights_only=True)
    before, after = (m.sample(3, generator=torch.Generator().manual_seed(1)) for m in (model, again))
    assert torch.equal(before, after)
    assert before.shape == (3, 3, 4, 16, 16)
    main(["sample", "--ckpt_path", str(checkpoint), "--num_samples", "2", "--output", str(tmp_path / "a.gif")])
    with Image.open(tmp_path / "a.gif") as film:
        assert film.is_animated
        assert film.size == (2 * 18 + 2, 20)


def test_streams_stand_beside_what_they_make(checkpoint: Path, tmp_path: Path) -> None:
    model = VGAN.load_from_checkpoint(checkpoint, weights_only=True)
    streams = model.sample_streams(3, generator=torch.Generator().manual_seed(0))
    foreground, mask, still, video = stream_canvases(*streams).split(16, -1)
    torch.testing.assert_close(foreground, streams.foreground.movedim(2, 0))
    torch.testing.assert_close(mask[:, :, 1], streams.mask.movedim(2, 0)[:, :, 0])
    torch.testing.assert_close(video, model.sample(3, generator=torch.Generator().manual_seed(0)).movedim(2, 0))
    assert all(torch.equal(frame, streams.background) for frame in still)
    for suffix in ("gif", "png"):
        output = tmp_path / f"streams.{suffix}"
        main(["draw", "--ckpt_path", str(checkpoint), "--output", str(output), "--num_samples", "2", "--scale", "1"])
        with Image.open(output) as picture:
            assert picture.size[0] >= 4 * 16


def test_a_still_frame_is_a_picture_or_of_the_test_clips(
    conditional: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (16, 16), "red").save(tmp_path / "still.png")
    command = ["sample", "--ckpt_path", str(conditional), "--num_samples", "2", "--output", str(tmp_path / "a.gif")]
    for options in ([], ["--condition.image", str(tmp_path / "still.png")]):
        main(command + options)
    main(["draw", *command[1:]])
    Image.new("RGB", (9, 16)).save(tmp_path / "still.png")
    error = one_line_error(capsys, *command, "--condition.image", str(tmp_path / "still.png"))
    assert "still frames of (3, 16, 9)" in error


def test_a_discriminator_becomes_a_classifier(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = VGAN.load_from_checkpoint(checkpoint, weights_only=True)
    network = model.discriminator.classifier(8)
    assert network[0] is model.discriminator.layers
    assert (network[1].p, network[2].kernel_size, network[2].out_channels) == (0.5, (1, 4, 4), 8)
    options = ["--num_labels", "10", "--steps", "2", "--num_seeds", "2"]
    main(["finetune", "--ckpt_path", str(checkpoint), *options])
    *rows, protocol = capsys.readouterr().out.strip().splitlines()[-5:]
    names = ["trained discriminator ", "random weights ", "trained discriminator, linear ", "random weights, linear "]
    assert all(row.startswith(name) for row, name in zip(rows, names, strict=True))
    assert protocol == "10 labelled videos, 8 classes, 2 steps of 10, 12 test videos (chance 12.5 %)."
    assert "expected 2 to 16" in one_line_error(
        capsys, "finetune", "--ckpt_path", str(checkpoint), "--num_labels", "17"
    )
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(GAN(hidden_size=4), datamodule=DigitsDataModule())
    trainer.save_checkpoint(tmp_path / "gan.ckpt")
    assert "a VGAN has" in one_line_error(capsys, "finetune", "--ckpt_path", str(tmp_path / "gan.ckpt"))


def test_logistic_regression_is_that_of_scikit_learn() -> None:
    machines = pytest.importorskip("sklearn.linear_model")
    data = DigitsDataModule()
    data.setup()
    rows = data.datasets["train"].__getitems__(range(60))
    x, labels = rows["image"].flatten(1).double() + 3, rows["label"]
    torch.set_default_dtype(torch.float64)
    try:
        ours = logistic_regression(x, labels, 10)
    finally:
        torch.set_default_dtype(torch.float32)
    scaled = (x - x.mean(0)) / x.std(0).clamp(min=1e-6)
    reference = machines.LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(scaled.numpy(), labels.numpy())
    with torch.no_grad():
        found = ours(x).softmax(1)[:, labels.unique()]
    torch.testing.assert_close(found, torch.from_numpy(reference.predict_proba(scaled.numpy())), rtol=0, atol=1e-3)
