"""The networks are the package's own; the composition, the losses and the updates are recomputed."""

import pytest
import torch

from lightning_gen.models import VGAN
from tests.references import vgan as paper
from tests.references.compare import (
    ADAM_OF_NOTHING,
    adams,
    close,
    grey,
    network,
    same_parameters,
    shaken,
    train,
    trainable,
)
from tests.references.layers import gradients

SHAPE, BATCH, STEPS, LR = (3, 8, 16, 16), 2, 2, 2e-4


@pytest.mark.parametrize(("conditional", "streams"), [(False, "two"), (True, "two"), (False, "one")])
def test_training(conditional: bool, streams: str) -> None:
    """One stream has neither mask nor background."""
    model = VGAN(SHAPE, streams, conditional, latent_dim=4, base_channels=2, discriminator_channels=2, lr=LR)
    shaken(model, 0.1)
    videos, z, p = list(grey(STEPS, BATCH, *SHAPE)), list(grey(STEPS, BATCH, 4, seed=3)), trainable(model)
    g, d, (adam_d, adam_g) = network(model, "generator"), network(model, "discriminator"), adams(LR)
    for real, noise in zip((2 * video - 1 for video in videos), z, strict=True):
        still = real[:, :, 0]
        foreground, mask, background = g(p, still if conditional else noise)
        fake = foreground
        if streams == "two":
            fake = torch.stack([paper.compose(*row) for row in zip(foreground, mask, background, strict=True)])
        adam_d.step(p, gradients(paper.loss_d(d(p, real), d(p, fake)), p, "discriminator."))
        scores = d(p, fake)
        loss = paper.conditional_loss_g(scores, fake, still) if conditional else paper.loss_g(scores, mask)
        adam_g.step(p, gradients(loss, p, "generator."))
    train(model, [{"video": video} for video in videos], z)
    same_parameters(model, p, atol=ADAM_OF_NOTHING)


def test_composition() -> None:
    """One mask for all colours, one background for all frames; samples are brought to [0, 1]."""
    model = shaken(VGAN(SHAPE, latent_dim=4, base_channels=2, discriminator_channels=2), 0.1).eval()
    z = grey(BATCH, 4)
    streams = model.generator(z)
    expected = torch.stack([paper.compose(*row) for row in zip(*streams, strict=True)])
    close(model.decode(z), (expected + 1) / 2)
