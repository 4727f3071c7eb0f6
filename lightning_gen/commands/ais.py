"""`lightning-gen ais`: the likelihood of a model that decodes a latent variable, by annealed importance sampling."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_gen.commands.data import Data
from lightning_gen.commands.pictures import Device, load
from lightning_gen.errors import LightningGenError

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_gen.functional.annealing import LogLikelihood

PILOTS = 4  # Chains for each image that find the step sizes.
CHUNK = 100  # Images at a time.
TUNING = 10  # Validation images on which sigma is chosen.
SIGMAS = (0.05, 0.07, 0.1, 0.14, 0.2, 0.28)


def ais(
    ckpt_path: str,
    num_images: int = 100,
    num_chains: int = 16,
    num_steps: int = 1000,
    num_leapfrog: int = 10,
    sigma: float | None = None,
    num_simulated: int = 0,
    root: str | None = None,
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Estimate log p(x) of test images under a VAE, GAN, DCGAN or GMMN (Wu et al. 2017).

    A VAE is scored by its own p(x|z), on images as its `test` sees them. Models without one get independent Gaussian
    pixels around the decoded image, and 8-bit images with uniform noise added, (255 x + u) / 256: the density is then a
    bound on the probability of the 8-bit pixels. The data are those that the checkpoint was trained on.

    The value is a lower bound in expectation, and the tighter the more steps there are. `num_simulated` shows how far
    it may be off: on images that the model itself has drawn, the posterior is known by a draw, and chains that walk
    back from it bound log p(x) from above (bidirectional Monte Carlo).

    Args:
        ckpt_path: the checkpoint.
        num_images: the first test images that are scored.
        num_chains: for each image.
        num_steps: temperatures between prior and posterior.
        num_leapfrog: leapfrogs of each proposal.
        sigma: of the Gaussian pixels; if it is not given and the model has no p(x|z) of its own, the best of six from
            0.05 to 0.28 for 10 validation images.
        num_simulated: images drawn from the model, for the gap between the bounds; 0 for none.
        root: folder of the data, if it is no longer where it was.
        seed: of the random numbers.
        device: where to compute; auto takes the GPU if there is one.
    """
    numbers = {"num_images": num_images, "num_chains": num_chains, "num_steps": num_steps, "num_leapfrog": num_leapfrog}
    for name, value in numbers.items():
        if value < 1:
            raise LightningGenError(f"{name} is {value}; expected at least 1.")
    if num_simulated < 0 or (sigma is not None and not sigma > 0):
        raise LightningGenError(f"num_simulated is {num_simulated} and sigma is {sigma}; expected 0 or more, above 0.")
    import torch

    from lightning_gen.functional.bounds import bits_per_dim, dequantize

    model: Any = load(ckpt_path, device, seed).eval().requires_grad_(False)
    if model.condition_keys or not hasattr(model, "latent_from_normal"):
        raise LightningGenError(
            f"{type(model).__name__} does not decode one latent variable of known density; a VAE, GAN, DCGAN or GMMN "
            "does."
        )
    if not model.can_sample:
        raise LightningGenError(f"This {type(model).__name__} has not been trained to its end; go on with fit.")
    start = time.perf_counter()
    own = sigma is None and hasattr(model, "conditional_log_prob")
    data = Data(ckpt_path, root)

    def read(split: str, number: int, option: str = "") -> Tensor:
        images = data.first(split, number, option)["image"]
        if own:
            model.check_batch({"image": images})  # Bernoulli pixels are black or white.
        return (images if own else dequantize(images)).to(model.device)

    images = read("test", num_images, "num_images")
    settings = Settings(num_chains, num_steps, num_leapfrog)
    pixels = "the model's own p(x|z)"
    if not own:
        pixels = f"Gaussian pixels, sigma {sigma} given"
        if sigma is None:
            sigma, pixels = choose_sigma(model, read("val", TUNING), settings)
        pixels += ", uniform noise on 8-bit pixels"

    result = [annealed(model, part, sigma, settings) for part in images.split(CHUNK)]
    lower, effective, acceptance = (torch.cat(values) for values in zip(*result, strict=True))
    error = lower.std().item() / len(lower) ** 0.5 if len(lower) > 1 else math.nan
    score = f"{lower.mean():.2f} ± {error:.2f} nats"
    if not own:
        bits = bits_per_dim(-lower.mean().item(), images.shape[1:]) + 8  # A unit of [0, 1] is 256 grey values.
        score += f" (at most {bits:.3f} bits per dimension)"
    print(
        f"{score}: annealed importance sampling, {num_images} test images, {num_chains} chains of {num_steps:,} steps "
        f"of {num_leapfrog} leapfrogs; {pixels}; effective samples {effective.mean():.1f} of {num_chains} "
        f"(least {effective.min():.1f}), {100 * acceptance.mean():.0f} % accepted ({time.perf_counter() - start:.1f} s)"
    )
    if num_simulated:
        gap, error = simulated_gap(model, num_simulated, sigma, settings)
        print(
            f"{gap:.2f} ± {error:.2f} nats between lower and upper bound on {num_simulated} images drawn from the model"
        )


class Settings(NamedTuple):
    """How long, and how many."""

    num_chains: int
    num_steps: int
    num_leapfrog: int


def likelihood(model: Any, images: Tensor, sigma: float | None) -> LogLikelihood:
    """Log p(x|z) of images as a function of standard normal numbers; the model's own if there is no sigma."""
    from lightning_gen.functional.bounds import normal_log_prob

    def log_likelihood(u: Tensor) -> Tensor:  # (L, N, J) -> (L, N)
        z = model.latent_from_normal(u)
        if sigma is None:
            return model.conditional_log_prob(images, z)
        means = model.decode(z.flatten(0, 1)).unflatten(0, u.shape[:2])
        return normal_log_prob(images, means, 2 * math.log(sigma))

    return log_likelihood


def annealed(model: Any, images: Tensor, sigma: float | None, settings: Settings) -> tuple[Tensor, Tensor, Tensor]:
    """Lower bounds on log p(x), effective sample sizes and acceptance, each `(N,)`."""
    from lightning_gen.functional.annealing import annealed_importance_sampling, sigmoid_schedule, tune_step_sizes
    from lightning_gen.functional.bounds import effective_sample_size, importance_weighted_bound

    density, betas = likelihood(model, images, sigma), sigmoid_schedule(settings.num_steps)
    sizes = tune_step_sizes(density, normal(model, PILOTS, len(images)), betas, settings.num_leapfrog)
    start = normal(model, settings.num_chains, len(images))
    chains = annealed_importance_sampling(density, start, betas, sizes, settings.num_leapfrog)
    return importance_weighted_bound(chains.log_weights), effective_sample_size(chains.log_weights), chains.acceptance


def choose_sigma(model: Any, images: Tensor, settings: Settings) -> tuple[float, str]:
    """The width under which validation images are most probable, and how it was chosen."""
    settings = settings._replace(num_chains=min(settings.num_chains, PILOTS))
    scores = [annealed(model, images, sigma, settings)[0].mean().item() for sigma in SIGMAS]
    best = SIGMAS[scores.index(max(scores))]
    at_end = ", at the end of the grid" if best in (SIGMAS[0], SIGMAS[-1]) else ""
    return best, f"Gaussian pixels, sigma {best} of {len(SIGMAS)}, chosen on {len(images)} validation images{at_end}"


def simulated_gap(model: Any, number: int, sigma: float | None, settings: Settings) -> tuple[float, float]:
    """Upper minus lower bound on log p(x) of images that the model draws: mean and standard error, in nats."""
    import torch

    from lightning_gen.functional.annealing import annealed_importance_sampling, sigmoid_schedule, tune_step_sizes
    from lightning_gen.functional.bounds import importance_weighted_bound

    posterior = normal(model, 1, number)  # Of an image drawn from it, z is a draw of the posterior.
    z = model.latent_from_normal(posterior[0])
    if sigma is None:
        images = model.conditional_sample(z)
    else:
        means = model.decode(z)
        images = means + sigma * torch.randn_like(means)
    density, betas = likelihood(model, images, sigma), sigmoid_schedule(settings.num_steps)
    sizes = tune_step_sizes(density, normal(model, PILOTS, number), betas, settings.num_leapfrog)
    up = annealed_importance_sampling(
        density, normal(model, settings.num_chains, number), betas, sizes, settings.num_leapfrog
    )
    start = posterior.expand(settings.num_chains, -1, -1)
    down = annealed_importance_sampling(density, start, betas.flip(0), sizes.flip(0), settings.num_leapfrog)
    gap = -importance_weighted_bound(-down.log_weights) - importance_weighted_bound(up.log_weights)
    return gap.mean().item(), gap.std().item() / number**0.5 if number > 1 else math.nan


def normal(model: Any, num_chains: int, number: int) -> Tensor:
    """Standard normal numbers for chains to begin with, `(L, N, J)`."""
    import torch

    return torch.randn(num_chains, number, model.latent_dim, device=model.device)
