"""NADE (Larochelle & Murray 2011), pixel by pixel, and EoNADE (Uria, Murray & Larochelle 2014, `arXiv:1310.1757`).

The pixels x are those of one image in the order of the raster; `order` holds their numbers in the model's order o.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SIGMOID: Callable[[Tensor], Tensor] = torch.sigmoid
RECTIFIER: Callable[[Tensor], Tensor] = torch.relu


def log_bernoulli(x: float, logit: float) -> float:
    """x log p + (1 - x) log(1 - p) with p = sigmoid(logit)."""
    p = 1 / (1 + math.exp(-logit))
    return x * math.log(p) + (1 - x) * math.log(1 - p)


def nade_logits(
    x: Tensor, order: Sequence[int], w: Tensor, v: Tensor, b: Tensor, c: Tensor, act: Callable[[Tensor], Tensor]
) -> Tensor:
    """The logit of every pixel given those before it; rows of W, V and b are in the model's order.

    h_d = act(c + sum_{k < d} W_k x_{o_k}),    p(x_{o_d} = 1 | x_{o_<d}) = sigmoid(b_d + V_d h_d)
    """
    logits = torch.zeros_like(x)
    for d, pixel in enumerate(order):
        a = c.clone()
        for k in range(d):
            a = a + w[k] * x[order[k]]
        logits[pixel] = b[d] + v[d] @ act(a)
    return logits


def nade_log_prob(x: Tensor, logits: Tensor) -> float:
    """log p(x) = sum_d log p(x_{o_d} | x_{o_<d})."""
    return sum(log_bernoulli(x_d, l_d) for x_d, l_d in zip(x.tolist(), logits.tolist(), strict=True))


def nade_gradients(
    x: Tensor, order: Sequence[int], w: Tensor, v: Tensor, b: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of -log p(x) by W, V, b and c, for sigmoid units: the backward recursion by hand.

    delta_d = p_d - x_{o_d};  da_d = delta_d V_d h_d (1 - h_d);  dW_d = x_{o_d} sum_{k > d} da_k
    """
    dw, dv, db, dc = (torch.zeros_like(parameter) for parameter in (w, v, b, c))
    logits = nade_logits(x, order, w, v, b, c, SIGMOID)
    for d in reversed(range(len(order))):
        h = SIGMOID(c + sum((w[k] * x[order[k]] for k in range(d)), torch.zeros_like(c)))
        dw[d] = x[order[d]] * dc  # So far dc holds the sum over all k > d.
        db[d] = SIGMOID(logits[order[d]]) - x[order[d]]
        dv[d] = db[d] * h
        dc = dc + db[d] * v[d] * h * (1 - h)
    return dw, dv, db, dc


def deep_logit(x: Tensor, known: Sequence[int], pixel: int, p: dict[str, Tensor]) -> float:
    """The logit of one pixel given the known ones: the network's input is [x * m; m], its units are rectifiers."""
    a = p["hidden_bias"].clone()
    for k in known:
        a = a + p["weight"][k] * x[k] + p["mask_weight"][k]
    h = RECTIFIER(a)
    layer = 0
    while f"deeper.{layer}.weight" in p:
        h = RECTIFIER(p[f"deeper.{layer}.weight"] @ h + p[f"deeper.{layer}.bias"])
        layer += 1
    return float(p["output_bias"][pixel] + p["output_weight"][pixel] @ h)


def deep_log_prob(x: Tensor, order: Sequence[int], p: dict[str, Tensor]) -> float:
    """log p(x | o) = sum_d log p(x_{o_d} | x_{o_<d})."""
    return sum(log_bernoulli(float(x[i]), deep_logit(x, order[:d], i, p)) for d, i in enumerate(order))


def ensemble_log_prob(x: Tensor, orders: Sequence[Sequence[int]], p: dict[str, Tensor]) -> float:
    """EoNADE: log 1/K sum_k p(x | o_k), a mean of probabilities."""
    return math.log(sum(math.exp(deep_log_prob(x, order, p)) for order in orders) / len(orders))


def orderless_loss(x: Tensor, known: Sequence[int], p: dict[str, Tensor]) -> float:
    """Equation 9: J = D / (D - d + 1) sum_{i not known} -log p(x_i | x_known), with d - 1 known pixels."""
    unknown = [i for i in range(len(x)) if i not in known]
    nats = sum(log_bernoulli(float(x[i]), deep_logit(x, known, i, p)) for i in unknown)
    return -len(x) / len(unknown) * nats
