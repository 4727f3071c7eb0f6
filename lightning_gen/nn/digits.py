"""The network that judges digits."""

from __future__ import annotations

from torch import Tensor, nn


class DigitNetwork(nn.Module):
    """A small convolutional classifier of 28 x 28 grey digits, 166 thousand parameters.

    Args:
        num_features: units of the last hidden layer, whose activations serve as features of an image.

    Shape:
        images `(N, 1, 28, 28)` in [0, 1] -> logits `(N, 10)`; `body` gives the features, `(N, num_features)`.
    """

    def __init__(self, num_features: int = 96) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution(1, 32, kernel_size=5, stride=2),  # (N, 32, 14, 14)
            *convolution(32, 32, kernel_size=3, stride=1),
            *convolution(32, 64, kernel_size=3, stride=2),  # (N, 64, 7, 7)
            *convolution(64, 64, kernel_size=3, stride=2),  # (N, 64, 4, 4)
            nn.Flatten(),
            nn.Linear(1024, num_features, bias=False),
            nn.BatchNorm1d(num_features),
            nn.ReLU(),
        )
        self.head = nn.Linear(num_features, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int) -> tuple[nn.Module, ...]:
    """Convolution, batch normalisation and ReLU; the side is divided by the stride."""
    return (
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
