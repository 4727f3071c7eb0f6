"""A stranger's models: subclasses in every form that people write them in, with arguments of all kinds.

The file is also copied into a package of its own, to be named by `--import`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from lightning_gen.models import GAN, VAE

if TYPE_CHECKING:
    from collections.abc import Callable


class PassedOn(VAE):
    """Its arguments and the parent's by `**kwargs`."""

    def __init__(self, offset: float = -1.0, clip: float = math.inf, queue_size: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.offset, self.clip, self.queue_size = offset, clip, queue_size


class Saving(VAE):
    """With a `save_hyperparameters` of its own."""

    def __init__(self, offset: float = -1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.save_hyperparameters()
        self.offset = offset


class SavingFirst(VAE):
    """Kept before the parent has been made."""

    def __init__(self, offset: float = -1.0, **kwargs: Any) -> None:
        self.save_hyperparameters()
        super().__init__(**kwargs)
        self.offset = offset


class Partly(VAE):
    """Some of the parent's arguments, with defaults of its own."""

    def __init__(
        self,
        image_shape: tuple[int, ...] = (1, 8, 6),
        latent_dim: int = 3,
        offset: float = -1.0,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(image_shape=image_shape, latent_dim=latent_dim, hidden_size=9, decoder="gaussian")
        self.offset, self.transform = offset, transform


class Without(VAE):
    """No constructor at all."""


class KeywordOnly(VAE):
    """Nothing by its place."""

    def __init__(self, *, offset: float = -1.0, latent_dim: int = 3, **kwargs: Any) -> None:
        super().__init__(latent_dim=latent_dim, **kwargs)
        self.offset = offset


class Fixed(VAE):
    """One of the parent's arguments is not to be chosen."""

    def __init__(self, offset: float = -1.0, **kwargs: Any) -> None:
        super().__init__(num_layers=2, **kwargs)
        self.offset = offset


class Meaning(VAE):
    """An argument of a parent's name, and a meaning of its own: 0 for the usual."""

    def __init__(self, hidden_size: int = 0, offset: float = -1.0, **kwargs: Any) -> None:
        super().__init__(hidden_size=hidden_size or 9, **kwargs)
        self.offset = offset


class Ignoring(VAE):
    """A network among its arguments, which no checkpoint is to hold."""

    def __init__(self, offset: float = -1.0, network: torch.nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.save_hyperparameters(ignore=["network"])
        self.offset, self.network = offset, network or torch.nn.Identity()


class Configured(VAE):
    """All arguments in one."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(**{key: value for key, value in config.items() if key != "offset"})
        self.save_hyperparameters(config)
        self.offset = config["offset"]


class Scaled:
    """A mixin that takes an argument, and passes on the others by name or by place."""

    def __init__(self, *args: Any, offset: float = -1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offset = offset


class Mixed(Scaled, VAE):
    """The mixin before."""


class Registered(type):
    """A metaclass of somebody else."""

    names: list[str] = []

    def __init__(cls, name: str, *arguments: Any) -> None:
        super().__init__(name, *arguments)
        Registered.names.append(name)


class Samples(Protocol):
    """What somebody asks of models."""

    def sample(self, num_samples: int) -> Tensor: ...


class Foreign(VAE, metaclass=Registered):
    """Of another metaclass."""

    def __init__(self, offset: float = -1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.offset = offset


class Promising(VAE, Samples):
    """With a Protocol among its bases."""

    def __init__(self, offset: float = -1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.offset = offset


class Buggy(GAN):
    """A typing error in the constructor."""

    def __init__(self, hidden_size: int = 8, **kwargs: Any) -> None:
        super().__init__(hidden_size=hidden_size, **kwargs)
        self.width = self.hiden_size  # type: ignore[attr-defined]


class Breaking(VAE):
    """A sampler that fails in the way it is told."""

    def __init__(self, error: type[Exception] = RuntimeError, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.error = error

    def _sample(self, *arguments: Any) -> Tensor:
        raise self.error("mine")
