"""The walkthrough of CONTRIBUTING.md, followed step by step on a copy of the package."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import aiosqlitepool

CONTRIBUTING = Path(__file__).parent.parent / "CONTRIBUTING.md"
BLOCKS = re.findall(r"```python \{(.*?)\}\n(.*?)```", CONTRIBUTING.read_text(), re.DOTALL)
STEPS = [(re.findall(r'(\w+)=(?:"(.*?)"|(\S+))', options), code) for options, code in BLOCKS if "file=" in options]
(PROGRAM,) = [code for options, code in BLOCKS if options == "run"]


def follow(copy: Path) -> set[str]:
    """Do what the walkthrough says; returns the files that it touched."""
    touched = set()
    for options, code in STEPS:
        step = {name: quoted or plain for name, quoted, plain in options}
        file = copy / step["file"]
        if "before" in step:
            source = file.read_text()
            assert source.count(step["before"]) == 1, f"{step['before']!r} is not exactly once in {step['file']}"
            file.write_text(source.replace(step["before"], code + step["before"]))
        elif step.get("at") == "end":
            file.write_text(f"{file.read_text()}\n\n{code}")
        else:
            assert not file.exists(), f"{step['file']} exists already"
            file.write_text(code)
        touched.add(step["file"])
    return touched


def test_an_event_and_its_subscriber_touch_three_files_and_work(tmp_path: Path) -> None:
    source = Path(aiosqlitepool.__file__).parent
    shutil.copytree(source, tmp_path / "aiosqlitepool", ignore=shutil.ignore_patterns("__pycache__"))
    assert len(follow(tmp_path)) == 3
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    promised = PROGRAM.rpartition("# ")[2]
    assert ran.stdout == promised


def test_what_the_walkthrough_adds_passes_the_projects_own_lint(tmp_path: Path) -> None:
    source = Path(aiosqlitepool.__file__).parent
    shutil.copytree(source, tmp_path / "aiosqlitepool", ignore=shutil.ignore_patterns("__pycache__"))
    touched = sorted(follow(tmp_path))
    config = CONTRIBUTING.parent / "pyproject.toml"
    # The order of imports is the one thing that the walkthrough leaves to `ruff check --fix`.
    command = [sys.executable, "-m", "ruff", "check", "--config", str(config), "--ignore", "I", *touched]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout
