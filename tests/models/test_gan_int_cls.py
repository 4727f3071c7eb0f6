"""Exact tests of GAN-INT-CLS, and a real training."""

import itertools
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_gen.callbacks import Diagnosis
from lightning_gen.cli import main
from lightning_gen.datamodules import CaptionedDigitsDataModule, DigitsDataModule
from lightning_gen.errors import CheckpointError, ConditionError, DataError, WeightsNotFoundError
from lightning_gen.models import GANINTCLS
from lightning_gen.models.gan_int_cls import Residual, cls_loss, midpoints
from lightning_gen.nn import BagOfWords
from tests.digits import quiet_trainer


def small(**arguments: Any) -> GANINTCLS:
    """8 x 8 images and embeddings of 5 numbers, with weights that matter."""
    sizes: dict[str, Any] = {"text_dim": 5, "latent_dim": 3, "text_features": 2}
    sizes |= {"generator_channels": 4, "discriminator_channels": 4}
    torch.manual_seed(0)
    model = GANINTCLS((1, 8, 8), **{**sizes, **arguments})
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, std=0.4)
    return model


def batches(number: int, size: int, dtype: torch.dtype = torch.float32) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(7)
    return [
        {
            "image": torch.rand(size, 1, 8, 8, generator=generator).to(dtype),
            "text_embedding": torch.randn(size, 3, 5, generator=generator).to(dtype),
            "label": torch.arange(size) % 3,
        }
        for _ in range(number)
    ]


def fit(model: GANINTCLS, data: list[dict[str, Any]], epochs: int = 1, **arguments: Any) -> None:
    loader: Any = DataLoader(data, batch_size=None)  # type: ignore[arg-type]
    quiet_trainer(max_epochs=epochs, limit_val_batches=0, **arguments).fit(model, loader)


class Letters(nn.Module):
    """An encoder for tests: how often each of five letters occurs; it counts what it has been asked."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.asked: list[str] = []

    def forward(self, texts: list[str]) -> Tensor:
        self.asked += texts
        return self.scale * torch.tensor([[float(text.count(letter)) for letter in "abcde"] for text in texts])


def lettered(**arguments: Any) -> tuple[GANINTCLS, Letters]:
    model = small(encoder=f"{__name__}.Letters", **arguments)
    model.initialized.fill_(True)
    encoder: Any = model.text_encoder
    encoder.asked.clear()
    return model, encoder


# The losses ---------------------------------------------------------------------------------------------------------


def test_loss_on_numbers_worked_by_hand() -> None:
    """Odds of 3, 1/4 and 1/9 are probabilities of 3/4, 1/5 and 1/10."""
    real, wrong, fake = (torch.tensor([[math.log(odds)]]) for odds in (3, 1 / 4, 1 / 9))
    expected = -math.log(3 / 4) - 0.5 * math.log(4 / 5) - 0.5 * math.log(9 / 10)
    assert cls_loss(real, wrong, fake, 0.5).item() == pytest.approx(expected)
    assert cls_loss(real, wrong, fake, 0.2).item() == pytest.approx(
        -math.log(3 / 4) - 0.2 * math.log(4 / 5) - 0.8 * math.log(9 / 10)
    )


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_where_nothing_can_be_told_apart(weight: float) -> None:
    logits = [torch.zeros(4, 1, requires_grad=True) for _ in range(3)]
    loss = cls_loss(*logits, weight)
    assert loss.item() == pytest.approx(2 * math.log(2))
    real, wrong, fake = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(wrong, -weight * real)  # Half of what a right pair pulls, for a half.
    torch.testing.assert_close(fake, -(1 - weight) * real)


def test_rows_that_do_not_count() -> None:
    zero, wrong = torch.zeros(3, 1), torch.tensor([[1.0], [5.0], [2.0]])
    kept = cls_loss(zero, wrong, zero, 0.5, torch.tensor([True, False, True]))
    torch.testing.assert_close(kept, cls_loss(zero, wrong[[0, 2]], zero, 0.5))
    nothing = cls_loss(zero, wrong, zero, 0.5, torch.zeros(3, dtype=torch.bool))
    assert nothing.item() == pytest.approx(1.5 * math.log(2))


def test_midpoints_are_of_the_first_half_and_the_second() -> None:
    text = torch.randn(8, 5)
    assert torch.equal(midpoints(text, 0.5), 0.5 * text[:4] + 0.5 * text[4:])
    assert torch.equal(midpoints(text, 1.0), text[:4])
    assert midpoints(text[:5], 0.5).shape == (2, 5)


class Recorded(GANINTCLS):
    """Keeps the losses of a step, and what the discriminator is shown; nothing moves."""

    def step(self, *updates: tuple[Any, Tensor]) -> None:
        self.losses.append(updates[0][1].item())


def recorded(**arguments: Any) -> tuple[Recorded, list[tuple[Tensor, Tensor]]]:
    model = small(**arguments)
    model.__class__ = Recorded
    model.losses = []  # type: ignore[assignment]
    model.optimizers = lambda: [None, None]  # type: ignore[method-assign, assignment]
    model.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign, assignment]
    shown: list[tuple[Tensor, Tensor]] = []
    model.discriminator.register_forward_pre_hook(lambda module, args: shown.append(args))
    return model, shown  # type: ignore[return-value]


def test_without_both_weights_it_is_the_gan_under_captions() -> None:
    (batch,) = batches(1, 6, torch.float64)
    model, shown = recorded(cls_weight=0.0, interp_weight=0.0, num_captions=1)
    model.double()
    torch.manual_seed(3)
    model.training_step(batch, 0)
    assert len(shown) == 3  # Right and generated pairs for D, generated ones for G.
    model.train()
    (real, text), (fake, fake_text), (again, own_text) = shown
    assert torch.equal(fake_text, text)
    assert torch.equal(own_text, text)
    probability = [model.discriminator(images, text).sigmoid() for images in (real, fake, again)]
    loss_d = -(probability[0].log().mean() + (1 - probability[1]).log().mean())
    assert model.losses == pytest.approx([loss_d.item(), -probability[2].log().mean().item()], rel=1e-9)


def test_what_the_discriminator_is_shown() -> None:
    """Right and wrong images and the first samples beside one text; then new samples beside what they were made of."""
    (batch,) = batches(1, 6)
    model, shown = recorded()
    drawn: list[tuple[Tensor, Tensor]] = []
    model.generator.register_forward_pre_hook(lambda module, args: drawn.append(args))
    torch.manual_seed(1)
    model.training_step(batch, 0)
    (real, text), (fake, of_fake), (wrong, of_wrong), (second, of_second) = shown
    assert torch.equal(real, 2 * batch["image"] - 1)
    assert torch.equal(of_fake, text)
    assert torch.equal(of_wrong, text)
    rows = [(real == image).flatten(1).all(1).nonzero().item() for image in wrong]
    assert (batch["label"][rows] != batch["label"]).all()
    assert not fake.requires_grad
    assert second.shape == (9, 1, 8, 8)
    assert torch.equal(of_second[:6], text)
    assert torch.equal(of_second[6:], 0.5 * text[:3] + 0.5 * text[3:])
    (z, first_text), (again, second_text) = drawn
    assert torch.equal(first_text, text)
    assert torch.equal(second_text, of_second)
    assert not torch.isin(again, z).any()  # New noise for G's step.


def test_points_between_captions_weigh_what_they_are_told() -> None:
    (batch,) = batches(1, 6)
    values = []
    for weight in (1.0, 2.0, 1e-9):
        model, _ = recorded(interp_weight=weight)
        torch.manual_seed(1)
        model.training_step(batch, 0)
        values.append(model.losses[1])
    assert values[1] - values[0] == pytest.approx(values[0] - values[2], rel=1e-5)  # Linear, a mean over nine.


# Pairs that do not fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mismatch", ["label", "attributes", "image"])
def test_pairs_of_another_caption(mismatch: Any) -> None:
    model = small(mismatch=mismatch)
    batch = {
        "image": torch.rand(6, 1, 8, 8),
        "label": torch.tensor([0, 0, 1, 1, 1, 2]),
        "attributes": torch.tensor([[0, 1], [0, 1], [0, 2], [1, 2], [1, 1], [2, 1]]),
    }
    keys = {"label": batch["label"][:, None], "attributes": batch["attributes"], "image": torch.arange(6)[:, None]}
    counts = torch.zeros(6, 6)
    torch.manual_seed(0)
    for _ in range(2000):
        rows, count = model.draw_mismatches(batch)
        assert count.all()
        counts[torch.arange(6), rows] += 1
    allowed = (keys[mismatch][:, None] != keys[mismatch]).any(2)
    assert not counts[~allowed].any()
    expected = 2000 * allowed / allowed.sum(1, keepdim=True)
    assert ((counts - expected)[allowed].abs() < 5 * expected[allowed].sqrt()).all()  # Each as likely.


def test_an_image_without_another_caption_does_not_count() -> None:
    model = small()
    images = torch.rand(2, 1, 8, 8)
    assert not model.draw_mismatches({"image": images, "label": torch.tensor([4, 4])})[1].any()
    with pytest.raises(DataError, match="All 2 images of a batch have the same label"):
        model.check_batch({"image": images, "label": torch.tensor([4, 4]), "text_embedding": torch.rand(2, 5)})
    with pytest.raises(DataError, match=r"mismatch=label needs 'label'.*mismatch image"):
        model.check_batch({"image": images, "text_embedding": torch.rand(2, 5)})
    small(mismatch="image").check_batch({"image": images, "text_embedding": torch.rand(2, 5)})
    small(cls_weight=0.0).check_batch({"image": images, "text_embedding": torch.rand(2, 5)})


# The published networks ---------------------------------------------------------------------------------------------


def test_published_sizes() -> None:
    model = GANINTCLS()
    assert sum(p.numel() for p in model.generator.parameters()) == 18_909_699
    assert sum(p.numel() for p in model.discriminator.parameters()) == 4_032_321
    images = model.sample(2, {"text_embedding": torch.randn(2, 1024)})
    assert images.shape == (2, 3, 64, 64)
    assert images.min() >= 0
    assert images.max() <= 1
    assert model.discriminator.image(images).shape == (2, 512, 4, 4)


def test_published_layers() -> None:
    model = GANINTCLS()
    kinds = [type(layer).__name__ for layer in model.generator.layers]
    start = ["ConvTranspose2d", "BatchNorm2d", "Residual"]  # No rectifier before a residual block.
    doubling = ["ConvTranspose2d", "BatchNorm2d", "ReLU"]
    assert kinds == [*start, *start, *doubling, *doubling, "ConvTranspose2d", "Tanh"]
    kinds = [type(layer).__name__ for layer in model.discriminator.image]
    first, second, third = ["Conv2d", "LeakyReLU"], ["Conv2d", "BatchNorm2d", "LeakyReLU"], ["Conv2d", "BatchNorm2d"]
    assert kinds == [*first, *second, *third, *third, "Residual"]
    assert {m.negative_slope for m in model.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}
    assert [type(layer).__name__ for layer in model.generator.text] == ["Linear", "LeakyReLU"]
    assert [type(layer).__name__ for layer in model.discriminator.text] == ["Linear", "BatchNorm1d", "LeakyReLU"]


def test_published_initialisation() -> None:
    torch.manual_seed(0)
    model = GANINTCLS((3, 32, 32))
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            n = module.weight.numel()
            assert module.weight.std().item() == pytest.approx(0.02, abs=4 * 0.02 / (2 * n) ** 0.5)
            assert not module.bias.any()
            assert not module.bias.requires_grad  # The authors set them to 0 before each evaluation.
        elif isinstance(module, nn.Linear):
            assert module.weight.abs().max().item() == pytest.approx(1024**-0.5, rel=1e-3)


def test_biases_may_be_learned() -> None:
    learned = [sum(p.requires_grad for p in small(biases=biases).parameters()) for biases in (False, True)]
    convolutions = [m for m in small().modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert learned[1] - learned[0] == len(convolutions) == 11


def test_a_residual_block_by_hand() -> None:
    torch.manual_seed(0)
    block, x = Residual(8, nn.LeakyReLU(0.2)).eval(), torch.randn(2, 8, 4, 4)
    a, _, _, b, _, _, c, _ = block.layers
    scale = (1 + 1e-5) ** -0.5  # Running statistics of 0 and 1.
    y = F.leaky_relu(scale * F.conv2d(x, a.weight, a.bias), 0.2)
    y = F.leaky_relu(scale * F.conv2d(y, b.weight, b.bias, padding=1), 0.2)
    y = scale * F.conv2d(y, c.weight, c.bias, padding=1)
    torch.testing.assert_close(block(x), F.leaky_relu(x + y, 0.2))
    assert (a.out_channels, b.out_channels) == (2, 2)


@pytest.mark.parametrize("side", [8, 16, 32, 128])
def test_sides(side: int) -> None:
    model = GANINTCLS((3, side, side), 5, generator_channels=4, discriminator_channels=4)
    images = model.sample(2, {"text_embedding": torch.randn(2, 5)})
    assert images.shape == (2, 3, side, side)
    assert model.discriminator(images, torch.randn(2, 5)).shape == (2, 1)


@pytest.mark.parametrize("shape", [(3, 48, 48), (3, 32, 16), (3, 4, 4)])
def test_other_sides_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"square images with a side of 8, 16, 32, 64"):
        GANINTCLS(shape)


# Training -----------------------------------------------------------------------------------------------------------


def test_joint_training_by_hand() -> None:
    """Three batches by the Trainer equal three written out: D sees all pairs at once, and both networks learn by it."""
    arguments = {"num_captions": 1, "lr": 0.01, "joint_normalization": True, "mismatch": "wrong_image"}
    model, reference = small(**arguments).double(), small(**arguments).double()
    data = [{**batch, "wrong_image": batch["image"].flip(0)} for batch in batches(3, 6, torch.float64)]
    torch.manual_seed(1)
    fit(model, data, precision="64-true")

    torch.manual_seed(1)
    torch.empty((), dtype=torch.int64).random_()  # The loader's base seed.
    d, g = reference.discriminator.train(), reference.generator.train()
    optimizers = {
        n: torch.optim.Adam([p for p in n.parameters() if p.requires_grad], 0.01, (0.5, 0.999)) for n in (d, g)
    }
    for batch in data:
        text = batch["text_embedding"][torch.arange(6), torch.randint(3, (6, 1))[:, 0]]
        drawn = torch.cat([text, (text[:3] + text[3:]) / 2])
        fake = g(torch.randn(9, 3, dtype=torch.float64), drawn)
        images = torch.cat([2 * batch["image"] - 1, 2 * batch["wrong_image"] - 1, fake])
        s = d(images, torch.cat([text, text, drawn])).sigmoid()[:, 0]
        right, wrong, first, every = s[:6], s[6:12], s[12:18], s[12:]
        losses = {
            d: -right.log().mean() - 0.5 * (1 - wrong).log().mean() - 0.5 * (1 - first).log().mean(),
            g: -every.log().mean(),
        }
        for network in losses:
            parameters = [p for p in network.parameters() if p.requires_grad]
            for p, grad in zip(
                parameters, torch.autograd.grad(losses[network], parameters, retain_graph=True), strict=True
            ):
                p.grad = grad
        for optimizer in optimizers.values():
            optimizer.step()
    for name, value in reference.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), value, rtol=1e-6, atol=1e-8, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("joint", [False, True])
def test_whether_the_pair_is_judged_or_the_batch(joint: bool) -> None:
    """One right pair among wrong ones, and one wrong pair among right ones: the right one is to get the higher logit.

    D learns by captioned digits. Where right and wrong pairs are normalised apart, it reads off the batch of which kind
    all its pairs are, and the one pair is taken for what those around it are.
    """
    torch.manual_seed(0)
    data = CaptionedDigitsDataModule(batch_size=32)
    data.setup()
    captions = itertools.chain.from_iterable(data.datasets["train"].columns["caption"])
    words = sorted({word for caption in captions for word in re.findall(r"\w+", caption)})
    sizes = {"generator_channels": 8, "discriminator_channels": 16, "text_features": 32, "latent_dim": 20}
    encoder = ("lightning_gen.nn.BagOfWords", {"words": " ".join(words)})
    settings = {"interp_weight": 0.0, "mismatch": "attributes", "joint_normalization": joint, "lr": 1e-3}
    model = GANINTCLS((3, 32, 32), len(words), *encoder, num_captions=1, **settings, **sizes)
    quiet_trainer(max_epochs=4, limit_val_batches=0).fit(model, data.train_dataloader())
    judge, higher = model.discriminator.train(), []
    with torch.no_grad():
        for batch in data.test_dataloader():
            rows, _ = model.draw_mismatches(batch)
            right, text = 2 * batch["image"] - 1, model.draw_text(batch, 1)
            wrong = right[rows]
            among_wrong = judge(torch.cat([right[:1], wrong[1:]]), text)[0]
            among_right = judge(torch.cat([wrong[:1], right[1:]]), text)[0]
            higher.append(float(among_wrong > among_right))
    share = sum(higher) / len(higher)
    assert share > 0.9 if joint else share < 0.5


def test_step_sizes_are_halved() -> None:
    model = small(lr=0.4, halve_every_n_epochs=2)
    fit(model, batches(1, 6), epochs=5)
    assert [optimizer.param_groups[0]["lr"] for optimizer in model.trainer.optimizers] == [0.1, 0.1]


@pytest.mark.parametrize("weight", [-0.1, 2.0])
def test_a_weight_that_would_reward_fakes_is_refused(weight: float) -> None:
    with pytest.raises(DataError, match=rf"cls_weight={weight}; expected float >= 0 and <= 1"):
        small(cls_weight=weight)


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(DataError, match="A batch of one image"):
        fit(small(cls_weight=0.0), batches(1, 1))


# Style --------------------------------------------------------------------------------------------------------------


class LinearGenerator(nn.Module):
    """An invertible linear map of the noise, whatever the caption."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 64)
        self.layer.weight.data.mul_(0.4)

    def forward(self, z: Tensor, text: Tensor) -> Tensor:
        return self.layer(z).view(-1, 1, 8, 8)


def test_the_style_encoder_inverts_a_linear_generator() -> None:
    model = small(style_from_epoch=0, lr=0.03)
    model.generator = LinearGenerator()  # type: ignore[assignment]
    model.style_encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))  # type: ignore[assignment]
    fit(model, batches(400, 32))
    z = model.sample_latent(50)
    images = model.generator(z, z).detach() / 2 + 0.5
    assert (model.encode(images) - z).square().mean() < 1e-3  # 1 for a guess of 0.
    inverse, layer = torch.linalg.pinv(model.generator.layer.weight.data), model.style_encoder[1]
    layer.weight.data, layer.bias.data = inverse, -inverse @ model.generator.layer.bias.data
    torch.testing.assert_close(model.encode(images), z, rtol=0, atol=1e-4)  # The least squares of its loss.


def test_the_game_stands_still_while_style_is_learned() -> None:
    model = small(style_from_epoch=1)
    states: list[dict[str, Tensor]] = []

    class Kept(GANINTCLS):
        def on_train_epoch_start(self) -> None:
            super().on_train_epoch_start()
            states.append({name: value.clone() for name, value in self.state_dict().items()})

    model.__class__ = Kept
    with pytest.raises(ConditionError, match="has no style encoder that has learned"):
        model.encode(torch.rand(1, 1, 8, 8))
    diagnosis = Diagnosis()
    fit(model, batches(2, 6), epochs=2, callbacks=[diagnosis])
    assert len(diagnosis._losses) == 2, "it looks at the game alone"
    assert len(states) == 2
    after = model.state_dict()
    moved = [
        {key.split(".")[0] for key in old if not torch.equal(old[key], new[key])}
        for old, new in ((states[0], states[1]), (states[1], after))
    ]
    assert moved == [{"generator", "discriminator"}, {"style_encoder", "style_learned"}]


def test_a_picture_under_another_caption() -> None:
    model, _ = lettered(style_from_epoch=0)
    model.style_learned.fill_(True)
    pictures = torch.rand(2, 1, 8, 8)
    drawn = [model.sample(2, {"caption": ["abba", "cab"], "source": pictures}) for _ in range(2)]
    assert torch.equal(*drawn)  # No noise but the picture's own.
    with model.evaluating(), torch.no_grad():
        expected = model.decode(model.encode(pictures), {"caption": ["abba", "cab"]})
    assert torch.equal(drawn[0], expected)
    with pytest.raises(ConditionError, match=r"'source' has 1 rows for 2"):
        model.sample(2, {"caption": ["abba", "cab"], "source": pictures[:1]})
    with pytest.raises(ConditionError, match=r"shape \(1, 4, 4\); the style is read from images of \(1, 8, 8\)"):
        model.sample(2, {"caption": ["abba", "cab"], "source": pictures[..., :4, :4]})
    with pytest.raises(ConditionError, match="style_from_epoch"):
        lettered()[0].sample(2, {"caption": ["abba", "cab"], "source": pictures})


# Captions -----------------------------------------------------------------------------------------------------------


def test_captions_are_encoded_once() -> None:
    model, encoder = lettered()
    texts = ["abc", "aab", "d"]
    first = model.embed_captions(texts)
    torch.testing.assert_close(first, torch.tensor([[1.0, 1, 1, 0, 0], [2, 1, 0, 0, 0], [0, 0, 0, 1, 0]]))
    assert torch.equal(model.embed_captions(["d", "d", "abc"]), first[[2, 2, 0]])
    assert encoder.asked == texts
    torch.testing.assert_close(model.embed_captions([["abc", "aab"], "d"]), torch.stack([first[:2].mean(0), first[2]]))
    state = {**model.state_dict(), "text_encoder.scale": torch.tensor(3.0)}
    model.load_state_dict(state)  # What other weights made of captions is forgotten.
    torch.testing.assert_close(model.embed_captions(texts), 3 * first)


def test_an_epoch_asks_for_each_caption_once() -> None:
    model, encoder = lettered()
    (batch,) = batches(1, 6)
    captions = [["a", "b"], ["ab", "ba"], ["c"], ["d", "e", "dd"], "ee", ["abc"]]
    fit(model, [{**batch, "caption": captions}] * 20, epochs=2)
    assert sorted(encoder.asked) == sorted({text for row in captions for text in ([row] if type(row) is str else row)})
    assert not encoder.training
    assert encoder.scale.item() == 1
    assert all(
        encoder.scale is not p for optimizer in model.trainer.optimizers for p in optimizer.param_groups[0]["params"]
    )


def test_captions_are_drawn_with_replacement_and_averaged() -> None:
    model, _ = lettered()
    batch = {"caption": [["a", "b"]] * 4000}
    torch.manual_seed(0)
    drawn = model.draw_text(batch, 2)[:, 0]  # How many of two are "a", of two.
    shares = [(drawn == share).float().mean().item() for share in (0, 0.5, 1)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    model = small()
    drawn = model.draw_text({"text_embedding": torch.eye(5)[None, :2].repeat(4000, 1, 1)}, 2)[:, 0]
    shares = [(drawn == share).float().mean().item() for share in (0, 0.5, 1)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_conditions() -> None:
    model, _ = lettered()
    torch.manual_seed(0)
    by_caption = model.sample(2, {"caption": ["abc", ["aab", "d"]]}, generator=torch.Generator().manual_seed(1))
    text = torch.tensor([[1.0, 1, 1, 0, 0], [1, 0.5, 0, 0.5, 0]])
    by_vector = model.sample(2, {"text_embedding": text}, generator=torch.Generator().manual_seed(1))
    assert torch.equal(by_caption, by_vector)
    more = ["aab", "d", "aab", "d", "eeee"]  # The first four, as in training.
    assert torch.equal(model.check_condition({"caption": [more]}, 1)["text_embedding"], text[1:])
    cut = model.check_condition({"text_embedding": torch.stack([text] * 5, 1).cumsum(1)}, 2)["text_embedding"]
    assert torch.equal(cut, 2.5 * text)
    for condition, message in [
        (None, "needs a condition with caption"),
        ({"caption": ["abc"]}, "'caption' has 1 rows for 2"),
        ({"caption": "ab"}, "got one text, 'ab'; expected a list"),
        ({"caption": ["abc", " "]}, "' ' as the caption of image 1"),
        ({"caption": ["abc", []]}, r"\[\] as the caption of image 1"),
        ({"text_embedding": torch.rand(2, 4)}, r"shape \(2, 4\); expected \(N, 5\)"),
        ({"caption": ["a", "b"], "label": torch.zeros(2)}, r"does not know the condition \['label'\]"),
    ]:
        with pytest.raises(ConditionError, match=message):
            model.sample(2, condition)
    with pytest.raises(ConditionError, match=r"does not know the condition \['caption'\]"):
        small().sample(1, {"caption": ["abc"]})
    with pytest.raises(DataError, match=r"needs 'text_embedding': .*--model.encoder_weights"):
        small().check_batch({"image": torch.rand(2, 1, 8, 8)})
    with pytest.raises(DataError, match=r"holds 2 of 'image' and 3 of 'text_embedding'"):
        small(cls_weight=0.0).check_batch({"image": torch.rand(2, 1, 8, 8), "text_embedding": torch.rand(3, 5)})
    with pytest.raises(DataError, match=r"holds 2 of 'image' and 1 of 'caption'"):
        lettered()[0].check_batch({"image": torch.rand(2, 1, 8, 8), "label": torch.tensor([0, 1]), "caption": ["abc"]})


def test_the_encoder_comes_from_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "encoder.ckpt"
    (batch,) = batches(1, 6)
    data = [{**batch, "caption": list("abcdea")}]
    torch.save({"state_dict": {"scale": torch.tensor(2.5)}}, path)
    model = small(encoder=f"{__name__}.Letters", encoder_weights=str(path))
    fit(model, data)
    assert model.embed_captions(["e"]).tolist() == [[0, 0, 0, 0, 2.5]]
    model.trainer.save_checkpoint(tmp_path / "last.ckpt")
    path.unlink()  # From here on our own checkpoint is all.
    loaded = GANINTCLS.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    fit(loaded, data)
    assert loaded.embed_captions(["e"]).tolist() == [[0, 0, 0, 0, 2.5]]
    with pytest.raises(WeightsNotFoundError, match=r"no file .*encoder.ckpt"):
        fit(small(encoder=f"{__name__}.Letters", encoder_weights=str(path)), data)
    with pytest.raises(WeightsNotFoundError, match=r"--config char_cnn_rnn/digits.*--model.encoder_weights"):
        fit(small(encoder=f"{__name__}.Letters"), data)
    torch.save({"state_dict": {"weight": torch.tensor(2.5)}}, path)
    with pytest.raises(CheckpointError, match=r"does not hold weights of Letters.*scale.*encoder_args"):
        fit(small(encoder=f"{__name__}.Letters", encoder_weights=str(path)), data)


@pytest.mark.parametrize("path", ["os.system", "lightning_gen.models.NoSuch", "not_imported.Encoder", "Encoder"])
def test_no_foreign_encoder(path: str) -> None:
    with pytest.raises(CheckpointError, match=r"which is no Module|neither of lightning_gen nor imported"):
        small(encoder=path)


def test_an_encoder_of_another_width() -> None:
    model = small(encoder=f"{__name__}.Letters", text_dim=6)
    with pytest.raises(DataError, match=r"gives 5 numbers and GANINTCLS takes 6; give --model.text_dim 5"):
        model.sample(1, {"caption": ["abc"]})
    with pytest.raises(CheckpointError, match=r"Letters was given encoder_args=\{'width': 3\}"):
        small(encoder=f"{__name__}.Letters", encoder_args={"width": 3})


def test_an_encoder_that_has_nothing_to_learn() -> None:
    """A bag of words needs no checkpoint."""
    words = ["a", "red", "blue", "one", "two"]
    model = small(encoder="lightning_gen.nn.BagOfWords", encoder_args={"words": words})
    fit(model, [{**batches(1, 6)[0], "caption": ["a red one", "A blue two."] * 3}])
    assert model.embed_captions(["a red one"]).tolist() == [[1, 1, 0, 1, 0]]
    with pytest.raises(ConditionError, match="'in pink' holds none of the words a, red, blue, one, two"):
        model.sample(1, {"caption": ["in pink"]})


@pytest.mark.parametrize(
    ("encoder", "arguments", "typed", "known", "told"),
    [
        (
            "nn.BagOfWords",
            {"words": "a one red two"},
            "A redd one",
            "a one",
            "'redd', which is left out; the nearest that it knows: red.",
        ),
        ("nn.BagOfWords", {"words": "a one red two"}, "a 77 two", "a two", "'77', .* knows: a, one, red, two"),
        ("models.CharCNNRNN", {"channels": [8, 8, 8], "text_dim": 4}, "röd", "räd", "'ö', which the alphabet has not"),
    ],
)
def test_what_was_never_seen_in_a_caption(
    encoder: str, arguments: dict[str, Any], typed: str, known: str, told: str
) -> None:
    """The sample is drawn without it, and a warning names what is nearest, once for all samples."""
    model = small(encoder=f"lightning_gen.{encoder}", encoder_args=arguments, text_dim=4)
    with pytest.warns(UserWarning, match=told) as warned:
        sample = model.sample(3, {"caption": [typed] * 3}, generator=torch.Generator().manual_seed(1))
    (message,) = warned
    assert "\n" not in str(message.message)
    assert torch.equal(sample, model.sample(3, {"caption": [known] * 3}, generator=torch.Generator().manual_seed(1)))


def test_words_that_yaml_takes_for_numbers_and_switches(tmp_path: Path) -> None:
    """The recipe's words come back as they were from a run's checkpoint: 4 is no number there, and on no switch."""
    limits = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "0"]
    main(["fit", "--config", "gan_int_cls/digits", "--trainer.default_root_dir", str(tmp_path), *limits])
    (path,) = tmp_path.rglob("last.ckpt")
    model = GANINTCLS.load_from_checkpoint(path, weights_only=True)
    assert model.sample(1, {"caption": ["a yellow 4 on the left"]}).shape == (1, 3, 32, 32)
    with pytest.raises(DataError, match="hold True, which is none; give them in one text"):
        BagOfWords(["a", True])  # type: ignore[list-item]


def test_a_checkpoint_is_all_there_is(tmp_path: Path) -> None:
    model = small(style_from_epoch=1)
    fit(model, batches(2, 6), epochs=2)
    model.trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = GANINTCLS.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    text = {"text_embedding": torch.randn(3, 5)}
    before, after = (m.sample(3, text, generator=torch.Generator().manual_seed(1)) for m in (model, loaded))
    assert torch.equal(before, after)
    source = torch.rand(3, 1, 8, 8)
    assert torch.equal(model.sample(3, {**text, "source": source}), loaded.sample(3, {**text, "source": source}))


# Learning -----------------------------------------------------------------------------------------------------------

COLOURS = {"red": (1.0, 0.1, 0.1), "green": (0.1, 1.0, 0.1), "blue": (0.1, 0.1, 1.0)}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Words(nn.Module):
    """An encoder for tests: a random vector for each word that matters, added up."""

    words = (*DIGITS, *COLOURS)

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Embedding(len(self.words), 16)

    def forward(self, texts: list[str]) -> Tensor:
        counts = torch.tensor([[float(word in text.split()) for word in self.words] for text in texts])
        return counts @ self.vectors.weight


def test_learns_to_draw_in_the_colour_asked_for() -> None:
    """Baseline: a generator that does not heed the caption has the colour asked for one time in three."""
    torch.manual_seed(0)
    data = DigitsDataModule(batch_size=32)
    tints = torch.tensor(list(COLOURS.values()))
    batches = []
    for batch in data.train_dataloader():
        label, colour = batch["label"], torch.randint(3, (len(batch["label"]),))
        grey = F.interpolate(batch["image"], (16, 16), mode="bilinear", antialias=True)
        words = [[f"a {list(COLOURS)[c]} {DIGITS[d]}"] for d, c in zip(label, colour, strict=True)]
        kinds = torch.stack([label, colour], 1)
        batches.append({"image": grey * tints[colour][:, :, None, None], "caption": words, "attributes": kinds})
    sizes = {"generator_channels": 24, "discriminator_channels": 16, "text_features": 16, "latent_dim": 10}
    model = GANINTCLS((3, 16, 16), 16, f"{__name__}.Words", num_captions=1, mismatch="attributes", lr=1e-3, **sizes)
    model.initialized.fill_(True)
    fit(model, batches)
    colours = torch.arange(300) % 3
    captions = [f"a {list(COLOURS)[c]} {DIGITS[i % 10]}" for i, c in enumerate(colours)]
    images = model.sample(300, {"caption": captions}, generator=torch.Generator().manual_seed(1))
    assert (images.sum((2, 3)).argmax(1) == colours).float().mean() > 0.6  # 0.99 with the seed tried.
    assert images.var(0).sum() > 1  # And they differ.
