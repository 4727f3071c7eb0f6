"""Training killed at random moments, of one model of each kind: what is resumed ends where nothing was killed."""

import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_gen._lightning import pl
from lightning_gen.callbacks import EMA, RandomState, SampleEvaluation
from lightning_gen.checkpoints import WholeCheckpoints
from lightning_gen.models import ACGAN, DCGAN, DRAW, GAN, GMMN, NADE, VAE, GenerativeModule, ImprovedGAN, PixelRNN
from tests.callbacks.runs import MeanPixel, assert_bit_equal, fit

KINDS: dict[str, Callable[[], GenerativeModule]] = {
    "latent variables": lambda: VAE(hidden_size=16, latent_dim=2, num_importance_samples=5),
    "recurrent": lambda: DRAW(num_glimpses=3, hidden_size=16, latent_dim=3, num_importance_samples=1),
    "autoregressive": lambda: NADE(hidden_size=16),
    "pixel by pixel": lambda: PixelRNN(variant="pixelcnn", num_layers=1, hidden_size=4),
    "moment matching, in phases": lambda: GMMN(
        hidden_sizes=(16,), code_sizes=(8, 4), pretraining_steps=3, finetuning_steps=5, bandwidths=None
    ),
    "adversarial, with dropout": lambda: GAN(hidden_size=16, latent_dim=4, maxout_units=8, maxout_pieces=2),
    "adversarial, with batch statistics": lambda: DCGAN((1, 28, 28), latent_dim=4, base_channels=2),
    "adversarial, with labels": lambda: ACGAN(
        (1, 28, 28), latent_dim=4, generator_channels=(8, 4), discriminator_channels=(2, 4, 4)
    ),
    "semi-supervised": lambda: ImprovedGAN(num_labels=100),
}
EPOCHS = 4


def train(kind: str, folder: Path) -> None:
    """Four epochs of six batches; goes on from `last.ckpt` if there is one, and leaves `end.pt`."""
    torch.set_num_threads(1)
    last = folder / "last.ckpt"
    save = pl.callbacks.ModelCheckpoint(folder, save_last=True, save_on_train_epoch_end=True)
    fit(
        [RandomState(), EMA(0.9), SampleEvaluation([MeanPixel()], num_samples=10), save],
        KINDS[kind],
        epochs=EPOCHS,
        ckpt_path=last if last.exists() else None,
        default_root_dir=folder,
        enable_checkpointing=True,
        plugins=[WholeCheckpoints()],
    )
    torch.save(torch.load(last, weights_only=True), folder / "end.pt")


def killed(kind: str, folder: Path, after: float) -> bool:
    """Train in another process and kill it; whether it had not ended by then."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_kills"])
    process = context.Process(target=train, args=(kind, folder))
    process.start()
    process.join(after)
    running = process.is_alive()
    process.kill()
    process.join()
    return running


@pytest.mark.slow
def test_killed_twenty_times(tmp_path: Path) -> None:
    """Each kind at least twice, at moments drawn with a seed; a run is resumed until it ends."""
    moments = random.Random(0)
    kills = 0
    while kills < 20:
        for kind in KINDS:
            straight, broken = (tmp_path / f"{name} {kind} {kills}" for name in ("straight", "broken"))
            for folder in (straight, broken):
                folder.mkdir()
            begun = time.monotonic()
            assert not killed(kind, straight, 600)
            takes = time.monotonic() - begun
            for _ in range(3):
                kills += killed(kind, broken, moments.uniform(0, takes))
            assert not killed(kind, broken, 600)
            ends = [torch.load(folder / "end.pt", weights_only=True) for folder in (straight, broken)]
            assert_bit_equal(ends[0]["state_dict"], ends[1]["state_dict"])
            training = [end["callbacks"]["EMA"]["training_weights"] for end in ends]
            assert_bit_equal(*training)
            assert not list(broken.glob(".*")), "half a file"
