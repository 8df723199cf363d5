"""Every Python block of the README runs as it stands, in a directory of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(1, len(BLOCKS) + 1))
def test_every_block_of_the_readme_runs(block: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", block]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_timeout_in_the_readme_reads_as_it_says(tmp_path: Path) -> None:
    block = next(block for block in BLOCKS if "GET /posts" in block)
    ran = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "Task-1 [GET /users] has held connection 1 for" in ran.stdout.replace("\n", " ")
    assert "The waiting task itself holds connection 1" in ran.stdout
