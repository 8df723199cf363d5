"""The list of examples: complete, and with no link that leads nowhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
LINKS = re.findall(r"^\| \[`(.+?)`\]\((.+?)\)", (EXAMPLES / "README.md").read_text("utf-8"), re.MULTILINE)


def test_every_example_is_listed() -> None:
    there = {path.name for path in EXAMPLES.iterdir()} - {"README.md", "__pycache__"}
    assert {name.removesuffix("/") for name, _ in LINKS} == there


@pytest.mark.parametrize(("name", "link"), LINKS)
def test_its_link_leads_to_it(name: str, link: str) -> None:
    assert (EXAMPLES / link).exists()
    assert link.startswith(name.removesuffix("/"))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_each_opens_with_how_to_run_it(path: Path) -> None:
    head = path.read_text("utf-8").split('"""')[1]
    assert f"examples/{path.name}" in head or f"{path.stem}:create_app" in head


def test_the_last_command_of_the_list_runs() -> None:
    command = [sys.executable, str(EXAMPLES / "background_worker.py"), "--help"]
    assert (
        "see which links still work"
        in subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.lower()
    )
