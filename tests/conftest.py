"""A run of the command line that several tests look at, and Ctrl-C for the processes that tests start."""

import signal
from pathlib import Path

import pytest

from lightning_gen.cli import main

# A job in a shell's background ignores Ctrl-C, and so would the processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

QUIET = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
QUIET += ["--trainer.enable_model_summary", "false"]
MODEL = ["--model", "VAE", "--model.decoder", "gaussian", "--model.hidden_size", "9"]
DATA = ["--data", "FakeDataModule", "--data.image_shape", "[1,8,6]", "--data.num_samples", "32"]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last.ckpt of a VAE trained for one epoch on random (1, 8, 6) images, with grids drawn."""
    folder = tmp_path_factory.mktemp("run")
    grid = ["--trainer.callbacks+=lightning_gen.callbacks.SampleGrid", "--trainer.callbacks.num_samples", "4"]
    main(["fit", *MODEL, *DATA, *QUIET, *grid, "--trainer.max_epochs", "1", "--trainer.default_root_dir", str(folder)])
    return folder / "vae_fake" / "version_0" / "checkpoints" / "last.ckpt"
