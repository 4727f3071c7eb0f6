"""Values that nobody should give, passed to everything public: a right answer, or an error of ours in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = {"functions": 15, "metrics": 6, "datamodules": 10, "callbacks": 10, "models": 3, "options": 1}


def run(kind: str, examples: int) -> None:
    done = subprocess.run([sys.executable, "-m", "tests.hostile", kind, str(examples)], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:].decode()


@pytest.mark.parametrize("kind", [kind for kind in EXAMPLES if kind != "options"])  # Each option is a run by itself.
def test_hostile_values(kind: str) -> None:
    run(kind, EXAMPLES[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", EXAMPLES)
def test_many_hostile_values(kind: str) -> None:
    run(kind, 10 * EXAMPLES[kind])
