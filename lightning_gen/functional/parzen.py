"""Parzen windows: the log-density that samples of a model give to images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROWS, COLUMNS = 512, 2048
"""Distances held at a time: 8 MB in float64, measured the fastest on a CPU."""


def parzen_log_likelihood(x: Tensor, samples: Tensor, sigma: float | Tensor) -> Tensor:
    r"""Log-density of each image under a Gaussian window on each sample, for one width or for a grid of widths.

    $\log \hat p(x) = \log \frac1S \sum_s \exp(-\|x - \mu_s\|^2 / 2\sigma^2) - D \log(\sigma \sqrt{2\pi})$
    (Breuleux, Bengio & Vincent 2009; the estimate that Goodfellow et al. 2014 report). The distances are computed once
    for the whole grid, and memory does not grow with their number.

    Args:
        x: images, `(N, ...)`, on the scale of the samples.
        samples: of the model, `(S, ...)`, S at least 1.
        sigma: width of the windows, a number; or a grid of them, `(K,)`.

    Returns:
        Nats (of a density), float64: `(N,)`, or `(N, K)` for a grid.

    >>> x, samples = torch.zeros(1, 2), torch.tensor([[0.0, 0.0], [9.0, 9.0]])
    >>> parzen_log_likelihood(x, samples, 1.0) + math.log(2) + math.log(2 * math.pi)
    tensor([0.], dtype=torch.float64)
    >>> parzen_log_likelihood(x, samples, torch.tensor([0.5, 1.0, 2.0])).shape
    torch.Size([1, 3])
    """
    # Products in float64: float32 loses digits that 1 / sigma^2 magnifies, and TF32 or bfloat16, where a user has
    # allowed them, lose nats.
    x, samples = x.flatten(1), samples.flatten(1)
    sigmas = torch.as_tensor(sigma, dtype=torch.float64, device=x.device)
    scales = (-0.5 / sigmas.square()).flatten().tolist()
    results = []
    for rows in x.split(ROWS):
        rows = rows.double()
        nearest = rows.new_full((len(rows),), math.inf)  # ||x - mu||^2 - ||x||^2 of the nearest sample so far
        sums = rows.new_zeros(len(scales), len(rows))  # of exp, relative to the nearest sample's
        for columns in samples.split(COLUMNS):
            columns = columns.double()
            distances = torch.addmm(columns.square().sum(1), rows, columns.T, alpha=-2)
            previous, nearest = nearest, torch.minimum(nearest, distances.amin(1))
            # What is left is small where it counts: float32 serves for the exponentials. Powers of two, as torch's exp
            # takes ten times as long on a CPU where it vanishes, which is nearly everywhere.
            excess = (distances - nearest[:, None]).float()
            for total, scale in zip(sums, scales, strict=True):
                powers = (scale / math.log(2) * excess).exp2_()
                total.mul_((scale * (previous - nearest)).exp()).add_(powers.sum(1))
        exponents = torch.outer(sums.new_tensor(scales), nearest + rows.square().sum(1))
        results.append((sums.log() + exponents).T)
    log_normalizer = x.shape[1] * torch.log(sigmas * math.sqrt(2 * math.pi)) + math.log(len(samples))
    return torch.cat(results).view(len(x), *sigmas.shape) - log_normalizer
