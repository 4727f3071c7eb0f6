"""The program that counts costs, on what is known by hand, and on what two real processes send."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_gen.models import DCGAN, GMMN, VAE, GenerativeModule
from tests.benchmarks.cost import Cost, SecondStep, batch_of, cost, counting
from tests.digits import quiet_trainer
from tests.ranks import spawn_ranks

SMALL: dict[str, Callable[[], GenerativeModule]] = {
    "VAE": lambda: VAE(hidden_size=16, latent_dim=3),
    "DCGAN": lambda: DCGAN((1, 28, 28), latent_dim=3, base_channels=2),
    "GMMN": lambda: GMMN(hidden_sizes=(16,)),
}


class Sent(TorchDispatchMode):
    """Bytes that this process gives to PyTorch's sums and collections over ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "allreduce_" in str(func) or "allgather_" in str(func):
            tensors = args[1] if "allgather" in str(func) else args[0]
            self.bytes += sum(tensor.nbytes for tensor in tensors)
        return func(*args, **(kwargs or {}))


def _send(path: Path) -> None:
    for name, make in SMALL.items():
        model, sent = make(), Sent()
        second = SecondStep(sent=partial(getattr, sent, "bytes"))
        trainer = quiet_trainer(
            max_epochs=1,
            limit_val_batches=0,
            devices=2,
            strategy="ddp",
            callbacks=[second],
            use_distributed_sampler=False,
        )
        batches = [{"image": batch_of(model, 4)["image"].round()}] * 3
        with sent:
            trainer.fit(model, torch.utils.data.DataLoader(batches, batch_size=None))
        if trainer.is_global_zero:
            torch.save(second.grown, path / name)


def counted(make: Callable[[], GenerativeModule], batch: int, ranks: int = 1) -> Cost:
    with counting() as counter:
        return cost(make(), batch, counter, ranks)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sent")
    spawn_ranks(_send, path)
    return path


@pytest.mark.parametrize("name", SMALL)
def test_two_ranks_send_what_is_counted(name: str, two_ranks: Path) -> None:
    assert torch.load(two_ranks / name)["sent"] == counted(SMALL[name], 4, ranks=2).gradients


def test_what_is_known_by_hand() -> None:
    """A VAE of one hidden layer: two products in each direction, and the weights' own four copies under Adagrad."""
    few, many = (counted(SMALL["VAE"], size) for size in (50, 100))
    weights = 784 * 16 + 16 + 2 * (16 * 3 + 3) + 3 * 16 + 16 + 16 * 784 + 784
    assert few.gradients == 4 * weights
    assert few.fixed - 4 * weights * 3 < 200  # Weights, gradients, sums of squares; counts of steps.
    products = 784 * 16 + 2 * 16 * 3 + 3 * 16 + 16 * 784
    assert many.flops == 2 * few.flops == 100 * 2 * (3 * products - 784 * 16)  # No gradient of the images.
    assert (many.peak - few.peak) / 50 > 4 * 784  # More than the images.
