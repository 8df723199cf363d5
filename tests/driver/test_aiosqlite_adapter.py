from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import ConnectionBrokenError, PoolUsageError, SQLiteConnectionPool
from aiosqlitepool.driver import AiosqliteAdapter, adapter_for, limiter
from aiosqlitepool.events import ConnectionClosed, HealthCheckFailed, RolledBackOnReturn
from aiosqlitepool.pool import connection as connections
from aiosqlitepool.testing import Recorder

from ..support.clock import Clock
from ..support.files import make_database, notes
from ..support.limiter import limit_here
from ..support.stub import settle
from ..support.worker import (
    ENDLESS,
    Gate,
    adapter_of,
    began,
    busy_worker,
    end_worker,
    jobs,
    native_of,
    until_workers_are,
    workers,
)

Pool = SQLiteConnectionPool[aiosqlite.Connection]

# For waits that must end; only a hang reaches it.
PATIENCE = 60


def pool_on(database: Path, size: int = 1, **settings: Any) -> Pool:
    """A pool on a real file, whose clock stands still unless the test has its own."""
    settings.setdefault("clock", Clock())
    settings.setdefault("idle_timeout", None)
    return SQLiteConnectionPool(lambda: aiosqlite.connect(database), size, **settings)


async def insert(connection: aiosqlite.Connection, text: str) -> None:
    await connection.execute("INSERT INTO note (text) VALUES (?)", (text,))


async def texts(connection: aiosqlite.Connection) -> list[str]:
    return [row[0] for row in await connection.execute_fetchall("SELECT text FROM note ORDER BY id")]


async def test_an_aiosqlite_connection_gets_the_aiosqlite_adapter() -> None:
    async with aiosqlite.connect(":memory:") as connection:
        assert isinstance(adapter_for(connection), AiosqliteAdapter)


async def test_connections_outside_the_pool_stay_as_they_are(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection(), aiosqlite.connect(database) as other:
        assert type(other) is aiosqlite.Connection
        assert await texts(other) == []


# -- trips to the worker


async def test_acquiring_and_releasing_an_idle_connection_makes_no_trip_to_the_worker(database: Path) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            pass
        before = jobs(connection)
        for _ in range(10):
            async with pool.connection():
                pass
        assert jobs(connection) == before


@pytest.mark.parametrize(("read_ahead", "trips"), [(64, 1), (0, 2)])
async def test_a_query_makes_one_trip_or_as_many_as_without_a_pool_and_its_clean_return_makes_none(
    database: Path, read_ahead: int, trips: int
) -> None:
    path = make_database(database.with_name("other.db"), "a", "b")
    async with pool_on(path, read_ahead=read_ahead) as pool:
        async with pool.connection() as connection:
            before = jobs(connection)
            cursor = await connection.execute("SELECT text FROM note WHERE id = 1")
            assert await cursor.fetchone() == ("a",)
        assert jobs(connection) - before == trips


@pytest.mark.parametrize("statement", ["SELECT 1", "CREATE TABLE other (id)", "PRAGMA user_version"])
async def test_a_statement_read_to_its_end_leaves_nothing_to_undo(database: Path, statement: str) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            await connection.execute_fetchall(statement)
            before = jobs(connection)
        assert jobs(connection) == before


async def test_a_committed_transaction_leaves_nothing_to_undo(database: Path, recorder: Recorder) -> None:
    async with pool_on(database, subscribers=[recorder]) as pool:
        async with pool.connection() as connection:
            await insert(connection, "kept")
            await connection.commit()
            before = jobs(connection)
        assert jobs(connection) == before
    assert recorder.of(RolledBackOnReturn) == []
    assert notes(database) == ["kept"]


async def test_a_dirty_return_makes_one_trip(database: Path) -> None:
    async with pool_on(make_database(database.with_name("other.db"), "a", "b")) as pool:
        async with pool.connection() as connection:
            first = await connection.execute("SELECT text FROM note")
            second = await connection.execute("SELECT text FROM note")
            await first.fetchone()
            await second.fetchone()
            await insert(connection, "never committed")
            before = jobs(connection)
        assert jobs(connection) - before == 1


# -- what a lease leaves behind


async def test_a_committed_executemany_leaves_no_cursor_open(database: Path, recorder: Recorder) -> None:
    """Its statement stays with its cursor, which looked half-read: each release was counted as a rollback."""
    async with pool_on(database, subscribers=[recorder]) as pool:
        async with pool.connection() as connection:
            await connection.executemany("INSERT INTO note (text) VALUES (?)", [("a",), ("b",)])
            await connection.commit()
    assert recorder.of(RolledBackOnReturn) == []


async def test_an_uncommitted_write_is_gone_after_the_return(database: Path, recorder: Recorder) -> None:
    async with pool_on(database, subscribers=[recorder]) as pool:
        async with pool.connection() as connection:
            await insert(connection, "never committed")
        async with pool.connection() as again:
            assert native_of(again) is native_of(connection)
            assert not again.in_transaction
            assert await texts(again) == []
    assert [event.cause for event in recorder.of(RolledBackOnReturn)] == ["transaction"]
    assert notes(database) == []


def connect_in_autocommit_mode(path: Path) -> aiosqlite.Connection:
    """As Python 3.12 does with `autocommit=True`, where commit() and rollback() do nothing; emulated before."""
    if sys.version_info >= (3, 12):
        return aiosqlite.connect(path, autocommit=True)

    class Autocommit(sqlite3.Connection):
        autocommit = True

        def rollback(self) -> None:
            pass

    return aiosqlite.connect(path, isolation_level=None, factory=Autocommit)


async def test_a_transaction_is_undone_in_autocommit_mode_as_well(database: Path, recorder: Recorder) -> None:
    async with SQLiteConnectionPool(
        lambda: connect_in_autocommit_mode(database), 1, subscribers=[recorder], idle_timeout=None
    ) as pool:
        async with pool.connection() as connection:
            await connection.execute("BEGIN IMMEDIATE")
            await insert(connection, "never committed")
        async with pool.connection() as again:
            assert native_of(again) is native_of(connection)
            assert not again.in_transaction
            await again.execute("BEGIN")
            await again.execute("COMMIT")
    assert [event.cause for event in recorder.of(RolledBackOnReturn)] == ["transaction"]
    assert notes(database) == []


async def test_a_transaction_that_the_factory_left_open_in_autocommit_mode_is_undone(database: Path) -> None:
    async def factory() -> aiosqlite.Connection:
        connection = await connect_in_autocommit_mode(database)
        await connection.execute("BEGIN IMMEDIATE")
        return connection

    async with SQLiteConnectionPool(factory) as pool, pool.connection() as connection:
        assert not connection.in_transaction


async def test_a_connection_whose_transaction_outlives_its_rollback_is_closed(
    database: Path, recorder: Recorder
) -> None:
    class NeverRollsBack(sqlite3.Connection):
        def rollback(self) -> None:
            pass

    async with SQLiteConnectionPool(
        lambda: aiosqlite.connect(database, factory=NeverRollsBack), 1, subscribers=[recorder]
    ) as pool:
        async with pool.connection() as connection:
            await insert(connection, "never committed")
        async with pool.connection() as again:
            assert native_of(again) is not native_of(connection)
    assert recorder.of(RolledBackOnReturn) == []
    assert {event.connection: event.reason for event in recorder.of(ConnectionClosed)}[1] == "reset_failed"
    assert notes(database) == []


async def test_an_uncommitted_write_is_gone_after_an_error_in_the_block(database: Path) -> None:
    async with pool_on(database) as pool:

        async def fail() -> None:
            async with pool.connection() as connection:
                await insert(connection, "never committed")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        async with pool.connection() as connection:
            assert await texts(connection) == []


async def test_an_explicit_transaction_is_undone_and_frees_the_write_lock(database: Path) -> None:
    async with pool_on(database, 2) as pool, pool.connection() as other:
        async with pool.connection() as connection:
            await connection.execute("BEGIN IMMEDIATE")
        await other.execute("PRAGMA busy_timeout = 0")
        await other.execute("BEGIN IMMEDIATE")


async def test_a_half_read_cursor_is_closed_and_pins_no_snapshot_for_the_next_holder(
    database: Path, recorder: Recorder
) -> None:
    path = make_database(database.with_name("other.db"), "a", "b", "c")
    async with pool_on(path, subscribers=[recorder], read_ahead=1) as pool:
        async with pool.connection() as connection:
            cursor = await connection.execute("SELECT text FROM note")
            assert await cursor.fetchone() == ("a",)
        async with aiosqlite.connect(path) as outsider:
            await insert(outsider, "d")
            await outsider.commit()
        async with pool.connection() as again:
            assert native_of(again) is native_of(connection)
            assert await texts(again) == ["a", "b", "c", "d"]
            await insert(again, "e")  # BUSY_SNAPSHOT if the old snapshot were still pinned
            await again.commit()
    assert [event.cause for event in recorder.of(RolledBackOnReturn)] == ["cursor"]


async def test_of_many_half_read_cursors_every_one_is_closed(database: Path) -> None:
    path = make_database(database.with_name("other.db"), "a", "b")
    async with pool_on(path, read_ahead=1) as pool:
        async with pool.connection() as connection:
            cursors = [await connection.execute("SELECT text FROM note") for _ in range(300)]
            for cursor in cursors:
                await cursor.fetchone()
        for cursor in cursors:
            with pytest.raises(sqlite3.ProgrammingError, match="closed"):
                cursor._cursor.fetchone()


async def test_a_half_read_cursor_is_found_behind_many_that_are_gone(database: Path, recorder: Recorder) -> None:
    path = make_database(database.with_name("other.db"), "a", "b")
    async with pool_on(path, subscribers=[recorder], read_ahead=1) as pool:
        async with pool.connection() as connection:
            half_read = await connection.execute("SELECT text FROM note")
            await half_read.fetchone()
            for _ in range(600):
                await connection.execute_fetchall("SELECT 1")
                await (await connection.execute("SELECT 1")).fetchone()
            assert await half_read.fetchone() == ("b",)
            again = await connection.execute("SELECT text FROM note")
            await again.fetchone()
        assert [event.cause for event in recorder.of(RolledBackOnReturn)] == ["cursor"]


async def test_a_half_read_cursor_of_the_users_own_class_is_closed_as_well(database: Path) -> None:
    class OwnCursor(sqlite3.Cursor):
        pass

    class OwnConnection(sqlite3.Connection):
        def cursor(self, factory: Any = OwnCursor) -> Any:
            return super().cursor(factory)

    path = make_database(database.with_name("other.db"), "a", "b")
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(path, factory=OwnConnection), 1) as pool:
        async with pool.connection() as connection:
            cursor = await connection.cursor()
            assert isinstance(cursor._cursor, OwnCursor)
            await cursor.execute("SELECT text FROM note")
            await cursor.fetchone()
        async with aiosqlite.connect(path) as outsider:
            await insert(outsider, "c")
            await outsider.commit()
        async with pool.connection() as again:
            assert native_of(again) is native_of(connection)
            assert await texts(again) == ["a", "b", "c"]


async def test_a_cursor_that_was_collected_needs_no_reset(database: Path) -> None:
    path = make_database(database.with_name("other.db"), "a", "b")
    async with pool_on(path, read_ahead=0) as pool:
        async with pool.connection() as connection:
            await (await connection.execute("SELECT text FROM note")).fetchone()
            await (await connection.execute("SELECT 1")).fetchall()
            gc.collect()
            before = jobs(connection)
        assert jobs(connection) == before


async def test_what_the_factory_left_open_is_undone_before_the_first_lease(database: Path) -> None:
    async def factory() -> aiosqlite.Connection:
        connection = await aiosqlite.connect(database)
        await insert(connection, "never committed")
        return connection

    async with SQLiteConnectionPool(factory) as pool, pool.connection() as connection:
        assert not connection.in_transaction
        assert await texts(connection) == []


async def test_settings_made_by_the_factory_stay(database: Path) -> None:
    async def factory() -> aiosqlite.Connection:
        connection = await aiosqlite.connect(database, isolation_level=None)
        connection.row_factory = aiosqlite.Row
        await connection.execute("PRAGMA foreign_keys = ON")
        return connection

    async with SQLiteConnectionPool(factory, 1) as pool:
        for _ in range(2):
            async with pool.connection() as connection:
                (row,) = await connection.execute_fetchall("PRAGMA foreign_keys")
                assert row["foreign_keys"] == 1


async def test_a_blob_left_open_is_closed_and_pins_no_snapshot(database: Path, recorder: Recorder) -> None:
    path = make_database(database.with_name("other.db"), "a")
    async with pool_on(path, subscribers=[recorder]) as pool:
        async with pool.connection() as connection:
            blob = await connection._execute(connection._conn.blobopen, "note", "text", 1)  # type: ignore[no-untyped-call]
            before = jobs(connection)
        assert jobs(connection) - before == 1
        async with pool.connection() as connection:
            with pytest.raises(sqlite3.ProgrammingError, match="closed blob"):
                await connection._execute(blob.read)  # type: ignore[no-untyped-call]
    assert [event.cause for event in recorder.of(RolledBackOnReturn)] == ["cursor"]


# -- cancellation within the block


async def test_a_cancelled_statement_is_interrupted_and_the_block_goes_on(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        running = await began(connection)
        task = asyncio.create_task(connection.execute(ENDLESS))
        await asyncio.wait_for(running.wait(), PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.wait_for(texts(connection), PATIENCE) == []  # or it would wait for ever


async def test_a_cancelled_fetch_is_interrupted_and_the_block_goes_on(database: Path) -> None:
    async with pool_on(database, read_ahead=0) as pool, pool.connection() as connection:
        running = await began(connection)
        endless = (
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + began() FROM n) SELECT x FROM n WHERE x < 2 OR x < 0"
        )
        cursor = await connection.execute(endless)
        running.clear()
        task = asyncio.create_task(cursor.fetchall())
        await asyncio.wait_for(running.wait(), PATIENCE)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert await asyncio.wait_for(texts(connection), PATIENCE) == []


async def test_a_statement_cancelled_while_it_is_queued_is_skipped(database: Path) -> None:
    with Gate() as gate:
        async with pool_on(database) as pool, pool.connection() as connection:
            await gate.install(connection)
            running = asyncio.create_task(connection.execute_fetchall("SELECT gate()"))
            await asyncio.wait_for(gate.reached.wait(), PATIENCE)
            queued = asyncio.create_task(insert(connection, "cancelled"))
            await settle()
            queued.cancel()
            await settle()
            assert queued.cancelled()
            gate.open()
            assert list(await running) == [("through the gate",)]
            await connection.commit()
    assert notes(database) == []


async def test_a_statement_cancelled_in_a_transaction_loses_no_earlier_work_of_the_block(database: Path) -> None:
    with Gate() as gate:
        async with pool_on(database) as pool, pool.connection() as connection:
            await gate.install(connection)
            await insert(connection, "before")
            slow = asyncio.create_task(connection.execute("INSERT INTO note (text) VALUES (gate())"))
            await asyncio.wait_for(gate.reached.wait(), PATIENCE)
            slow.cancel()
            await asyncio.wait({slow})
            assert slow.cancelled()
            gate.open()
            await insert(connection, "after")
            assert connection.in_transaction
            await connection.commit()
    # Cancelling cannot undo a statement that runs; what matters is that nothing around it was lost.
    assert [text for text in notes(database) if text != "through the gate"] == ["before", "after"]


async def test_a_cancellation_does_not_hit_another_cursor_that_is_being_read(database: Path) -> None:
    path = make_database(database.with_name("other.db"), "a", "b", "c")
    with Gate() as gate:
        async with pool_on(path) as pool, pool.connection() as connection:
            await gate.install(connection)
            reading = await connection.execute("SELECT text FROM note ORDER BY id")
            assert await reading.fetchone() == ("a",)
            slow = asyncio.create_task(connection.execute_fetchall("SELECT gate()"))
            await asyncio.wait_for(gate.reached.wait(), PATIENCE)
            slow.cancel()
            await asyncio.wait({slow})
            gate.open()
            assert list(await reading.fetchall()) == [("b",), ("c",)]


async def test_a_cancellation_does_not_hit_a_statement_queued_behind(database: Path) -> None:
    with Gate() as gate:
        async with pool_on(database) as pool, pool.connection() as connection:
            await gate.install(connection)
            slow = asyncio.create_task(connection.execute_fetchall("SELECT gate()"))
            await asyncio.wait_for(gate.reached.wait(), PATIENCE)
            behind = asyncio.create_task(connection.execute_fetchall("SELECT 'behind'"))
            await settle()
            slow.cancel()
            await asyncio.wait({slow})
            gate.open()
            assert list(await behind) == [("behind",)]


async def test_a_cancelled_statement_whose_cursor_is_lost_does_not_pass_the_interrupt_on(database: Path) -> None:
    with Gate() as gate:
        async with pool_on(database) as pool, pool.connection() as connection:
            await gate.install(connection)
            slow = asyncio.create_task(connection.execute("SELECT gate() UNION ALL SELECT 'second'"))
            await asyncio.wait_for(gate.reached.wait(), PATIENCE)
            slow.cancel()
            await asyncio.wait({slow})
            gate.open()
            for _ in range(3):
                assert await texts(connection) == []


async def test_a_cancelled_fetch_does_not_pass_the_interrupt_on_to_the_next_statement(database: Path) -> None:
    with Gate() as gate:
        async with pool_on(database, read_ahead=0) as pool, pool.connection() as connection:
            await gate.install(connection)
            cursor = await connection.execute("SELECT 1 UNION ALL SELECT gate() UNION ALL SELECT 3 UNION ALL SELECT 4")
            slow = asyncio.create_task(cursor.fetchone())  # which steps ahead to the second row
            await asyncio.wait_for(gate.reached.wait(), PATIENCE)
            slow.cancel()
            await asyncio.wait({slow})
            assert slow.cancelled()
            gate.open()
            for _ in range(3):
                assert await texts(connection) == []


async def test_a_cursor_whose_statement_was_cancelled_can_run_another(database: Path) -> None:
    with Gate() as gate:
        async with pool_on(database) as pool, pool.connection() as connection:
            await gate.install(connection)
            cursor = await connection.cursor()
            slow = asyncio.create_task(cursor.execute("SELECT gate() UNION ALL SELECT 'second'"))
            await asyncio.wait_for(gate.reached.wait(), PATIENCE)
            slow.cancel()
            await asyncio.wait({slow})
            gate.open()
            await cursor.execute("SELECT 'another'")
            assert await cursor.fetchone() == ("another",)


# -- returns with something in flight


@pytest.mark.usefixtures("patient")
async def test_a_statement_in_flight_at_the_return_is_interrupted(database: Path, recorder: Recorder) -> None:
    async with pool_on(database, subscribers=[recorder]) as pool:
        async with pool.connection(label="GET /notes") as connection:
            running = await began(connection)
            task = asyncio.create_task(connection.execute(ENDLESS))
            await asyncio.wait_for(running.wait(), PATIENCE)
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            await task
        async with pool.connection() as again:
            assert await texts(again) == []
    assert [(event.cause, event.label) for event in recorder.of(RolledBackOnReturn)][:1] == [
        ("in_flight", "GET /notes")
    ]


async def test_a_task_cancelled_in_a_statement_returns_a_clean_connection(database: Path) -> None:
    events: list[asyncio.Event] = []

    async def work() -> None:
        async with pool.connection() as connection:
            events.append(await began(connection))
            await insert(connection, "never committed")
            await connection.execute(ENDLESS)

    async with pool_on(database, acquisition_timeout=PATIENCE) as pool:
        task = asyncio.create_task(work())
        while not events:
            await asyncio.sleep(0)
        await asyncio.wait_for(events[0].wait(), PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with pool.connection() as connection:
            assert await texts(connection) == []
            assert not connection.in_transaction


async def test_statements_queued_at_the_return_never_run(database: Path) -> None:
    with Gate() as gate:
        async with pool_on(database) as pool:
            async with pool.connection() as connection:
                await gate.install(connection)
                running = asyncio.create_task(connection.execute_fetchall("SELECT gate()"))
                await asyncio.wait_for(gate.reached.wait(), PATIENCE)
                queued = [asyncio.create_task(insert(connection, "too late")) for _ in range(3)]
                await settle()
                queued.append(asyncio.create_task(connection.commit()))
                await settle()
            gate.open()
            results = await asyncio.wait_for(asyncio.gather(running, *queued, return_exceptions=True), PATIENCE)
            assert {type(result) for result in results[1:]} <= {PoolUsageError, ValueError}
    assert notes(database) == []


@pytest.mark.usefixtures("patient")
async def test_a_statement_that_the_worker_has_not_begun_when_its_lease_ends_never_runs(
    database: Path, recorder: Recorder
) -> None:
    async with pool_on(database, subscribers=[recorder]) as pool:
        connection = await pool.acquire()
        with busy_worker(connection) as wake_up:
            late = asyncio.create_task(insert(connection, "too late"))
            await settle()
            release = asyncio.create_task(pool.release(connection))
            await settle()
            assert not release.done()  # there is nothing to interrupt, and nothing to wait for but the thread
            wake_up()
            await asyncio.wait_for(release, PATIENCE)
        with pytest.raises(PoolUsageError, match="before this operation began"):
            await late
        assert recorder.of(ConnectionClosed) == []
    assert notes(database) == []


async def test_a_statement_that_cannot_be_interrupted_costs_the_connection_and_not_the_place(
    database: Path, recorder: Recorder
) -> None:
    with Gate() as gate:
        async with pool_on(database, subscribers=[recorder]) as pool:
            async with pool.connection() as stuck:
                await gate.install(stuck)
                task = asyncio.create_task(stuck.execute_fetchall("SELECT gate()"))
                await asyncio.wait_for(gate.reached.wait(), PATIENCE)
            async with pool.connection() as connection:  # while the gate is shut
                assert native_of(connection) is not native_of(stuck)
                assert await texts(connection) == []
            gate.open()
            await asyncio.wait({task})
            task.exception()
    assert {event.connection: event.reason for event in recorder.of(ConnectionClosed)} == {
        1: "reset_failed",
        2: "pool_closed",
    }


async def test_a_reset_cut_short_by_closing_the_pool_is_no_cancellation_of_the_releasing_task(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With as many stuck connections as places, a reset waits; if the pool closes meanwhile, the release just ends."""
    monkeypatch.setattr(connections, "_LEAST_STUCK", 1)
    with Gate() as gate:
        pool = pool_on(database)
        first = await pool.acquire()
        await gate.install(first)
        stuck = [asyncio.create_task(first.execute_fetchall("SELECT gate()"))]
        await asyncio.wait_for(gate.reached.wait(), PATIENCE)
        await pool.release(first)
        second = await pool.acquire()
        await gate.install(second)
        gate.reached.clear()
        stuck.append(asyncio.create_task(second.execute_fetchall("SELECT gate()")))
        await asyncio.wait_for(gate.reached.wait(), PATIENCE)
        release = asyncio.create_task(pool.release(second))
        await settle()
        assert not release.done()
        await pool.close(timeout=0)
        await asyncio.wait({release}, timeout=PATIENCE)
        assert release.done()
        assert not release.cancelled()
        gate.open()
        await asyncio.wait(stuck)
        for task in stuck:
            task.exception()


# -- other event loops


@pytest.mark.parametrize("use", ["SELECT 1", "close"])
async def test_a_connection_used_in_another_event_loop_is_an_error_and_no_hang(database: Path, use: str) -> None:
    async def use_there() -> None:
        with pytest.raises(PoolUsageError, match="another event loop"):
            await asyncio.wait_for(connection.close() if use == "close" else connection.execute(use), PATIENCE)

    async with pool_on(database) as pool, pool.connection() as connection:
        await asyncio.to_thread(asyncio.run, use_there())
        assert await texts(connection) == []


# -- dead connections


async def test_a_dead_worker_is_noticed_at_the_acquire(database: Path, recorder: Recorder) -> None:
    async with pool_on(database, subscribers=[recorder]) as pool:
        async with pool.connection() as dead:
            pass
        end_worker(dead)
        async with pool.connection() as connection:
            assert native_of(connection) is not native_of(dead)
            assert await asyncio.wait_for(texts(connection), PATIENCE) == []
        (event,) = recorder.of(HealthCheckFailed)
        assert event.connection == 1
        assert "worker thread is dead" in event.error.message
    assert {event.connection: event.reason for event in recorder.of(ConnectionClosed)} == {
        1: "unhealthy",
        2: "pool_closed",
    }


async def test_a_dead_worker_with_an_open_transaction_is_noticed_at_the_return(
    database: Path, recorder: Recorder
) -> None:
    async with pool_on(database, subscribers=[recorder]) as pool:
        async with pool.connection() as connection:
            await insert(connection, "never committed")
            end_worker(connection)
        async with pool.connection() as again:
            assert native_of(again) is not native_of(connection)
    assert {event.connection: event.reason for event in recorder.of(ConnectionClosed)}[1] == "broken"


async def test_the_holder_of_a_dead_connection_gets_an_error_and_does_not_wait_for_ever(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as dead:
        end_worker(dead)
        with pytest.raises(ValueError, match="no active connection"):
            await dead.execute("SELECT 1")


async def test_a_waiter_is_not_lent_a_dead_connection(database: Path) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as dead:
            waiter = asyncio.create_task(pool.acquire())
            await settle()
            end_worker(dead)
        connection = await asyncio.wait_for(waiter, PATIENCE)
        assert native_of(connection) is not native_of(dead)
        await pool.release(connection)


async def test_a_connection_closed_by_its_holder_is_replaced(database: Path, recorder: Recorder) -> None:
    async with pool_on(database, subscribers=[recorder]) as pool:
        async with pool.connection() as connection:
            await connection.close()
            with pytest.raises(ValueError, match=r"[Cc]losed|no active connection"):
                await connection.execute("SELECT 1")
        async with pool.connection() as again:
            assert native_of(again) is not native_of(connection)
            assert await texts(again) == []
    assert {event.connection: event.reason for event in recorder.of(ConnectionClosed)} == {
        1: "broken",
        2: "pool_closed",
    }


async def test_a_connection_whose_native_one_was_closed_in_its_worker_is_replaced(
    database: Path, recorder: Recorder
) -> None:
    async with pool_on(database, subscribers=[recorder]) as pool:
        async with pool.connection() as connection:
            await connection._execute(native_of(connection).close)  # type: ignore[no-untyped-call]
            with pytest.raises(ValueError, match=r"[Cc]losed|no active connection"):
                await connection.execute("SELECT 1")
        async with pool.connection() as again:
            assert await texts(again) == []
        await until_workers_are(1)
    assert {event.connection: event.reason for event in recorder.of(ConnectionClosed)}[1] == "broken"


async def test_closing_a_connection_twice_is_as_harmless_as_without_a_pool(database: Path) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            await connection.close()
            await connection.close()
        async with pool.connection() as again:
            assert native_of(again) is not native_of(connection)


async def test_a_cursor_of_a_connection_closed_by_its_holder_says_so(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        cursor = await connection.execute("SELECT text FROM note")
        await connection.close()
        with pytest.raises(ValueError, match=r"[Cc]losed"):
            await cursor.fetchone()


async def test_a_connection_closed_in_the_midst_of_a_transaction_is_replaced(database: Path) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            await insert(connection, "never committed")
            await connection.close()
        async with pool.connection() as again:
            assert native_of(again) is not native_of(connection)
            assert await texts(again) == []


async def test_a_connection_stopped_by_its_holder_is_replaced(database: Path) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            stopped = connection.stop()
            assert stopped is not None
            await stopped
        async with pool.connection() as again:
            assert native_of(again) is not native_of(connection)


async def test_a_check_asks_the_worker(database: Path, clock: Clock) -> None:
    async with pool_on(database, clock=clock) as pool:
        async with pool.connection() as connection:
            pass
        before = jobs(connection)
        clock.advance(2)
        async with pool.connection() as again:
            assert native_of(again) is native_of(connection)
        assert jobs(connection) - before == 1


async def test_the_file_is_watched_whatever_the_text_factory(database: Path, clock: Clock) -> None:
    async def factory() -> aiosqlite.Connection:
        connection = await aiosqlite.connect(database)
        connection.text_factory = bytes
        return connection

    async with SQLiteConnectionPool(factory, 1, idle_timeout=None, clock=clock) as pool:
        async with pool.connection() as connection:
            pass
        make_database(database.with_name("other.db")).replace(database)
        clock.advance(2)
        async with pool.connection() as again:
            assert native_of(again) is not native_of(connection)


async def test_a_connection_that_is_not_open_cannot_be_pooled(database: Path) -> None:
    async def forgets_to_await() -> aiosqlite.Connection:
        return aiosqlite.connect(database)

    async with SQLiteConnectionPool(forgets_to_await) as pool:
        with pytest.raises(ConnectionBrokenError, match="not open"):
            await pool.acquire()


async def test_a_connection_that_cannot_be_taken_over_is_closed_and_leaves_no_thread(database: Path) -> None:
    class NeverRollsBack(sqlite3.Connection):
        def rollback(self) -> None:
            pass

    async def leaves_a_transaction_open() -> aiosqlite.Connection:
        connection = await aiosqlite.connect(database, factory=NeverRollsBack)
        await insert(connection, "never committed")
        return connection

    before = workers()
    async with SQLiteConnectionPool(leaves_a_transaction_open) as pool:
        with pytest.raises(sqlite3.OperationalError, match="still open after it was rolled back"):
            await pool.acquire()
        await until_workers_are(before)
    assert notes(database) == []


async def test_a_connection_whose_taking_over_is_cancelled_is_closed_and_leaves_no_thread(database: Path) -> None:
    before, reached, go_on = workers(), threading.Event(), threading.Event()

    class SlowToRollBack(sqlite3.Connection):
        @property
        def in_transaction(self) -> bool:
            reached.set()
            assert go_on.wait(PATIENCE)
            return super().in_transaction

    connection = await aiosqlite.connect(database, factory=SlowToRollBack)
    adapter = adapter_for(connection)
    attaching = asyncio.create_task(adapter.attach())
    await asyncio.to_thread(reached.wait, PATIENCE)
    attaching.cancel()
    await asyncio.wait({attaching})
    closing = asyncio.create_task(adapter.close())
    go_on.set()
    await asyncio.wait_for(closing, PATIENCE)
    await until_workers_are(before)


async def test_a_connection_that_was_closed_already_cannot_be_pooled(database: Path) -> None:
    async def closes_it() -> aiosqlite.Connection:
        async with aiosqlite.connect(database) as connection:
            return connection

    async with SQLiteConnectionPool(closes_it) as pool:
        with pytest.raises(ConnectionBrokenError, match="not open"):
            await pool.acquire()


async def test_a_file_that_is_no_database_is_noticed_by_the_first_statement_and_leaves_no_thread(
    tmp_path: Path,
) -> None:
    # Not when it is opened: that reads nothing, because another process may have locked the file.
    path = tmp_path / "app.db"
    path.write_bytes(b"this is no database at all, it only has its length" * 100)
    before = workers()
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(path)) as pool:
        async with pool.connection() as connection:
            with pytest.raises(sqlite3.DatabaseError, match="not a database"):
                await connection.execute("SELECT * FROM sqlite_schema")
    await until_workers_are(before)


async def test_a_path_that_cannot_be_opened_is_the_drivers_own_error_and_leaves_no_thread(tmp_path: Path) -> None:
    before = workers()
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(tmp_path / "missing" / "app.db")) as pool:
        with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
            await pool.acquire()
    await until_workers_are(before)


# -- everything else goes through as it is


async def test_errors_of_statements_pass_through_as_they_are(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await connection.execute("SELECT * FROM missing")
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            await connection.execute("INSERT INTO note (id) VALUES (1), (1)")


async def test_an_error_passes_through_although_a_variable_on_its_way_cannot_be_asked_for_its_class(
    database: Path,
) -> None:
    class Proxy:
        @property  # type: ignore[misc]
        def __class__(self) -> type:  # as a lazy proxy of a web framework does outside of a request
            raise RuntimeError("there is no request")

    def row_factory(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> Any:
        user = Proxy()
        raise KeyError("no such column", id(user))

    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            connection.row_factory = row_factory  # type: ignore[assignment]
            with pytest.raises(KeyError, match="no such column"):
                await asyncio.wait_for(connection.execute_fetchall("SELECT 1"), PATIENCE)
            connection.row_factory = None
        assert pool.stats().idle == 1


async def test_an_unexpected_error_of_the_users_code_reaches_its_caller_and_the_next_one_can_work(
    database: Path,
) -> None:
    class Treacherous(sqlite3.Connection):
        asked = 0

        @property
        def in_transaction(self) -> bool:
            self.asked += 1
            if self.asked == 4:  # the first three are the pool's own, as it gets to know the connection
                raise ZeroDivisionError
            return super().in_transaction

    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database, factory=Treacherous), 1) as pool:
        async with pool.connection() as connection:
            statements = (connection.execute_fetchall("SELECT 1") for _ in range(4))
            results = [await asyncio.gather(each, return_exceptions=True) for each in statements]
            assert any(isinstance(result, ZeroDivisionError) for (result,) in results)
        async with pool.connection() as again:
            assert native_of(again) is native_of(connection)
            assert await texts(again) == []


async def test_the_rest_of_aiosqlite_works_in_a_lease(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        await connection.executemany("INSERT INTO note (text) VALUES (?)", [("a",), ("b",)])
        await connection.commit()
        await connection.executescript("CREATE TABLE other (id); INSERT INTO other VALUES (1)")
        async with connection.execute("SELECT text FROM note ORDER BY id") as cursor:
            assert [row async for row in cursor] == [("a",), ("b",)]
        async with connection.cursor() as cursor:
            await cursor.execute("SELECT count(*) FROM other")
            assert await cursor.fetchone() == (1,)
        assert await connection.execute_insert("INSERT INTO note (text) VALUES ('c')") == (3,)
        await connection.commit()
        assert any("CREATE TABLE note" in line for line in [line async for line in connection.iterdump()])
        async with aiosqlite.connect(":memory:") as copy:
            await connection.backup(copy)
            assert await texts(copy) == ["a", "b", "c"]


async def test_a_cursor_is_usable_after_a_newer_one_was_made(database: Path) -> None:
    path = make_database(database.with_name("other.db"), "a", "b")
    async with pool_on(path) as pool, pool.connection() as connection:
        first, second = await connection.cursor(), await connection.cursor()
        await first.execute("SELECT text FROM note ORDER BY id")
        await second.execute("SELECT 1")
        assert list(await first.fetchall()) == [("a",), ("b",)]
        assert await second.fetchone() == (1,)


# -- the end


async def test_closing_the_pool_ends_every_worker_thread(database: Path) -> None:
    before = workers()
    async with pool_on(database, 3) as pool, pool.connection(), pool.connection(), pool.connection():
        assert workers() == before + 3
    assert workers() == before


async def test_a_connection_that_fails_to_close_ends_its_thread_all_the_same(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class FailsToClose(sqlite3.Connection):
        def close(self) -> None:
            super().close()
            raise sqlite3.OperationalError("cannot close")

    before = workers()
    pool = SQLiteConnectionPool(lambda: aiosqlite.connect(database, factory=FailsToClose))
    async with pool, pool.connection():
        pass
    assert "cannot close" in caplog.text
    await until_workers_are(before)


async def test_closing_interrupts_what_still_runs(database: Path) -> None:
    pool = pool_on(database)
    connection = await pool.acquire()
    running = await began(connection)
    task = asyncio.create_task(connection.execute(ENDLESS))
    await asyncio.wait_for(running.wait(), PATIENCE)
    with pytest.warns(ResourceWarning, match="under their holders"):
        await asyncio.wait_for(pool.close(timeout=0), PATIENCE)
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        await asyncio.wait_for(task, PATIENCE)
    with pytest.raises(PoolUsageError, match="went back to the pool"):
        await connection.execute("SELECT 1")


async def test_closing_interrupts_nothing_while_nothing_runs_or_the_wal_would_be_left_behind(database: Path) -> None:
    """An interrupt that meets no statement stays set, and SQLite does not fold the WAL into the database then."""
    interrupts: list[sqlite3.Connection] = []

    class Watched(sqlite3.Connection):
        def interrupt(self) -> None:
            interrupts.append(self)
            super().interrupt()

    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database, factory=Watched), 1) as pool:
        async with pool.connection() as connection:
            await insert(connection, "kept")
            await connection.commit()
            with busy_worker(connection) as go_on:  # and with no statement
                queued = asyncio.create_task(insert(connection, "never begun"))
                await settle()
                closing = asyncio.create_task(adapter_of(connection).close())
                await settle()
                go_on()
                await asyncio.wait_for(closing, PATIENCE)
            with pytest.raises(PoolUsageError, match="before this operation began"):
                await queued
            assert interrupts == []
            assert not database.with_name(f"{database.name}-wal").exists()
    assert notes(database) == ["kept"]


def program(text: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", textwrap.dedent(text), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


FACTORIES = {
    "lambda": "factory = lambda: aiosqlite.connect(sys.argv[1])",
    "async def": "async def factory(): return await aiosqlite.connect(sys.argv[1])",
}


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
@pytest.mark.parametrize("state", ["idle", "held"])
def test_a_program_that_forgets_to_close_its_pool_still_ends_and_says_so(
    database: Path, factory: str, state: str
) -> None:
    text = f"""
import asyncio, sys
import aiosqlite
from aiosqlitepool import SQLiteConnectionPool
{factory}
pool = SQLiteConnectionPool(factory, name="app.db")
async def main():
    connection = await pool.acquire(label="forgotten")
    await connection.execute("SELECT 1")
    if {state == "idle"}:
        await pool.release(connection)
asyncio.run(main())
print("done")
"""
    done = program(text, database)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert "ResourceWarning: <SQLiteConnectionPool 'app.db' open: " in done.stderr
    assert "was never closed" in done.stderr
    assert ("[forgotten]" in done.stderr) is (state == "held")
    assert "Traceback" not in done.stderr


def test_a_program_that_ends_with_a_statement_in_flight_still_ends(database: Path) -> None:
    text = f"""
import asyncio, sys
import aiosqlite
from aiosqlitepool import SQLiteConnectionPool
pool = SQLiteConnectionPool(lambda: aiosqlite.connect(sys.argv[1]), name="app.db")
async def main():
    connection = await pool.acquire()
    running = asyncio.Event()
    loop = asyncio.get_running_loop()
    await connection.create_function("began", 0, lambda: loop.call_soon_threadsafe(running.set) and 1 or 1)
    task = asyncio.ensure_future(connection.execute("{ENDLESS}"))
    await running.wait()
asyncio.run(main())
print("done")
"""
    done = program(text, database)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_a_pool_whose_loop_ended_can_be_closed_and_leaves_no_thread(database: Path) -> None:
    before = workers()
    pool = pool_on(database, 2)
    connection = asyncio.run(pool.acquire())
    thread = adapter_of(connection)._thread
    asyncio.run(pool.close())
    thread.join(PATIENCE)
    assert workers() == before


async def test_a_connect_that_hangs_in_its_thread_keeps_its_place_for_a_moment_only(database: Path) -> None:
    connecting, go_on, late = threading.Event(), threading.Event(), list[sqlite3.Connection]()

    def hanging() -> sqlite3.Connection:
        connecting.set()
        go_on.wait(PATIENCE)
        late.append(sqlite3.connect(database, check_same_thread=False))
        return late[0]

    made = iter([aiosqlite.Connection(hanging, 64), aiosqlite.connect(database)])
    pool = SQLiteConnectionPool(lambda: next(made), 1, acquisition_timeout=None, operation_timeout=0.01)
    try:
        caller = asyncio.create_task(pool.acquire())
        await asyncio.to_thread(connecting.wait, PATIENCE)
        caller.cancel()
        connection = await asyncio.wait_for(pool.acquire(), PATIENCE)
        assert not go_on.is_set(), "the first one's thread hangs still"
        assert await texts(connection) == []
        await pool.release(connection)
    finally:
        go_on.set()
        await pool.close()
    await until_workers_are(0)
    late[0].close()  # aiosqlite drops the connection of a connect that was cancelled


# -- statements that the limiter delays


@contextlib.asynccontextmanager
async def a_delayed_connection(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Pool, aiosqlite.Connection, Gate]]:
    """Two other connections of its pool wait in a gate. Until the gate opens, no statement of this one starts."""
    monkeypatch.setattr(limiter, "COUNTED_FOR", 3600.0)
    limit_here()
    with Gate() as gate:
        async with pool_on(database, 4) as pool, pool.connection() as connection:
            async with pool.connection() as first, pool.connection() as second:
                for each in (first, second):
                    await gate.install(each)
                busy = [asyncio.create_task(each.execute_fetchall("SELECT gate()")) for each in (first, second)]
                await asyncio.wait_for(gate.reached.wait(), PATIENCE)
                yield pool, connection, gate
                gate.open()
                await asyncio.wait_for(asyncio.gather(*busy), PATIENCE)


async def test_delayed_statements_run_in_their_order_in_the_end(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_delayed_connection(database, monkeypatch) as (_, connection, gate):
        trips = jobs(connection)
        running = [asyncio.create_task(insert(connection, text)) for text in ("first", "second", "third")]
        await settle()
        assert jobs(connection) == trips
        gate.open()
        await asyncio.wait_for(asyncio.gather(*running), PATIENCE)
        assert await texts(connection) == ["first", "second", "third"]


async def test_a_statement_cancelled_while_it_is_delayed_never_runs(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_delayed_connection(database, monkeypatch) as (_, connection, gate):
        cancelled = asyncio.create_task(insert(connection, "cancelled"))
        await settle()
        cancelled.cancel()
        await settle()
        assert cancelled.cancelled()
        gate.open()
        assert await asyncio.wait_for(texts(connection), PATIENCE) == []


async def test_a_statement_cancelled_while_it_is_delayed_leaves_nothing_to_clean_up(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_delayed_connection(database, monkeypatch) as (pool, _, _gate):
        async with pool.connection() as connection:
            trips = jobs(connection)
            cancelled = asyncio.create_task(insert(connection, "cancelled"))
            await settle()
            cancelled.cancel()
            await settle()
        assert jobs(connection) == trips


@pytest.mark.usefixtures("patient")
async def test_a_connection_released_with_a_delayed_statement_is_lent_clean(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_delayed_connection(database, monkeypatch) as (pool, _, gate):
        lease = pool.connection()
        fourth = await lease.__aenter__()
        late = asyncio.create_task(insert(fourth, "too late"))
        await settle()
        await asyncio.wait_for(lease.__aexit__(None, None, None), PATIENCE)
        with pytest.raises(PoolUsageError):
            await late
        gate.open()
        async with pool.connection() as again:
            assert native_of(again) is native_of(fourth)
            assert await asyncio.wait_for(texts(again), PATIENCE) == []


@pytest.mark.parametrize("how", ["stop", "close"])
async def test_a_delayed_statement_runs_before_its_holder_closes_the_connection(
    database: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async with a_delayed_connection(database, monkeypatch) as (_, connection, _gate):
        delayed = asyncio.create_task(connection.execute_fetchall("SELECT 'in time'"))
        await settle()
        await asyncio.wait_for(getattr(connection, how)(), PATIENCE)
        assert list(await asyncio.wait_for(delayed, PATIENCE)) == [("in time",)]


async def test_the_caller_of_a_delayed_statement_gets_an_error_when_the_connection_is_abandoned(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_delayed_connection(database, monkeypatch) as (_, connection, _gate):
        waiting = asyncio.create_task(insert(connection, "too late"))
        await settle()
        adapter_of(connection).abandon()
        await asyncio.wait({waiting}, timeout=PATIENCE)
        assert isinstance(waiting.exception(), ConnectionBrokenError)


async def test_the_caller_of_a_delayed_statement_gets_an_error_when_it_is_interrupted(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_delayed_connection(database, monkeypatch) as (_, connection, gate):
        waiting = asyncio.create_task(insert(connection, "too late"))
        await settle()
        await connection.interrupt()
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            await asyncio.wait_for(waiting, PATIENCE)
        gate.open()
        assert await asyncio.wait_for(texts(connection), PATIENCE) == []


async def test_the_caller_of_a_delayed_statement_gets_an_error_when_another_thread_ends_the_connection(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_delayed_connection(database, monkeypatch) as (_, connection, _gate):
        waiting = asyncio.create_task(insert(connection, "too late"))
        await settle()
        collector = threading.Thread(target=adapter_of(connection).abandon)
        collector.start()
        collector.join(PATIENCE)
        await asyncio.wait({waiting}, timeout=PATIENCE)
        assert isinstance(waiting.exception(), ConnectionBrokenError)


async def test_a_cancelled_caller_of_a_delayed_statement_gets_no_error_when_the_connection_ends(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_delayed_connection(database, monkeypatch) as (_, connection, _gate):
        waiting = asyncio.create_task(insert(connection, "too late"))
        await settle()
        waiting.cancel()
        connection.stop()
        await settle()
        assert waiting.cancelled()


async def test_an_operation_without_its_arguments_fails_alone(database: Path) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1) as pool, pool.connection() as connection:
        with pytest.raises(TypeError):
            await connection._execute(connection._conn.execute)  # type: ignore[no-untyped-call]
        with pytest.raises(TypeError):
            await connection.execute(7)  # type: ignore[arg-type]
        assert pool.statements() == ()
        assert await connection.execute_fetchall("SELECT 1") == [(1,)]
