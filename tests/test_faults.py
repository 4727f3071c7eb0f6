"""What real training meets: full disks, killed processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_gen._lightning import Callback
from lightning_gen.checkpoints import WholeCheckpoints
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
    folder = small_disk / "checkpoints"
    (*_, line) = broken.stderr.strip().splitlines()
    assert line == f"lightning-gen: error: [Errno 28] No space left on device: '{folder}/epoch=1-step=4.ckpt'"
    assert {path.name for path in folder.iterdir()} == {"epoch=0-step=2.ckpt", "last.ckpt"}
    last = folder / "last.ckpt"
    assert torch.load(last, weights_only=True)["epoch"] == 0

    (small_disk / "filler").unlink()
    goes_on = subprocess.run([*fit, *options, "--ckpt_path", str(last)], cwd=ROOT, capture_output=True, text=True)
    assert goes_on.returncode == 0, goes_on.stderr
    assert torch.load(last, weights_only=True)["epoch"] == 2


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
