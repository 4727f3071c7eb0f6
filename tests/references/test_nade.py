import itertools

import pytest
import torch
from torch import Tensor

from lightning_gen.models import NADE, EoNADE
from tests.references import nade as paper
from tests.references.compare import BFLOAT16, binary, close, in_bfloat16, parameters_of, shaken

SHAPE, BATCH = (1, 5, 7), 3
ORDERS = [None, 4]


def logits_of(model: NADE, images: Tensor, act: str = "sigmoid") -> Tensor:
    p = parameters_of(model)
    v = p.get("output_weight", p["weight"])
    units = paper.SIGMOID if act == "sigmoid" else paper.RECTIFIER
    order = p["ordering"].tolist()
    rows = [
        paper.nade_logits(x, order, p["weight"], v, p["output_bias"], p["hidden_bias"], units)
        for x in images.double().flatten(1)
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
@pytest.mark.parametrize("tied", [False, True])
def test_conditionals(order: int | None, activation: str, tied: bool) -> None:
    model = shaken(NADE(SHAPE, hidden_size=9, ordering=order, activation=activation, tied=tied))
    images = binary(BATCH, *SHAPE)
    logits = logits_of(model, images, activation)
    close(model.conditional_logits(images), logits.view_as(images))
    expected = [paper.nade_log_prob(x, row) for x, row in zip(images.flatten(1), logits, strict=True)]
    close(model.log_prob(images), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("order", ORDERS)
def test_gradients(order: int | None) -> None:
    """The model's training step, whose backward pass is written by hand too, against the recursion of one image."""
    model = shaken(NADE(SHAPE, hidden_size=9, ordering=order))
    images = binary(BATCH, *SHAPE)
    model.training_step({"image": images}, 0).backward()
    p = parameters_of(model)
    names = ["weight", "output_weight", "output_bias", "hidden_bias"]
    per_image = [
        paper.nade_gradients(x, p["ordering"].tolist(), *(p[name] for name in names)) for x in images.flatten(1)
    ]
    for name, gradients in zip(names, zip(*per_image, strict=True), strict=True):
        close(model.get_parameter(name).grad, sum(gradients) / BATCH)


def test_conditionals_in_bfloat16() -> None:
    """A logit is b plus a product of 9 units of at most 1 with weights of at most 1.5; what is rounded in between, to
    2^-8 of its size, are the sums of up to 35 weights under the units, at most 10, whose slope is at most 1/4. The
    errors of the units, of either sign, add up as the root of their number.
    """
    model = in_bfloat16(shaken(NADE(SHAPE, hidden_size=9)))
    images = binary(BATCH, *SHAPE).bfloat16()
    bound = 9**0.5 * 1.5 * BFLOAT16 * (1 + 10 / 4)
    close(model.conditional_logits(images).flatten(1), logits_of(model, images), rtol=0, atol=bound)


def deep(shape: tuple[int, ...], num_orderings: int) -> EoNADE:
    return shaken(EoNADE(shape, hidden_size=9, num_layers=3, num_orderings=num_orderings))


def orders(num_pixels: int, number: int) -> list[list[int]]:
    """The model's orders are drawn by the seeds 0, 1, ..."""
    return [
        torch.randperm(num_pixels, generator=torch.Generator().manual_seed(seed)).tolist() for seed in range(number)
    ]


def test_ensemble() -> None:
    model, images = deep(SHAPE, 3), binary(BATCH, *SHAPE)
    p = parameters_of(model)
    expected = [paper.ensemble_log_prob(x, orders(35, 3), p) for x in images.flatten(1)]
    close(model.log_prob(images), torch.tensor(expected, dtype=torch.float64))


def test_orderless_loss() -> None:
    model, images = deep(SHAPE, 3), binary(BATCH, *SHAPE)
    known = [[], [34, 3, 11], [i for i in range(35) if i != 8]]  # None, a few, all but one.
    mask = torch.tensor([[float(i in row) for i in range(35)] for row in known]).double().view_as(images)
    p = parameters_of(model)
    expected = [paper.orderless_loss(x, row, p) for x, row in zip(images.flatten(1), known, strict=True)]
    close(model.orderless_loss(images, mask), torch.tensor(expected, dtype=torch.float64))


def test_probabilities_of_all_images_sum_to_one() -> None:
    """All 512 images of 3 x 3 pixels."""
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9)), dtype=torch.float64).view(-1, 1, 3, 3)
    for model in (shaken(NADE((1, 3, 3), hidden_size=5, ordering=2)), deep((1, 3, 3), 2)):
        close(model.log_prob(images).exp().sum(), torch.tensor(1.0, dtype=torch.float64))
