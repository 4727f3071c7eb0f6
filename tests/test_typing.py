"""What a type checker sees of the package, in a stranger's script."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """
from lightning_gen import GAN
from lightning_gen.callbacks import SampleGrid
from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.metrics import Precision

GAN(latent_dim="x")
GAN(nonsense=3)
SampleGrid(num_samples="x")
Precision(neighbours=3)
DigitsDataModule(batch_size="x")
data = DigitsDataModule(batch_size=3)
model = GAN(image_shape=data.image_shape, latent_dim=7)
reveal_type(model)
reveal_type(model.sample(2))
reveal_type(data)
reveal_type(SampleGrid(num_samples=4))
reveal_type(Precision(k=3))
"""
REFUSED = {
    7: 'parameter "latent_dim" of type "Size"',
    8: 'No parameter named "nonsense"',
    9: 'parameter "num_samples" of type "Size"',
    10: 'No parameter named "neighbours"',
    11: 'parameter "batch_size" of type "Size"',
}
SEEN = {14: "GAN", 15: "Tensor", 16: "DigitsDataModule", 17: "SampleGrid", 18: "Precision"}


@pytest.mark.skipif(importlib.util.find_spec("basedpyright") is None, reason="basedpyright is not installed")
def test_pyright_sees_the_classes(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    settings = {"include": ["script.py"], "extraPaths": [str(ROOT)], "typeCheckingMode": "standard"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run([*command, "--project", str(tmp_path)], capture_output=True, text=True, check=False)
    found = {one["range"]["start"]["line"] + 1: one for one in json.loads(done.stdout)["generalDiagnostics"]}
    assert {line for line, one in found.items() if one["severity"] == "error"} == set(REFUSED), done.stdout
    for line, message in REFUSED.items():
        assert message in found[line]["message"]
    for line, kind in SEEN.items():
        assert found[line]["message"].endswith(f'is "{kind}"')
