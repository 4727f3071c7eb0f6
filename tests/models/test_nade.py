"""Exact tests of NADE on models small enough to enumerate, and a real training."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from lightning_gen.errors import DataError
from lightning_gen.functional import bernoulli_log_prob
from lightning_gen.models import NADE
from lightning_gen.models.nade import BLOCK, Conditionals
from tests.digits import held_out_digits, quiet_trainer, train_on_digits

ORDERINGS = [None, 3, [5, 0, 3, 1, 4, 2]]


def tiny(image_shape: tuple[int, ...] = (1, 2, 3), hidden_size: int = 5, **arguments: object) -> NADE:
    """A model in float64 with weights and biases large enough to matter."""
    torch.manual_seed(0)
    model = NADE(image_shape, hidden_size=hidden_size, **arguments).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def all_binary_images(*image_shape: int) -> Tensor:
    rows = list(itertools.product([0.0, 1.0], repeat=math.prod(image_shape)))
    return torch.tensor(rows, dtype=torch.float64).view(-1, *image_shape)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("ordering", ORDERINGS)
def test_probabilities_of_all_images_sum_to_one(ordering: int | list[int] | None, tied: bool, activation: str) -> None:
    model = tiny(ordering=ordering, tied=tied, activation=activation)
    log_probs = model.log_prob(all_binary_images(1, 2, 3))
    assert log_probs.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    assert log_probs.std() > 1  # Not the uniform distribution, whose sum is one as well.


def test_loss_on_numbers_worked_by_hand() -> None:
    """W = (ln 3, .), V = (2, 4), b = (-1, -3), c = 0 and x = (1, 0): h = 1/2 and 3/4, both logits are 0."""
    model = NADE((1, 1, 2), hidden_size=1)
    model.weight.data = torch.tensor([[math.log(3.0)], [9.0]])
    model.output_weight.data = torch.tensor([[2.0], [4.0]])
    model.output_bias.data = torch.tensor([-1.0, -3.0])
    image = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    assert model.log_prob(image).item() == pytest.approx(-2 * math.log(2))
    (scores,) = quiet_trainer().validate(model, torch.utils.data.DataLoader(image), verbose=False)
    assert scores["val/nll"] == pytest.approx(2 * math.log(2))
    assert scores["val/bits_per_dim"] == pytest.approx(1.0)


def test_without_weights_it_is_independent_pixels() -> None:
    model = tiny()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.hidden_bias)
    images = all_binary_images(1, 2, 3)
    logits = (model.output_bias + 0.5 * model.output_weight.sum(1)).view(1, 2, 3)
    torch.testing.assert_close(model.log_prob(images), bernoulli_log_prob(images, logits))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_gradient_equals_finite_differences(activation: str, tied: bool) -> None:
    """By the parameters and by the image, black pixels too, over a border between blocks."""
    model = tiny((1, 1, BLOCK + 3), hidden_size=3, activation=activation, tied=tied)
    pixels = (torch.rand(4, BLOCK + 3, dtype=torch.float64) < 0.4).double()
    image = pixels.view(4, 1, 1, -1).requires_grad_()
    (by_image,) = torch.autograd.grad(model.log_prob(image).sum(), image)
    with torch.no_grad():
        for k in range(BLOCK + 3):
            high, low = image.clone(), image.clone()
            high[..., k] += 1e-5
            low[..., k] -= 1e-5
            difference = (model.log_prob(high) - model.log_prob(low)) / 2e-5
            torch.testing.assert_close(by_image[..., k].flatten(), difference, rtol=1e-6, atol=1e-8)
    weight, bias = model.weight.detach().requires_grad_(), model.hidden_bias.detach().requires_grad_()
    if tied:
        assert torch.autograd.gradcheck(lambda w, c: Conditionals.apply(pixels, w, w, c, activation), (weight, bias))
    else:
        output_weight = model.output_weight.detach().requires_grad_()
        assert torch.autograd.gradcheck(Conditionals.apply, (pixels, weight, output_weight, bias, activation))


@pytest.mark.parametrize("ordering", [None, 3])
def test_a_conditional_sees_only_the_pixels_before_it(ordering: int | None) -> None:
    """Changing pixel k moves the logits of exactly the pixels that come after k."""
    model = tiny((1, 5, 5), ordering=ordering)
    image = torch.rand(1, 1, 5, 5, dtype=torch.float64).round()
    logits, order = model.conditional_logits(image).flatten(), model.ordering.tolist()
    for k, pixel in enumerate(order):
        changed = image.clone()
        changed.view(-1)[pixel] = 1 - changed.view(-1)[pixel]
        moved = (model.conditional_logits(changed).flatten() - logits).abs()[model.ordering] > 1e-9
        assert moved.tolist() == [d > k for d in range(25)]


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
@pytest.mark.parametrize("ordering", [None, 3])
def test_samples_are_drawn_from_the_conditionals_of_log_prob(ordering: int | None, activation: str) -> None:
    """A pixel is white where its uniform number lies under the probability that `log_prob` uses, and only there."""
    model = tiny((1, 5, 7), ordering=ordering, activation=activation)
    images = model.sample(50, generator=torch.Generator().manual_seed(1))
    uniform = torch.rand(50, 35, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    probabilities = model.conditional_logits(images).sigmoid().flatten(1)[:, model.ordering]
    assert torch.equal(images.flatten(1)[:, model.ordering], (uniform < probabilities).double())


def test_frequencies_of_samples_are_the_probabilities() -> None:
    """Chi-square of 20,000 draws over all 16 images: 15 degrees of freedom, 37.7 is exceeded in one of 1,000."""
    model = tiny((1, 2, 2), ordering=[2, 0, 3, 1])
    expected = 20_000 * model.log_prob(all_binary_images(1, 2, 2)).exp().detach()
    images = model.sample(20_000, generator=torch.Generator().manual_seed(0)).flatten(1)
    counts = (images @ torch.tensor([8.0, 4.0, 2.0, 1.0])).long().bincount(minlength=16)
    assert ((counts - expected).square() / expected).sum().item() < 37.7


def test_float32_agrees_with_float64_over_all_pixels() -> None:
    torch.manual_seed(0)
    model = NADE()
    nn.init.normal_(model.weight, std=0.1)
    nn.init.normal_(model.output_weight, std=0.1)
    images = held_out_digits()[:8].round()
    narrow = model.log_prob(images)
    torch.testing.assert_close(narrow.double(), model.double().log_prob(images.double()), rtol=1e-5, atol=1e-4)


def test_a_perfect_predictor_costs_nothing() -> None:
    """Every pixel equals the first: only that one is uncertain. A sigmoid of a sigmoid could not go below 0.31 each."""
    model = NADE((1, 4, 4), hidden_size=1)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        model.weight[0], model.hidden_bias[0] = 40.0, -20.0  # h = the first pixel
        model.output_weight[1:], model.output_bias[1:] = 60.0, -30.0  # from then on
        images = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
        torch.testing.assert_close(model.log_prob(images), torch.full((2,), -math.log(2)), rtol=0, atol=1e-6)


def test_output_biases_start_at_the_frequencies_of_the_pixels() -> None:
    model = NADE((1, 1, 3), ordering=[2, 0, 1])
    model.initialize_from([torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]]).view(2, 1, 1, 3)])
    torch.testing.assert_close(model.output_bias.sigmoid(), torch.tensor([2 / 4, 3 / 4, 1 / 4]))


def test_step_size_falls_as_in_the_paper() -> None:
    model = NADE((1, 1, 2), lr=0.1, lr_decay=0.5)
    images = torch.ones(3, 1, 1, 2)
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(model, torch.utils.data.DataLoader(images))
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 / (1 + 0.5 * 3))


def test_tied_weights_are_one_parameter() -> None:
    sizes = {tied: sum(p.numel() for p in NADE(tied=tied).parameters()) for tied in (False, True)}
    assert sizes == {False: 2 * 784 * 500 + 784 + 500, True: 784 * 500 + 784 + 500}


@pytest.mark.parametrize("ordering", [None, 0])
def test_learns_real_digits_better_than_independent_pixels(ordering: int | None) -> None:
    """Baseline: each pixel on its own, at the training set's frequency."""
    torch.manual_seed(0)
    model = NADE(hidden_size=100, activation="relu", optimizer="adam", lr=0.01, ordering=ordering)
    train = train_on_digits(model, epochs=3)
    images = held_out_digits().bernoulli(generator=torch.Generator().manual_seed(0))
    baseline = bernoulli_log_prob(images, train.mean(0).clamp(1e-3, 1 - 1e-3).logit()).mean().item()
    with torch.no_grad():
        assert model.log_prob(images).mean().item() > baseline + 80


def test_reduced_precision_leaves_the_sums_alone() -> None:
    model = tiny().float()
    images = all_binary_images(1, 2, 3).float()
    expected = model.log_prob(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model.log_prob(images), expected, rtol=1e-6, atol=1e-6)


def test_grey_pixels_are_refused() -> None:
    with pytest.raises(DataError, match=r"grey ones.*binarization=dynamic \(each pixel is drawn"):
        NADE().as_batch(torch.full((2, 1, 28, 28), 0.5))


@pytest.mark.parametrize(
    ("ordering", "message"), [([0, 1, 1], "2 is missing"), ([0, 1], "2 is missing"), ([0, 1, 2, 2], "4 entries")]
)
def test_an_ordering_that_is_no_permutation_is_refused(ordering: list[int], message: str) -> None:
    with pytest.raises(DataError, match=f"no permutation of the 3 pixels.*{message}"):
        NADE((1, 1, 3), ordering=ordering)
