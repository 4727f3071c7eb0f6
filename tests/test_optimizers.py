"""Frozen layers, spare parameters, and optimizers of other people's choice, in every model."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pytorch_lightning.callbacks import BaseFinetuning  # noqa: TID251
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler
from torch.utils.data import DataLoader

from lightning_gen._lightning import Callback
from lightning_gen.cli import main
from lightning_gen.commands.optimizer import choose_optimizer
from lightning_gen.errors import LightningGenError, TrainingError
from lightning_gen.models import GAN, GMMN, LAPGAN, VAE, ImageModule, ImprovedGAN
from tests.conftest import QUIET
from tests.digits import quiet_trainer, training_digits
from tests.tiny import TINY, endless, tiny


class SignDescent(Optimizer):
    """Somebody's own: the step has the length of `lr` whatever the gradient, and is made every `every`-th time."""

    def __init__(self, params: Any, lr: float, every: int = 1) -> None:
        super().__init__(params, {"lr": lr, "every": every})
        self.calls = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        loss = None if closure is None else torch.enable_grad()(closure)()
        self.calls += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and self.calls % group["every"] == 0:
                    parameter -= group["lr"] * parameter.grad.sign()
        return loss


def optimizers_in(configured: Any) -> Iterator[Optimizer]:
    """The optimizers in what `configure_optimizers` gives, in any form."""
    if isinstance(configured, Optimizer):
        yield configured
    elif isinstance(configured, (dict, list, tuple)):
        for part in configured.values() if isinstance(configured, dict) else configured:
            yield from optimizers_in(part)


def own_optimizers(model: ImageModule) -> list[Optimizer]:
    return list(optimizers_in(type(model).configure_optimizers(model)))


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def train(model: ImageModule, data: Any, *callbacks: Callback, batches: int = 2, **arguments: Any) -> None:
    limits: dict[str, Any] = {"max_epochs": 1, "limit_train_batches": batches, "limit_val_batches": 0}
    quiet_trainer(**limits, **arguments, callbacks=list(callbacks)).fit(model, data)


@pytest.mark.parametrize("name", TINY)
def test_frozen_and_spare_parameters_and_optimizers_without_schedules(name: str) -> None:
    torch.manual_seed(0)
    model, _ = tiny(name)
    model.spares = nn.ParameterList()
    still = Still()

    def configure() -> list[Optimizer]:
        """RMSprop in place of the model's own, and no schedule; in each one layer is frozen, and a parameter unused."""
        others: list[Optimizer] = []
        for own in own_optimizers(model):
            groups = [{"params": list(group["params"])} for group in own.param_groups]
            groups[0]["params"][0].requires_grad_(False)
            model.spares.append(spare := nn.Parameter(torch.ones(3)))
            groups.append({"params": [spare]})
            still.parameters += [groups[0]["params"][0], spare]
            others.append(torch.optim.RMSprop(groups, lr=1e-3))
        return others

    model.configure_optimizers = configure  # type: ignore[method-assign, assignment]
    train(model, endless(name), still)
    assert still.others_moved


class Still(Callback):
    """Whether parameters stay as they were when training began, and some of the others do not."""

    def __init__(self) -> None:
        self.parameters: list[Tensor] = []
        self.others_moved = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.before = {parameter: parameter.detach().clone() for parameter in pl_module.parameters()}

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        still = set(self.parameters)
        for parameter, value in self.before.items():
            if parameter in still:
                torch.testing.assert_close(parameter.detach(), value, rtol=0, atol=0)
            elif not torch.equal(parameter, value):
                self.others_moved = True


class Seen(Callback):
    """The classes of optimizers and their step sizes, and whether each schedule is of one of them."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.classes = {type(optimizer) for optimizer in trainer.optimizers}
        self.lrs = [[group["lr"] for group in optimizer.param_groups] for optimizer in trainer.optimizers]
        self.own = [[group["lr"] for group in optimizer.param_groups] for optimizer in own_optimizers(pl_module)]
        for config in trainer.lr_scheduler_configs:
            assert any(config.scheduler.optimizer is optimizer for optimizer in trainer.optimizers)


@pytest.mark.parametrize("name", TINY)
def test_adamw_takes_the_place_of_any_models_optimizers_and_a_whole_network_may_be_frozen(name: str) -> None:
    model, _ = tiny(name)
    choose_optimizer(model, torch.optim.AdamW, {"weight_decay": 0.5})
    still = Still()
    if not model.automatic_optimization:  # Else there would be nothing to learn.
        still.parameters = [parameter for own in own_optimizers(model)[:1] for parameter in parameters_of(own)]
    for parameter in still.parameters:
        parameter.requires_grad_(False)
    train(model, endless(name), still, seen := Seen(), batches=1)
    assert seen.classes == ({torch.optim.AdamW} if name != "BernoulliMixture" else set())
    assert seen.lrs == seen.own


SCHEDULES: dict[str, Any] = {
    "step": lambda optimizer: lr_scheduler.StepLR(optimizer, 1, 0.5),
    "one cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=10),
    "warm-up": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda epoch: min((epoch + 1) / 3, 1.0)),
    "plateau": lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop, SignDescent])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_go_on_with_another_class(schedule: str, kind: type[Optimizer]) -> None:
    def step_sizes(replaced: bool) -> list[list[float]]:
        model = nn.Linear(2, 2)

        def configure() -> dict[str, Any]:
            groups = [{"params": [model.weight]}, {"params": [model.bias], "lr": 1e-3}]
            optimizer = torch.optim.Adam(groups, lr=1e-2, betas=(0.5, 0.9))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": SCHEDULES[schedule](optimizer)}}

        model.configure_optimizers = configure  # type: ignore[assignment]
        if replaced:
            choose_optimizer(model, kind, {})
        configured = model.configure_optimizers()  # type: ignore[operator]
        optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
        assert isinstance(optimizer, kind) == replaced
        seen = []
        for _ in range(5):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            seen.append([group["lr"] for group in optimizer.param_groups])
            scheduler.step(*([1.0] if schedule == "plateau" else []))
        return seen

    assert step_sizes(replaced=True) == step_sizes(replaced=False)
    assert len({tuple(lrs) for lrs in step_sizes(replaced=True)}) > 1


@pytest.mark.parametrize(
    ("model", "epochs", "expected"),
    [
        (lambda: GAN((1, 8, 8), hidden_size=4, maxout_units=2, lr_decay=2.0), 1, 0.01 / 2),
        (lambda: ImprovedGAN((1, 28, 28), semi_supervised=False, lr_decay_epochs=(0, 4), reference_batch=5), 2, 0.0075),
        (lambda: LAPGAN((1, 28, 28), channels=(2, 2), lr_decay=(2.0, 2.0)), 2, 0.005),
        (lambda: GMMN((1, 8, 8), hidden_sizes=(4,), lr_drop_step=1), 2, 0.001),
    ],
    ids=["GAN", "ImprovedGAN", "LAPGAN", "GMMN"],
)
def test_step_sizes_fall_from_where_the_optimizers_began(model: Any, epochs: int, expected: float) -> None:
    """Not from the hyper-parameter `lr`, which an overridden `configure_optimizers` need not use."""
    module = model()
    configure = type(module).configure_optimizers

    def another() -> list[Optimizer]:
        optimizers = configure(module)
        return [torch.optim.Adam(optimizer.param_groups, lr=0.01) for optimizer in map(with_lr, optimizers)]

    def with_lr(optimizer: Optimizer) -> Optimizer:
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        return optimizer

    module.configure_optimizers = another
    images = torch.rand(6, *module.image_shape)
    (trainer := quiet_trainer(max_epochs=epochs)).fit(module, DataLoader(images, 6))
    for optimizer in trainer.optimizers:
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
            len(optimizer.param_groups) * [expected]
        )


class Thaw(BaseFinetuning):
    """Lightning's own: a network is frozen in the first epoch, and learned from the second on."""

    def __init__(self, network: str) -> None:
        super().__init__()
        self.network = network
        self.seen: list[Tensor] = []

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.get_submodule(self.network))

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Optimizer) -> None:
        if epoch == 1:
            self.make_trainable(pl_module.get_submodule(self.network))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        parameters = pl_module.get_submodule(self.network).parameters()
        self.seen.append(torch.cat([parameter.detach().flatten() for parameter in parameters]))


@pytest.mark.parametrize(
    ("model", "network"),
    [
        (lambda: GAN((1, 28, 28), hidden_size=8, maxout_units=4), "discriminator"),
        (lambda: LAPGAN((1, 28, 28), channels=(2, 2)), "generators.1"),
        (lambda: VAE((1, 28, 28), hidden_size=8, latent_dim=2), "encoder"),
    ],
    ids=["GAN", "LAPGAN", "VAE"],
)
def test_lightnings_finetuning_freezes_and_thaws(model: Any, network: str) -> None:
    module, thaw = model(), Thaw(network)
    start = torch.cat([parameter.detach().flatten() for parameter in module.get_submodule(network).parameters()])
    quiet_trainer(max_epochs=2, callbacks=[thaw]).fit(module, DataLoader(training_digits()[:40].round(), 20))
    torch.testing.assert_close(thaw.seen[0], start, rtol=0, atol=0)
    assert not torch.equal(thaw.seen[1], start)


def test_a_scaler_passes_over_a_frozen_network() -> None:
    """It would refuse to step an optimizer that has no gradient at all."""
    model = GAN((1, 28, 28), hidden_size=8, maxout_units=4)
    model.generator.requires_grad_(False)
    train(model, DataLoader(training_digits()[:40], 20), still := Still(), precision="16-mixed")
    assert still.others_moved


def test_an_optimizer_that_asks_for_the_loss_itself_is_refused_in_hand_written_steps() -> None:
    model, images = GAN((1, 8, 8), hidden_size=4, maxout_units=2), torch.rand(4, 1, 8, 8)
    choose_optimizer(model, torch.optim.LBFGS, {})
    with pytest.raises(TrainingError, match="LBFGS computes losses within its step, and GAN steps by gradients"):
        quiet_trainer(max_epochs=1).fit(model, DataLoader(images, 4))
    automatic = VAE((1, 8, 8), hidden_size=4, latent_dim=2)
    choose_optimizer(automatic, partial(torch.optim.LBFGS, max_iter=2), {})
    quiet_trainer(max_epochs=1).fit(automatic, DataLoader(images.round(), 4))


def test_a_class_that_refuses_the_parameters_is_named() -> None:
    model = VAE((1, 8, 8), hidden_size=4, latent_dim=2)
    choose_optimizer(model, torch.optim.Muon, {})
    with pytest.raises(LightningGenError, match=r"Muon cannot take the place of \w+ here: Muon only supports 2D"):
        model.configure_optimizers()


# The command line ---------------------------------------------------------------------------------------------------

SMALL = ["--data", "FakeDataModule", "--data.image_shape", "[1,8,8]", "--data.num_samples", "20", *QUIET]
MODELS = {
    "GAN": ["--model", "GAN", "--model.hidden_size", "4", "--model.maxout_units", "2"],
    "VAE": ["--model", "VAE", "--model.decoder", "gaussian", "--model.hidden_size", "4"],
}
SIGN = f"{__name__}.SignDescent"


@pytest.mark.parametrize("name", MODELS)
def test_the_command_line_chooses_writes_down_and_resumes(name: str, tmp_path: Path) -> None:
    chosen = ["--optimizer", "AdamW", "--optimizer.weight_decay", "0.25", "--optimizer.lr", "0.125"]
    root = ["--trainer.default_root_dir", str(tmp_path)]
    main(["fit", *MODELS[name], *SMALL, *root, *chosen, "--trainer.max_epochs", "1"])
    run = tmp_path / f"{name.lower()}_fake" / "version_0"
    last = run / "checkpoints" / "last.ckpt"
    main(["fit", "--ckpt_path", str(last), "--trainer.max_epochs", "2"])
    for number in (0, 1):
        config = yaml.safe_load((run.with_name(f"version_{number}") / "config.yaml").read_text())
        assert config["optimizer"]["class_path"] == "torch.optim.AdamW"
        assert config["optimizer"]["init_args"]["weight_decay"] == 0.25
        assert config["model"]["init_args"]["lr"] == 0.125
        checkpoint = torch.load(run.with_name(f"version_{number}") / "checkpoints" / "last.ckpt", weights_only=True)
        for state in checkpoint["optimizer_states"]:
            assert state["param_groups"][0]["decoupled_weight_decay"]
            assert state["param_groups"][0]["lr"] == pytest.approx(0.125, rel=1e-4)


def test_the_command_line_takes_somebodys_own(tmp_path: Path) -> None:
    root = ["--trainer.default_root_dir", str(tmp_path), "--trainer.max_epochs", "1"]
    main(["fit", *MODELS["GAN"], *SMALL, *root, "--optimizer", SIGN, "--optimizer.every", "3"])
    config = yaml.safe_load((tmp_path / "gan_fake" / "version_0" / "config.yaml").read_text())
    assert config["optimizer"] == {"class_path": SIGN, "init_args": {"every": 3}}
    checkpoint = torch.load(tmp_path / "gan_fake" / "version_0" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["every"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--optimizer", "AdamWW"], "AdamWW"),
        (["--optimizer", "AdamW", "--optimizer.weight_decy", "1"], "did you mean weight_decay?"),
        (["--optimizer", "LBFGS"], "LBFGS computes losses within its step"),
    ],
)
def test_the_command_line_says_in_one_line_what_is_wrong(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["fit", *MODELS["GAN"], *SMALL, "--trainer.default_root_dir", str(tmp_path), *options])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert message in line
