"""The recurrences of PixelRNN against PyTorch's LSTM cell and against their equations, pixel by pixel."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lightning_gen.nn.pixel_lstm import Order, PixelLSTM, diagonal_order, row_order, tanh

CPU = torch.device("cpu")
ORDERS = {"rows": (row_order, 1, 3), "diagonals": (diagonal_order, 2, 2)}


def parameters(directions: int, taps: int, num_pixels: int, num_images: int = 2, size: int = 3) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(num_pixels, num_images, directions, 4 * size), (directions, taps, size, 4 * size), (2, directions, size)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def equations(inputs: Tensor, weight: Tensor, initial: Tensor, height: int, width: int, diagonal: bool) -> Tensor:
    """Section 3 of the paper, one pixel after the other."""
    offsets = [(0, -1), (-1, 0)] if diagonal else [(-1, 0), (-1, -1), (-1, 1)]
    output = torch.empty(*inputs.shape[:3], inputs.shape[-1] // 4, dtype=inputs.dtype)
    for d in range(inputs.shape[2]):
        image = inputs[:, :, d].unflatten(0, (height, width))
        image = image.flip(1) if d else image
        outside = [(i, -1) for i in range(height)] if diagonal else [(-1, i) for i in range(width)]
        states = {place: initial[:, d] for place in outside}
        for row in range(height):
            for column in range(width):
                before = [states.get((row + a, column + b)) for a, b in offsets]
                gates = image[row, column]
                for tap, state in enumerate(before):
                    if state is not None:
                        gates = gates + state[0] @ weight[d, tap]
                o, f, i, g = gates.chunk(4, -1)
                assert before[0] is not None
                cell = f.sigmoid() * before[0][1] + i.sigmoid() * g.tanh()
                states[row, column] = torch.stack([o.sigmoid() * cell.tanh(), cell])
                output[row * width + (width - 1 - column if d else column), :, d] = states[row, column][0]
    return output


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize(("height", "width"), [(4, 5), (5, 3), (1, 3), (3, 1)])
def test_states_and_gradients_equal_the_equations(name: str, height: int, width: int) -> None:
    make, directions, taps = ORDERS[name]
    arguments = parameters(directions, taps, height * width)
    ours = PixelLSTM.apply(*arguments, make(height, width, CPU))
    theirs = equations(*arguments, height, width, name == "diagonals")
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), arguments),
        torch.autograd.grad((theirs * weights).sum(), arguments, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ORDERS)
def test_a_column_is_the_lstm_of_pytorch(name: str) -> None:
    """In an image of one column the recurrence is an ordinary one from pixel to pixel; for a row, of the diagonal's."""
    height, width = (6, 1) if name == "rows" else (1, 6)
    make, directions, taps = ORDERS[name]
    inputs, weight, initial = parameters(directions, taps, 6)
    cell = nn.LSTMCell(4 * 3, 3, bias=False).double()
    order = torch.cat([torch.arange(3) + 3 * gate for gate in (2, 1, 3, 0)])  # PyTorch's i, f, g, o of our o, f, i, g.
    cell.weight_ih.data = torch.eye(12, dtype=torch.float64)[order]
    cell.weight_hh.data = weight[0, 0].T[order].detach()
    state = tuple(start[0].expand(2, -1) for start in initial)
    expected = []
    for pixel in inputs[:, :, 0]:
        state = cell(pixel, state)
        expected.append(state[0])
    ours = PixelLSTM.apply(inputs, weight, initial, make(height, width, CPU))
    torch.testing.assert_close(ours[:, :, 0], torch.stack(expected))


@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 5), (5, 2)])
def test_skewing_is_undone_and_takes_as_many_steps_as_the_skewed_map_is_wide(height: int, width: int) -> None:
    order = diagonal_order(height, width, CPU)
    assert len(order.steps) == height + width - 1
    image = torch.rand(height * width)
    for d, start in enumerate((0, width - 1)):
        skewed = image[order.pixels[d]]
        back = torch.empty_like(image)
        back[order.pixels[d]] = skewed
        assert torch.equal(back, image)
        for diagonal, step in enumerate(order.steps):
            row, column = order.pixels[d][step.pixels] // width, order.pixels[d][step.pixels] % width
            assert (row + (start - column).abs() == diagonal).all()


@pytest.mark.parametrize("make", [row_order, diagonal_order])
def test_steps_cover_every_pixel_once_and_read_what_is_done(make: Callable[..., Order]) -> None:
    order = make(4, 3, CPU)
    assert [i for step in order.steps for i in range(12)[step.pixels]] == list(range(12))
    for step in order.steps:
        assert all(tap.source.stop <= step.states.start for tap in step.taps)
        assert step.previous.stop <= step.states.start
    assert sorted([*order.states.tolist(), *order.initial.tolist()]) == list(range(12 + len(order.initial)))
    if make is row_order:
        assert len(order.steps) == 4


@pytest.mark.parametrize("name", ORDERS)
def test_what_is_kept_for_the_gradient(name: str) -> None:
    """The gates and the cells: 5 numbers for each unit and pixel, and the start; nothing for each step."""
    make, directions, taps = ORDERS[name]
    arguments = parameters(directions, taps, 64)
    output = PixelLSTM.apply(*arguments, make(8, 8, CPU))
    kept = sum(tensor.numel() for tensor in output.grad_fn.saved_tensors)
    units = 64 * 2 * directions * 3
    starts = 8 * 2 * directions * 3
    assert kept == 5 * units + starts + sum(tensor.numel() for tensor in arguments[1:])


def test_tanh_is_right_to_the_last_digits_of_float32() -> None:
    x = torch.linspace(-20, 20, 10001)
    torch.testing.assert_close(tanh(x), x.tanh(), rtol=0, atol=2e-7)
