from __future__ import annotations

from pathlib import Path

import pytest

from aiosqlitepool.testing import Recorder

from .support.clock import Clock
from .support.files import make_database
from .support.stub import StubDriver


@pytest.fixture
def driver() -> StubDriver:
    return StubDriver()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A real SQLite file in WAL mode with a table `note(id, text)`."""
    return make_database(tmp_path / "app.db")
