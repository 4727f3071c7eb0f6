"""The networks are the package's own; their inputs, the losses and the updates are recomputed."""

import pytest
import torch

from lightning_gen.models import Pix2Pix
from tests.references import pix2pix as paper
from tests.references.compare import adams, grey, network, same_parameters, shaken, train, trainable


@pytest.mark.parametrize("gan", ["conditional", "unconditional"])
def test_training(gan: str) -> None:
    """Two batches of 3; an unconditional D does not see the source."""
    model = Pix2Pix((3, 16, 16), 1, base_channels=2, num_levels=3, patch_size=16, gan=gan, l1_weight=7.0, dropout=0.0)
    shaken(model, 0.2)
    sources, images, p = grey(2, 3, 1, 16, 16), grey(2, 3, 3, 16, 16, seed=2), trainable(model)
    g, d, optimizers = network(model, "generator"), network(model, "discriminator"), adams(2e-4)
    for source, image in zip(sources, images, strict=True):
        paper.step(
            2 * source - 1,
            2 * image - 1,
            lambda p, x: g(p, x, 0.0),
            lambda p, x, y: d(p, torch.cat([x, y], 1) if gan == "conditional" else y),
            p,
            7.0,
            optimizers,
        )
    train(model, [{"source": x, "image": y} for x, y in zip(sources, images, strict=True)], [])
    same_parameters(model, p)
