from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen._lightning import Callback, pl
from lightning_gen.callbacks import EMA, RandomState, SampleEvaluation
from lightning_gen.errors import LightningGenError
from lightning_gen.models import DCGAN, GAN
from tests.callbacks.runs import MeanPixel, assert_bit_equal, fit, small_gan, small_vae


class Record(Callback):
    """The weights after each batch, and those that validation sees."""

    def __init__(self) -> None:
        self.batches: list[dict[str, Tensor]] = []
        self.validated: dict[str, Tensor] = {}

    def _weights(self, module: torch.nn.Module) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in module.state_dict().items()}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.batches.append(self._weights(pl_module))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.batches.append(self._weights(pl_module))

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.validated = self._weights(pl_module)


def average(history: list[Tensor], decay: float) -> Tensor:
    mean = history[0].double()
    for n, value in enumerate(history[1:], start=1):
        d = min(decay, (1 + n) / (10 + n))
        mean = d * mean + (1 - d) * value.double()
    return mean


@pytest.mark.parametrize(("make_model", "decay"), [(small_vae, 0.3), (small_gan, 0.999)])
def test_it_validates_the_average_of_every_batch(make_model: Any, decay: float, tmp_path: Path) -> None:
    record = Record()
    trainer = fit([EMA(decay), record], make_model, default_root_dir=tmp_path)
    assert len(record.batches) == 1 + 12, "one for each batch, whatever the number of optimizers"
    for name, value in record.validated.items():
        history = [batch[name] for batch in record.batches]
        if "discriminator" in name or name == "initialized":
            assert torch.equal(value, history[-1]), f"{name} is not sampled from and was averaged"
        else:
            moved = (history[-1] - history[0]).abs().max()
            error = (value.double() - average(history, decay)).abs().max()
            assert error < 0.01 * moved + 1e-7, f"{name}: off by {error:g} after moving {moved:g}"
            assert not torch.equal(value, history[-1])
    assert_bit_equal(dict(trainer.lightning_module.state_dict()), record.validated)


def test_running_statistics_are_averaged_as_the_weights_are(tmp_path: Path) -> None:
    """Those of the training weights would not fit the averages; a counter of batches is no statistic."""

    def make_model() -> DCGAN:
        return DCGAN((1, 28, 28), latent_dim=4, base_channels=2)

    record = Record()
    fit([EMA(0.5), record], make_model, default_root_dir=tmp_path)
    for name in ("generator.1.running_mean", "generator.1.running_var", "generator.5.running_var"):
        history = [batch[name] for batch in record.batches]
        torch.testing.assert_close(record.validated[name].double(), average(history, 0.5), rtol=1e-5, atol=1e-6)
        assert not torch.equal(record.validated[name], history[-1])
    for name in ("generator.1.num_batches_tracked", "discriminator.layers.1.1.running_mean"):
        assert torch.equal(record.validated[name], record.batches[-1][name])


def test_modules_are_chosen_by_name(tmp_path: Path) -> None:
    record = Record()
    fit([EMA(0.9, modules=["decoder"]), record], epochs=1, default_root_dir=tmp_path)
    changed = {name for name, value in record.validated.items() if not torch.equal(value, record.batches[-1][name])}
    assert changed == {name for name in record.validated if name.startswith("decoder.")}
    with pytest.raises(LightningGenError, match=r"modules=\['generator'\]; VAE has encoder, decoder"):
        fit([EMA(modules=["generator"])])
    with pytest.raises(LightningGenError, match=r"decay=1.5"):
        EMA(1.5)


def test_a_checkpoint_loads_what_was_scored_and_resumes_what_was_trained(tmp_path: Path) -> None:
    def run(path: Path, epochs: int, ckpt_path: Any = None) -> tuple[Any, Record, list[float]]:
        record, evaluation = Record(), SampleEvaluation([MeanPixel()], num_samples=20)
        save = pl.callbacks.ModelCheckpoint(path, save_last=True)
        callbacks = [evaluation, RandomState(), record, EMA(), save]
        trainer = fit(callbacks, small_gan, epochs, ckpt_path, default_root_dir=path, enable_checkpointing=True)
        return trainer, record, [figure.value for figure in evaluation.figures]

    trainer, straight, figures = run(tmp_path / "straight", 3)
    _, first, _ = run(tmp_path / "first", 2)
    loaded = GAN.load_from_checkpoint(tmp_path / "first" / "last.ckpt", weights_only=True)
    assert_bit_equal(dict(loaded.state_dict()), first.validated)
    resumed_trainer, resumed, resumed_figures = run(tmp_path / "second", 3, tmp_path / "first" / "last.ckpt")
    assert_bit_equal(straight.batches[-1], resumed.batches[-1])
    assert_bit_equal(straight.validated, resumed.validated)
    assert resumed_figures == figures, "the figures of the first epochs came with the checkpoint"
    assert_bit_equal(trainer.lightning_module.state_dict(), resumed_trainer.lightning_module.state_dict())

    # A run that was at its end already leaves the same as the one that brought it there.
    ended, _, _ = run(tmp_path / "third", 3, tmp_path / "straight" / "last.ckpt")
    assert_bit_equal(trainer.lightning_module.state_dict(), ended.lightning_module.state_dict())
    ended.save_checkpoint(tmp_path / "ended.ckpt")
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("straight/last.ckpt", "ended.ckpt"))
    assert_bit_equal(one["state_dict"], two["state_dict"])
    assert_bit_equal(*(end["callbacks"]["EMA"]["training_weights"] for end in (one, two)))

    # A checkpoint written while the averages are in the module is no different.
    class SaveInValidation(Callback):
        def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if not trainer.sanity_checking:
                trainer.save_checkpoint(tmp_path / "swapped.ckpt")

    record = Record()
    fit([EMA(), record, SaveInValidation()], small_gan, default_root_dir=tmp_path)
    swapped = torch.load(tmp_path / "swapped.ckpt", weights_only=True)
    assert_bit_equal(swapped["state_dict"], record.validated)
    kept = swapped["callbacks"]["EMA"]["training_weights"]
    assert_bit_equal(kept, {name: record.batches[-1][name] for name in kept})

    test = SampleEvaluation([MeanPixel()], num_samples=20)
    tester = fit([EMA(), test], small_gan, epochs=0, default_root_dir=tmp_path)
    tester.test(small_gan(), datamodule=tester.datamodule, ckpt_path=tmp_path / "first" / "last.ckpt", verbose=False)
    assert_bit_equal(dict(tester.lightning_module.state_dict()), first.validated)
