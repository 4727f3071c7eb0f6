"""What models see of the data before they train: no more than training will, as training gets it, and checked."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_gen import models
from lightning_gen._lightning import pl
from lightning_gen.errors import DataError
from lightning_gen.models import (
    ACGAN,
    GAN,
    NADE,
    AttributeClassifier,
    BernoulliMixture,
    Captioner,
    DigitClassifier,
    GenerativeModule,
)
from lightning_gen.models.captioned import CaptionedModule
from tests.digits import quiet_trainer, training_digits
from tests.tiny import TINY, endless, tiny, tiny_batches


@pytest.mark.parametrize("name", TINY)
def test_an_endless_stream_begins_at_once(name: str) -> None:
    model, _ = tiny(name)
    stream: Any = endless(name)
    quiet_trainer(max_epochs=1, limit_train_batches=2).fit(model, stream)
    # Two to look at and two to train on; some models need more images to begin, and 400 are at least 10 batches here.
    needed = {"BernoulliMixture", "ImprovedGAN", "VGANAutoencoder"}
    assert stream.dataset.read <= (40 if name in needed else 4)


@pytest.mark.parametrize("name", TINY)
def test_no_batch_is_one_line_and_leaves_the_model_as_it_was(name: str) -> None:
    model, _ = tiny(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(DataError, match=r"no training batch.*drop_last=True.*smaller batch_size"):
        quiet_trainer(max_epochs=1).fit(model, DataLoader(range(10), batch_size=16, drop_last=True))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_no_batch_of_a_stream_is_named_too() -> None:
    class Nothing(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(())

    model = GAN()
    with pytest.raises(DataError, match="no training batch"):
        quiet_trainer(max_epochs=1).fit(model, DataLoader(Nothing(), batch_size=None))
    assert not model.initialized
    assert model.generator.output.bias.isfinite().all()


def test_no_limit_at_all_trains_nothing_and_is_no_error() -> None:
    model = GAN()
    quiet_trainer(max_epochs=1, limit_train_batches=0).fit(model, DataLoader(training_digits(), 100))
    assert not model.initialized


UNSEEING = (None, GenerativeModule.initialize_from, CaptionedModule.initialize_from)
LOOKING = [name for name in TINY if getattr(getattr(models, name), "initialize_from", None) not in UNSEEING]


class Bytes(pl.LightningDataModule):
    """Batches with bytes for pixels, which become floats on the device."""

    def __init__(self, batches: list[dict[str, Any]], key: str) -> None:
        super().__init__()
        self.batches = [{**batch, key: (255 * batch[key]).round().byte()} for batch in batches]
        self.key = key

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return {**batch, self.key: batch[self.key].float() / 255}


@pytest.mark.parametrize("name", LOOKING)
def test_batches_come_through_the_hooks_of_the_transfer(name: str) -> None:
    """Bytes in the loader, floats by `on_after_batch_transfer`, are the same as floats."""
    states = []
    for as_bytes in (False, True):
        torch.manual_seed(1)
        model, _ = tiny(name)
        batches: Any = tiny_batches(name)
        data = Bytes(batches, model.data_key) if as_bytes else DataLoader(batches, batch_size=None)
        quiet_trainer(max_epochs=0, limit_train_batches=2).fit(model, data)  # It only looks.
        states.append(model.state_dict())
    floats, by_hook = states
    for key, value in floats.items():
        torch.testing.assert_close(by_hook[key], value, rtol=0, atol=0, msg=f"{name}: {key}")
        assert not value.is_floating_point() or value.isfinite().all(), key


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"pixel_values": torch.rand(4, 1, 28, 28), "labels": torch.arange(4)}, r"holds \['labels', 'pixel_values'\]"),
        ({"image": torch.rand(4, 3, 28, 28), "label": torch.arange(4)}, r"shape \(3, 28, 28\).*image_shape=\(1, 28"),
        (
            {"image": torch.full((4, 1, 28, 28), 255), "label": torch.arange(4)},
            r"are integers; expected floats in \[0, 1\] \(divide",
        ),
    ],
    ids=["keys", "channels", "bytes"],
)
@pytest.mark.parametrize("name", LOOKING)
def test_wrong_batches_are_named_before_they_are_counted(name: str, batch: Any, message: str) -> None:
    model, _ = tiny(name)
    if model.image_shape != (1, 28, 28):
        pytest.skip("these are no batches for it")
    with pytest.raises(DataError, match=message):
        quiet_trainer(max_epochs=1).fit(model, DataLoader([batch], batch_size=None))
    assert not model.initialized


def test_training_checks_its_own_first_batch() -> None:
    """So that it draws what it drew: a DRAW draws noise to see how much memory a batch takes."""
    checked: list[int] = []

    class Watched(GAN):
        def check_batch(self, batch: Any) -> None:
            checked.append(len(batch["image"]))

    quiet_trainer(max_epochs=1, limit_train_batches=2).fit(Watched(), DataLoader(training_digits()[:20], 10))
    assert checked == [10, 10]


@pytest.mark.parametrize(
    ("limit", "init_images", "seen"), [(1.0, 100_000, 20), (1, 100_000, 5), (0.5, 100_000, 10), (1.0, 12, 15)]
)
def test_no_more_is_looked_at_than_training_sees_or_than_is_asked_for(
    limit: float, init_images: int, seen: int
) -> None:
    images = torch.rand(20, 1, 4, 4).round()
    model = NADE((1, 4, 4), hidden_size=4, lr=1e-9)
    model.init_images = init_images
    quiet_trainer(max_epochs=1, limit_train_batches=limit).fit(model, DataLoader(images, 5))
    frequencies = (images[:seen].double().flatten(1).sum(0) + 1) / (seen + 2)
    torch.testing.assert_close(model.output_bias.data.sigmoid(), frequencies.float(), rtol=0, atol=1e-5)


def test_a_class_that_is_absent_is_named_only_after_all_were_seen() -> None:
    images, labels = torch.rand(40, 1, 28, 28), torch.arange(40) // 20  # The classes 0 and 1, one after the other.
    loader = DataLoader([{"image": images[i], "label": labels[i]} for i in range(40)], 10)

    def small() -> ACGAN:
        return ACGAN((1, 28, 28), 3, generator_channels=(4, 2), discriminator_channels=(2, 4, 4))

    with pytest.raises(DataError, match=r"no images of the classes \[2\]"):
        quiet_trainer(max_epochs=1).fit(small(), loader)
    quiet_trainer(max_epochs=1, limit_train_batches=2).fit(model := small(), loader)
    assert model.frequencies.tolist() == [1, 0, 0]


def test_models_that_cannot_begin_with_fewer_look_at_more() -> None:
    loader = DataLoader(training_digits()[:100].round(), 10)
    model = BernoulliMixture(num_components=50)
    quiet_trainer(max_epochs=1, limit_train_batches=2).fit(model, loader)
    assert model.initialized


def test_words_that_were_not_met_are_left_out_of_captions() -> None:
    rows = [{"image": torch.rand(1, 8, 8), "caption": ["a red seven"]}] * 2
    rows += [{"image": torch.rand(1, 8, 8), "caption": ["a blue seven"]}] * 2
    loader: Any = DataLoader(rows, 2, collate_fn=lambda batch: {key: [row[key] for row in batch] for key in batch[0]})
    batches = [{"image": torch.stack(batch["image"]), "caption": batch["caption"]} for batch in loader]
    model = Captioner((1, 8, 8), None, 2, 3, 4, 5)
    model.init_images = 2
    quiet_trainer(max_epochs=1).fit(model, DataLoader(batches, batch_size=None))
    assert model.vocabulary == ["a", "red", "seven"]


@pytest.mark.parametrize("model_class", [DigitClassifier, AttributeClassifier])
def test_a_schedule_over_all_steps_says_what_it_must_know(model_class: type[Any]) -> None:
    class Unsized(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            batch = {
                "image": torch.rand(4, 1, 28, 28),
                "label": torch.arange(4),
                "attributes": torch.zeros(4, 1).long(),
            }
            return iter([batch] * 3)

    def fit(**limits: Any) -> Any:
        arguments: dict[str, Any] = {"image_shape": (1, 28, 28), "attributes": {"kind": 2}, "base_channels": 2}
        model = model_class(**(arguments if model_class is AttributeClassifier else {}))
        (trainer := quiet_trainer(**limits)).fit(model, DataLoader(Unsized(), batch_size=None))
        return trainer

    with pytest.raises(DataError, match=r"have no length.*give the Trainer max_steps"):
        fit(max_epochs=1)
    assert fit(max_epochs=1, max_steps=2).global_step == 2
    assert fit(max_epochs=1, limit_train_batches=0).global_step == 0


class Rank(GAN):
    """One of two ranks, the other of which is a list of what the first one said."""

    world_size = 2

    def __init__(self, rank: int, said: list[Any]) -> None:
        super().__init__((1, 8, 8), hidden_size=4, maxout_units=2)
        self.rank, self.said = rank, said

    @property
    def global_rank(self) -> int:
        return self.rank

    def from_first_rank(self, value: Any) -> Any:
        if not self.rank:
            self.said.append(value)
        return self.said.pop(0) if self.rank else value


def test_the_first_rank_looks_and_the_others_hear_of_each_batch() -> None:
    """A silence as long as all batches together could outlast the patience of a process group."""
    said: list[Any] = []
    images = torch.rand(30, 1, 8, 8)
    first, second = Rank(0, said), Rank(1, said)
    first.initialize(images.split(10))
    assert [len(message) for message in said] == [0, 0, 0, 1]
    second.initialize()
    for key, value in second.state_dict().items():
        torch.testing.assert_close(value, first.state_dict()[key], rtol=0, atol=0)
    assert second.initialized


def test_a_bar_is_shown_where_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slowly() -> Iterator[Tensor]:
        for _ in range(3):
            now[0] += 1.5
            yield torch.rand(5, 1, 28, 28)

    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    GAN().look_at_data(list, slowly())
    shown = capsys.readouterr().err
    assert "GAN looks at the data: 10 images" in shown
    assert "GAN looks at the data: 5 images" not in shown, "it came before two seconds had gone"


def test_no_bar_is_shown_where_the_trainer_shows_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tqdm.std.time", itertools.count(0.0, 5.0).__next__)
    quiet_trainer(max_epochs=0).fit(GAN(hidden_size=4), DataLoader(torch.rand(5, 1, 28, 28), 1))
    assert "looks at the data" not in capsys.readouterr().err
