"""Exact tests of the auxiliary classifier adversarial nets of 2017, and a real training."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_gen.cli import main
from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.errors import ConditionError, DataError
from lightning_gen.models import ACGAN
from lightning_gen.nn import DigitFeatures
from tests.conftest import QUIET
from tests.digits import quiet_trainer


def small_acgan(**arguments: Any) -> ACGAN:
    """8 x 8 images, small enough for steps written by hand; weights that matter, no dropout."""
    sizes: dict[str, Any] = {"generator_channels": (3, 2), "discriminator_channels": (2, 3), "latent_dim": 4}
    model = ACGAN((1, 8, 8), **{**sizes, "num_classes": 3, "dropout": 0.0, **arguments})
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, std=0.4)
    return model


def batches_of(images: Tensor, labels: Tensor, size: int) -> DataLoader:
    return DataLoader(TensorDataset(images, labels), batch_size=size)


class Losses(ACGAN):
    """The losses of one training step whose discriminator gives the logits that it is told."""

    def losses(self, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor], label: int) -> tuple[float, float]:
        given = [real, fake, fake]
        seen: list[Tensor] = []
        self.discriminator.forward = lambda images: given.pop(0)  # type: ignore[method-assign, assignment]
        self.step = lambda update: seen.append(update[1])  # type: ignore[method-assign, assignment]
        self.optimizers = lambda: [None, None]  # type: ignore[method-assign]
        self.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
        self.draw_condition = lambda n, generator=None: {"label": torch.full((n,), label)}  # type: ignore
        labels = torch.full((len(real[0]),), label)
        self.training_step({"image": torch.rand(len(real[0]), *self.image_shape), "label": labels}, 0)
        return seen[0].item(), seen[1].item()


# The losses ---------------------------------------------------------------------------------------------------------


def test_losses_on_numbers_worked_by_hand() -> None:
    """One softmax: with two, the class terms would be log(e^p0 + e^p1) - p0, 0.3133 and 0.5130 at these logits."""
    model = Losses((1, 28, 28), num_classes=2)
    real = (torch.tensor([[math.log(3)]]), torch.tensor([[math.log(9), 0.0]]))  # P(real) = 3/4, P(c) = 9/10
    fake = (torch.tensor([[-math.log(4)]]), torch.tensor([[math.log(1.5), 0.0]]))  # P(real) = 1/5, P(c) = 3/5
    loss_d, loss_g = model.losses(real, fake, label=0)
    assert loss_d == pytest.approx(-math.log(3 / 4) - math.log(4 / 5) - math.log(9 / 10) - math.log(3 / 5))
    assert loss_g == pytest.approx(-math.log(1 / 5) - math.log(3 / 5))


def test_a_double_softmax_could_not_come_near_zero() -> None:
    """Sure and right, both classifiers' loss is 0; probabilities taken for logits leave log(1 + 9/e) = 1.46 each."""
    model = Losses((1, 28, 28))
    sure = 50 * F.one_hot(torch.tensor([3, 3]), 10).float()
    real, fake = (torch.full((2, 1), 50.0), sure), (torch.full((2, 1), -50.0), sure)
    loss_d, loss_g = model.losses(real, fake, label=3)
    assert loss_d == pytest.approx(0, abs=1e-6)
    assert loss_g == pytest.approx(50, abs=1e-6)  # Non-saturating: -log P(real).


def test_class_loss_counts_real_and_generated_images_alike() -> None:
    model = Losses((1, 28, 28))
    source, unsure = torch.zeros(2, 1), torch.zeros(2, 10)
    sure = 50 * F.one_hot(torch.tensor([3, 3]), 10).float()
    both, on_real, on_fake = (
        model.losses((source, r), (source, f), label=3) for r, f in ((unsure, unsure), (unsure, sure), (sure, unsure))
    )
    gan = 2 * math.log(2)
    assert both == pytest.approx((gan + 2 * math.log(10), math.log(2) + math.log(10)))
    assert on_real == pytest.approx((gan + math.log(10), math.log(2)))
    assert on_fake == pytest.approx((gan + math.log(10), math.log(2) + math.log(10)))


def test_without_a_class_head_it_is_the_gan_and_a_constant() -> None:
    model = small_acgan().double()
    output = model.discriminator.output
    output.weight.data[1:], output.bias.data[1:] = 0, 0
    source, classes = model.discriminator(torch.rand(5, 1, 8, 8).double())
    torch.testing.assert_close(classes, torch.zeros(5, 3).double())
    output.weight.data[0], output.bias.data[0] = 0, 1.5
    torch.testing.assert_close(
        model.discriminator(torch.rand(5, 1, 8, 8).double())[0], torch.full((5, 1), 1.5).double()
    )
    assert not torch.allclose(source, source[:1].expand_as(source))  # Both heads read one trunk.


def test_the_best_class_head_is_the_posterior_under_the_mean_of_data_and_samples() -> None:
    """L_C on a table of p(c) p(x|c) and p(c) g(x|c): P(c|x) is proportional to p(c) (p(x|c) + g(x|c))."""
    p = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.4, 0.1]], dtype=torch.float64)  # Of three images, given two classes.
    g = torch.tensor([[0.3, 0.3, 0.4], [0.2, 0.4, 0.4]], dtype=torch.float64)
    real, fake = ((10 * table).round().long().flatten() for table in (p, g))
    x, c = torch.arange(3).repeat(2), torch.arange(2).repeat_interleave(3)
    logits = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=0)
    x_real, c_real, x_fake, c_fake = (part.repeat_interleave(n) for n in (real, fake) for part in (x, c))

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(logits[x_real], c_real) + F.cross_entropy(logits[x_fake], c_fake)
        value.backward()
        return value

    optimizer.step(loss)
    torch.testing.assert_close(logits.detach().softmax(1), ((p + g) / (p + g).sum(0)).T, rtol=0, atol=1e-6)


def test_each_update_moves_one_network_alone() -> None:
    class Watched(ACGAN):
        def step(self, *updates: tuple[object, Tensor]) -> None:
            before = {name: value.clone() for name, value in self.named_parameters()}
            super().step(*updates)
            moved.append(
                {name.split(".")[0] for name, value in self.named_parameters() if (value != before[name]).any()}
            )

    moved: list[set[str]] = []
    model = Watched((1, 8, 8), 3, generator_channels=(3, 2), discriminator_channels=(2, 3))
    quiet_trainer(max_epochs=1, limit_val_batches=0).fit(
        model, batches_of(torch.rand(8, 1, 8, 8), torch.arange(8) % 3, 4)
    )
    assert moved == [{"discriminator"}, {"generator"}] * 2


# The networks -------------------------------------------------------------------------------------------------------


def test_published_sizes() -> None:
    """Layer by layer: 5 x 5 and 3 x 3 kernels, two numbers for each normalised channel, biases where none is."""
    model = ACGAN()
    kernels = 25 * (768 * 384 + 384 * 256 + 256 * 192 + 192 * 64 + 64 * 3)
    generator = (110 + 1) * 768 * 16 + kernels + 2 * (384 + 256 + 192 + 64) + 3
    assert sum(p.numel() for p in model.generator.parameters()) == generator
    kernels = 9 * (3 * 16 + 16 * 32 + 32 * 64 + 64 * 128 + 128 * 256 + 256 * 512)
    discriminator = 16 + kernels + 2 * (32 + 64 + 128 + 256 + 512) + (512 * 16 * 16 + 1) * 11
    assert sum(p.numel() for p in model.discriminator.parameters()) == discriminator
    model = ACGAN((3, 32, 32))
    generator = 111 * 384 * 16 + 25 * (384 * 192 + 192 * 96 + 96 * 3) + 2 * (192 + 96) + 3
    assert sum(p.numel() for p in model.generator.parameters()) == generator
    assert model.discriminator.output.in_features == 512 * 4 * 4


def test_normalisation_is_everywhere_but_at_the_borders() -> None:
    model = ACGAN((3, 32, 32))
    norms = [[m.num_features for m in n.modules() if isinstance(m, nn.BatchNorm2d)] for n in model.children()]
    assert norms == [[192, 96], [32, 64, 128, 256, 512]]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.discriminator.layers[0])
    assert [m.p for m in model.discriminator.modules() if isinstance(m, nn.Dropout)] == [0.5] * 6
    assert [m.negative_slope for m in model.modules() if isinstance(m, nn.LeakyReLU)] == [0.2] * 6


def test_published_initialisation() -> None:
    torch.manual_seed(0)
    for module in ACGAN((3, 32, 32)).modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            n = module.weight.numel()
            assert module.weight.std().item() == pytest.approx(0.02, abs=4 * 0.02 / (2 * n) ** 0.5)
            assert module.bias is None or not module.bias.any()


@pytest.mark.parametrize(("side", "last"), [(28, 4), (32, 4), (64, 8), (128, 16)])
def test_sides(side: int, last: int) -> None:
    model = ACGAN((3, side, side), discriminator_channels=(2, 2, 2, 2, 2, 2))
    images = model.sample(2)
    assert images.shape == (2, 3, side, side)
    assert model.discriminator.layers(images).shape == (2, 2, last, last)
    source, classes = model.discriminator(images)
    assert source.shape == (2, 1)
    assert classes.shape == (2, 10)


@pytest.mark.parametrize("arguments", [{"image_shape": (3, 48, 48)}, {"image_shape": (3, 32, 28)}])
def test_other_sides_are_refused_with_those_that_work(arguments: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"a side of 28, 32, 64, 128, or of a multiple of 2\^n"):
        ACGAN(**arguments)
    with pytest.raises(DataError, match=r"generator_channels=\(8, 4, 2\)"):
        ACGAN((1, 28, 28), generator_channels=(8, 4, 2))
    assert ACGAN((3, 48, 48), generator_channels=(8, 4, 2)).sample(1).shape == (1, 3, 48, 48)


def test_dropout_halves_and_doubles_in_training_alone() -> None:
    from lightning_gen.models.acgan import Dropout

    torch.manual_seed(0)
    dropped = Dropout(0.5)(torch.ones(200, 200))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(Dropout(0.5).eval()(torch.ones(3)), torch.ones(3))
    assert Dropout(0.5)(torch.ones(3, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert torch.equal(Dropout(0.0)(torch.ones(3)), torch.ones(3))


# The classes --------------------------------------------------------------------------------------------------------


def test_labels_are_drawn_uniformly_whatever_the_data_have() -> None:
    model = small_acgan(num_classes=20, classes=[11, 3, 7, 19])
    batch = {"image": torch.rand(7, 1, 8, 8), "label": torch.tensor([3, 3, 3, 3, 7, 11, 19])}
    model.initialize_from([batch])
    torch.manual_seed(0)
    counts = model.draw_condition(8000)["label"].bincount(minlength=20)
    assert counts.nonzero().flatten().tolist() == [3, 7, 11, 19]
    chi_square = ((counts[counts > 0] - 2000).square() / 2000).sum().item()
    assert chi_square < 16.3  # The 99.9 % point with three degrees of freedom.


def test_the_one_hot_is_over_the_models_own_classes() -> None:
    model = small_acgan(num_classes=1000, classes=list(range(990, 1000)))
    y = model.embed({"label": torch.tensor([990, 999, 992])})
    assert torch.equal(y, torch.eye(10)[[0, 9, 2]])
    assert model.generator[0].in_features == 4 + 10
    assert model.discriminator.output.out_features == 11
    assert model.sample(2, {"label": torch.tensor([990, 999])}).shape == (2, 1, 8, 8)


def test_the_generator_heeds_the_label_and_the_discriminator_is_not_told() -> None:
    model = small_acgan().eval()
    z = model.sample_latent(1).expand(3, -1)
    images = model.decode(z, {"label": torch.arange(3)})
    assert not torch.allclose(images[0], images[1])
    linear = model.generator[0]
    linear.weight.data[:, 4:] = linear.weight.data[:, [6, 4, 5]]
    torch.testing.assert_close(model.decode(z, {"label": torch.tensor([1, 2, 0])}), images)


@pytest.mark.parametrize("error", [ConditionError, DataError])
def test_foreign_labels_are_named(error: type[Exception]) -> None:
    model = small_acgan(num_classes=6, classes=[1, 4])
    with pytest.raises(error, match=r"got the labels \[0, 5\]; this one has the classes \[1, 4\] of 6"):
        model.check_values(torch.tensor([1, 5, 4, 0, 5]), error)
    with pytest.raises(error, match="got a label in -1 to 6; expected integers"):
        model.check_values(torch.tensor([-1, 6]), error)
    with pytest.raises(ConditionError, match=r"got the labels \[2\]"):
        model.sample(1, {"label": torch.tensor([2])})


def test_absent_classes_are_named() -> None:
    batches = [
        {"image": torch.rand(2, 1, 8, 8), "label": labels} for labels in (torch.tensor([0, 3]), torch.tensor([3, 3]))
    ]
    with pytest.raises(DataError, match=r"no images of the classes \[1, 2\], .* they have \[0, 3\]: give data.classes"):
        small_acgan(num_classes=4).initialize_from(batches)
    small_acgan(num_classes=4, classes=[0, 3]).initialize_from(batches)
    with pytest.raises(DataError, match=r"got the labels \[3\]"):
        small_acgan(num_classes=4, classes=[0, 1]).initialize_from(batches)


@pytest.mark.parametrize("classes", [[], [3], [-1], [1, 1]])
def test_classes_that_are_none(classes: list[int]) -> None:
    with pytest.raises(ConditionError, match=r"got classes=.*; expected different labels from 0 to 2"):
        small_acgan(classes=classes)


def test_the_command_line_gives_the_model_the_classes_of_the_data(tmp_path: Path) -> None:
    size = ["--model.generator_channels", "[4,2]", "--model.discriminator_channels", "[2,3]"]
    data = ["--data", "DigitsDataModule", "--data.classes", "[3,7]"]
    trainer = [
        *QUIET,
        "--trainer.max_epochs",
        "1",
        "--trainer.limit_train_batches",
        "1",
        "--trainer.limit_val_batches",
        "0",
    ]
    main(["fit", "--model", "ACGAN", *size, *data, *trainer, "--trainer.default_root_dir", str(tmp_path)])
    (path,) = tmp_path.rglob("last.ckpt")
    model = ACGAN.load_from_checkpoint(path)
    assert (model.condition_size, model.classes) == (10, [3, 7])
    assert model.discriminator.output.out_features == 3
    main(["test", "--ckpt_path", str(path), *QUIET, "--trainer.logger", "false"])
    main(["sample", "--ckpt_path", str(path), "--condition.label", "7", "--output", str(tmp_path / "sevens.png")])


# Learning -----------------------------------------------------------------------------------------------------------


def test_learns_to_draw_the_digit_asked_for() -> None:
    """Baseline: a generator that does not heed the label is read as the digit asked for one time in ten."""
    torch.manual_seed(0)
    channels = {"generator_channels": (32, 16), "discriminator_channels": (8, 16, 32, 32, 32, 32)}
    model = ACGAN((1, 28, 28), lr=2e-3, dropout=0.2, **channels)
    quiet_trainer(max_epochs=2, limit_val_batches=0).fit(model, datamodule=DigitsDataModule(batch_size=25))
    labels = torch.arange(500) % 10
    with torch.no_grad():
        read = DigitFeatures()(model.sample(500, {"label": labels})).logits.argmax(1)
    assert (read == labels).float().mean() > 0.25  # 0.74 and 0.73 after 3 epochs with the seeds tried.
