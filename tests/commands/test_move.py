"""Strips of places that move, from a checkpoint alone; places typed to `sample`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_gen.cli import main
from lightning_gen.models import GAWWN, KeypointGAN
from tests.digits import quiet_trainer
from tests.models.test_gawwn import BAG
from tests.test_cli import one_line_error

TEXT = ["--condition.caption", "a red seven"]


def saved(model: Any, path: Path) -> str:
    trainer = quiet_trainer()
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path, weights_only=True)
    return str(path)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A GAWWN for boxes, one for two keypoints, and a generator of these."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("places")
    sizes: dict[str, Any] = {**BAG, "base_channels": 4, "discriminator_channels": 4}
    return {
        "box": saved(GAWWN((3, 16, 16), "box", map_size=8, **sizes), folder / "box.ckpt"),
        "keypoints": saved(GAWWN((3, 16, 16), "keypoints", 2, map_size=8, **sizes), folder / "keypoints.ckpt"),
        "generator": saved(KeypointGAN(2, **sizes), folder / "generator.ckpt"),
    }


def test_a_box_moves(places: dict[str, str], tmp_path: Path) -> None:
    output = tmp_path / "strip.png"
    ending = ["--output", str(output)]
    way = ["--condition.box", "[0, 0, 0.5, 0.5]", "--to.box", "[0.5, 0, 0.5, 0.5]"]
    main(["move", "--ckpt_path", places["box"], *TEXT, *way, "--num_samples", "2", "--num_steps", "3", *ending])
    picture = np.asarray(Image.open(output))
    assert picture.shape == (3 * 18 + 2, 3 * 18 + 2, 3)
    first, last = picture[2:18, 2:18, 0], picture[2:18, 38:54, 0]
    assert first[3, 3] == last[3, 12] == 255
    assert first[3, 12] == last[3, 3] == first[12, 3] == 0
    model = GAWWN.load_from_checkpoint(places["box"]).eval()
    torch.manual_seed(0)
    z = model.sample_latent(2)
    half = {"caption": ["a red seven"], "box": torch.tensor([[0.25, 0.0, 0.5, 0.5]])}
    expected = model.decode(z[1:], half)[0].mul(255).round().permute(1, 2, 0).detach().numpy()
    np.testing.assert_allclose(picture[38:54, 20:36], expected, atol=1)


def test_keypoints_are_dragged(places: dict[str, str], tmp_path: Path) -> None:
    way = ["--condition.keypoints", "[[0.1,0.1,1],[0.9,0.9,1]]", "--to.keypoints", "[[0.9,0.1,1],[0.9,0.9,1]]"]
    output = tmp_path / "strip.png"
    main(["move", "--ckpt_path", places["keypoints"], *TEXT, *way, "--num_samples", "1", "--output", str(output)])
    assert Image.open(output).size == (8 * 18 + 2, 2 * 18 + 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to.box", "[0,0,1,1]"], "A way from ['caption'] to ['box']"),
        (["--condition.box", "[0,0,1,1]"], "A way from ['box', 'caption'] to []"),
        (["--condition.box", "[0,0,1,1]", "--to.box", "[0,0,1]"], "differ in how many numbers"),
        (["--condition.box", "[0,0,1,1]", "--to.box", "[0.5,0,1,1]"], "reaches beyond the image"),
        (["--condition.box", "[0,0,1,1]", "--to.box", "[0,0,1,1]", "--num_steps", "1"], "num_steps is 1"),
    ],
)
def test_ways_that_are_none(
    options: list[str], message: str, places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "strip.png")
    assert message in one_line_error(capsys, "move", "--ckpt_path", places["box"], *TEXT, *options, "--output", output)
    assert not list(tmp_path.iterdir())


def test_places_are_typed(places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "grid.png"
    ending = ["--num_samples", "2", "--output", str(output)]
    main(["sample", "--ckpt_path", places["box"], *TEXT, "--condition.box", "[0.1, 0.1, 0.4, 0.4]", *ending])
    main(["sample", "--ckpt_path", places["keypoints"], *TEXT, "--condition.keypoints", "[[0,1,1],[0,0,0]]", *ending])
    main(["sample", "--ckpt_path", places["generator"], *TEXT, *ending])
    main(["sample", "--ckpt_path", places["generator"], *TEXT, "--condition.keypoints", "[[0.5,0.5,1],null]", *ending])
    pixels = np.asarray(Image.open(output))[2:34, 2:34, 0]
    assert pixels[15, 15] == 255
    output.unlink()
    wrong = ["--condition.keypoints", "[[0.5,0.5],null]"]
    error = one_line_error(capsys, "sample", "--ckpt_path", places["generator"], *TEXT, *wrong, *ending)
    assert "Keypoint 0 is [0.5, 0.5]; expected [x, y, 1], [0, 0, 0] or null." in error
    error = one_line_error(capsys, "sample", "--ckpt_path", places["box"], *TEXT, *ending)
    assert "needs the condition ['box']" in error
