"""Distances between two sets of images, and the score of one set, on the features of a network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gen.errors import DataError
from lightning_gen.functional.shapes import check_same_shape

ROWS = 512
"""Of a block of kernel values: 2 MB in float64, measured the fastest on a CPU."""


def frechet_distance(mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor) -> Tensor:
    r"""Fréchet distance between two Gaussians, the square of their Wasserstein-2 distance.

    $\|m_x - m_y\|^2 + \mathrm{Tr}(C_x + C_y - 2 (C_x C_y)^{1/2})$ (Heusel et al. 2017, equation 6).

    Args:
        mean_x: `(F,)`.
        cov_x: `(F, F)`, symmetric and positive semi-definite.
        mean_y: `(F,)`.
        cov_y: `(F, F)`.

    Returns:
        A scalar, float64, at least 0.

    >>> zero, one = torch.zeros(2), torch.ones(2)
    >>> frechet_distance(zero, torch.eye(2), one, 4 * torch.eye(2))
    tensor(4., dtype=torch.float64)
    """
    check_same_shape(mean_x=mean_x, cov_x=cov_x[0], mean_y=mean_y, cov_y=cov_y[0])
    mean_x, cov_x, mean_y, cov_y = (t.double() for t in (mean_x, cov_x, mean_y, cov_y))
    # The eigenvalues of Cx Cy are those of the symmetric Cx^1/2 Cy Cx^1/2, and of the same in Cx's eigenvectors: two
    # symmetric problems in the place of a general one, and no complex numbers.
    values, vectors = torch.linalg.eigh(cov_x)
    root = vectors * values.clamp(min=0).sqrt()  # root root' = Cx
    trace = torch.linalg.eigvalsh(root.T @ cov_y @ root).clamp(min=0).sqrt().sum()
    distance = (mean_x - mean_y).square().sum() + cov_x.trace() + cov_y.trace() - 2 * trace
    return distance.clamp(min=0)


def frechet_distance_infinity(
    x: Tensor, y: Tensor, num_points: int = 15, generator: torch.Generator | None = None
) -> Tensor:
    r"""Fréchet distance of infinitely many x: where a line through $(1 / N, d_N)$ meets 0 (Chong & Forsyth 2020).

    N goes in equal steps from a tenth of the rows, but at most 5,000, to all of them.

    Args:
        x: features, `(N, F)`, at least 20 rows.
        y: features that they are compared with, `(M, F)`.
        num_points: distances that the line goes through.
        generator: draws the rows, on the CPU; the global one if None.

    Returns:
        A scalar, float64; it can be negative.
    """
    x, y = x.double(), y.double()
    mean, covariance = y.mean(0), y.T.cov()
    sizes = torch.linspace(min(5000, len(x) // 10), len(x), num_points, dtype=torch.float64).int()
    distances = []
    for size in sizes.tolist():
        rows = x[torch.randperm(len(x), generator=generator)[:size].to(x.device)]
        distances.append(frechet_distance(mean, covariance, rows.mean(0), rows.T.cov()))
    line = torch.stack([1 / sizes.double(), torch.ones(num_points, dtype=torch.float64)], 1).to(x.device)
    return torch.linalg.lstsq(line, torch.stack(distances)[:, None]).solution[1, 0]


def vendi_score(features: Tensor) -> Tensor:
    r"""Effective number of different rows (Friedman & Dieng 2023, definition 3.1).

    $\exp(-\sum_i \lambda_i \log \lambda_i)$, of the eigenvalues of the cosines of all pairs over N; which of the two
    matrices that have them is taken, goes by its size.

    Args:
        features: `(N, F)`.

    Returns:
        A scalar from 1 to N, float64.

    >>> vendi_score(torch.eye(3))
    tensor(3.0000, dtype=torch.float64)
    """
    rows = F.normalize(features.double(), dim=1)
    products = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    values = torch.linalg.eigvalsh(products / len(rows)).clamp(min=0)
    return torch.xlogy(values, values).sum().neg().exp()


def kernel_distance(
    x: Tensor,
    y: Tensor,
    num_subsets: int = 100,
    subset_size: int = 1000,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Squared maximum mean discrepancy under the kernel $(x \cdot y / F + 1)^3$, without bias, averaged over subsets.

    $\frac{1}{n(n-1)} \sum_{i \ne j} (k(x_i, x_j) + k(y_i, y_j)) - \frac{2}{n^2} \sum_{i,j} k(x_i, y_j)$
    (Bińkowski et al. 2018, section 4); it can be negative.

    Args:
        x: features, `(N, F)`.
        y: features, `(M, F)`.
        num_subsets: how many pairs of subsets; the subsets of one pair have no row twice.
        subset_size: n, 2 to the smaller of N and M.
        generator: draws the subsets; the global one if None.

    Returns:
        Mean and (population) standard deviation over the subsets, scalars, float64.

    Raises:
        DataError: if there are fewer rows than a subset takes.

    >>> kernel_distance(torch.zeros(2, 1), torch.ones(2, 1), subset_size=2)  # 1 + 8 - 2 * 1
    (tensor(7., dtype=torch.float64), tensor(0., dtype=torch.float64))
    """
    if not 2 <= subset_size <= min(len(x), len(y)):
        raise DataError(
            f"The kernel distance got {len(x)} and {len(y)} rows for subsets of {subset_size}; give at least as many "
            f"samples, or a subset_size of 2 to {min(len(x), len(y))}."
        )
    x, y = x.double(), y.double()

    def draw(rows: Tensor) -> Tensor:
        device = None if generator is None else generator.device
        return torch.randperm(len(rows), generator=generator, device=device)[:subset_size].to(rows.device)

    subsets = [(draw(x), draw(y)) for _ in range(num_subsets)]
    if len(x) * len(y) > num_subsets * subset_size**2:
        every = x.new_ones(subset_size, 1)
        result = torch.cat([_subset_distances(x[i], y[j], every, every) for i, j in subsets])
    else:  # The subsets share most pairs: each kernel value is computed once.
        in_x, in_y = x.new_zeros(len(x), num_subsets), y.new_zeros(len(y), num_subsets)
        for s, (i, j) in enumerate(subsets):
            in_x[i, s], in_y[j, s] = 1, 1
        result = _subset_distances(x, y, in_x, in_y)
    return result.mean(), result.std(correction=0)


def _subset_distances(x: Tensor, y: Tensor, in_x: Tensor, in_y: Tensor) -> Tensor:
    """The squared discrepancy of each pair of subsets, `(S,)`; which rows are in which, `(N, S)` and `(M, S)`."""
    size = in_x[:, 0].sum()
    within = _kernel_sums(x, x, in_x, in_x, within=True) + _kernel_sums(y, y, in_y, in_y, within=True)
    return within / (size * (size - 1)) - 2 * _kernel_sums(x, y, in_x, in_y, within=False) / size**2


def _kernel_sums(x: Tensor, y: Tensor, in_x: Tensor, in_y: Tensor, *, within: bool) -> Tensor:
    """The cubic kernel summed over the pairs of each subset; within one set without a row and itself, `(S,)`."""
    total = x.new_zeros(in_x.shape[1])
    for i in range(0, len(x), ROWS):
        rows = slice(i, i + ROWS)
        for j in range(i if within else 0, len(y), ROWS):
            columns = slice(j, j + ROWS)
            values = torch.addmm(x.new_ones(()), x[rows], y[columns].T, alpha=1 / x.shape[1]) ** 3
            if within and i == j:
                values.fill_diagonal_(0)
            times = 2 if within and j > i else 1  # The kernel is symmetric.
            total += times * (in_x[rows] * (values @ in_y[columns])).sum(0)
    return total


def inception_score(logits: Tensor, splits: int = 10) -> tuple[Tensor, Tensor]:
    r"""How sure a classifier is of each image, and how various the images are: $\exp E_x KL(p(y|x) \| p(y))$.

    $p(y)$ is the mean over one split (Salimans et al. 2016, section 4). The splits are consecutive, as in the authors'
    code: nothing is shuffled.

    Args:
        logits: in the order of generation, `(N, K)`.
        splits: how many groups; each is scored by itself.

    Returns:
        Mean and population standard deviation over the splits, scalars from 1 to K, float64.

    Raises:
        DataError: if there are fewer rows than splits.

    >>> inception_score(1000 * torch.eye(5), splits=1)
    (tensor(5.0000, dtype=torch.float64), tensor(0., dtype=torch.float64))
    """
    number = len(logits)
    if not 1 <= splits <= number:
        raise DataError(
            f"The Inception score got {number} samples for {splits} splits; give at least as many samples, or fewer "
            "splits."
        )
    probabilities = logits.double().softmax(1)
    scores = []
    for i in range(splits):
        given = probabilities[i * number // splits : (i + 1) * number // splits]
        marginal = given.mean(0)
        # xlogy(0, 0) is 0: a class that never comes adds nothing.
        divergence = torch.xlogy(given, given).sum(1).mean() - torch.xlogy(marginal, marginal).sum()
        scores.append(divergence.exp())
    result = torch.stack(scores)
    return result.mean(), result.std(correction=0)
