"""Walks and sums in a model's latent space, as pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_gen.cli import main
from lightning_gen.models import VAE
from tests.test_cli import one_line_error

HEIGHT, WIDTH, PADDING = 8, 6, 2


def cell(picture: Path, row: int, column: int) -> np.ndarray:
    """One image of a grid, 8-bit."""
    top, left = (index * (size + PADDING) + PADDING for index, size in ((row, HEIGHT), (column, WIDTH)))
    return np.asarray(Image.open(picture))[top : top + HEIGHT, left : left + WIDTH, 0]


def images(model: VAE, z: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model.eval().decode(z)[:, 0].mul(255).round().byte().numpy()


def equal(ours: np.ndarray, expected: np.ndarray) -> bool:
    return np.abs(ours.astype(int) - expected.astype(int)).max() <= 1  # Rounding, in batches of another size.


@pytest.mark.parametrize("spherical", [False, True])
def test_walks_join_and_close(spherical, checkpoint, tmp_path):
    output = tmp_path / "walk.png"
    options = ["--num_points", "3", "--num_steps", "5", "--spherical", str(spherical).lower()]
    main(["interpolate", "--ckpt_path", str(checkpoint), "--output", str(output), *options])
    assert Image.open(output).size == (5 * (WIDTH + PADDING) + PADDING, 3 * (HEIGHT + PADDING) + PADDING)
    for row in range(3):
        assert equal(cell(output, row, 4), cell(output, (row + 1) % 3, 0))
    model = VAE.load_from_checkpoint(checkpoint, weights_only=True)
    torch.manual_seed(0)
    a, b, _ = model.sample_latent(3)
    middle = (a + b) / 2
    if spherical:  # Halfway on the arc between two vectors.
        angle = torch.acos(a @ b / a.norm() / b.norm())
        middle = (a + b) * (angle / 2).sin() / angle.sin()
    assert equal(cell(output, 0, 2), images(model, middle[None])[0])
    assert sorted(tmp_path.iterdir()) == [output]


def test_arithmetic_takes_numbers_from_the_grid_of_sample(checkpoint, tmp_path):
    grid, output = tmp_path / "grid.png", tmp_path / "sums.png"
    main(["sample", "--ckpt_path", str(checkpoint), "--num_samples", "16", "--output", str(grid), "--seed", "4"])
    kinds = {"start": [3, 8, 15], "minus": [0, 1], "plus": [9, 10, 11]}
    options = [text for name, numbers in kinds.items() for text in (f"--{name}", str(numbers))]
    common = ["--ckpt_path", str(checkpoint), "--num_samples", "16", "--seed", "4"]
    main(["arithmetic", *common, "--output", str(output), *options])
    assert Image.open(output).size == (9 * (WIDTH + PADDING) + PADDING, 3 * (HEIGHT + PADDING) + PADDING)
    model = VAE.load_from_checkpoint(checkpoint, weights_only=True)
    torch.manual_seed(4)
    z = model.sample_latent(16)
    means = [z[numbers].mean(0) for numbers in kinds.values()]
    for row, (numbers, mean) in enumerate(zip(kinds.values(), means, strict=True)):
        for column, number in enumerate(numbers):
            assert equal(cell(output, row, column), cell(grid, number // 8, number % 8))
        assert equal(cell(output, row, 4), images(model, mean[None])[0])
    assert (cell(output, 1, 2) == 255).all(), "two samples stand where others have three"
    result = means[0] - means[1] + means[2]
    assert equal(cell(output, 1, 7), images(model, result[None])[0])
    around = [cell(output, row, column) for row in range(3) for column in (6, 7, 8) if (row, column) != (1, 7)]
    assert len({image.tobytes() for image in around}) == 8


def test_no_noise_gives_nine_times_the_result(checkpoint, tmp_path):
    output = tmp_path / "sums.png"
    options = ["--start", "[0]", "--minus", "[1]", "--plus", "[2]", "--noise", "0"]
    main(["arithmetic", "--ckpt_path", str(checkpoint), "--output", str(output), *options])
    assert equal(cell(output, 0, 4), cell(output, 2, 6))


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("interpolate", ["--num_steps", "1"], "num_steps is 1; expected at least 2"),
        ("interpolate", ["--condition.label", "3"], "does not know the condition ['label']"),
        (
            "arithmetic",
            ["--start", "[64]", "--minus", "[0]", "--plus", "[1]"],
            "start is [64]; expected numbers from 0",
        ),
        ("arithmetic", ["--start", "[1]", "--minus", "[]", "--plus", "[1]"], "minus is []; expected numbers from 0"),
        ("interpolate", ["--output", "folder"], "expected .png."),
    ],
)
def test_bad_options(command, options, message, checkpoint, tmp_path, capsys):
    output = tmp_path / "walk.png"
    error = one_line_error(capsys, command, "--ckpt_path", str(checkpoint), "--output", str(output), *options)
    assert message in error
    assert not list(tmp_path.iterdir())


def test_models_without_noise_vectors_are_named(tmp_path, capsys):
    from lightning_gen.models import NADE
    from tests.digits import quiet_trainer

    path = tmp_path / "nade.ckpt"
    trainer = quiet_trainer(max_epochs=0)
    trainer.fit(NADE((1, 4, 4), hidden_size=4), torch.utils.data.DataLoader(torch.zeros(2, 1, 4, 4)))
    trainer.save_checkpoint(path)
    error = one_line_error(capsys, "interpolate", "--ckpt_path", str(path), "--output", str(tmp_path / "a.png"))
    assert "NADE has no noise vectors" in error
