import pytest
import torch
from torch import Tensor

from lightning_gen.models import MultiScalePixelRNN, PixelRNN
from tests.references import pixel_rnn as paper
from tests.references.compare import BFLOAT16, close, in_bfloat16, parameters_of, shaken

VARIANTS = ["pixelcnn", "row_lstm", "diagonal_bilstm"]
BATCH = 3
SIZES = {"num_layers": 2, "hidden_size": 6, "head_size": 9}


def images_of(shape: tuple[int, ...], levels: int) -> Tensor:
    values = torch.randint(levels, (BATCH, *shape), generator=torch.Generator().manual_seed(1))
    return values.double() / (levels - 1)


def layers_of(model: PixelRNN, net: str) -> list[paper.Weights]:
    """The layers' weights in the paper's names. K_ss is stored as `(directions, taps, h, 4 h)`."""
    layers = []
    for number in range(len(getattr(model, net).layers)):
        p = parameters_of(model, f"{net}.layers.{number}")
        if "state_to_state" in p:
            k_ss = p.pop("state_to_state").mT
            p["h0"], p["c0"] = p.pop("initial")
            if k_ss.shape[1] == 3:  # Row LSTM: above, to its left, to its right; one direction.
                p["k_ss"] = k_ss[0, [1, 0, 2]]
                p["h0"], p["c0"] = p["h0"][0], p["c0"][0]
            else:
                p["k_left"], p["k_above"] = k_ss.unbind(1)
        layers.append(p)
    return layers


def logits_of(model: PixelRNN, images: Tensor, net: str = "net", contexts: list[Tensor] | None = None) -> Tensor:
    """`(N, C, K, H, W)`; the network sees images in [-1, 1]."""
    stem = parameters_of(model, f"{net}.stem")
    layers, head = layers_of(model, net), [parameters_of(model, f"{net}.head.{i}") for i in range(3)]
    variant = str(model.hparams["variant"])
    rows = [
        paper.logits(2 * image.double() - 1, stem, layers, head, variant, contexts[n] if contexts else None)
        for n, image in enumerate(images)
    ]
    return torch.stack(rows).unflatten(1, (images.shape[1], -1))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("shape", "levels", "skip"), [((1, 5, 7), 2, False), ((3, 5, 4), 4, True)])
def test_logits_and_likelihood(variant: str, shape: tuple[int, ...], levels: int, skip: bool) -> None:
    model = shaken(PixelRNN(shape, variant=variant, levels=levels, skip=skip, **SIZES))
    images = images_of(shape, levels)
    logits = logits_of(model, images)
    close(model.logits(images), logits)
    values = images * (levels - 1)
    expected = [paper.log_prob(x.round(), row.flatten(0, 1), levels) for x, row in zip(values, logits, strict=True)]
    close(model.log_prob(images), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_multi_scale(variant: str) -> None:
    """Section 3.5: the subpixels of the small image come first, and are those of the large one at every other place."""
    model = shaken(MultiScalePixelRNN((3, 6, 6), small_size=3, variant=variant, levels=4, **SIZES))
    images = images_of((3, 6, 6), 4)
    small = images[..., ::2, ::2]
    up = parameters_of(model, "upsample.0")
    contexts = [paper.relu(paper.deconvolution(2 * s - 1, up["weight"], up["bias"])) for s in small]
    large_logits, small_logits = logits_of(model, images, "net", contexts), logits_of(model, small, "small_net")
    close(model.logits(images), large_logits)
    for n, image in enumerate(images):
        values = (3 * image).round()
        total = paper.log_prob(values[:, ::2, ::2], small_logits[n].flatten(0, 1), 4)
        for r in range(6):
            for c in range(6):
                if r % 2 or c % 2:  # Not a pixel of the small image.
                    pixel = large_logits[n][..., r : r + 1, c : c + 1].flatten(0, 1)
                    total += paper.log_prob(values[:, r : r + 1, c : c + 1], pixel, 4)
        close(model.log_prob(images[n : n + 1])[0], torch.tensor(total, dtype=torch.float64))


@pytest.mark.parametrize("variant", VARIANTS)
def test_likelihood_in_bfloat16(variant: str) -> None:
    """Each of the 9 layers rounds its sums, of about 1/4 in size, to 2^-8, and the weights, of 0.1, keep errors from
    growing on the way; they move a pixel's log-probability by at most as much, and 35 pixels add up at worst.
    """
    model = in_bfloat16(shaken(PixelRNN((1, 5, 7), variant=variant, **SIZES), std=0.1))
    images = images_of((1, 5, 7), 2)
    logits = logits_of(model, images)
    expected = [paper.log_prob(x, row.flatten(0, 1), 2) for x, row in zip(images, logits, strict=True)]
    actual = model.log_prob(images.bfloat16())
    close(actual, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=35 * 9 * BFLOAT16 / 4)
