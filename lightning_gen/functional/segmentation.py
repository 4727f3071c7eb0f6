"""How well a map of labels is read, from how often each label was taken for each."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lightning_gen.errors import DataError
from lightning_gen.functional.shapes import check_same_shape


class LabelScores(NamedTuple):
    """The three scores of Long et al. 2015, section 5, each from 0 to 1."""

    pixel_accuracy: Tensor
    class_accuracy: Tensor
    iou: Tensor


def label_confusion(predicted: Tensor, labels: Tensor, num_labels: int) -> Tensor:
    """How many pixels of each label were read as each, `(num_labels, num_labels)`, float64, rows being the true ones.

    Args:
        predicted: integers of any shape.
        labels: of the same shape.
        num_labels: K.

    >>> import torch
    >>> label_confusion(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2)
    tensor([[1., 1.],
            [0., 1.]], dtype=torch.float64)
    """
    check_same_shape(predicted=predicted, labels=labels)
    pairs = (num_labels * labels + predicted).flatten()
    return pairs.bincount(minlength=num_labels**2).view(num_labels, num_labels).double()


def label_scores(confusion: Tensor) -> LabelScores:
    r"""Accuracy by pixel, its mean over labels, and the mean intersection over union.

    $\frac{\sum_i n_{ii}}{\sum_i t_i}$, $\frac1K \sum_i \frac{n_{ii}}{t_i}$ and
    $\frac1K \sum_i \frac{n_{ii}}{t_i + \sum_j n_{ji} - n_{ii}}$, where $t_i$ is the number of pixels of label i; labels
    that no pixel has are left out of both means.

    Args:
        confusion: as `label_confusion` counts it.

    Raises:
        DataError: if a count is negative, or all are 0.

    >>> import torch
    >>> label_scores(torch.tensor([[3.0, 1.0], [2.0, 2.0]]))
    LabelScores(pixel_accuracy=tensor(0.6250), class_accuracy=tensor(0.6250), iou=tensor(0.4500))
    """
    if not (confusion.sum() > 0 and confusion.min() >= 0):
        raise DataError("A confusion holds how often each label was read as each; expected counts, not all of them 0.")
    right, true, read = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    there = true > 0
    accuracy, overlap = right / true, right / (true + read - right)
    return LabelScores(right.sum() / true.sum(), accuracy[there].mean(), overlap[there].mean())
