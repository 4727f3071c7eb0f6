"""Exact tests of moment matching, and real trainings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_gen._lightning import Callback, LightningModule, Trainer, pl
from lightning_gen.callbacks import SampleEvaluation, SampleGrid
from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.errors import CheckpointError, DataError
from lightning_gen.functional import parzen_log_likelihood, sqrt_mmd2
from lightning_gen.metrics import ParzenLogLikelihood
from lightning_gen.models import GMMN
from lightning_gen.models.gmmn import Autoencoder
from tests.digits import held_out_digits, quiet_trainer, training_digits


def small_gmmn(**arguments: Any) -> GMMN:
    """The published bandwidths and steps on few units."""
    return GMMN(**{"hidden_sizes": (64, 128), **arguments})


def small_with_code(**arguments: Any) -> GMMN:
    sizes = {"code_sizes": (32, 8), "bandwidths": (1.0,), "pretraining_steps": 3, "finetuning_steps": 4}
    return small_gmmn(**{**sizes, "code_batch_size": 50, **arguments})


@pytest.mark.parametrize("init_std", [0.1, None])
def test_published_sizes_and_first_weights(init_std: float | None) -> None:
    """Of 0.1 times a normal number in the released code, for the generator and the autoencoder; or by the inputs."""
    assert GMMN().hparams["init_std"] == 0.1
    model = GMMN(init_std=init_std)
    assert sum(p.numel() for p in model.parameters()) == 1_149_904
    autoencoder = GMMN(code_sizes=(1024, 32), init_std=init_std).autoencoder
    for layer in [*model.generator, *autoencoder.encoder, *autoencoder.decoder]:
        if isinstance(layer, nn.Linear):
            expected = layer.in_features**-0.5 if init_std is None else init_std
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
            assert layer.bias.count_nonzero() == 0
    assert autoencoder is not None
    sizes = [(784, 1024), (1024, 32), (32, 1024), (1024, 784)]
    assert sum(p.numel() for p in autoencoder.parameters()) == sum(a * b + b for a, b in sizes)


def test_noise_is_uniform() -> None:
    z = GMMN().sample_latent(20000)
    assert (z.min().item(), z.max().item()) == pytest.approx((-1, 1), abs=1e-3)
    assert z.std().item() == pytest.approx(3**-0.5, rel=0.02)


@pytest.mark.parametrize("chunk_size", [None, 7])
def test_training_is_the_published_update(chunk_size: int | None) -> None:
    """Two steps over a drop of the step size, by hand; in chunks that do not divide the batch, too."""
    images = training_digits()[:40].double()
    noise = 2 * torch.rand(2, 20, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1
    torch.manual_seed(0)
    model, by_hand = small_gmmn(lr_drop_step=1, chunk_size=chunk_size).double(), small_gmmn().double()
    by_hand.load_state_dict(model.state_dict())
    draws = iter(noise)
    model.sample_latent = lambda num_samples, generator=None: next(draws)  # type: ignore[method-assign]
    quiet_trainer(max_epochs=1, limit_val_batches=0, precision="64-true").fit(
        model, torch.utils.data.DataLoader(images, batch_size=20)
    )
    parameters = list(by_hand.generator.parameters())
    velocity = [torch.zeros_like(p) for p in parameters]
    for batch, z, (lr, momentum) in zip(images.split(20), noise, ((2.0, 0.9), (0.2, 0.99)), strict=True):
        loss = sqrt_mmd2(batch.flatten(1), by_hand.generator(z), (2.0, 5.0, 10.0, 20.0, 40.0, 80.0))
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, v, gradient in zip(parameters, velocity, gradients, strict=True):
            v.mul_(momentum).add_(gradient)
            parameter.data.sub_(lr * v)
    for ours, theirs in zip(model.generator.parameters(), parameters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_dropout_masks_in_training_and_scales_in_evaluation() -> None:
    """The kind without inversion: the mean over masks enters each layer in evaluation."""
    torch.manual_seed(0)
    autoencoder = Autoencoder(6, (4,), (0.3,)).double()
    x = torch.rand(1, 6, dtype=torch.float64)
    layer = autoencoder.encoder[0]
    autoencoder.eval()
    torch.testing.assert_close(autoencoder.encode(x), (layer(0.7 * x)).sigmoid())
    autoencoder.train()
    seen = []
    layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    autoencoder.encode(x.expand(20000, 6))
    assert ((seen[0] == 0) | torch.isclose(seen[0], x)).all()
    torch.testing.assert_close(seen[0].mean(0), 0.7 * x[0], rtol=0.03, atol=0)


class Phases(Callback):
    """What changes in each batch."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, set[str]]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.phase: int = pl_module.phase
        self.before = {name: p.detach().clone() for name, p in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *arguments: Any) -> None:
        moved = {name for name, p in pl_module.named_parameters() if not torch.equal(p, self.before[name])}
        self.rows.append((self.phase, {".".join(name.split(".")[:3]) for name in moved}))


def test_one_fit_goes_through_all_phases_and_evaluation_waits(tmp_path: Path) -> None:
    """One update a batch here, so that a batch is of one phase: 3 + 3 of a layer, 4 of all, 2 of the generator."""
    phases, grid = Phases(), SampleGrid(num_samples=4, num_columns=2)
    evaluation = SampleEvaluation([ParzenLogLikelihood()], num_samples=50)
    loader = torch.utils.data.DataLoader(training_digits()[:150], batch_size=50)
    trainer = quiet_trainer(max_epochs=4, callbacks=[phases, grid, evaluation], default_root_dir=tmp_path)
    trainer.fit(small_with_code(), loader, torch.utils.data.DataLoader(held_out_digits()[:50], batch_size=50))
    assert [phase for phase, _ in phases.rows] == [0] * 3 + [1] * 3 + [2] * 4 + [3] * 2
    pairs = [{f"autoencoder.encoder.{i}", f"autoencoder.decoder.{i}"} for i in range(2)]
    for phase, moved in phases.rows[:-2]:
        assert moved == (pairs[phase] if phase < 2 else pairs[0] | pairs[1])
    for _, moved in phases.rows[-2:]:
        assert {name.split(".")[0] for name in moved} == {"generator"}, "the autoencoder is frozen"
    assert [figure.epoch for figure in evaluation.figures] == [3]
    assert len(grid.pictures) == 1


def test_resumed_in_any_phase_is_bit_equal(tmp_path: Path) -> None:
    ends = []
    for stops in ((4,), (1, 4), (3, 4)):
        pl.seed_everything(0, verbose=False)
        model, checkpoint = small_with_code(code_dropout=(0.0, 0.0)), None
        for stop in stops:
            torch.manual_seed(stop)
            trainer = quiet_trainer(max_epochs=stop, limit_val_batches=0)
            batches = [training_digits()[i : i + 50] for i in range(0, 150, 50)]
            model.sample_latent = lambda n, generator=None: torch.linspace(-1, 1, 10 * n).view(n, 10)  # type: ignore[method-assign]
            trainer.fit(model, torch.utils.data.DataLoader(batches, batch_size=None), ckpt_path=checkpoint)
            trainer.save_checkpoint(checkpoint := tmp_path / "last.ckpt")
            if stop == 1:
                with pytest.raises(CheckpointError, match=r"in phase 1 of 3: its generator is not trained yet"):
                    GMMN.load_from_checkpoint(checkpoint).sample(1)
            model = small_with_code(code_dropout=(0.0, 0.0))
        ends.append(torch.load(checkpoint, weights_only=True)["state_dict"])
    assert ends[0]["progress"].tolist() == [10, 2]
    for end in ends[1:]:
        for name, value in ends[0].items():
            assert torch.equal(end[name], value), name


def test_median_bandwidth_is_found_once() -> None:
    model = small_gmmn(bandwidths=None)
    loader = torch.utils.data.DataLoader(training_digits()[:200], batch_size=100)
    quiet_trainer(max_epochs=1, limit_val_batches=0).fit(model, loader)
    expected = torch.pdist(training_digits()[:100].flatten(1).double()).square().median()
    assert model.median.item() == pytest.approx(expected.item(), rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bandwidths": (1.0, -2.0)}, r"bandwidths=\(1.0, -2.0\); expected tuple\[float > 0"),
        ({"kernel": "rational_quadratic", "bandwidths": (0.0,)}, r"bandwidths=\(0.0,\); expected tuple\[float > 0"),
        ({"code_sizes": (32, 8), "code_dropout": (0.1,)}, "1 numbers for the 2 of code_sizes"),
        ({"chunk_size": -1}, "chunk_size=-1; expected int >= 1"),
    ],
)
def test_bad_arguments_are_one_clear_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        GMMN(**arguments)


def test_too_small_batches_are_named() -> None:
    loader = torch.utils.data.DataLoader(training_digits()[:2], batch_size=1)
    with pytest.raises(DataError, match="got 1 and 1 points; this estimate needs at least 2"):
        quiet_trainer(max_epochs=1, limit_val_batches=0).fit(small_gmmn(biased=False), loader)
    with pytest.raises(DataError, match="median distance between the points is 0"):
        quiet_trainer(max_epochs=1, limit_val_batches=0).fit(
            small_gmmn(bandwidths=None), torch.utils.data.DataLoader(torch.zeros(8, 1, 28, 28), batch_size=4)
        )


@pytest.mark.parametrize(
    ("arguments", "margin"),
    [
        ({}, 100),
        ({"biased": False}, 30),  # Without the root its gradient fades.
        ({"code_sizes": (128, 32), "bandwidths": (1.0,), "pretraining_steps": 80, "finetuning_steps": 80}, 100),
    ],
    ids=["root", "unbiased", "autoencoder"],
)
def test_learns_to_match_better_than_independent_pixels(arguments: dict[str, Any], margin: float) -> None:
    """Parzen windows on pixels drawn each by itself from the training images are the baseline; nats."""
    torch.manual_seed(0)
    images = training_digits()
    model = small_gmmn(**arguments)
    quiet_trainer(max_epochs=8, limit_val_batches=0).fit(model, datamodule=DigitsDataModule(batch_size=200))
    draws = torch.stack([images[torch.randperm(1000), :, i // 28, i % 28] for i in range(784)], 2).view(-1, 1, 28, 28)

    def score(samples: torch.Tensor) -> float:
        return parzen_log_likelihood(held_out_digits(), samples, 0.2).mean().item()

    assert score(model.sample(1000)) > score(draws) + margin
