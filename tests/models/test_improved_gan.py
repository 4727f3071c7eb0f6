"""Exact tests of the improved techniques of 2016, and a real semi-supervised training."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_gen.callbacks import EMA, ClosingTable
from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.errors import DataError
from lightning_gen.functional import discriminator_loss
from lightning_gen.models import ImprovedGAN
from lightning_gen.models.improved_gan import History
from tests.digits import quiet_trainer, train_on_digits


def digits(split: str, size: int = 500) -> dict[str, Tensor]:
    """The first images of a split with their labels."""
    data = DigitsDataModule(batch_size=size)
    torch.manual_seed(0)
    return next(iter(data.train_dataloader() if split == "train" else data.test_dataloader()))


def attached(model: ImprovedGAN) -> ImprovedGAN:
    """With a trainer, whose strategy the losses ask for the other ranks."""
    model.trainer = quiet_trainer()
    return model


@pytest.mark.parametrize(
    ("network", "shape", "generator", "discriminator"),
    [
        # Weights, then biases and learned scales; the widths are those of the authors' code.
        ("mnist", (1, 28, 28), 692_000 + 2 * 500 + 2 * 784, 1_536_500 + 1000 + 500 + 3 * 250 + 2 * 10),
        ("cifar10", (3, 32, 32), 4_924_800 + 8192 + 256 + 128 + 2 * 3, 1_405_344 + 3 * 96 + 6 * 192 + 2 * 10),
    ],
)
def test_published_sizes(network: Any, shape: tuple[int, ...], generator: int, discriminator: int) -> None:
    model = ImprovedGAN(shape, network=network)
    assert [sum(p.numel() for p in player) for player in model.players()] == [discriminator, generator]
    model.eval()
    assert model.sample(2).shape == (2, *shape)
    assert model.discriminator(model.sample(2)).shape == (2, 10)


def test_losses_are_those_of_the_explicit_classifier_of_eleven_classes() -> None:
    """K logits beside a fixed 0 for "generated" equal a softmax over K + 1 classes (section 5)."""
    torch.manual_seed(0)
    model = attached(ImprovedGAN((1, 3, 3), unlabelled_weight=0.7).double())
    for module in model.discriminator.modules():
        if hasattr(module, "std"):
            module.std = 0.0
    model.labelled_images.uniform_()
    model.labels.copy_(torch.arange(100) % 10)
    images = torch.rand(5, 1, 3, 3, dtype=torch.float64)
    torch.manual_seed(1)
    loss = model.loss_d(images)

    torch.manual_seed(1)
    fake = model.decode(model.sample_latent(5))
    labelled, labels = model.labelled_batch(5)

    def log_p(x: Tensor) -> Tensor:
        logits = model.discriminator(x)
        return torch.cat([logits, torch.zeros(len(x), 1)], dim=1).log_softmax(1)  # (N, K + 1)

    given_real = log_p(labelled)[:, :10] - log_p(labelled)[:, :10].logsumexp(1, keepdim=True)  # log p(y | x, y <= K)
    supervised = -given_real.gather(1, labels[:, None]).mean()
    real, generated = log_p(images)[:, :10].logsumexp(1), log_p(fake)[:, 10]
    torch.testing.assert_close(loss, supervised - 0.7 * 0.5 * (real.mean() + generated.mean()), rtol=1e-9, atol=1e-9)


def test_feature_matching_is_zero_on_equal_batches_and_moves_all_of_the_generator() -> None:
    torch.manual_seed(0)
    model = attached(ImprovedGAN((1, 4, 4)).eval())  # Without noise and with fixed statistics.
    z = torch.rand(6, 100)
    model.sample_latent = lambda *args: z  # type: ignore[method-assign]
    assert model.loss_g(model.decode(z).detach()).item() == pytest.approx(0, abs=1e-12)
    loss = model.loss_g(torch.rand(6, 1, 4, 4))
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(loss, model.players()[1]))


def test_feature_matching_by_hand() -> None:
    """The mean over the batch comes first, then the distance: squared, or for colour images absolute."""
    for network, shape, distance in (("mnist", (1, 2, 2), Tensor.square), ("cifar10", (3, 32, 32), Tensor.abs)):
        torch.manual_seed(0)
        model = attached(ImprovedGAN(shape, network=network).eval())
        images, z = torch.rand(3, *shape), torch.rand(3, 100)
        model.sample_latent = lambda *args, z=z: z  # type: ignore[method-assign]
        real, fake = (model.discriminator.features(x).mean(0) for x in (images, model.decode(z)))
        torch.testing.assert_close(model.loss_g(images), distance(real - fake).mean())


def test_training_moves_each_player_by_its_own_loss_in_turn() -> None:
    """Two batches by the Trainer equal two written out, with Adam from torch; noise layers draw in the same order."""
    torch.manual_seed(0)
    model = ImprovedGAN((1, 3, 3), num_labels=10, generator_steps=2, historical_averaging=0.3).double()
    model.labelled_images.uniform_()
    model.labels.copy_(torch.arange(10))
    model.initialized.fill_(True)
    reference = copy.deepcopy(model)
    batch = {"image": torch.rand(8, 1, 3, 3, dtype=torch.float64), "label": torch.full((8,), -1)}
    rows = [{key: value[i : i + 4] for key, value in batch.items()} for i in (0, 4)]
    torch.manual_seed(1)
    quiet_trainer(max_epochs=1, precision="64-true").fit(model, DataLoader(rows, batch_size=None))

    torch.manual_seed(1)
    torch.empty((), dtype=torch.int64).random_()  # The loader's base seed.
    attached(reference)
    players = reference.players()
    optimizers = [torch.optim.Adam(p, lr=0.003, betas=(0.5, 0.999), eps=1e-4) for p in players]
    past: tuple[list[Tensor], list[Tensor]] = ([], [])

    def update(player: int, loss: Tensor) -> None:
        theta = nn.utils.parameters_to_vector(players[player])
        past[player].append(theta.detach())
        loss = loss + 0.3 * (theta - torch.stack(past[player]).mean(0)).square().sum()
        gradients = torch.autograd.grad(loss, players[player])
        for parameter, gradient in zip(players[player], gradients, strict=True):
            parameter.grad = gradient
        optimizers[player].step()

    features, discriminator = reference.discriminator.features, reference.discriminator
    for row in rows:
        images = row["image"]
        fake = reference.generator(torch.rand(4, 100, dtype=torch.float64)).detach()
        order = torch.randperm(10)[:4]
        x = torch.cat([images, fake, reference.labelled_images[order]])
        real, generated, labelled = discriminator(x).chunk(3)
        loss = F.cross_entropy(labelled, reference.labels[order])
        update(0, loss + discriminator_loss(real.logsumexp(1), generated.logsumexp(1)))
        for _ in range(2):
            z = torch.rand(4, 100, dtype=torch.float64)
            fake = reference.generator(z)
            target = features(images).mean(0).detach()
            update(1, (features(fake).mean(0) - target).square().mean())
    for (name, value), other in zip(reference.state_dict().items(), model.state_dict().values(), strict=True):
        if not name.startswith("histories"):
            torch.testing.assert_close(other, value, msg=lambda text, name=name: f"{name}: {text}")


def test_historical_average_is_the_mean_of_all_past_parameters() -> None:
    torch.manual_seed(0)
    history, past = History(6).double(), []
    for _ in range(5):
        parameters = [torch.randn(2, 2, dtype=torch.float64, requires_grad=True), torch.randn(2, dtype=torch.float64)]
        past.append(nn.utils.parameters_to_vector(parameters))
        penalty = history(parameters)
        mean = torch.stack(past).mean(0)
        torch.testing.assert_close(penalty, (past[-1] - mean).square().sum())
        (gradient,) = torch.autograd.grad(penalty, parameters[0])
        torch.testing.assert_close(gradient.flatten(), 2 * (past[-1] - mean)[:4])  # The past is a constant.


def test_images_of_one_set_are_compared_with_each_other_alone() -> None:
    """Or minibatch discrimination would see which half of a batch is the generator's."""
    torch.manual_seed(0)
    model = ImprovedGAN((1, 4, 4), minibatch_kernels=7).eval()
    real, fake = torch.rand(5, 1, 4, 4), torch.rand(5, 1, 4, 4)
    apart = torch.cat([model.discriminator(real), model.discriminator(fake)])
    torch.testing.assert_close(model.discriminator(torch.cat([real, fake]), 2), apart)
    assert not torch.allclose(model.discriminator(torch.cat([real, fake])), apart)


def test_virtual_batch_norm_makes_samples_of_a_batch_independent_also_in_training() -> None:
    torch.manual_seed(0)
    model = ImprovedGAN((1, 4, 4), reference_batch=20)
    z = torch.rand(5, 100)
    torch.testing.assert_close(model.decode(z)[3:4], model.decode(z[3:4]))
    assert not any(isinstance(module, nn.BatchNorm1d) for module in model.modules())
    assert not torch.allclose(ImprovedGAN((1, 4, 4)).decode(z)[3:], ImprovedGAN((1, 4, 4)).decode(z[3:]))


def test_step_size_falls_as_in_the_authors_code() -> None:
    model = ImprovedGAN((1, 4, 4), lr=3e-4, lr_decay_epochs=(800, 1200))
    for epoch, lr in ((0, 3e-4), (800, 3e-4), (1000, 1.5e-4), (1200, 0.0)):
        assert model.lr_at(epoch) == pytest.approx(lr)
    assert ImprovedGAN((1, 4, 4)).lr_at(10_000) == 0.003


def test_labelled_images_are_drawn_equally_by_their_seed() -> None:
    def draw(**arguments: Any) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        return ImprovedGAN(**arguments).draw_labelled(DigitsDataModule(batch_size=300).train_dataloader())

    images, labels = draw(num_labels=50)
    assert labels.bincount().tolist() == [5] * 10
    assert torch.equal(draw(num_labels=50)[0], images)
    assert not torch.equal(draw(num_labels=50, label_seed=1)[0], images)
    train = digits("train", 4000)
    for image, label in zip(images, labels, strict=True):
        row = (train["image"] - image).flatten(1).abs().sum(1).argmin()
        assert torch.equal(train["image"][row], image)
        assert train["label"][row] == label


def test_unlabelled_images_are_never_drawn() -> None:
    labels = torch.tensor([-1, 0, 1, -1, 0, 1])
    images = torch.arange(6.0).div(6).view(6, 1, 1, 1).expand(6, 1, 2, 2)
    model = ImprovedGAN((1, 2, 2), num_classes=2, num_labels=4)
    drawn, classes = model.draw_labelled(DataLoader([{"image": images, "label": labels}], batch_size=None))
    assert sorted(drawn[:, 0, 0, 0].tolist()) == images[[1, 2, 4, 5], 0, 0, 0].tolist()
    assert sorted(classes.tolist()) == [0, 0, 1, 1]


def test_labelled_batches_repeat_a_small_set_evenly() -> None:
    model = ImprovedGAN((1, 2, 2), num_classes=2, num_labels=4)
    model.labelled_images.copy_(torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 2, 2))
    for size, counts in ((4, [1] * 4), (12, [3] * 4)):
        assert model.labelled_batch(size)[0][:, 0, 0, 0].long().bincount().tolist() == counts
    assert len(model.labelled_batch(3)[1]) == 3


def test_without_labels_the_discriminator_has_one_logit() -> None:
    model = ImprovedGAN((1, 28, 28), semi_supervised=False, generator_loss="saturating", minibatch_kernels=10)
    images = DataLoader(digits("train", 20)["image"], batch_size=10)
    quiet_trainer(max_epochs=1).fit(model, images, images)
    assert model.discriminator(digits("test", 10)["image"]).shape == (10, 1)
    assert not hasattr(model, "labels")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_labels": 55}, "num_labels is 55; expected a multiple of the 10 classes, such as 100"),
        ({"image_shape": (3, 28, 28), "network": "cifar10"}, "28 x 28, and network=cifar10 is made for 32 x 32"),
    ],
)
def test_wrong_settings_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImprovedGAN(**arguments)


@pytest.mark.parametrize(
    ("data", "batch_size", "message"),
    [
        ({"image": torch.rand(20, 1, 2, 2)}, 10, r"holds \['image'\]; ImprovedGAN needs 'label' too"),
        ({"label": torch.arange(20) % 10}, 10, "got a label in 0 to 9; expected integers .* from -1 to 3"),
        ({"label": torch.arange(20) % 3}, 10, "Class 3 has 0 labelled training images, .* asks for 2 of each"),
        ({"label": torch.full((20,), -1)}, 10, "Class 0 has 0 labelled training images"),
        ({"label": torch.arange(20) % 4}, 19, "A batch of one image was given"),
    ],
)
def test_wrong_data_are_named(data: dict[str, Tensor], batch_size: int, message: str) -> None:
    columns = {"image": torch.rand(20, 1, 2, 2), **data}
    rows = [{key: value[i] for key, value in columns.items()} for i in range(20)]
    with pytest.raises(DataError, match=message):
        quiet_trainer(max_epochs=1).fit(
            ImprovedGAN((1, 2, 2), num_classes=4, num_labels=8), DataLoader(rows, batch_size=batch_size)
        )


def test_errors_are_counted_over_all_batches_and_shown(tmp_path: Path) -> None:
    class Fives(ImprovedGAN):
        def classify(self, images: Tensor) -> Tensor:
            return torch.full((len(images),), 5)

    batch = digits("test")
    loader = DataLoader(list(zip(batch["image"], batch["label"], strict=True)), batch_size=64)  # The last holds 52.
    table = ClosingTable()
    (scores,) = quiet_trainer(callbacks=[table], default_root_dir=tmp_path).test(Fives(), loader, verbose=False)
    assert scores == {"test/error_rate": pytest.approx(0.9), "test/errors": 450.0}
    assert {figure.name: figure.value for figure in table.figures} == scores
    assert table.figures[0].protocol == "share of wrong classes, learned from 100 labels"


def test_learns_from_a_hundred_labels_more_than_they_say() -> None:
    """Baseline: the nearest of the 100 labelled images. D's average, after 120 batches."""
    torch.manual_seed(0)
    model = ImprovedGAN()
    train_on_digits(model, epochs=3, binarization="none", callbacks=[EMA(0.9999, ["discriminator"])])
    test = digits("test")
    nearest = torch.cdist(test["image"].flatten(1), model.labelled_images.flatten(1)).argmin(1)
    baseline = (model.labels[nearest] != test["label"]).float().mean().item()
    with model.evaluating(), torch.no_grad():
        error = (model.classify(test["image"]) != test["label"]).float().mean().item()
    assert error < 0.95 * baseline, (error, baseline)
