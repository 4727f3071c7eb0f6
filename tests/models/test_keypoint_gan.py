"""Exact tests of the conditional keypoint generator, and a real training."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gen.callbacks import SampleGrid
from lightning_gen.datamodules import PlacedDigitsDataModule
from lightning_gen.errors import ConditionError, DataError
from lightning_gen.functional.mmd import median_bandwidth, mmd2
from lightning_gen.models import GAWWN, KeypointGAN
from tests.digits import quiet_trainer
from tests.models.test_gawwn import BAG


def small(**arguments: Any) -> KeypointGAN:
    torch.manual_seed(0)
    sizes = {"text_dim": 4, "latent_dim": 3, "base_channels": 2, "discriminator_channels": 2}
    model = KeypointGAN(3, **{**sizes, **arguments})
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.5)
    return model


def test_published_sizes() -> None:
    model = KeypointGAN()
    assert sum(p.numel() for p in model.generator.parameters()) == 2_715_949
    assert sum(p.numel() for p in model.discriminator.parameters()) == 946_177


@pytest.mark.parametrize(
    "model",
    [KeypointGAN(), GAWWN(location="box"), GAWWN(location="keypoints")],
    ids=["keypoints alone", "box", "keypoints"],
)
def test_published_first_weights(model: nn.Module) -> None:
    """The authors' weights_init (main_gen_keypoints.lua, main_cub_bbox.lua) leaves linear layers to Torch."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            assert module.weight.std().item() == pytest.approx(bound / 3**0.5, rel=2 / module.weight.numel() ** 0.5)
            assert module.weight.abs().max().item() <= 1.0001 * bound
            assert 0 < module.bias.abs().max().item() <= 1.0001 * bound
        elif isinstance(module, nn.modules.conv._ConvNd) and module.weight.numel() > 1000:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_the_step_size_is_halved_as_published() -> None:
    (first, _), (schedule, _) = KeypointGAN().configure_optimizers()
    for epoch in range(200):
        assert first.param_groups[0]["lr"] == 2e-4 / 2 ** (epoch // 100)
        first.step()
        schedule.step()


def test_given_keypoints_come_back_bit_by_bit_and_do_not_move() -> None:
    model = small().eval()
    z, text = model.sample_latent(4).requires_grad_(), torch.randn(4, 4)
    keypoints = torch.rand(4, 3, 3)
    switches = torch.tensor([1.0, 0.0, 1.0]).view(1, 3, 1).expand(4, -1, -1)
    drawn = model.complete(z, text, keypoints, switches)
    assert torch.equal(drawn[:, [0, 2]], keypoints[:, [0, 2]])
    (gradient,) = torch.autograd.grad(drawn[:, 1].sum(), z, retain_graph=True)
    assert gradient.abs().sum() > 0
    (gradient,) = torch.autograd.grad(drawn[:, [0, 2]].sum(), z, allow_unused=True)
    assert gradient is None or not gradient.any()
    everything = model.complete(z, text, keypoints, torch.ones(4, 3, 1))
    assert torch.equal(everything, keypoints)


def test_what_is_not_given_is_not_seen() -> None:
    model = small().eval()
    z, text, keypoints = model.sample_latent(2), torch.randn(2, 4), torch.rand(2, 3, 3)
    switches = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1).expand(2, -1, -1)
    other = keypoints.clone()
    other[:, 1:] = torch.rand(2, 2, 3)
    assert torch.equal(model.complete(z, text, keypoints, switches), model.complete(z, text, other, switches))
    other[:, 0] = torch.rand(2, 3)
    assert not torch.equal(
        model.complete(z, text, keypoints, switches)[:, 1:], model.complete(z, text, other, switches)[:, 1:]
    )


def test_one_keypoint_in_ten_is_given() -> None:
    torch.manual_seed(0)
    switches = KeypointGAN(num_keypoints=10, text_dim=2, base_channels=1, discriminator_channels=1).draw_switches(
        10_000
    )
    assert set(switches.unique().tolist()) == {0.0, 1.0}
    assert switches.mean().item() == pytest.approx(0.1, abs=3 * math.sqrt(0.09 / 1e5))


def test_a_condition_gives_some_keypoints_or_none() -> None:
    model = small().eval()
    text = torch.randn(2, 4)
    drawn = model.sample(2, {"text_embedding": text}, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (2, 3, 3)
    assert ((drawn > 0) & (drawn < 1)).all()
    given = torch.full((2, 3, 3), torch.nan)
    given[:, 1] = torch.tensor([0.25, 0.5, 1.0])
    given[1, 2] = 0  # A part that is not there.
    drawn = model.sample(2, {"text_embedding": text, "keypoints": given})
    assert torch.equal(drawn[:, 1], given[:, 1])
    assert torch.equal(drawn[1, 2], torch.zeros(3))
    assert drawn.isfinite().all()


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({}, r"needs the condition \['text_embedding'\]"),
        ({"text_embedding": torch.zeros(1, 5)}, r"expected \(N, 4\) or \(N, K, 4\)"),
        ({"text_embedding": torch.zeros(1, 4), "keypoints": torch.zeros(1, 2, 3)}, r"expected floats \(N, 3, 3\)"),
        ({"text_embedding": torch.zeros(1, 4), "keypoints": torch.full((1, 3, 3), 2.0)}, "Keypoint 0 is"),
    ],
)
def test_conditions_that_are_none(condition: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ConditionError, match=message):
        small().sample(1, condition)


def test_arguments_that_are_none() -> None:
    with pytest.raises(DataError, match="num_keypoints=0"):
        KeypointGAN(0)
    with pytest.raises(DataError, match=r"shape \(2, 3\), the model was made for"):
        small().as_batch({"keypoints": torch.zeros(4, 2, 3), "text_embedding": torch.zeros(4, 4)})


@pytest.mark.parametrize("joint", [False, True])
def test_a_step_is_the_plain_game(joint: bool) -> None:
    """-log D(k, t) - log(1 - D(G, t)), each at weight 1 and without a wrong caption; and -log D(G, t)."""

    class Recorded(KeypointGAN):
        def step(self, *updates: tuple[Any, Tensor]) -> None:
            losses.extend(loss.item() for _, loss in updates)
            super().step(*updates)

    losses: list[float] = []
    shown: list[tuple[Tensor, Tensor, Tensor]] = []
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"text_dim": 4, "latent_dim": 3, "base_channels": 2, "discriminator_channels": 2}
    model = Recorded(3, joint_normalization=joint, **sizes).double()
    model.discriminator.register_forward_hook(lambda _module, given, logits: shown.append((*given, logits)))
    batch = {"keypoints": torch.rand(5, 3, 3).double(), "text_embedding": torch.randn(5, 4).double()}
    quiet_trainer(max_epochs=1, limit_val_batches=0, precision="64-true").fit(model, DataLoader([batch], None))  # type: ignore[arg-type]
    if joint:
        shown = list(zip(*(value.chunk(2) for value in shown[0]), strict=True))  # type: ignore[arg-type]
    (keypoints, own, real), (drawn, of_fake, fake) = shown
    assert torch.equal(own, batch["text_embedding"])
    assert torch.equal(of_fake, batch["text_embedding"])
    assert torch.equal(keypoints, batch["keypoints"])
    assert not torch.equal(drawn, keypoints)
    log_d, log_not = (lambda x: x.sigmoid().log().mean().item()), (lambda x: (1 - x.sigmoid()).log().mean().item())
    assert losses == pytest.approx([-log_d(real) - log_not(fake), -log_d(fake)])


def test_samples_are_drawn_as_points(tmp_path: Path) -> None:
    model = KeypointGAN(5, **BAG, base_channels=2, discriminator_channels=2, latent_dim=3)
    settings: dict[str, Any] = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1}
    trainer = quiet_trainer(default_root_dir=tmp_path, callbacks=[SampleGrid(4, num_columns=2)], **settings)
    trainer.fit(model, datamodule=PlacedDigitsDataModule(batch_size=8))
    (picture,) = tmp_path.rglob("epoch=0000.png")
    assert Image.open(picture).size == (2 * 32 + 3 * 2,) * 2


def test_learns_where_parts_are() -> None:
    """Baseline: keypoints drawn uniformly; the upper end of a digit is not below the lower one."""
    torch.manual_seed(0)
    model = KeypointGAN(
        5, **BAG, base_channels=16, discriminator_channels=16, latent_dim=20, joint_normalization=True, lr=1e-3
    )
    data = PlacedDigitsDataModule(batch_size=64)
    quiet_trainer(max_epochs=10, limit_val_batches=0).fit(model, datamodule=data)
    (scores,) = quiet_trainer().validate(model, datamodule=data, verbose=False)
    real: Any = data.datasets["val"]
    uniform = torch.rand(500, 15)
    uniform[:, 2::3] = 1
    keypoints = real.columns["keypoints"].flatten(1)
    baseline = mmd2(keypoints, uniform, [median_bandwidth(keypoints, keypoints)])
    assert 0 < scores["val/mmd2"] < baseline / 2
    drawn = model.sample(500, {"caption": ["a red seven"] * 500})
    x, y = drawn[..., 0], drawn[..., 1]
    ordered = (y[:, 0] < y[:, 4]) & (y[:, 4] < y[:, 1]) & (x[:, 2] < x[:, 4]) & (x[:, 4] < x[:, 3])
    assert ordered.float().mean() > 0.5  # 1 in 36 for uniform ones.
    assert (drawn[..., 2] > 0.5).float().mean() > 0.9
