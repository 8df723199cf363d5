"""The tests that the FastAPI example has, run as its users run them; and the page that shows them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ..support.documents import ROOT, text_of

SERVICE = ROOT / "examples" / "fastapi_service"
PAGE = Path("docs/testing.md")
STRICT = ["-W", "error::ResourceWarning", "-W", "error::pytest.PytestUnraisableExceptionWarning"]


def pytest_in(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest with no settings but its own, in a directory outside this repository."""
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_the_tests_of_the_service_pass_and_leave_nothing_open(tmp_path: Path) -> None:
    shutil.copytree(SERVICE, tmp_path / "fastapi_service", ignore=shutil.ignore_patterns("__pycache__"))
    ran = pytest_in(tmp_path, *STRICT)
    assert ran.returncode == 0, ran.stdout
    assert "7 passed" in ran.stdout
    assert not list(tmp_path.rglob("service.db"))  # each test had a database of its own


def test_the_page_shows_the_tests_as_they_are() -> None:
    shown = (
        text_of(PAGE).partition(f"```python {{{SERVICE.relative_to(ROOT)}/test_service.py}}\n")[2].partition("```\n")[0]
    )
    assert shown == (SERVICE / "test_service.py").read_text("utf-8")


# What the README and the page warn of: a pool of the module, and two tests.
GLOBAL = """
from contextlib import asynccontextmanager
import aiosqlite
from aiosqlitepool import SQLiteConnectionPool
from fastapi import FastAPI
from fastapi.testclient import TestClient

pool = SQLiteConnectionPool(lambda: aiosqlite.connect("app.db"), name="app.db")

@asynccontextmanager
async def lifespan(app):
    async with pool:
        yield

app = FastAPI(lifespan=lifespan)

def test_one():
    with TestClient(app):
        pass

def test_two():
    with TestClient(app):
        pass
"""


def test_a_pool_that_is_made_once_for_two_tests_says_to_make_one_per_test(tmp_path: Path) -> None:
    (tmp_path / "test_global.py").write_text(GLOBAL)
    ran = pytest_in(tmp_path)
    assert "1 failed, 1 passed" in ran.stdout
    assert "pool 'app.db' is closed and cannot be reopened: make one per application, or per test" in ran.stdout
