"""Mixed precision against float32, of every model on digits."""

import pytest
import torch

import lightning_gen
from lightning_gen._lightning import Callback, seed_everything
from tests.digits import quiet_trainer
from tests.tiny import TINY, tiny

LOSSES = ("train/loss", "train/loss_d", "train/loss_g")
CHAOTIC = {  # A rounding of the first weights sends them elsewhere; configs/trainer/README.md has the figures.
    "ACGAN",
    "DCGAN",
    "GANINTCLS",
    "GAWWN",
    "ImprovedGAN",
    "PixelRNN",
    "VGAN",
}


class Losses(Callback):
    """The logged losses of 100 batches; the first weights may be rounded to 16 bits."""

    def __init__(self, rounds: bool = False) -> None:
        self.rounds = rounds
        self.batches: list[dict[str, torch.Tensor]] = []

    def on_train_start(self, trainer, pl_module):
        for parameter in pl_module.parameters() if self.rounds else ():
            parameter.data.copy_(parameter.data.bfloat16())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        logged = trainer.callback_metrics
        self.batches.append({name: logged[name].clone() for name in LOSSES if name in logged})
        trainer.should_stop = len(self.batches) >= 100

    def means(self) -> dict[str, float]:
        """Of the last 20 batches; a mixture logs its loss once an epoch."""
        late = self.batches[-20:]
        names = {name for batch in late for name in batch}
        return {name: torch.stack([batch[name] for batch in late if name in batch]).mean().item() for name in names}


def train(name: str, precision: str, rounds: bool = False) -> dict[str, float]:
    seed_everything(0, verbose=False)
    model, data = tiny(name)
    data.setup("fit")
    epochs = -(-100 // len(data.train_dataloader()))  # Some schedules want to know how long it will be.
    seed_everything(0, verbose=False)
    losses = Losses(rounds)
    quiet_trainer(max_epochs=epochs, limit_val_batches=0, precision=precision, callbacks=[losses]).fit(model, data)
    return losses.means()


def test_every_model_is_here() -> None:
    assert set(TINY) == set(lightning_gen.__all__)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_mixed_precision_has_the_loss_of_float32(name: str) -> None:
    full, mixed = train(name, "32-true"), train(name, "bf16-mixed")
    assert full.keys() == mixed.keys() != set()
    if name in CHAOTIC:
        rounded = train(name, "32-true", rounds=True)
        apart = {key: (mixed[key] / full[key] - 1, rounded[key] / full[key] - 1) for key in full}
        assert any(abs(once) > 0.002 for _, once in apart.values()), f"not chaotic: {apart}"
    else:
        for key, value in full.items():
            assert mixed[key] == pytest.approx(value, rel=0.01), key
