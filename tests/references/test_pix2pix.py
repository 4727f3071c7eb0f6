"""The networks are the package's own; their inputs, the losses and the updates are recomputed."""

import pytest
import torch
from torch import Tensor

from lightning_gen.models import Pix2Pix
from tests.references import pix2pix as paper
from tests.references.compare import adams, grey, network, same_parameters, shaken, train, trainable
from tests.references.layers import Weights


@pytest.mark.parametrize("gan", ["conditional", "unconditional", "none"])
def test_training(gan: str) -> None:
    """Two batches of 3; an unconditional D does not see the source."""
    model = Pix2Pix((3, 16, 16), 1, base_channels=2, num_levels=3, patch_size=16, gan=gan, l1_weight=7.0, dropout=0.0)
    shaken(model, 0.2)
    sources, images, p = grey(2, 3, 1, 16, 16), grey(2, 3, 3, 16, 16, seed=2), trainable(model)
    generator, optimizers = network(model, "generator"), adams(2e-4)
    discriminator = None if gan == "none" else network(model, "discriminator")

    def g(p: Weights, x: Tensor) -> Tensor:
        return generator(p, x, 0.0)

    def d(p: Weights, x: Tensor, y: Tensor) -> Tensor:
        return discriminator(p, torch.cat([x, y], 1) if gan == "conditional" else y)

    for source, image in zip(sources, images, strict=True):
        paper.step(2 * source - 1, 2 * image - 1, g, d if discriminator else None, p, 7.0, *optimizers)
    train(model, [{"source": x, "image": y} for x, y in zip(sources, images, strict=True)], [])
    same_parameters(model, p)
