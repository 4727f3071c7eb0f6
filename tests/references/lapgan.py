"""LAPGAN (Denton, Chintala, Szlam & Fergus 2015, `arXiv:1506.05751`): the pyramid pixel by pixel, then the game."""

import torch
from torch import Tensor

from tests.references.gan import loss_d, loss_g
from tests.references.layers import Momentum, Weights, conv, gradients, linear, relu

# The pyramid (Burt & Adelson 1983) of images `(N, C, H, W)`; beyond the edge lie the pixels on the edge ---------------


def blurred(x: Tensor, r: int, c: int, taps: tuple[int, ...]) -> Tensor:
    """Pixel (r, c) of the blurred image: a sum over the square around it."""
    half, total = len(taps) // 2, torch.zeros_like(x[:, :, 0, 0])
    for i, a in enumerate(taps):
        for j, b in enumerate(taps):
            row = min(max(r + i - half, 0), x.shape[2] - 1)
            column = min(max(c + j - half, 0), x.shape[3] - 1)
            total = total + a * b / sum(taps) ** 2 * x[:, :, row, column]
    return total


def between(x: Tensor, row: float, column: float) -> Tensor:
    """The value at a place between pixels, linearly."""
    r, c = int(row), int(column)
    down, right = row - r, column - c
    r2, c2 = min(r + 1, x.shape[2] - 1), min(c + 1, x.shape[3] - 1)
    upper = (1 - right) * x[:, :, r, c] + right * x[:, :, r, c2]
    lower = (1 - right) * x[:, :, r2, c] + right * x[:, :, r2, c2]
    return (1 - down) * upper + down * lower


def image(pixels: list[Tensor], size: int) -> Tensor:
    return torch.stack(pixels, -1).unflatten(-1, (size, size))


def downsample(x: Tensor, size: int) -> Tensor:
    """d: blur by the binomial 1, 4, 6, 4, 1 and keep pixels at equal distances, every other one if the side halves."""
    places = [(r, c) for r in range(x.shape[2]) for c in range(x.shape[3])]
    smooth = image([blurred(x, r, c, (1, 4, 6, 4, 1)) for r, c in places], x.shape[2])
    ratio = x.shape[2] / size
    return image([between(smooth, ratio * r, ratio * c) for r in range(size) for c in range(size)], size)


def upsample(x: Tensor, size: int) -> Tensor:
    """u: put pixels between, linearly, and smooth by 1, 2, 1; doubled, it is 1, 4, 6, 4, 1 over zeros between."""
    ratio = x.shape[2] / size
    larger = image([between(x, ratio * r, ratio * c) for r in range(size) for c in range(size)], size)
    return image([blurred(larger, r, c, (1, 2, 1)) for r in range(size) for c in range(size)], size)


def pyramid(x: Tensor, sizes: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """Equation 3, the smallest first: h_k = I_k - u(I_{k+1}) with I_{k+1} = d(I_k), and the lows l_k = u(I_{k+1})."""
    bands, lows = [], []
    for size in sizes[-2::-1]:
        smaller = downsample(x, size)
        low = upsample(smaller, x.shape[2])
        bands.append(x - low)
        lows.append(low)
        x = smaller
    return [x, *bands[::-1]], [torch.zeros_like(x), *lows[::-1]]


def reconstruct(bands: list[Tensor]) -> Tensor:
    """Equation 4: I_k = u(I_{k+1}) + h_k."""
    x = bands[0]
    for band in bands[1:]:
        x = upsample(x, band.shape[2]) + band
    return x


# Networks -------------------------------------------------------------------------------------------------------------


def generator(k: int, z: Tensor, low: Tensor, p: Weights) -> Tensor:
    """Of the smallest image three layers; of a band three convolutions that keep the size of [z, l]."""
    name = f"generators.{k}.layers"
    if k == 0:
        h = relu(linear(relu(linear(z, p, f"{name}.0")), p, f"{name}.2"))
        return linear(h, p, f"{name}.4").view_as(low)
    h = relu(conv(torch.cat([z, low], 1), p, f"{name}.0", 1, 3))
    return conv(relu(conv(h, p, f"{name}.2", 1, 3)), p, f"{name}.4", 1, 2)


def discriminator(k: int, band: Tensor, low: Tensor, p: Weights, padding: int) -> Tensor:
    """First of all the band is added to l; without dropout."""
    name, x = f"discriminators.{k}.layers", band + low
    if k == 0:
        h = relu(linear(relu(linear(x.flatten(1), p, f"{name}.0")), p, f"{name}.3"))
    else:
        h = relu(conv(relu(conv(x, p, f"{name}.0", 1, padding)), p, f"{name}.2", 2)).flatten(1)
    return linear(h, p, f"{name}.6")


def step(
    x: Tensor,
    noise: list[Tensor],
    p: Weights,
    sizes: tuple[int, ...],
    padding: int,
    optimizer: Momentum,
    optimizer_g: Momentum,
) -> None:
    """Section 3.2: D_k sees one half of the batch as it is and G_k's bands in the other, then G_k moves on all of it.

    A half of D's loss each; the levels have no parameter in common.
    """
    bands, lows = pyramid(x, sizes)
    half = len(x) // 2

    def fakes(k: int) -> Tensor:
        return generator(k, noise[k], lows[k], p)

    moved: Weights = {}
    for k in range(len(sizes)):
        real = discriminator(k, bands[k][:half], lows[k][:half], p, padding)
        fake = discriminator(k, fakes(k)[half:], lows[k][half:], p, padding)
        moved |= gradients(loss_d(real, fake) / 2, p, f"discriminators.{k}.")
    optimizer.step(p, moved)
    moved = {}
    for k in range(len(sizes)):
        loss = loss_g(discriminator(k, fakes(k), lows[k], p, padding))
        moved |= gradients(loss, p, f"generators.{k}.")
    optimizer_g.step(p, moved)
