"""An hour of adversarial training, with its memory, its open files and its logs measured.

    python -m tests.soak --minutes 60 --folder soak

Run from the root of a checkout. `footprint.csv` has a line for every 500 batches; the slopes are printed at the end.
"""

import argparse
import csv
import os
from pathlib import Path
from typing import Any

import torch

from lightning_gen._lightning import Callback
from lightning_gen.cli import main

COLUMNS = ("batches", "megabytes", "open_files", "log_megabytes")


class Footprint(Callback):
    """Appends what the process takes to `footprint.csv` every 500 batches."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / "footprint.csv"
        self.batches = 0

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        self.batches += 1
        if self.batches % 500:
            return
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        events = sum(file.stat().st_size for file in Path(trainer.log_dir).glob("events.*"))
        row = self.batches, pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir("/proc/self/fd")), events / 1e6
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(row)


def slopes(rows: torch.Tensor, warm_up: int = 5000) -> dict[str, float]:
    """What is gained in 1,000 batches, by least squares over all lines after the warm-up."""
    late = rows[rows[:, 0] > warm_up]
    batches = (late[:, 0] - late[:, 0].mean()) / 1000
    return {
        name: (batches @ column / (batches @ batches)).item()
        for name, column in zip(COLUMNS[1:], late.T[1:], strict=True)
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=Path("soak"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    run = ["fit", "--config", "gan/digits", "--trainer.default_root_dir", str(given.folder)]
    run += [
        "--trainer.max_epochs",
        "-1",
        "--trainer.max_time",
        f"00:{given.minutes // 60:02}:{given.minutes % 60:02}:00",
    ]
    run += ["--trainer.callbacks+=tests.soak.Footprint", f"--trainer.callbacks.folder={given.folder}"]
    main([*run, "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"])
    with (given.folder / "footprint.csv").open() as file:
        rows = torch.tensor([[float(value) for value in line] for line in csv.reader(file)], dtype=torch.float64)
    print(f"{int(rows[-1, 0])} batches; {dict(zip(COLUMNS, rows[-1].tolist(), strict=True))}")
    print("gained in 1,000 batches:", {name: round(slope, 4) for name, slope in slopes(rows).items()})
