import torch

from lightning_gen.models import ACGAN
from tests.references import acgan as paper
from tests.references.compare import grey, same_parameters, shaken, train, trainable
from tests.references.layers import Adam


def test_training() -> None:
    """Three classes, batches of 3; labels of samples are drawn apart from those of the images."""
    sizes = {"generator_channels": (4, 3), "discriminator_channels": (2, 3, 2)}
    model = shaken(ACGAN((1, 12, 12), num_classes=3, latent_dim=3, dropout=0.0, lr=0.01, **sizes))
    images, z = list(grey(2, 3, 1, 12, 12)), list(2 * grey(2, 3, 3, seed=5) - 1)
    labels, drawn = torch.tensor([[0, 2, 1], [1, 1, 0]]), torch.tensor([[2, 2, 0], [0, 1, 2]])
    p, adam_d, adam_g = trainable(model), Adam(0.01, (0.5, 0.999)), Adam(0.01, (0.5, 0.999))
    for x, c_real, noise, c_fake in zip(images, labels, z, drawn, strict=True):
        paper.step(2 * x - 1, c_real, noise, c_fake, p, adam_d, adam_g)
    conditions = iter(drawn)
    model.draw_condition = lambda *sizes, **_: {"label": next(conditions)}
    train(model, [{"image": x, "label": c} for x, c in zip(images, labels, strict=True)], z)
    same_parameters(model, p)
