import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_gen._lightning import pl
from lightning_gen.callbacks import ClosingTable, SampleEvaluation, SampleGrid
from lightning_gen.datamodules import DigitsDataModule, EdgesToDigitsDataModule, FakeDataModule
from lightning_gen.errors import DataError, LightningGenError
from lightning_gen.metrics import Agreement, FrechetDistance, InceptionScore, ParzenLogLikelihood, Samples
from lightning_gen.models import VAE, Pix2Pix
from lightning_gen.nn import DigitFeatures
from tests.callbacks.runs import Halves, LabelledVAE, MeanFeature, MeanPixel, fit, small_vae
from tests.digits import held_out_digits, quiet_trainer, training_digits
from tests.ranks import spawn_ranks


class CallsOfSample(VAE):
    """Counts the samples drawn, and notes the mode before and after."""

    def sample(self, num_samples: int, *args: Any, **kwargs: Any) -> Tensor:
        self.calls = [*getattr(self, "calls", []), num_samples]
        return super().sample(num_samples, *args, **kwargs)


def test_one_sampling_and_one_feature_pass_serve_all_metrics(tmp_path: Path) -> None:
    metrics, extractor = [MeanPixel(), MeanFeature(), MeanFeature()], Halves()
    evaluation = SampleEvaluation(metrics, num_samples=120, extractor=extractor, batch_size=50)
    trainer = fit(
        [evaluation],
        lambda: CallsOfSample(hidden_size=8, latent_dim=2),
        epochs=3,
        default_root_dir=tmp_path,
        num_sanity_val_steps=2,
    )
    assert trainer.lightning_module.calls == 3 * [50, 50, 20], "not in the sanity check, and once an epoch"
    assert extractor.num_images == 200 + 120 + 3 * 120, "held-out images once, training images once, samples each epoch"
    assert metrics[0].counts == {"generated": 120, "reference": 200, "tuning": 200}
    assert metrics[1].counts == metrics[2].counts == {"generated": 120, "reference": 200, "tuning": 0}
    assert evaluation.figures[1].protocol == "120 samples on halves, 200 val images"


def test_figures_are_what_the_samples_give_and_are_logged(tmp_path: Path) -> None:
    evaluation = SampleEvaluation([MeanPixel()], num_samples=100, batch_size=100, seed=3)
    checkpoint = pl.callbacks.ModelCheckpoint(tmp_path, monitor="val/mean_pixel", save_top_k=1)
    arguments = {"limit_train_batches": 6, "limit_val_batches": 4, "enable_checkpointing": True}
    trainer = fit([evaluation, checkpoint], epochs=2, default_root_dir=tmp_path, **arguments)
    model = trainer.lightning_module
    samples = model.sample(100, generator=torch.Generator().manual_seed(3))
    held_out = torch.cat([batch["image"] for batch in trainer.datamodule.val_dataloader()])[:200]
    figure = evaluation.figures[-1]
    assert figure.value == pytest.approx((samples.double().mean() - held_out.double().mean()).item(), abs=1e-7)
    assert trainer.callback_metrics["val/mean_pixel"].item() == pytest.approx(figure.value)
    assert checkpoint.best_model_score is not None
    assert [f.epoch for f in evaluation.figures] == [0, 1]
    assert figure.protocol == "100 samples, 200 val images"
    # Real images in the place of the samples are as bright as the held-out ones.
    assert figure.real is not None
    assert abs(figure.real) < 0.01 < abs(evaluation.figures[0].value)


@pytest.mark.parametrize(("every", "epochs", "expected"), [(1, 3, [0, 1, 2]), (2, 5, [0, 1, 3, 4]), (5, 3, [0, 2])])
def test_the_first_every_nth_and_the_last_epoch(every: int, epochs: int, expected: list[int], tmp_path: Path) -> None:
    evaluation = SampleEvaluation([MeanPixel()], num_samples=10, every_n_epochs=every)
    fit([evaluation], epochs=epochs, limit_train_batches=1, limit_val_batches=1, default_root_dir=tmp_path)
    assert [figure.epoch for figure in evaluation.figures] == expected


def test_a_test_is_against_test_images_and_tunes_on_validation_images(tmp_path: Path) -> None:
    metric = MeanPixel()
    evaluation = SampleEvaluation([metric], num_samples=5000, batch_size=1000)
    trainer = fit([evaluation], epochs=1, limit_train_batches=2, default_root_dir=tmp_path)
    assert evaluation.figures[0].protocol == "5000 samples, 200 val images, real: only 4000 training images"
    trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)
    assert metric.counts == {"generated": 5000, "reference": 200, "tuning": 500}
    (figure,) = evaluation.figures
    assert (figure.name, figure.stage) == ("test/mean_pixel", "test")
    assert "test/mean_pixel" in trainer.callback_metrics


def test_conditions_are_those_of_the_held_out_images_cycled(tmp_path: Path) -> None:
    class Labels(MeanPixel):
        seen: list[Tensor] = []

        def update(self, samples: Any, batch: Any = None, role: str = "generated") -> None:
            if role == "generated":
                self.seen.append((samples.images[:, 0, 0, 0] * 10).round().long())
            super().update(samples, batch, role)

    metric = Labels()
    model = lambda: LabelledVAE(hidden_size=8, latent_dim=2)  # noqa: E731
    evaluation = SampleEvaluation([metric], num_samples=130, batch_size=60)
    trainer = fit([evaluation], model, epochs=1, limit_val_batches=2, default_root_dir=tmp_path)
    held_out = torch.cat([batch["label"] for batch in trainer.datamodule.val_dataloader()])[:100]
    drawn = torch.cat(metric.seen)[-130:]
    assert torch.equal(drawn, torch.cat([held_out, held_out[:30]]))


def test_a_judge_that_was_not_made_for_the_images_is_left_out(tmp_path: Path) -> None:
    """A classifier of digits calls any samples as good as noise; on digits it has its say."""
    metrics = [MeanPixel(), FrechetDistance(), InceptionScore(splits=1)]
    evaluation = SampleEvaluation(metrics, num_samples=40, extractor=DigitFeatures())
    fit([evaluation], epochs=1, limit_train_batches=1, default_root_dir=tmp_path)
    judged = ["val/mean_pixel", "val/fid_digits", "val/inception_score_digits"]
    assert [figure.name for figure in evaluation.figures] == judged
    trainer = quiet_trainer(max_epochs=2, callbacks=[evaluation], default_root_dir=tmp_path)
    with pytest.warns(UserWarning, match="DigitFeatures") as caught:
        trainer.fit(small_vae(decoder="gaussian"), datamodule=FakeDataModule((1, 28, 28), num_samples=64))
    (warning,) = [str(w.message) for w in caught if "DigitFeatures" in str(w.message)]
    assert "is sure of what it sees in 0 of 64 held-out images" in warning
    assert "lightning-gen evaluate --ckpt_path PATH --extractor EfficientNetLite0" in warning
    assert [figure.name for figure in evaluation.figures] == ["val/mean_pixel"] * 2


def test_a_score_that_real_images_lack_is_no_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Its place beside that of the samples is empty; and no zero has a sign."""

    class OfSamples(MeanPixel):
        def update(self, samples: Samples, batch: Any = None, role: str = "generated") -> None:
            self.is_real = samples.images.std() > 0
            super().update(samples, batch, role)

        def compute(self) -> Tensor:
            if self.is_real:
                raise DataError("there is nothing that was asked for")
            return torch.tensor(-0.0)

    class Black(VAE):
        def _sample(self, num_samples: int, condition: Any, generator: Any) -> Tensor:
            return torch.zeros(num_samples, 1, 28, 28)

    evaluation = SampleEvaluation([OfSamples()], num_samples=10)
    fit([evaluation], lambda: Black(hidden_size=8), epochs=1, limit_train_batches=1, default_root_dir=tmp_path)
    (figure,) = evaluation.figures
    assert figure.real is None
    assert str(figure.value) == "0.0"
    assert not [warning for warning in recwarn if "left out" in str(warning.message)]


@pytest.mark.parametrize("kind", [SampleEvaluation, SampleGrid])
def test_labels_follow_the_data(kind: Any, tmp_path: Path) -> None:
    def train(labels: Any) -> Any:
        given = {"metrics": [MeanPixel()]} if kind is SampleEvaluation else {"num_columns": 1}
        trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
        trainer.callbacks.append(callback := kind(num_samples=4, labels=labels, **given))
        data = FakeDataModule((1, 28, 28), num_samples=16, num_classes=3)
        trainer.fit(LabelledVAE(hidden_size=8, latent_dim=2, decoder="gaussian"), datamodule=data)
        return callback

    assert train("all").labels == [0, 1, 2]
    assert train([2, 0]).labels == [2, 0]
    with pytest.raises(LightningGenError) as error:
        train(list(range(10)))
    assert str(error.value) == (
        f"{kind.__name__} got labels=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], and there are 3 classes of images; give "
        f"{kind.__name__} labels from 0 to 2, or 'all', or none for the conditions of the held-out images."
    )


def test_conditions_are_drawn_from_all_held_out_images(tmp_path: Path) -> None:
    """Not from the first ones, where there are fewer samples: folders of classes are read class by class."""

    class Seen(MeanPixel):
        seen: list[Tensor] = []

        def update(self, samples: Any, batch: Any = None, role: str = "generated") -> None:
            super().update(samples, batch, role)
            if role == "generated" and batch is not None:
                self.seen.append(batch["label"])

    labels = torch.arange(10).repeat_interleave(30)
    held_out = DataLoader(TensorDataset(held_out_digits()[:300].round(), labels), batch_size=40)
    for seed in (0, 0, 1):
        trainer = quiet_trainer(callbacks=[SampleEvaluation([Seen()], num_samples=60, seed=seed)])
        trainer.test(LabelledVAE(hidden_size=4, latent_dim=2, num_importance_samples=1), held_out, verbose=False)
    one, two, three = Seen.seen
    assert len(one) == 60
    assert (one.bincount(minlength=10) > 0).all()
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_real_digits_of_the_class_asked_for_score_as_real_digits(tmp_path: Path) -> None:
    """A perfect model, sampled under held-out labels that come class by class."""
    images = training_digits()[:1000]
    labels = DigitFeatures()(images).logits.argmax(1)

    class Perfect(VAE):
        condition_keys = ("label",)

        def _sample(self, num_samples: int, condition: Any, generator: torch.Generator | None) -> Tensor:
            drawn = torch.rand(num_samples, generator=generator)
            rows = [(labels == label).nonzero()[:, 0] for label in condition["label"]]
            return images[[int(row[int(u * len(row))]) for row, u in zip(rows, drawn, strict=True)]]

    held_out = DataLoader(TensorDataset(images[:300].round(), labels[:300].sort().values), batch_size=50)
    evaluation = SampleEvaluation([InceptionScore(splits=3)], num_samples=300, extractor=DigitFeatures())
    quiet_trainer(callbacks=[evaluation]).test(
        Perfect(hidden_size=4, latent_dim=2, num_importance_samples=1), held_out, verbose=False
    )
    assert evaluation.figures[0].value > 9


@pytest.mark.parametrize("make", [LabelledVAE, VAE], ids=["conditional", "unconditional"])
def test_each_of_several_loaders_has_the_figures_that_it_has_alone(make: Any, tmp_path: Path) -> None:
    model = make(hidden_size=8, latent_dim=2, num_importance_samples=1)
    images, labels = held_out_digits().round(), torch.arange(500) % 10
    loaders = [
        DataLoader(TensorDataset(images[rows], labels[rows] // divisor), batch_size=25)
        for rows, divisor in ((slice(0, 50), 1), (slice(50, 150), 5))
    ]
    figures = []
    for given in ([loaders[0]], [loaders[1]], loaders):
        extractor = Halves()
        evaluation = SampleEvaluation([MeanPixel(), MeanFeature()], 40, extractor, batch_size=20)
        trainer = quiet_trainer(callbacks=[evaluation, table := ClosingTable()], default_root_dir=tmp_path)
        trainer.test(model, given, verbose=False)
        figures.append({figure.name: figure for figure in (*evaluation.figures, *table.figures)})
    one, two, both = figures
    assert extractor.num_images == 150 + (80 if make is LabelledVAE else 40), "samples of all loaders' conditions"
    own = ("mean_pixel", "mean_feature_halves", "nll", "bits_per_dim", "effective_samples")
    assert set(one) == set(two) == {f"test/{name}" for name in own}
    for index, alone in enumerate((one, two)):
        for name, figure in alone.items():
            found = both.pop(f"{name}/dataloader_idx_{index}")
            if "nll" not in name and "bits" not in name:  # These draw from the global generator.
                assert found.value == pytest.approx(figure.value, rel=1e-6)
            assert found.protocol == figure.protocol
            assert f"{name}/dataloader_idx_{index}" in trainer.callback_metrics
    assert not both


def test_loaders_of_a_fit_are_seen_once_whole(tmp_path: Path) -> None:
    metric = MeanPixel()
    evaluation = SampleEvaluation([metric], num_samples=10)
    loaders = [
        DataLoader(TensorDataset(held_out_digits()[rows].round()), batch_size=20) for rows in (slice(60), slice(80))
    ]
    trainer = quiet_trainer(max_epochs=2, callbacks=[evaluation], default_root_dir=tmp_path)
    trainer.fit(VAE(hidden_size=4, latent_dim=2), loaders[0], loaders)
    assert [figure.name[-1] for figure in evaluation.figures] == ["0", "1", "0", "1"]
    assert ["60 val" in f.protocol or "80 val" in f.protocol for f in evaluation.figures] == 4 * [True]
    assert metric.counts["reference"] == 60


def test_training_images_as_the_reference(tmp_path: Path) -> None:
    """As published distances are computed; likelihoods stay with held-out images."""
    held_out, extractor = held_out_digits()[:150].round(), Halves()
    metric = FrechetDistance()
    evaluation = SampleEvaluation(
        [metric, ParzenLogLikelihood([0.3])], num_samples=100, extractor=extractor, reference="train"
    )
    data = DigitsDataModule(batch_size=50)
    data.val_dataloader = lambda: DataLoader(held_out, batch_size=40)  # type: ignore[method-assign]
    trainer = quiet_trainer(max_epochs=1, callbacks=[evaluation], default_root_dir=tmp_path, limit_train_batches=1)
    trainer.fit(model := small_vae(decoder="gaussian"), data)

    def distance(x: Tensor, y: Tensor) -> float:
        expected = FrechetDistance()
        expected.bind(extractor)
        expected.update(Samples(x, *extractor(x)))
        expected.update(Samples(y, *extractor(y)), role="reference")
        return expected.compute().item()

    fid, parzen = evaluation.figures
    samples = model.sample(100, generator=torch.Generator().manual_seed(0))
    assert fid.value == pytest.approx(distance(samples, training_digits()), rel=1e-6)
    assert fid.real == pytest.approx(distance(held_out[:100], training_digits()), rel=1e-6)
    assert fid.protocol == "100 samples on halves, 4000 training images, 2 features, real: 100 val images"
    assert parzen.protocol == "100 samples, 150 val images, sigma 0.3 given"
    trainer.test(model, data, verbose=False)
    assert evaluation.figures[0].protocol.startswith("100 samples on halves, 4000 training images")


def test_labels_are_sampled_under_in_turn(tmp_path: Path) -> None:
    class Seen(MeanPixel):
        seen: list[Tensor] = []

        def update(self, samples: Any, batch: Any = None, role: str = "generated") -> None:
            super().update(samples, batch, role)
            if role == "generated":
                self.seen.append(batch["label"])

    evaluation = SampleEvaluation([Seen()], num_samples=120, batch_size=40, labels=[3, 1, 4, 5])
    model = lambda: LabelledVAE(hidden_size=8, latent_dim=2)  # noqa: E731
    fit([evaluation], model, epochs=1, limit_train_batches=1, limit_val_batches=1, default_root_dir=tmp_path)
    assert torch.equal(torch.cat(Seen.seen)[-120:], torch.tensor([3, 1, 4, 5]).repeat(30))


def test_what_a_metric_compares_with_is_kept_beside_the_condition(tmp_path: Path) -> None:
    """A model that sees edges is read against the digits they are of; one without conditions is not sampled for any."""
    data = EdgesToDigitsDataModule(batch_size=50)
    model = Pix2Pix((1, 32, 32), num_levels=3, base_channels=2, patch_size=16, dropout=0.0)
    evaluation = SampleEvaluation([Agreement()], num_samples=100, extractor=DigitFeatures(), batch_size=30)
    trainer = quiet_trainer(
        max_epochs=1, callbacks=[evaluation], default_root_dir=tmp_path, limit_train_batches=1, limit_val_batches=2
    )
    trainer.fit(model, data)
    rows = data.datasets["val"].__getitems__(range(100))
    read = DigitFeatures()(model.sample(100, {"source": rows["source"]})).logits.argmax(1)
    (figure,) = evaluation.figures
    assert figure.value == pytest.approx((read == rows["label"]).float().mean().item())
    assert figure.real > 0.95
    with pytest.raises(DataError, match="Agreement compares samples with the labels"):
        fit([SampleEvaluation([Agreement()], 10, DigitFeatures())], small_vae, epochs=1, default_root_dir=tmp_path)


def test_foreign_loaders_without_a_data_module(tmp_path: Path) -> None:
    """Tuples, and training workers that live on: the trainer's own iterator is left alone."""
    train = TensorDataset(training_digits()[:200].round(), torch.zeros(200))
    held_out = DataLoader(TensorDataset(held_out_digits()[:50].round()), batch_size=25)
    seen = []

    class Seen(VAE):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            seen.append(batch[0])
            return super().training_step(batch, batch_idx)

    evaluation = SampleEvaluation([metric := MeanPixel()], num_samples=80, batch_size=50)
    loader = DataLoader(train, 50, shuffle=True, num_workers=1, persistent_workers=True)
    trainer = quiet_trainer(max_epochs=2, callbacks=[evaluation], default_root_dir=tmp_path, val_check_interval=2)
    trainer.fit(Seen(hidden_size=8, latent_dim=2), loader, held_out)
    assert len(evaluation.figures) == 4
    assert evaluation.figures[0].real is not None
    for epoch in (seen[:4], seen[4:]):
        rows = torch.cat(epoch).flatten(1).sort(0).values
        assert torch.equal(rows, train.tensors[0].flatten(1).sort(0).values), "an epoch did not see every image once"
    with pytest.warns(UserWarning, match="There are no train images here"):
        trainer.test(trainer.lightning_module, held_out, verbose=False)
    assert metric.counts["tuning"] == 0


class TanhVAE(VAE):
    """Gives its images in [-1, 1], as a generator that ends in a tanh."""

    def _sample(self, *args: Any) -> Tensor:
        return 2 * super()._sample(*args) - 1


def test_samples_of_another_range_are_refused_and_not_scored(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"The pixels of the samples lie in \[-.*\], and only \[0, 1\] is scored"):
        fit([SampleEvaluation([MeanPixel()], 20)], lambda: TanhVAE(hidden_size=8), 1, default_root_dir=tmp_path)


def test_an_extractor_is_asked_for() -> None:
    with pytest.raises(LightningGenError, match=r"MeanFeature compares features .* extractor"):
        SampleEvaluation([MeanFeature()])
    with pytest.raises(LightningGenError, match="num_samples=0"):
        SampleEvaluation([MeanPixel()], num_samples=0)


def test_missing_labels_are_named(tmp_path: Path) -> None:
    trainer = quiet_trainer(max_epochs=1, callbacks=[SampleEvaluation([MeanPixel()])], num_sanity_val_steps=0)
    images = DataLoader(held_out_digits()[:20].round(), batch_size=10)
    with pytest.raises(LightningGenError, match="LabelledVAE is sampled under 'label'"):
        trainer.fit(LabelledVAE(hidden_size=4), images, images)


def test_no_validation_is_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="SampleEvaluation runs at the end of validation, and this run has none"):
        fit([SampleEvaluation([MeanPixel()])], epochs=1, limit_train_batches=1, limit_val_batches=0)


def _evaluate(ranks: int, path: Path) -> None:
    torch.manual_seed(5)
    model = VAE(hidden_size=8, latent_dim=2, decoder="gaussian", num_importance_samples=1, init_std=0.3)
    evaluation = SampleEvaluation([metric := MeanPixel()], num_samples=130, batch_size=40)
    data = DigitsDataModule(batch_size=50)
    trainer = quiet_trainer(
        callbacks=[evaluation], devices=ranks, strategy="ddp" if ranks > 1 else "auto", default_root_dir=path
    )
    trainer.test(model, data, verbose=False)
    if trainer.is_global_zero:
        figure = evaluation.figures[0]
        (path / f"{ranks}.json").write_text(json.dumps([*figure, metric.counts]))


def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    spawn_ranks(_evaluate, 2, tmp_path)
    _evaluate(1, tmp_path)
    one, two = (json.loads((tmp_path / f"{ranks}.json").read_text()) for ranks in (1, 2))
    assert one[0] == two[0] == "test/mean_pixel"
    assert one[1] == pytest.approx(two[1], abs=1e-9)  # the samples
    assert one[3] == pytest.approx(two[3], abs=1e-9)  # real images
    assert one[4] == two[4]
    assert one[-1] == two[-1] == {"generated": 130, "reference": 500, "tuning": 500}
