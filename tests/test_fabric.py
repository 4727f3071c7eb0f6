"""The page's loop under Fabric runs as it stands, in two processes."""

import os
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "configs" / "trainer" / "README.md"


def test_the_pages_loop_runs(tmp_path: Path) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Under Fabric")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    (script := tmp_path / "loop.py").write_text(code, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("torch.Size([64, 1, 28, 28])") == 1
    assert "2 processes" in result.stderr + result.stdout
