"""GAN-INT-CLS (Reed et al. 2016, `arXiv:1605.05396`) and GAWWN (Reed et al. 2016, `arXiv:1610.02454`): what is scored
with which text, the losses, and what the places of boxes and keypoints are.
"""

import math

import torch
from torch import Tensor

from tests.references.layers import log_sigmoid


def loss_d(right: Tensor, wrong: Tensor, fake: Tensor, w: float = 0.5) -> Tensor:
    """Algorithm 1, line 9: -[log s_r + (log(1 - s_w) + log(1 - s_f)) / 2], of logits; w is the share of s_w."""
    return -log_sigmoid(right).mean() - w * log_sigmoid(-wrong).mean() - (1 - w) * log_sigmoid(-fake).mean()


def loss_g(fake: Tensor, num_texts: int, weight: float) -> Tensor:
    """Line 11 and equation 5: -log s_f of the fakes of texts and, weighted, of midpoints, over the number of all."""
    terms = [-log_sigmoid(a) * (1.0 if n < num_texts else weight) for n, a in enumerate(fake.flatten())]
    return torch.stack(terms).sum() / len(terms)


def with_midpoints(text: Tensor, beta: float) -> Tensor:
    """Equation 5: the texts, and beta t_1 + (1 - beta) t_2 of the first and the second half of the batch."""
    half = len(text) // 2
    between = [beta * text[n] + (1 - beta) * text[half + n] for n in range(half)]
    return torch.stack([*text, *between])


def complete(keypoints: Tensor, switches: Tensor, generated: Tensor) -> Tensor:
    """GAWWN, equation 3: G_k = s k + (1 - s) f, of one image's keypoints `(K, 3)`: those given stay as they are."""
    rows = [k if s else f for k, s, f in zip(keypoints, switches, generated, strict=True)]
    return torch.stack(rows)


def keypoint_maps(keypoints: Tensor, size: int) -> Tensor:
    """A map for each part: 1 in the cell where it is, round(size x) of 1 to size; none if it is not seen."""
    maps = torch.zeros(len(keypoints), size, size, dtype=keypoints.dtype)
    for part, (x, y, visible) in enumerate(keypoints.tolist()):
        if visible > 0.1:
            row, column = (min(max(math.floor(size * v + 0.5), 1), size) - 1 for v in (y, x))
            maps[part, row, column] = 1
    return maps


def crop(maps: Tensor, box: tuple[float, float, float, float]) -> Tensor:
    """A box of square maps at their own size: the output's place u in [-1, 1] shows the input's place s u + t.

    Args:
        maps: `(C, S, S)`, whose outermost cells lie at -1 and 1.
        box: left, top, width and height as shares of the side.
    """
    left, top, width, height = box
    return read_at(maps, (width, 2 * (left + width / 2 - 0.5)), (height, 2 * (top + height / 2 - 0.5)))


def paste(maps: Tensor, box: tuple[float, float, float, float]) -> Tensor:
    """The inverse: the maps within the box, and zeros around it."""
    left, top, width, height = box
    t_x, t_y = 2 * (left + width / 2 - 0.5), 2 * (top + height / 2 - 0.5)
    return read_at(maps, (1 / width, -t_x / width), (1 / height, -t_y / height))


def read_at(maps: Tensor, along_x: tuple[float, float], along_y: tuple[float, float]) -> Tensor:
    """Bilinear, and zero outside."""
    size = maps.shape[1]
    out = torch.zeros_like(maps)
    for r in range(size):
        for c in range(size):
            x, y = (
                (s * (2 * v / (size - 1) - 1) + t + 1) / 2 * (size - 1) for v, (s, t) in ((c, along_x), (r, along_y))
            )
            for row in (math.floor(y), math.floor(y) + 1):
                for column in (math.floor(x), math.floor(x) + 1):
                    if 0 <= row < size and 0 <= column < size:
                        out[:, r, c] += (1 - abs(y - row)) * (1 - abs(x - column)) * maps[:, row, column]
    return out
