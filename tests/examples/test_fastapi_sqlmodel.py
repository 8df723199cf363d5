"""The tests that the example with SQLModel has, run as its users run them; and its migrations from the command line."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ..support.documents import ROOT
from .test_service_tests import STRICT, pytest_in

SERVICE = ROOT / "examples" / "fastapi_sqlmodel"


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A copy of the example, outside this repository."""
    copied = tmp_path / "fastapi_sqlmodel"
    shutil.copytree(SERVICE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    return copied


def test_the_tests_of_the_service_pass_and_leave_nothing_open(service: Path) -> None:
    ran = pytest_in(service.parent, *STRICT)
    assert ran.returncode == 0, ran.stdout
    assert "8 passed" in ran.stdout
    assert not list(service.parent.rglob("heroes.db"))  # each test had a database of its own


def test_alembic_migrates_from_the_command_line(service: Path) -> None:
    database = service.parent / "heroes.db"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DATABASE": str(database)}

    def alembic(*arguments: str) -> str:
        command = [sys.executable, "-m", "alembic", "-c", str(service / "alembic.ini"), *arguments]
        ran = subprocess.run(
            command, env=env, cwd=service.parent, capture_output=True, text=True, timeout=60, check=True
        )
        return ran.stdout

    alembic("upgrade", "head")
    assert "0002 (head)" in alembic("current")
    with closing(sqlite3.connect(database)) as connection:
        assert [row[1] for row in connection.execute("PRAGMA table_info(hero)")] == ["name", "id", "strength"]
