"""What is wrong with an adversarial training, while there is time to stop it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_gen._lightning import Callback, LightningModule, Trainer, pl
from lightning_gen.arguments import Size, check_arguments
from lightning_gen.callbacks.randomness import own_randomness
from lightning_gen.errors import LightningGenError
from lightning_gen.models.base import as_batch

LOSSES = ("train/loss_d", "train/loss_g")

ADVICE = {
    "broken": "Try a model.lr ten times smaller, or model.gradient_clip_val=1.",
    "zero loss": (
        "Real and generated images are told apart without a doubt, and the generator has little to learn from. Try "
        "model.input_noise=0.1, model.label_smoothing=0.1, a smaller or more slowly learning discriminator, or look "
        "for what gives generated images away, such as their range."
    ),
    "stuck": (
        "Nothing is being learned. Try a model.lr ten times larger or smaller, larger first weights, and look whether "
        "the networks' parameters are given to the optimizers and whether units are dead."
    ),
    "collapsed": (
        "Whatever the noise, the image is the same. Try a smaller model.lr, model.input_noise=0.1, minibatch "
        "discrimination (ImprovedGAN), or go on from the last checkpoint before it with another seed."
    ),
    "alike": (
        "What is drawn hardly depends on the noise: train longer, which a small data set takes more epochs for. If it "
        "stays so, try a model.lr ten times larger or smaller, and a convolutional model (DCGAN) for photographs."
    ),
}


def has_trend(values: Tensor) -> bool:
    """Whether a straight line through values in time rises or falls by more than four of its standard errors."""
    time = torch.linspace(-1, 1, len(values), dtype=values.dtype)
    deviations = values - values.mean()
    slope = (time @ deviations) / (time @ time)
    error = ((deviations - slope * time).square().sum() / (len(values) - 2) / (time @ time)).sqrt()
    return bool(slope.abs() > 4 * error)


class Diagnosis(Callback):
    """Name the ways in which adversarial training is known to fail, and say what to try: one warning for each.

    It looks at the discriminator's and the generator's losses, which the model logs as `train/loss_d`, a
    cross-entropy in nats, and `train/loss_g`, at every batch; and at samples under the conditions of the last one.
    The device is waited for only at the end of each epoch, or every `every_n_batches` in longer ones; losses of shorter
    epochs than 40 batches are put together. In such a window

    - training is *broken* if a loss is not finite (`NanGuard` also stops it);
    - the discriminator is at *zero loss* if its loss is below 0.01 nats in every batch;
    - it is *stuck* if its loss stays within 0.01 nats of its first value, without a trend: a slow start has one;
    - the generator has *collapsed* if samples are equal: their variance is below a millionth of that of real images;
      or if they have lost their variety: their variance once reached a tenth of that of real images, and has fallen to
      a tenth of its largest value;
    - samples are *alike* if their variance is below a fiftieth of that of real images, after 1,000 batches or where
      training ends. (Before that it is no failure: many generators begin so.)

    Of fewer than 40 batches in all nothing is said.

    Training is bit-equal with and without it. On several ranks the first one speaks for its own share.

    Args:
        every_n_batches: the longest window.

    Attributes:
        findings: what was found in this `fit`: `broken`, `zero loss`, `stuck`, `collapsed` or `alike`, and the epoch.

    Raises:
        LightningGenError: if a window is shorter than it takes to judge.
    """

    MIN_WINDOW = 40  # batches, to tell a trend from noise
    SLOW_START = 1000  # batches

    def __init__(self, every_n_batches: Size = 200) -> None:
        check_arguments(Diagnosis.__init__, locals())
        if every_n_batches < self.MIN_WINDOW:
            raise LightningGenError(
                f"Diagnosis got every_n_batches={every_n_batches}; expected at least {self.MIN_WINDOW}, to "
                "tell a trend from noise."
            )
        self.every_n_batches = every_n_batches
        self.findings: dict[str, int] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.findings.clear()
        self._losses: list[Tensor] = []  # (loss_d, loss_g) of each batch in the window
        self._first: float | None = None  # loss_d of the first batch
        self._largest_variance = 0.0  # of the samples, so far
        self._batches = 0
        self._alike = ""  # What is to be said of samples that hardly vary; empty if they do.

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero or not getattr(pl_module, "is_playing", True) or trainer.barebones:
            return  # Nothing is logged in a barebones run.
        losses = [trainer.callback_metrics[name] for name in LOSSES if name in trainer.callback_metrics]
        if len(losses) < len(LOSSES):
            raise LightningGenError(
                f"Diagnosis reads {' and '.join(LOSSES)}, which {type(pl_module).__name__} does not log; it is for "
                "adversarial models alone."
            )
        self._losses.append(torch.stack(losses).detach())
        self._batches += 1
        if trainer.is_last_batch or len(self._losses) >= self.every_n_batches:
            self._look_at_samples(trainer, pl_module, as_batch(batch))
            if len(self._losses) >= self.MIN_WINDOW:
                self._look_at_losses(trainer)
                self._losses.clear()

    def _look_at_losses(self, trainer: Trainer) -> None:
        losses = torch.stack(self._losses).double().cpu()  # (batches, 2)
        loss_d = losses[:, 0]
        self._first = loss_d[0].item() if self._first is None else self._first
        if not losses.isfinite().all():
            self._report(trainer, "broken", "Training has broken down: a loss is not finite.")
        over = f"over {len(loss_d)} batches"
        if loss_d.max() < 0.01:
            self._report(
                trainer, "zero loss", f"The discriminator is at zero loss: {loss_d.max():.2g} nats at most {over}."
            )
        if (loss_d - self._first).abs().max() < 0.01 and not has_trend(loss_d):
            self._report(trainer, "stuck", f"The discriminator's loss is stuck at {self._first:.4f} nats {over}.")

    def _look_at_samples(self, trainer: Trainer, module: Any, batch: dict[str, Any]) -> None:
        real = batch[module.data_key]
        if len(real) < 2:
            return
        condition = {key: batch[key] for key in module.condition_keys}
        with own_randomness(0, module.device), trainer.precision_plugin.forward_context():
            samples = module.sample(len(real), condition or None)
        variance, of_real = (images.float().flatten(1).var(0).sum().item() for images in (samples, real))
        self._largest_variance = max(self._largest_variance, variance)
        lost = self._largest_variance > 0.1 * of_real and variance < 0.1 * self._largest_variance
        self._alike = ""
        if variance < 0.02 * of_real:
            deviation, of_real_images = (255 * (whole / real[0].numel()) ** 0.5 for whole in (variance, of_real))
            self._alike = (
                f"Samples are nearly all alike: their pixels deviate by {deviation:.2g} of 255 from sample to sample, "
                f"those of real images by {of_real_images:.2g}."
            )
        if self._batches >= self.MIN_WINDOW and (lost or variance < 1e-6 * of_real):
            self._report(
                trainer,
                "collapsed",
                f"The generator has collapsed: the variance of {len(real)} samples is {variance:.2g}, of as many real "
                f"images {of_real:.2g}.",
            )
        if self._batches >= self.SLOW_START:
            self._report_alike(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._batches >= self.MIN_WINDOW:
            self._report_alike(trainer)

    def _report_alike(self, trainer: Trainer) -> None:
        if self._alike and "collapsed" not in self.findings:
            self._report(trainer, "alike", self._alike)

    def _report(self, trainer: Trainer, kind: str, what: str) -> None:
        if kind not in self.findings:
            self.findings[kind] = trainer.current_epoch
            pl.utilities.rank_zero_warn(f"{what} (epoch {trainer.current_epoch}) {ADVICE[kind]}")
