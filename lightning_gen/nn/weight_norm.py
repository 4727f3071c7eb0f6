"""Weight normalisation with data-dependent initialisation (Salimans & Kingma 2016, https://arxiv.org/abs/1602.07868)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightNorm(nn.Module):
    """A linear or convolutional layer whose weights of each output channel have a norm of their own.

    With w = g v / ||v|| the output is `(g / ||v||) (v * x) + b`: it is the output that is scaled, which is smaller than
    the weights.

    Args:
        layer: `nn.Linear`, `nn.Conv2d` or `nn.ConvTranspose2d` with bias=False; its weight is the direction v.
        train_scale: whether g is learned, or stays where `initialize` put it.
        init_std: standard deviation that `initialize_from_data` gives each output channel; None for a layer that stays
            at g = 1 and b = 0.

    Shape:
        as the layer.
    """

    def __init__(
        self, layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, train_scale: bool = False, init_std: float | None = 1.0
    ) -> None:
        super().__init__()
        self.layer = layer
        self.init_std = init_std
        channels_dim = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        weight = layer.weight
        self.reduced = [dim for dim in range(weight.ndim) if dim != channels_dim]
        channels = weight.shape[channels_dim]
        self.scale = nn.Parameter(torch.ones(channels), requires_grad=train_scale)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        gain = self.scale / torch.linalg.vector_norm(self.layer.weight, dim=self.reduced)
        y = self.layer(x)  # (N, C) or (N, C, H, W)
        channels = (-1,) + (1,) * (y.ndim - 2)
        return torch.addcmul(self.bias.view(channels), gain.view(channels), y)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Give each output channel mean 0 and standard deviation `init_std` on a batch."""
        if self.init_std is None:
            return
        y = self.forward(x).transpose(0, 1).flatten(1)  # (C, N) or (C, NHW)
        gain = self.init_std / y.std(1, correction=0)
        self.scale.mul_(gain)
        self.bias.sub_(y.mean(1)).mul_(gain)


@torch.no_grad()
def initialize_from_data(network: nn.Module, x: Tensor) -> None:
    """Run a batch through a network whose layers with an `initialize` set themselves up from what reaches them.

    Each layer sees its input through the layers before it as they are after their own initialisation.

    Args:
        network: with layers such as `WeightNorm` and `MinibatchDiscrimination`.
        x: a batch of the network's inputs.
    """
    layers = [layer for layer in network.modules() if hasattr(layer, "initialize")]
    hooks = [layer.register_forward_pre_hook(lambda layer, inputs: layer.initialize(*inputs)) for layer in layers]
    network(x)
    for hook in hooks:
        hook.remove()
