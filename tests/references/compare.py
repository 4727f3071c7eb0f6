"""What the comparisons share: a model with weights that no symmetry hides, and its parameters by name."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tests.digits import quiet_trainer
from tests.references.layers import Adam

Model = TypeVar("Model", bound=nn.Module)

BFLOAT16 = 2.0**-8  # The largest relative error of rounding to 8 significant bits.


def shaken(model: Model, std: float = 0.4, seed: int = 0) -> Model:
    """In float64, with every weight and bias drawn anew: none is zero or one by design any more."""
    generator = torch.Generator().manual_seed(seed)
    model.double()
    for parameter in model.parameters():
        parameter.data = std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def in_bfloat16(model: Model) -> Model:
    """The model in bfloat16; its weights, read as float64, are the same numbers."""
    return model.bfloat16()


def parameters_of(model: nn.Module, part: str = "") -> dict[str, Tensor]:
    """Copies in float64 of what the state dict holds under a name, without that name."""
    state = {name: value.clone() for name, value in model.state_dict().items() if name.startswith(part)}
    return {
        name[len(part) :].lstrip("."): value.double() if value.is_floating_point() else value
        for name, value in state.items()
    }


def binary(*shape: int, seed: int = 1) -> Tensor:
    """Random images of 0 and 1 in float64."""
    return torch.randint(2, shape, generator=torch.Generator().manual_seed(seed)).double()


def grey(*shape: int, seed: int = 1) -> Tensor:
    """Random images between 0 and 1 in float64."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(actual: Tensor, expected: Tensor, rtol: float = 1e-10, atol: float = 1e-12) -> None:
    torch.testing.assert_close(actual.double(), expected, rtol=rtol, atol=atol)


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """A model's parameters by name, as leaves that gradients may be taken by."""
    return {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}


def train(
    model: Any, batches: list[dict[str, Tensor]], latents: list[Tensor], draw: str = "sample_latent", **arguments: Any
) -> None:
    """Let the Trainer take a batch a step, with these draws of noise in turn, from the weights as they are."""
    if "initialized" in model.state_dict():
        model.initialized.fill_(True)
    noise = iter(latents)
    setattr(model, draw, lambda *sizes, **_: next(noise))
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0, precision="64-true", **arguments)
    trainer.fit(model, torch.utils.data.DataLoader(batches, batch_size=None))


ADAM_OF_NOTHING = 1e-8
"""A bias before a normalisation has no gradient but rounding's, which Adam makes a step of up to this size of."""


def same_parameters(model: nn.Module, expected: dict[str, Tensor], rtol: float = 1e-9, atol: float = 1e-11) -> None:
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.detach(), expected[name].detach(), rtol=rtol, atol=atol, msg=name)


def network(model: Any, part: str) -> Callable[..., Any]:
    """A part of a copy of the model as a function of all weights by name, and of its inputs."""
    module = getattr(copy.deepcopy(model), part)

    def call(p: dict[str, Tensor], *inputs: Any) -> Any:
        own = {name.removeprefix(part + "."): value for name, value in p.items() if name.startswith(part + ".")}
        return torch.func.functional_call(module, own, inputs)

    return call


def adams(lr: float) -> tuple[Adam, Adam]:
    return Adam(lr, (0.5, 0.999)), Adam(lr, (0.5, 0.999))
