"""Training killed at random moments, of one model of each kind: what is resumed ends where nothing was killed."""

import multiprocessing
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gen._lightning import Callback, pl, seed_everything
from lightning_gen.callbacks import EMA, KeepPlace, RandomState, SampleEvaluation
from lightning_gen.checkpoints import WholeCheckpoints
from tests.callbacks.runs import MeanPixel, assert_bit_equal
from tests.digits import quiet_trainer
from tests.tiny import tiny

KINDS = {
    "latent variables": "VAE",
    "recurrent": "DRAW",
    "autoregressive": "NADE",
    "pixel by pixel": "PixelRNN",
    "of videos, pixel by pixel": "VPN",
    "moment matching, in phases": "GMMN",
    "adversarial, with dropout": "GAN",
    "adversarial, with batch statistics": "DCGAN",
    "adversarial, with labels": "ACGAN",
    "on several scales": "LAPGAN",
    "semi-supervised": "ImprovedGAN",
    "from images": "Pix2Pix",
    "from captions": "GANINTCLS",
    "from places": "GAWWN",
    "of places": "KeypointGAN",
    "of videos": "VGAN",
    "steered by a classifier": "PPGN",
    "to captions": "Captioner",
    "by expectation and maximisation": "BernoulliMixture",
}


class Kill(Callback):
    """Kills the process a moment after the beginning of a batch, counted from where this process began."""

    def __init__(self, batch: int, seconds: float) -> None:
        self.batches_left = batch
        self.seconds = seconds

    def on_train_batch_start(self, *_: Any) -> None:
        self.batches_left -= 1
        if self.batches_left == 0:
            threading.Timer(self.seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()


def train(name: str, place: bool, folder: Path, *others: Callback) -> None:
    """Three epochs of seven batches; goes on from `last.ckpt` if there is one, and leaves `end.pt`.

    With `place` it keeps its place in the data, and saves within epochs: one, two or three steps a batch never make a
    multiple of five at the end of an epoch.
    """
    torch.set_num_threads(1)
    seed_everything(7, verbose=False)
    model, data = tiny(name)
    last = folder / "last.ckpt"
    callbacks = [*others, RandomState(), EMA(0.9), pl.callbacks.ModelCheckpoint(folder, save_last=True)]
    if place:
        callbacks[-1] = pl.callbacks.ModelCheckpoint(folder, save_last=True, every_n_train_steps=5)
        callbacks.append(KeepPlace())
    if getattr(model, "data_key", "") == "image" and hasattr(model, "sample"):
        callbacks.append(SampleEvaluation([MeanPixel()], num_samples=10))
    trainer = quiet_trainer(
        max_epochs=3,
        limit_train_batches=7,
        limit_val_batches=2,
        num_sanity_val_steps=1,
        callbacks=callbacks,
        default_root_dir=folder,
        enable_checkpointing=True,
        plugins=[WholeCheckpoints()],
    )
    trainer.fit(model, datamodule=data, ckpt_path=last if last.exists() else None)
    trainer.save_checkpoint(folder / "end.pt")


def run(*arguments: Any) -> int:
    """Train in another process; its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_kills"])
    process = context.Process(target=train, args=arguments)
    process.start()
    process.join(600)
    assert process.exitcode is not None
    return process.exitcode


@pytest.mark.slow
@pytest.mark.parametrize("place", [False, True], ids=["from the end of an epoch", "from within an epoch"])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_resumed(kind: str, place: bool, tmp_path: Path) -> None:
    """Twice, at moments drawn with a seed, and resumed each time."""
    if place:
        pytest.importorskip("torchdata")
        if kind == "by expectation and maximisation":
            pytest.skip("an epoch is one step, whose sums so far are not in checkpoints")
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    for folder in (straight, broken):
        folder.mkdir()
    moments = random.Random(f"{kind} {place}")
    codes = [run(KINDS[kind], place, broken, Kill(moments.randint(1, 9), 0.1 * moments.random())) for _ in range(2)]
    assert codes == [-signal.SIGKILL] * 2
    assert run(KINDS[kind], place, broken) == run(KINDS[kind], place, straight) == 0
    ends = [torch.load(folder / "end.pt", weights_only=True) for folder in (straight, broken)]
    assert_bit_equal(ends[0]["state_dict"], ends[1]["state_dict"])
    assert_bit_equal(*(end["callbacks"]["EMA"]["training_weights"] for end in ends))
    assert not list(broken.glob(".*")), "half a file"
