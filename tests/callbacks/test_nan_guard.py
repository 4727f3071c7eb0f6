from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.callbacks import NanGuard
from lightning_gen.errors import LightningGenError, TrainingError
from lightning_gen.models import VAE
from tests.callbacks.runs import fit, small_gan, small_vae
from tests.digits import quiet_trainer, training_digits
from tests.ranks import spawn_ranks


def broken(at: int, value: float = float("nan"), logged_only: bool = False) -> Any:
    """A VAE whose loss is not finite from a batch on."""

    class Broken(VAE):
        count = 0

        def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
            loss = super().training_step(batch, batch_idx)
            self.count += 1
            loss = loss + (value if self.count >= at else 0.0)
            if logged_only:
                self.log("train/loss_extra", loss.detach())
                return None
            return loss

    return Broken(hidden_size=4, latent_dim=2)


@pytest.mark.parametrize(
    ("every", "at", "found"),
    [(2, 3, "epoch 0, found at batch 3"), (50, 3, "epoch 0, found at batch 5"), (2, 7, "epoch 1, found at batch 1")],
)
def test_a_loss_that_is_not_finite_stops_training(every: int, at: int, found: str) -> None:
    with pytest.raises(TrainingError, match=rf"Broken broke down: the step's loss is nan in {found} .* Try a smaller"):
        fit([NanGuard(every)], lambda: broken(at))


def test_infinite_logged_losses_count() -> None:
    with pytest.raises(TrainingError, match=r"broke down: train/loss_extra is inf in epoch 0, found at batch 1"):
        fit([NanGuard(2)], lambda: broken(1, value=float("inf"), logged_only=True))


@pytest.mark.parametrize("make_model", [small_vae, small_gan])
def test_finite_losses_pass(make_model: Any, tmp_path: Path) -> None:
    trainer = fit([NanGuard(1)], make_model, epochs=1, default_root_dir=tmp_path)
    assert trainer.current_epoch == 1


def test_it_waits_for_the_device_at_its_interval_only(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    isfinite = Tensor.isfinite
    monkeypatch.setattr(Tensor, "isfinite", lambda self: looks.append(1) or isfinite(self))
    fit([NanGuard(4)], epochs=1)
    assert len(looks) == 2, "six batches: after the fourth, and at the end of the epoch"


def test_a_wrong_interval_is_refused() -> None:
    with pytest.raises(LightningGenError, match="every_n_batches=0"):
        NanGuard(0)


class BrokenOnRankOne(VAE):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * torch.nan if self.trainer.global_rank == 1 and batch_idx == 2 else loss


def _train_on_rank(folder: Path) -> None:
    loader = torch.utils.data.DataLoader(training_digits()[:64].round(), batch_size=8)
    trainer = quiet_trainer(
        callbacks=[NanGuard(every_n_batches=1)], max_epochs=1, devices=2, strategy="ddp", limit_val_batches=0
    )
    with pytest.raises(TrainingError) as broken:
        trainer.fit(BrokenOnRankOne(hidden_size=8), loader)
    (folder / f"{trainer.global_rank}").write_text(str(broken.value))


def test_all_ranks_stop_with_the_one_that_breaks(tmp_path: Path) -> None:
    spawn_ranks(_train_on_rank, tmp_path)
    others, own = ((tmp_path / str(rank)).read_text() for rank in range(2))
    assert "a loss on another process in epoch 0, found at batch 2" in others
    assert "the step's loss is nan in epoch 0, found at batch 2" in own
