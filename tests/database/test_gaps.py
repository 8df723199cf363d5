"""Other processes get their turn although the writer never pauses, and a program on its own pays nothing for that."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from aiosqlitepool import SQLiteDatabase
from aiosqlitepool.database import gaps
from aiosqlitepool.database.gaps import Gaps, is_open_elsewhere

from ..support.clock import Clock
from ..support.databases import add
from ..support.files import notes
from ..support.other import other_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked")


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[float]:
    """How long each gap was, by a clock that stands still."""
    slept: list[float] = []
    # Not `time.sleep` itself: the sleeps of other threads are no gaps.
    monkeypatch.setattr(gaps, "time", SimpleNamespace(monotonic=clock, sleep=slept.append))
    return slept


def saturated(path: Path, *, held: float = 1.0) -> Gaps:
    """The gaps of a writer that has held the lock for this part of the last second."""
    made = Gaps(str(path))
    made._since -= 1.0
    made.held += held
    return made


async def test_another_process_that_has_the_database_open_is_noticed(db: SQLiteDatabase, database: Path) -> None:
    index = f"{database}-shm"
    await db.run_write(add, "a")
    assert not is_open_elsewhere(index)
    async with other_process(database, "SELECT 1 FROM note WHERE 0"):
        assert is_open_elsewhere(index)
    assert not is_open_elsewhere(index)


def test_a_database_without_a_wal_index_is_open_nowhere_else(tmp_path: Path) -> None:
    assert not is_open_elsewhere(str(tmp_path / "app.db-shm"))


def test_an_index_that_this_process_does_not_have_open_is_not_asked_about(tmp_path: Path) -> None:
    (tmp_path / "app.db-shm").write_bytes(b"")
    assert not is_open_elsewhere(str(tmp_path / "app.db-shm"))


async def test_a_writer_that_never_pauses_leaves_a_gap_longer_than_the_poll_of_another_process(
    db: SQLiteDatabase, database: Path, slept: list[float]
) -> None:
    async with other_process(database, "SELECT 1 FROM note WHERE 0"):
        made = saturated(database)
        made.before_begin()
        made.before_begin()
    assert slept == [0.105]


async def test_a_program_on_its_own_leaves_no_gap(db: SQLiteDatabase, database: Path, slept: list[float]) -> None:
    await db.run_write(add, "a")
    saturated(database).before_begin()
    assert slept == []


async def test_a_writer_that_pauses_leaves_no_gap(db: SQLiteDatabase, database: Path, slept: list[float]) -> None:
    async with other_process(database, "SELECT 1 FROM note WHERE 0"):
        saturated(database, held=0.5).before_begin()
        Gaps(str(database)).before_begin()
    assert slept == []


async def test_another_process_writes_while_the_writer_never_pauses(
    db: SQLiteDatabase, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaps, "_EVERY", 0.05)
    is_over = asyncio.Event()

    async def write() -> None:
        while not is_over.is_set():
            await db.run_write(lambda native: time.sleep(0.01))

    async with other_process(database, "SELECT 1 FROM note WHERE 0") as other:
        writers = [asyncio.create_task(write()) for _ in range(4)]
        for _ in range(3):
            assert await other.does("INSERT INTO note (text) VALUES ('theirs')") == "[]"
        is_over.set()
        await asyncio.gather(*writers)
    assert notes(database) == ["theirs"] * 3
