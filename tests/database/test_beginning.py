"""A write block begins its transaction in the thread of the event loop, unless it has to wait for something there."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import aiosqlite
import pytest

from aiosqlitepool import SQLiteDatabase
from aiosqlitepool.database.writer import Writer
from aiosqlitepool.driver import begin_at_once, call
from aiosqlitepool.events import DatabaseFailed, RolledBackOnReturn, TransactionEnded
from aiosqlitepool.testing import Recorder

from ..support.clock import Clock
from ..support.databases import Hold, add, first, insert, never_writes
from ..support.files import notes
from ..support.other import other_process

LOOP, WORKER = "loop", "worker"


class Trace:
    """Where each BEGIN of the writer ran, which takes `slow` seconds of its clock in the loop's thread."""

    def __init__(self) -> None:
        self.begins: list[str] = []
        self.clock = Clock()
        self.slow = 0.0

    async def on_connect(self, connection: aiosqlite.Connection) -> None:
        await connection.set_trace_callback(self._ran)

    def _ran(self, sql: str) -> None:
        if sql == "BEGIN IMMEDIATE":
            is_main = threading.current_thread() is threading.main_thread()
            self.begins.append(LOOP if is_main else WORKER)
            self.clock.now += self.slow if is_main else 0

    def taken(self) -> list[str]:
        """What there is by now, which is then forgotten."""
        begins, self.begins = self.begins, []
        return begins


@pytest.fixture
def trace() -> Trace:
    return Trace()


@pytest.fixture
async def db(database: Path, recorder: Recorder, trace: Trace) -> AsyncIterator[SQLiteDatabase]:
    async with SQLiteDatabase(database, subscribers=[recorder], on_connect=trace.on_connect) as db:
        stop_clocks(db, trace)
        yield db


def stop_clocks(db: SQLiteDatabase, trace: Trace) -> None:
    """Let no BEGIN be slow, and no gap be due, because the machine is."""
    work = writer_of(db).pool.loop_work
    work._clock, work._preemptions = trace.clock, lambda: 0
    writer_of(db).gaps._since = math.inf


def writer_of(db: SQLiteDatabase) -> Writer:
    return db._writer


async def write(db: SQLiteDatabase, text: str = "a") -> None:
    async with db.write() as connection:
        assert connection.in_transaction
        await insert(connection, text)


# -- where it begins


async def test_a_block_begins_in_the_loops_thread(db: SQLiteDatabase, database: Path, trace: Trace) -> None:
    for text in "abc":
        await write(db, text)
    assert trace.taken() == [LOOP] * 3
    assert notes(database) == ["a", "b", "c"]


async def test_blocks_that_queue_begin_there_one_after_another(
    db: SQLiteDatabase, database: Path, trace: Trace, recorder: Recorder
) -> None:
    await asyncio.gather(*(write(db, text) for text in "abcdef"))
    assert trace.taken() == [LOOP] * 6
    assert notes(database) == list("abcdef")
    events = recorder.of(TransactionEnded)
    assert [event.outcome for event in events] == ["committed"] * 6
    assert all(event.duration > 0 and event.wait_time >= 0 for event in events)


async def test_a_block_without_a_statement_is_a_transaction_too(
    db: SQLiteDatabase, trace: Trace, recorder: Recorder
) -> None:
    async with db.write() as connection:
        assert connection.in_transaction
    assert trace.taken() == [LOOP]
    assert [event.outcome for event in recorder.of(TransactionEnded)] == ["committed"]


async def test_a_block_in_memory_begins_in_the_worker(trace: Trace) -> None:
    async with SQLiteDatabase(":memory:", on_connect=trace.on_connect) as db:
        stop_clocks(db, trace)
        await db.execute("CREATE TABLE note (text TEXT)")
        trace.taken()
        await write(db)
        assert trace.taken() == [WORKER]
        assert await db.fetch_val("SELECT text FROM note") == "a"


async def test_a_function_begins_in_the_worker(db: SQLiteDatabase, trace: Trace) -> None:
    await db.run_write(add, "a")
    assert trace.taken() == [WORKER]


async def test_a_gap_for_other_processes_is_left_in_the_worker(db: SQLiteDatabase, trace: Trace) -> None:
    writer_of(db).gaps._since = -math.inf
    await write(db)
    writer_of(db).gaps._since = math.inf
    await write(db)
    assert trace.taken() == [WORKER, LOOP]


async def test_a_begin_that_is_slow_twice_goes_to_the_worker_for_a_while(db: SQLiteDatabase, trace: Trace) -> None:
    trace.slow = 0.002
    for _ in range(13):
        await write(db)
    assert trace.taken() == [LOOP] * 2 + [WORKER] * 10 + [LOOP]


async def test_a_begin_that_is_slow_because_the_machine_is_busy_stays(db: SQLiteDatabase, trace: Trace) -> None:
    writer_of(db).pool.loop_work._preemptions = lambda: len(trace.begins)
    trace.slow = 0.002
    for _ in range(5):
        await write(db)
    assert trace.taken() == [LOOP] * 5


async def test_a_begin_is_part_of_the_turn_of_the_loop_and_of_its_stall(db: SQLiteDatabase, trace: Trace) -> None:
    await write(db)  # opens the connection
    assert db.writer.stats().inline_stall == 0
    trace.slow = 0.0005
    async with db.write():
        assert writer_of(db).pool.loop_work.turn.is_over
    assert db.writer.stats().inline_stall == pytest.approx(0.0005)


async def test_a_block_begins_in_the_worker_when_the_turn_of_the_loop_is_over(db: SQLiteDatabase, trace: Trace) -> None:
    await write(db)
    async with db.writer.connection() as connection:
        writer_of(db).pool.loop_work.turn.spend(1.0)
        with writer_of(db).transaction(None, None) as transaction:
            await writer_of(db)._begin(connection, transaction)
    assert trace.taken() == [LOOP, WORKER]


# -- what it waits for, and what it raises


async def test_the_loop_does_not_wait_for_another_process_whatever_the_busy_timeout(
    database: Path, trace: Trace
) -> None:
    async with SQLiteDatabase(database, pragmas={"busy_timeout": 600_000}, on_connect=trace.on_connect) as db:
        stop_clocks(db, trace)
        async with other_process(database, "BEGIN IMMEDIATE") as other:
            writing = asyncio.create_task(write(db, "after"))
            while trace.begins != [LOOP, WORKER]:
                await asyncio.sleep(0.001)
            await other.does("INSERT INTO note (text) VALUES ('theirs')")
            await other.does("COMMIT")
            await writing
    assert notes(database) == ["theirs", "after"]


async def test_another_process_that_holds_the_lock_is_waited_for_at_the_beginning(
    db: SQLiteDatabase, database: Path, trace: Trace, recorder: Recorder
) -> None:
    async with other_process(database, "BEGIN IMMEDIATE") as other:
        writing = asyncio.create_task(write(db, "a"))
        await first(db.writer)
        await other.does("ROLLBACK")
        await writing
    (event,) = recorder.of(TransactionEnded)
    assert (event.outcome, event.retries > 0) == ("committed", True)
    assert trace.taken()[:2] == [LOOP, WORKER]


async def test_an_error_of_begin_is_raised_on_entering_and_reported_once(
    db: SQLiteDatabase, database: Path, recorder: Recorder
) -> None:
    def authorizer(action: int, *_: object) -> int:
        return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK

    async with db.writer.connection() as connection:
        await call(connection, lambda native: native.set_authorizer(authorizer))
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        await never_writes(db)
    async with db.writer.connection() as connection:
        await call(connection, lambda native: native.set_authorizer(lambda *_: sqlite3.SQLITE_OK))
    await write(db)
    assert [event.outcome for event in recorder.of(TransactionEnded)] == ["failed", "committed"]
    assert recorder.of(DatabaseFailed) == []
    assert notes(database) == ["a"]


# -- the busy timeout


def busy_timeout(native: sqlite3.Connection) -> int:
    milliseconds: int = native.execute("PRAGMA busy_timeout").fetchone()[0]
    return milliseconds


async def test_whoever_may_have_to_wait_after_a_block_has_the_busy_timeout(db: SQLiteDatabase) -> None:
    for _ in range(2):
        await write(db)
        assert await db.run_write(busy_timeout) == 20
        await write(db)
        async with db.writer.connection() as connection:
            assert await connection.execute_fetchall("PRAGMA busy_timeout") == [(20,)]


async def test_a_block_sees_the_busy_timeout_and_may_set_its_own(db: SQLiteDatabase) -> None:
    for _ in range(2):
        async with db.write() as connection:
            await insert(connection, "a")
            assert await connection.execute_fetchall("PRAGMA busy_timeout") == [(20,)]
            await connection.execute("PRAGMA busy_timeout = 7")
            assert await connection.execute_fetchall("PRAGMA busy_timeout") == [(7,)]
    assert await db.run_write(busy_timeout) == 20


async def test_a_block_that_was_cancelled_leaves_the_busy_timeout(db: SQLiteDatabase, database: Path) -> None:
    with pytest.raises(asyncio.CancelledError):
        async with db.write() as connection:
            await insert(connection, "never")
            raise asyncio.CancelledError
    assert await db.run_write(busy_timeout) == 20
    assert notes(database) == []


# -- Ctrl-C, and a connection that is not idle


async def test_ctrl_c_right_behind_begin_leaves_no_transaction(
    db: SQLiteDatabase, database: Path, recorder: Recorder
) -> None:
    def interrupted(native: sqlite3.Connection) -> None:
        native.execute("BEGIN IMMEDIATE")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with db.writer.connection() as connection:
            begin_at_once(connection, interrupted)
    assert [event.cause for event in recorder.of(RolledBackOnReturn)] == ["transaction"]
    await write(db)
    assert notes(database) == ["a"]


async def test_nothing_begins_in_the_loop_while_the_worker_has_something_to_do(db: SQLiteDatabase) -> None:
    def begin(native: sqlite3.Connection) -> None:
        raise AssertionError("in the loop")

    async with db.writer.connection() as connection:
        with Hold() as hold:
            running = asyncio.ensure_future(connection._execute(hold, None))  # type: ignore[no-untyped-call]
            await hold.reached.wait()
            assert not begin_at_once(connection, begin)
        await running
    assert not begin_at_once(connection, begin)
    assert not begin_at_once(object(), begin)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:aiosqlitepool does not know the internals:RuntimeWarning")
async def test_a_block_of_an_unknown_driver_begins_in_its_worker(
    db: SQLiteDatabase, database: Path, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiosqlitepool.driver.KNOWS_AIOSQLITE", False)
    async with SQLiteDatabase(database, on_connect=trace.on_connect) as other:
        stop_clocks(other, trace)
        await write(other)
    assert trace.taken() == [WORKER]
    assert notes(database) == ["a"]
