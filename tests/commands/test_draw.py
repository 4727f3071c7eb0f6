"""The drawing as an animation and in rows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from lightning_gen.cli import main
from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.models import DRAW, LAPGAN
from tests.digits import quiet_trainer
from tests.test_cli import one_line_error

STEPS, SCALE, PADDING = 5, 2, 2
CELL = 28 * SCALE + PADDING


@pytest.fixture(scope="module")
def drawer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of five glimpses, hardly trained."""
    path = tmp_path_factory.mktemp("draw") / "draw.ckpt"
    torch.manual_seed(0)
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=0)
    trainer.fit(
        DRAW(num_glimpses=STEPS, hidden_size=16, latent_dim=3), datamodule=DigitsDataModule(binarization="dynamic")
    )
    trainer.save_checkpoint(path)
    return path


def command(drawer: Path, output: Path, *options: str) -> list[str]:
    return ["draw", "--ckpt_path", str(drawer), "--output", str(output), "--scale", str(SCALE), *options]


def cell(picture: Image.Image, row: int, column: int) -> np.ndarray:
    """One image of a grid, colour, `(H, W, 3)`, at its own size again."""
    top, left = row * CELL + PADDING, column * CELL + PADDING
    pixels = np.asarray(picture.convert("RGB"))[top : top + CELL - PADDING, left : left + CELL - PADDING]
    return pixels[::SCALE, ::SCALE].astype(int)


def grey(image: torch.Tensor) -> np.ndarray:
    return image.mul(255).round().expand(3, -1, -1).permute(1, 2, 0).numpy().astype(int)


def test_animation_has_a_frame_for_each_glimpse_and_ends_in_the_samples(drawer: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.gif"
    main(command(drawer, output, "--num_samples", "3", "--num_columns", "2", "--boxes", "false", "--seed", "4"))
    torch.manual_seed(4)
    canvases = DRAW.load_from_checkpoint(drawer, weights_only=True).draw(3).canvases
    with Image.open(output) as animation:
        assert animation.size == (2 * CELL + PADDING, 2 * CELL + PADDING)
        frames = [frame.copy() for frame in ImageSequence.Iterator(animation)]
    assert len(frames) == STEPS
    for frame, step in zip(frames, canvases, strict=True):
        for number in range(3):
            found = cell(frame, number // 2, number % 2)
            assert np.abs(found - grey(step[number])).max() <= 12  # A frame of a GIF has 256 colours.
    assert list(tmp_path.iterdir()) == [output]


def test_rows_begin_with_the_image_and_show_both_windows(drawer: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.png"
    main(command(drawer, output, "--num_samples", "2", "--num_columns", "3", "--redraw", "true"))
    picture = Image.open(output)
    assert picture.size == (4 * CELL + PADDING, 2 * CELL + PADDING)
    data = DigitsDataModule(binarization="dynamic")
    data.setup()
    for row, image in enumerate(data.datasets["test"].__getitems__([0, 1])["image"]):
        assert np.abs(cell(picture, row, 0) - grey(image)).max() <= 1
        for column in (1, 2, 3):
            pixels = cell(picture, row, column)
            red, blue = pixels[..., 0] - pixels[..., 2] > 150, pixels[..., 2] - pixels[..., 0] > 150
            assert red.any()
            assert blue.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_samples", "0"], "num_samples is 0; expected at least 1"),
        (["--num_samples", "501", "--redraw", "true"], "num_samples is 501; DigitsDataModule has 500 test images"),
        (["--output", "folder"], "expected .gif or .png."),
    ],
)
def test_bad_options(options: list[str], message: str, drawer: Path, tmp_path: Path, capsys) -> None:
    assert message in one_line_error(capsys, *command(drawer, tmp_path / "a.gif", *options))
    assert not list(tmp_path.iterdir())


def test_models_that_do_not_draw_are_named(checkpoint: Path, tmp_path: Path, capsys) -> None:
    error = one_line_error(capsys, *command(checkpoint, tmp_path / "a.gif"))
    assert "VAE does not draw step by step; a DRAW, a LAPGAN or a VGAN does" in error


def test_rows_of_a_pyramid_show_every_level(tmp_path: Path, capsys) -> None:
    path, output = tmp_path / "lapgan.ckpt", tmp_path / "a.png"
    torch.manual_seed(0)
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    model = LAPGAN((1, 28, 28), (7, 14, 28), class_conditional=True, hidden_sizes=(5, 5), channels=(1, 1))
    trainer.fit(model, datamodule=DigitsDataModule())
    trainer.save_checkpoint(path)
    main(command(path, output, "--num_samples", "2", "--condition.label", "3", "--seed", "4"))
    torch.manual_seed(4)
    stages = model.stages(2, {"label": torch.tensor([3, 3])})
    picture = Image.open(output)
    assert picture.size == (3 * CELL + PADDING, 2 * CELL + PADDING)
    for column, stage in enumerate(stages):
        repeats = 28 // stage.shape[-1]
        for row in range(2):
            image = stage[row].repeat_interleave(repeats, -1).repeat_interleave(repeats, -2)
            assert np.abs(cell(picture, row, column) - grey(image)).max() <= 1
    error = one_line_error(capsys, *command(path, tmp_path / "b.png", "--redraw", "true"))
    assert "LAPGAN draws no image again" in error
