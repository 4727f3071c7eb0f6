"""A stranger's script: our GAN under both of Lightning's distributions, fed by (image, label) batches."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import {backend} as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_gen.models import GAN

images, labels = torch.rand(40, 1, 8, 8), torch.randint(10, (40,))
loader = DataLoader(TensorDataset(images, labels), batch_size=10, shuffle=True)


class Watch(pl.Callback):
    def on_train_epoch_end(self, trainer, module):
        assert trainer.callback_metrics["train/loss_d"] > 0


model = GAN(image_shape=(1, 8, 8), hidden_size=32, maxout_units=8)
before = model.generator.hidden1.weight.clone()
trainer = pl.Trainer(max_epochs=2, accelerator="cpu", callbacks=[Watch()], enable_progress_bar=False)
trainer.fit(model, loader)
assert not torch.equal(before, model.generator.hidden1.weight)
assert model.sample(3).shape == (3, 1, 8, 8)
print("trained", type(trainer).__module__)
"""


@pytest.mark.parametrize("backend", ["pytorch_lightning", "lightning.pytorch"])
def test_gan_trains_in_a_foreign_project(backend: str, tmp_path: Path) -> None:
    package = backend.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(backend=backend))
    result = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env={**os.environ, "LIGHTNING_GEN_BACKEND": package, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert f"trained {backend}" in result.stdout
