"""The update helper: which parameters move, by which gradients, and when."""

from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor, nn

from lightning_gen._lightning import pl
from lightning_gen.errors import DataError
from lightning_gen.models import GAN, AdversarialModule
from lightning_gen.models.base import Condition
from tests.digits import quiet_trainer


class Duel(AdversarialModule):
    """Two parameters a and b; a minimises a b x, b minimises -a b x: every gradient is known."""

    image_shape = (1, 1, 1)

    def __init__(self, together: bool = True, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.together = together
        self.a, self.b = nn.Parameter(torch.tensor([2.0])), nn.Parameter(torch.tensor([3.0]))
        self.seen: list[tuple[float, float]] = []

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD([self.a], lr=0.1), torch.optim.SGD([self.b], lr=0.1)]

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        optimizer_a, optimizer_b = self.optimizers()
        value = (self.a * self.b * batch).mean()
        if self.together:
            self.step((optimizer_a, value), (optimizer_b, -value))
        else:
            self.step((optimizer_a, value))
            self.step((optimizer_b, -(self.a * self.b * batch).mean()))
        assert self.a.grad is None or self.accumulate_grad_batches > 1
        self.seen.append((self.a.item(), self.b.item()))

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        return self.a.expand(num_samples, 1, 1, 1)


def fit(model: Duel, batches: list[float], **arguments: Any) -> list[tuple[float, float]]:
    loader = torch.utils.data.DataLoader(torch.tensor(batches).view(-1, 1), batch_size=1)
    quiet_trainer(max_epochs=1, **arguments).fit(model, loader)
    return [(pytest.approx(a, rel=1e-5), pytest.approx(b, rel=1e-5)) for a, b in model.seen]


def test_simultaneous_updates_start_from_the_same_parameters() -> None:
    assert fit(Duel(), [1.0]) == [(2 - 0.1 * 3, 3 + 0.1 * 2)]


def test_alternating_updates_see_each_other() -> None:
    assert fit(Duel(together=False), [1.0]) == [(2 - 0.1 * 3, 3 + 0.1 * (2 - 0.1 * 3))]


def test_gradients_are_averaged_over_accumulated_batches_and_the_epochs_rest_is_used() -> None:
    seen = fit(Duel(accumulate_grad_batches=2), [1.0, 3.0, 4.0])
    a, b = 2 - 0.1 * 3 * 2, 3 + 0.1 * 2 * 2  # The mean of 1 and 3 is 2.
    assert seen == [(2, 3), (a, b), (a - 0.1 * b * 4 / 2, b + 0.1 * a * 4 / 2)]


def test_clipping_is_per_optimizer() -> None:
    assert fit(Duel(gradient_clip_val=0.5), [1.0]) == [(2 - 0.1 * 0.5, 3 + 0.1 * 0.5)]


@pytest.mark.parametrize("growth_interval", [1, 1000])
def test_scaled_gradients_are_unscaled_though_the_scale_changes_between_optimizers(growth_interval: int) -> None:
    """With growth after every step the scaler doubles between the two optimizers of one update."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=growth_interval)
    plugin = pl.plugins.MixedPrecision("16-mixed", "cpu", scaler=scaler)
    seen = fit(Duel(gradient_clip_val=2.5), [1.0, 1.0], plugins=[plugin])
    a, b = 2 - 0.1 * 2.5, 3 + 0.1 * 2
    assert seen == [(a, b), (a - 0.1 * 2.5, b + 0.1 * a)]


@pytest.mark.parametrize("growth_interval", [1, 1000])
def test_the_same_under_fabric(growth_interval: int) -> None:
    """Clipped, with a scaler that changes between two optimizers, and without; and an epoch is what the loop says."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=growth_interval)
    for plugins in ([], [MixedPrecision("16-mixed", "cpu", scaler=scaler)]):
        fabric, model = Fabric(accelerator="cpu", devices=1, plugins=plugins), Duel(gradient_clip_val=2.5)
        network, *_ = fabric.setup(model, *model.configure_optimizers())
        for batch_idx in range(2):
            network.training_step(torch.ones(1, 1), batch_idx)
        a, b = 2 - 0.1 * 2.5, 3 + 0.1 * 2
        expected = [(a, b), (a - 0.1 * 2.5, b + 0.1 * a)]
        assert model.seen == [(pytest.approx(a, rel=1e-5), pytest.approx(b, rel=1e-5)) for a, b in expected]
        assert model.current_epoch == 0
        model.current_epoch = 3
        assert model.current_epoch == 3


def test_mixed_precision_sees_the_network_that_has_just_moved() -> None:
    """Autocast would keep bf16 copies of weights for a whole training step; Lightning turns that off."""

    class Mixed(Duel):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Linear(1, 1, bias=False)
            nn.init.constant_(self.network.weight, 1.0)

        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            return [torch.optim.SGD(self.network.parameters(), lr=0.5)]

        def training_step(self, batch: Tensor, batch_idx: int) -> None:
            before = self.network(batch)
            assert before.dtype == torch.bfloat16
            self.step((self.optimizers(), before.float().sum()))
            self.seen.append((before.item(), self.network(batch).item()))

    assert fit(Mixed(), [1.0], precision="bf16-mixed") == [(1.0, 0.5)]


class Sum(Duel):
    """Minimises (a + b) x, to whose terms autograd gives one and the same gradient."""

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD([self.a, self.b], lr=0.1)]

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        self.step((self.optimizers(), ((self.a + self.b) * batch).sum()))
        self.seen.append((self.a.item(), self.b.item()))


def test_parameters_with_one_gradient_are_not_changed_twice() -> None:
    assert fit(Sum(accumulate_grad_batches=2), [1.0, 3.0])[-1] == (2 - 0.1 * 2, 3 - 0.1 * 2)
    length = 0.5 / 2**0.5  # Of each, where both together have the length 0.5.
    assert fit(Sum(gradient_clip_val=0.5), [4.0]) == [(2 - 0.1 * length, 3 - 0.1 * length)]


def test_accumulating_no_batches_is_refused() -> None:
    with pytest.raises(DataError, match=r"accumulate_grad_batches=0; expected int >= 1\."):
        Duel(accumulate_grad_batches=0)


def test_groups_of_older_checkpoints_began_with_the_models_step_size() -> None:
    model = GAN(lr=0.25)
    fresh: dict[str, Any] = {"lr": 0.5}  # As a schedule has left it, or another project has made it.
    assert model.first_lr(fresh) == 0.5
    model.current_epoch = 3
    resumed: dict[str, Any] = {"lr": 0.1}
    assert [model.first_lr(resumed), resumed["initial_lr"]] == [0.25, 0.25]
    assert model.first_lr(fresh) == 0.5
