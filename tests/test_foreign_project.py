"""A stranger's script: our GAN under both of Lightning's distributions, fed by (image, label) batches."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_gen import _lightning

needs_lightning = pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="lightning is not installed")

SCRIPT = """
{imports}
import torch
from torch.utils.data import DataLoader, TensorDataset

images, labels = torch.rand(40, 1, 8, 8), torch.randint(10, (40,))
loader = DataLoader(TensorDataset(images, labels), batch_size=10, shuffle=True)


class Watch(L.Callback):
    def on_train_epoch_end(self, trainer, module):
        assert trainer.callback_metrics["train/loss_d"] > 0


model = GAN(image_shape=(1, 8, 8), hidden_size=32, maxout_units=8)
before = model.generator.hidden1.weight.clone()
trainer = L.Trainer(max_epochs=2, accelerator="cpu", callbacks=[Watch()], enable_progress_bar=False)
trainer.fit(model, loader)
assert not torch.equal(before, model.generator.hidden1.weight)
assert model.sample(3).shape == (3, 1, 8, 8)
print("trained", type(trainer).__module__)
"""


def run(imports: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    (script := folder / "train.py").write_text(SCRIPT.format(imports=imports))
    settings = {key: value for key, value in os.environ.items() if key != "LIGHTNING_GEN_BACKEND"}
    settings |= {"OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, str(script)]
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)


@needs_lightning
@pytest.mark.parametrize(
    ("imports", "module"),
    [
        ("import lightning_gen\nimport lightning as L\nfrom lightning_gen import GAN", "lightning.pytorch"),
        ("from lightning_gen import GAN\nimport pytorch_lightning as L", "pytorch_lightning"),
    ],
    ids=["lightning", "pytorch_lightning"],
)
def test_gan_trains_in_a_foreign_project(imports: str, module: str, tmp_path: Path) -> None:
    result = run(imports, tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"trained {module}" in result.stdout
    assert "imported too" not in result.stderr


@needs_lightning
def test_a_mixture_says_what_to_do(tmp_path: Path) -> None:
    """A notebook that imports ours in its first cell: Lightning's own error says nothing of two distributions."""
    result = run("from lightning_gen import GAN\nimport lightning as L", tmp_path)
    assert "TypeError: `model` must be a `LightningModule`" in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if "imported too" in line]
    assert "GAN is a module of pytorch_lightning, and lightning.pytorch is imported too" in line
    assert "import lightning alone before lightning_gen, or set LIGHTNING_GEN_BACKEND=lightning before" in line


@pytest.mark.parametrize(
    ("imported", "variable", "chosen"),
    [
        ([], None, "pytorch_lightning"),
        (["lightning.pytorch"], None, "lightning"),
        (["pytorch_lightning"], None, "pytorch_lightning"),
        (["lightning.pytorch", "pytorch_lightning"], None, "pytorch_lightning"),
        (["lightning.pytorch"], "pytorch_lightning", "pytorch_lightning"),
        ([], "lightning", "lightning"),
    ],
)
def test_what_is_imported_first_decides_unless_the_variable_does(
    imported: list[str], variable: str | None, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lightning, "sys", SimpleNamespace(modules=dict.fromkeys(imported)))
    monkeypatch.delenv("LIGHTNING_GEN_BACKEND", raising=False)
    if variable is not None:
        monkeypatch.setenv("LIGHTNING_GEN_BACKEND", variable)
    assert _lightning.choose_backend() == chosen
