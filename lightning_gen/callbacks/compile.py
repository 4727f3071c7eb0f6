"""Faster training by compiled networks."""

from __future__ import annotations

from lightning_gen._lightning import Callback, LightningModule, Trainer
from lightning_gen.arguments import check_arguments
from lightning_gen.errors import LightningGenError


class Compile(Callback):
    """Compile networks of the model in place by `torch.compile`, before the first batch.

    A LightningModule is not compiled as a whole: what its `training_step` does around its networks (updates of several
    optimizers, logging) is no graph. The names in a checkpoint stay as they are. The first batches of training and of
    validation wait for the compiler, tens of seconds to minutes; on a CPU it calls the system's C++ compiler.

    Args:
        modules: names of the model's networks, such as `net` of PixelRNN or `generator` and `discriminator` of GAN.

    Raises:
        LightningGenError: if the model has no such network.
    """

    def __init__(self, modules: list[str]) -> None:
        check_arguments(Compile.__init__, locals())
        self.modules = modules

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        networks = dict(pl_module.named_modules())
        for name in self.modules:
            if name not in networks:
                children = ", ".join(name for name, _ in pl_module.named_children())
                raise LightningGenError(f"Compile got modules=[{name!r}]; {type(pl_module).__name__} has {children}.")
        for name in self.modules:
            networks[name].compile()
