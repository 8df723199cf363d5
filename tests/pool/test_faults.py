"""Faults below the pool: whoever asked gets a clear error, the event says why, and afterwards the pool works again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolConnectionAcquireTimeoutError, PoolError, SQLiteConnectionPool
from aiosqlitepool.events import (
    ConnectionClosed,
    ConnectionCreated,
    ConnectionCreateFailed,
    HealthCheckFailed,
    RolledBackOnReturn,
)
from aiosqlitepool.testing import Recorder

from ..support.children import child
from ..support.files import make_database, notes
from ..support.slots import check_slots
from ..support.stub import StubDriver, fails, hangs, settle
from ..support.timeless import timeless
from ..support.worker import end_worker

Factory = Callable[[], Awaitable[Any]]

# Long enough for a slow machine; nothing waits for it to pass.
PATIENCE = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_database(tmp_path / "app.db", "first")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), f"{thread!r} is left"


@contextlib.asynccontextmanager
async def pool_of(factory: Factory, recorder: Recorder, **settings: Any) -> AsyncIterator[SQLiteConnectionPool[Any]]:
    settings = {"pool_size": 1, "name": "app.db", "subscribers": [recorder], **settings}
    threads = set(threading.enumerate())
    pool: SQLiteConnectionPool[Any] = SQLiteConnectionPool(factory, **settings)
    try:
        yield pool
    finally:
        async with asyncio.timeout(PATIENCE):
            await pool.close()
            # The thread of an aiosqlite connection that could not connect says goodbye to its loop: let it be there.
            while any(thread.is_alive() for thread in set(threading.enumerate()) - threads):
                await asyncio.sleep(0.001)
        assert pool.stats().size == 0


async def works(pool: SQLiteConnectionPool[Any]) -> None:
    """Every place of the pool can be lent at once, and every connection answers."""
    async with asyncio.timeout(PATIENCE), contextlib.AsyncExitStack() as stack:
        size = pool.stats().max_size
        lent = [await stack.enter_async_context(pool.connection()) for _ in range(size)]
        assert len(set(map(id, lent))) == size
        for connection in lent:
            await connection.execute("SELECT 1")
    check_slots(pool._inventory.slots)


async def gone(recorder: Recorder) -> ConnectionClosed:
    """The one connection that has left the pool."""
    async with asyncio.timeout(PATIENCE):
        while not recorder.of(ConnectionClosed):
            await asyncio.sleep(0.001)
    (event,) = recorder.of(ConnectionClosed)
    return event


class Protocol:
    """Real SQLite behind the bare protocol, as an unknown driver would be; a test may break each of its methods."""

    def __init__(self, raw: aiosqlite.Connection) -> None:
        self.raw = raw
        self.on_rollback: Callable[[], Awaitable[None]] | None = None
        self.on_close: Callable[[], Awaitable[None]] | None = None

    async def execute(self, sql: str) -> list[Any]:
        return list(await self.raw.execute_fetchall(sql))

    async def rollback(self) -> None:
        if self.on_rollback is not None:
            await self.on_rollback()
        await self.raw.rollback()

    async def close(self) -> None:
        await self.raw.close()
        if self.on_close is not None:
            await self.on_close()


def protocol(path: Path) -> Callable[[], Awaitable[Protocol]]:
    async def factory() -> Protocol:
        return Protocol(await aiosqlite.connect(path))

    return factory


async def disk_error() -> None:
    raise OSError("the disk is on fire")


# -- connect


async def test_a_connect_that_fails_reaches_every_caller_at_once_as_the_drivers_own_error(
    tmp_path: Path, recorder: Recorder
) -> None:
    missing = tmp_path / "missing" / "app.db"
    async with pool_of(lambda: aiosqlite.connect(missing), recorder) as pool:
        async with asyncio.timeout(PATIENCE):
            outcomes = await asyncio.gather(*(pool.acquire() for _ in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [sqlite3.OperationalError] * 3
        assert all("unable to open database file" in str(outcome) for outcome in outcomes)


async def test_a_connect_that_fails_is_told_with_its_error(tmp_path: Path, recorder: Recorder) -> None:
    async with pool_of(lambda: aiosqlite.connect(tmp_path / "missing" / "app.db"), recorder) as pool:
        with pytest.raises(sqlite3.OperationalError):
            await pool.acquire()
    (event,) = recorder.of(ConnectionCreateFailed)
    assert str(event.error) == "sqlite3.OperationalError: unable to open database file"


async def test_a_pool_whose_connect_failed_works_when_the_directory_is_there(
    tmp_path: Path, recorder: Recorder
) -> None:
    missing = tmp_path / "missing"
    async with pool_of(lambda: aiosqlite.connect(missing / "app.db"), recorder, pool_size=2) as pool:
        for _ in range(3):
            with pytest.raises(sqlite3.OperationalError):
                await pool.acquire()
        missing.mkdir()
        await works(pool)


async def test_a_connect_that_hangs_ends_at_the_callers_deadline(path: Path, recorder: Recorder) -> None:
    gate = asyncio.Event()

    async def factory() -> aiosqlite.Connection:
        await gate.wait()
        return await aiosqlite.connect(path)

    async with pool_of(factory, recorder, acquisition_timeout=0.05, operation_timeout=0.05) as pool:
        with pytest.raises(PoolConnectionAcquireTimeoutError, match=r"within \d+\.\d+ s \(1 used, 0 idle of 1"):
            await pool.acquire()


async def test_a_connect_that_hangs_gives_its_place_back_after_the_operation_timeout(
    path: Path, recorder: Recorder
) -> None:
    gate = asyncio.Event()

    async def factory() -> aiosqlite.Connection:
        await gate.wait()
        return await aiosqlite.connect(path)

    async with pool_of(factory, recorder, acquisition_timeout=None, operation_timeout=0.02) as pool:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await pool.acquire()
        async with asyncio.timeout(PATIENCE):
            while pool.stats().used:
                await asyncio.sleep(0.001)
        gate.set()
        await works(pool)
    assert recorder.of(ConnectionCreateFailed)[0].error.type == "asyncio.exceptions.CancelledError"


@timeless
async def test_a_connect_that_hangs_in_the_background_gives_its_place_back_too(
    driver: StubDriver, recorder: Recorder
) -> None:
    driver.on_connect = hangs
    settings = {"min_size": 1, "acquisition_timeout": 5, "operation_timeout": 2}
    async with pool_of(driver, recorder, clock=asyncio.get_running_loop().time, **settings) as pool:
        with pytest.raises(PoolConnectionAcquireTimeoutError):
            await pool.acquire()  # opens the pool, which begins to fill itself; the factory hangs
        driver.on_connect = None
        async with asyncio.timeout(PATIENCE):
            while pool.stats().used:
                await asyncio.sleep(0.005)
        await works(pool)


async def test_a_connect_that_succeeds_late_serves_the_next_caller(path: Path, recorder: Recorder) -> None:
    gate = asyncio.Event()

    async def factory() -> aiosqlite.Connection:
        await gate.wait()
        return await aiosqlite.connect(path)

    async with pool_of(factory, recorder, acquisition_timeout=None) as pool:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await pool.acquire()
        gate.set()
        async with asyncio.timeout(PATIENCE):
            while not pool.stats().idle:
                await asyncio.sleep(0.001)
        async with pool.connection() as connection:
            assert await connection.execute_fetchall("SELECT text FROM note") == [("first",)]
    assert [event.connection for event in recorder.of(ConnectionCreated)] == [1]


async def test_a_factory_that_makes_no_connection_is_a_clear_error(recorder: Recorder) -> None:
    async def factory() -> Any:
        return "app.db"

    async with pool_of(factory, recorder) as pool:
        with pytest.raises(TypeError, match=r"connection_factory made 'app\.db', which has no execute"):
            await pool.acquire()
        assert pool.stats().used == 0


async def test_a_factory_whose_driver_cancels_itself_is_an_error_and_no_cancellation(
    driver: StubDriver, recorder: Recorder
) -> None:
    driver.on_connect = fails(asyncio.CancelledError())
    async with pool_of(driver, recorder) as pool:
        with pytest.raises(PoolError, match="cancelled"):
            await pool.acquire()
        driver.on_connect = None
        await works(pool)


async def test_one_of_two_calls_of_open_that_is_cancelled_does_not_cancel_the_other(
    driver: StubDriver, recorder: Recorder
) -> None:
    gate = asyncio.Event()
    driver.on_connect = gate.wait
    async with pool_of(driver, recorder, min_size=1) as pool:
        first, second = asyncio.ensure_future(pool.open()), asyncio.ensure_future(pool.open())
        await settle()
        first.cancel()
        await settle()
        gate.set()
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([first, second])
        assert first.cancelled()
        assert not second.cancelled(), "nobody cancelled this one"
        assert pool.stats().idle == 1


# -- the worker thread


async def test_a_connection_whose_worker_died_while_it_was_lent_leaves_as_broken(
    path: Path, recorder: Recorder
) -> None:
    async with pool_of(lambda: aiosqlite.connect(path), recorder) as pool:
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO note (text) VALUES ('lost')")
            end_worker(connection)
        assert (await gone(recorder)).reason == "broken"
        await works(pool)
    assert notes(path) == ["first"]


async def test_a_connection_whose_worker_died_while_it_was_idle_is_never_lent(path: Path, recorder: Recorder) -> None:
    async with pool_of(lambda: aiosqlite.connect(path), recorder) as pool:
        async with pool.connection() as dead:
            pass
        end_worker(dead)
        async with asyncio.timeout(PATIENCE), pool.connection() as connection:
            assert connection is not dead
            assert await connection.execute_fetchall("SELECT text FROM note") == [("first",)]
        assert (await gone(recorder)).reason == "unhealthy"
    (event,) = recorder.of(HealthCheckFailed)
    assert "worker thread is dead" in event.error.message


# -- rollback


async def test_a_rollback_that_raises_costs_the_connection_and_not_the_caller(path: Path, recorder: Recorder) -> None:
    async with pool_of(protocol(path), recorder) as pool:
        async with pool.connection() as connection:
            connection.on_rollback = disk_error
        assert (await gone(recorder)).reason == "reset_failed"
        await works(pool)


async def test_a_rollback_that_raises_late_costs_the_connection_and_not_the_caller(
    path: Path, recorder: Recorder
) -> None:
    async def late() -> None:
        await asyncio.sleep(0)
        raise OSError("late")

    async with pool_of(protocol(path), recorder) as pool:
        async with pool.connection() as connection:
            connection.on_rollback = late
        assert (await gone(recorder)).reason == "reset_failed"
        await works(pool)


async def test_a_rollback_that_hangs_is_left_after_the_operation_timeout(path: Path, recorder: Recorder) -> None:
    async with pool_of(protocol(path), recorder, operation_timeout=0.02) as pool:
        async with asyncio.timeout(PATIENCE), pool.connection() as connection:
            connection.on_rollback = hangs
        assert (await gone(recorder)).reason == "reset_failed"
        await works(pool)


async def test_a_rollback_that_raises_cancelled_error_loses_no_place(driver: StubDriver, recorder: Recorder) -> None:
    # As a driver does that awaits a future of its own which is cancelled already.
    async with pool_of(driver, recorder) as pool:
        lease = pool.connection()
        connection = await lease.__aenter__()
        connection.on_rollback = fails(asyncio.CancelledError())
        with contextlib.suppress(asyncio.CancelledError):
            await lease.__aexit__(None, None, None)
        await settle()
        assert pool.holders() == ()
        await works(pool)


async def test_a_rollback_still_hanging_when_the_pool_closes_does_not_keep_its_connection_open(
    driver: StubDriver, recorder: Recorder
) -> None:
    async with pool_of(driver, recorder, operation_timeout=0.3) as pool:
        connection = await pool.acquire()
        connection.on_rollback = hangs
        releasing = asyncio.ensure_future(pool.release(connection))
        await settle()
        await pool.close(timeout=0)
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([releasing])
            while not connection.closed:
                await asyncio.sleep(0.01)
        assert not releasing.cancelled()


async def test_closing_the_pool_does_not_cancel_a_task_that_waits_for_its_reset(path: Path, recorder: Recorder) -> None:
    async with pool_of(lambda: aiosqlite.connect(path), recorder) as pool:
        connection = await pool.acquire()
        rolling_back, go_on = threading.Event(), threading.Event()

        def trace(sql: str) -> None:
            if sql == "ROLLBACK":  # of a large transaction takes as long as it takes, and no interrupt stops it
                rolling_back.set()
                go_on.wait(PATIENCE)

        await connection.set_trace_callback(trace)
        await connection.execute("INSERT INTO note (text) VALUES ('undone')")
        releasing = asyncio.ensure_future(pool.release(connection))
        while not rolling_back.is_set():
            await asyncio.sleep(0.001)
        try:
            async with asyncio.timeout(PATIENCE):
                await pool.close(timeout=0)
        finally:
            go_on.set()
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([releasing])
        assert not releasing.cancelled(), "nobody cancelled the task that released its connection"


# -- close


async def test_a_close_that_raises_hurts_nobody(
    path: Path, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    async with pool_of(protocol(path), recorder, max_lifetime=0.001) as pool:
        for _ in range(2):
            async with pool.connection() as connection:
                connection.on_close = disk_error
                await asyncio.sleep(0.002)
        assert "lifetime" in {event.reason for event in recorder.of(ConnectionClosed)} or pool.stats().size <= 1
        await works(pool)
    assert "the disk is on fire" in caplog.text
    assert len(recorder.of(ConnectionCreated)) == len(recorder.of(ConnectionClosed))


@timeless
async def test_a_close_that_hangs_is_left_after_the_operation_timeout(
    driver: StubDriver, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    async with pool_of(driver, recorder, operation_timeout=2, clock=asyncio.get_running_loop().time) as pool:
        async with pool.connection() as connection:
            connection.on_close = hangs
        async with asyncio.timeout(PATIENCE):
            await pool.close()
    assert "did not close within" in caplog.text
    assert (await gone(recorder)).reason == "pool_closed"


async def test_a_close_that_hangs_keeps_no_caller_waiting(path: Path, recorder: Recorder) -> None:
    gate = asyncio.Event()
    async with pool_of(protocol(path), recorder) as pool:
        async with pool.connection() as connection:
            connection.on_close = gate.wait
            connection.on_rollback = disk_error
        await works(pool)
        assert not recorder.of(ConnectionClosed), "it hangs still"
        gate.set()


# -- keeping `min_size`


async def test_a_connection_that_expires_is_replaced_to_keep_the_minimum(
    driver: StubDriver, recorder: Recorder
) -> None:
    async with pool_of(driver, recorder, min_size=1, max_lifetime=0.05) as pool:
        await pool.open()
        async with asyncio.timeout(PATIENCE):
            await gone(recorder)
            while driver.attempts < 2:
                await asyncio.sleep(0.005)
                assert driver.attempts >= 2 or pool.stats().size or pool._timer.wake_at < float("inf"), (
                    "the pool is empty, and nothing will ever fill it"
                )


# -- the disk and the file


async def test_a_full_disk_is_the_writers_error_and_costs_no_connection(path: Path, recorder: Recorder) -> None:
    async def factory() -> aiosqlite.Connection:
        connection = await aiosqlite.connect(path)
        # What SQLite does when it may not grow the file is what it does when the disk is full: SQLITE_FULL.
        await connection.execute("PRAGMA max_page_count=4")
        return connection

    async with pool_of(factory, recorder) as pool:
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO note (text) VALUES ('some of it')")
            with pytest.raises(sqlite3.OperationalError, match="database or disk is full"):
                await connection.execute("INSERT INTO note (text) VALUES (zeroblob(1000000))")
        assert notes(path) == ["first"]
        async with pool.connection() as connection:
            await connection.execute("PRAGMA max_page_count=100000")
            await connection.execute("INSERT INTO note (text) VALUES (zeroblob(1000000))")
            await connection.execute("DELETE FROM note WHERE id > 1")
            await connection.execute("INSERT INTO note (text) VALUES ('there is room again')")
            await connection.commit()
        await works(pool)
        assert not recorder.of(ConnectionClosed)
    assert notes(path) == ["first", "there is room again"]


async def test_a_deleted_file_is_noticed_and_named(path: Path, recorder: Recorder) -> None:
    async with pool_of(lambda: aiosqlite.connect(path), recorder, health_check_after=0) as pool:
        await works(pool)
        for file in path.parent.glob("app.db*"):
            file.unlink()
        async with pool.connection() as connection:
            with pytest.raises(sqlite3.OperationalError, match="no such table: note"):
                await connection.execute("INSERT INTO note (text) VALUES ('into the void')")
        assert (await gone(recorder)).reason == "unhealthy"
        await works(pool)
    (event,) = recorder.of(HealthCheckFailed)
    assert "is gone" in event.error.message
    assert str(path) in event.error.message


async def test_a_replaced_file_is_noticed_and_the_next_caller_reads_the_new_one(path: Path, recorder: Recorder) -> None:
    async with pool_of(lambda: aiosqlite.connect(path), recorder, health_check_after=0) as pool:
        async with pool.connection() as connection:
            assert await connection.execute_fetchall("SELECT text FROM note") == [("first",)]
        backup = make_database(path.with_name("backup.db"), "restored")
        for file in path.parent.glob("app.db-*"):
            file.unlink()
        os.replace(backup, path)
        async with pool.connection() as connection:
            assert await connection.execute_fetchall("SELECT text FROM note") == [("restored",)]
        assert (await gone(recorder)).reason == "unhealthy"
    (event,) = recorder.of(HealthCheckFailed)
    assert "was replaced by another" in event.error.message


async def test_a_read_only_file_refuses_the_writer_and_serves_the_reader(path: Path, recorder: Recorder) -> None:
    # Opened as SQLite opens a file that it may not write; permission bits would not stop a root user.
    async with pool_of(lambda: aiosqlite.connect(f"{path.as_uri()}?mode=ro", uri=True), recorder) as pool:
        async with pool.connection() as connection:
            with pytest.raises(sqlite3.OperationalError, match="attempt to write a readonly database"):
                await connection.execute("INSERT INTO note (text) VALUES ('no')")
        async with pool.connection() as connection:
            assert await connection.execute_fetchall("SELECT text FROM note") == [("first",)]
        assert not recorder.of(ConnectionClosed)


async def test_a_pool_on_a_read_only_file_writes_again_when_the_file_is_replaced_by_a_writable_one(
    path: Path, recorder: Recorder
) -> None:
    mode = "ro"
    settings = {"health_check_after": 0}
    async with pool_of(
        lambda: aiosqlite.connect(f"{path.as_uri()}?mode={mode}", uri=True), recorder, **settings
    ) as pool:
        async with pool.connection() as connection:
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                await connection.execute("INSERT INTO note (text) VALUES ('no')")
        shutil.copy(path, path.with_name("copy.db"))
        os.replace(path.with_name("copy.db"), path)
        mode = "rw"
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO note (text) VALUES ('yes')")
            await connection.commit()
        assert (await gone(recorder)).reason == "unhealthy"
    assert "yes" in notes(path)


LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
print("unlocked", flush=True)
"""


@contextlib.contextmanager
def locked_by_another_process(path: Path) -> Iterator[None]:
    pipe = subprocess.PIPE
    with child([sys.executable, "-c", LOCKER, path], within=2 * PATIENCE, stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        yield
        out, _ = other.communicate("\n", timeout=PATIENCE)
        assert out == "unlocked\n"


async def test_a_file_locked_by_another_process_is_the_writers_error_until_the_lock_is_gone(
    path: Path, recorder: Recorder
) -> None:
    async with pool_of(lambda: aiosqlite.connect(path, timeout=0.05), recorder) as pool:
        with locked_by_another_process(path):
            async with pool.connection() as connection:
                with pytest.raises(sqlite3.OperationalError, match="database is locked"):
                    await connection.execute("INSERT INTO note (text) VALUES ('too early')")
                assert await connection.execute_fetchall("SELECT text FROM note") == [("first",)]
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO note (text) VALUES ('in time')")
            await connection.commit()
        assert not recorder.of(ConnectionClosed)
    assert notes(path) == ["first", "in time"]


async def test_a_caller_cancelled_while_it_waits_for_another_processs_lock_holds_up_nobody(
    path: Path, recorder: Recorder
) -> None:
    async with pool_of(lambda: aiosqlite.connect(path, timeout=60), recorder) as pool:
        inserting, loop = asyncio.Event(), asyncio.get_running_loop()

        async def write() -> None:
            async with pool.connection() as connection:
                await connection.set_trace_callback(lambda sql: loop.call_soon_threadsafe(inserting.set))
                await connection.execute("INSERT INTO note (text) VALUES ('cancelled')")

        with locked_by_another_process(path):
            writing = asyncio.ensure_future(write())
            async with asyncio.timeout(PATIENCE):
                await inserting.wait()
                writing.cancel()
                await asyncio.wait([writing])
                async with pool.connection() as connection:
                    assert await connection.execute_fetchall("SELECT text FROM note") == [("first",)]
        assert {event.cause for event in recorder.of(RolledBackOnReturn)} <= {"in_flight"}
        await works(pool)
    assert notes(path) == ["first"]


async def test_a_file_that_is_no_database_is_a_clear_error_and_leaves_nothing_open(
    tmp_path: Path, recorder: Recorder
) -> None:
    path = tmp_path / "app.db"
    path.write_bytes(b"this is a letter and no database " * 100)
    async with pool_of(lambda: aiosqlite.connect(path), recorder) as pool:
        with pytest.raises(sqlite3.DatabaseError, match="file is not a database"):
            async with pool.connection() as connection:
                await connection.execute("SELECT 1 FROM sqlite_master")
        path.unlink()
        make_database(path, "a database")
        async with asyncio.timeout(PATIENCE):
            while True:
                async with pool.connection() as connection:
                    with contextlib.suppress(sqlite3.DatabaseError):
                        assert await connection.execute_fetchall("SELECT text FROM note") == [("a database",)]
                        break
                await asyncio.sleep(0.1)
        await works(pool)
