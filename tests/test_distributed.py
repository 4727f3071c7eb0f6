"""Two real processes against one: the same noise and the joined batch give the same parameters."""

import itertools
import os
import socket
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_gen.models import GAN, VAE, GenerativeModule
from lightning_gen.models.vae import Posterior
from tests.digits import quiet_trainer, training_digits

BATCH, STEPS = 8, 3


class Rows:
    """Noise of the whole batch from a seed and the step, of which a rank takes its rows."""

    def rows(self, shape: tuple[int, ...]) -> Tensor:
        step = next(self.__dict__.setdefault("_steps", itertools.count()))
        noise = torch.rand(BATCH, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        return noise[self.trainer.global_rank :: self.trainer.world_size]


class RowsVAE(Rows, VAE):
    def reparameterize(self, posterior: Posterior, num_samples: int = 1) -> Tensor:
        eps = self.rows((self.latent_dim,)) - 0.5
        return (posterior.mean + (0.5 * posterior.log_var).exp() * eps)[None]


class RowsGAN(Rows, GAN):
    def sample_latent(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        return self.rows((self.latent_dim,)) - 0.5


class OwnNoise(VAE):
    """Records the first draw of each rank."""

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        draws = self.trainer.strategy.all_gather(torch.rand(4))
        assert not torch.equal(draws[0], draws[1]), "the ranks draw the same noise"


MODELS = {
    "vae": lambda: RowsVAE(hidden_size=16, latent_dim=3, init_std=0.2),
    "gan": lambda: RowsGAN(hidden_size=16, latent_dim=3, input_dropout=0.0, hidden_dropout=0.0, lr=0.5),
    "gan_alternating": lambda: RowsGAN(
        hidden_size=16,
        latent_dim=3,
        input_dropout=0.0,
        hidden_dropout=0.0,
        discriminator_steps=2,
        gradient_clip_val=0.1,
    ),
}


def train(name: str, devices: int, path: Path) -> dict[str, Tensor]:
    """Parameters after three steps; more than one device run as processes of this file."""
    if devices == 1:
        _fit(name, 1, path)
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        torch.multiprocessing.spawn(_rank, (devices, name, path, port), nprocs=devices)
    return torch.load(path, weights_only=True)


def _rank(rank: int, devices: int, name: str, path: Path, port: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(devices))
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(devices), TORCHELASTIC_RUN_ID="test")
    torch.set_num_threads(1)
    _fit(name, devices, path)


def _fit(name: str, devices: int, path: Path) -> None:
    torch.manual_seed(0)
    model: GenerativeModule = OwnNoise(hidden_size=4) if name == "own_noise" else MODELS[name]()
    images = training_digits()[: BATCH * STEPS].round().double()
    loader = torch.utils.data.DataLoader(images, batch_size=BATCH // devices)
    strategy = "ddp" if devices > 1 else "auto"
    trainer = quiet_trainer(max_epochs=1, devices=devices, strategy=strategy, precision="64-true", limit_val_batches=0)
    trainer.fit(model, loader)
    if trainer.is_global_zero:
        torch.save(model.state_dict(), path)


@pytest.mark.parametrize("name", MODELS)
def test_two_ranks_equal_one_process_on_the_joined_batch(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    start = MODELS[name]().state_dict()
    one, two = train(name, 1, tmp_path / "one.pt"), train(name, 2, tmp_path / "two.pt")
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-9, atol=1e-12, msg=lambda text, key=key: f"{key}: {text}")
    moved = [key for key in one if key in start and not torch.equal(one[key].float(), start[key].float())]
    assert len(moved) >= len(list(MODELS[name]().parameters()))


def test_ranks_draw_different_noise(tmp_path: Path) -> None:
    train("own_noise", 2, tmp_path / "model.pt")
