"""Exact tests of the Bernoulli mixture on models small enough to enumerate, its theorem, and a real training."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Independent, MixtureSameFamily
from torch.utils.data import DataLoader

from lightning_gen._lightning import pl
from lightning_gen.errors import DataError
from lightning_gen.functional import bernoulli_log_prob
from lightning_gen.models import BernoulliMixture
from tests.digits import held_out_digits, quiet_trainer, train_on_digits, training_digits


def binary_digits(number: int) -> Tensor:
    return training_digits()[:number].bernoulli(generator=torch.Generator().manual_seed(0)).double()


def steps_of_em(
    model: BernoulliMixture, images: Tensor, epochs: int, batch_size: int = 100, **arguments: object
) -> None:
    quiet_trainer(max_epochs=epochs, precision="64-true", **arguments).fit(model, DataLoader(images, batch_size))


def test_probabilities_of_all_images_sum_to_one() -> None:
    torch.manual_seed(0)
    model = BernoulliMixture((1, 2, 4), num_components=3).double()
    model.weights.data = torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64)
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8)), dtype=torch.float64).view(-1, 1, 2, 4)
    log_prob = model.log_prob(images)
    assert log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    components = Independent(Bernoulli(model.means), 3)
    expected = MixtureSameFamily(Categorical(model.weights), components).log_prob(images)
    torch.testing.assert_close(log_prob, expected)


def test_a_step_worked_by_hand() -> None:
    """Two pixels, two components. p(x, k) of x = (1, 0) is 1/2 * (3/4 * 1/2, 1/4 * 1/4) = (3/16, 1/32)."""
    model = BernoulliMixture((1, 1, 2), num_components=2, smoothing=1.0)
    model.logits.data = torch.tensor([[3 / 4, 1 / 2], [1 / 4, 3 / 4]]).logit().view(2, 1, 1, 2)
    model.initialized.fill_(True)
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(2, 1, 1, 2)  # Of (0, 1) it is (1/16, 9/32).
    torch.testing.assert_close(model.log_prob(images).exp(), torch.tensor([7 / 32, 11 / 32]))
    steps_of_em(model, images, epochs=1)
    responsibilities = torch.tensor([[6 / 7, 1 / 7], [2 / 11, 9 / 11]], dtype=torch.float64)
    counts = responsibilities.sum(0)
    torch.testing.assert_close(model.weights.data, counts / 2)
    # The mean image is (1 + 1) / (2 + 2) = 1/2 for both pixels; each component has seen it once.
    torch.testing.assert_close(model.means[:, 0, 0, 0], (responsibilities[0] + 1 / 2) / (counts + 1))
    torch.testing.assert_close(model.means[:, 0, 0, 1], (responsibilities[1] + 1 / 2) / (counts + 1))


@pytest.mark.parametrize("smoothing", [1e-6, 3.0])
def test_no_step_lowers_the_training_likelihood(smoothing: float) -> None:
    """The theorem of the algorithm, on the posterior; with next to no prior it is the likelihood itself."""
    images = binary_digits(500)
    mean = (images.sum(0) + 1) / (len(images) + 2)

    class Recording(BernoulliMixture):
        def maximize(self, counts: Tensor, sums: Tensor) -> None:
            objectives.append(objective(self))
            super().maximize(counts, sums)

    def objective(model: BernoulliMixture) -> float:
        prior = (mean * model.means.log() + (1 - mean) * torch.log1p(-model.means)).sum()
        return (model.log_prob(images).sum() + smoothing * prior).item()

    objectives: list[float] = []
    torch.manual_seed(1)
    model = Recording(num_components=8, smoothing=smoothing)
    steps_of_em(model, images, epochs=12)
    objectives.append(objective(model))
    for before, after in itertools.pairwise(objectives):
        assert after >= before - 1e-7 * abs(before)
    assert objectives[-1] > objectives[1] + 1000  # It had something to climb.


def test_batches_make_no_difference() -> None:
    """One step uses the whole epoch, however it is cut into batches."""
    images, results = binary_digits(70), []
    for batch_size in (70, 16):
        torch.manual_seed(2)
        model = BernoulliMixture(num_components=4)
        model.initialized.fill_(True)
        steps_of_em(model, images, epochs=2, batch_size=batch_size)
        results.append(model.means)
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)


def test_draws_have_the_weights_and_means_of_the_model() -> None:
    model = BernoulliMixture((1, 1, 3), num_components=2)
    model.weights.data = torch.tensor([0.8, 0.2])
    model.logits.data = torch.tensor([[0.9, 0.5, 0.01], [0.1, 0.5, 0.99]]).logit().view(2, 1, 1, 3)
    images = model.sample(100_000, generator=torch.Generator().manual_seed(0))
    assert ((images == 0) | (images == 1)).all()
    torch.testing.assert_close(images.mean(0).flatten(), torch.tensor([0.74, 0.5, 0.206]), rtol=0, atol=0.01)
    both = (images[:, 0, 0, 0] * images[:, 0, 0, 2]).mean().item()  # Pixels of one image share its component.
    assert both == pytest.approx(0.8 * 0.9 * 0.01 + 0.2 * 0.1 * 0.99, abs=0.002)


def test_components_start_near_images_of_their_own() -> None:
    images = binary_digits(20)
    model = BernoulliMixture(num_components=10)
    model.initialize_from(DataLoader(images, 4))
    nearest = torch.cdist(model.means.flatten(1).double(), images.flatten(1)).argmin(1)
    assert nearest.tolist() == list(range(10))
    assert 0 < model.means.min() <= model.means.max() < 1


def test_checkpoints_are_written_and_resumed_without_an_optimizer(tmp_path: Path) -> None:
    """Lightning saves nothing while no step is counted; a resumed run ends where a straight one does."""
    images = binary_digits(300).float()

    def fit(folder: str, epochs: int, ckpt_path: Path | None = None) -> tuple[BernoulliMixture, Path]:
        torch.manual_seed(3)
        model = BernoulliMixture(num_components=6)
        saving = pl.callbacks.ModelCheckpoint(tmp_path / folder, save_last=True)
        trainer = quiet_trainer(max_epochs=epochs, enable_checkpointing=True, callbacks=[saving])
        trainer.fit(model, DataLoader(images, 100), ckpt_path=ckpt_path)
        assert trainer.global_step == 3 * epochs
        return model, tmp_path / folder / "last.ckpt"

    straight, _ = fit("straight", 4)
    _, half = fit("half", 2)
    resumed, _ = fit("resumed", 4, half)
    torch.testing.assert_close(resumed.means, straight.means, rtol=0, atol=0)
    assert not torch.equal(BernoulliMixture.load_from_checkpoint(half).means, straight.means)


def test_learns_real_digits_better_than_independent_pixels() -> None:
    """Baseline: each pixel on its own, at the training set's frequency; one component is just that."""
    images = held_out_digits().bernoulli(generator=torch.Generator().manual_seed(0))
    train = training_digits()
    baseline = bernoulli_log_prob(images, train.mean(0).clamp(1e-3, 1 - 1e-3).logit()).mean().item()
    torch.manual_seed(0)
    one, fifty = BernoulliMixture(num_components=1), BernoulliMixture(num_components=50)
    train_on_digits(one, epochs=1)
    train_on_digits(fifty, epochs=15)
    assert one.log_prob(images).mean().item() == pytest.approx(baseline, abs=1)
    assert fifty.log_prob(images).mean().item() > baseline + 55


def test_validation_sees_the_step_of_its_epoch() -> None:
    images = binary_digits(200)
    torch.manual_seed(4)
    model = BernoulliMixture(num_components=5)
    trainer = quiet_trainer(max_epochs=1, precision="64-true")
    trainer.fit(model, DataLoader(images, 50), DataLoader(images, 50))
    assert trainer.callback_metrics["val/nll"].item() == pytest.approx(-model.log_prob(images).mean().item())


def test_mixed_precision_leaves_the_likelihood_whole() -> None:
    images = binary_digits(50).float()
    model = BernoulliMixture(num_components=5)
    exact = model.log_prob(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model.log_prob(images), exact, rtol=0, atol=0)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match="binarization=dynamic"):
        BernoulliMixture(num_components=2).as_batch(torch.full((2, 1, 28, 28), 0.5))
    with pytest.raises(DataError, match="num_components=0"):
        BernoulliMixture(num_components=0)
    with pytest.raises(DataError, match=r"smoothing=0\.0; expected float > 0"):
        BernoulliMixture(smoothing=0.0)
    with pytest.raises(DataError, match="num_components is 30 and there are 20 training images"):
        steps_of_em(BernoulliMixture(num_components=30), binary_digits(20), epochs=1)


@pytest.mark.parametrize("smoothing", [1e-6, 1.0])
def test_certain_pixels_stay_finite_in_single_precision(smoothing: float) -> None:
    """Digits in black on white: nearly every pixel of the border is always white."""
    images = 1 - binary_digits(2000).float()
    scores = []
    for batch in (images, 1 - images):
        torch.manual_seed(5)
        model = BernoulliMixture(num_components=3, smoothing=smoothing)
        quiet_trainer(max_epochs=3).fit(model, DataLoader(batch, 200))
        scores.append(model.log_prob(batch).mean().item())
    assert scores[0] == pytest.approx(scores[1], abs=0.1)  # The mirror image of the data has the same likelihood.


def test_an_unseen_white_pixel_is_unlikely_and_not_impossible() -> None:
    model = BernoulliMixture((1, 1, 2), num_components=1)
    steps_of_em(model, torch.tensor([[1.0, 0.0]] * 8).view(8, 1, 1, 2).double(), epochs=1)
    # The mean image is (9/10, 1/10), seen once beside the eight: (8 + 0.9) / 9 and 0.1 / 9.
    expected = math.log(0.1 / 9) + math.log(1 - 8.9 / 9)
    unseen = torch.tensor([0.0, 1.0], dtype=torch.float64).view(1, 1, 1, 2)
    assert model.log_prob(unseen).item() == pytest.approx(expected)
