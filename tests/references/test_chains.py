"""The frozen classifier is the package's own; what is recomputed is the generator and the walk."""

import pytest
import torch
from torch import Tensor

from lightning_gen.models import DGNAM, PPGN
from tests.references import chains as paper
from tests.references.compare import close, grey, parameters_of, shaken
from tests.references.layers import linear, relu

NUMBER, LABELS = 3, torch.tensor([7, 0, 3])


def make(model_class: type[DGNAM], **arguments: object) -> DGNAM:
    """Two steps from the same codes; codes of 96 units and images of 28 x 28 out of a canvas of 32 x 32."""
    networks = {
        "encoder": "lightning_gen.nn.DigitFeatures",
        "code_layer": "features",
        "comparator_layer": "network.body.11",
        "generator_units": (16,),
    }
    sizes = {"generator_channels": ((4,), (4,)), "discriminator_layers": ((4, 5, 2),), "discriminator_units": (8, 8)}
    model = model_class((1, 28, 28), num_steps=2, **networks, **sizes, **arguments).double().eval()
    model.initialized.fill_(True)
    shaken(model.generator)
    model.image_mean = torch.full((1, 1, 1), 0.3, dtype=torch.float64)
    model.code_bounds = 2 * grey(96, seed=4)
    model.draw_start = lambda *_: starts()
    return model


def starts() -> Tensor:
    return 2 * grey(NUMBER, 96, seed=3)


def functions(model: DGNAM) -> tuple[paper.Function, paper.Function]:
    p = parameters_of(model, "generator").items()
    weights = {f"generator.{name}": value for name, value in p}
    return (
        lambda h: paper.generator(h, weights)[..., 2:30, 2:30] + model.image_mean,
        lambda x: model.encoder(x, ["logits"])[0],
    )


def test_activation_maximisation() -> None:
    model = make(DGNAM, step_size=3.0, step_size_end=1.0, decay=0.9)
    g, phi = functions(model)
    codes = list(starts())
    for length in (3.0, 2.0):  # From 3 towards 1 in two steps.
        codes = [
            paper.activation_maximisation(h, g, phi, unit, length, model.code_bounds, 0.9)
            for h, unit in zip(codes, LABELS.tolist(), strict=True)
        ]
    close(model.sample(NUMBER, {"label": LABELS}), g(torch.stack(codes)).clamp(0, 1).float().double(), rtol=1e-6)


@pytest.mark.parametrize("sampler", ["released", "equation"])
@pytest.mark.parametrize("variant", ["h", "noiseless", "dgn_am"])
def test_plug_and_play(variant: str, sampler: str) -> None:
    """The prior is a denoiser of codes, or E(G(h)) with G in between, or none."""
    e1, e2, e3 = 0.1, 2.0, 0.05
    model = make(PPGN, variant=variant, sampler=sampler, epsilons=(e1, e2, e3), code_limit=1.5, denoiser_units=(8,))
    g, phi = functions(model)
    if variant == "h":
        shaken(model.denoiser, 0.1)
    p = parameters_of(model)

    def r(h: Tensor) -> Tensor:
        if variant == "h":
            return linear(relu(linear(h, p, "denoiser.0")), p, "denoiser.2")
        return model.encode(g(h)) if variant == "noiseless" else h

    noise = torch.Generator().manual_seed(5)
    codes = list(starts())
    for _ in range(2):
        n = e3 * torch.randn(NUMBER, 96, generator=noise, dtype=torch.float64)
        rows = zip(codes, LABELS.tolist(), n, strict=True)
        if sampler == "released":
            codes = [paper.released(h, r, g, phi, c, e1, e2, row, 1.0, 1.5) for h, c, row in rows]
        else:
            codes = [paper.equation(h, r, g, phi, c, e1, e2, row, 1.5) for h, c, row in rows]
    images = model.sample(NUMBER, {"label": LABELS}, generator=torch.Generator().manual_seed(5))
    close(images, g(torch.stack(codes)).clamp(0, 1).float().double(), rtol=1e-6)
