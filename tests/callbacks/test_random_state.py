import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gen._lightning import Callback, pl, seed_everything
from lightning_gen.callbacks import KeepPlace, RandomState
from lightning_gen.errors import LightningGenError
from tests.callbacks.run_to_kill import run
from tests.callbacks.runs import assert_bit_equal, fit, small_vae, weights
from tests.digits import quiet_trainer, training_digits
from tests.ranks import spawn_ranks


def start(folder: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-u", "-m", "tests.callbacks.run_to_kill", str(folder), "-", "0.3", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(process: "subprocess.Popen[str]", text: str) -> None:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return
    raise AssertionError("".join(lines))


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Drawn pixels, a shuffle, a sampled posterior, validation between: all from the state of the killed run."""
    for name in ("straight", "killed", "without"):
        (tmp_path / name).mkdir()
    run(tmp_path / "straight", None, 0)
    process = start(tmp_path / "killed")
    wait_for(process, "batch 2 1")  # Two epochs are on disk, and a third has begun.
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    assert checkpoint["epoch"] == 1
    run(tmp_path / "killed", str(last), 0)
    straight, resumed = (torch.load(tmp_path / name / "end.pt", weights_only=True) for name in ("straight", "killed"))
    assert_bit_equal(straight, resumed)

    del checkpoint["callbacks"]["RandomState"]
    torch.save(checkpoint, tmp_path / "without.ckpt")
    run(tmp_path / "without", str(tmp_path / "without.ckpt"), 0)
    without = torch.load(tmp_path / "without" / "end.pt", weights_only=True)
    assert not torch.equal(without["decoder.2.weight"], straight["decoder.2.weight"]), "the test tests nothing"


@pytest.mark.parametrize("batch", ["batch 0 2", "batch 2 1", "batch 3 0"])
def test_a_run_killed_within_an_epoch_goes_on_with_the_next_batch(batch: str, tmp_path: Path) -> None:
    pytest.importorskip("torchdata")
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    run(tmp_path / "straight", None, 0, place=True)
    process = start(tmp_path / "killed", "place")
    wait_for(process, batch)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    _, epoch, batches = batch.split()
    loop = (checkpoint := torch.load(last, weights_only=True))["loops"]["fit_loop"]
    assert loop["epoch_loop.batch_progress"]["total"]["ready"] >= 6 * int(epoch) + int(batches)
    run(tmp_path / "killed", str(last), 0, place=True)
    straight, resumed = (torch.load(tmp_path / name / "end.pt", weights_only=True) for name in ("straight", "killed"))
    assert_bit_equal(straight, resumed)
    if batches == "0":
        return  # Where an epoch begins there is no place to lose.

    del loop["state_dict"]["combined_loader"]
    torch.save(checkpoint, last)
    run(tmp_path / "killed", str(last), 0, place=True)
    without = torch.load(tmp_path / "killed" / "end.pt", weights_only=True)
    assert not torch.equal(without["decoder.2.weight"], straight["decoder.2.weight"]), "the test tests nothing"


def _stop_and_go_on(folder: Path, devices: int) -> None:
    """Train on three epochs of four batches, and again from within the second, from its borders, and from its end."""
    ends = []
    for start in (None, "step=6", "step=4", "step=8", "epoch=1-step=8"):
        each = pl.callbacks.ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=1)
        last = pl.callbacks.ModelCheckpoint(folder, save_top_k=-1, save_on_train_epoch_end=True)
        trainer = fit(
            [RandomState(), KeepPlace(), *([] if start else [each, last])],
            devices=devices, strategy="ddp" if devices > 1 else "auto", epochs=3, limit_train_batches=4,
            ckpt_path=folder / f"{start}.ckpt" if start else None,
            enable_checkpointing=start is None, default_root_dir=folder,
        )  # fmt: skip
        ends.append(weights(trainer))
    if trainer.is_global_zero:
        torch.save(ends, folder / "ends.pt")


@pytest.mark.parametrize("devices", [1, 2])
def test_every_checkpoint_goes_on_with_the_next_batch(devices: int, tmp_path: Path) -> None:
    pytest.importorskip("torchdata")
    if devices == 1:
        _stop_and_go_on(tmp_path, 1)
    else:
        spawn_ranks(_stop_and_go_on, tmp_path, devices)
    straight, *resumed = torch.load(tmp_path / "ends.pt", weights_only=True)
    for end in resumed:
        assert_bit_equal(straight, end)


def test_keeping_ones_place_takes_our_data_and_torchdata(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = torch.utils.data.DataLoader(training_digits()[:64].round(), batch_size=16)
    with pytest.raises(LightningGenError, match="works on data modules of this package and got NoneType"):
        quiet_trainer(callbacks=[KeepPlace()]).fit(small_vae(), loader)
    monkeypatch.setattr("lightning_gen.callbacks.random_state.find_spec", lambda name: None)
    with pytest.raises(LightningGenError, match="KeepPlace needs torchdata"):
        fit([KeepPlace()])


def test_ctrl_c_leaves_a_checkpoint_that_resumes(tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_for(process, "batch 1 2")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    path = tmp_path / "checkpoints" / "interrupted.ckpt"
    whole = path.with_name("last.ckpt")
    assert f"Stopped in epoch 1; go on with --ckpt_path {whole}" in output
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["epoch"] == 1
    done = checkpoint["global_step"]
    assert 6 < done < 12

    class Batches(Callback):
        count = 0

        def on_train_batch_end(self, *args: Any) -> None:
            self.count += 1

    trainer = fit([RandomState(), batches := Batches()], epochs=4, ckpt_path=path, default_root_dir=tmp_path)
    assert trainer.current_epoch == 4
    assert trainer.global_step == 24 == done + batches.count


class Stops(Callback):
    """Ctrl-C in one hook of the second epoch; it counts the batches."""

    def __init__(self, hook: str) -> None:
        self.batches = 0
        setattr(self, hook, self.stop)

    def on_train_batch_end(self, *args: Any) -> None:
        self.batches += 1

    def stop(self, trainer: Any, *args: Any) -> None:
        if not trainer.sanity_checking and trainer.current_epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("saved", [True, False], ids=["beside last.ckpt", "alone"])
@pytest.mark.parametrize(
    "hook",
    ["on_train_epoch_start", "on_train_batch_start", "on_train_batch_end", "on_validation_start", "on_train_epoch_end"],
)
def test_what_is_advised_after_ctrl_c_loses_nothing(hook: str, saved: bool, tmp_path: Path) -> None:
    """In whatever place it strikes; where nothing that was saved goes on bit for bit, that is said."""
    save = pl.callbacks.ModelCheckpoint(tmp_path, save_last=True, save_on_train_epoch_end=True)
    if not saved:
        save.on_train_epoch_end = save.on_validation_end = lambda *args: None
    limits = {"epochs": 3, "limit_train_batches": 4, "default_root_dir": tmp_path}
    with pytest.raises(SystemExit):
        fit([state := RandomState(), Stops(hook), save], enable_checkpointing=True, **limits)
    path = Path(state.advice.rpartition(" ")[2])
    between = hook == "on_train_epoch_start"
    assert path.name == ("interrupted.ckpt" if between or not saved else "last.ckpt")
    assert ("trained again, bit for bit" in state.advice) == (saved and not between)
    assert ("in a new order, some images again" in state.advice) == (not saved and not between)
    steps = torch.load(path, weights_only=True)["global_step"]
    resumed = fit([RandomState(), rest := Stops("on_exception")], ckpt_path=path, **limits)
    assert resumed.current_epoch == 3
    assert resumed.global_step == 12 == steps + rest.batches
    if between or saved:
        assert_bit_equal(weights(fit([RandomState()], **limits)), weights(resumed))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_only_what_was_stopped_from_outside_is_saved(error: type[BaseException], tmp_path: Path) -> None:
    class Breaks(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                raise error

    save = pl.callbacks.ModelCheckpoint(tmp_path / "checkpoints")
    with pytest.raises((ValueError, SystemExit)):
        fit([RandomState(), Breaks(), save], default_root_dir=tmp_path, enable_checkpointing=True)
    assert (tmp_path / "checkpoints" / "interrupted.ckpt").exists() == (error is KeyboardInterrupt)


def test_a_test_does_not_touch_the_random_state(tmp_path: Path) -> None:
    save = pl.callbacks.ModelCheckpoint(tmp_path, save_last=True)
    trainer = fit([RandomState(), save], epochs=1, default_root_dir=tmp_path, enable_checkpointing=True)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["RandomState"]["ranks"][0]
    torch.manual_seed(99)
    before = torch.get_rng_state()

    class State(Callback):
        def on_test_start(self, trainer: Any, pl_module: Any) -> None:
            self.state = torch.get_rng_state()

    trainer.callbacks.append(state := State())
    trainer.test(small_vae(), trainer.datamodule, ckpt_path=tmp_path / "last.ckpt", verbose=False)
    assert not torch.equal(state.state, saved["torch"])
    assert len(before) == len(saved["torch"])


class Draws(Callback):
    """The random numbers that training ends with."""

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.draws = trainer.strategy.all_gather(torch.rand(3))


def _train_on_rank(folder: Path) -> None:
    loader = torch.utils.data.DataLoader(training_digits()[:64].round(), batch_size=16)
    ends = []
    for epochs, ckpt_path in ((2, None), (1, None), (2, folder / "last.ckpt")):
        seed_everything(7, verbose=False)
        save = pl.callbacks.ModelCheckpoint(folder, save_last=True, enable_version_counter=False)
        callbacks = [RandomState(), draws := Draws(), *([save] if epochs == 1 else [])]
        trainer = quiet_trainer(
            callbacks=callbacks, max_epochs=epochs, devices=2, strategy="ddp", limit_val_batches=0,
            enable_checkpointing=epochs == 1, default_root_dir=folder,
        )  # fmt: skip
        trainer.fit(small_vae(), loader, ckpt_path=ckpt_path)
        ends.append((draws.draws, trainer.lightning_module.state_dict()))
    if trainer.is_global_zero:
        torch.save(ends, folder / "ends.pt")


def test_every_rank_has_its_own_state(tmp_path: Path) -> None:
    spawn_ranks(_train_on_rank, tmp_path)
    straight, _, resumed = torch.load(tmp_path / "ends.pt", weights_only=True)
    assert torch.equal(straight[0], resumed[0])
    assert not torch.equal(straight[0][0], straight[0][1])
    assert_bit_equal(straight[1], resumed[1])
    checkpoint = tmp_path / "last.ckpt"
    assert len(torch.load(checkpoint, weights_only=True)["callbacks"]["RandomState"]["ranks"]) == 2
    loader = torch.utils.data.DataLoader(training_digits()[:64].round(), batch_size=32)
    trainer = quiet_trainer(callbacks=[RandomState()], max_epochs=2, limit_val_batches=0)
    with pytest.warns(UserWarning, match=r"random state of 2 process\(es\) and 1 go on"):
        trainer.fit(small_vae(), loader, ckpt_path=checkpoint)
