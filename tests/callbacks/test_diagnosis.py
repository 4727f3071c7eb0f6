"""Planted failures on real digits are named within an epoch, and healthy trainings pass."""

import re
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gen.callbacks import Diagnosis
from lightning_gen.errors import LightningGenError
from lightning_gen.models import GAN, GenerativeModule
from tests.callbacks.runs import small_vae
from tests.digits import train_on_digits

WORDS = ("broken down", "zero loss", "is stuck", "collapsed", "nearly all alike")
FINDS = {
    "broken": "a loss is not finite.*model.lr ten times smaller",
    "zero loss": "The discriminator is at zero loss: .* over 40 batches.*Try model.input_noise=0.1",
    "stuck": "loss is stuck at 0.69.. nats over 40 batches.*Try a model.lr",
    "collapsed": "The generator has collapsed: the variance of 100 samples is .* of as many real images 5.*Try",
}


def diagnose(
    model: GenerativeModule, diagnosis: Diagnosis | None = None, epochs: int = 1, **arguments: Any
) -> tuple[dict[str, int], list[str]]:
    """Train on 4,000 digits an epoch; what was found, and the warnings."""
    diagnosis = diagnosis or Diagnosis(**arguments)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train_on_digits(model, epochs, "none", callbacks=[diagnosis])
    return diagnosis.findings, [str(w.message) for w in caught if any(kind in str(w.message) for kind in WORDS)]


def gan(**arguments: Any) -> GAN:
    torch.manual_seed(0)
    return GAN(**{"hidden_size": 128, "maxout_units": 64, **arguments})


class Constant(nn.Module):
    """One image, learned."""

    def __init__(self, output: nn.Linear) -> None:
        super().__init__()
        self.output = output

    def forward(self, z: Tensor) -> Tensor:
        return self.output(torch.ones(len(z), self.output.in_features)).sigmoid().view(-1, 1, 28, 28)


class FrozenAtZero(GAN):
    """The discriminator knows real digits by a black corner that generated ones lack, and is not moved."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.discriminator = Corner()


class Corner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.0))

    def forward(self, images: Tensor) -> Tensor:
        sure = torch.where(images[:, 0, 0, :1] > 0, -10.0, 10.0)  # Generated pixels are never quite black.
        return sure + 0 * (self.scale + images.sum())


def constant() -> GAN:
    model = gan()
    model.generator = Constant(model.generator.output)
    return model


@pytest.mark.parametrize(
    ("make", "finding"),
    [
        (constant, "collapsed"),
        (lambda: gan(lr=10.0), "broken"),
        (lambda: FrozenAtZero(hidden_size=128), "zero loss"),
        (lambda: gan(lr=1e-12, lr_min=0.0), "stuck"),
    ],
    ids=["constant generator", "learning rate x 100", "discriminator at zero loss", "no learning"],
)
def test_planted_failures_are_named_within_an_epoch(make: Any, finding: str) -> None:
    findings, messages = diagnose(make())
    assert findings[finding] == 0
    (message,) = [text for text in messages if WORDS[list(FINDS).index(finding)] in text]
    assert re.search(FINDS[finding], message), message


def test_a_generator_that_loses_its_variety_has_collapsed() -> None:
    class Collapses(GAN):
        def on_train_epoch_end(self) -> None:
            if self.current_epoch == 0:
                self.generator.hidden1.weight.data *= 0.1  # Noise reaches the image no more.

    torch.manual_seed(0)
    model = Collapses(hidden_size=128, maxout_units=64, lr=0.001)
    for layer in (model.generator.hidden1, model.generator.hidden2, model.generator.output):
        nn.init.normal_(layer.weight, std=0.2)
    findings, _ = diagnose(model, epochs=2)
    assert findings["collapsed"] == 1, "not in the first epoch"


def test_each_warning_comes_once() -> None:
    findings, messages = diagnose(constant(), epochs=3, every_n_batches=40)
    assert findings == {"collapsed": 0}
    assert len(messages) == 1


def test_a_slow_start_is_no_failure() -> None:
    """The published weights are so small that for four epochs the loss leaves log 2 in the third digit alone."""
    epochs = []

    class Watched(Diagnosis):
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            epochs.append(dict(self.findings))
            super().on_train_end(trainer, pl_module)

    findings, messages = diagnose(gan(), Watched(), epochs=4)
    assert epochs == [{}], "while it trains"
    assert findings == {"alike": 4}
    assert len(messages) == 1
    assert re.search(
        r"pixels deviate by [\d.]+ of 255 from sample to sample, those of real images by \d\d", messages[0]
    )


class Grey(GAN):
    """Textures that hardly differ."""

    def _sample(self, num_samples: int, condition: Any, generator: torch.Generator | None) -> Tensor:
        return super()._sample(num_samples, condition, generator) * 0 + 0.5 + 0.02 * torch.rand(num_samples, 1, 28, 28)


def test_samples_that_stay_alike_are_named_once_it_is_no_slow_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Diagnosis, "SLOW_START", 80)
    torch.manual_seed(0)
    findings, messages = diagnose(Grey(hidden_size=128, maxout_units=64), epochs=3)
    assert findings == {"alike": 1}
    assert len(messages) == 1


def test_of_a_trial_run_nothing_is_said() -> None:
    diagnosis = Diagnosis()
    train_on_digits(constant(), 1, "none", callbacks=[diagnosis], limit_train_batches=3)
    assert not diagnosis.findings


def test_it_reads_the_device_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    look = Diagnosis._look_at_losses
    monkeypatch.setattr(Diagnosis, "_look_at_losses", lambda *args: looks.append(1) or look(*args))
    diagnose(gan(), epochs=2)
    assert len(looks) == 2


def test_models_without_the_two_losses_are_refused() -> None:
    with pytest.raises(LightningGenError, match="train/loss_d and train/loss_g, which VAE does not log"):
        diagnose(small_vae(decoder="gaussian"))


def test_a_window_too_short_to_judge_is_refused() -> None:
    with pytest.raises(LightningGenError, match="every_n_batches=5; expected at least 40"):
        Diagnosis(5)
