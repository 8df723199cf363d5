"""The WAL stays small although the writer never pauses and reads overlap, and who prevents that is named."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aiosqlitepool import PoolClosedError, SQLiteDatabase
from aiosqlitepool.database import truncation
from aiosqlitepool.database.truncation import Truncation
from aiosqlitepool.events import (
    CheckpointBlocked,
    Checkpointed,
    CheckpointFailed,
    ConnectionReleased,
    DatabaseFailed,
    ErrorInfo,
)
from aiosqlitepool.testing import Recorder

from ..support.clock import Clock
from ..support.databases import add, first, held_writer, texts, texts_now
from ..support.other import other_process

CEILING = 200_000


def grow(native: sqlite3.Connection) -> None:
    native.execute("INSERT INTO note (text) VALUES (zeroblob(50000))")


def truncation_of(db: SQLiteDatabase, clock: Clock, ceiling: int | None = 0) -> Truncation:
    """A truncation that is not started: the test runs it."""
    made = Truncation(db._writer, db._reader.pool, 0, ceiling, lambda: None, clock)
    made._loop = asyncio.get_running_loop()
    return made


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a truncation wait as long as the test needs, so that a slow machine ends no wait."""
    for name in ("_PATIENCE", "_MORE_PATIENCE", "_COPY_PATIENCE"):
        monkeypatch.setattr(truncation, name, 60.0)


@pytest.fixture
async def small(database: Path, recorder: Recorder) -> AsyncIterator[SQLiteDatabase]:
    """An open database whose WAL has a low ceiling."""
    async with SQLiteDatabase(database, wal_ceiling=CEILING, subscribers=[recorder]) as db:
        yield db


# -- after a commit


async def test_the_wal_is_truncated_while_writers_never_pause_and_reads_overlap(
    small: SQLiteDatabase, recorder: Recorder
) -> None:
    def is_truncated() -> bool:
        return "complete" in [event.result for event in recorder.of(Checkpointed)]

    async def write() -> None:
        for number in range(100):  # a slow machine may not find the moment at once
            if number >= 20 and is_truncated():
                return
            if number % 2:
                await small.run_write(grow)
            else:
                async with small.write() as connection:
                    await connection.execute("INSERT INTO note (text) VALUES (zeroblob(50000))")

    async def read() -> None:
        while not all(writer.done() for writer in writers):
            async with small.read(snapshot=True) as connection:
                await texts_now(connection)

    writers = [asyncio.create_task(write()) for _ in range(4)]
    await asyncio.gather(*writers, *(read() for _ in range(3)))
    assert is_truncated()
    assert len(await small.run_read(texts)) >= 80


async def test_without_readers_a_commit_truncates_the_wal_at_once(small: SQLiteDatabase, recorder: Recorder) -> None:
    for _ in range(6):
        small._writer.look_at = 0.0
        await small.run_write(grow)
        assert (small.writer.stats().wal_bytes or 0) < CEILING + 60_000
    (event,) = recorder.of(Checkpointed)
    assert (event.result, event.wal_bytes, event.pages == event.moved) == ("complete", 0, True)


async def test_a_cursor_that_the_block_left_half_read_only_delays_the_truncation(
    small: SQLiteDatabase, recorder: Recorder
) -> None:
    await small.run_write(add, "a")
    await small.run_write(add, "b")
    checkpointed = asyncio.create_task(first(small.writer, Checkpointed))
    await asyncio.sleep(0)
    async with small.write() as connection:
        for _ in range(6):
            await connection.execute("INSERT INTO note (text) VALUES (zeroblob(50000))")
        # More rows than are read ahead.
        numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100) SELECT i FROM n"
        cursor = await connection.execute(f"SELECT text FROM note CROSS JOIN ({numbers})")
        assert await cursor.fetchone() == ("a",)
    await checkpointed
    assert small.writer.stats().wal_bytes == 0


@pytest.mark.parametrize(("code", "is_of_database"), [("SQLITE_IOERR_WRITE", True), ("SQLITE_AUTH", False)])
async def test_a_truncation_that_fails_is_told_and_the_commit_stands(
    small: SQLiteDatabase, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, code: str, is_of_database: bool
) -> None:
    def fail(native: sqlite3.Connection, pool: object) -> None:
        error = sqlite3.OperationalError("no")
        error.sqlite_errorname = code
        raise error

    monkeypatch.setattr(truncation, "checkpoint", fail)
    # Above the limit at once: a commit tries to truncate what the one before has left.
    small._maintenance._truncation._above = 0  # type: ignore[union-attr]
    failing = asyncio.create_task(first(small.writer, CheckpointFailed))
    await asyncio.sleep(0)
    assert await small.run_write(add, "a") == 1
    event = await failing
    assert isinstance(event, CheckpointFailed)
    assert (event.pool, event.error.code) == ("app.db/write", code)
    assert event.wal_bytes > 0
    told = [event for event in recorder.of(DatabaseFailed) if event.label == "checkpoint"]
    assert (told != []) == is_of_database


async def test_a_truncation_that_fails_needs_no_subscriber(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SQLiteDatabase(database) as db:
        made = truncation_of(db, Clock())
        made._emit_failed(ErrorInfo("sqlite3.OperationalError", "no", "SQLITE_FULL"))
        assert await db.run_write(add, "a") == 1


async def test_a_database_without_a_ceiling_only_asks_for_the_readers_to_be_held(db: SQLiteDatabase) -> None:
    asked = asyncio.Event()
    made = Truncation(db._writer, db._reader.pool, -truncation._SLACK, None, asked.set, Clock())
    made.start()
    async with db.read(snapshot=True) as connection:
        assert await texts_now(connection) == []
        await db.run_write(add, "a")
        await asked.wait()
        assert made.is_due()
    assert await db.run_write(add, "b") == 2


async def test_a_commit_does_not_fail_when_the_loop_was_closed(db: SQLiteDatabase) -> None:
    made = truncation_of(db, Clock())
    loop = asyncio.new_event_loop()
    loop.close()
    made._loop = loop
    await db.run_write(add, "a")
    await db._writer.call("checkpoint", made.after_commit)
    assert db.writer.stats().wal_bytes == 0


# -- copying while the writer goes on


async def test_a_large_wal_is_copied_while_the_writer_is_in_a_transaction(
    db: SQLiteDatabase, database: Path, recorder: Recorder
) -> None:
    made = truncation_of(db, Clock())
    await db.run_write(grow)
    before = database.stat().st_size
    async with held_writer(db):
        await made.copy()
        (event,) = recorder.of(Checkpointed)
        assert (event.pool, event.result, event.pages == event.moved > 0) == ("app.db/write", "complete", True)
        assert event.wal_bytes > 0, "to truncate it would need the writer"
        assert database.stat().st_size > before


async def test_sqlite_begins_a_copied_wal_anew_by_itself(db: SQLiteDatabase) -> None:
    made = truncation_of(db, Clock())
    await db.run_write(grow)
    largest = db.writer.stats().wal_bytes
    for _ in range(3):
        await made.copy()
        await db.run_write(grow)
    assert db.writer.stats().wal_bytes == largest


async def test_the_writer_copies_the_wal_if_all_readers_are_in_use(database: Path, recorder: Recorder) -> None:
    async with SQLiteDatabase(database, readers=1, subscribers=[recorder]) as db:
        await db.run_write(grow)
        async with db.read():
            await truncation_of(db, Clock()).copy()
    (event,) = recorder.of(Checkpointed)[:1]
    assert event.result == "complete"
    assert [event.pool for event in recorder.of(ConnectionReleased) if event.label == "checkpoint"] == ["app.db/write"]


async def test_a_copy_that_fails_is_told_and_nothing_is_raised(
    db: SQLiteDatabase, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(native: sqlite3.Connection, pool: object, *, truncates: bool) -> None:
        error = sqlite3.OperationalError("no")
        error.sqlite_errorname = "SQLITE_IOERR_WRITE"
        raise error

    monkeypatch.setattr(truncation, "checkpoint", fail)
    await truncation_of(db, Clock()).copy()
    (event,) = recorder.of(CheckpointFailed)
    assert (event.pool, event.error.code) == ("app.db/write", "SQLITE_IOERR_WRITE")
    (failed,) = recorder.of(DatabaseFailed)  # bug: it was counted twice
    assert (failed.error.code, failed.label) == ("SQLITE_IOERR_WRITE", "checkpoint")


async def test_a_database_that_closes_needs_no_copy_any_more(database: Path) -> None:
    async with SQLiteDatabase(database) as db:
        made = truncation_of(db, Clock())
    await made.copy()
    assert not made.is_asked_to_copy


async def test_commits_ask_for_one_copy_at_a_time_and_not_at_once_for_the_next(db: SQLiteDatabase) -> None:
    asked: list[None] = []
    clock = Clock()
    made = Truncation(db._writer, db._reader.pool, 0, None, lambda: asked.append(None), clock)
    made.start()

    async def commit() -> int:
        db._writer.look_at = 0.0
        await db.run_write(add, "a")
        return len(asked)

    assert [await commit(), await commit()] == [1, 1]
    assert made.is_asked_to_copy
    await made.copy()
    assert not made.is_asked_to_copy
    assert await commit() == 1
    clock.advance(truncation._COPY_EVERY)
    assert await commit() == 2


async def test_readers_that_prevent_a_copy_are_held_long_before_the_wal_is_as_large_as_it_may_be(
    db: SQLiteDatabase,
) -> None:
    """Two steady writers beside overlapping snapshots filled 26 MB."""
    made = Truncation(db._writer, db._reader.pool, 4_000_000, None, lambda: None, Clock())
    async with db.read(snapshot=True):
        await db.run_write(add, "a")
        await made.copy()
        assert made._limit == 5_000_000
    await made.copy()
    assert made._limit == 15_000_000


async def test_a_commit_does_not_get_in_the_way_of_a_copy(db: SQLiteDatabase, recorder: Recorder) -> None:
    """Only one connection can make a checkpoint: readers were held because the copy was in the way."""
    asked: list[None] = []
    made = Truncation(db._writer, db._reader.pool, 0, 1_000_000, lambda: asked.append(None), Clock())
    made.start()
    await db.run_write(add, "a")
    assert made.is_asked_to_copy
    db._writer.look_at = 0.0
    await db.run_write(add, "a" * 1_000_000)
    assert len(asked) == 1
    assert recorder.of(Checkpointed) == []
    await made.copy()
    db._writer.look_at = 0.0
    await db.run_write(add, "b")
    assert [event.wal_bytes > 0 for event in recorder.of(Checkpointed)] == [True, False]


async def test_a_commit_leaves_the_copying_to_others(database: Path) -> None:
    async with SQLiteDatabase(database, checkpoint_above=50_000_000) as db:
        for _ in range(3):  # SQLite's own limit, at which a commit copies, would be 4 MB
            await db.run_write(add, "a" * 3_000_000)
        assert database.stat().st_size < 100_000


# -- holding readers


@pytest.mark.usefixtures("patient")
async def test_new_readers_wait_until_those_that_read_have_ended(db: SQLiteDatabase, recorder: Recorder) -> None:
    made = truncation_of(db, Clock())
    async with db.read(snapshot=True) as connection:
        assert await texts_now(connection) == []
        await db.run_write(add, "a")
        running = asyncio.create_task(made.run())
        await asyncio.sleep(0)
        late = asyncio.create_task(db.run_read(texts))
        while not db.readers.stats().waiting:
            await asyncio.sleep(0)
    await running
    assert await late == ["a"]
    assert db.writer.stats().wal_bytes == 0
    assert [event.result for event in recorder.of(Checkpointed)] == ["complete"]


async def test_a_reader_that_reads_nothing_is_not_in_the_way(db: SQLiteDatabase, recorder: Recorder) -> None:
    made = truncation_of(db, Clock())
    async with db.read() as connection:
        assert await texts_now(connection) == []
        await db.run_write(add, "a")
        await made.run()
    assert db.writer.stats().wal_bytes == 0
    assert recorder.of(CheckpointBlocked) == []


async def test_a_reader_that_stays_is_named_and_the_others_go_on(
    db: SQLiteDatabase, recorder: Recorder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truncation, "_MORE_PATIENCE", 0.1)
    made = truncation_of(db, Clock())
    async with db.read(snapshot=True, label="report") as connection:
        await db.run_write(add, "a")
        with caplog.at_level(logging.WARNING, "aiosqlitepool"):
            running = asyncio.create_task(made.run())
            await asyncio.sleep(0)
            assert await db.run_read(texts) == ["a"]  # held for a moment
            await running
        assert await texts_now(connection) == []
    (event,) = recorder.of(CheckpointBlocked)
    assert (event.pool, event.wal_bytes > 0) == ("app.db/write", True)
    (holder,) = event.holders
    assert (holder.label, holder.held > 0) == ("report", True)
    assert "the WAL has" in caplog.text
    assert "[report] has held connection" in caplog.text


async def test_reads_that_overlap_are_waited_for_when_the_first_have_ended(
    db: SQLiteDatabase, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truncation, "_PATIENCE", 0.0)
    monkeypatch.setattr(truncation, "_MORE_PATIENCE", 60.0)
    made = truncation_of(db, Clock())
    entered, leave = [asyncio.Event() for _ in range(3)], [asyncio.Event() for _ in range(3)]

    async def read(number: int) -> None:
        async with db.read(snapshot=True):
            entered[number].set()
            await leave[number].wait()

    one, two = (asyncio.create_task(read(number)) for number in range(2))
    await entered[0].wait()
    await entered[1].wait()
    await db.run_write(add, "a")
    running = asyncio.create_task(made.run())
    await asyncio.sleep(0)
    # Held, and let go on at once: that one is not in the way of the first attempt, but of the second.
    three = asyncio.create_task(read(2))
    await entered[2].wait()
    leave[0].set()
    await one
    assert not db._reader.pool._inventory.slots.is_held
    leave[1].set()
    await two
    assert db._reader.pool._inventory.slots.is_held, "from the very moment in which the last of the first has ended"
    late = asyncio.create_task(db.run_read(texts))
    leave[2].set()
    await asyncio.gather(three, running)
    assert await late == ["a"]
    assert db.writer.stats().wal_bytes == 0
    assert recorder.of(CheckpointBlocked) == []


@pytest.mark.usefixtures("patient")
async def test_commits_truncate_the_wal_while_readers_are_held_and_the_writer_is_never_idle(
    db: SQLiteDatabase, recorder: Recorder
) -> None:
    made = truncation_of(db, Clock())
    made.start()
    async with held_writer(db) as let_go:
        running = asyncio.create_task(made.run())
        await asyncio.sleep(0)
        next_one = asyncio.create_task(db.run_write(add, "a"))
        let_go()
        await next_one
    await running
    assert [event.result for event in recorder.of(Checkpointed)] != []
    assert recorder.of(CheckpointBlocked) == []


async def test_a_commit_while_readers_are_held_asks_for_nothing_more(
    db: SQLiteDatabase, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truncation, "_MORE_PATIENCE", 60.0)
    asked = []
    made = Truncation(db._writer, db._reader.pool, 0, 0, lambda: asked.append(1), Clock())
    made.start()
    async with db.read(snapshot=True) as connection:
        assert await texts_now(connection) == []
        running = asyncio.create_task(made.run())
        await asyncio.sleep(0)
        await db.run_write(add, "a")  # waits for the reader, for a moment
    await running
    assert asked == []
    await db.run_write(add, "b")
    assert "complete" in [event.result for event in recorder.of(Checkpointed)]


async def test_a_writer_in_a_long_transaction_is_blamed_on_no_reader(
    db: SQLiteDatabase, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truncation, "_MORE_PATIENCE", 0.02)
    made = truncation_of(db, Clock())
    await db.run_write(add, "a")
    async with held_writer(db):
        await made.run()
    assert recorder.of(CheckpointBlocked) == []
    assert db.writer.stats().wal_bytes


async def test_another_process_that_reads_is_reported_without_a_holder(
    db: SQLiteDatabase, database: Path, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    made = truncation_of(db, Clock())
    await db.run_write(add, "a")
    async with other_process(database, "BEGIN", "SELECT 1 FROM note WHERE 0"):
        with caplog.at_level(logging.WARNING, "aiosqlitepool"):
            await made.run()
    (event,) = recorder.of(CheckpointBlocked)
    assert event.holders == ()
    assert "cannot be emptied: another process or database object reads" in caplog.text


async def test_below_the_ceiling_nothing_is_logged(
    db: SQLiteDatabase, recorder: Recorder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truncation, "_MORE_PATIENCE", 0.02)
    made = Truncation(db._writer, db._reader.pool, -truncation._SLACK, None, lambda: None, Clock())
    made._loop = asyncio.get_running_loop()
    async with db.read(snapshot=True, label="report"):
        await db.run_write(add, "a")
        with caplog.at_level(logging.WARNING, "aiosqlitepool"):
            await made.run()
    assert len(recorder.of(CheckpointBlocked)) == 1
    assert caplog.text == ""


async def test_pauses_between_attempts_grow_until_one_succeeds(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truncation, "_MORE_PATIENCE", 0.001)
    clock = Clock()
    made = truncation_of(db, clock)
    pauses = []
    async with db.read(snapshot=True):
        await db.run_write(add, "a")
        for _ in range(10):
            assert made.is_due()
            await made.run()
            assert not made.is_due()
            assert made._next_at - clock.now <= ([0.1, *pauses])[-1]
            pauses.append(made._pause)
            clock.advance(pauses[-1])
    assert pauses[:4] == pytest.approx([0.2, 0.4, 0.8, 1.6])
    assert pauses[-1] == 30.0
    await made.run()
    assert made._pause == 0.1
    assert not made.is_due(), "the WAL is empty"


@pytest.mark.usefixtures("patient")
async def test_a_database_closes_while_readers_are_held(database: Path) -> None:
    db = SQLiteDatabase(database)
    await db.open()
    made = truncation_of(db, Clock())
    entered, leave = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        async with db.read(snapshot=True):
            entered.set()
            await leave.wait()

    reader = asyncio.create_task(read())
    await entered.wait()
    await db.run_write(add, "a")
    running = asyncio.create_task(made.run())
    await asyncio.sleep(0)
    late = asyncio.create_task(db.run_read(texts))
    closing = asyncio.create_task(db.close())
    while db.readers.stats().state == "open":
        await asyncio.sleep(0)
    leave.set()
    await closing
    await reader
    with pytest.raises(PoolClosedError):
        await late
    with contextlib.suppress(PoolClosedError):  # it has tried after the close
        await running
    assert not db._reader.pool._inventory.slots.is_held


async def test_readers_are_let_go_when_the_disk_takes_too_long(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truncation, "_MORE_PATIENCE", 0.01)
    made, go = truncation_of(db, Clock()), asyncio.Event()

    async def slow(label: str, fn: object) -> bool:
        await go.wait()
        return False

    monkeypatch.setattr(db._writer, "call", slow)
    await db.run_write(add, "a")
    running = asyncio.create_task(made.run())
    await asyncio.sleep(0)
    assert await db.run_read(texts) == ["a"]
    go.set()
    await running
