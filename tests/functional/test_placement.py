"""Boxes and keypoints on maps: exact identities, and numbers worked by hand."""

import pytest
import torch

from lightning_gen.functional.placement import (
    box_iou,
    crop_boxes,
    crop_transform,
    ink_box,
    keypoint_maps,
    paste_boxes,
    paste_transform,
    stroke_keypoints,
    warp,
)


def random_boxes(number: int) -> torch.Tensor:
    corners, sides = torch.rand(2, number, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sides = 0.3 + 0.5 * sides
    return torch.cat([corners * (1 - sides), sides], 1)


def test_transforms_are_inverses() -> None:
    row = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(5, 1, 3)
    boxes = random_boxes(5)
    crop, paste = (torch.cat([make(boxes), row], 1) for make in (crop_transform, paste_transform))
    torch.testing.assert_close(crop @ paste, torch.eye(3, dtype=torch.float64).expand(5, 3, 3))


def test_the_published_numbers_of_a_box() -> None:
    """x, y, w, h of 16, 32, 64, 32 pixels of 128: s = w / W, t = 2 ((x + w / 2) / W - 1 / 2), x before y."""
    box = torch.tensor([[16.0, 32.0, 64.0, 32.0]]) / 128
    torch.testing.assert_close(crop_transform(box)[0], torch.tensor([[0.5, 0, -0.25], [0, 0.25, -0.25]]))
    torch.testing.assert_close(paste_transform(box)[0], torch.tensor([[2, 0, 0.5], [0, 4, 1.0]]))


def test_the_whole_image_is_left_as_it_is() -> None:
    maps = torch.randn(2, 3, 16, 16)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2, 4)
    for function in (crop_boxes, paste_boxes):
        torch.testing.assert_close(function(maps, whole), maps, rtol=0, atol=1e-5)


def test_what_is_pasted_is_cut_out_again() -> None:
    """Of a map that is linear in both directions, which bilinear interpolation keeps; the border apart."""
    lines = torch.linspace(-1, 1, 16, dtype=torch.float64)
    maps = (2 * lines[:, None] - 3 * lines + 0.5).expand(4, 1, 16, 16)
    back = crop_boxes(paste_boxes(maps, random_boxes(4)), random_boxes(4))
    torch.testing.assert_close(back[..., 4:-4, 4:-4], maps[..., 4:-4, 4:-4])


def test_a_map_of_ones_becomes_the_box() -> None:
    boxes = random_boxes(20)
    pasted = paste_boxes(torch.ones(20, 1, 16, 16, dtype=torch.float64), boxes).squeeze(1)
    cells = torch.arange(16, dtype=torch.float64) / 15  # Middles of the first and the last cell are 0 and 1.
    x, y, (left, top, width, height) = cells, cells[:, None], boxes[:, :, None, None].unbind(1)
    inside = (x >= left) & (x <= left + width) & (y >= top) & (y <= top + height)
    beyond = torch.maximum(torch.maximum(left - x, x - left - width), torch.maximum(top - y, y - top - height))
    torch.testing.assert_close(pasted[inside], torch.ones_like(pasted[inside]))
    assert not pasted[beyond > 1 / 15].any()  # Within a cell of the border it falls from 1 to 0.
    assert inside.any()
    assert (beyond > 1 / 15).any()


def test_left_and_top_are_not_confused() -> None:
    pasted = paste_boxes(torch.ones(1, 1, 9, 9), torch.tensor([[0.5, 0.0, 0.5, 1.0]]))[0, 0]
    assert pasted[:, :4].sum() == 0
    assert pasted[:, 4:].eq(1).all()


def test_a_batch_is_warped_at_once_each_by_its_own() -> None:
    maps, boxes = torch.randn(3, 2, 8, 8), random_boxes(3).float()
    together = warp(maps, paste_transform(boxes))
    for row in range(3):
        alone = warp(maps[row : row + 1], paste_transform(boxes[row : row + 1]))
        torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize(
    ("place", "cell"),
    [(0.5, 8), (0.0, 1), (1.0, 16), (0.53, 8), (0.532, 9), (0.03125, 1), (0.09375, 2)],
)
def test_cells_are_those_of_the_authors(place: float, cell: int) -> None:
    """Counted from 1: `clamp(round(16 x), 1, 16)`, halves up."""
    maps = keypoint_maps(torch.tensor([[[place, 0.5, 1.0], [0.5, place, 1.0], [place, place, 0.0]]]), 16)
    assert maps.sum((2, 3)).tolist() == [[1, 1, 0]]
    assert maps[0, 0, 7, cell - 1] == 1
    assert maps[0, 1, cell - 1, 7] == 1


def test_flipping_twice_restores_maps() -> None:
    """In pixels counted from 1, x becomes W - x + 1; here W is 16, and cells are pixels."""
    x = torch.arange(1, 17) / 16
    keypoints = torch.stack([x, x.flip(0), torch.ones(16)], 1)[None]
    flipped = keypoints.clone()
    flipped[..., 0] = (16 - 16 * keypoints[..., 0] + 1) / 16
    torch.testing.assert_close(keypoint_maps(flipped, 16), keypoint_maps(keypoints, 16).flip(-1))


def test_overlaps_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5], [0.1, 0.1, 0.2, 0.2], [0.0, 0.0, 0.0, 0.0]])
    others = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5], [0.6, 0.1, 0.2, 0.2], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(box_iou(boxes, others), torch.tensor([1.0, 1 / 7, 0.0, 0.0]))
    torch.testing.assert_close(box_iou(others, boxes), box_iou(boxes, others))


def test_ink_is_found_where_it_was_drawn() -> None:
    ink = torch.zeros(3, 10, 20)
    ink[0, 2:5, 4:14] = 0.6
    ink[1, 9, 19] = 1
    ink[2] = 0.5  # Not above the threshold.
    expected = torch.tensor([[0.2, 0.2, 0.5, 0.3], [0.95, 0.9, 0.05, 0.1], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(ink_box(ink), expected)


def test_keypoints_of_a_cross() -> None:
    ink = torch.zeros(2, 16, 16)
    ink[0, 2:14, 6] = 1
    ink[0, 4, 1:12] = 0.8
    found = stroke_keypoints(ink)
    x, y = torch.tensor([[6.5, 3.0], [6.5, 13.0], [2.0, 4.5], [11.0, 4.5]]).unbind(1)  # Two pixels deep at most.
    torch.testing.assert_close(found[0, :4, 0], x / 16, rtol=0, atol=0.04)
    torch.testing.assert_close(found[0, :4, 1], y / 16, rtol=0, atol=0.04)
    mass = ink[0].sum()
    middle = torch.arange(16) + 0.5
    torch.testing.assert_close(found[0, 4, 0], (ink[0].sum(0) * middle).sum() / mass / 16)
    torch.testing.assert_close(found[0, 4, 1], (ink[0].sum(1) * middle).sum() / mass / 16)
    assert found[0, :, 2].eq(1).all()
    assert not found[1].any()
