"""Pictures of samples beside their neighbours, and what the evaluation gives to metrics that look for copies."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_gen._lightning import pl
from lightning_gen.callbacks import ClosestPairs, SampleEvaluation, SampleGrid, SampleNeighbors
from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.errors import DataError, LightningGenError
from lightning_gen.functional import nearest_neighbors
from lightning_gen.metrics import Memorization, SupportSize
from lightning_gen.models import DigitClassifier, GenerativeModule
from tests.callbacks.runs import Halves, MeanPixel, fit, small_vae
from tests.callbacks.test_pictures import pixels
from tests.digits import quiet_trainer, training_digits
from tests.ranks import spawn_ranks


class LookupTable(GenerativeModule):
    """Replays the first training digits, drawn with replacement."""

    image_shape = (1, 28, 28)

    def __init__(self, size: int = 100) -> None:
        super().__init__()
        data = DigitsDataModule()
        data.setup()
        dataset: Any = data.datasets["train"]
        self.register_buffer("table", dataset.__getitems__(range(size))["image"])

    def _sample(self, num_samples: int, condition: Any, generator: Any) -> Tensor:
        return self.table[torch.randint(len(self.table), (num_samples,), generator=generator)]


def cells(path: Path, rows: int, columns: int) -> Tensor:
    """The digits of a picture, `(rows, columns, 28, 28)` in [0, 1]."""
    grid = pixels(path)[0, 2:, 2:].unfold(0, 28, 30).unfold(1, 28, 30) / 255
    assert grid.shape[:2] == (rows, columns)
    return grid


@pytest.mark.parametrize("extractor", [None, Halves()], ids=["pixels", "features"])
def test_samples_stand_above_their_nearest_training_images(extractor: Any, tmp_path: Path) -> None:
    logger = pl.loggers.TensorBoardLogger(tmp_path, name=None)
    picture = SampleNeighbors(num_samples=5, num_neighbors=2, extractor=extractor)
    trainer = quiet_trainer(callbacks=[picture], logger=logger)
    model = small_vae(decoder="gaussian")
    trainer.test(model, datamodule=DigitsDataModule(batch_size=300), verbose=False)
    assert picture.pictures == [tmp_path / "version_0" / "neighbors" / "test.png"]
    shown = cells(picture.pictures[0], 3, 5)
    samples = model.sample(5, generator=torch.Generator().manual_seed(0))
    points = [images.flatten(1) if extractor is None else extractor(images).features for images in (samples,)]
    train = training_digits()
    indices = nearest_neighbors(
        points[0], train.flatten(1) if extractor is None else extractor(train).features, 2
    ).indices
    expected = torch.stack([samples, train[indices[:, 0]], train[indices[:, 1]]]).squeeze(2)
    torch.testing.assert_close(shown, expected, atol=0.5 / 255 + 1e-6, rtol=0)

    logger.experiment.flush()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "version_0"), size_guidance={"images": 0}).Reload()
    assert len(events.Images("test/neighbors")) == 1


def test_pairs_of_a_lookup_table_are_equal(tmp_path: Path) -> None:
    picture = ClosestPairs(num_samples=60, num_pairs=7, batch_size=25)
    trainer = quiet_trainer(callbacks=[picture], default_root_dir=tmp_path)
    trainer.test(LookupTable(), datamodule=DigitsDataModule(), verbose=False)
    one, other = cells(tmp_path / "pairs" / "test.png", 2, 7)
    assert torch.equal(one, other)


def test_pairs_want_samples() -> None:
    with pytest.raises(DataError, match="4 samples make no 12 pairs"):
        ClosestPairs(num_samples=4)


def test_a_picture_without_training_images_shows_the_samples_alone(tmp_path: Path) -> None:
    trainer = quiet_trainer(callbacks=[SampleNeighbors(4)], default_root_dir=tmp_path)
    with pytest.warns(UserWarning, match="There are no train images here"):
        trainer.test(LookupTable(), DataLoader(training_digits()[:10]), verbose=False)
    cells(tmp_path / "neighbors" / "test.png", 1, 4)


def test_a_lookup_table_is_caught(tmp_path: Path) -> None:
    metrics = [Memorization(), SupportSize()]
    trainer = quiet_trainer(callbacks=[evaluation := SampleEvaluation(metrics, 500)], default_root_dir=tmp_path)
    trainer.test(LookupTable(), datamodule=DigitsDataModule(), verbose=False)
    copies, support = evaluation.figures
    assert (copies.value, copies.real) == (1, 1)
    assert copies.protocol.startswith("500 samples, 500 test images, nearer to one of 4000 training images")
    assert copies.protocol.endswith(", over 0.5: MEMORISED")
    assert support.value == pytest.approx(100, rel=0.25)
    assert support.real > 10_000


def test_training_images_are_given_once_and_to_those_that_ask(tmp_path: Path) -> None:
    class Counts(Memorization):
        seen: dict[str, int] = {}

        def update(self, samples: Any, batch: Any = None, role: Any = "generated") -> None:
            super().update(samples, batch, role)
            self.seen[role] = self.seen.get(role, 0) + len(samples.images)

    metrics = [counts := Counts("features"), pixel := MeanPixel()]
    evaluation = SampleEvaluation(metrics, 50, extractor := Halves(), batch_size=50)
    fit([evaluation], epochs=3, default_root_dir=tmp_path)
    assert counts.seen["training"] == 4000
    assert pixel.counts["generated"] == 50
    assert extractor.num_images == 200 + 4000 + 50 + 3 * 50, "held-out, training, real and generated images"
    assert [f.name for f in evaluation.figures[:2]] == ["val/memorized_halves", "val/mean_pixel"]


def test_samples_of_another_shape_are_refused() -> None:
    class Colour(LookupTable):
        def _sample(self, *args: Any) -> Tensor:
            return super()._sample(*args).expand(-1, 3, -1, -1)

    trainer = quiet_trainer(callbacks=[SampleEvaluation([MeanPixel()], 10)])
    with pytest.raises(DataError, match=r"shape \(3, 28, 28\), the held-out images \(1, 28, 28\); give both"):
        trainer.test(Colour(), datamodule=DigitsDataModule(), verbose=False)


def test_a_model_that_cannot_be_sampled_is_named() -> None:
    for callback in (SampleEvaluation([MeanPixel()]), SampleGrid()):
        with pytest.raises(LightningGenError, match="samples, and DigitClassifier cannot be sampled; give it sample"):
            quiet_trainer(callbacks=[callback]).test(DigitClassifier(), datamodule=DigitsDataModule(), verbose=False)


def _evaluate(ranks: int, path: Path) -> None:
    evaluation = SampleEvaluation(
        [Memorization("features"), Memorization(), SupportSize()], 130, Halves(), batch_size=40
    )
    trainer = quiet_trainer(
        callbacks=[evaluation, SampleNeighbors(3)],
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        default_root_dir=path / str(ranks),
    )
    # One training batch, which the ranks share.
    trainer.test(LookupTable(), DigitsDataModule(batch_size=4000), verbose=False)
    if trainer.is_global_zero:
        (path / f"{ranks}.json").write_text(json.dumps(evaluation.figures))


def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    spawn_ranks(_evaluate, 2, tmp_path)
    _evaluate(1, tmp_path)
    one, two = (json.loads((tmp_path / f"{ranks}.json").read_text()) for ranks in (1, 2))
    assert one == two
    pictures = [pixels(tmp_path / ranks / "neighbors" / "test.png") for ranks in "12"]
    assert torch.equal(*pictures)
