"""What `make dist` built is tested by `make test-dist`, which says in DIST where it is; `make test` leaves it alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from .environment import Environment

collect_ignore_glob = [] if "DIST" in os.environ else ["test_*.py"]


def built(pattern: str) -> Path:
    directory = Path(os.environ["DIST"]).resolve()
    found = sorted(directory.glob(pattern))
    assert len(found) == 1, f"one {pattern} is expected in {directory}, not {[each.name for each in found]}"
    return found[0]


@pytest.fixture(scope="session")
def wheel() -> Path:
    return built("*.whl")


@pytest.fixture(scope="session")
def sdist() -> Path:
    return built("*.tar.gz")


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    """`installed("top")` is a virtual environment with the wheel and that extra in it; "" is the wheel alone."""

    @cache
    def install(extra: str) -> Environment:
        return Environment.of(f"{wheel}[{extra}]" if extra else str(wheel), tmp_path_factory.mktemp("environment"))

    return install
