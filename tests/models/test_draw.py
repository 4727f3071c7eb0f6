"""Exact tests of DRAW on images of a few pixels, and a real training."""

import itertools
import math
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from lightning_gen.errors import DataError
from lightning_gen.functional import bernoulli_log_prob, importance_weighted_bound
from lightning_gen.models import DRAW, draw
from lightning_gen.models.draw import Attention, Window
from tests.digits import held_out_digits, train_on_digits


def make(image_shape: tuple[int, ...] = (1, 3, 4), seed: int = 0, **arguments: Any) -> DRAW:
    """A small model in float64 whose weights, starting states among them, are large enough to matter."""
    torch.manual_seed(seed)
    sizes = {"num_glimpses": 2, "read_size": 2, "write_size": 3, "hidden_size": 4, "latent_dim": 2}
    model = DRAW(image_shape, **{**sizes, **arguments}).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def binary(num_images: int, image_shape: tuple[int, ...] = (1, 3, 4)) -> Tensor:
    return torch.rand(num_images, *image_shape, dtype=torch.float64).round()


# Attention ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(28, 28), (10, 28), (28, 10)])
def test_window_of_zeros_spans_the_longer_side(height: int, width: int) -> None:
    attention = Attention(3, (1, height, width), 5)
    for parameter in attention.parameters():
        nn.init.zeros_(parameter)
    window = attention(torch.zeros(1, 3))
    assert window == Window(*(torch.tensor([value]) for value in ((width + 1) / 2, (height + 1) / 2, 27 / 4, 0, 0)))
    box = attention.boxes(window)[0]
    longer = 27 / max(height, width)  # From the centre of the first pixel to that of the last.
    if height == width:
        torch.testing.assert_close(box[:4], torch.tensor([0.5 / 28, 0.5 / 28, longer, longer]))


@pytest.mark.parametrize(("width", "size"), [(28, 2), (28, 5), (100, 12)])
def test_the_first_window_misses_no_pixel(width: int, size: int) -> None:
    """All filters together weigh every column and row of the image about alike, also with 27 pixels between them."""
    attention = Attention(3, (1, width, width), size)
    nn.init.zeros_(attention.linear.weight)
    attention.linear.bias.data[[0, 1, 3, 4]] = 0
    for filters in attention.filters(attention(torch.zeros(1, 3))):
        share = filters[0].mean(0) * width  # (width,), of filters that sum to one each
        assert share.min() > 0.8


def test_window_parameters_by_the_formula() -> None:
    """Equations 21 to 24 on numbers worked by hand: A = 9 wide, B = 5 high, N = 3."""
    attention = Attention(1, (1, 5, 9), 3)
    nn.init.zeros_(attention.linear.weight)
    attention.linear.bias.data = torch.tensor([0.2, -0.5, 0.7, math.log(0.5), 0.3])
    window = attention(torch.zeros(1, 1))
    expected = (5 * 1.2, 3 * 0.5, 8 / 2 * 0.5, 0.7, 0.3)
    torch.testing.assert_close(torch.cat(window), torch.tensor(expected))


@pytest.mark.parametrize("channels", [1, 3])
def test_writing_what_was_read_gives_the_image_back(channels: int) -> None:
    """A sharp window over all pixels; the intensity that reading multiplies by, writing divides by."""
    attention = Attention(3, (channels, 6, 6), 6).double()
    one = torch.ones(2, dtype=torch.float64)
    window = Window(3.5 * one, 3.5 * one, one, -12 * one, 0.7 * one)
    images = torch.randn(2, channels, 6, 6, dtype=torch.float64)
    patch = attention.read(images, window)
    torch.testing.assert_close(patch, math.exp(0.7) * images.flatten(1))
    torch.testing.assert_close(attention.write(patch.view(2, channels, 6, 6), window), images)


@pytest.mark.parametrize("size", [1, 4])
def test_windows_without_a_stride_or_larger_than_the_image_are_refused(size: int) -> None:
    for name in ("read_size", "write_size"):
        with pytest.raises(DataError, match=f"A grid of {size} x {size} filters .* 3 x 9 pixels.*attention=false"):
            DRAW((1, 3, 9), **{"read_size": 2, "write_size": 2, name: size})
    DRAW((1, 3, 9), attention=False)


# The recurrence -----------------------------------------------------------------------------------------------------


def test_divergence_vanishes_at_the_prior() -> None:
    """The constant of the KL is J / 2 in each glimpse, not 1 / 2."""
    model, images = make(num_glimpses=3), binary(5)
    nn.init.zeros_(model.cell.posterior.weight)
    nn.init.zeros_(model.cell.posterior.bias)
    torch.manual_seed(1)
    z = model.draw_noise(5)
    torch.manual_seed(1)
    torch.testing.assert_close(model.elbo(images), bernoulli_log_prob(images, model.generate(z)[-1].canvas))


def test_images_of_a_batch_do_not_see_each_other() -> None:
    model, images, eps = make(), binary(4), torch.randn(2, 4, 2, dtype=torch.float64)
    together = model.infer(images, eps)[0][-1]
    alone = model.infer(images[2:3], eps[:, 2:3])[0][-1]
    torch.testing.assert_close(together.canvas[2:3], alone.canvas, rtol=0, atol=1e-14)


def test_one_glimpse_of_the_whole_image_is_a_variational_autoencoder() -> None:
    """q(z|x) from the image by one layer, p(x|z) by one more: the bound of T = 1 with J = 1, and by quadrature."""
    model, images = make(num_glimpses=1, latent_dim=1, attention=False), binary(6)
    start = model.start(6)
    inputs = torch.cat([images.flatten(1), (images - model.canvas.sigmoid()).flatten(1), start.hidden_dec], 1)
    hidden, _ = model.cell.encoder(inputs, (start.hidden_enc, start.cell_enc))
    mean, log_sigma = model.cell.posterior(hidden).unbind(-1)
    z = torch.linspace(-9, 9, 2001, dtype=torch.float64)[:, None]
    logits = model.canvas + model.cell.patch(
        model.cell.decoder(z, (model.hidden_dec.expand(2001, -1), z.new_zeros(2001, 4)))[0]
    ).view(-1, 1, 3, 4)
    log_px = bernoulli_log_prob(images, logits[:, None])  # (2001, 6)
    q = Normal(mean, log_sigma.exp())
    expected = (q.log_prob(z).exp() * log_px).sum(0) * (z[1] - z[0]) - kl_divergence(q, Normal(0.0, 1.0))
    torch.manual_seed(2)
    with torch.no_grad():
        torch.testing.assert_close(model.elbo(images, 40_000), expected, rtol=0, atol=0.03)


# Bounds -------------------------------------------------------------------------------------------------------------


def log_likelihood(model: DRAW, images: Tensor) -> Tensor:
    """Log p(x) by quadrature over the latent variable of each glimpse, `(N,)`."""
    axis = torch.linspace(-8, 8, 81, dtype=torch.float64)
    nodes = torch.cartesian_prod(*[axis] * model.num_glimpses).view(-1, model.num_glimpses)
    log_prior = Normal(0.0, 1.0).log_prob(nodes).sum(1)
    logits = model.generate(nodes.T[..., None])[-1].canvas
    log_joint = torch.stack([bernoulli_log_prob(image, logits) + log_prior for image in images], 1)
    return torch.logsumexp(log_joint, 0) + model.num_glimpses * math.log(16 / 80)


@pytest.mark.parametrize("num_glimpses", [1, 2])
@torch.no_grad()
def test_bounds_grow_towards_the_likelihood(num_glimpses: int) -> None:
    """3 x 3 pixels: ELBO <= bounds of k samples <= log p(x), and near it for many."""
    model = make((1, 3, 3), num_glimpses=num_glimpses, read_size=2, write_size=2, latent_dim=1, seed=3)
    model.cell.patch.weight.mul_(5)  # So that z says something of the image.
    model.cell.posterior.weight.mul_(0.3)  # A posterior wide enough for importance sampling.
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9)), dtype=torch.float64).view(-1, 1, 3, 3)
    log_px = log_likelihood(model, images)
    assert log_px.exp().sum().item() == pytest.approx(1, abs=1e-6)
    images, log_px = images[::73], log_px[::73]
    log_weights = model.log_weights(images.repeat(500, 1, 1, 1), 100).view(100, 500, -1)  # (k, repeats, N)
    bounds = [importance_weighted_bound(log_weights.unflatten(0, (-1, k)), dim=1).mean((0, 1)) for k in (1, 5, 100)]
    torch.testing.assert_close(model.elbo(images, 20_000), bounds[0], rtol=0, atol=0.1)
    for lower, upper in itertools.pairwise([*bounds, log_px]):
        assert (lower <= upper + 0.01).all()
    assert (log_px - bounds[0]).max() > 0.1  # There was a gap to close.
    torch.testing.assert_close(bounds[-1], log_px, rtol=0, atol=0.06)


def test_gradient_equals_finite_differences() -> None:
    model, images = make(hidden_size=2, latent_dim=1), binary(2)
    eps = torch.randn(2, 2, 1, dtype=torch.float64)
    model.draw_noise = lambda num_images: eps  # type: ignore[method-assign]
    parameters = dict(model.named_parameters())

    def bound(*values: Tensor) -> Tensor:
        with nn.utils.stateless._reparametrize_module(model, dict(zip(parameters, values, strict=True))):
            return model.elbo(images).sum()

    assert torch.autograd.gradcheck(bound, [p.detach().clone().requires_grad_() for p in parameters.values()])


def test_recomputing_gives_the_same_gradient_from_less() -> None:
    def gradients(model: DRAW) -> tuple[Tensor, ...]:
        torch.manual_seed(4)
        return torch.autograd.grad(model.elbo(images).sum(), tuple(model.parameters()))

    images = binary(5, (1, 12, 12))
    kept, recomputed = (make((1, 12, 12), num_glimpses=8, recompute=again) for again in (False, True))
    torch.testing.assert_close(gradients(recomputed), gradients(kept), rtol=0, atol=0)
    assert recomputed.memory(images) < kept.memory(images) / 2


@pytest.mark.skipif(sys.version_info < (3, 11), reason="PyTorch 2.11's Dynamo breaks off inside itself on Python 3.10")
def test_compiled_step_is_one_graph_and_the_same_numbers() -> None:
    """Traced without a break; what a compiler makes of the graph is its own affair."""
    model, images = make(), binary(3)
    torch.manual_seed(6)
    expected = model.elbo(images)
    keys = list(model.state_dict())
    model.cell.compile(backend="eager", fullgraph=True)
    torch.manual_seed(6)
    torch.testing.assert_close(model.elbo(images), expected)
    assert list(model.state_dict()) == keys


def test_memory_is_what_autograd_keeps() -> None:
    """The estimate from one glimpse against the storages that the whole bound keeps."""
    model, images = make((1, 12, 12), num_glimpses=6), binary(7, (1, 12, 12))
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model.elbo(images).sum()
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert loss.requires_grad
    assert model.memory(images) == pytest.approx(total, rel=0.15)


def test_more_glimpses_than_memory_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "device_memory", lambda device: 10**6)
    with pytest.raises(DataError, match=r"64 glimpses at 100 images .* GB .*recompute=true"):
        DRAW(hidden_size=8).as_batch(torch.zeros(100, 1, 28, 28))
    DRAW(hidden_size=8, num_glimpses=64).eval().as_batch(torch.zeros(100, 1, 28, 28))


# The contract -------------------------------------------------------------------------------------------------------


def test_sizes() -> None:
    """The paper's model of MNIST; and in colour a window reads 2 * 3 * n * n numbers and writes 3 * n * n."""
    cell = DRAW().cell
    assert (cell.encoder.input_size, cell.decoder.input_size) == (2 * 2 * 2 + 256, 100)
    assert (cell.posterior.out_features, cell.patch.out_features) == (200, 25)
    colour = DRAW((3, 32, 32), read_size=5, write_size=4, hidden_size=7, latent_dim=2).cell
    assert (colour.encoder.input_size, colour.patch.out_features) == (2 * 3 * 25 + 7, 3 * 16)
    whole = DRAW((3, 6, 8), attention=False, hidden_size=7, latent_dim=2).cell
    assert (whole.encoder.input_size, whole.patch.out_features) == (2 * 3 * 48 + 7, 3 * 48)


@pytest.mark.parametrize("attention", [True, False])
def test_drawing_ends_in_the_sample(attention: bool) -> None:
    model = make((1, 6, 9), attention=attention, num_glimpses=4)
    drawing = model.draw(3, generator=torch.Generator().manual_seed(5))
    assert drawing.canvases.shape == (4, 3, 1, 6, 9)
    sample = model.sample(3, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(drawing.canvases[-1].float(), sample, rtol=0, atol=0)
    assert drawing.read_boxes is None
    again = model.redraw(binary(3, (1, 6, 9)))
    assert again.canvases.shape == (4, 3, 1, 6, 9)
    for boxes in (drawing.write_boxes, again.read_boxes, again.write_boxes):
        assert boxes is None if not attention else boxes.shape == (4, 3, 5)


def test_boxes_are_where_the_canvas_changes() -> None:
    """Outside the box of a sharp window nothing is written."""
    model = make((1, 30, 40), num_glimpses=1)
    nn.init.zeros_(model.cell.writer.linear.weight)
    model.cell.writer.linear.bias.data = torch.tensor([-0.3, 0.2, -1.5, -2.0, 0.0], dtype=torch.float64)
    drawing = model.draw(1)
    changed = (drawing.canvases[0, 0, 0] - model.canvas[0].sigmoid()).abs() > 1e-4
    rows, columns = changed.any(1).nonzero().squeeze(1) + 0.5, changed.any(0).nonzero().squeeze(1) + 0.5
    left, top, width, height, sigma = drawing.write_boxes[0, 0] * torch.tensor([40, 30, 40, 30, 40])
    assert sigma.item() == pytest.approx(math.exp(-0.75))
    for positions, start, length in ((columns, left, width), (rows, top, height)):
        assert start - 5 * sigma <= positions.min() <= start + 1
        assert start + length - 1 <= positions.max() <= start + length + 5 * sigma


def test_flat_codes_are_decoded_glimpse_by_glimpse() -> None:
    model = make(num_glimpses=3)
    z = torch.randn(4, 6, dtype=torch.float64)
    expected = model.generate(torch.stack([z[:, :2], z[:, 2:4], z[:, 4:]]))[-1].canvas.sigmoid()
    torch.testing.assert_close(model.decode(z), expected)


def test_canvas_begins_with_the_mean_image() -> None:
    model, images = DRAW((1, 3, 4), read_size=2, write_size=2), binary(10).float()
    model.initialize_from([images])
    torch.testing.assert_close(model.canvas.sigmoid(), (images.sum(0) + 1) / 12)


def test_grey_pixels_need_the_intensity_decoder() -> None:
    with pytest.raises(DataError, match="binarization=dynamic"):
        DRAW().as_batch(torch.full((2, 1, 28, 28), 0.5))
    DRAW(decoder="intensity").as_batch(torch.full((2, 1, 28, 28), 0.5))


def test_zero_importance_samples_are_refused() -> None:
    with pytest.raises(DataError, match="at least 1"):
        make().log_prob(binary(2), num_importance_samples=0)


def test_learns_real_digits_better_than_independent_pixels() -> None:
    """Baseline: each pixel on its own, at the training set's frequency, about -209 nats."""
    torch.manual_seed(0)
    model = DRAW(num_glimpses=4, read_size=5, write_size=10, hidden_size=64, latent_dim=10, lr=5e-3)
    train = train_on_digits(model, epochs=5, gradient_clip_val=10.0)
    images = held_out_digits().bernoulli(generator=torch.Generator().manual_seed(0))
    baseline = bernoulli_log_prob(images, train.mean(0).clamp(1e-3, 1 - 1e-3).logit()).mean().item()
    with torch.no_grad():
        bound = model.elbo(images).mean().item()
    assert bound > baseline + 30
