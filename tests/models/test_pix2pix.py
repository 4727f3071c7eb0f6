"""Exact tests of image-to-image translation, and a real training on edges of digits."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gen.datamodules import EdgesToDigitsDataModule
from lightning_gen.errors import ConditionError, DataError
from lightning_gen.functional.ms_ssim import ms_ssim
from lightning_gen.models import Pix2Pix
from lightning_gen.models.pix2pix import PATCHES, Discriminator, Generator, MemorylessNorm
from lightning_gen.nn import DigitFeatures
from tests.digits import quiet_trainer


def small(**arguments: object) -> Pix2Pix:
    given = {"image_shape": (1, 16, 16), "num_levels": 4, "base_channels": 2, "patch_size": 16, **arguments}
    return Pix2Pix(**given)


def pairs(number: int = 6, side: int = 16) -> list[dict[str, Tensor]]:
    """Edges and digits, shrunk; as a loader of batches of two."""
    data = EdgesToDigitsDataModule()
    data.setup()
    batch = data.datasets["val"].__getitems__(range(number))
    shrunk = {key: F.interpolate(batch[key], (side, side), mode="area") for key in ("source", "image")}
    return [{key: values[i : i + 2] for key, values in shrunk.items()} for i in range(0, number, 2)]


def loader(batches: list[dict[str, Tensor]]) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(batches, batch_size=None)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# The networks -------------------------------------------------------------------------------------------------------


def test_published_sizes() -> None:
    with torch.device("meta"):
        assert count(Generator(3, 3, 64, 8, skips=True)) == 54_413_955
        counts = {patch: count(Discriminator(6, 64, patch)) for patch in PATCHES}
    assert (counts[16], counts[70], counts[286]) == (139_585, 2_768_705, 11_159_361)
    assert counts[1] == 6 * 64 + 64 + 64 * 128 + 2 * 128 + 128 + 1


def test_widths_of_the_published_u_net() -> None:
    with torch.device("meta"):
        net = Generator(3, 3, 64, 8, skips=True)
    layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    down = [(m.in_channels, m.out_channels) for m in layers[:8]]
    up = [(m.in_channels, m.out_channels) for m in layers[8:]]
    assert down == [(3, 64), (64, 128), (128, 256), (256, 512)] + [(512, 512)] * 4
    assert up[:4] == [(512, 512)] + [(1024, 512)] * 3
    assert up[4:] == [(1024, 256), (512, 128), (256, 64), (128, 3)]
    norms = [any(isinstance(m, MemorylessNorm) for m in layer.modules()) for layer in [*net.down, *net.up]]
    assert norms == [False] + [True] * 6 + [False] + [True] * 7 + [False]
    assert net.num_dropouts == 3


@pytest.mark.parametrize("patch_size", PATCHES)
def test_a_logit_sees_a_patch_of_the_size_given(patch_size: int) -> None:
    """By the support of the gradient of one logit, without normalisation, which sees all of an image."""
    torch.manual_seed(0)
    net = Discriminator(1, 1, patch_size).double()
    for name, module in net.named_modules():
        if isinstance(module, MemorylessNorm):
            net._modules[name] = nn.Identity()
        elif isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1.0)
    images = torch.ones(1, 1, 320, 320, dtype=torch.float64, requires_grad=True)
    logits = net(images)
    (gradient,) = torch.autograd.grad(logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2], images)
    rows = gradient[0, 0].any(1).nonzero()
    assert (rows.max() - rows.min() + 1).item() == patch_size


@pytest.mark.parametrize(("patch_size", "side"), [(1, 256), (16, 126), (34, 62), (70, 30), (142, 14), (286, 6)])
def test_maps_of_logits_as_published(patch_size: int, side: int) -> None:
    net = Discriminator(6, 1, patch_size)
    assert net(torch.zeros(1, 6, 256, 256)).shape == (1, 1, side, side)
    if patch_size == 70:
        assert net(torch.zeros(1, 6, 512, 512)).shape == (1, 1, 62, 62)


def test_only_the_u_net_passes_maps_across() -> None:
    """Without them nothing of the first maps reaches the output but through the smallest ones."""
    for skips in (True, False):
        net = Generator(1, 1, 2, 4, skips).eval()
        cut = net.down[-1][-1].register_forward_hook(lambda module, maps, out: torch.zeros_like(out))
        source = torch.rand(1, 1, 16, 16, requires_grad=True)
        net(source, dropout=0.0).sum().backward()
        assert source.grad is not None if skips else source.grad is None or not source.grad.any()
        cut.remove()


def test_forward_pass_by_hand() -> None:
    """Three levels written out, in training mode, in double precision."""
    torch.manual_seed(0)
    net = Generator(2, 3, 2, 3, skips=True).double()
    x = torch.randn(4, 2, 16, 16, dtype=torch.float64)

    def normalise(maps: Tensor, norm: MemorylessNorm) -> Tensor:
        variance, mean = torch.var_mean(maps, (0, 2, 3), unbiased=False, keepdim=True)
        return (maps - mean) / (variance + 1e-5).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)

    def leaky(maps: Tensor) -> Tensor:
        return torch.where(maps > 0, maps, 0.2 * maps)

    e1 = F.conv2d(x, net.down[0].weight, stride=2, padding=1)
    e2 = normalise(F.conv2d(leaky(e1), net.down[1][1].weight, stride=2, padding=1), net.down[1][2])
    e3 = F.conv2d(leaky(e2), net.down[2][1].weight, stride=2, padding=1)
    d1 = normalise(F.conv_transpose2d(e3.relu(), net.up[0][1].weight, stride=2, padding=1), net.up[0][2])
    d2 = F.conv_transpose2d(torch.cat([d1, e2], 1).relu(), net.up[1][1].weight, stride=2, padding=1)
    d2 = normalise(d2, net.up[1][2])
    output = net.up[2][1]
    d3 = F.conv_transpose2d(torch.cat([d2, e1], 1).relu(), output.weight, output.bias, stride=2, padding=1)
    torch.testing.assert_close(net(x, dropout=0.5), d3.tanh())  # No dropout in so small a network.


# Modes --------------------------------------------------------------------------------------------------------------


def test_normalisation_has_no_memory() -> None:
    norm = MemorylessNorm(3)
    nn.init.normal_(norm.weight)
    maps = torch.randn(4, 3, 5, 5)
    alone = torch.cat([norm(row[None]) for row in maps])  # In training mode, batches of one.
    assert not torch.allclose(norm(maps), alone, atol=0.01)
    norm.eval()
    torch.testing.assert_close(norm(maps), alone)
    assert not list(norm.buffers())


def test_samples_differ_by_dropout_alone_and_not_by_those_beside_them() -> None:
    torch.manual_seed(0)
    for dropout in (0.5, 0.0):
        model = small(dropout=dropout).train()
        source = pairs()[0]["source"]
        first, second = model.sample(2, {"source": source}), model.sample(2, {"source": source})
        assert torch.equal(first, second) == (dropout == 0)
        same = [model.sample(2, {"source": source}, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
        assert torch.equal(same[0], same[1])
        if not dropout:
            torch.testing.assert_close(model.sample(1, {"source": source[1:]}), first[1:], rtol=0, atol=1e-6)


def test_sources_of_other_sizes_are_translated() -> None:
    assert small().sample(2, {"source": torch.rand(2, 1, 48, 32)}).shape == (2, 1, 48, 32)
    model = small(source_channels=3)
    assert model.sample(1, {"source": torch.rand(1, 3, 16, 16)}).shape == (1, 1, 16, 16)


# Training -----------------------------------------------------------------------------------------------------------


class Recorded(Pix2Pix):
    """Keeps the losses that it steps on."""

    def step(self, *updates: tuple[object, Tensor]) -> None:
        self.__dict__.setdefault("losses", []).extend(loss.item() for _, loss in updates)
        super().step(*updates)


def test_losses_where_the_discriminator_knows_nothing() -> None:
    """Logits of 0: log 2 for D (the paper halves its objective), log 2 and 100 times the distance for G."""
    model = Recorded((1, 16, 16), num_levels=4, base_channels=2, patch_size=16, lr=0.0)
    for module in (model.discriminator[-1], model.generator.up[-1][1]):
        nn.init.zeros_(module.weight)
    (batch, *_) = pairs()
    quiet_trainer(max_epochs=1).fit(model, loader([batch]))
    distance = (2 * batch["image"] - 1).abs().mean().item()  # G's output is 0 in [-1, 1].
    assert model.losses == pytest.approx([math.log(2), math.log(2) + 100 * distance])


def test_the_generator_runs_once_a_step_and_each_update_moves_one_network() -> None:
    class Watched(Pix2Pix):
        def step(self, *updates: tuple[object, Tensor]) -> None:
            before = {name: value.clone() for name, value in self.named_parameters()}
            super().step(*updates)
            moved.append(
                {name.split(".")[0] for name, value in self.named_parameters() if (value != before[name]).any()}
            )

    moved: list[set[str]] = []
    made: list[Tensor] = []
    model = Watched((1, 16, 16), num_levels=4, base_channels=2, patch_size=16)
    model.generator.register_forward_hook(lambda module, source, images: made.append(images))
    quiet_trainer(max_epochs=1).fit(model, loader(pairs(4)))
    assert moved == [{"discriminator"}, {"generator"}] * 2
    assert len(made) == 2


def test_batches_of_one_train() -> None:
    batches = [{key: values[:1] for key, values in batch.items()} for batch in pairs()]
    model = small()
    before = model.generator.down[0].weight.clone()
    quiet_trainer(max_epochs=1).fit(model, loader(batches))
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert not torch.equal(before, model.generator.down[0].weight)


def test_step_sizes_are_constant_and_then_fall() -> None:
    class Watched(Pix2Pix):
        def on_train_epoch_start(self) -> None:
            rates.append([optimizer.param_groups[0]["lr"] for optimizer in self.optimizers()])

    rates: list[list[float]] = []
    model = Watched(
        (1, 16, 16), num_levels=4, base_channels=2, patch_size=16, lr=1.0, constant_epochs=2, decay_epochs=3
    )
    quiet_trainer(max_epochs=7).fit(model, loader(pairs(2)))
    expected = [1, 1, 3 / 4, 2 / 4, 1 / 4, 0, 0]
    assert rates == [pytest.approx([rate, rate]) for rate in expected]


def test_scores_are_distances_to_the_target() -> None:
    batches = pairs()
    model = small(dropout=0.0)
    (scores,) = quiet_trainer().test(model, loader(batches), verbose=False)
    source, target = (torch.cat([batch[key] for batch in batches]) for key in ("source", "image"))
    made = model.sample(6, {"source": source})
    assert scores["test/l1"] == pytest.approx((made - target).abs().mean().item(), rel=1e-5)
    assert scores["test/ms_ssim_to_target"] == pytest.approx(ms_ssim(made, target).mean().item(), rel=1e-5)
    assert scores["test/l1"] < 1  # Pixels in [0, 1], not in [-1, 1].


# Bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (1, 20, 16)}, "20 x 16 pixels cannot be halved 4 times.*multiples of 16.*nearest are 16 x 16"),
        ({"image_shape": (1, 60, 100)}, "nearest are 64 x 96"),
        ({"patch_size": 50}, "1, 16, 34, 70, 142, 286"),
        ({"gan": "none", "l1_weight": 0.0}, "nothing to learn"),
        ({"num_levels": 1}, "num_levels=1; expected int >= 2"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        small(**arguments)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"image": torch.zeros(2, 1, 16, 16)}, "needs 'source' too"),
        ({"image": torch.zeros(2, 1, 16, 16), "source": torch.zeros(2, 3, 16, 16)}, r"expected \(N, 1, H, W\)"),
        ({"image": torch.zeros(2, 1, 16, 16), "source": torch.zeros(2, 1, 32, 32)}, r"Sources have \(32, 32\)"),
    ],
)
def test_wrong_batches_are_refused(batch: dict[str, Tensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        small().as_batch(batch)


def test_wrong_sources_are_refused() -> None:
    with pytest.raises(ConditionError, match="nearest are 16 x 32"):
        small().sample(1, {"source": torch.zeros(1, 1, 18, 30)})
    with pytest.raises(ConditionError, match="got a source of 'list'"):
        small().sample(1, {"source": [0]})
    with pytest.raises(ConditionError, match="needs a condition with source"):
        small().sample(1)


# Learning -----------------------------------------------------------------------------------------------------------


def test_learns_to_fill_edges() -> None:
    """Baseline: the bare edges, read by the judge of digits, and their distance to the digits."""
    torch.manual_seed(0)
    data = EdgesToDigitsDataModule(batch_size=8)
    model = Pix2Pix((1, 32, 32), num_levels=5, base_channels=8, patch_size=16, lr=1e-3)
    quiet_trainer(max_epochs=1, limit_val_batches=0).fit(model, datamodule=data)
    batch = data.datasets["test"].__getitems__(range(500))
    made = model.sample(500, {"source": batch["source"]})
    judge = DigitFeatures()
    right, of_edges = ((judge(x).logits.argmax(1) == batch["label"]).float().mean() for x in (made, batch["source"]))
    assert right > of_edges + 0.2
    assert (made - batch["image"]).abs().mean() < 0.5 * (batch["source"] - batch["image"]).abs().mean()
