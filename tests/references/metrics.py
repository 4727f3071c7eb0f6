"""The judges' figures, pair by pair and window by window."""

import math

import torch
from torch import Tensor


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Heusel et al. 2017, equation 6: |m_x - m_y|^2 + Tr(C_x + C_y - 2 (C_x C_y)^(1/2)), of features `(N, F)`.

    The trace of the root is the sum of the roots of the eigenvalues of C_x C_y; covariances divide by N - 1.
    """

    def moments(features: Tensor) -> tuple[Tensor, Tensor]:
        mean = sum(features, torch.zeros_like(features[0])) / len(features)
        outer = sum((torch.outer(f - mean, f - mean) for f in features), torch.zeros(len(mean), len(mean)).double())
        return mean, outer / (len(features) - 1)

    (m_x, c_x), (m_y, c_y) = moments(x), moments(y)
    roots = torch.linalg.eigvals(c_x @ c_y).real.clamp(min=0) ** 0.5
    return float(((m_x - m_y) ** 2).sum() + torch.trace(c_x) + torch.trace(c_y) - 2 * roots.sum())


def inception_score(logits: Tensor, splits: int) -> tuple[float, float]:
    """Salimans et al. 2016: exp of the mean over x of sum_y p(y|x) log(p(y|x) / p(y)), p(y) the mean of one split."""
    scores = []
    for s in range(splits):
        rows = []
        for row in logits[s * len(logits) // splits : (s + 1) * len(logits) // splits].tolist():
            total = sum(math.exp(a) for a in row)
            rows.append([math.exp(a) / total for a in row])
        marginal = [sum(row[y] for row in rows) / len(rows) for y in range(logits.shape[1])]
        divergences = [sum(p * math.log(p / m) for p, m in zip(row, marginal, strict=True)) for row in rows]
        scores.append(math.exp(sum(divergences) / len(rows)))
    mean = sum(scores) / splits
    return mean, math.sqrt(sum((score - mean) ** 2 for score in scores) / splits)


def parzen_log_likelihood(x: Tensor, samples: Tensor, sigma: float) -> float:
    """log 1/S sum_s N(x; mu_s, sigma^2 I)."""
    densities = []
    for sample in samples:
        squared = float(((x - sample) ** 2).sum())
        densities.append(math.exp(-squared / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi)) ** x.numel())
    return math.log(sum(densities) / len(densities))


def radius(points: Tensor, i: int, k: int) -> float:
    """The distance from point i to its k-th neighbour among the others."""
    return sorted(distance(points[i], points[j]) for j in range(len(points)) if j != i)[k - 1]


def distance(a: Tensor, b: Tensor) -> float:
    return math.sqrt(float(((a - b) ** 2).sum()))


def precision(x: Tensor, y: Tensor, k: int) -> float:
    """Kynkäänniemi et al. 2019, equations 1 and 2: the share of x within the radius of some y; recall swaps them."""
    inside = [any(distance(a, y[i]) <= radius(y, i, k) for i in range(len(y))) for a in x]
    return sum(inside) / len(x)


def density(x: Tensor, y: Tensor, k: int) -> float:
    """Naeem et al. 2020, equation 2: 1/(kM) sum_j sum_i 1[x_j in B(y_i, NND_k(y_i))]."""
    return sum(distance(a, y[i]) < radius(y, i, k) for a in x for i in range(len(y))) / (k * len(x))


def coverage(x: Tensor, y: Tensor, k: int) -> float:
    """Naeem et al. 2020, equation 3: 1/N sum_i 1[some x_j in B(y_i, NND_k(y_i))]."""
    return sum(any(distance(a, y[i]) < radius(y, i, k) for a in x) for i in range(len(y))) / len(y)


WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim(x: Tensor, y: Tensor, scales: int) -> float:
    """Wang, Simoncelli & Bovik 2003, of two images `(C, H, W)` in [0, 1] (K_1 = 0.01, K_2 = 0.03).

    At each scale a Gaussian window of 11 x 11 (of the whole side, if that is less) stands at every place where it lies
    inside. The last scale counts luminance too. Fewer than five scales have weights of the same sum.
    """
    c1, c2 = 0.01**2, 0.03**2
    total = 1.0
    for scale in range(scales):
        contrasts, similarities = [], []
        _, rows, columns = x.shape
        size = min(11, rows, columns)
        sigma = 1.5 * size / 11
        taps = [math.exp(-((i - (size - 1) / 2) ** 2) / (2 * sigma**2)) for i in range(size)]
        window = torch.tensor([[a * b for b in taps] for a in taps], dtype=torch.float64) / sum(taps) ** 2
        for a, b in zip(x, y, strict=True):
            for r in range(rows - size + 1):
                for c in range(columns - size + 1):
                    u, v = a[r : r + size, c : c + size], b[r : r + size, c : c + size]
                    m_u, m_v = float((window * u).sum()), float((window * v).sum())
                    s_uu = float((window * u * u).sum()) - m_u**2
                    s_vv = float((window * v * v).sum()) - m_v**2
                    s_uv = float((window * u * v).sum()) - m_u * m_v
                    contrast = (2 * s_uv + c2) / (s_uu + s_vv + c2)
                    contrasts.append(contrast)
                    similarities.append(contrast * (2 * m_u * m_v + c1) / (m_u**2 + m_v**2 + c1))
        values = similarities if scale == scales - 1 else contrasts
        weight = WEIGHTS[scale] * sum(WEIGHTS) / sum(WEIGHTS[:scales])
        total *= max(sum(values) / len(values), 0.0) ** weight
        x, y = halve(x), halve(y)
    return total


def halve(x: Tensor) -> Tensor:
    """Means of 2 x 2 pixels; a last odd row or column is paired with itself."""
    channels, rows, columns = x.shape
    y = torch.zeros(channels, (rows + 1) // 2, (columns + 1) // 2, dtype=x.dtype)
    for r in range(y.shape[1]):
        for c in range(y.shape[2]):
            r2, c2 = min(2 * r + 1, rows - 1), min(2 * c + 1, columns - 1)
            y[:, r, c] = (x[:, 2 * r, 2 * c] + x[:, r2, 2 * c] + x[:, 2 * r, c2] + x[:, r2, c2]) / 4
    return y
