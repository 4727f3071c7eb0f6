"""The networks are the package's own; what they are given, the losses and the updates are recomputed."""

import pytest
import torch
from torch import Tensor

from lightning_gen.functional import placement
from lightning_gen.models import GANINTCLS, GAWWN, KeypointGAN
from tests.references import text_to_image as paper
from tests.references.compare import (
    ADAM_OF_NOTHING,
    adams,
    close,
    grey,
    network,
    same_parameters,
    shaken,
    train,
    trainable,
)
from tests.references.layers import gradients
from tests.tiny import tiny, tiny_batches

BATCH, STEPS, LR = 5, 2, 2e-4


def batches(name: str) -> list[dict[str, Tensor]]:
    return [
        {k: v[:BATCH].double() if torch.is_tensor(v) and v.is_floating_point() else v[:BATCH] for k, v in batch.items()}
        for batch in tiny_batches(name)[:STEPS]
    ]


@pytest.mark.parametrize(("cls_weight", "interp_weight"), [(0.0, 0.0), (0.3, 0.7)])
def test_gan_int_cls(cls_weight: float, interp_weight: float) -> None:
    """Pairs of each kind are a batch of their own; G has new noise, and an odd batch has two midpoints."""
    model = tiny("GANINTCLS")[0]
    model = GANINTCLS(
        **{**model.hparams, "cls_weight": cls_weight, "interp_weight": interp_weight, "interp_beta": 0.3}
        | {"joint_normalization": False, "lr": LR, "style_from_epoch": None}
    )
    shaken(model, 0.1)
    given, p = batches("GANINTCLS"), trainable(model)
    texts = list(grey(STEPS, BATCH, model.hparams["text_dim"], seed=4))
    wrong = [2 * grey(BATCH, 3, 32, 32, seed=5 + t) - 1 for t in range(STEPS)]
    number = BATCH + (BATCH // 2 if interp_weight else 0)
    z = [grey(rows, model.hparams["latent_dim"], seed=9 + t) for t in range(STEPS) for rows in (BATCH, number)]
    g, d, (adam_d, adam_g) = network(model, "generator"), network(model, "discriminator"), adams(LR)
    for t, batch in enumerate(given):
        x, text = 2 * batch["image"] - 1, texts[t]
        fake = g(p, z[2 * t], text).detach()
        loss = paper.loss_d(d(p, x, text), d(p, wrong[t], text), d(p, fake, text), cls_weight)
        adam_d.step(p, gradients(loss, p, "discriminator."))
        drawn = paper.with_midpoints(text, 0.3) if interp_weight else text
        loss = paper.loss_g(d(p, g(p, z[2 * t + 1], drawn), drawn), BATCH, interp_weight)
        adam_g.step(p, gradients(loss, p, "generator."))
    text_of, wrong_of = iter(texts), iter(wrong)
    model.draw_text = lambda *_: next(text_of)
    model.wrong_images = lambda _: (next(wrong_of), None)
    train(model, given, z)
    same_parameters(model, p, atol=ADAM_OF_NOTHING)


def test_gawwn() -> None:
    """A right image under its own and under another's text, in the right box; both networks move at once."""
    model = tiny("GAWWN")[0]
    model = shaken(GAWWN(**{**model.hparams, "joint_normalization": False, "lr": LR}), 0.1)
    given, p = batches("GAWWN"), trainable(model)
    texts = list(grey(STEPS, BATCH, model.hparams["text_dim"], seed=4))
    z = list(grey(STEPS, BATCH, model.hparams["latent_dim"], seed=9))
    g, d, (adam_d, adam_g) = network(model, "generator"), network(model, "discriminator"), adams(LR)
    trunk = network(model.discriminator, "trunk")
    shuffled = torch.tensor([3, 1, 0, 4, 2])

    def judge(images: Tensor, place: Tensor, text: Tensor) -> Tensor:
        own = {name.removeprefix("discriminator."): value for name, value in p.items()}
        return d(p, trunk(own, images), place, text)

    for batch, text, noise in zip(given, texts, z, strict=True):
        place = batch["box"]
        fake = g(p, noise, place, text)
        scores = [judge(2 * batch["image"] - 1, place, t) for t in (text, text[shuffled])]
        made = judge(fake, place, text)
        moved = gradients(paper.loss_d(*scores, made), p, "discriminator.")
        moved |= gradients(paper.loss_g(made, BATCH, 1.0), p, "generator.")
        adam_d.step(p, {k: v for k, v in moved.items() if k.startswith("d")})
        adam_g.step(p, {k: v for k, v in moved.items() if k.startswith("g")})
    text_of = iter(texts)
    model.draw_text = lambda *_: next(text_of)
    model.mismatch = lambda text: text[shuffled]
    train(model, given, z)
    same_parameters(model, p, atol=ADAM_OF_NOTHING)


def test_given_keypoints_stay() -> None:
    model: KeypointGAN = shaken(tiny("KeypointGAN")[0], 0.2).eval()
    count = model.hparams["num_keypoints"]
    keypoints, text = grey(BATCH, count, 3), grey(BATCH, model.hparams["text_dim"], seed=2)
    switches = (grey(BATCH, count, 1, seed=3) < 0.4).double()
    z = grey(BATCH, model.hparams["latent_dim"], seed=4)
    drawn = model.generator(z, text, switches * keypoints)
    expected = [paper.complete(*row) for row in zip(keypoints, switches, drawn, strict=True)]
    close(model.complete(z, text, keypoints, switches), torch.stack(expected), rtol=0, atol=0)


@pytest.mark.parametrize("size", [5, 16])
def test_places(size: int) -> None:
    """Boxes also beyond the border; cells at both ends."""
    keypoints = torch.cat([grey(BATCH, 4, 2), (grey(BATCH, 4, 1, seed=2) < 0.7).double()], 2)
    keypoints[0, :2, :2] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    expected = torch.stack([paper.keypoint_maps(row, size) for row in keypoints])
    close(placement.keypoint_maps(keypoints, size), expected, rtol=0, atol=0)
    maps, boxes = grey(BATCH, 2, size, size, seed=3), grey(BATCH, 4, seed=4)
    boxes[0] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    for fast, slow in ((placement.crop_boxes, paper.crop), (placement.paste_boxes, paper.paste)):
        expected = torch.stack([slow(m, tuple(box)) for m, box in zip(maps, boxes.tolist(), strict=True)])
        close(fast(maps, boxes), expected, rtol=1e-9, atol=1e-9)
