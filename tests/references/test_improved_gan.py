import pytest
import torch

from lightning_gen.models import ImprovedGAN
from tests.references import improved_gan as paper
from tests.references.compare import close, grey, shaken, trainable
from tests.references.layers import gradients

SHAPE, BATCH, LATENTS = (1, 5, 7), 3, 4


def tiny(**arguments: object) -> ImprovedGAN:
    sizes = {"num_classes": 3, "num_labels": 6, "latent_dim": LATENTS, "input_noise": 0.0, "hidden_noise": 0.0}
    return shaken(ImprovedGAN(SHAPE, **{**sizes, **arguments}))


@pytest.mark.parametrize("kernels", [0, 4])
@pytest.mark.parametrize("semi_supervised", [True, False])
def test_loss_of_the_discriminator(semi_supervised: bool, kernels: int) -> None:
    """Real, generated and labelled images are three minibatches, each compared with itself alone."""
    model = tiny(semi_supervised=semi_supervised, minibatch_kernels=kernels, minibatch_kernel_dim=3)
    images, labelled, z = grey(BATCH, *SHAPE), grey(BATCH, *SHAPE, seed=2), grey(BATCH, LATENTS, seed=3)
    labels = torch.tensor([2, 0, 2])
    model.sample_latent = lambda *_: z
    model.labelled_batch = lambda _: (labelled, labels)
    p = trainable(model)
    real = paper.discriminator(images.flatten(1), p, kernels)
    fake = paper.discriminator(paper.generator(z, p).detach(), p, kernels)
    if semi_supervised:
        known = paper.discriminator(labelled.flatten(1), p, kernels)
        expected = paper.supervised_loss(known, labels) + paper.unsupervised_loss(real, fake)
    else:
        expected = paper.binary_loss(real, fake)
    loss = model.loss_d(images)
    close(loss, expected)
    loss.backward()
    for name, gradient in gradients(expected, p, "discriminator.").items():
        if model.get_parameter(name).requires_grad:  # The scales of hidden layers are fixed, as in the authors' code.
            close(model.get_parameter(name).grad, gradient, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("kind", ["feature_matching", "saturating", "non_saturating"])
def test_loss_of_the_generator(kind: str) -> None:
    model = tiny(generator_loss=kind, minibatch_kernels=4, minibatch_kernel_dim=3)
    images, z = grey(BATCH, *SHAPE), grey(BATCH, LATENTS, seed=3)
    model.sample_latent = lambda *_: z
    p = trainable(model)
    fake = paper.generator(z, p)
    if kind == "feature_matching":
        expected = paper.feature_matching(paper.features(images.flatten(1), p), paper.features(fake, p))
    else:
        expected = getattr(paper, kind)(paper.discriminator(fake, p, 4))
    loss = model.loss_g(images)
    close(loss, expected)
    loss.backward()
    for name, gradient in gradients(expected, p, "generator.").items():
        if model.get_parameter(name).requires_grad:  # The scales of hidden layers are fixed, as in the authors' code.
            close(model.get_parameter(name).grad, gradient, rtol=1e-8, atol=1e-11)
