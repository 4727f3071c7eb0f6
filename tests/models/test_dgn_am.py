"""DGN-AM against its paper: networks, losses, pauses, the ascent, and what it refuses."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gen.callbacks import SampleEvaluation
from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.errors import ConditionError, DataError, LightningGenError, WeightsNotFoundError
from lightning_gen.functional import linear_schedule
from lightning_gen.metrics import ParzenLogLikelihood
from lightning_gen.models import DGNAM
from lightning_gen.models.dgn_am import Discriminator, Generator
from lightning_gen.nn import DigitFeatures
from tests.digits import held_out_digits, quiet_trainer, training_digits

SMALL: dict[str, Any] = {
    "image_shape": (1, 28, 28),
    "encoder": "lightning_gen.nn.DigitFeatures",
    "code_layer": "features",
    "comparator_layer": "network.body.11",
    "generator_units": (64,),
    "generator_channels": ((8,), (8,)),
    "discriminator_layers": ((4, 5, 2), (8, 3, 2)),
    "discriminator_units": (8, 8),
}


def ready(**arguments: Any) -> DGNAM:
    torch.manual_seed(0)
    model = DGNAM(**{**SMALL, **arguments})
    model.initialize_from([held_out_digits()])
    model.initialized.fill_(True)
    return model


def test_the_published_networks() -> None:
    model = DGNAM()  # AlexNet's layers in the place of CaffeNet's.
    generator = model.generator
    assert sum(parameter.numel() for parameter in generator.parameters()) == 56_097_891
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in generator.modules())
    code = torch.randn(1, 4096)
    with torch.no_grad():
        canvas = generator(code)
        assert canvas.shape == (1, 3, 256, 256)
        assert generator(100 * code).abs().max() > 50 * canvas.abs().max(), "the output has no bounds"
        torch.testing.assert_close(model.generate(code), canvas[..., 14:241, 14:241])
        discriminator = model.discriminator
        assert discriminator.image(torch.zeros(1, 3, 227, 227)).shape == (1, 256, 11, 11)
        assert discriminator(torch.zeros(1, 3, 227, 227), code).shape == (1,)
    assert [layer.out_features for layer in discriminator.modules() if isinstance(layer, nn.Linear)] == [
        1024,
        512,
        512,
        2,
    ]
    still = [parameter for parameter in generator.parameters() if not parameter.requires_grad]
    assert len(still) == 9, "biases of transposed convolutions stay 0"
    assert not torch.cat(still).any()

    with pytest.raises(WeightsNotFoundError, match=r"--model\.encoder_weights"):
        model.initialize_from([torch.zeros(1, 3, 227, 227)])


def test_weights_keep_the_size_of_activations() -> None:
    torch.manual_seed(0)
    generator = Generator(200, (512, 512), ((32, 32), (32,)), 1)
    assert 0.3 < generator(torch.randn(50, 200)).std() < 3


def test_the_loss_on_known_tensors() -> None:
    model = ready(image_weight=2e-6, feature_weight=0.01)
    images = held_out_digits()[:4]
    codes, maps = model.encoder(images, ["features", "network.body.11"])
    fake = images + 0.1
    errors = model.errors(fake, images, codes, maps + 1)
    assert errors["image_error"].item() == pytest.approx(2e-6 * 784 * 25.5**2, rel=1e-4)
    found = model.encoder(fake, ["network.body.11"])[0]
    torch.testing.assert_close(errors["feature_error"], 0.01 * (found - maps - 1).square().flatten(1).sum(1).mean())
    same = model.errors(images, images, codes, maps)
    assert all(error.item() == pytest.approx(0, abs=1e-6) for error in same.values())


def test_gradients_pass_through_the_comparator_and_leave_it() -> None:
    model = ready()
    images = held_out_digits()[:4]
    codes, maps = model.encoder(images, ["features", "network.body.11"])
    error = model.errors(model.generate(codes), images, codes, maps)["feature_error"]
    gradients = torch.autograd.grad(error, [p for p in model.generator.parameters() if p.requires_grad])
    assert all(gradient.any() for gradient in gradients)
    before = {key: value.clone() for key, value in model.encoder.state_dict().items()}
    quiet_trainer(max_epochs=1, limit_train_batches=2).fit(model, DigitsDataModule(batch_size=8))
    for key, value in model.encoder.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize(("below", "above", "moves"), [(0.0, None, "dg"), (1e9, None, "g"), (0.0, 1e-9, "d")])
def test_pauses(below: float, above: float | None, moves: str) -> None:
    model = ready(pause_d_below=below, pause_g_above=above)
    before = {"d": model.discriminator.output[1].weight.clone(), "g": model.generator[0].weight.clone()}
    quiet_trainer(max_epochs=1, limit_train_batches=1).fit(model, DigitsDataModule(batch_size=8))
    after = {"d": model.discriminator.output[1].weight, "g": model.generator[0].weight}
    assert "".join(key for key in "dg" if not torch.equal(before[key], after[key])) == moves


def test_the_discriminators_loss_is_a_sum_not_a_mean() -> None:
    """-log D(x) - log(1 - D(G(h))): the pauses compare it with -log D(G(h))."""
    model, logits = ready(), []
    model.discriminator.register_forward_hook(lambda _module, _inputs, output: logits.append(output.detach()))
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(model, DigitsDataModule(batch_size=8))
    fake, real = logits[:2]
    loss = nn.functional.softplus(fake).mean() + nn.functional.softplus(-real).mean()
    torch.testing.assert_close(trainer.callback_metrics["train/loss_d"], loss)


def test_codes_are_bounded_by_three_deviations() -> None:
    model = ready()
    codes = DigitFeatures()(held_out_digits()).features
    torch.testing.assert_close(model.code_bounds, codes.mean(0) + 3 * codes.std(0))
    torch.testing.assert_close(model.image_mean.flatten(), held_out_digits().mean()[None])


class Linear(nn.Module):
    """Activations of a linear map of the pixels, and maps to choose positions in."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        self.head = nn.Linear(784, 5, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        self.maps(images)
        return self.head(images.flatten(1))


def test_the_ascent_follows_the_published_iteration() -> None:
    model = ready(num_steps=7, step_size=0.5).double()
    network = Linear().double().eval()
    labels = torch.tensor([3, 0])
    found = model.sample(2, {"label": labels}, network=network, generator=torch.Generator().manual_seed(1))

    h = torch.randn(2, 96, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for step in range(7):
        h = h.detach().requires_grad_()
        activation = network.head(model.generate(h).flatten(1))[[0, 1], labels].sum()
        g = torch.autograd.grad(activation, h)[0]
        a = 0.5 + (1e-10 - 0.5) * step / 7
        with torch.no_grad():
            h = torch.minimum((h + a * g / g.abs().mean(1, keepdim=True)).clamp(min=0), model.code_bounds) * 0.99
    torch.testing.assert_close(found, model.decode(h).detach().float(), rtol=1e-5, atol=1e-6)
    assert linear_schedule(0.5, 1e-10, 6, 7) == pytest.approx(a)


def test_units_of_any_layer_at_any_place_are_climbed() -> None:
    model = ready(num_steps=5, step_size=0.5)
    network = Linear().eval()
    units = ["maps:1:0:3", "maps:0", "logits:4", "head:2"]
    scores: list[Tensor] = []
    seen: list[Tensor] = []

    def watch(step: int, images: Tensor, shown: Tensor) -> None:
        scores.append(shown)
        seen.append(images)

    model.sample(4, {"unit": units}, network=network, watch=watch)
    with torch.no_grad():
        x = model.generate(torch.zeros(4, 96))
        maps, logits = network.maps(x), network(x)
    assert len(scores) == 5
    assert (scores[-1] > scores[0]).all()
    # The watched images are cut to [0, 1]; scores are of what the network saw.
    assert maps[0, 1, 0, 3].shape == maps[1, 0, 14, 14].shape == logits[2, 4].shape


def test_sampling_in_inference_mode_equals_sampling_outside() -> None:
    model = ready(num_steps=3)
    outside = model.sample(2, {"label": torch.tensor([1, 2])}, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        inside = model.sample(2, {"label": torch.tensor([1, 2])}, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(inside, outside, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in model.parameters())


class Rounding(Linear):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).argmax(1, keepdim=True).float()


@pytest.mark.parametrize(
    ("condition", "network", "message"),
    [
        ({"label": torch.tensor([10])}, None, r"DigitFeatures has no class 10; there are 0 to 9 for channel"),
        (
            {"unit": ["network.body.5:32"]},
            None,
            r"'network.body.5' 32:7:7; there are 0 to 31, 0 to 13, 0 to 13",
        ),
        ({"unit": ["network.body.5:1:14:0"]}, None, r"1:14:0; there are"),
        ({"unit": ["network.tail:1"]}, None, r"no layer 'network.tail'.*It has logits, features, network"),
        ({"unit": ["body"]}, None, r"expected layer:channel, or layer:channel:row:column"),
        ({"label": torch.tensor([-1])}, None, "integers from 0"),
        ({"label": torch.tensor([1]), "unit": ["logits:1"]}, None, "one is of label, unit and caption"),
        ({"lable": torch.tensor([1])}, None, r"\['lable'\]; it takes label, unit, caption"),
        ({"label": torch.tensor([1, 2])}, None, "2 rows for 1 samples"),
        ({"label": torch.tensor([1])}, nn.Sequential(nn.Flatten(), nn.Linear(1024, 3)).eval(), r"shape \(1, 28, 28\)"),
        ({"label": torch.tensor([0])}, Rounding().eval(), "has no gradient by its images"),
        ({"caption": ["a three"]}, Linear().eval(), "cannot score captions"),
    ],
)
def test_bad_conditions_and_networks_are_named(condition: Any, network: nn.Module | None, message: str) -> None:
    with pytest.raises(ConditionError, match=message):
        ready(num_steps=1).sample(1, condition, network=network)


def test_a_network_in_train_mode_is_put_to_eval_and_said_so_once(recwarn: pytest.WarningsRecorder) -> None:
    model, network = ready(num_steps=1), nn.Sequential(Linear(), nn.Dropout(0.9))
    with pytest.warns(UserWarning, match="Sequential was in train mode; it is in eval mode now"):
        model.sample(1, {"label": torch.tensor([1])}, network=network)
    recwarn.clear()
    model.sample(1, {"label": torch.tensor([1])}, network=network)
    assert not [warning for warning in recwarn if "train mode" in str(warning.message)]


def test_likelihoods_are_refused_with_the_reason() -> None:
    evaluation = SampleEvaluation([ParzenLogLikelihood()], num_samples=2)
    with pytest.raises(LightningGenError, match="parzen is refused for DGNAM: activation maximisation"):
        quiet_trainer(callbacks=[evaluation]).test(ready(num_steps=1), DigitsDataModule(), verbose=False)


def test_sizes_that_do_not_serve_are_named() -> None:
    with pytest.raises(DataError, match="16 x 16 pixels"):
        DGNAM(**{**SMALL, "generator_channels": ((8,),)})
    with pytest.raises(DataError, match="multiple of 16"):
        DGNAM(**{**SMALL, "generator_units": (65,)})
    with pytest.raises(ConditionError, match="not trained"):
        DGNAM(**SMALL).sample(1)


def test_the_discriminator_looks_at_codes_too() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(1, 6, ((4, 5, 2),), (8, 8)).eval()
    images = torch.rand(2, 1, 12, 12)
    assert not torch.equal(discriminator(images, torch.zeros(2, 6)), discriminator(images, torch.ones(2, 6)))


def test_it_learns_to_invert_codes_and_draws_what_a_class_wants_to_see() -> None:
    """Against the mean digit, and against what the classifier says of real digits."""
    torch.manual_seed(0)
    model = DGNAM(
        **{**SMALL, "generator_units": (128, 256), "generator_channels": ((16,), (8,))},
        image_weight=1e-4,
        feature_weight=0.1,
        adversarial_weight=1.0,
        lr=3e-3,
        num_steps=30,
        step_size=0.5,
        start="codes",
    )
    quiet_trainer(max_epochs=2, limit_val_batches=0).fit(model, DigitsDataModule(batch_size=50))
    images = held_out_digits()
    with torch.no_grad():
        error = (model.decode(model.encode(images)) - images).square().mean()
    baseline = (training_digits().mean(0) - images).square().mean()
    assert error < 0.8 * baseline
    activations: list[Tensor] = []
    model.sample(20, {"label": torch.arange(20) % 10}, watch=lambda _step, _images, shown: activations.append(shown))
    real = DigitFeatures()(images).logits.amax(1).mean()
    assert activations[0].mean() < real / 2
    assert activations[-1].mean() > real
