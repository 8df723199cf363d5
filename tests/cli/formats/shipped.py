"""The pack in the repository, and what the tools of others say of rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from ...support.debian import tool

ROOT = Path(__file__).parents[3]
METRICS = ROOT / "metrics"
DASHBOARDS = {path.stem: path.read_text() for path in sorted((ROOT / "dashboards").glob("*.json"))}


def groups(name: str) -> list[dict[str, Any]]:
    """The groups of `rules.yml` or `alerts.yml`."""
    found: list[dict[str, Any]] = yaml.safe_load((METRICS / name).read_text())["groups"]
    return found


def promtool_accepts(rules: dict[str, Any], folder: Path) -> None:
    """Have Debian's promtool check `{"groups": [...]}`."""
    file = folder / "rules.json"
    file.write_text(json.dumps(rules))
    checked = tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", file)
    assert checked.returncode == 0, checked.stdout + checked.stderr
