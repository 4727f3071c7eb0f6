import pytest
import torch
from torch import Tensor

from lightning_gen.models import VPN
from tests.references import vpn as paper
from tests.references.compare import BFLOAT16, close, grey, in_bfloat16, parameters_of, shaken
from tests.references.pixel_rnn import log_prob

BATCH, FRAMES, CONTEXT = 2, 4, 1
SIZES = {"channels": 6, "encoder_blocks": 2, "decoder_blocks": 2, "head_size": 9, "dilations": (1, 2)}


def tiny(colours: int, levels: int | None, std: float = 0.4) -> tuple[VPN, Tensor]:
    shape = (colours, FRAMES, 5, 7) if colours == 1 else (colours, FRAMES, 4, 3)
    videos = grey(BATCH, *shape)
    if levels is not None:
        videos = (videos * (levels - 1)).round() / (levels - 1)
    return shaken(VPN(shape, context_frames=CONTEXT, levels=levels, **SIZES), std), videos


def logits_of(model: VPN, video: Tensor) -> list[Tensor]:
    """Of the frames after the context, `(colours * K, rows, columns)` each; the network sees frames in [-1, 1]."""
    frames = list((2 * video.double() - 1).unbind(1))
    encoder, decoder = parameters_of(model, "encoder."), parameters_of(model, "decoder.")
    encoder_blocks = [parameters_of(model, f"encoder.blocks.blocks.{i}.") for i in range(2)]
    decoder_blocks = [parameters_of(model, f"decoder.blocks.blocks.{i}.") for i in range(2)]
    features = [paper.encode(frame, encoder, encoder_blocks, (1, 2)) for frame in frames]
    contexts = paper.conv_lstm(features, parameters_of(model, "encoder.lstm."))
    return [paper.decode(frames[t], contexts[t], decoder, decoder_blocks) for t in range(CONTEXT, FRAMES)]


@pytest.mark.parametrize("levels", [4, 256])
def test_likelihood_of_colours(levels: int) -> None:
    """A softmax over the levels of each subpixel; 256 levels as for natural videos."""
    model, videos = tiny(3, levels)
    for n, video in enumerate(videos):
        values = (video * (levels - 1)).round()
        logits = logits_of(model, video)
        nats = sum(log_prob(values[:, CONTEXT + t], row, levels) for t, row in enumerate(logits))
        close(model.log_prob(videos[n : n + 1])[0], torch.tensor(nats, dtype=torch.float64))


def test_cross_entropy_of_grey_levels() -> None:
    """Nats per frame, the mean over the frames after the context, as the paper reports them on Moving MNIST."""
    model, videos = tiny(1, None)
    for n, video in enumerate(videos):
        nats = [paper.cross_entropy(video[:, CONTEXT + t], row) for t, row in enumerate(logits_of(model, video))]
        close(model.cross_entropy(videos[n : n + 1])[0], torch.tensor(sum(nats) / len(nats), dtype=torch.float64))


def test_likelihood_in_bfloat16() -> None:
    """Weights of 0.1 keep the sums of the 13 layers a subpixel passes below 1/4, which are rounded to 2^-8; the logits,
    and with them the nats of a pixel, err by at most as much, and 3 frames of 35 pixels add up at worst.
    """
    model, videos = tiny(1, None, std=0.1)
    in_bfloat16(model)
    videos = videos.bfloat16()
    nats = [
        sum(paper.cross_entropy(video[:, CONTEXT + t].double(), row) for t, row in enumerate(logits_of(model, video)))
        for video in videos
    ]
    bound = 3 * 35 * 13 * BFLOAT16 / 4
    close(3 * model.cross_entropy(videos), torch.tensor(nats, dtype=torch.float64), rtol=0, atol=bound)
