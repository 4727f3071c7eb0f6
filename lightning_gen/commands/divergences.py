"""`lightning-gen divergences`: what a model that falls short of the data becomes, by what it is fitted by."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lightning_gen.commands.pictures import new_output

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lightning_gen.functional.divergences import Mixture

HALF_WIDTH = 5.0
SIDE = 180  # Pixels of a panel.
STARTS = ((0.0, 0.0), (-1.6, -0.8), (1.6, 0.8))
ORANGE = (1.0, 0.55, 0.1)


def divergences(output: str, bandwidth: float = 1.0) -> None:
    """Fit an isotropic Gaussian to a mixture of two by KL, MMD and JSD, and draw them (Theis et al. 2016, figure 1).

    No isotropic Gaussian is right, and the three are wrong in different ways: maximum likelihood covers both parts and
    what lies between, the Jensen-Shannon divergence gives up one of them. Each is the best of three starts; the
    integrals are sums over a grid, so nothing is drawn at random. The orange rings are the Gaussian's, at one and two
    standard deviations.

    Args:
        output: a .png with the mixture and the three fits.
        bandwidth: of the Gaussian kernel of MMD, a variance; the mixture's parts have variances of about one.
    """
    from lightning_gen.errors import DataError

    if not bandwidth > 0:
        raise DataError(f"bandwidth is {bandwidth}; expected more than 0.")
    with new_output(output) as draft:
        import torch

        from lightning_gen.callbacks.files import image_grid, write_png
        from lightning_gen.functional.divergences import Mixture, grid, js_divergence, kl_divergence, mixture_mmd2

        data = Mixture(
            torch.tensor([0.65, 0.35], dtype=torch.float64),
            torch.tensor([[-1.6, -0.8], [1.6, 0.8]], dtype=torch.float64),
            torch.tensor([0.6, 0.3], dtype=torch.float64),
        )
        points = grid(HALF_WIDTH, SIDE)
        scores: dict[str, Callable[[Mixture], Tensor]] = {
            "KL": lambda q: kl_divergence(data, q, points),
            "MMD^2": lambda q: mixture_mmd2(data, q, bandwidth),
            "JSD": lambda q: js_divergence(data, q, points),
        }
        fits = {name: fit(score) for name, score in scores.items()}
        print(f"{'fitted by':10} {'mean':>16} {'sigma':>7}" + "".join(f"{name:>9}" for name in scores))
        for name, q in fits.items():
            mean = ", ".join(f"{value:.3f}" for value in q.means[0])
            values = "".join(f"{score(q):9.4f}" for score in scores.values())
            print(f"{name:10} {mean:>16} {q.variances.sqrt().item():7.3f}{values}")
        write_png(image_grid(torch.stack([panel(data, q) for q in (None, *fits.values())]), 4, padding=4), draft)
    print(f"The mixture, and its fits by {', '.join(scores)}, from left to right in {output}")


def fit(score: Callable[[Mixture], Tensor]) -> Mixture:
    """The isotropic Gaussian of the lowest score, from several starts."""
    import torch

    from lightning_gen.functional.divergences import Mixture

    def gaussian(parameters: Tensor) -> Mixture:  # (3,): the mean, and the log of the variance
        return Mixture(parameters.new_ones(1), parameters[None, :2], parameters[2:].exp())

    found: list[tuple[float, Mixture]] = []
    for start in STARTS:
        parameters = torch.tensor([*start, 0.0], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe", tolerance_change=1e-12)

        def closure(parameters: Tensor = parameters, optimizer: torch.optim.LBFGS = optimizer) -> Tensor:
            optimizer.zero_grad()
            value = score(gaussian(parameters))
            value.backward()
            return value

        optimizer.step(closure)
        q = gaussian(parameters.detach())
        found.append((score(q).item(), q))
    return min(found, key=lambda pair: pair[0])[1]


def panel(data: Mixture, q: Mixture | None) -> Tensor:
    """The density of the data in grey, high y above, with rings of a Gaussian, `(3, H, W)`."""
    import torch

    from lightning_gen.functional.divergences import grid

    points = grid(HALF_WIDTH, SIDE).flip(0)
    density = data.log_prob(points).exp()
    picture = (1 - 0.9 * density / density.max()).float().expand(3, -1, -1)
    if q is None:
        return picture
    distance = (points - q.means[0]).norm(dim=-1) / q.variances.sqrt()
    pixel = 2 * HALF_WIDTH / SIDE / q.variances.sqrt()
    for ring in (1, 2):
        cover = (1.5 - (distance - ring).abs() / pixel).clamp(0, 1).float()  # Smooth at its edges.
        picture = cover * torch.tensor(ORANGE)[:, None, None] + (1 - cover) * picture
    return picture
