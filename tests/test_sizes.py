"""Pictures and videos that are no squares, from the command line: every model trains on them, or says what it takes."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from lightning_gen import models
from lightning_gen.cli import main
from lightning_gen.recipes import resolve_recipe
from tests.tiny import TINY

HEIGHT, WIDTH = 32, 64
KEYS = {  # By what a recipe on digits takes, a folder that has it.
    "DigitsDataModule": "ImageFolderDataModule",
    "ClutteredDigitsDataModule": "ImageFolderDataModule",
    "EdgesToDigitsDataModule": "PairedImageDataModule",
    "MovingDigitsDataModule": "VideoFolderDataModule",
    "DigitScenesDataModule": "VideoFolderDataModule",
}


FITTING = {  # Layers and numbers for such pictures.
    "DGNAM": {"generator_channels": ((4,), (4,), (4,))},
    "PPGN": {"generator_channels": ((4,), (4,), (4,))},
    "ImprovedGAN": {"num_labels": 20},
}


def data_of(name: str) -> str | None:
    """The data module of folders that a model can be trained on, None for those that need captions or boxes."""
    recipe = yaml.safe_load(Path(resolve_recipe(TINY[name][0])).read_text(encoding="utf-8"))
    return KEYS.get(recipe["data"]["class_path"].rpartition(".")[2])


NAMES = [name for name in TINY if data_of(name) and name != "ConvolutionalCGAN"]  # It takes attributes alone.
REFUSE = {
    "ACGAN",
    "ConditionalDCGAN",
    "DCGAN",
    "DigitClassifier",
    "LAPGAN",
    "MultiScalePixelRNN",
    "VGAN",
    "VGANAutoencoder",
}
QUICK = {"VAE", "Pix2Pix", "VPN", "DCGAN"}


def written(kind: str, folder: Path) -> list[str]:
    """Files in black and white, and the options of their data module."""
    generator = np.random.default_rng(0)
    options = ["--data", kind, "--data.root", str(folder), "--data.image_size", f"[{HEIGHT},{WIDTH}]"]
    if kind == "VideoFolderDataModule":
        frames = 255 * generator.integers(0, 2, (160, HEIGHT, WIDTH, 1), dtype=np.uint8).repeat(3, 3)
        np.savez(folder / "a.npz", frames=frames, offsets=[0, 160], names=["a"], fps=[25.0])
        return options
    for split in ("train", "val", "test"):
        for number in range(20):
            shape = (HEIGHT, 2 * WIDTH if kind == "PairedImageDataModule" else WIDTH)
            parent = folder / split / ("" if kind == "PairedImageDataModule" else str(number % 10))
            parent.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(255 * generator.integers(0, 2, shape, dtype=np.uint8))
            picture.save(parent / f"{number}.png")
    if kind == "PairedImageDataModule":
        return [*options, "--data.load_size", "null"]
    return [*options, "--data.channels", "1"]


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_a_model_trains_on_other_sizes_or_says_what_it_takes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe, model, _ = TINY[name]
    (tmp_path / "data").mkdir()
    kind = data_of(name) or ""
    options = written(kind, tmp_path / "data")
    full = yaml.safe_load(Path(resolve_recipe(recipe)).read_text(encoding="utf-8"))
    changed = tmp_path / "recipe.yaml"
    arguments = json.loads(json.dumps(model | FITTING.get(name, {})))
    accepted = inspect.signature(getattr(models, name)).parameters
    kept = {key: value for key, value in full["model"].get("init_args", {}).items() if key in accepted}
    full["model"] = {"class_path": f"lightning_gen.models.{name}", "init_args": kept | arguments}
    full.pop("data")
    full["trainer"] = {"fast_dev_run": True, "accelerator": "cpu", "enable_progress_bar": False, "callbacks": []}
    changed.write_text(yaml.safe_dump(full), encoding="utf-8")
    command = ["fit", "--config", str(changed), *options, "--data.batch_size", "20"]
    try:
        main(command)
    except SystemExit:
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert name in REFUSE, error
        assert str(HEIGHT) in error or "image_shape" in error, error
    else:
        assert name not in REFUSE
