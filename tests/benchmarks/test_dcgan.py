"""A DCGAN step, 64 x 64 in colour, batches of 64, both updates: ours over loops with the same networks.

Processor time of one thread, which other programs on the machine disturb less than the time on the wall.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_gen._lightning import Callback, LightningModule, Trainer
from lightning_gen.functional import discriminator_loss, non_saturating_loss
from lightning_gen.models import DCGAN
from tests.digits import quiet_trainer

STEPS, ROUNDS = 3, 3


class Clock(Callback):
    """Seconds between the end of the first batch, which checks its data, and the end of the last."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if args[-1] == 0:
            self.start = time.process_time()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = time.process_time() - self.start


def ours(model: DCGAN, images: Tensor, steps: int, precision: Any = "32-true") -> float:
    clock = Clock()
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0, callbacks=[clock], precision=precision)
    trainer.fit(model, DataLoader([images] * (steps + 1), batch_size=None))
    return clock.seconds / steps


def loop(model: DCGAN, images: Tensor, steps: int, g_runs: int) -> float:
    """Seconds a step of a plain loop, whose generator runs once or twice on the same noise."""
    optimizers = model.configure_optimizers()
    networks = [list(model.discriminator.parameters()), list(model.generator.parameters())]

    def update(index: int, loss: Tensor) -> None:
        for parameter, gradient in zip(networks[index], torch.autograd.grad(loss, networks[index]), strict=True):
            parameter.grad = gradient
        optimizers[index].step()

    for step in range(steps + 1):
        if step == 1:
            start = time.process_time()
        z = model.sample_latent(len(images))
        fake = model.decode(z)
        shown = fake.detach() if g_runs == 2 else fake
        update(0, 2 * discriminator_loss(model.discriminator(images), model.discriminator(shown)))
        fake = model.decode(z) if g_runs == 2 else fake
        update(1, non_saturating_loss(model.discriminator(fake)))
    return (time.process_time() - start) / steps


def channels_last_bf16(model: DCGAN, images: Tensor, steps: int) -> float:
    model = model.to(memory_format=torch.channels_last)
    seconds = ours(model, images.to(memory_format=torch.channels_last), steps, "bf16-mixed")
    model.to(memory_format=torch.contiguous_format)
    return seconds


@pytest.mark.benchmark(group="DCGAN step")
@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("the bare loop", lambda *args: loop(*args, g_runs=1)),
        ("the loop that runs G twice", lambda *args: loop(*args, g_runs=2)),
        ("ours in channels_last and bf16", channels_last_bf16),
    ],
    ids=["bare", "twice", "bf16"],
)
def test_dcgan_step(what: str, other: Callable[..., float], benchmark: Any) -> None:
    width, batch, steps, rounds = (64, 64, STEPS, ROUNDS) if benchmark.enabled else (2, 4, 1, 1)
    model, images = DCGAN(base_channels=width).train(), torch.rand(batch, 3, 64, 64)
    model.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    pairs = [(ours(model, images, steps), other(model, images, steps)) for _ in range(rounds)]
    ratio = statistics.median(a / b for a, b in pairs)
    benchmark.extra_info.update(ratio=ratio, ours=statistics.median(a for a, _ in pairs))
    print(f"\n{ratio:.3f} x {what}: {[(round(a, 3), round(b, 3)) for a, b in pairs]} s a step")
    benchmark.pedantic(ours, (model, images, 1), rounds=1)
