"""`lightning-gen mixture`: good likelihoods of bad samples, and the reverse."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lightning_gen.commands.data import Data
from lightning_gen.commands.pictures import Device, load
from lightning_gen.errors import LightningGenError

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 100  # Images at a time.


def mixture(
    ckpt_path: str,
    weight: float = 0.01,
    flips: list[float] = [0.0, 1e-4, 0.01],  # noqa: B006
    num_samples: int = 1000,
    root: str | None = None,
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Show on digits that likelihood and the look of samples are two things (Theis et al. 2016, section 3.2).

    A mixture `weight` p + (1 - `weight`) q of a model p of binary digits and of noise q, each pixel by a fair coin, is
    at most log(1 / `weight`) nats worse than p, and nearly all of its samples are noise. A table of the training
    images, of which a pixel is flipped now and then, has perfect samples, and images that are not in it are next to
    impossible.
    The data are those that the checkpoint was trained on; samples are judged by the package's classifier of digits.

    Args:
        ckpt_path: the checkpoint of a model with an exact likelihood of binary digits, as a NADE.
        weight: of the model in the mixture.
        flips: probabilities that a pixel of a memorised image is flipped.
        num_samples: of each, for the judge.
        root: folder of the data, if it is no longer where it was.
        seed: of the random numbers.
        device: where to compute; auto takes the GPU if there is one.
    """
    if not 0 < weight < 1 or not all(0 <= flip < 1 for flip in flips):
        raise LightningGenError(f"weight is {weight} and flips is {flips}; expected numbers between 0 and 1.")
    if num_samples < 2:
        raise LightningGenError(f"num_samples is {num_samples}; expected at least 2.")
    import torch

    model: Any = load(ckpt_path, device, seed).eval()
    if getattr(model, "likelihood", None) != "exact" or not model.binary or model.image_shape != (1, 28, 28):
        raise LightningGenError(
            f"{type(model).__name__} has no exact likelihood of binary digits; a BernoulliMixture or a NADE has."
        )
    data = Data(ckpt_path, root)
    train, test = (data.first(split)["image"] for split in ("train", "test"))
    model.check_batch({"image": test})
    with torch.no_grad():
        log_p = torch.cat([model.log_prob(part.to(model.device)).cpu() for part in test.split(CHUNK)]).double()
    sizes = [min(CHUNK, num_samples - start) for start in range(0, num_samples, CHUNK)]
    from_p = torch.cat([model.sample(size).cpu() for size in sizes])
    noise = torch.rand(from_p.shape).round()
    log_q = torch.full_like(log_p, -math.prod(model.image_shape) * math.log(2))
    chosen = (torch.rand(num_samples) < weight)[:, None, None, None]
    rows = [
        ("model p", log_p, from_p),
        ("noise q", log_q, noise),
        (
            f"{weight:g} p + {1 - weight:g} q",
            torch.logaddexp(log_p + math.log(weight), log_q + math.log1p(-weight)),
            torch.where(chosen, from_p, noise),
        ),
    ]
    for flip in flips:
        memorised = train[torch.randint(len(train), (num_samples,))]
        flipped = torch.where(torch.rand(memorised.shape) < flip, 1 - memorised, memorised)
        rows.append((f"training images, {flip:g} flipped", table_log_prob(test, train, flip), flipped))

    print(f"{'samples of':32} {'test log-likelihood':>20} {'fid_digits':>10} {'confident':>9}")
    for name, scores, samples in rows:
        error = f" ± {scores.std().item() / len(scores) ** 0.5:.2f}" if scores.isfinite().all() else ""
        fid, confident = judge(samples, test)
        print(f"{name:32} {f'{scores.mean():.2f}{error}':>20} {fid:10.2f} {confident:9.3f}")
    worst = (log_p - rows[2][1]).max().item()
    print(
        f"Nats of {len(test):,} binary test images, exact; {num_samples:,} samples of each. No image lost more than "
        f"{worst:.3f} nats by the noise; log {1 / weight:g} is {-math.log(weight):.3f}."
    )


def table_log_prob(images: Tensor, table: Tensor, flip: float) -> Tensor:
    """Log-probability of binary images under a draw from a table whose pixels are flipped with a probability.

    With h pixels of D other than in the table's image, its part is flip^h (1 - flip)^(D - h); of 0^0 = 1.

    Args:
        images: `(N, ...)`, 0 or 1.
        table: `(M, ...)`, 0 or 1.
        flip: in [0, 1).

    Returns:
        Nats, `(N,)`, float64.
    """
    import torch

    table = table.flatten(1)
    results = []
    for part in images.flatten(1).split(CHUNK):
        differing = (part.sum(1, keepdim=True) + table.sum(1) - 2 * part @ table.T).round().double()  # (n, M)
        log_probs = torch.xlogy(differing, flip) + (table.shape[1] - differing) * math.log1p(-flip)
        results.append(log_probs.logsumexp(1) - math.log(len(table)))
    return torch.cat(results)


def judge(samples: Tensor, real: Tensor) -> tuple[float, float]:
    """Fréchet distance on the features of digits, and share of confidently classified samples."""
    import torch

    from lightning_gen.metrics import Confidence, FrechetDistance, Samples
    from lightning_gen.nn import DigitFeatures

    extractor, distance, confidence = DigitFeatures(), FrechetDistance(), Confidence()
    with torch.no_grad():
        for metric in (distance, confidence):
            metric.bind(extractor)
            metric.update(Samples(real, *extractor(real)), role="reference")
            metric.update(Samples(samples, *extractor(samples)))
    return distance.compute().item(), confidence.compute().item()
