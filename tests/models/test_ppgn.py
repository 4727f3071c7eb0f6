"""PPGN against its paper: the variants' steps, both samplers, conditions of every kind, holes, and what it refuses."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.errors import ConditionError, DataError
from lightning_gen.models import PPGN, Captioner
from lightning_gen.models.ppgn import EPSILONS
from lightning_gen.nn import DigitFeatures
from tests.digits import held_out_digits, quiet_trainer
from tests.models.test_dgn_am import SMALL, Linear

TINY = {**SMALL, "denoiser_units": (16,), "denoiser_channels": 4, "code_limit": None}
LABELS = torch.tensor([3, 7])


def ready(variant: Any = "noiseless", **arguments: Any) -> PPGN:
    torch.manual_seed(0)
    model = PPGN(variant=variant, **{**TINY, **arguments})
    model.initialize_from([held_out_digits()[:100]])
    model.initialized.fill_(True)
    return model


def noise(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("variant", EPSILONS)
@pytest.mark.parametrize("sampler", ["equation", "released"])
def test_one_step_is_the_stated_one(variant: Any, sampler: Any) -> None:
    """By hand, in float64, from the start that the generator of random numbers gives."""
    e1, e2, e3 = 0.3, 0.7, 0.05
    model = ready(variant, num_steps=1, sampler=sampler, epsilons=(e1, e2, e3), step_size=0.2).double()
    network = Linear().double().eval()
    found = model.sample(2, {"label": LABELS % 5}, network=network, generator=noise())

    random, shape = noise(), (2, *model.image_shape) if variant == "x" else (2, 96)
    draw = torch.rand if variant == "x" else torch.randn
    h = draw(*shape, generator=random, dtype=torch.float64).requires_grad_()
    images = h if variant == "x" else model.generate(h)
    logits = network(images)
    weights = nn.functional.one_hot(LABELS % 5, 5) - logits.softmax(1)
    if sampler == "released":
        weights = weights * nn.functional.one_hot(LABELS % 5, 5)
    score = torch.autograd.grad((weights.detach() * logits).sum(), h)[0]
    with torch.no_grad():
        reconstruction = {
            "x": lambda: model.denoiser(h),
            "dgn_am": lambda: h,
            "h": lambda: model.denoiser(h),
            "joint": lambda: model.encode(images),
            "noiseless": lambda: model.encode(images),
        }[variant]()
        move = e1 * (reconstruction - h) + e2 * score
        move = move + e3 * torch.randn(shape, generator=random, dtype=torch.float64)
        if sampler == "released":
            size = move.flatten(1).abs().mean(1).view(-1, *[1] * (h.ndim - 1))
            move = 0.2 * move / size
        h = (h + move).clamp(min=0)
        h = h.clamp(max=1) if variant == "x" else torch.minimum(h, model.code_bounds)
        wanted = h if variant == "x" else model.decode(h)
    torch.testing.assert_close(found, wanted.float(), rtol=1e-5, atol=1e-7)


def test_no_prior_where_encoder_and_generator_are_inverse(monkeypatch: pytest.MonkeyPatch) -> None:
    """With E(G(h)) = c everywhere, e1 = 1 jumps to c in one step, and the next ones stay there."""
    model = ready(sampler="equation", epsilons=(1.0, 0.0, 0.0), num_steps=3)
    c = model.code_bounds / 2
    codes: list[Tensor] = []
    monkeypatch.setattr(model, "encode", lambda images: c.expand(len(images), -1))
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda h: codes.append(h.detach()) or generate(h))
    model.sample(2, {"label": LABELS % 5}, network=Linear().eval())
    torch.testing.assert_close(codes[1], c.expand(2, -1))
    torch.testing.assert_close(codes[2], codes[1])


def test_the_encoders_own_classes_and_the_same_network_plugged_in_give_one_chain() -> None:
    model = ready(num_steps=3, step_size=0.1)
    own = model.sample(2, {"label": LABELS}, generator=noise())
    plugged = model.sample(2, {"label": LABELS}, network=DigitFeatures(), generator=noise())
    torch.testing.assert_close(own, plugged)


@pytest.mark.parametrize(("plugged", "encoder_passes"), [(False, 0), (True, 1)])
def test_a_step_passes_each_network_once(plugged: bool, encoder_passes: int) -> None:
    steps = 4
    model = ready(num_steps=steps)
    network = DigitFeatures() if plugged else None
    counts = {"generator": 0, "classifier": 0, "encoder": 0}

    def count(name: str, module: nn.Module) -> None:
        def add(*_: Any) -> None:
            counts[name] += 1

        module.register_forward_pre_hook(add)

    count("generator", model.generator)
    if network is not None:
        count("classifier", network)
        count("encoder", model.encoder.network)
    else:
        count("classifier", model.encoder.network)
    model.sample(2, {"label": LABELS}, network=network)
    # One more of the generator for the last codes, and one of the classifier that checks it.
    assert counts == {"generator": steps + 1, "classifier": steps + 1, "encoder": encoder_passes * steps}


def test_scales_of_all_epsilons_together_do_not_matter_in_the_released_sampler() -> None:
    images = [
        ready(num_steps=3, step_size=0.1, epsilons=(c * 0.1, c, c * 0.01)).sample(
            2, {"label": LABELS}, generator=noise()
        )
        for c in (1.0, 16.0)
    ]
    torch.testing.assert_close(*images, rtol=1e-4, atol=1e-4)


def test_codes_stay_below_the_published_limit() -> None:
    model = ready(num_steps=3, step_size=40.0, code_limit=30.0)
    codes: list[Tensor] = []
    model.generator.register_forward_pre_hook(lambda _module, inputs: codes.append(inputs[0].detach()))
    model.sample(2, {"label": LABELS})
    assert all(((h >= 0) & (h <= 30)).all() for h in codes[1:])
    assert codes[-1].max() == 30


def hole(side: int = 10) -> Tensor:
    mask = torch.zeros(2, 1, 28, 28)
    mask[:, :, 9 : 9 + side, 5 : 5 + side] = 1
    return mask


@pytest.mark.parametrize("variant", ["noiseless", "x"])
def test_pixels_outside_a_hole_are_untouched(variant: Any) -> None:
    model, images = ready(variant, num_steps=2, step_size=0.1), held_out_digits()[:2]
    seen: list[Tensor] = []
    condition = {"label": LABELS, "image": images, "mask": hole()}
    completed = model.sample(2, condition, watch=lambda _step, x, _score: seen.append(x))
    for found in (completed, *seen):
        assert torch.equal(found[hole() == 0], images[hole() == 0])
    assert not torch.equal(completed[hole() == 1], images[hole() == 1])


@pytest.mark.parametrize("plugged_in", [False, True])
def test_the_surroundings_of_a_hole_pull_on_the_code_and_the_encoder_sees_the_composite(plugged_in: bool) -> None:
    settings: dict[str, Any] = {"num_steps": 1, "sampler": "equation", "epsilons": (0.3, 0.0, 0.0)}
    model = ready(**settings, context_weight=1e-6).double()
    images = held_out_digits()[:2].double()
    condition = {"label": LABELS % 5, "image": images, "mask": hole()}
    codes: list[Tensor] = []
    model.generator.register_forward_pre_hook(lambda _module, inputs: codes.append(inputs[0].detach()))
    model.sample(2, condition, network=Linear().double().eval() if plugged_in else None)
    h = codes[0].requires_grad_()
    context = -0.5 * (255 * (1 - hole()) * (images - model.generate(h))).square().sum()
    gradient = torch.autograd.grad(context, h)[0]
    prior = model.encode(torch.where(hole() > 0, model.generate(h), images)) - h
    wanted = torch.minimum((h + 0.3 * prior + 1e-6 * gradient).clamp(min=0), model.code_bounds)
    torch.testing.assert_close(codes[1], wanted.detach())


class Words(nn.Module):
    """A captioner whose words are independent, each by a linear map of the pixels."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__()
        self.known = sorted({word for text in texts for word in text.split()} | {"."})
        self.map = nn.Linear(784, len(self.known))

    def forward(self, images: Tensor) -> Tensor:
        return self.map(images.flatten(1)).log_softmax(1)

    def log_prob(self, images: Tensor, captions: list[str]) -> Tensor:
        words = [[self.known.index(word) for word in [*caption.split(), "."]] for caption in captions]
        return torch.stack([row[index].sum() for row, index in zip(self(images), words, strict=True)])


def test_captions_are_climbed_word_by_word() -> None:
    captions = ["a thick three", "a seven"]
    network = Words(captions).double().eval()
    model = ready(num_steps=1, sampler="equation", epsilons=(0.0, 1.0, 0.0)).double()
    codes: list[Tensor] = []
    model.generator.register_forward_pre_hook(lambda _module, inputs: codes.append(inputs[0].detach()))
    scores: list[Tensor] = []
    model.sample(2, {"caption": captions}, network=network, watch=lambda _step, _images, score: scores.append(score))
    h = codes[0].requires_grad_()
    gradient = torch.zeros_like(h)
    for row, caption in enumerate(captions):
        for word in [*caption.split(), "."]:  # The terminal token counts.
            log_prob = network(model.generate(h))[row, network.known.index(word)]
            gradient += torch.autograd.grad(log_prob, h)[0]
    wanted = torch.minimum((h + gradient).clamp(min=0), model.code_bounds)
    torch.testing.assert_close(codes[1], wanted.detach())
    torch.testing.assert_close(scores[0], network.log_prob(model.generate(h), captions).detach())


def test_our_own_captioner_steers() -> None:
    """It has no forward, and knows words of its own alone."""
    torch.manual_seed(0)
    sizes = {"base_channels": 2, "feature_dim": 3, "embedding_dim": 4, "hidden_size": 5}
    captioner = Captioner((1, 28, 28), ["a", "thick", "three", "seven"], **sizes).eval()
    model = ready(num_steps=20, sampler="equation", epsilons=(0.0, 30.0, 0.0))
    scores: list[Tensor] = []
    captions = ["a thick three", "a seven"]
    images = model.sample(
        2, {"caption": captions}, network=captioner, watch=lambda _step, _x, score: scores.append(score)
    )
    assert images.shape == (2, 1, 28, 28)
    assert (scores[-1] > scores[0]).all()
    with pytest.raises(ConditionError, match="green"):
        model.sample(1, {"caption": ["a green three"]}, network=captioner)


def test_joint_is_trained_with_noise_at_three_places_and_the_others_without() -> None:
    model, images = ready("joint", noise=0.1), held_out_digits()[:4]
    codes, maps = model.encoder(images, [model.code_layer, model.comparator_layer])
    assert not torch.equal(model.corrupt(images, codes), codes)
    places: list[tuple[int, ...]] = []

    def silent(values: Tensor) -> Tensor:
        places.append(tuple(values.shape[1:]))
        return torch.zeros_like(values)

    model.noise_like = silent  # type: ignore[method-assign]
    torch.testing.assert_close(model.corrupt(images, codes), codes)
    assert places == [(1, 28, 28), (64, 4, 4), (96,)]
    fake = held_out_digits()[4:8]
    errors = model.errors(fake, images, codes, maps)
    assert list(errors) == ["image_error", "feature_error", "code_error"]
    apart = (model.encode(fake) - codes).square().sum(1).mean()
    torch.testing.assert_close(errors["code_error"], model.hparams["code_weight"] * apart)
    plain = ready("noiseless")
    assert plain.corrupt(images, codes) is codes
    assert list(plain.errors(images, images, codes, maps)) == ["image_error", "feature_error"]


def test_the_generator_of_h_is_that_of_noiseless_and_may_be_sampled_so() -> None:
    trained = []
    for variant in ("h", "noiseless"):
        torch.manual_seed(0)
        model = PPGN(variant=variant, **{**TINY, "num_steps": 2})  # type: ignore[arg-type]
        assert hasattr(model, "denoiser") == (variant == "h")
        trained.append(model)
    assert torch.equal(trained[0].generator[0].weight, trained[1].generator[0].weight)
    model = ready("h", num_steps=2)
    drawn = []
    for variant in ("h", "noiseless", "dgn_am"):
        model.variant = variant  # type: ignore[assignment]
        drawn.append(model.sample(1, {"label": LABELS[:1]}, generator=noise()))
    assert drawn[0].shape == drawn[1].shape == drawn[2].shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": torch.zeros(2, 1, 28, 28)}, "A mask is empty"),
        ({"mask": torch.ones(2, 1, 20, 28)}, r"masks of \(1, 20, 28\); expected \(1, 28, 28\)"),
        ({"mask": None}, "give image and mask both"),
        ({"image": torch.rand(3, 1, 28, 28)}, "'image' has 3 rows for 2 samples"),
    ],
)
def test_bad_holes_are_named(change: dict[str, Any], message: str) -> None:
    condition = {"label": LABELS, "image": held_out_digits()[:2], "mask": hole(), **change}
    condition = {key: value for key, value in condition.items() if value is not None}
    with pytest.raises(ConditionError, match=message):
        ready(num_steps=1).sample(2, condition)


def test_an_unknown_variant_is_named() -> None:
    with pytest.raises(DataError, match="expected one of x, dgn_am, h, joint, noiseless"):
        PPGN(variant="y", **TINY)  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", ["x", "h"])
def test_denoisers_see_noise_of_the_stated_size(variant: Any) -> None:
    """In units of the range for images, of each unit's own deviation for codes."""
    model, given = ready(variant, denoiser_noise=0.3), []
    model.noise_like = torch.ones_like  # type: ignore[method-assign]
    model.denoiser.register_forward_pre_hook(lambda _module, inputs: given.append(inputs[0]))
    quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0).fit(
        model, DataLoader([{"image": image} for image in held_out_digits()[:4]], batch_size=4)
    )
    clean = held_out_digits()[:4]
    wanted = clean + 0.3 if variant == "x" else model.encode(clean) + 0.3 * model.code_std
    torch.testing.assert_close(given[0], wanted)


@pytest.mark.parametrize("variant", ["x", "h"])
def test_denoisers_learn_to_remove_noise(variant: Any) -> None:
    """Against the noisy values as they are: what is left of the error, after 40 updates."""
    model = PPGN(variant=variant, **{**TINY, "denoiser_units": (96,), "denoiser_noise": 1.0, "lr": 3e-3})
    data = DigitsDataModule(batch_size=50)
    quiet_trainer(max_epochs=1, limit_train_batches=40, limit_val_batches=0).fit(model, data)
    images = held_out_digits()
    torch.manual_seed(1)
    with torch.no_grad():
        clean = images if variant == "x" else model.encode(images)
        scale = 1.0 if variant == "x" else model.code_std
        noisy = clean + scale * torch.randn_like(clean)
        left = (model.denoiser(noisy) - clean).square().mean() / (noisy - clean).square().mean()
    assert left < 0.8
