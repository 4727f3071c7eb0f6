"""Exact tests of GAWWN, and a real training."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gen.datamodules import PlacedDigitsDataModule
from lightning_gen.datamodules.placed_digits import COLOURS, captions
from lightning_gen.errors import ConditionError, DataError
from lightning_gen.functional.placement import box_iou, ink_box
from lightning_gen.models import GAWWN
from lightning_gen.models.gawwn import BoxDiscriminator, BoxGenerator, KeypointDiscriminator, KeypointGenerator, mask
from tests.digits import quiet_trainer

BIRDS = (3, 128, 128)
WORDS = sorted({w.strip(",") for d in range(10) for c in COLOURS for text in captions(d, c) for w in text.split()})
BAG: dict[str, Any] = {
    "text_dim": len(WORDS),
    "encoder": "lightning_gen.nn.BagOfWords",
    "encoder_args": {"words": WORDS},
}


def small(location: Any, **arguments: Any) -> GAWWN:
    """16 x 16 images and embeddings of 5 numbers, with weights that matter."""
    torch.manual_seed(0)
    sizes = {"text_dim": 5, "latent_dim": 3, "base_channels": 4, "discriminator_channels": 4, "text_channels": 3}
    model = GAWWN((1, 16, 16), location, num_keypoints=2, map_size=8, **{**sizes, **arguments})
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, std=0.3)
    return model


def condition(location: str, number: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(number, 2, generator=generator) / 2
    places = {"box": torch.cat([corners, 0.25 + corners / 2], 1), "keypoints": torch.ones(number, 2, 3)}
    places["keypoints"][..., :2] = torch.rand(number, 2, 2, generator=generator)
    return {"text_embedding": torch.randn(number, 5, generator=generator), location: places[location]}


# The networks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "arguments", "published"),
    [
        (KeypointGenerator, (BIRDS, 15, 1024, 100, 128, 16), 26_471_043),
        (KeypointDiscriminator, (BIRDS, 15, 1024, 128, 128, 16), 14_667_905),
        (BoxGenerator, (BIRDS, 1024, 100, 128, 16), 73_545_699),
        (BoxDiscriminator, (BIRDS, 1024, 128, 128, 16), 16_763_137),
    ],
)
def test_published_sizes(network: type[nn.Module], arguments: Any, published: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in network(*arguments).parameters()) == published


@pytest.mark.parametrize("location", ["box", "keypoints"])
@pytest.mark.parametrize(("side", "size"), [(128, 16), (64, 16), (32, 16), (32, 8)])
def test_sides(location: Any, side: int, size: int) -> None:
    model = GAWWN(
        (3, side, side), location, 2, 5, base_channels=4, discriminator_channels=2, text_channels=2, map_size=size
    )
    images = model.sample(2, condition(location, 2))
    assert images.shape == (2, 3, side, side)
    features = model.discriminator.trunk(images)
    assert features.shape == (2, 4, size, size)
    place = model.place(condition(location, 2))
    assert model.discriminator(features, place, torch.zeros(2, 5)).shape == (2, 1)


def test_the_trunk_sees_the_image_once_for_both_paths_and_its_first_layer_is_not_normalised() -> None:
    model = GAWWN(text_dim=5, base_channels=4, discriminator_channels=2)
    kinds = [type(m).__name__ for m in model.discriminator.trunk.modules() if not isinstance(m, nn.Sequential)]
    layer = ["Conv2d", "LeakyReLU"]
    normalised = ["Conv2d", "BatchNorm2d", "LeakyReLU"]
    assert kinds == [*layer, *layer, *normalised, *normalised]


def test_what_lies_outside_the_box_comes_from_the_global_path_alone() -> None:
    model = small("box").double().eval()
    generator: Any = model.generator
    seen: list[Tensor] = []
    generator.merge.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    box = torch.tensor([[0.5, 0.5, 0.5, 0.5]], dtype=torch.float64)
    generator(torch.randn(1, 3).double(), box, torch.randn(1, 5).double())
    local = seen[0][0, 8:]
    assert not local[:, :3].any()  # Cells of the upper half, one next to the border apart.
    assert not local[:, :, :3].any()
    assert local[:, 4:, 4:].any()


def test_without_keypoints_the_region_knows_no_caption() -> None:
    model = small("keypoints").double().eval()
    generator: Any = model.generator
    seen: list[Tensor] = []
    generator.region.register_forward_hook(lambda _module, _given, result: seen.append(result))
    z, text = torch.randn(2, 3).double(), torch.randn(2, 5).double()
    for maps in (torch.zeros(2, 2, 8, 8).double(), torch.ones(2, 2, 8, 8).double()):
        generator(z, maps, text)
    nowhere, everywhere = seen
    torch.testing.assert_close(nowhere[0], nowhere[1])
    assert not torch.allclose(everywhere[0], everywhere[1])


def test_the_mask_counts_a_cell_once() -> None:
    maps = torch.zeros(1, 3, 4, 4)
    maps[0, 0, 1, 2] = maps[0, 1, 1, 2] = maps[0, 2, 3, 3] = 1
    assert mask(maps).sum() == 2
    assert mask(maps).shape == (1, 1, 4, 4)


def test_keypoints_matter_by_their_cells_alone() -> None:
    model = small("keypoints").eval()
    z, given = model.sample_latent(2), condition("keypoints", 2)
    images = model.decode(z, given)
    absent, moved, within = (dict(given, keypoints=given["keypoints"].clone()) for _ in range(3))
    within["keypoints"][..., :2] = (within["keypoints"][..., :2] * 8).round().clamp(1, 8) / 8
    torch.testing.assert_close(model.decode(z, within), images)
    moved["keypoints"][:, 0, 0] = 1 - moved["keypoints"][:, 0, 0].round()
    assert not torch.allclose(model.decode(z, moved), images)
    absent["keypoints"][:, 0] = 0
    elsewhere = dict(given, keypoints=absent["keypoints"].clone())
    elsewhere["keypoints"][:, 0, :2] = 0.7
    torch.testing.assert_close(model.decode(z, absent), model.decode(z, elsewhere))


# Training -----------------------------------------------------------------------------------------------------------


class Recorded(GAWWN):
    """What the losses of each update are, and which networks it moves."""

    def step(self, *updates: tuple[Any, Tensor]) -> None:
        before = {name: value.clone() for name, value in self.named_parameters()}
        super().step(*updates)
        moved = {name.split(".")[0] for name, value in self.named_parameters() if (value != before[name]).any()}
        self.__dict__.setdefault("updates", []).append(([loss.item() for _, loss in updates], moved))


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("location", ["box", "keypoints"])
def test_a_step_is_the_published_one(location: Any, joint: bool) -> None:
    """-log D(x, l, t) - (log(1 - D(x, l, t')) + log(1 - D(G)))/2, and -log D(G) by the same D."""
    torch.manual_seed(0)
    arguments = {"text_dim": 5, "latent_dim": 3, "base_channels": 4, "discriminator_channels": 4, "text_channels": 3}
    model = Recorded((1, 16, 16), location, 2, map_size=8, joint_normalization=joint, **arguments).double()
    shown: list[tuple[Tensor, Tensor]] = []
    model.discriminator.register_forward_hook(lambda _module, given, logits: shown.append((given[2], logits)))
    batch = {"image": torch.rand(6, 1, 16, 16), **condition(location, 6)}
    batch = {key: value.double() for key, value in batch.items()}
    quiet_trainer(max_epochs=1, limit_val_batches=0, precision="64-true").fit(model, DataLoader([batch], None))  # type: ignore[arg-type]

    if joint:  # One batch of real images twice, and generated ones.
        ((texts, logits),) = shown
        shown = list(zip(texts.chunk(3), logits.chunk(3), strict=True))
    (own, real), (others, mismatched), (of_fake, fake) = shown
    for text in (own, of_fake):
        torch.testing.assert_close(text, batch["text_embedding"])
    assert not torch.equal(others, own)
    assert sorted(others[:, 0].tolist()) == sorted(own[:, 0].tolist())  # A permutation.
    log_d, log_not = (lambda x: x.sigmoid().log().mean().item()), (lambda x: (1 - x.sigmoid()).log().mean().item())
    ((losses, moved),) = model.updates
    assert losses == pytest.approx([-log_d(real) - 0.5 * log_not(mismatched) - 0.5 * log_not(fake), -log_d(fake)])
    assert moved == {"discriminator", "generator"}


def test_a_joint_batch_keeps_what_sets_generated_images_apart() -> None:
    """Where all real images are alike, and all generated ones: by themselves they are normalised to the same."""
    model = small("keypoints").double()
    given = {
        key: value[:1].repeat(4, *[1] * (value.ndim - 1)).double() for key, value in condition("keypoints", 1).items()
    }
    images, fake = torch.rand(2, 1, 1, 16, 16).double().repeat(1, 4, 1, 1, 1)
    arguments = (images, fake, model.place(given), given["text_embedding"])
    apart = model.judge(*arguments)
    model.joint_normalization = True
    joint = model.judge(*arguments)
    torch.testing.assert_close(apart[0], apart[2], rtol=0, atol=1e-3)
    assert (joint[0] - joint[2]).abs().min() > 0.1


def test_where_nothing_can_be_told_apart_the_loss_is_2_log_2() -> None:
    from lightning_gen.models.gan_int_cls import cls_loss

    zero = torch.zeros(3, 1)
    assert cls_loss(zero, zero, zero, 0.5).item() == pytest.approx(2 * math.log(2))


def test_step_sizes_are_halved() -> None:
    model = small("box", halve_every_n_epochs=2, lr=0.8)
    batch = {"image": torch.rand(4, 1, 16, 16), **condition("box", 4)}
    rates: list[float] = []
    model.on_train_epoch_start = lambda: rates.append(model.optimizers()[0].param_groups[0]["lr"])  # type: ignore
    quiet_trainer(max_epochs=5, limit_val_batches=0).fit(model, DataLoader([batch], None))  # type: ignore[arg-type]
    assert rates == pytest.approx([0.8, 0.8, 0.4, 0.4, 0.2])


# What is asked for --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([0.5, 0.1, 0.6, 0.4], r"The box \[0.5, 0.1, 0.6, 0.4\] reaches beyond the image; expected left, top"),
        ([-0.1, 0.1, 0.6, 0.4], "reaches beyond"),
        ([0.1, 0.1, 0.0, 0.4], "has no area"),
        ([0.1, 0.1, 0.4, -0.4], "has no area"),
        ([0.1, math.nan, 0.4, 0.4], "reaches beyond"),
        ([0.1, 0.2, 0.4], r"box is float32 \(1, 3\); expected floats \(N, 4\)"),
    ],
)
def test_boxes_that_are_none(box: list[float], message: str) -> None:
    given = {"text_embedding": torch.zeros(1, 5), "box": torch.tensor([box])}
    with pytest.raises(ConditionError, match=message):
        small("box").sample(1, given)
    with pytest.raises(DataError, match=message):
        small("box").as_batch({"image": torch.zeros(1, 1, 16, 16), **given})


def test_a_box_to_the_border_is_one() -> None:
    box = torch.tensor([[0.7, 0.3, 0.3, 0.7], [0.0, 0.0, 1.0, 1.0]])  # 0.7 + 0.3 is not always 1.
    small("box").sample(2, {"text_embedding": torch.zeros(2, 5), "box": box})


@pytest.mark.parametrize(
    ("keypoints", "message"),
    [
        ([[0.1, 0.2, 1.0]], r"float32 \(1, 1, 3\); expected floats \(N, 2, 3\)"),
        ([[0.1, 0.2, 1.0], [0.1, 1.2, 1.0]], r"Keypoint 1 is \[0.1, 1.2, 1.0\]; expected"),
        ([[math.nan, 0.2, 1.0], [0.1, 0.2, 1.0]], "Keypoint 0 is"),
    ],
)
def test_keypoints_that_are_none(keypoints: list[list[float]], message: str) -> None:
    with pytest.raises(ConditionError, match=message):
        small("keypoints").sample(1, {"text_embedding": torch.zeros(1, 5), "keypoints": torch.tensor([keypoints])})


def test_a_missing_place_is_named() -> None:
    with pytest.raises(ConditionError, match=r"needs the condition \['box'\]"):
        small("box").sample(1, {"text_embedding": torch.zeros(1, 5)})
    with pytest.raises(DataError, match="location=keypoints needs it there too"):
        small("keypoints").as_batch({"image": torch.zeros(1, 1, 16, 16), "text_embedding": torch.zeros(1, 5)})


@pytest.mark.parametrize("arguments", [{"image_shape": (3, 48, 48)}, {"image_shape": (3, 64, 32)}, {"map_size": 12}])
def test_other_sides_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="side of map_size doubled once or more, and maps of 8, 16 or 32"):
        GAWWN(**{"image_shape": (3, 64, 64), "base_channels": 4, "discriminator_channels": 4, **arguments})


def test_captions_of_words() -> None:
    model = small("box", **BAG).eval()
    box = torch.tensor([[0.1, 0.1, 0.5, 0.5]])
    assert model.text_dim == len(WORDS)
    z = model.sample_latent(1)
    red, green = (model.decode(z, {"caption": [text], "box": box}) for text in ("a red seven", "A green, seven!"))
    assert not torch.allclose(red, green)
    again = model.decode(z, {"caption": ["seven, a red"], "box": box})  # Which words, not in which order.
    torch.testing.assert_close(red, again)
    with pytest.warns(UserWarning, match=r"never seen 'rad', which is left out; the nearest that it knows: red"):
        model.sample(1, {"caption": ["a rad seven"], "box": box})


# Learning -----------------------------------------------------------------------------------------------------------


def test_learns_where() -> None:
    """Baseline: a generator that does not heed the box and draws digits at other images' boxes."""
    torch.manual_seed(0)
    data = PlacedDigitsDataModule(batch_size=16)
    model = GAWWN(
        (3, 32, 32),
        "box",
        **BAG,
        base_channels=16,
        discriminator_channels=16,
        text_channels=16,
        map_size=8,
        joint_normalization=True,
        lr=1e-3,
    )
    quiet_trainer(max_epochs=2, limit_train_batches=225, limit_val_batches=0).fit(model, datamodule=data)
    held_out: Any = data.datasets["val"]
    batch = held_out.__getitems__(range(200))
    found = ink_box(model.sample(200, {key: batch[key] for key in model.condition_keys}).amax(1))
    others = box_iou(batch["box"], batch["box"].roll(1, 0)).mean()
    reached = box_iou(found, batch["box"]).mean()
    print(f"{reached:.3f}, {others:.3f} at others' boxes")
    assert reached > others + 0.1
