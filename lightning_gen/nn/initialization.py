"""First weights that several papers share."""

from __future__ import annotations

from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def initialize_normal(network: nn.Module, std: float = 0.02) -> None:
    """Weights from N(0, std^2), biases of 0; gains of the normalisation from N(1, 0.02^2), shifts of 0.

    Radford et al. 2016, section 4, whose code is the source for the gains; Odena et al. 2017, appendix.

    Args:
        network: its linear, convolutional and normalising layers are set, in place.
        std: standard deviation of the weights.
    """
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)) and module.affine:
            nn.init.normal_(module.weight, 1.0, 0.02)
        elif isinstance(module, (nn.Linear, *CONVOLUTIONS)):
            nn.init.normal_(module.weight, 0.0, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialize_convolutions(network: nn.Module) -> None:
    """`initialize_normal` for convolutions and normalisation alone: linear layers keep PyTorch's first weights.

    Those are U(-1 / sqrt(n), 1 / sqrt(n)) of n inputs, for biases too, as in Torch; the `weights_init` of Reed et al.
    2016 touches no other layers.
    """
    for module in network.modules():
        if not isinstance(module, nn.Linear) and not list(module.children()):
            initialize_normal(module)
