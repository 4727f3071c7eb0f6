"""Masks on numbers written out, and weights that an optimizer cannot bring back."""

import pytest
import torch

from lightning_gen.errors import DataError
from lightning_gen.nn import MaskedConv2d
from lightning_gen.nn.masked import colour_of


def test_spatial_mask() -> None:
    for mask, centre in (("A", 0), ("B", 1)):
        expected = torch.tensor([[1, 1, 1], [1, centre, 0], [0, 0, 0]]).float()
        assert torch.equal(MaskedConv2d(1, 1, 3, mask).mask[0, 0], expected)
        assert torch.equal(MaskedConv2d(1, 1, (1, 3), mask).mask[0, 0], expected[1:2])


def test_colours_of_the_centre() -> None:
    """Rows are maps out, columns maps in; two maps a colour."""
    a, b = (MaskedConv2d(3, 6, 1, mask, 3).mask[:, :, 0, 0] for mask in "AB")
    assert a.tolist() == [[0, 0, 0]] * 2 + [[1, 0, 0]] * 2 + [[1, 1, 0]] * 2
    assert b.tolist() == [[1, 0, 0]] * 2 + [[1, 1, 0]] * 2 + [[1, 1, 1]] * 2
    stacked = MaskedConv2d(3, 12, 1, "B", 3, num_stacks=2).mask[:, :, 0, 0]
    assert torch.equal(stacked, torch.cat([b, b]))


def test_masked_weights_stay_masked_whatever_an_optimizer_does() -> None:
    conv = MaskedConv2d(3, 3, 3, "A", 3)
    optimizer = torch.optim.SGD(conv.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        conv.weight.data.add_(1)
        conv(torch.rand(2, 3, 5, 5)).sum().backward()
        optimizer.step()
    assert (conv.masked_weight[conv.mask == 0] == 0).all()
    assert (conv.weight[conv.mask == 0] != 0).all()


def test_initial_weights_count_the_inputs_that_are_seen() -> None:
    torch.manual_seed(0)
    conv = MaskedConv2d(60, 600, 3, "B", 3)
    for colour, seen in enumerate((20, 40, 60)):
        rows = conv.weight[200 * colour : 200 * (colour + 1)]
        assert rows.var().item() == pytest.approx(1 / (3 * (4 * 60 + seen)), rel=0.02)


def test_unequal_shares_are_refused() -> None:
    with pytest.raises(DataError, match=r"7 feature maps cannot be shared by 3 colours.*such as 6 or 9"):
        colour_of(28, 3, num_stacks=4)
    with pytest.raises(DataError, match=r"2 feature maps .*such as 3"):
        colour_of(2, 3)
