"""Exact tests of orderless NADE on models small enough to enumerate, and a real training."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from lightning_gen.errors import DataError
from lightning_gen.functional import bernoulli_log_prob
from lightning_gen.models import NADE, EoNADE
from lightning_gen.models.eonade import BLOCK
from lightning_gen.models.nade import permutation
from tests.digits import held_out_digits, quiet_trainer, train_on_digits
from tests.models.test_nade import all_binary_images

LAYERS = [1, 2, 3]


def tiny(image_shape: tuple[int, ...] = (1, 2, 2), hidden_size: int = 5, **arguments: object) -> EoNADE:
    """A model in float64 with weights and biases large enough to matter."""
    torch.manual_seed(0)
    model = EoNADE(image_shape, hidden_size=hidden_size, **arguments).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def formula(model: EoNADE, images: Tensor, ordering: list[int]) -> Tensor:
    """Log p(x | o) from one run of the whole network for each pixel, `(N,)`."""
    total, mask = torch.zeros(len(images), dtype=images.dtype), torch.zeros_like(images)
    for pixel in ordering:
        logit = model.conditional_logits(images, mask).flatten(1)[:, pixel]
        total += torch.distributions.Bernoulli(logits=logit).log_prob(images.flatten(1)[:, pixel])
        mask.flatten(1)[:, pixel] = 1
    return total


@pytest.mark.parametrize("num_layers", LAYERS)
def test_probabilities_sum_to_one_in_each_ordering_and_together(num_layers: int) -> None:
    model = tiny(num_layers=num_layers, num_orderings=3)
    images = all_binary_images(1, 2, 2)
    each = [model.log_prob_in_order(images, torch.tensor(o)).exp() for o in itertools.permutations(range(4))]
    for probabilities in each:
        assert probabilities.sum().item() == pytest.approx(1.0, abs=1e-12)
    assert torch.stack(each).std(0).max() > 0.01  # The orderings disagree: a mean of logs would not sum to one.
    assert model.log_prob(images).exp().sum().item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
@pytest.mark.parametrize("num_layers", LAYERS)
def test_blocks_equal_the_network_run_for_each_pixel(num_layers: int, activation: str) -> None:
    """More pixels than two blocks hold, and a last block that is not full."""
    model = tiny((1, 3, BLOCK - 2), num_layers=num_layers, activation=activation)
    images = torch.rand(6, *model.image_shape, dtype=torch.float64).round()
    ordering = permutation(5, model.num_pixels)
    torch.testing.assert_close(model.log_prob_in_order(images, ordering), formula(model, images, ordering.tolist()))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_loss_is_unbiased_for_the_mean_over_all_orderings(num_layers: int) -> None:
    """Over all numbers d - 1 of known pixels, equally likely, and all sets of so many, against all 24 orderings."""
    model = tiny(num_layers=num_layers)
    images = all_binary_images(1, 2, 2)
    orderings = [torch.tensor(ordering) for ordering in itertools.permutations(range(4))]
    expected = -sum(model.log_prob_in_order(images, ordering) for ordering in orderings) / len(orderings)
    total = torch.zeros_like(expected)
    for known in range(4):
        sets = list(itertools.combinations(range(4), known))
        for pixels in sets:
            mask = torch.zeros(4, dtype=torch.float64)
            mask[list(pixels)] = 1
            total += model.orderless_loss(images, mask.view(1, 1, 2, 2).expand_as(images)) / len(sets) / 4
    torch.testing.assert_close(total, expected)


def test_masks_are_drawn_as_the_loss_wants_them() -> None:
    """Each number of known pixels from none to all but one is as likely as another, and so is each set of so many."""
    torch.manual_seed(0)
    n = 32_000
    masks = EoNADE((1, 2, 2), hidden_size=2).draw_mask(n).flatten(1).long()
    sets = (masks @ torch.tensor([1, 2, 4, 8])).bincount(minlength=16)
    for number, count in enumerate(sets.tolist()):
        known = number.bit_count()
        p = 0 if known == 4 else 1 / 4 / math.comb(4, known)
        assert abs(count - n * p) <= 4.5 * math.sqrt(n * p * (1 - p))


def test_loss_on_numbers_worked_by_hand() -> None:
    """Two of three pixels are not known and have the logits 0 and ln 3, both are white: 3/2 (ln 2 + ln 4/3)."""
    model = EoNADE((1, 1, 3), hidden_size=1, num_layers=1)
    model.weight.data = torch.tensor([[1.0], [50.0], [50.0]])
    model.mask_weight.data = torch.tensor([[1.0], [50.0], [50.0]])
    model.output_weight.data = torch.tensor([[9.0], [1.0], [math.log(3.0) / 2]])
    model.output_bias.data = torch.tensor([9.0, -2.0, 0.0])
    image, mask = torch.ones(1, 1, 1, 3), torch.tensor([1.0, 0.0, 0.0]).view(1, 1, 1, 3)
    assert model.orderless_loss(image, mask).item() == pytest.approx(1.5 * (math.log(2) + math.log(4 / 3)))


def test_without_the_masks_weights_it_is_nade() -> None:
    """One hidden layer, one ordering, and the same weights, which NADE has in the order of the ordering."""
    model = tiny((1, 3, 3), num_layers=1, activation="sigmoid")
    nn.init.zeros_(model.mask_weight)
    order = permutation(7, 9)
    nade = NADE((1, 3, 3), hidden_size=5, ordering=7).double()
    for name in ("weight", "output_weight", "output_bias"):
        getattr(nade, name).data = getattr(model, name).data[order]
    nade.hidden_bias.data = model.hidden_bias.data
    images = all_binary_images(1, 3, 3)
    torch.testing.assert_close(model.log_prob_in_order(images, order), nade.log_prob(images))


def test_frequencies_of_samples_are_the_probabilities() -> None:
    """Chi-square of 20,000 draws over all 16 images: 15 degrees of freedom, 37.7 is exceeded in one of 1,000."""
    model = tiny(num_orderings=3)
    expected = 20_000 * model.log_prob(all_binary_images(1, 2, 2)).exp().detach()
    images = model.sample(20_000, generator=torch.Generator().manual_seed(0)).flatten(1)
    counts = (images @ torch.tensor([8.0, 4.0, 2.0, 1.0])).long().bincount(minlength=16)
    assert ((counts - expected).square() / expected).sum().item() < 37.7


def test_validation_scores_one_ordering_and_test_all() -> None:
    model = tiny(num_orderings=4)
    images = all_binary_images(1, 2, 2)[3:9]
    loader = torch.utils.data.DataLoader(images, batch_size=4)
    (val,) = quiet_trainer(precision="64-true").validate(model, loader, verbose=False)
    (test,) = quiet_trainer(precision="64-true").test(model, loader, verbose=False)
    assert val["val/nll"] == pytest.approx(-model.log_prob(images, num_orderings=1).mean().item())
    assert test["test/nll"] == pytest.approx(-model.log_prob(images, num_orderings=4).mean().item())
    assert model.likelihood_protocol("test") == "exact log-likelihood of an ensemble of 4 orderings"


def test_number_of_parameters() -> None:
    sizes = [sum(p.numel() for p in EoNADE(num_layers=n).parameters()) for n in (1, 2)]
    assert sizes == [3 * 784 * 500 + 784 + 500, 3 * 784 * 500 + 784 + 500 + 500 * 500 + 500]


def test_learns_real_digits_in_any_order() -> None:
    """Baseline: each pixel on its own, at the training set's frequency. Two orderings together beat each alone."""
    torch.manual_seed(0)
    model = EoNADE(hidden_size=100, optimizer="adam", lr=0.003, lr_decay=0.0)
    train = train_on_digits(model, epochs=10)
    images = held_out_digits()[:100].bernoulli(generator=torch.Generator().manual_seed(0))
    baseline = bernoulli_log_prob(images, train.mean(0).clamp(1e-3, 1 - 1e-3).logit()).mean().item()
    with torch.no_grad():
        alone = [model.log_prob_in_order(images, permutation(seed, 784)).mean().item() for seed in range(2)]
        together = model.log_prob(images, num_orderings=2).mean().item()
    assert min(alone) > baseline + 30
    assert together > max(alone)


def test_no_ordering_is_refused() -> None:
    with pytest.raises(DataError, match="num_orderings is 0"):
        tiny().log_prob(torch.zeros(1, 1, 2, 2), num_orderings=0)


def test_published_schedule() -> None:
    """A step size that falls linearly to 0 over the run, and no momentum in the first two epochs."""
    seen = []

    class Watched(EoNADE):
        def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
            (group,) = self.trainer.optimizers[0].param_groups
            seen.append((group["lr"], group["momentum"]))

    images = torch.zeros(4, 1, 1, 2)
    quiet_trainer(max_epochs=3).fit(Watched((1, 1, 2), 3, lr=0.6), torch.utils.data.DataLoader(images, batch_size=2))
    expected = [(0.6 * (1 - t / 6), 0.0 if t < 4 else 0.9) for t in range(6)]
    assert seen == [(pytest.approx(lr), momentum) for lr, momentum in expected]
