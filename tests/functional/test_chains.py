"""Chains on densities whose stationary law and whose scores are known, in float64."""

import math

import pytest
import torch
from torch import Tensor

from lightning_gen.functional import (
    ascent_step,
    class_log_prob,
    langevin_step,
    linear_schedule,
    scaled_step,
    truncated_class_score,
)


@pytest.fixture(autouse=True)
def float64() -> None:
    torch.manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_the_chain_on_a_normal_density_has_the_closed_forms_variance() -> None:
    mean, s, e12, e3 = 1.5, 0.7, 0.2, 0.3
    a = e12 / s**2
    x, zero = normal(100_000, 1), torch.zeros(100_000, 1, dtype=torch.float64)
    for _ in range(60):
        x = langevin_step(x, -(x - mean) / s**2, zero, e3 * torch.randn_like(x), e12, 1.0)
    variance = e3**2 / (2 * a - a**2)
    assert x.mean().item() == pytest.approx(mean, abs=5 * math.sqrt(variance / 1e5))
    assert x.var().item() == pytest.approx(variance, rel=5 * math.sqrt(2 / 1e5))


def test_langevins_own_step_nearly_keeps_the_density() -> None:
    s, e3 = 0.7, 0.1
    x = s * normal(100_000, 1)
    for _ in range(200):
        x = langevin_step(x, -x / s**2, torch.zeros_like(x), e3 * torch.randn_like(x), e3**2 / 2, 1.0)
    assert x.var().item() == pytest.approx(s**2 / (1 - e3**2 / (4 * s**2)), rel=5 * math.sqrt(2 / 1e5))


def test_the_best_linear_denoiser_gives_the_score_of_the_smoothed_density() -> None:
    mean, s, sigma = 0.4, 0.8, 0.5
    clean = mean + s * normal(200_000)
    noisy = clean + sigma * torch.randn_like(clean)
    design = torch.stack([noisy, torch.ones_like(noisy)], 1)
    slope, offset = torch.linalg.lstsq(design, clean[:, None]).solution.squeeze(1)
    x = torch.linspace(-1, 2, 7, dtype=torch.float64)
    score = (slope * x + offset - x) / sigma**2
    torch.testing.assert_close(score, -(x - mean) / (s**2 + sigma**2), rtol=0, atol=0.03)


def test_prior_and_classifier_together_are_the_score_of_the_class() -> None:
    means, s = normal(3, 4), 0.9
    x = normal(5, 4).requires_grad_()
    labels = torch.tensor([0, 1, 2, 0, 1])
    logits = x @ means.T / s**2 - means.square().sum(1) / (2 * s**2)
    log_prior = (-torch.cdist(x, means).square() / (2 * s**2)).logsumexp(1)
    prior = torch.autograd.grad(log_prior.sum(), x)[0]
    condition = torch.autograd.grad(class_log_prob(logits, labels).sum(), x)[0]
    moved = langevin_step(x.detach(), prior, condition, torch.zeros_like(x), 0.1, 0.1)
    wanted = x.detach() - 0.1 * (x.detach() - means[labels]) / s**2
    torch.testing.assert_close(moved, wanted)


def test_the_gradient_through_a_linear_generator() -> None:
    g, w, b = normal(6, 4), normal(3, 6), normal(3)
    h = normal(2, 4).requires_grad_()
    labels = torch.tensor([2, 0])
    logits = h @ g.T @ w.T + b
    found = torch.autograd.grad(class_log_prob(logits, labels).sum(), h)[0]
    onehot = torch.nn.functional.one_hot(labels, 3)
    torch.testing.assert_close(found, (onehot - logits.softmax(1)).detach() @ w @ g)


def test_the_truncated_gradient_leaves_out_the_other_classes() -> None:
    w, x = normal(2, 5), normal(1, 5).requires_grad_()
    logits, label = x @ w.T, torch.tensor([1])
    p = logits.softmax(1)[0, 1].detach()
    exact = torch.autograd.grad(class_log_prob(logits, label).sum(), x, retain_graph=True)[0]
    truncated = torch.autograd.grad(truncated_class_score(logits, label).sum(), x)[0]
    torch.testing.assert_close(exact[0], (1 - p) * (w[1] - w[0]))
    torch.testing.assert_close(truncated[0], (1 - p) * w[1])


def test_scaled_steps_have_the_length_asked_for_and_no_scale_of_their_own() -> None:
    h, d = normal(4, 7), normal(4, 7)
    moved = scaled_step(h, d, 0.3)
    torch.testing.assert_close((moved - h).abs().mean(1), torch.full((4,), 0.3, dtype=torch.float64))
    torch.testing.assert_close(scaled_step(h, 1e-6 * d, 0.3), moved)
    d[1], d[2] = 0, torch.nan
    moved = scaled_step(h, d, 0.3)
    assert torch.equal(moved[1:3], h[1:3])
    assert not torch.equal(moved[3], h[3])


def test_ascent_on_a_linear_activation_is_the_closed_form() -> None:
    a, w = normal(5, 3), normal(5)
    g = a.T @ w
    s, steps = g / g.abs().mean(), 20
    unbounded = torch.full((3,), torch.inf, dtype=torch.float64)
    h0 = 100 + normal(1, 3)  # Far from 0, where codes are cut.
    h, wanted = h0.clone(), 0.99**steps * h0
    for step in range(steps):
        length = linear_schedule(2.0, 0.1, step, steps)
        h = ascent_step(h, g[None], length, unbounded, 0.99)
        wanted = wanted + length * 0.99 ** (steps - step) * s
    torch.testing.assert_close(h, wanted)


def test_ascent_stays_within_its_bounds() -> None:
    bounds = torch.rand(6, dtype=torch.float64)
    h = normal(50, 6)
    for _ in range(10):
        h = ascent_step(h, normal(50, 6), 1.0, bounds, 0.99)
        assert (h >= 0).all()
        assert (h <= 0.99 * bounds).all()
    still = ascent_step(h, torch.zeros_like(h), 1.0, bounds, 0.99)
    assert torch.equal(still, h), "a row without gradient has ended"
