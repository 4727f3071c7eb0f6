import pytest
import torch
from torch import Tensor

from lightning_gen import functional
from tests.references import metrics as paper
from tests.references.compare import close, grey
from tests.references.gmmn import mmd2


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def test_frechet_distance() -> None:
    """Of more and of fewer points than features, where covariances have no inverse."""
    for size, rtol in ((9, 1e-10), (3, 1e-6)):  # Roots of eigenvalues of 0 cost half of the digits.
        x, y = grey(size, 5, seed=1), 2 * grey(size + 2, 5, seed=2)
        moments = [(z.mean(0), z.T.cov()) for z in (x, y)]
        close(functional.frechet_distance(*moments[0], *moments[1]), number(paper.frechet_distance(x, y)), rtol=rtol)


def test_kernel_distance() -> None:
    """One subset of all points; a subset's points are paired with all of the other's."""
    x, y = grey(6, 5, seed=1), 2 * grey(6, 5, seed=2)
    mean, _ = functional.kernel_distance(x, y, num_subsets=1, subset_size=6)
    close(mean, mmd2(x, y, (), "polynomial", biased=False))


def test_inception_score() -> None:
    logits = 3 * grey(13, 5)  # Of which the splits have 4, 4 and 5.
    mean, deviation = paper.inception_score(logits, 3)
    close(torch.stack(functional.inception_score(logits, splits=3)), torch.stack([number(mean), number(deviation)]))


def test_parzen() -> None:
    x, samples = grey(3, 1, 5, 7, seed=1), grey(6, 1, 5, 7, seed=2)
    expected = [[paper.parzen_log_likelihood(image, samples, s) for s in (0.2, 0.5)] for image in x]
    close(functional.parzen_log_likelihood(x, samples, torch.tensor([0.2, 0.5])), torch.tensor(expected).double(), 1e-7)


@pytest.mark.parametrize("k", [1, 3])
def test_manifolds(k: int) -> None:
    """Also where points lie at just a radius: within it for precision, outside for density and coverage."""
    x, y = grey(9, 4, seed=1), grey(7, 4, seed=2)
    ties = [torch.tensor(row, dtype=torch.float64)[:, None] for row in ([-1, 2, 5, 9], [0, 1, 3, 6, 8])]
    for name in ("precision", "density", "coverage"):
        for a, b in ((x, y), (y, x), ties):
            close(getattr(functional, f"manifold_{name}")(a, b, k), number(getattr(paper, name)(a, b, k)))


@pytest.mark.parametrize(("shape", "scales"), [((1, 13, 17), 1), ((3, 24, 21), 3), ((1, 41, 37), 5)])
def test_ms_ssim(shape: tuple[int, ...], scales: int) -> None:
    """Windows of 11 x 11 and, at small scales, less; odd sides."""
    x = grey(2, *shape, seed=1)
    y = (x + 0.3 * grey(2, *shape, seed=2)) / 1.3
    expected = [paper.ms_ssim(a, b, scales) for a, b in zip(x, y, strict=True)]
    close(functional.ms_ssim(x, y, scales), torch.tensor(expected, dtype=torch.float64))
