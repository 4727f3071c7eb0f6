"""What real training meets: full disks, failing and hanging processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gen._lightning import Callback
from lightning_gen.checkpoints import WholeCheckpoints
from lightning_gen.errors import DataError
from tests.conftest import DATA, MODEL, QUIET

ROOT = Path(__file__).parents[1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk takes the rights of root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


class FillDisk(Callback):
    """Takes all that is left on the disk in the second epoch."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            folder = Path(trainer.default_root_dir)
            with (folder / "filler").open("wb") as file:
                file.write(bytes(os.statvfs(folder).f_bavail * os.statvfs(folder).f_bsize - 8192))


def test_a_full_disk_leaves_the_checkpoint_before(small_disk: Path) -> None:
    """The error is one line, nothing half-written stays, and the run goes on from what there is."""
    options = [*MODEL, *DATA, *QUIET, "--trainer.max_epochs", "3"]
    fit = [sys.executable, "cli.py", "fit", "--trainer.logger", "false", "--trainer.default_root_dir", str(small_disk)]
    filling = ["--trainer.callbacks+", "tests.test_faults.FillDisk"]
    broken = subprocess.run([*fit, *options, *filling], cwd=ROOT, capture_output=True, text=True)
    assert broken.returncode == 1
    folder = small_disk / "vae_fake" / "version_0" / "checkpoints"
    (*_, line) = broken.stderr.strip().splitlines()
    assert line == f"lightning-gen: error: [Errno 28] No space left on device: '{folder}/epoch=1-step=4.ckpt'"
    assert {path.name for path in folder.iterdir()} == {"epoch=0-step=2.ckpt", "last.ckpt"}
    last = folder / "last.ckpt"
    assert torch.load(last, weights_only=True)["epoch"] == 0

    (small_disk / "filler").unlink()
    goes_on = subprocess.run([*fit, *options, "--ckpt_path", str(last)], cwd=ROOT, capture_output=True, text=True)
    assert goes_on.returncode == 0, goes_on.stderr
    assert torch.load(small_disk / "vae_fake/version_1/checkpoints/last.ckpt", weights_only=True)["epoch"] == 2


def test_a_checkpoint_is_written_beside_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by way of a folder that may be on another disk; and while it is written, the one before is whole."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    path = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"epoch": 0}, path)

    class Probe:
        def __reduce__(self) -> Any:
            assert torch.load(path, weights_only=True) == {"epoch": 0}
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        WholeCheckpoints().save_checkpoint({"epoch": 1, "probe": Probe()}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 0}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


class OneFails(Callback):
    """One rank fails, or hangs, at the third batch."""

    def __init__(self, rank: int, hangs: bool = False) -> None:
        self.rank = rank
        self.hangs = hangs

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_rank == self.rank and batch_idx == 2:
            if self.hangs:
                time.sleep(600)
            raise DataError("the fourth image is a picture of itself")


def fit_on_two_ranks(folder: Path, *options: str) -> "tuple[subprocess.Popen[str], str]":
    """A run that has ended, all of its processes, and what it wrote to stderr."""
    data = ["--data", "DigitsDataModule", "--trainer.devices", "2", "--trainer.default_root_dir", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "cli.py", "fit", "--model", "GAN", "--model.hidden_size", "9", *data, *QUIET, *options],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    _, errors = process.communicate(timeout=300)  # Until the last process that could write to the pipe has ended.
    return process, errors


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_rank_ends_the_run_with_its_message(rank: int, tmp_path: Path) -> None:
    fails = ["--trainer.callbacks+", "tests.test_faults.OneFails", "--trainer.callbacks.rank", str(rank)]
    process, errors = fit_on_two_ranks(tmp_path, "--trainer.strategy", "ddp", *fails)
    assert process.returncode != 0
    lines = [line for line in errors.splitlines() if line.startswith("lightning-gen: error:")]
    assert "lightning-gen: error: the fourth image is a picture of itself" in lines
    assert all("picture" in line or "another process of this run failed" in line for line in lines)
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_hangs_ends_the_run_after_its_timeout(rank: int, tmp_path: Path) -> None:
    """The timeout also holds for the processes to find each other, which takes a while on a busy machine."""
    hangs = ["--trainer.callbacks+", "tests.test_faults.OneFails", "--trainer.callbacks.rank", str(rank)]
    hangs += ["--trainer.callbacks.hangs", "true"]
    timeout = ["--trainer.strategy", "DDPStrategy", "--trainer.strategy.timeout", "0:01:00"]
    process, errors = fit_on_two_ranks(tmp_path, *timeout, *hangs)
    assert process.returncode in (1, -signal.SIGKILL)  # Lightning kills the first process if another one fails.
    assert "another process of this run failed, or does not answer" in errors


def slurm(folder: Path, task: int, tasks: int, job: int, *options: str) -> "subprocess.Popen[str]":
    """One of the processes that `srun lightning-gen fit ...` starts, on one node, as far as it can tell."""
    script = folder / "bin" / "scontrol"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f"#!/bin/sh\necho $@ >> {folder}/scontrol.log\n")
    script.chmod(0o755)
    told = {"JOB_ID": job, "JOB_NAME": "digits", "NTASKS": tasks, "NTASKS_PER_NODE": tasks, "NODELIST": "localhost"}
    told |= {"PROCID": task, "LOCALID": task, "NODEID": 0}
    options = ("--data", "DigitsDataModule", *QUIET, "--trainer.default_root_dir", str(folder), *options)
    return subprocess.Popen(
        [sys.executable, "cli.py", "fit", "--model", "GAN", "--model.hidden_size", "9", *options],
        cwd=ROOT,
        env={
            **os.environ,
            **{f"SLURM_{name}": str(value) for name, value in told.items()},
            "PATH": f"{script.parent}:{os.environ['PATH']}",
            "SLURMD_NODENAME": "localhost",
        },
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_tasks_of_slurm_are_two_ranks(tmp_path: Path) -> None:
    job = os.getpid()  # Lightning makes the port of it.
    options = ["--trainer.strategy", "ddp", "--trainer.devices", "2", "--trainer.max_epochs", "1"]
    tasks = [slurm(tmp_path, task, 2, job, *options) for task in range(2)]
    for task in tasks:
        _, errors = task.communicate(timeout=300)
        assert task.returncode == 0, errors
    (last,) = tmp_path.rglob("last.ckpt")
    checkpoint = torch.load(last, weights_only=True)
    assert checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["completed"] == 20  # 4,000 / 2 / 100
    assert len(checkpoint["callbacks"]["RandomState"]["ranks"]) == 2


def test_slurms_signal_saves_and_the_requeued_job_goes_on(tmp_path: Path) -> None:
    """`sbatch --requeue --signal=SIGUSR1@90`: a checkpoint at once, and SIGTERM when the time is over."""
    process = slurm(tmp_path, 0, 1, 4711, "--trainer.max_epochs", "100000")
    wait_until(lambda: bool(list(tmp_path.rglob("last.ckpt"))))
    process.send_signal(signal.SIGUSR1)
    wait_until((tmp_path / "scontrol.log").exists)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert (tmp_path / "scontrol.log").read_text() == "requeue 4711\n"
    epoch = torch.load(tmp_path / "hpc_ckpt_1.ckpt", weights_only=True)["epoch"]

    again = slurm(tmp_path, 0, 1, 4711, "--trainer.max_epochs", str(epoch + 1))
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert f"Restored all states from the checkpoint at {tmp_path}/hpc_ckpt_1.ckpt" in errors


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)
