"""What a training step costs over the same networks in a bare loop, with and without its log; no bar."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_gen._lightning import Callback, LightningModule, Trainer
from lightning_gen.functional import discriminator_loss, laplacian_pyramid, non_saturating_loss
from lightning_gen.models import (
    ACGAN,
    CGAN,
    DRAW,
    GAN,
    GANINTCLS,
    GAWWN,
    LAPGAN,
    VAE,
    VGAN,
    VPN,
    AttributeClassifier,
    Captioner,
    CharCNNRNN,
    ImageModule,
    ImprovedGAN,
    Pix2Pix,
    PixelRNN,
)
from lightning_gen.nn import FeatureExtractor, Features
from tests.digits import quiet_trainer

STEPS, ROUNDS = 100, 5
WORDS = ["a", "thick", "slanted", "red", "seven", "on", "the", "left", "and", "nothing", "else"]


class Clock(Callback):
    """Seconds between the first and the last batch."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = time.perf_counter() - self.start


def by_trainer(model: LightningModule, loader: Any) -> float:
    clock = Clock()
    quiet_trainer(max_epochs=1, limit_val_batches=0, callbacks=[clock]).fit(model, loader)
    return clock.seconds


def likelihood_by_hand(model: VAE | DRAW | PixelRNN | VPN, loader: Any) -> float:
    made = model.configure_optimizers()
    optimizer = made[0][0] if isinstance(made, tuple) else made
    objective: Any = model.elbo if isinstance(model, (VAE, DRAW)) else model.log_prob
    if isinstance(model, VPN):
        objective = lambda batch: -model.cross_entropy(batch["video"])  # noqa: E731
    start = time.perf_counter()
    for images in loader:
        loss = -objective(images).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start


def gan_by_hand(model: GAN, loader: Any) -> float:
    optimizer_d, optimizer_g = model.configure_optimizers()
    d_parameters, g_parameters = list(model.discriminator.parameters()), list(model.generator.parameters())
    start = time.perf_counter()
    for images in loader:
        fake = model.generator(model.sample_latent(len(images)))
        real_logits, fake_logits = model.discriminator(torch.cat([images, fake])).chunk(2)
        loss_d, loss_g = discriminator_loss(real_logits, fake_logits), non_saturating_loss(fake_logits)
        d_gradients = torch.autograd.grad(loss_d, d_parameters, retain_graph=True)
        g_gradients = torch.autograd.grad(loss_g, g_parameters)
        for parameter, gradient in zip(d_parameters + g_parameters, d_gradients + g_gradients, strict=True):
            parameter.grad = gradient
        optimizer_d.step()
        optimizer_g.step()
    return time.perf_counter() - start


def improved_gan_by_hand(model: ImprovedGAN, loader: Any) -> float:
    optimizer_d, optimizer_g = model.configure_optimizers()
    features, (d_parameters, g_parameters) = model.discriminator.features, model.players()
    start = time.perf_counter()
    for images in loader:
        with torch.no_grad():
            fake = model.generator(torch.rand(len(images), 100))
        rows = torch.randperm(100)
        logits = model.discriminator(torch.cat([images, fake, model.labelled_images[rows]]))
        real_logits, fake_logits, labelled_logits = logits.chunk(3)
        loss_d = discriminator_loss(real_logits.logsumexp(1), fake_logits.logsumexp(1))
        loss_d = loss_d + F.cross_entropy(labelled_logits, model.labels[rows])
        for parameter, gradient in zip(d_parameters, torch.autograd.grad(loss_d, d_parameters), strict=True):
            parameter.grad = gradient
        optimizer_d.step()
        with torch.no_grad():
            real_mean = features(images).mean(0)
        loss_g = (features(model.generator(torch.rand(len(images), 100))).mean(0) - real_mean).square().mean()
        for parameter, gradient in zip(g_parameters, torch.autograd.grad(loss_g, g_parameters), strict=True):
            parameter.grad = gradient
        optimizer_g.step()
    return time.perf_counter() - start


def cgan_by_hand(model: CGAN, loader: Any) -> float:
    optimizer_d, optimizer_g = model.configure_optimizers()
    d_parameters, g_parameters = list(model.discriminator.parameters()), list(model.generator.parameters())
    start = time.perf_counter()
    for images, labels in loader:
        y = model.embed({"label": labels})
        fake = model.generator(model.sample_latent(len(images)), y, model.dropout)
        real_logits, fake_logits = model.discriminator(images, y), model.discriminator(fake, y)
        loss_d, loss_g = discriminator_loss(real_logits, fake_logits), non_saturating_loss(fake_logits)
        d_gradients = torch.autograd.grad(loss_d, d_parameters, retain_graph=True)
        g_gradients = torch.autograd.grad(loss_g, g_parameters)
        for parameter, gradient in zip(d_parameters + g_parameters, d_gradients + g_gradients, strict=True):
            parameter.grad = gradient
        optimizer_d.step()
        optimizer_g.step()
    return time.perf_counter() - start


def pix2pix_by_hand(model: Pix2Pix, loader: Any) -> float:
    (optimizer_d, optimizer_g), _ = model.configure_optimizers()
    start = time.perf_counter()
    for batch in loader:
        source, target = 2 * batch["source"] - 1, 2 * batch["image"] - 1
        fake = model.generator(source, 0.5)
        real_logits = model.discriminator(torch.cat([source, target], 1))
        fake_logits = model.discriminator(torch.cat([source, fake.detach()], 1))
        optimizer_d.zero_grad()
        discriminator_loss(real_logits, fake_logits).backward()
        optimizer_d.step()
        fake_logits = model.discriminator(torch.cat([source, fake], 1))
        optimizer_g.zero_grad()
        (100 * (target - fake).abs().mean() + non_saturating_loss(fake_logits)).backward()
        optimizer_g.step()
    return time.perf_counter() - start


def acgan_by_hand(model: ACGAN, loader: Any) -> float:
    optimizer_d, optimizer_g = model.configure_optimizers()
    d_parameters, g_parameters = list(model.discriminator.parameters()), list(model.generator.parameters())
    start = time.perf_counter()
    for images, labels in loader:
        drawn = torch.randint(10, (len(images),))
        z = torch.cat([model.sample_latent(len(images)), F.one_hot(drawn, 10)], 1)
        fake = model.generator(z) / 2 + 0.5
        (real_source, real_classes), (source, classes) = model.discriminator(images), model.discriminator(fake)
        loss_d = 2 * discriminator_loss(real_source, source)
        loss_d = loss_d + F.cross_entropy(real_classes, labels) + F.cross_entropy(classes, drawn)
        for parameter, gradient in zip(
            d_parameters, torch.autograd.grad(loss_d, d_parameters, retain_graph=True), strict=True
        ):
            parameter.grad = gradient
        optimizer_d.step()
        source, classes = model.discriminator(fake)
        loss_g = non_saturating_loss(source) + F.cross_entropy(classes, drawn)
        for parameter, gradient in zip(g_parameters, torch.autograd.grad(loss_g, g_parameters), strict=True):
            parameter.grad = gradient
        optimizer_g.step()
    return time.perf_counter() - start


def gan_int_cls_by_hand(model: GANINTCLS, loader: Any) -> float:
    (optimizer_d, optimizer_g), _ = model.configure_optimizers()
    d_parameters, g_parameters = (
        [p for p in network.parameters() if p.requires_grad] for network in (model.discriminator, model.generator)
    )
    start = time.perf_counter()
    for batch in loader:
        images, drawn = 2 * batch["image"] - 1, torch.randint(10, (64, 4))
        text = batch["text_embedding"][torch.arange(64)[:, None], drawn].mean(1)
        with torch.no_grad():
            fake = model.generator(torch.randn(64, model.latent_dim), text)
        real_logits, fake_logits = model.discriminator(images, text), model.discriminator(fake, text)
        wrong_logits = model.discriminator(images.roll(1, 0), text)
        loss_d = F.softplus(-real_logits).mean()
        loss_d = loss_d + 0.5 * (F.softplus(wrong_logits).mean() + F.softplus(fake_logits).mean())
        for parameter, gradient in zip(d_parameters, torch.autograd.grad(loss_d, d_parameters), strict=True):
            parameter.grad = gradient
        optimizer_d.step()
        text = torch.cat([text, (text[:32] + text[32:]) / 2])
        loss_g = F.softplus(-model.discriminator(model.generator(torch.randn(96, model.latent_dim), text), text)).mean()
        for parameter, gradient in zip(g_parameters, torch.autograd.grad(loss_g, g_parameters), strict=True):
            parameter.grad = gradient
        optimizer_g.step()
    return time.perf_counter() - start


def gawwn_by_hand(model: GAWWN, loader: Any) -> float:
    (optimizer_d, optimizer_g), _ = model.configure_optimizers()
    d, d_parameters, g_parameters = (
        model.discriminator,
        list(model.discriminator.parameters()),
        list(model.generator.parameters()),
    )
    start = time.perf_counter()
    for batch in loader:
        images, box, drawn = 2 * batch["image"] - 1, batch["box"], torch.randint(10, (16, 4))
        text = batch["text_embedding"][torch.arange(16)[:, None], drawn].mean(1)
        fake = model.generator(torch.randn(16, model.latent_dim), box, text)
        real = d.trunk(images)
        real_logits, wrong_logits = d(real, box, text), d(real, box, text[torch.randperm(16)])
        fake_logits = d(d.trunk(fake), box, text)
        loss_d = F.softplus(-real_logits).mean()
        loss_d = loss_d + 0.5 * (F.softplus(wrong_logits).mean() + F.softplus(fake_logits).mean())
        gradients = torch.autograd.grad(loss_d, d_parameters, retain_graph=True)
        gradients += torch.autograd.grad(F.softplus(-fake_logits).mean(), g_parameters)
        for parameter, gradient in zip(d_parameters + g_parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer_d.step()
        optimizer_g.step()
    return time.perf_counter() - start


class Columns(FeatureExtractor):
    """Features that cost nothing: the brightness of each column."""

    name, num_features, num_classes = "columns", 32, 32

    def __init__(self) -> None:
        super().__init__(torch.nn.Identity())

    def _extract(self, images: torch.Tensor) -> Features:
        return Features(images.sum((1, 2)), images.sum((1, 2)))


def char_cnn_rnn_by_hand(model: CharCNNRNN, loader: Any) -> float:
    optimizer = torch.optim.RMSprop(model.parameters(), lr=7e-4)
    start = time.perf_counter()
    for batch in loader:
        texts = [row[torch.randint(len(row), ())] for row in batch["caption"]]
        scores = batch["image"].sum((1, 2)) @ model(texts).T
        own = scores.diagonal()
        others = F.relu(1 + scores - own[:, None]) + F.relu(1 + scores - own)
        loss = (others.sum() - others.diagonal().sum()) / len(scores) ** 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start


def captioner_by_hand(model: Captioner, loader: Any) -> float:
    optimizer, network = torch.optim.Adam(model.parameters(), lr=2e-3), model.network
    assert network is not None
    start = time.perf_counter()
    for batch in loader:
        words = model.encode([row[torch.randint(len(row), ())] for row in batch["caption"]])
        end = torch.zeros(len(words), 1, dtype=torch.long)
        targets = torch.cat([words, end], 1)
        logits = network(network.image(batch["image"]), torch.cat([end, words], 1))
        counts = (targets > 0) | (F.pad(targets, (1, 0), value=1)[:, :-1] > 0)  # Words, and the end of each text.
        loss = (F.cross_entropy(logits.transpose(1, 2), targets, reduction="none") * counts).sum() / counts.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
    return time.perf_counter() - start


def attribute_classifier_by_hand(model: AttributeClassifier, loader: Any) -> float:
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=len(loader))
    start = time.perf_counter()
    for batch in loader:
        parts = model.network(batch["image"]).split(list(model.attributes.values()), 1)
        loss = sum(F.cross_entropy(part, value) for part, value in zip(parts, batch["attributes"].T, strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return time.perf_counter() - start


def lapgan_by_hand(model: LAPGAN, loader: Any) -> float:
    optimizer_d, optimizer_g = model.configure_optimizers()
    d_parameters, g_parameters = list(model.discriminators.parameters()), list(model.generators.parameters())
    start = time.perf_counter()
    for images in loader:
        bands, lows = laplacian_pyramid((images - model.mean) / model.std, model.sizes)
        levels = list(zip(model.generators, model.discriminators, bands, lows, strict=True))
        fakes = [g(model.sample_noise(k, 100), low, None) for k, (g, _, _, low) in enumerate(levels)]
        losses = []
        for (_, d, band, low), fake in zip(levels, fakes, strict=True):
            logits = d(torch.cat([band[:50], fake[50:]]), low, None)
            losses.append(discriminator_loss(logits[:50], logits[50:]))
        for parameter, gradient in zip(d_parameters, torch.autograd.grad(sum(losses), d_parameters), strict=True):
            parameter.grad = gradient
        optimizer_d.step()
        losses = [non_saturating_loss(d(fake, low, None)) for (_, d, _, low), fake in zip(levels, fakes, strict=True)]
        for parameter, gradient in zip(g_parameters, torch.autograd.grad(sum(losses), g_parameters), strict=True):
            parameter.grad = gradient
        optimizer_g.step()
    return time.perf_counter() - start


def vgan_by_hand(model: VGAN, loader: Any) -> float:
    optimizer_d, optimizer_g = model.configure_optimizers()
    generator, discriminator, g_parameters = model.generator, model.discriminator, list(model.generator.parameters())
    real, generated = torch.zeros(8, dtype=torch.int64), torch.ones(8, dtype=torch.int64)
    start = time.perf_counter()
    for batch in loader:
        foreground, mask, background = generator(torch.randn(8, 32))
        fake = mask * foreground + (1 - mask) * background[:, :, None]
        loss_d = F.cross_entropy(discriminator(2 * batch["video"] - 1), real)
        loss_d = loss_d + F.cross_entropy(discriminator(fake.detach()), generated)
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()
        loss_g = F.cross_entropy(discriminator(fake), real) + 0.1 * mask.mean()
        for parameter, gradient in zip(g_parameters, torch.autograd.grad(loss_g, g_parameters), strict=True):
            parameter.grad = gradient
        optimizer_g.step()
    return time.perf_counter() - start


@pytest.mark.benchmark(group="step over the bare loop")
@pytest.mark.parametrize("logs", [False, True], ids=["silent", "logs"])
@pytest.mark.parametrize(
    ("make", "by_hand"),
    [
        (lambda: VAE(optimizer="adam", activation="relu", init_std=None), likelihood_by_hand),
        (lambda: DRAW(num_glimpses=4, hidden_size=64, latent_dim=10), likelihood_by_hand),
        (lambda: PixelRNN(num_layers=2, hidden_size=8, head_size=16), likelihood_by_hand),
        (lambda: VPN((1, 4, 32, 32), 2, None, 4, 2, 2, 16), likelihood_by_hand),
        (GAN, gan_by_hand),
        (CGAN, cgan_by_hand),
        (lambda: ACGAN((1, 28, 28), 10, None, 100, (16, 8), (8, 16, 16)), acgan_by_hand),
        (
            lambda: GANINTCLS((3, 32, 32), 128, generator_channels=16, discriminator_channels=16, text_features=32),
            gan_int_cls_by_hand,
        ),
        (
            lambda: GAWWN((3, 32, 32), "box", text_dim=26, base_channels=16, discriminator_channels=16, map_size=8),
            gawwn_by_hand,
        ),
        (
            lambda: CharCNNRNN(
                (3, 32, 32), channels=(48, 64, 64), text_dim=32, extractor=f"{__name__}.{Columns.__name__}"
            ),
            char_cnn_rnn_by_hand,
        ),
        (
            lambda: Captioner((3, 32, 32), WORDS, 16, 64, 32, 96),
            captioner_by_hand,
        ),
        (AttributeClassifier, attribute_classifier_by_hand),
        (ImprovedGAN, improved_gan_by_hand),
        (lambda: Pix2Pix((1, 32, 32), num_levels=5, base_channels=16, patch_size=16), pix2pix_by_hand),
        (lambda: LAPGAN((1, 28, 28), hidden_sizes=(400, 400), channels=(8, 4)), lapgan_by_hand),
        (lambda: VGAN((3, 16, 32, 32), latent_dim=32, base_channels=16, discriminator_channels=8), vgan_by_hand),
    ],
    ids=[
        "vae",
        "draw",
        "pixel_rnn",
        "vpn",
        "gan",
        "cgan",
        "acgan",
        "gan_int_cls",
        "gawwn",
        "char_cnn_rnn",
        "captioner",
        "attribute_classifier",
        "improved_gan",
        "pix2pix",
        "lapgan",
        "vgan",
    ],
)
def test_step_over_the_bare_loop(
    make: Callable[[], ImageModule], by_hand: Callable[..., float], logs: bool, benchmark: Any
) -> None:
    images = torch.rand(100, 1, 28, 28).round()
    model = make()
    batch: Any = (images, torch.arange(100) % 10) if "label" in getattr(model, "condition_keys", ()) else images
    if isinstance(model, Pix2Pix):  # Batches of four, as in its recipe.
        batch = {"image": torch.rand(4, 1, 32, 32), "source": torch.rand(4, 1, 32, 32)}
    if isinstance(model, VGAN):
        batch = {"video": torch.rand(8, 3, 16, 32, 32)}
    if isinstance(model, VPN):
        batch = {"video": torch.rand(2, *model.video_shape)}
    if isinstance(model, GANINTCLS):
        text = torch.randn(64, 10, 128)
        batch = {"image": torch.rand(64, 3, 32, 32), "text_embedding": text, "label": torch.arange(64) % 10}
    if isinstance(model, GAWWN):
        box, text = torch.tensor([[0.1, 0.2, 0.5, 0.6]]).expand(16, -1), torch.randn(16, 10, 26)
        batch = {"image": torch.rand(16, 3, 32, 32), "text_embedding": text, "box": box}
    if isinstance(model, (CharCNNRNN, Captioner)):
        rows = [[" ".join(WORDS[(row + k) % 8 :]) for k in range(4)] for row in range(64)]
        batch = {"image": torch.rand(64, 3, 32, 32), "caption": rows, "label": torch.arange(64)}
    if isinstance(model, AttributeClassifier):
        values = torch.stack([torch.randint(size, (64,)) for size in model.attributes.values()], 1)
        batch = {"image": torch.rand(64, 3, 32, 32), "attributes": values}
    loader = DataLoader([batch] * (STEPS if benchmark.enabled else 2), batch_size=None)
    if not logs:
        model.log = model.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign, assignment]
    if isinstance(model, (DRAW, GAN, CGAN, ACGAN, GANINTCLS, ImprovedGAN, LAPGAN)):
        model.initialized.fill_(True)
    rounds = ROUNDS if benchmark.enabled else 1
    pairs = [(by_trainer(model, loader), by_hand(model, loader)) for _ in range(rounds)]
    ratio = statistics.median(ours / bare for ours, bare in pairs)
    extra = statistics.median(ours - bare for ours, bare in pairs) / STEPS * 1e3
    bare = statistics.median(bare for _, bare in pairs) / STEPS * 1e3
    benchmark.extra_info.update(ratio=ratio, extra_ms=extra, bare_ms=bare)
    name = f"{type(model).__name__}, {'logs' if logs else 'silent'}"
    print(f"\n{name}: {ratio:.3f} x the bare loop ({bare:.2f} ms), {extra:+.3f} ms a step")
    benchmark.pedantic(by_trainer, (model, loader), rounds=1)
