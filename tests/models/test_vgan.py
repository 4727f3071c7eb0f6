"""Exact tests of the videos with scene dynamics, and a real training."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gen.datamodules import DigitScenesDataModule
from lightning_gen.errors import ConditionError, DataError
from lightning_gen.functional import mask_iou, mean_frame_difference, moving_pixels
from lightning_gen.models import VGAN
from lightning_gen.models.vgan import Streams
from tests.digits import quiet_trainer

SHAPE = (3, 8, 16, 16)


def small_vgan(**arguments: object) -> VGAN:
    return VGAN(SHAPE, **{"latent_dim": 4, "base_channels": 2, **arguments})


def scenes(number: int, **arguments: object) -> Tensor:
    """Clips of the digits, `(number, 3, 8, 16, 16)`."""
    data = DigitScenesDataModule(image_size=16, digit_size=8, num_frames=8, held_out_size=number, **arguments)
    data.setup()
    return data.datasets["val"].__getitems__(range(number))["video"]


def batches_of(videos: Tensor, size: int) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader([{"video": video} for video in videos], batch_size=size)


def numel(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture(scope="module")
def published() -> VGAN:
    torch.manual_seed(0)
    return VGAN()


def test_published_sizes(published: VGAN) -> None:
    """Layer by layer: kernels with biases, two numbers for each normalised channel."""
    normalised = 2 * (512 + 256 + 128 + 64)
    hidden_widths = (512, 256), (256, 128), (128, 64)
    foreground = 100 * 512 * 32 + 512 + sum(before * after * 64 + after for before, after in hidden_widths)
    foreground += 64 * 3 * 64 + 3 + normalised
    background = 100 * 512 * 16 + 512 + sum(before * after * 16 + after for before, after in hidden_widths)
    background += 64 * 3 * 16 + 3 + normalised
    mask = 64 * 64 + 1
    assert numel(published.generator) == foreground + background + mask == 16_245_383
    assert numel(VGAN(streams="one").generator) == foreground == 12_663_619
    assert numel(published.discriminator) == 11_057_858


def test_published_sizes_of_the_conditional_networks() -> None:
    with torch.device("meta"):
        model = VGAN(conditional=True)
    assert numel(model.generator) == 68_216_455
    convolutions = [m for m in model.discriminator.modules() if isinstance(m, nn.Conv3d)]
    assert [m.out_channels for m in convolutions] == [128, 256, 512, 1024, 2]


@pytest.mark.parametrize("conditional", [False, True])
def test_published_maps(conditional: bool) -> None:
    with torch.device("meta"):
        model = VGAN(conditional=conditional)
        given = torch.empty(2, 3, 64, 64) if conditional else torch.empty(2, 100)
        videos = torch.empty(2, 3, 32, 64, 64)
    width = 128 if conditional else 64
    seen: list[tuple[int, ...]] = []
    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            module.register_forward_hook(lambda module, inputs, maps: seen.append(tuple(maps.shape[1:])))
    foreground, mask, background = model.generator(given)
    assert (foreground.shape, mask.shape, background.shape) == (videos.shape, (2, 1, 32, 64, 64), (2, 3, 64, 64))
    encoder = [(128, 32, 32), (256, 16, 16), (512, 8, 8), (1024, 4, 4)] if conditional else []
    moving = [(width * c, t, 2 * t, 2 * t) for c, t in ((8, 2), (4, 4), (2, 8), (1, 16))]
    heads = [(3, 32, 64, 64), (1, 32, 64, 64)]
    still = [(width * c, s, s) for c, s in ((8, 4), (4, 8), (2, 16), (1, 32))][conditional:]
    assert seen == [*encoder, *moving, *heads, *still, (3, 64, 64)]
    seen.clear()
    assert model.discriminator(videos).shape == (2, 2)
    assert seen == [(width * c, t, 2 * t, 2 * t) for c, t in ((1, 16), (2, 8), (4, 4), (8, 2))] + [(2, 1, 1, 1)]


def test_published_initialisation_starts_from_an_even_blend(published: VGAN) -> None:
    for module in published.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            n = module.weight.numel()
            assert module.weight.mean().item() == pytest.approx(0, abs=4 * 0.01 / n**0.5)
            assert module.weight.std().item() == pytest.approx(0.01, abs=4 * 0.01 / (2 * n) ** 0.5)
            assert not module.bias.any()
        elif isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            assert module.weight.std().item() == pytest.approx(0.02, abs=0.01)
            assert not module.bias.any()
    eps = {m.eps for m in published.discriminator.modules() if isinstance(m, nn.BatchNorm3d)}
    assert eps == {1e-3}
    encoder = VGAN((3, 16, 16, 16), base_channels=2, conditional=True).generator.encoder
    assert {m.eps for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}  # main_conditional.lua
    with torch.no_grad():
        mask = published.generator(published.sample_latent(2)).mask
    # Of the sum of 512 products with weights of deviation 0.01, half of them with zeros: 0.16, a quarter of it in m.
    assert (mask - 0.5).square().mean().sqrt().item() == pytest.approx(0.04, abs=0.01)


@pytest.mark.parametrize("shape", [(3, 16, 64, 48), (3, 32, 48, 48), (3, 24, 64, 64), (3, 8, 4, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"32 of 64 x 64, 16 of 32 x 32") as error:
        VGAN(shape)
    assert str(shape) in str(error.value)


def random_streams() -> Streams:
    torch.manual_seed(0)
    return Streams(torch.randn(2, 3, 5, 4, 4), torch.rand(2, 1, 5, 4, 4), torch.randn(2, 3, 4, 4))


def test_the_mask_blends_foreground_and_background() -> None:
    foreground, mask, background = random_streams()
    assert torch.equal(Streams(foreground, torch.ones_like(mask), background).video, foreground)
    still = Streams(foreground, torch.zeros_like(mask), background).video
    assert all(torch.equal(still[:, :, t], background) for t in range(5))
    video, repeated = random_streams().video, background[:, :, None].expand_as(foreground)
    assert (video >= torch.minimum(foreground, repeated) - 1e-6).all()
    assert (video <= torch.maximum(foreground, repeated) + 1e-6).all()
    assert torch.equal(Streams(foreground, None, None).video, foreground)


def test_the_background_gathers_its_gradient_over_time() -> None:
    foreground, mask, background = random_streams()
    background.requires_grad_()
    (gradient,) = torch.autograd.grad(Streams(foreground, mask, background).video.sum(), background)
    torch.testing.assert_close(gradient, (1 - mask).sum(2).expand_as(gradient))


def test_one_stream_is_two_with_the_mask_at_one() -> None:
    torch.manual_seed(0)
    two, one = small_vgan().eval(), small_vgan(streams="one").eval()
    missing, unexpected = one.generator.load_state_dict(two.generator.state_dict(), strict=False)
    assert not missing
    assert all(name.startswith(("mask", "background")) for name in unexpected)
    z = two.sample_latent(3)
    foreground, mask, background = two.generator(z)
    assert torch.equal(one.generator(z).video, Streams(foreground, torch.ones_like(mask), background).video)


def test_the_mask_is_made_of_the_features_and_not_of_the_foreground() -> None:
    model = small_vgan()
    seen: list[Tensor] = []
    for head in (model.generator.foreground, model.generator.mask):
        head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.generator(model.sample_latent(2))
    assert seen[0] is seen[1]
    assert seen[0].shape == (2, 2, 4, 8, 8)


def test_the_penalty_is_on_the_mean_of_the_mask() -> None:
    mask = torch.rand(2, 1, 8, 16, 16, dtype=torch.float64, requires_grad=True)
    videos = torch.zeros(2, *SHAPE)
    (gradient,) = torch.autograd.grad(small_vgan().penalty(mask, videos, videos[:, :, 0]), mask)
    torch.testing.assert_close(gradient, torch.full_like(mask, 0.1 / mask.numel()))
    assert small_vgan(streams="one").penalty(None, videos, videos[:, :, 0]) == 0


def test_the_conditional_penalty_is_on_the_first_frame_alone() -> None:
    torch.manual_seed(0)
    fake = torch.randn(2, *SHAPE, dtype=torch.float64, requires_grad=True)
    still, mask = torch.randn(2, 3, 16, 16, dtype=torch.float64), torch.rand(2, 1, 8, 16, 16)
    (gradient,) = torch.autograd.grad(small_vgan(conditional=True).penalty(mask, fake, still), fake)
    torch.testing.assert_close(gradient[:, :, 0], 10 * (fake[:, :, 0] - still).sign() / still.numel())
    assert not gradient[:, :, 1:].any()


def test_two_logits_are_one_of_their_difference() -> None:
    torch.manual_seed(0)
    model = small_vgan().double()
    nn.init.normal_(model.discriminator.output.weight)
    videos = 2 * scenes(4).double() - 1
    logits = model.discriminator(videos)
    for label, loss in ((0, F.softplus(-model.judge(videos))), (1, F.softplus(model.judge(videos)))):
        torch.testing.assert_close(F.cross_entropy(logits, torch.full((4,), label), reduction="none"), loss)


def test_layers_slide_over_larger_videos() -> None:
    """Both networks are convolutions: a larger input gives larger maps, and the same ones away from the borders."""
    model = small_vgan().eval()
    maps = model.discriminator.layers(torch.rand(1, 3, 8, 32, 32))
    assert maps.shape == (1, 4, 2, 8, 8)
    videos = torch.rand(1, 3, 8, 16, 16)
    wide = model.discriminator.layers(torch.cat([videos, videos.flip(-1)], -1))
    torch.testing.assert_close(wide[..., :3], model.discriminator.layers(videos)[..., :3])
    features = model.generator.features[2:](torch.rand(1, 4, 2, 8, 8))
    assert features.shape == (1, 2, 4, 16, 16)


@pytest.mark.parametrize("number", [1, 5])
def test_a_batch_of_one_is_refused(number: int) -> None:
    with pytest.raises(DataError, match="training videos in batches of 4 leave a single one"):
        quiet_trainer(max_epochs=1).fit(small_vgan(), batches_of(scenes(number), 4))


def test_samples_are_their_streams_and_begin_with_no_squeeze() -> None:
    model = small_vgan()
    streams, videos = (f(1, generator=torch.Generator().manual_seed(0)) for f in (model.sample_streams, model.sample))
    torch.testing.assert_close(streams.video, videos)
    assert videos.shape == (1, *SHAPE)
    assert all(0 <= part.min() <= part.max() <= 1 for part in (*streams, videos))


def test_still_frames_are_checked() -> None:
    model = small_vgan(conditional=True)
    assert model.sample(2, {"image": torch.rand(2, 3, 16, 16)}).shape == (2, *SHAPE)
    with pytest.raises(ConditionError, match=r"\(3, 32, 32\).*\(3, 16, 16\)"):
        model.sample(2, {"image": torch.rand(2, 3, 32, 32)})
    with pytest.raises(ConditionError, match="needs a condition with image"):
        model.sample(2)
    with pytest.raises(ConditionError, match="it takes no condition"):
        small_vgan().sample(2, {"image": torch.rand(2, 3, 16, 16)})


def test_figures_are_those_of_the_samples() -> None:
    class Known(VGAN):
        def sample_streams(self, num_samples: int, condition: object = None, **_: object) -> Streams:
            """White foreground where the first half of the mask is, moving there in every second frame."""
            mask = torch.zeros(num_samples, 1, *SHAPE[1:])
            mask[:, :, 5:, :8] = 1
            return Streams(torch.ones(num_samples, *SHAPE), mask, torch.zeros(num_samples, 3, 16, 16))

    model = Known(SHAPE, base_channels=2)
    (figures,) = quiet_trainer().validate(model, batches_of(torch.zeros(4, *SHAPE), 2), verbose=False)
    assert figures["val/mask"] == pytest.approx(3 / 8 / 2)
    assert figures["val/mask_iou"] == pytest.approx(1)
    assert figures["val/motion"] == pytest.approx(1 / 7 / 2)
    assert figures["val/motion_real"] == 0
    assert {f"val/{name}" for name in model.figure_protocols("val")} >= set(figures)


def test_motion_of_real_clips_is_where_the_digit_is() -> None:
    videos = scenes(20)
    moving = moving_pixels(videos)
    assert 0.02 < moving.float().mean() < 0.3
    assert mean_frame_difference(videos) > 0.01
    assert mean_frame_difference(videos[:, :, :1].expand_as(videos)) == 0
    still = videos.median(2, keepdim=True).values.expand_as(videos)
    assert not moving_pixels(still).any()
    assert mask_iou(moving, moving) == 1
    assert mask_iou(moving & False, moving & False) == 1
    assert mask_iou(moving, ~moving) == 0


def test_learns_to_begin_with_the_still_frame_and_to_move() -> None:
    """Baseline: the mean of all training frames, whatever is given."""
    torch.manual_seed(0)
    train, held_out = scenes(320), scenes(400)[320:]
    model = VGAN(SHAPE, conditional=True, base_channels=8, discriminator_channels=4, init_std=0.02, lr=2e-3)
    trainer = quiet_trainer(max_epochs=5, limit_val_batches=0)
    trainer.fit(model, torch.utils.data.DataLoader([{"video": video} for video in train], 8, shuffle=True))
    videos, still = model.sample(80, {"image": held_out[:, :, 0]}), held_out[:, :, 0]
    baseline = (still - train.mean((0, 2))).abs().mean()
    error = (videos[:, :, 0] - still).abs().mean()
    assert error < 0.7 * baseline  # 0.50 with this seed.
    assert mean_frame_difference(videos) > 0.5 * mean_frame_difference(held_out)
