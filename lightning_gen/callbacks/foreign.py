"""Models of other people, as our callbacks see them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gen.errors import DataError
from lightning_gen.models.base import Condition, GenerativeModule


class Foreign(GenerativeModule):
    """What draws images when asked for so many, in the place of a model of ours.

    It may take `condition`, if it also has `condition_keys`, and `generator`; what takes none is drawn by PyTorch's
    global stream, seeded from the generator. `data_key`, `context_frames`, `no_density` and `can_sample` are its own
    if it has them.

    Args:
        sampler: has `sample(n)`, or is itself called with n; gives images in [0, 1], `(n, C, H, W)`.
    """

    def __init__(self, sampler: Any) -> None:
        super().__init__()
        self.sampler = sampler
        self.draw: Callable[..., Any] = getattr(sampler, "sample", sampler)
        self.taken = set(inspect.signature(self.draw).parameters)
        for name in ("condition_keys", "data_key", "context_frames", "no_density"):
            setattr(self, name, getattr(sampler, name, getattr(self, name)))

    @property
    def can_sample(self) -> bool:
        return bool(getattr(self.sampler, "can_sample", True))

    @property
    def device(self) -> torch.device:
        """Where the sampler's weights are."""
        if isinstance(self.sampler, nn.Module):
            return next((weight.device for weight in self.sampler.parameters()), torch.device("cpu"))
        return torch.device("cpu")

    def sample(
        self, num_samples: int, condition: Condition | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The images, in eval mode and without gradients.

        Raises:
            DataError: if they are no floats of the shape `(num_samples, C, H, W)`, or `(num_samples, C, T, H, W)`.
        """
        with self.evaluating(), torch.no_grad():
            images = self._sample(num_samples, condition, generator)
        if not isinstance(images, Tensor) or images.ndim not in (4, 5) or len(images) != num_samples:
            found = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise DataError(
                f"{type(self.sampler).__name__} was asked for {num_samples} samples and gave {found}; expected a "
                f"tensor ({num_samples}, C, H, W)."
            )
        if not images.is_floating_point():
            raise DataError(f"{type(self.sampler).__name__} gave samples of {images.dtype}; expected floats in [0, 1].")
        return images.float()

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Any:
        given: dict[str, Any] = {"condition": condition} if condition is not None and "condition" in self.taken else {}
        if "generator" in self.taken:
            given["generator"] = generator
        elif generator is not None:
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        return self.draw(num_samples, **given)
