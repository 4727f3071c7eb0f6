"""Every precision, of every model on digits: training, evaluation, samples, and other people's batches."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import lightning_gen
from lightning_gen._lightning import Callback, LightningDataModule, seed_everything
from lightning_gen.callbacks import SampleEvaluation, SampleGrid
from lightning_gen.errors import DataError
from lightning_gen.metrics import MMD, FrechetDistance
from lightning_gen.models import GenerativeModule
from lightning_gen.nn import DigitFeatures, FrameAverage
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
    assert set(TINY) == set(lightning_gen.__all__) - {"judge"}


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


# Samples and figures -------------------------------------------------------------------------------------------------


def judges(model: GenerativeModule) -> list[Callback]:
    """A picture, and the distance that is for what the model draws."""
    if model.data_key == "keypoints":
        return [SampleGrid(4), SampleEvaluation([MMD()], 8)]
    extractor = FrameAverage(DigitFeatures()) if model.data_key == "video" else DigitFeatures()
    return [SampleGrid(4), SampleEvaluation([FrechetDistance()], 8, extractor)]


def first_batch(data: LightningDataModule) -> dict[str, Any]:
    """The first held-out batch, as a model is given it."""
    return data.on_before_batch_transfer(next(iter(data.val_dataloader())), 0)


def check_samples(model: GenerativeModule, batch: dict[str, Any]) -> None:
    """Samples under the conditions of a batch are float32 in [0, 1], with and without autocast around."""
    condition = {key: batch[key][:2] for key in model.condition_keys}
    for context in (nullcontext(), torch.autocast("cpu", torch.bfloat16)):
        with context:
            images = model.sample(2, condition or None)
        assert images.dtype == torch.float32
        assert ((images >= 0) & (images <= 1)).all()


@pytest.mark.parametrize(
    "precision",
    ["bf16-mixed", *(pytest.param(name, marks=pytest.mark.slow) for name in ("16-mixed", "bf16-true", "64-true"))],
)
@pytest.mark.parametrize("name", TINY)
def test_every_model_is_trained_judged_and_sampled(name: str, precision: str, tmp_path: Path) -> None:
    """By algorithms that PyTorch calls deterministic, and with trainer/gpu's precision in the tests of every day.

    From the one fit, weights in other types are sampled too.
    """
    seed_everything(0, verbose=False)
    model, data = tiny(name)
    callbacks = judges(model) if isinstance(model, GenerativeModule) else []
    trainer = quiet_trainer(
        max_epochs=1,
        limit_train_batches=2,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        precision=precision,
        deterministic=True,
        callbacks=callbacks,
        default_root_dir=tmp_path,
    )
    try:
        trainer.fit(model, data)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    if not isinstance(model, GenerativeModule):
        return
    assert list(tmp_path.rglob("epoch=0000.png"))
    (figure,) = callbacks[1].figures
    assert abs(figure.value) < torch.inf
    batch = first_batch(data)
    check_samples(model, batch)
    if precision == "bf16-mixed":
        check_samples(copy.deepcopy(model).double(), batch)
        check_samples(copy.deepcopy(model).bfloat16(), batch)


# Batches of other types ----------------------------------------------------------------------------------------------


def in_types(batch: dict[str, Any], floats: torch.dtype, integers: torch.dtype) -> dict[str, Any]:
    """A batch as NumPy or another project may give it."""
    types = {key: floats if value.is_floating_point() else integers for key, value in tensors(batch).items()}
    return {key: value.to(types[key]) if key in types else value for key, value in batch.items()}


def tensors(batch: dict[str, Any]) -> dict[str, Tensor]:
    return {key: value for key, value in batch.items() if isinstance(value, Tensor)}


class OtherTypes(LightningDataModule):
    """Some batches of another data module, in other types."""

    def __init__(self, data: LightningDataModule, floats: torch.dtype, integers: torch.dtype) -> None:
        super().__init__()
        data.setup("fit")
        batches = [data.on_before_batch_transfer(batch, 0) for batch in islice(data.train_dataloader(), 4)]
        self.batches = [in_types(batch, floats, integers) for batch in batches]

    def train_dataloader(self) -> Any:
        return DataLoader(self.batches, batch_size=None)

    val_dataloader = train_dataloader


@pytest.mark.parametrize("name", TINY)
def test_batches_in_other_types_are_converted(name: str) -> None:
    """NumPy's float64 and int32 are trained on; what is named differs from float32 and int64 by rounding alone."""
    seed_everything(0, verbose=False)
    model, data = tiny(name)
    numpy = OtherTypes(data, torch.float64, torch.int32)
    given = numpy.batches[0]
    usual = in_types(given, torch.float32, torch.int64)
    same = tensors(model.as_batch(usual))
    assert all(same[key] is value for key, value in tensors(usual).items()), "what fits already is not copied"
    types = {torch.float64: 0, torch.float16: 1e-3, torch.bfloat16: 1e-2}
    for (floats, error), integers in zip(types.items(), (torch.int16, torch.uint8, torch.int8), strict=True):
        small = {key: value for key, value in given.items() if key != "text"}  # Characters fill a byte.
        found = tensors(model.as_batch(in_types(small, floats, integers)))
        for key, value in found.items():
            torch.testing.assert_close(value, usual[key], rtol=0, atol=error * 9)
    binary = in_types(given | {model.data_key: usual[model.data_key].round()}, torch.float32, torch.int64)
    as_bool = model.as_batch(binary | {model.data_key: binary[model.data_key].bool()})[model.data_key]
    torch.testing.assert_close(as_bool, binary[model.data_key], rtol=0, atol=0)
    model.modes_checked.clear()
    with pytest.raises(DataError, match=r"are integers; expected floats in \[0, 1\] \(divide 8-bit values by 255\)"):
        model.as_batch(usual | {model.data_key: (255 * usual[model.data_key]).byte()})
    if name not in ("ImprovedGAN", "BernoulliMixture"):  # They look for more images than these.
        quiet_trainer(fast_dev_run=True).fit(model, numpy)


@pytest.mark.parametrize("name", TINY)
def test_columns_and_one_hot_labels_are_refused_in_one_line(name: str) -> None:
    model, _ = tiny(name)
    number = len(BATCH["label"])
    pixels = torch.zeros(number, *model.image_shape)
    batch = BATCH | {model.data_key: pixels, "source": pixels}
    check = getattr(model, "labels_of", model.check_batch)
    if not refuses(check, batch | {"label": torch.tensor([-9, *range(number - 1)])}):
        return  # It takes no labels.
    for wrong in (BATCH["label"][:, None], torch.eye(number), BATCH["label"].float()):
        with pytest.raises(DataError, match=r"got label as (floats|integers) of shape .*; expected integers of shape"):
            check(batch | {"label": wrong})


BATCH: dict[str, Any] = {
    "label": torch.arange(4),
    "attributes": torch.zeros(4, 10),
    "caption": ["a green four"] * 4,
    "box": torch.full((4, 4), 0.4),
    "keypoints": torch.full((4, 5, 3), 0.4),
}


def refuses(check: Callable[[Any], Any], batch: dict[str, Any]) -> bool:
    """Whether a label out of range is refused: the model takes labels."""
    try:
        check(batch)
    except DataError as error:
        return "got a label in -9" in str(error)
    return False
