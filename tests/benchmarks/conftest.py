from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from aiosqlitepool.cli.demo.data import Database, build
from benchmarks.harness.catalogue import Interpreter
from benchmarks.harness.data import told_to_workers

SCALE = 0.0005


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """What workers are told of a tiny data set."""
    path = tmp_path_factory.mktemp("data") / "tiny.db"
    build(path, SCALE, lambda *_: None)
    return told_to_workers(Database(path, SCALE, reused=False))


@pytest.fixture
def here() -> Interpreter:
    return Interpreter(".".join(map(str, sys.version_info[:2])), Path(sys.executable))
