"""VPN: what each logit may see, units and parameters of the paper, likelihoods that sum to one, samples."""

import io
import itertools
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageSequence
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

from lightning_gen.callbacks.videos import write_gif
from lightning_gen.cli import main
from lightning_gen.datamodules import MovingDigitsDataModule
from lightning_gen.errors import ConditionError, DataError, LightningGenError
from lightning_gen.functional import bernoulli_entropy
from lightning_gen.models import VPN
from lightning_gen.models.vpn import MultiplicativeBlock, convolution, multiplicative_unit
from tests.digits import quiet_trainer
from tests.test_cli import one_line_error

KINDS: dict[str, dict[str, Any]] = {
    "multiplicative": {"block": "multiplicative"},
    "relu": {"block": "relu"},
    "independent": {"decoder": "independent"},
}


def small(video_shape: tuple[int, ...] = (1, 3, 4, 5), context_frames: int = 0, **options: Any) -> VPN:
    """A model in float64 with weights that let everything through."""
    sizes = {"channels": 4, "encoder_blocks": 1, "decoder_blocks": 2, "head_size": 6, "dilations": (1, 2)}
    torch.manual_seed(0)
    model = VPN(video_shape, context_frames, **{**sizes, **options}).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def influence(model: VPN) -> Tensor:
    """Which input changes which logit, `(C, T, H, W, T, C, H, W)`: by a change of each, exactly."""
    colours, num_frames, height, width = model.image_shape
    torch.manual_seed(1)
    video = torch.rand(1, *model.image_shape, dtype=torch.float64)
    changed = video.repeat(video.numel(), 1, 1, 1, 1)
    changed.view(video.numel(), -1).diagonal().add_(0.25)
    with torch.no_grad():
        moved = model.logits(changed) != model.logits(video.expand_as(changed).contiguous())
    return moved.any(3).view(*model.image_shape, num_frames, colours, height, width)


def past(video_shape: tuple[int, ...]) -> Tensor:
    """Which input comes before which output in the order of frames, rows, columns and colours, as `influence`."""
    colours, num_frames, height, width = video_shape
    order = torch.arange(math.prod(video_shape)).view(num_frames, height, width, colours)
    inputs, outputs = order.permute(3, 0, 1, 2), order.permute(0, 3, 1, 2)
    return inputs[..., None, None, None, None] < outputs


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_no_logit_depends_on_a_later_pixel_colour_or_frame(kind: str, colours: int) -> None:
    """Leaks 1 and 3: the pixel itself through the units' direct term, and colours through layers without a mask."""
    levels = None if colours == 1 else 4
    model = small((colours, 3, 3, 4), levels=levels, channels=11, head_size=25, **KINDS[kind])
    seen = influence(model)
    assert not (seen & ~past(model.image_shape)).any()
    own = torch.stack([seen[:, t, :, :, t] for t in range(3)])  # (T, from C, H, W, to C, H, W): inside a frame
    if kind == "independent":
        assert not own.any()
        return
    for t in range(3):  # Earlier colours of the pixel, and its neighbours on the left and above, are seen.
        for earlier, colour in itertools.combinations(range(colours), 2):
            assert own[t, earlier, 1, 1, colour, 1, 1]
        assert own[t, :, 1, 1, :, 1, 2].all()
        assert own[t, :, 1, 1, :, 2, 1].all()


@pytest.mark.parametrize("kind", KINDS)
def test_frames_see_the_frames_before_and_never_their_own_context(kind: str) -> None:
    """Leak 2: the LSTM's output after a frame is the context of the next one."""
    seen = influence(small((1, 4, 3, 3), **KINDS[kind]))[0, ..., 0, 0, 0]  # The first pixel sees none of its own frame.
    assert torch.equal(seen.any(2).any(1), torch.ones(4, 4, dtype=torch.bool).triu(1))


def test_given_frames_are_seen_and_not_scored() -> None:
    model = small((1, 4, 3, 3), context_frames=2)
    video = torch.rand(2, 1, 4, 3, 3, dtype=torch.float64)
    logits = model.logits(video)
    assert logits.shape == (2, 2, 1, 1, 3, 3)
    torch.testing.assert_close(logits, small((1, 4, 3, 3)).logits(video)[:, 2:])


@pytest.mark.parametrize("kind", ["multiplicative", "relu"])
def test_the_blind_spot_of_3x3_masks(kind: str) -> None:
    """A pixel di rows up and dj columns to the right is seen if dj <= di, and nothing further up than the layers go."""
    model = small((1, 1, 8, 17), channels=16, **KINDS[kind])  # Of many rectified maps some are never silent.
    seen, up = influence(model)[0, 0, :, :, 0, 0, 7, 6], 5  # The first layer, and two in each of two blocks.
    rows, columns = torch.arange(8)[:, None], torch.arange(17)
    above, right = 7 - rows, columns - 6
    reach = (right <= above) & (above <= up) & ((above > 0) | (right < 0)) & (right.abs() <= up)
    assert torch.equal(seen, reach)


@pytest.mark.parametrize(("dilations", "size"), [((1,), 33), ((1, 2, 4, 8), 121)])
def test_receptive_field_of_the_encoder(dilations: tuple[int, ...], size: int) -> None:
    model = VPN((1, 2, 131, 131), 0, channels=1, head_size=1, decoder_blocks=1, dilations=dilations).double()
    for parameter in model.encoder.parameters():
        nn.init.uniform_(parameter, 0.1, 0.2)
    pixel = torch.zeros(1, 1, 131, 131, dtype=torch.float64, requires_grad=True)
    features = model.encoder.blocks(model.encoder.stem(pixel), None)
    (gradient,) = torch.autograd.grad(features[0, :, 65, 65].sum(), pixel)
    reached = gradient[0, 0].nonzero()
    assert (reached.min(0).values - 65).tolist() == [-(size // 2)] * 2
    assert (reached.max(0).values - 65).tolist() == [size // 2] * 2


def test_units_of_the_paper() -> None:
    torch.manual_seed(0)
    h = 3 * torch.randn(5, 2, 3, 3, dtype=torch.float64)
    zero = multiplicative_unit(h, torch.zeros(5, 8, 3, 3, dtype=torch.float64))
    torch.testing.assert_close(zero, 0.5 * torch.tanh(0.5 * h))
    gates = 3 * torch.randn(5, 8, 3, 3, dtype=torch.float64)
    unit = multiplicative_unit(h, gates)
    assert unit.abs().max() <= 1
    g1, g2, g3, u = (gates[:, 2 * i : 2 * i + 2] for i in range(4))
    sigma = lambda x: 1 / (1 + (-x).exp())  # noqa: E731
    torch.testing.assert_close(unit, sigma(g1) * torch.tanh(sigma(g2) * h + sigma(g3) * torch.tanh(u)))
    block = MultiplicativeBlock(2, convolution).double()
    nn.init.zeros_(block.expand.weight)
    nn.init.zeros_(block.expand.bias)
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(block(x), x, rtol=0, atol=0)


def test_parameters_of_the_paper() -> None:
    model = VPN()
    count = lambda module: sum(weight.numel() for weight in module.parameters())  # noqa: E731
    block = model.encoder.blocks.blocks[0]
    assert count(block.convs[0]) == 590_336
    assert count(block) == 1_246_592
    assert count(model.encoder.blocks) == 9_972_736
    assert count(model.decoder.blocks) == 14_959_104
    assert count(model.encoder.lstm) == 4_719_616
    relu = VPN(block="relu", channels=2, head_size=1)
    assert [len(part.blocks.blocks) for part in (relu.encoder, relu.decoder)] == [16, 24]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [2, 3])
def test_the_likelihood_sums_to_one(kind: str, levels: int) -> None:
    """Over all videos of two frames of one pixel in two colours with three levels, or of 2 x 2 pixels with two."""
    shape = (1, 2, 2, 2) if levels == 2 else (2, 2, 1, 1)
    model = small(shape, levels=levels, **KINDS[kind])
    values = torch.arange(levels, dtype=torch.float64) / (levels - 1)
    videos = torch.cartesian_prod(*[values] * math.prod(shape)).view(-1, *shape)
    with torch.no_grad():
        assert model.log_prob(videos).exp().sum().item() == pytest.approx(1, abs=1e-9)
    given = small(shape, context_frames=1, levels=levels, **KINDS[kind])
    with torch.no_grad():
        future = given.log_prob(videos).exp().view(int(len(videos) ** 0.5), -1) if levels == 2 else None
    if future is not None:  # (first frame, second frame), as pixels of a frame lie together with one colour
        torch.testing.assert_close(future.sum(1), torch.ones(16, dtype=torch.float64))


def test_cross_entropy_by_hand() -> None:
    """A frame of two pixels, 0.5 and 1; the model says 0.5 everywhere: 2 log 2, and the entropy is log 2."""
    model = small((1, 2, 1, 2), context_frames=1)
    for parameter in model.decoder.logits.parameters():
        nn.init.zeros_(parameter)
    video = torch.tensor([0.3, 0.2, 0.5, 1.0], dtype=torch.float64).view(1, 1, 2, 1, 2)
    assert model.cross_entropy(video).item() == pytest.approx(2 * math.log(2))
    assert bernoulli_entropy(video[:, :, 1]).item() == pytest.approx(math.log(2))
    nn.init.constant_(model.decoder.logits.bias, 1.0)
    grey, white = torch.tensor([0.5, 1.0]), torch.sigmoid(torch.tensor(1.0))
    expected = -(grey * white.log() + (1 - grey) * (1 - white).log()).sum()
    assert model.cross_entropy(video).item() == pytest.approx(expected.item(), rel=1e-6)
    assert model.cross_entropy(video.repeat(1, 1, 2, 1, 1)[:, :, :3]).numel() == 1  # A mean over frames, not a sum.
    with pytest.raises(LightningGenError, match="no likelihood; call cross_entropy"):
        model.log_prob(video)


# Samples ------------------------------------------------------------------------------------------------------------


def naive_sample(model: VPN, given: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The whole model anew for each colour of each pixel; also the log-probability of what is drawn, as drawn."""
    colours, num_frames, height, width = model.image_shape
    first = model.context_frames
    uniform = torch.rand(num_frames - first, len(given), colours, height, width, generator=generator).double()
    videos = torch.zeros(len(given), *model.image_shape, dtype=torch.float64)
    videos[:, :, :first] = given[:, :, :first]
    log_prob = torch.zeros(len(given), dtype=torch.float64)
    places = itertools.product(range(first, num_frames), range(height), range(width), range(colours))
    for t, i, j, c in places:
        logits = model.logits(videos)[:, t - first, c, :, i, j]
        threshold = uniform[t - first, :, c, i, j]
        if model.levels is None:
            videos[:, c, t, i, j] = logits[:, 0].sigmoid()
            continue
        p = logits.softmax(1) if model.levels > 2 else torch.cat([logits.sigmoid(), 1 - logits.sigmoid()], 1)
        drawn = (p.cumsum(1)[:, :-1] <= threshold[:, None]).sum(1)
        log_prob += p.gather(1, drawn[:, None])[:, 0].log()
        values = drawn.double() / (model.levels - 1)
        videos[:, c, t, i, j] = values if model.levels > 2 else 1 - values
    return videos, log_prob


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("levels", "shape"), [(None, (1, 3, 4, 3)), (2, (1, 3, 4, 3)), (4, (3, 2, 3, 4))])
@pytest.mark.parametrize("context_frames", [0, 1])
def test_samples_are_those_of_the_whole_model_anew_for_each_pixel(
    kind: str, levels: int | None, shape: tuple[int, ...], context_frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small(shape, context_frames, levels=levels, **KINDS[kind])
    torch.manual_seed(5)
    given = (torch.rand(3, *shape, dtype=torch.float64) * ((levels or 256) - 1)).round() / ((levels or 256) - 1)
    rand = torch.rand
    with monkeypatch.context() as patch:  # The model draws in its own float64.
        patch.setattr(torch, "rand", lambda *size, dtype=None, **rest: rand(*size, **rest).double())
        condition = {"video": given} if context_frames else None
        samples = model.sample(3, condition, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected, log_prob = naive_sample(model, given, torch.Generator().manual_seed(2))
        torch.testing.assert_close(samples, expected.float(), rtol=0, atol=1e-7)
        if levels is not None:
            torch.testing.assert_close(model.log_prob(samples.double()), log_prob)


def test_samples_continue_the_given_frames() -> None:
    model = small((1, 5, 3, 3), context_frames=2)
    clips = torch.rand(2, 1, 5, 3, 3, dtype=torch.float64)
    whole = model.sample(2, {"video": clips})
    assert torch.equal(whole[:, :, :2], clips[:, :, :2].float())
    assert torch.equal(whole, model.sample(2, {"video": clips[:, :, :2]}))  # The rest of a clip is not looked at.
    assert not torch.equal(whole, model.sample(2, {"video": clips.flip(0)}).flip(0)[[1, 0]])


# States and actions -------------------------------------------------------------------------------------------------


def test_states_and_actions() -> None:
    """States of given frames alone are used, actions of all; samples know them."""
    model = small((1, 4, 3, 3), context_frames=2, state_dim=2, action_dim=3, levels=2)
    assert model.condition_keys == ("video", "state", "action")
    torch.manual_seed(1)
    video = torch.rand(2, 1, 4, 3, 3).round().double()
    rows = {"state": torch.randn(2, 4, 2).double(), "action": torch.randn(2, 4, 3).double()}
    score = model.log_prob(video, rows)
    for key, frame, matters in [("state", 1, True), ("state", 2, False), ("action", 1, True), ("action", 3, True)]:
        other = {name: value.clone() for name, value in rows.items()}
        other[key][:, frame] += 1
        assert torch.equal(model.log_prob(video, other), score) != matters
    late = rows["action"].clone()
    late[:, 3] += 1
    logits, changed = model.logits(video, rows), model.logits(video, {**rows, "action": late})
    assert torch.equal(logits[:, 0], changed[:, 0])  # The action of a frame does not reach the one before.
    samples = model.sample(2, {"video": video, **rows}, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():  # Drawn under the same logits that score it: no uniform number lies beyond its own threshold.
        p = model.logits(samples, rows).squeeze(3).sigmoid()[:, :, 0]
    uniform = torch.rand(2, 2, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal((uniform[:, :, 0].transpose(0, 1) < p).double(), samples[:, 0, 2:])


# Training -----------------------------------------------------------------------------------------------------------


def test_recomputed_blocks_give_the_same_gradients() -> None:
    video = torch.rand(2, 1, 3, 4, 5, dtype=torch.float64)
    gradients = []
    for recompute in (False, True):
        model = small(recompute=recompute)
        model.cross_entropy(video).mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for kept, anew in zip(*gradients, strict=True):
        torch.testing.assert_close(anew, kept)


def test_validation_logs_the_score_beside_its_bound() -> None:
    data = MovingDigitsDataModule(image_size=16, digit_size=7, num_frames=3, held_out_size=5, batch_size=2)
    options: dict[str, Any] = {"channels": 2, "encoder_blocks": 1, "decoder_blocks": 1, "head_size": 2}
    model = VPN(data.video_shape, 1, **options)
    (scores,) = quiet_trainer().validate(model, data, verbose=False)
    clips = torch.cat([batch["video"] for batch in data.val_dataloader()])
    with torch.no_grad():
        assert scores["val/cross_entropy"] == pytest.approx(model.cross_entropy(clips).mean().item(), rel=1e-5)
    bound = bernoulli_entropy(clips[:, :, 1:].transpose(1, 2)).mean().item()
    assert scores["val/lower_bound"] == pytest.approx(bound, rel=1e-5)
    assert scores["val/lower_bound"] < scores["val/cross_entropy"]
    softmax = VPN(data.video_shape, 1, levels=256, **options)
    (scores,) = quiet_trainer().validate(softmax, data, verbose=False)
    assert scores["val/nats_per_dim"] == pytest.approx(scores["val/nll"] / (2 * 16 * 16))
    assert scores["val/bits_per_dim"] == pytest.approx(scores["val/nats_per_dim"] / math.log(2))
    assert 4 < scores["val/nats_per_dim"] < 7  # log 256 = 5.5
    assert scores["val/last_frame_nats_per_dim"] == pytest.approx(math.log(256), rel=1e-5)  # It has counted nothing.
    (tested,) = quiet_trainer().test(softmax, data, verbose=False)
    assert tested["test/frame_2"] + tested["test/frame_3"] == pytest.approx(tested["test/nll"], rel=1e-5)
    (tested,) = quiet_trainer().test(model, data, verbose=False)
    assert (tested["test/frame_2"] + tested["test/frame_3"]) / 2 == pytest.approx(
        tested["test/cross_entropy"], rel=1e-5
    )


def test_copying_the_last_frame_by_hand() -> None:
    """Changes are counted over all frames of training clips, one of each kind beforehand, and renormalised."""
    model = small((1, 3, 1, 2), context_frames=1, levels=3)
    clip = torch.tensor([[0, 2], [0, 1], [1, 1]]).view(1, 1, 3, 1, 2).double() / 2  # Changes: 0, -1; 1, 0.
    model.initialize_from([{"video": clip}])
    assert model.changes.tolist() == [1, 2, 3, 2, 1]  # of -2, -1, 0, 1 and 2
    # 0 to 0, 1, 2 by 3, 2, 1 of 6; 1 by 2, 3, 2 of 7; 2 by 1, 2, 3 of 6.
    expected = math.log(3 / 6) + math.log(2 / 6) + math.log(2 / 6) + math.log(3 / 7)
    assert model.last_frame_log_prob(clip).item() == pytest.approx(expected)


# Bad input ----------------------------------------------------------------------------------------------------------


def test_bad_input() -> None:
    with pytest.raises(DataError, match=r"video_shape=\(1, 28, 28\); expected \(channels, frames, height, width\)"):
        VPN((1, 28, 28))
    with pytest.raises(DataError, match="context_frames is 20; a clip has 20 frames"):
        VPN(context_frames=20)
    with pytest.raises(DataError, match="levels=1; expected int >= 2"):
        VPN(levels=1)
    model = small((1, 4, 3, 5), context_frames=2, levels=4, action_dim=3)
    rows = {"action": torch.zeros(1, 4, 3)}
    for shape in ((1, 1, 1, 3, 5), (1, 1, 4, 3, 3), (1, 3, 4, 3, 5), (1, 4, 3, 5)):
        with pytest.raises(ConditionError, match=r"expected 1 clips of 1 x \(at least 2 frames\) x 3 x 5"):
            model.sample(1, {"video": torch.zeros(shape), **rows})
    with pytest.raises(ConditionError, match=r"pixels k/3 and got 0.5"):
        model.sample(1, {"video": torch.full((1, 1, 2, 3, 5), 0.5), **rows})
    with pytest.raises(ConditionError, match=r"'action' has the shape \(1, 2, 3\).*expects \(N, 4, 3\)"):
        model.sample(1, {"video": torch.zeros(1, 1, 2, 3, 5), "action": torch.zeros(1, 2, 3)})
    with pytest.raises(ConditionError, match="needs a condition with video, action"):
        model.sample(1)
    with pytest.raises(DataError, match=r"\(1, 3, 3, 5\).*video_shape=\(1, 4, 3, 5\)"):
        model.as_batch({"video": torch.zeros(1, 1, 3, 3, 5)})
    with pytest.raises(DataError, match="'action' is missing"):
        model.as_batch({"video": torch.zeros(1, 1, 4, 3, 5)})
    with pytest.raises(DataError, match=r"needs 'video'"):
        model.as_batch(torch.zeros(1, 1, 3, 5))


# Figures ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif("LIGHTNING_GEN_DATA" not in os.environ, reason="MNIST is not at hand: set LIGHTNING_GEN_DATA")
def test_the_lower_bound_of_the_paper() -> None:
    """86.3 nats a frame on the published test clips; 86.3 within 0.5 on 10,000 made by the same rules."""
    data = MovingDigitsDataModule(source="mnist", batch_size=500)
    totals = [bernoulli_entropy(batch["video"][:, 0, 10:, None]).mean(1) for batch in data.test_dataloader()]
    bounds = torch.cat(totals)
    print(f"\n{bounds.mean():.2f} ± {bounds.std() / 100:.2f} nats a frame, {len(bounds)} clips")
    assert len(bounds) == 10000
    assert bounds.mean().item() == pytest.approx(86.3, abs=0.5)


def test_it_learns_how_digits_move() -> None:
    """In 120 steps it closes half of the gap between each pixel's own mean, the same in all frames, and the bound."""
    data = MovingDigitsDataModule(
        image_size=16, digit_size=8, num_digits=1, num_frames=4, epoch_size=960, held_out_size=100, batch_size=8
    )
    torch.manual_seed(0)
    model = VPN(
        data.video_shape, 2, channels=6, encoder_blocks=2, decoder_blocks=2, head_size=16, dilations=(1, 2), lr=2e-3
    )
    quiet_trainer(max_epochs=1, limit_val_batches=0, gradient_clip_val=20.0).fit(model, data)
    clips = torch.cat([batch["video"] for batch in data.val_dataloader()])
    with torch.no_grad():
        score = model.cross_entropy(clips).mean().item()
    frames = clips[:, :, 2:]
    mean = frames.mean((0, 2)).clamp(1e-4, 1 - 1e-4)[:, None]
    trivial = -(frames * mean.log() + (1 - frames) * (1 - mean).log()).sum((1, 3, 4)).mean().item()
    bound = bernoulli_entropy(frames.transpose(1, 2)).mean().item()
    assert score < (trivial + bound) / 2, f"{score:.1f} nats a frame, of {trivial:.1f} and {bound:.1f}"


# Files --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model after a step, as `fit` leaves it."""
    folder = tmp_path_factory.mktemp("vpn")
    size = "--data.image_size 16 --data.digit_size 8 --data.num_frames 4 --data.epoch_size 8 --data.held_out_size 5"
    small = "--model.context_frames 2 --model.channels 2 --model.encoder_blocks 1 --model.decoder_blocks 1"
    grid = "--trainer.callbacks+=SampleGrid --trainer.callbacks.num_samples 3 --trainer.callbacks.num_columns 2"
    run = f"--trainer.max_epochs 1 --trainer.accelerator cpu --trainer.default_root_dir {folder}"
    main(f"fit --model VPN --data MovingDigitsDataModule {size} {small} {grid} {run}".split())
    return folder / "vpn_moving_digits" / "version_0" / "checkpoints" / "last.ckpt"


def test_samples_after_loading_equal_samples_before(checkpoint: Path) -> None:
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["class_paths"]["hyper_parameters"] == "lightning_gen.models.vpn.VPN"
    assert tuple(saved["hyper_parameters"]["video_shape"]) == (1, 4, 16, 16)
    torch.manual_seed(0)
    model = VPN(**saved["hyper_parameters"])
    model.load_state_dict(saved["state_dict"])
    clips = torch.rand(2, 1, 4, 16, 16)
    samples = [m.sample(2, {"video": clips}) for m in (model, VPN.load_from_checkpoint(checkpoint))]
    assert samples[0].shape == (2, 1, 4, 16, 16)
    torch.testing.assert_close(*samples, rtol=0, atol=0)


def test_clips_are_continued_from_the_command_line(checkpoint: Path, tmp_path: Path) -> None:
    """Test clips and what the model makes of them, side by side: blue borders, then orange ones."""
    command = ["sample", "--ckpt_path", str(checkpoint), "--num_samples", "2", "--output"]
    main([*command, str(tmp_path / "a.gif"), "--num_columns", "1"])
    with Image.open(tmp_path / "a.gif") as animation:
        frames = [pil_to_tensor(frame.convert("RGB")) for frame in ImageSequence.Iterator(animation)]
    assert len(frames) == 4
    assert frames[0].shape == (3, 2 * (20 + 2) + 2, 40 + 4)
    for frame, blue in zip(frames, (True, True, False, False), strict=True):
        red, _, last = frame[:, 3, 3].tolist()
        assert (last > red) == blue
    given = frames[1][:, 2:22, 2:42]
    assert (given[:, 2:18, 2:18].int() - given[:, 2:18, 22:38].int()).abs().max() <= 8  # GIF has 256 colours.
    main([*command, str(tmp_path / "a.png")])
    with Image.open(tmp_path / "a.png") as strips:
        assert strips.size == (4 * 20 + 4, 2 * (40 + 2) + 2)
    main([*command, str(tmp_path / "folder")])
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["00000.gif", "00001.gif"]
    main([*command, str(tmp_path / "b.gif"), "--condition.video", str(own_clip(tmp_path, 3, 16))])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gif", "a.png", "b.gif", "folder", "own.gif"]


def own_clip(folder: Path, num_frames: int, side: int) -> Path:
    write_gif(list(torch.rand(num_frames, 1, side, side).expand(-1, 3, -1, -1)), folder / "own.gif")
    return folder / "own.gif"


def test_films(checkpoint: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    output = tmp_path / "a.mp4"
    main(["sample", "--ckpt_path", str(checkpoint), "--num_samples", "1", "--output", str(output)])
    with av.open(str(output)) as film:
        assert len(list(film.decode(video=0))) == 4
    assert list(tmp_path.iterdir()) == [output]


def test_the_grid_of_a_run(checkpoint: Path) -> None:
    folder = checkpoint.parent.parent / "samples"
    assert sorted(path.name for path in folder.iterdir()) == ["epoch=0000.gif", "epoch=0000.png"]
    with Image.open(folder / "epoch=0000.png") as strips:
        assert strips.size == (4 * 20 + 4, 3 * (40 + 2) + 2)
    events = EventAccumulator(str(folder.parent), size_guidance={"images": 0}).Reload()
    (logged,) = events.Images("val/samples_video")
    with Image.open(io.BytesIO(logged.encoded_image_string)) as film:
        assert (film.n_frames, film.size) == (4, (logged.width, logged.height))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_samples", "6"], "num_samples is 6; MovingDigitsDataModule has 5 test images"),
        (["--milliseconds", "0"], "milliseconds is 0"),
        (["--condition.label", "3"], "does not know the condition ['label']"),
        (["--condition.video", "missing.gif"], "missing.gif"),
    ],
)
def test_bad_options(options: list[str], message: str, checkpoint: Path, tmp_path: Path, capsys: Any) -> None:
    command = ["sample", "--ckpt_path", str(checkpoint), "--output", str(tmp_path / "a.gif"), *options]
    assert message in one_line_error(capsys, *command)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("num_frames", "side"), [(1, 16), (4, 12)])
def test_a_clip_too_short_or_of_another_size(
    num_frames: int, side: int, checkpoint: Path, tmp_path: Path, capsys: Any
) -> None:
    clip = own_clip(tmp_path, num_frames, side)
    command = ["sample", "--ckpt_path", str(checkpoint), "--num_samples", "1", "--output", str(tmp_path / "a.gif")]
    error = one_line_error(capsys, *command, "--condition.video", str(clip))
    assert f"(1, 1, {num_frames}, {side}, {side}); expected 1 clips of 1 x (at least 2 frames) x 16 x 16" in error
