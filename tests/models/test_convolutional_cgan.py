"""Exact tests of the convolutional conditional adversarial nets."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.errors import ConditionError, DataError
from lightning_gen.models import ConvolutionalCGAN
from tests.digits import quiet_trainer

SMALL = {"latent_dim": 4, "hidden_size": 200, "maxout_channels": (2, 2, 4), "maxout_units": 6, "maxout_pieces": 2}


def small(**arguments: Any) -> ConvolutionalCGAN:
    sizes = {**SMALL, "input_dropout": 0.0, "hidden_dropout": 0.0, "condition_size": 3}
    return ConvolutionalCGAN((1, 32, 32), **{**sizes, **arguments})


def faces(n: int, seed: int = 0) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    mixing = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.2, 0.0], [0.0, 0.3, 2.0]])
    return {
        "image": torch.rand(n, 1, 32, 32, generator=random),
        "attributes": torch.randn(n, 3, generator=random) @ mixing.T + torch.tensor([1.0, -1.0, 0.0]),
    }


def test_the_density_of_conditions_has_the_moments_of_its_windows() -> None:
    """Mean of the data, covariance of the data plus width^2."""
    model = small()
    batch = faces(400)
    model.initialize_from([{key: rows[i : i + 100] for key, rows in batch.items()} for i in range(0, 400, 100)])
    y = batch["attributes"]
    torch.testing.assert_close(model.conditions, y)
    drawn = model.draw_condition(200_000, torch.Generator().manual_seed(0))["attributes"]
    torch.testing.assert_close(drawn.mean(0), y.mean(0), rtol=0, atol=0.02)
    expected = torch.cov(y.T, correction=0) + model.width.square() * torch.eye(3)
    torch.testing.assert_close(torch.cov(drawn.T), expected, rtol=0.02, atol=0.02)


def test_the_width_gives_held_out_conditions_the_highest_likelihood() -> None:
    """Among widths from a hundredth of the conditions' deviation to three times it, by the formula of the density."""
    model, attributes = small(), faces(500)["attributes"]
    torch.manual_seed(0)
    model.initialize_from([{"image": torch.rand(500, 1, 32, 32), "attributes": attributes}])
    torch.manual_seed(0)
    held_out, windows = attributes[torch.randperm(500)].split([50, 450])

    def likelihood(width: float) -> float:
        windows_on_each = torch.distributions.Normal(windows, width).log_prob(held_out[:, None]).sum(2)  # (50, 450)
        return (windows_on_each.logsumexp(1) - math.log(450)).mean().item()

    width = model.width.item()
    assert 0.05 < width < 2
    for other in (0.01, 0.5 * width, 0.75 * width, 1.33 * width, 2 * width, 4.0):
        assert likelihood(other) < likelihood(width)


def test_training_is_the_published_update() -> None:
    """Two batches by the Trainer equal two written out: real images under their own conditions, fakes under drawn."""
    torch.manual_seed(0)
    model = small(lr=0.5, lr_decay=1.1).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    reference = small().double()
    reference.load_state_dict(model.state_dict())
    batch = {key: rows.double() for key, rows in faces(10).items()}
    rows = [{key: value[i] for key, value in batch.items()} for i in range(10)]
    loader = torch.utils.data.DataLoader(rows, batch_size=5, generator=torch.Generator())
    torch.manual_seed(1)
    quiet_trainer(max_epochs=1, limit_val_batches=0, precision="64-true").fit(model, loader)

    torch.manual_seed(0)  # As the module's own set-up.
    reference.initialize_from([batch])
    torch.manual_seed(1)
    generator, discriminator = reference.generator, reference.discriminator
    torch.testing.assert_close(reference.width, model.width)
    velocity = {p: torch.zeros_like(p) for p in reference.parameters()}
    for index, (x, y) in enumerate(zip(batch["image"].split(5), batch["attributes"].split(5), strict=True)):
        chosen = reference.conditions[torch.randint(10, (5,))]
        other = chosen + reference.width * torch.randn(5, 3, dtype=torch.float64)
        fake = generator(torch.cat([torch.randn(5, 4, dtype=torch.float64), other], 1))
        d_real, d_fake = discriminator(x, y).sigmoid(), discriminator(fake, other).sigmoid()
        loss_d = -(d_real.log().sum() + (1 - d_fake).log().sum()) / 10
        loss_g = -d_fake.log().sum() / 5
        moved: list[tuple[Tensor, Tensor]] = []
        for network, loss in ((discriminator, loss_d), (generator, loss_g)):
            parameters = list(network.parameters())
            moved += zip(parameters, torch.autograd.grad(loss, parameters, retain_graph=True), strict=True)
        for parameter, gradient in moved:
            velocity[parameter] = 0.5 * velocity[parameter] + gradient
            parameter.data -= 0.5 / 1.1**index * velocity[parameter]
    for name, value in reference.named_parameters():
        torch.testing.assert_close(dict(model.named_parameters())[name], value, msg=name)


def test_a_checkpoint_keeps_the_density(tmp_path: Path) -> None:
    model = small(lr=0.0)
    rows = [{key: value[i] for key, value in faces(30).items()} for i in range(30)]
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(model, torch.utils.data.DataLoader(rows, batch_size=10))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = ConvolutionalCGAN.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert again.conditions.shape == (30, 3)
    first, second = (m.sample(4, generator=torch.Generator().manual_seed(0)) for m in (model, again))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match="they are for 32 x 32"):
        ConvolutionalCGAN((3, 64, 64), hidden_size=100)
    with pytest.raises(DataError, match="condition_size=0"):
        small(condition_size=0)
    with pytest.raises(ConditionError, match=r"attributes as torch.float32 of shape \(2, 4\); expected floats"):
        small().sample(2, {"attributes": torch.zeros(2, 4)})
    with pytest.raises(DataError, match=r"The batch holds \['image'\]; ConvolutionalCGAN needs 'attributes'"):
        small().as_batch(torch.rand(2, 1, 32, 32))


def test_published_first_weights() -> None:
    """Gauthier's yaml: irange 0.005 in the generator's first layer, 0.05 in its second."""
    generator = ConvolutionalCGAN().generator
    for layer, irange in ((generator.hidden1, 0.005), (generator.hidden2, 0.05)):
        assert layer.weight.abs().max().item() == pytest.approx(irange, rel=0.01)
