import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gen.models import CGAN, DCGAN, GAN
from tests.references import gan as paper
from tests.references.compare import grey, same_parameters, shaken, train, trainable
from tests.references.layers import Adam, Momentum

SHAPE, BATCH, STEPS, LATENTS = (1, 5, 7), 3, 3, 4


def draws(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(BATCH, LATENTS, generator=generator, dtype=torch.float64) for _ in range(STEPS)]


def test_gan() -> None:
    """Three batches: the momentum counts from the second one on."""
    arguments = {"hidden_size": 6, "maxout_units": 3, "maxout_pieces": 2, "input_dropout": 0.0, "hidden_dropout": 0.0}
    model = shaken(GAN(SHAPE, latent_dim=LATENTS, lr_decay=1.0, **arguments))
    batches, z, p = list(grey(STEPS, BATCH, *SHAPE)), draws(2), trainable(model)
    optimizer = Momentum(0.1, 0.5)
    for x, noise in zip(batches, z, strict=True):
        paper.gan_step(x.flatten(1), noise, p, 2, optimizer)
    train(model, [{"image": x} for x in batches], z)
    same_parameters(model, p)


def test_cgan() -> None:
    arguments = {"hidden_sizes": (4, 5, 6), "maxout_units": (3, 2, 3), "maxout_pieces": (2, 3), "dropout": 0.0}
    model = shaken(CGAN(SHAPE, num_classes=3, latent_dim=LATENTS, lr_decay=1.0, **arguments))
    batches, z, p = list(grey(STEPS, BATCH, *SHAPE)), draws(2), trainable(model)
    labels = torch.tensor([[0, 2, 1], [1, 1, 0], [2, 0, 2]])
    optimizer = Momentum(0.1, 0.5)
    for x, label, noise in zip(batches, labels, z, strict=True):
        paper.cgan_step(x.flatten(1), F.one_hot(label, 3).double(), noise, p, (2, 3), optimizer)
    train(model, [{"image": x, "label": label} for x, label in zip(batches, labels, strict=True)], z)
    same_parameters(model, p)


def test_dcgan() -> None:
    model = shaken(DCGAN((3, 16, 16), latent_dim=LATENTS, base_channels=2, weight_decay=0.01, lr=0.01))
    batches, z, p = list(grey(STEPS, BATCH, 3, 16, 16)), draws(2), trainable(model)
    adam_d, adam_g = Adam(0.01, (0.5, 0.999), 0.01), Adam(0.01, (0.5, 0.999), 0.01)
    for x, noise in zip(batches, z, strict=True):
        paper.dcgan_step(2 * x - 1, noise, p, adam_d, adam_g)
    train(model, [{"image": x} for x in batches], z)
    same_parameters(model, p)
