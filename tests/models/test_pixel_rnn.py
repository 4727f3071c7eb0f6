"""Exact tests of PixelRNN on images small enough to enumerate, and a real training of each kind."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gen.errors import ConditionError, DataError
from lightning_gen.functional import bernoulli_log_prob
from lightning_gen.models import MultiScalePixelRNN, PixelRNN
from lightning_gen.models.pixel_rnn_sampling import draw_levels
from tests.digits import held_out_digits, quiet_trainer, train_on_digits

VARIANTS = ["pixelcnn", "row_lstm", "diagonal_bilstm"]
KINDS = {
    "pixelcnn": (PixelRNN, "pixelcnn"),
    "row_lstm": (PixelRNN, "row_lstm"),
    "diagonal_bilstm": (PixelRNN, "diagonal_bilstm"),
    "multi_scale_pixelcnn": (MultiScalePixelRNN, "pixelcnn"),
    "multi_scale_row_lstm": (MultiScalePixelRNN, "row_lstm"),
    "multi_scale_diagonal_bilstm": (MultiScalePixelRNN, "diagonal_bilstm"),
}


def tiny(kind: str, image_shape: tuple[int, ...], levels: int = 2, std: float = 0.5, **arguments: Any) -> PixelRNN:
    """A model in float64 with weights, biases and initial states large enough to matter."""
    torch.manual_seed(0)
    model_class, variant = KINDS[kind]
    sizes = {"num_layers": 2, "hidden_size": 6, "head_size": 6, "skip": True}
    if model_class is MultiScalePixelRNN:
        sizes["small_size"] = image_shape[1] // 2
    model = model_class(image_shape, variant=variant, levels=levels, **{**sizes, **arguments}).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    return model


def all_images(levels: int, *image_shape: int) -> Tensor:
    values = [k / (levels - 1) for k in range(levels)]
    rows = list(itertools.product(values, repeat=math.prod(image_shape)))
    return torch.tensor(rows, dtype=torch.float64).view(-1, *image_shape)


def sees(model: PixelRNN) -> Tensor:
    """Which input reaches which logit: `(inputs, subpixels)`, both in the order (row, column, colour).

    All weights and inputs are positive: no rectifier is shut, and no two paths cancel.
    """
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.01, 0.1)
    images = 0.5 + 0.5 * torch.rand(1, *model.image_shape, dtype=torch.float64)

    def logits(inputs: Tensor) -> Tensor:  # The small image of a multi-scale model is held: it may be seen by all.
        context = model.upsample(2 * model.shrink(images) - 1) if isinstance(model, MultiScalePixelRNN) else None
        return model.net(2 * inputs - 1, context).sum(2).permute(0, 2, 3, 1).flatten()

    jacobian = torch.autograd.functional.jacobian(logits, images)  # (subpixels, N, C, H, W)
    return (jacobian != 0).any(1).permute(2, 3, 1, 0).flatten(0, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("image_shape", [(3, 4, 4), (1, 6, 6)], ids=["colour", "grey"])
def test_no_later_pixel_or_colour_reaches_a_logit(kind: str, image_shape: tuple[int, ...]) -> None:
    """For every subpixel: its own input and all later ones have a gradient of exactly 0, the one before it has not."""
    model = tiny(kind, image_shape, levels=4)
    reach = sees(model)
    number = torch.arange(len(reach))
    assert not reach[number[:, None] >= number].any()
    assert reach[number[:-1], number[1:]].float().mean() > 0.8  # Some do not reach the first pixel of the next row.
    colours = image_shape[0]
    if colours == 3:  # Green sees the red of its pixel, blue sees both.
        same = reach.unflatten(0, (-1, 3)).unflatten(2, (-1, 3)).diagonal(dim1=0, dim2=2)  # (from, to, pixel)
        assert torch.equal(same, torch.ones(3, 3, dtype=torch.bool).triu(1)[..., None].expand_as(same))


def expected_context(variant: str, size: int, layers: int) -> Tensor:
    """Which pixel (row, column) reaches which, through the 7x7 convolution and the layers: `(from, to)`, by sets."""
    places = list(itertools.product(range(size), repeat=2))

    def stem(r: int, c: int) -> set[tuple[int, int]]:
        return {(a, b) for a, b in places if r - 3 <= a <= r and abs(b - c) <= 3 and (a < r or b < c)}

    feature = {place: stem(*place) for place in places}  # the pixels that each feature sees
    for _ in range(layers):
        if variant == "pixelcnn":
            taps = [(0, 0), (0, -1), (-1, -1), (-1, 0), (-1, 1)]
            feature = {(r, c): set().union(*(feature.get((r + a, c + b), set()) for a, b in taps)) for r, c in places}
        else:  # A state sees its own features, with those of its left neighbour, and those of the three above it.
            state: dict[tuple[int, int], set[tuple[int, int]]] = {}
            for r, c in places:
                above = (state.get((r - 1, c + b), set()) for b in (-1, 0, 1))
                state[r, c] = feature[r, c].union(feature.get((r, c - 1), set()), *above)
            feature = state
    return torch.tensor([[a in feature[b] for b in places] for a in places])


@pytest.mark.parametrize("variant", VARIANTS[:2])
def test_context_is_the_one_of_the_paper(variant: str) -> None:
    """The PixelCNN's blind spot, and the Row LSTM's triangle: exactly these pixels, no more and no fewer."""
    size = 11
    model = tiny(variant, (1, size, size), num_layers=1)
    expected = expected_context(variant, size, 1)
    assert torch.equal(sees(model), expected)
    number = torch.arange(size**2)
    assert not expected[number[:, None] < number].all()  # There is something that it does not see.


@pytest.mark.parametrize("layers", [1, 2])
def test_diagonal_bilstm_sees_all_earlier_pixels(layers: int) -> None:
    """From both sides, beyond the reach of its convolution; all but one, in the paper's network as well as here.

    What comes from the right is that of the row above, and stands at the features of each pixel, which have not seen
    the pixel itself: so the last pixel of the row above reaches only those that are within three columns of it.
    """
    expected = torch.ones(9, 9, 9, 9, dtype=torch.bool).flatten(0, 1).flatten(1).triu(1).view(9, 9, 9, 9)
    for row in range(1, 9):
        expected[row - 1, 8, row, :5] = False
    reach = sees(tiny("diagonal_bilstm", (1, 9, 9), num_layers=layers))
    assert torch.equal(reach, expected.view(81, 81))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("levels", "image_shape"), [(2, (1, 2, 2)), (3, (3, 1, 1)), (2, (3, 2, 2))])
def test_probabilities_of_all_images_sum_to_one(kind: str, levels: int, image_shape: tuple[int, ...]) -> None:
    if "multi_scale" in kind and image_shape[1] == 1:
        pytest.skip("one pixel has no smaller image")
    model = tiny(kind, image_shape, levels, std=1.0)
    with torch.no_grad():
        log_probs = model.log_prob(all_images(levels, *image_shape))
    assert log_probs.exp().sum().item() == pytest.approx(1.0, abs=1e-10)
    assert log_probs.std() > 0.1  # Not the uniform distribution, whose sum is one as well.


@pytest.mark.parametrize("kind", KINDS)
def test_without_an_output_layer_a_byte_costs_exactly_8_bits(kind: str) -> None:
    model = tiny(kind, (3, 4, 4), levels=256)
    for name, parameter in model.named_parameters():
        if "head.2" in name:
            nn.init.zeros_(parameter)
    images = torch.randint(256, (5, 3, 4, 4)).double() / 255
    (scores,) = quiet_trainer(precision="64-true").validate(model, torch.utils.data.DataLoader(images), verbose=False)
    assert scores["val/bits_per_dim"] == pytest.approx(8.0, abs=1e-12)


def test_loss_on_numbers_worked_by_hand() -> None:
    """Logits that are the biases of the last layer: -ln softmax(1, 2, 3) of the level of each pixel."""
    model = tiny("pixelcnn", (1, 1, 2), levels=3)
    nn.init.zeros_(model.net.head[2].weight)
    model.net.head[2].bias.data = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    total = math.log(math.exp(1) + math.exp(2) + math.exp(3))
    image = torch.tensor([0.5, 1.0], dtype=torch.float64).view(1, 1, 1, 2)
    assert model.log_prob(image).item() == pytest.approx((2 - total) + (3 - total))


# Sampling ---------------------------------------------------------------------------------------------------------


def naive(model: PixelRNN, images: Tensor, mask: Tensor, seed: int) -> Tensor:
    """The whole network anew for each subpixel."""

    def fill(net: nn.Module, known: Tensor, mask: Tensor, context: Tensor | None) -> Tensor:
        uniform = torch.rand(known.shape, dtype=torch.float64, generator=generator)
        drawn = torch.zeros_like(known)
        for row, column, colour in itertools.product(*(range(known.shape[dim]) for dim in (2, 3, 1))):
            logits = net(2 * drawn - 1, context)[:, colour, :, row, column]
            value = draw_levels(logits, uniform[:, colour, row, column], model.levels)
            given = mask[:, 0, row, column].bool()
            drawn[:, colour, row, column] = torch.where(given, known[:, colour, row, column], value)
        return drawn

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        if not isinstance(model, MultiScalePixelRNN):
            return fill(model.net, images, mask, None)
        small = fill(model.small_net, model.shrink(images), model.shrink(mask), None)
        images, mask = images.clone(), mask.clone()
        model.shrink(images).copy_(small)
        model.shrink(mask).fill_(1)
        return fill(model.net, images, mask, model.upsample(2 * small - 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("image_shape", "levels", "paths"), [((1, 6, 6), 2, True), ((3, 4, 4), 5, True), ((3, 4, 4), 256, False)]
)
def test_samples_equal_those_of_the_whole_network_for_each_pixel(
    kind: str, image_shape: tuple[int, ...], levels: int, paths: bool
) -> None:
    """With and without residual and skip connections; completions too, under a random mask."""
    model = tiny(kind, image_shape, levels, residual=paths, skip=paths)
    nothing = torch.zeros(6, 1, *image_shape[1:], dtype=torch.float64)
    samples = model.sample(6, generator=torch.Generator().manual_seed(3))
    assert torch.equal(samples, naive(model, torch.zeros(6, *image_shape).double(), nothing, 3).float())
    assert len(samples.unique()) > 1
    mask = torch.rand(nothing.shape).round().double()
    images = torch.randint(levels, samples.shape).double() / (levels - 1)
    completed = model.sample(6, {"image": images, "mask": mask}, generator=torch.Generator().manual_seed(3))
    assert torch.equal(completed, naive(model, images, mask, 3).float())
    assert torch.equal(completed * mask, (images * mask).float())
    assert not torch.equal(completed, images.float())


@pytest.mark.parametrize("variant", VARIANTS)
def test_samples_in_float32_equal_too(variant: str) -> None:
    torch.manual_seed(0)
    model = PixelRNN((1, 12, 12), variant=variant, num_layers=3)
    samples = model.sample(8, generator=torch.Generator().manual_seed(0))
    uniform = torch.rand(8, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # A pixel is white where its uniform number lies under the probability that log_prob uses.
        assert torch.equal(samples, (uniform < model.logits(samples).squeeze(2).sigmoid()).float())


def test_frequencies_of_samples_are_the_probabilities() -> None:
    """Chi-square of 20,000 draws over all 16 images: 15 degrees of freedom, 37.7 is exceeded in one of 1,000."""
    model = tiny("multi_scale_diagonal_bilstm", (1, 2, 2), std=1.0)
    with torch.no_grad():
        expected = 20_000 * model.log_prob(all_images(2, 1, 2, 2)).exp()
    images = model.sample(20_000, generator=torch.Generator().manual_seed(0)).flatten(1)
    counts = (images @ torch.tensor([8.0, 4.0, 2.0, 1.0])).long().bincount(minlength=16)
    assert ((counts - expected).square() / expected).sum().item() < 37.7


def test_rows_below_given_ones_follow_the_conditional_distribution() -> None:
    """Chi-square over the four lower rows of two pixels, given the upper one: 3 degrees of freedom, 16.3."""
    model = tiny("row_lstm", (1, 2, 2), std=1.0)
    images = all_images(2, 1, 2, 2)[4:8]  # The upper row is (0, 1).
    with torch.no_grad():
        expected = 10_000 * model.log_prob(images).softmax(0)
    mask = torch.tensor([1.0, 0.0]).view(1, 1, 2, 1).expand(10_000, 1, 2, 2)
    condition = {"image": images[:1].expand(10_000, 1, 2, 2), "mask": mask}
    drawn = model.sample(10_000, condition, generator=torch.Generator().manual_seed(0))[:, 0, 1]
    counts = (drawn @ torch.tensor([2.0, 1.0])).long().bincount(minlength=4)
    assert ((counts - expected).square() / expected).sum().item() < 16.3


@pytest.mark.parametrize(("kind", "rows", "columns"), [
    ("multi_scale_pixelcnn", "1100", "1111"), ("pixelcnn", "0011", "1111"), ("pixelcnn", "1111", "0101")
])  # fmt: skip
def test_weights_make_completions_draws_of_the_conditional(kind: str, rows: str, columns: str) -> None:
    """All 256 completions of a 4 x 4 image: samples are drawn with p(x) / weight, which sums to 1 and is not p(x)."""
    model = tiny(kind, (1, 4, 4), std=0.7 if kind == "multi_scale_pixelcnn" else 0.5)
    mask = torch.outer(*(torch.tensor([float(digit) for digit in digits]).double() for digits in (rows, columns)))
    image = torch.rand(1, 4, 4, dtype=torch.float64).round()
    completions = image.repeat(256, 1, 1, 1)
    completions[:, :, mask == 0] = all_images(2, 1, 8)
    condition = {"image": image.expand(20_000, 1, 4, 4), "mask": mask.expand(20_000, 1, 4, 4)}
    with torch.no_grad():
        log_probs = model.log_prob(completions)
        drawn_with = (log_probs - model.completion_log_weights(completions, mask.expand(256, 1, 4, 4))).exp()
    assert drawn_with.sum().item() == pytest.approx(1, abs=1e-12)
    assert (log_probs.softmax(0) - drawn_with).abs().sum() / 2 > 0.1
    drawn = model.sample(20_000, condition, generator=torch.Generator().manual_seed(0))[:, 0, mask == 0]
    numbers = (drawn.double() @ 2.0 ** torch.arange(7, -1, -1, dtype=torch.float64)).long()
    assert (numbers.bincount(minlength=256) / 20_000 - drawn_with).abs().sum() / 2 < 0.05


def test_levels_are_drawn_by_their_probabilities() -> None:
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log().expand(5, 3)
    uniform = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.99])
    torch.testing.assert_close(draw_levels(logits, uniform, 3), torch.tensor([0.0, 0.0, 0.5, 0.5, 1.0]))
    torch.testing.assert_close(draw_levels(torch.zeros(2, 1), torch.tensor([0.4, 0.6]), 2), torch.tensor([1.0, 0.0]))


# Bad input, precision, learning -----------------------------------------------------------------------------------


def test_grey_pixels_are_refused_by_two_levels() -> None:
    with pytest.raises(DataError, match="PixelRNN scores black and white pixels and got grey ones"):
        PixelRNN().as_batch(torch.full((2, 1, 28, 28), 0.5))


def test_values_between_two_levels_are_refused() -> None:
    model = PixelRNN((1, 4, 4), levels=256, num_layers=1)
    model.as_batch(torch.arange(16).view(1, 1, 4, 4) / 255)
    with pytest.raises(DataError, match=r"levels=256 scores pixels k/255 and got 0\.001, which is none: give 8-bit"):
        PixelRNN((1, 4, 4), levels=256, num_layers=1).as_batch(torch.full((1, 1, 4, 4), 0.001))
    with pytest.raises(DataError, match="levels=1; expected int >= 2"):
        PixelRNN(levels=1)


@pytest.mark.parametrize("size", ["hidden_size", "head_size"])
def test_maps_that_three_colours_cannot_share_are_refused(size: str) -> None:
    with pytest.raises(DataError, match=r"128 feature maps cannot be shared by 3 colours.*126 or 129"):
        PixelRNN((3, 8, 8), **{"hidden_size": 6, "head_size": 6, size: 128})


@pytest.mark.parametrize("small_size", [5, 28, 40])
def test_small_images_of_no_power_of_two_are_refused(small_size: int) -> None:
    with pytest.raises(DataError, match=f"small_size is {small_size} for images of 28 x 28; expected the side"):
        MultiScalePixelRNN(small_size=small_size)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"image": torch.zeros(2, 1, 8, 8)}, r"needs the condition \['mask'\] as well; it takes image, mask"),
        ({"label": torch.zeros(2)}, r"does not know the condition \['label'\]"),
        ({"image": torch.zeros(2, 1, 8, 8), "mask": torch.ones(2, 1, 4, 8)}, r"'mask'.*\(2, 1, 4, 8\).*\(2, 1, 8, 8\)"),
        ({"image": torch.zeros(2, 1, 8, 7), "mask": torch.ones(2, 1, 8, 8)}, r"'image'.*\(2, 1, 8, 7\)"),
        ({"image": torch.zeros(2, 1, 8, 8), "mask": torch.full((2, 1, 8, 8), 0.5)}, "other values than 0 and 1"),
        *(
            (
                {"image": torch.full((2, 1, 8, 8), value), "mask": torch.ones(2, 1, 8, 8)},
                f"got {value:g}, which is none",
            )
            for value in (0.5, 2.0, -1.0, float("nan"))
        ),
    ],
)
def test_completions_that_cannot_be_are_refused(condition: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ConditionError, match=message):
        PixelRNN((1, 8, 8), num_layers=1).sample(2, condition)


@pytest.mark.parametrize("variant", VARIANTS)
def test_reduced_precision_changes_the_value_little(variant: str) -> None:
    torch.manual_seed(0)
    model = PixelRNN(variant=variant, num_layers=2)
    images = held_out_digits()[:8].round()
    expected = model.log_prob(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = model.log_prob(images)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, expected, rtol=0.01, atol=0)


def independent_pixels(train: Tensor, images: Tensor) -> float:
    """The baseline: each pixel on its own, at the training set's frequency; nats."""
    return bernoulli_log_prob(images, train.mean(0).clamp(1e-3, 1 - 1e-3).logit()).mean().item()


@pytest.mark.parametrize("kind", ["pixelcnn", "row_lstm", "diagonal_bilstm", "multi_scale_pixelcnn"])
def test_learns_real_digits_better_than_independent_pixels(kind: str) -> None:
    torch.manual_seed(0)
    model_class, variant = KINDS[kind]
    model = model_class(variant=variant, num_layers=1, hidden_size=8, head_size=16, lr=0.01)
    train = train_on_digits(model, epochs=1)
    images = held_out_digits().bernoulli(generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert model.log_prob(images).mean().item() > independent_pixels(train, images) + 40
