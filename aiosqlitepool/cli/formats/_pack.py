"""The pack as its formats see it, and the files that come with them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import PurePosixPath
from typing import TypeAlias

__all__ = ["RULES", "RUNBOOK", "Files", "dashboards", "shipped"]

# Texts by relative path.
Files: TypeAlias = Mapping[str, str]

# The files of Prometheus's rules, by the last part of their names in a format.
RULES = {"rules": "metrics/rules.yml", "alerts": "metrics/alerts.yml"}
RUNBOOK = "metrics/runbook.md"


def dashboards(pack: Files) -> Files:
    """Return the dashboards, by the names of their files without the suffix."""
    return {PurePosixPath(path).stem: text for path, text in pack.items() if path.startswith("dashboards/")}


def shipped(*names: str) -> dict[str, str]:
    """Return files that are not made from the pack, by name."""
    folder = files("aiosqlitepool.cli.formats") / "files"
    return {name: (folder / name).read_text("utf-8") for name in names}
