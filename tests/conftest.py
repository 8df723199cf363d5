from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from aiosqlitepool.driver import GenericAdapter, cursors
from aiosqlitepool.pool import connection, lifecycle, registry
from aiosqlitepool.testing import Recorder

from .support.clock import Clock
from .support.deadlines import Deadlines
from .support.files import make_database
from .support.progress import Progress, interrupted_by_sigterm, writing
from .support.spread import ByFile, longest_first
from .support.stub import StubDriver


def eager_loop(made: Any = asyncio.new_event_loop) -> asyncio.AbstractEventLoop:
    """A loop whose tasks run up to their first wait inside `create_task()`."""
    loop: asyncio.AbstractEventLoop = made()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]  # from Python 3.12
    return loop


# The same examples in every run, however slow the machine is: a red build must mean a change.
settings.register_profile("same", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.load_profile("same")

if os.environ.get("EAGER_TASKS"):
    asyncio.new_event_loop = asyncio.events.new_event_loop = eager_loop


def pytest_sessionstart(session: pytest.Session) -> None:
    plugins = session.config.pluginmanager
    plugins.register(Deadlines())
    if terminal := plugins.getplugin("terminalreporter"):
        plugins.register(progress := Progress(writing(terminal)))
        if plugins.hasplugin("dsession"):  # tests run in other processes
            progress.watch()
            interrupted_by_sigterm()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        longest_first(items)


@pytest.fixture(autouse=True)
def free_names() -> None:
    """Free the names of pools that other tests have left behind and that are not collected yet."""
    registry._named.clear()


@pytest.fixture(autouse=True)
def cursors_in_no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cursors read as many rows ahead as they may, however slow the machine is."""
    monkeypatch.setattr(cursors, "READ_AHEAD_TIME", 60.0)


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


class _CleanAdapter(GenericAdapter):
    """Knows that nothing has to be undone."""

    def end_lease(self) -> bool:
        return True


@pytest.fixture
def clean_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stub connections be released as clean ones of aiosqlite are: at once."""
    monkeypatch.setattr(lifecycle, "adapter_for", lambda raw, *_: _CleanAdapter(raw))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pool wait for interrupted statements however slow the machine is, so that its events are foreseeable."""
    monkeypatch.setattr(connection, "INTERRUPT_PATIENCE", 60.0)
