"""What a program may do wrong, or nearly right, and what the pool says of it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import re
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolClosedError, PoolUsageError, SQLiteConnectionPool
from aiosqlitepool.events import RolledBackOnReturn
from aiosqlitepool.failures import LOG_INTERVAL
from aiosqlitepool.testing import Recorder

from ..support.clock import Clock
from ..support.pools import pool_of
from ..support.stub import StubDriver

Pool = SQLiteConnectionPool[aiosqlite.Connection]


def pool_on(path: Path | str, size: int = 2, **settings: Any) -> Pool:
    return SQLiteConnectionPool(lambda: aiosqlite.connect(path, timeout=0), size, name="app.db", **settings)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


# -- a pool that is closed


CLOSED = r"pool 'app\.db' is closed and cannot be reopened: make one per application, or per test"


@pytest.mark.parametrize(
    "use", [lambda pool: pool.acquire(), lambda pool: pool.connection().__aenter__(), lambda pool: pool.open()]
)
async def test_a_closed_pool_says_that_it_cannot_be_reopened(
    driver: StubDriver, use: Callable[[Any], Awaitable[Any]]
) -> None:
    pool = pool_of(driver)
    async with pool:
        pass
    with pytest.raises(PoolClosedError, match=CLOSED):
        await use(pool)


async def test_a_second_block_of_a_closed_pool_says_so_too(driver: StubDriver) -> None:
    pool = pool_of(driver)
    async with pool:
        pass
    with pytest.raises(PoolClosedError, match=CLOSED):
        async with pool:
            pass


# -- leases


async def test_a_lease_that_is_awaited_names_async_with_and_acquire(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        lease: Any = pool.connection()
        with pytest.raises(PoolUsageError, match=r"use `async with pool\.connection\(\) as .* or `await pool\.acquire"):
            await lease
        assert pool.stats().used == 0


async def test_a_lease_in_a_plain_with_names_async_with(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        lease: Any = pool.connection()
        with pytest.raises(PoolUsageError, match="use `async with`"), lease:
            pass
        assert lease.__exit__(None, None, None) is None


async def test_a_lease_that_is_used_as_a_connection_says_how_to_acquire_one(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        lease: Any = pool.connection()
        with pytest.raises(AttributeError, match=r"'Lease' object has no attribute 'execute'; it is no connection yet"):
            await lease.execute("SELECT 1")
        assert "execute" not in dir(lease)
        assert "label" in dir(lease)


async def test_a_label_may_be_given_by_position(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        async with pool.connection("GET /"):
            assert [holder.label for holder in pool.holders()] == ["GET /"]
        connection = await pool.acquire("POST /")
        assert [holder.label for holder in pool.holders()] == ["POST /"]
        await pool.release(connection)


async def test_a_timeout_given_by_position_is_refused_as_a_label(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        with pytest.raises(TypeError, match=r"label must be a str or None, not 5 \(int\)"):
            pool.connection(5)  # type: ignore[arg-type]


# -- factories


@pytest.mark.parametrize("factory", ["app.db", None, Path("app.db")])
def test_a_path_instead_of_a_factory_is_told_what_a_factory_is(factory: Any) -> None:
    message = (
        f"connection_factory must be a function that opens a connection, such as lambda: aiosqlite.connect.*{factory}"
    )
    with pytest.raises(TypeError, match=message):
        SQLiteConnectionPool(factory)


async def test_a_connection_instead_of_a_factory_is_told_what_a_factory_is(database: Path) -> None:
    with pytest.raises(TypeError, match=r"must be a function that opens a connection.*not <.*Connection"):
        SQLiteConnectionPool(aiosqlite.connect(database))  # type: ignore[arg-type]


async def test_a_factory_that_returns_nothing_is_told_what_to_return() -> None:
    async with SQLiteConnectionPool(lambda: None) as pool:  # type: ignore[arg-type, return-value]
        with pytest.raises(
            TypeError, match=r"must return an awaitable, not None \(NoneType\): return aiosqlite\.connect"
        ):
            await pool.acquire()


async def test_a_factory_of_sqlite3_is_told_to_use_aiosqlite() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as native:
        async with SQLiteConnectionPool(lambda: native) as pool:  # type: ignore[arg-type, return-value]
            with pytest.raises(TypeError, match=r"not <sqlite3\.Connection .*: return aiosqlite\.connect\('app\.db'\)"):
                await pool.acquire()


async def test_a_factory_that_returns_an_open_connection_is_told_to_make_one_in_each_call(database: Path) -> None:
    async with aiosqlite.connect(database) as connection, SQLiteConnectionPool(lambda: connection) as pool:
        with pytest.raises(
            PoolUsageError, match=r"returned <.*Connection.* was awaited before: let it make a connection"
        ):
            await pool.acquire()


async def test_a_factory_that_returns_the_same_unopened_connection_twice_is_told_the_same(database: Path) -> None:
    only = aiosqlite.connect(database)
    async with SQLiteConnectionPool(lambda: only, 2) as pool, pool.connection() as first:
        with pytest.raises(PoolUsageError, match="was awaited before: let it make a connection in each call"):
            await pool.acquire()
        assert await first.execute_fetchall("SELECT 1") == [(1,)]


async def test_a_connection_of_another_pool_is_refused_and_the_factory_told_what_to_do(database: Path) -> None:
    async with pool_on(database) as one, one.connection() as handle:

        async def shared() -> aiosqlite.Connection:
            return handle

        async with SQLiteConnectionPool(shared) as other:
            with pytest.raises(
                PoolUsageError, match="that is, or was, in another pool: let it make a connection in each"
            ):
                await other.acquire()


async def test_a_factory_that_closes_its_connection_is_told_to_leave_that_to_the_pool(database: Path) -> None:
    async def closed() -> aiosqlite.Connection:
        async with aiosqlite.connect(database) as connection:
            return connection

    async with SQLiteConnectionPool(closed) as pool:
        with pytest.raises(Exception, match="that is not open: return what .*leave the closing to the pool"):
            await pool.acquire()


def test_a_number_given_as_text_is_refused_with_its_name_and_value(driver: StubDriver) -> None:
    with pytest.raises(TypeError, match=r"pool_size must be an int, not '5' \(str\)"):
        SQLiteConnectionPool(driver, pool_size="5")  # type: ignore[arg-type]


# -- loops


@pytest.mark.parametrize("method", ["acquire", "open", "close"])
def test_without_an_asyncio_loop_the_pool_says_that_it_needs_one(driver: StubDriver, method: str) -> None:
    pool = SQLiteConnectionPool(driver, name="app.db")
    # As trio runs a coroutine: step by step, and no event loop of asyncio runs.
    coroutine = getattr(pool, method)()
    with pytest.raises(PoolUsageError, match=r"pool 'app\.db' needs asyncio.*Trio is not supported"):
        coroutine.send(None)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


def test_a_pool_of_another_asyncio_run_says_to_make_one_for_each(driver: StubDriver) -> None:
    pool = SQLiteConnectionPool(driver, name="app.db")

    async def use() -> None:
        async with pool.connection():
            pass

    asyncio.run(use())
    with pytest.raises(PoolUsageError, match=re.escape("belongs to another event loop: make one per asyncio.run()")):
        asyncio.run(use())
    asyncio.run(pool.close())


# -- databases in memory


async def test_a_second_private_database_in_memory_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async with pool_on(":memory:", 3, min_size=3) as pool:
        assert pool.stats().idle == 3
    (warning,) = warnings_of(caplog)
    assert warning == (
        "pool 'app.db': connection 2 has an in-memory database of its own, without what earlier connections wrote: use "
        "SQLiteDatabase(':memory:'), whose connections share one, or pool_size=1 with idle_timeout=None"
    )


async def test_a_database_in_memory_that_is_replaced_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async with pool_on(":memory:", 1) as pool:
        for expected in (0, 1):
            async with pool.connection():
                assert len(warnings_of(caplog)) == expected
            pool.expire_connections()


@pytest.mark.parametrize(
    "uri", ["file:one?mode=memory&cache=shared", "file::memory:?cache=shared", "file:/two?vfs=memdb"]
)
async def test_a_database_in_memory_that_connections_share_is_not_warned_of(
    uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(uri, uri=True), 2, min_size=2) as pool:
        async with pool.connection() as one, pool.connection() as other:
            await one.execute("CREATE TABLE note (text TEXT)")
            assert await other.execute_fetchall("SELECT count(*) FROM note") == [(0,)]
    assert warnings_of(caplog) == []


async def test_files_are_not_warned_of(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with pool_on(database, 2) as pool, pool.connection(), pool.connection():
        pass
    assert warnings_of(caplog) == []


# -- locks


async def lock(connection: aiosqlite.Connection) -> None:
    await connection.execute("INSERT INTO note (text) VALUES ('locked')")


async def test_a_locked_database_names_the_database_whose_writers_queue(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as holder:
        await lock(holder)
        with pytest.raises(sqlite3.OperationalError, match="database is locked") as caught:
            async with pool.connection() as other, contextlib.AsyncExitStack():
                await lock(other)
        (note,) = caught.value.__notes__
        assert "held the lock for longer than the busy timeout" in note
        assert "use SQLiteDatabase, whose writers wait for each other in a queue" in note


async def test_a_stale_snapshot_says_to_begin_immediate(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as reader, pool.connection() as writer:
        await reader.execute("BEGIN")
        await reader.execute_fetchall("SELECT * FROM note")
        await lock(writer)
        await writer.commit()
        with pytest.raises(sqlite3.OperationalError) as caught:
            await lock(reader)
        assert "begin with BEGIN IMMEDIATE, or use SQLiteDatabase.write(), which does" in caught.value.__notes__[0]


async def test_other_errors_have_no_note_of_a_lock(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        with pytest.raises(sqlite3.OperationalError, match="no such table") as caught:
            await connection.execute("SELECT * FROM absent")
        assert not hasattr(caught.value, "__notes__")


# -- uncommitted work


LOST = (
    "pool 'app.db': uncommitted work of 'POST /notes' was rolled back when its connection was released: "
    "call commit() first (logged once in 10 s)"
)


async def test_work_without_commit_is_logged_with_its_label(
    database: Path, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    async with pool_on(database, subscribers=[recorder]) as pool:
        async with pool.connection("POST /notes") as connection:
            await lock(connection)
    assert warnings_of(caplog) == [LOST]
    (event,) = recorder.of(RolledBackOnReturn)
    assert (event.cause, event.label) == ("transaction", "POST /notes")


async def test_work_without_commit_and_without_label_is_logged(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            await lock(connection)
    assert warnings_of(caplog) == [LOST.replace(" of 'POST /notes'", "")]


async def test_work_that_an_exception_ends_is_not_logged(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with pool_on(database) as pool:
        with pytest.raises(KeyError):
            async with pool.connection("POST /notes") as connection:
                await lock(connection)
                raise KeyError
    assert warnings_of(caplog) == []


async def test_work_that_a_cancellation_ends_is_not_logged(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with pool_on(database) as pool:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), pool.connection("POST /notes") as connection:
                await lock(connection)
                await asyncio.Event().wait()
    assert warnings_of(caplog) == []


async def test_a_release_in_a_finally_clause_is_not_logged_while_an_exception_passes(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with pool_on(database) as pool:
        connection = await pool.acquire("POST /notes")
        with pytest.raises(KeyError):
            try:
                await lock(connection)
                raise KeyError
            finally:
                await pool.release(connection)
        assert warnings_of(caplog) == []
        connection = await pool.acquire("POST /notes")
        await lock(connection)
        await pool.release(connection)
    assert warnings_of(caplog) == [LOST]


async def test_work_that_is_rolled_back_or_only_read_is_not_logged(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            await lock(connection)
            await connection.rollback()
        async with pool.connection() as connection:
            await connection.execute("SELECT 1 UNION SELECT 2")  # half-read
    assert warnings_of(caplog) == []


async def test_lost_work_is_logged_once_in_ten_seconds(
    database: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with pool_on(database, 1, clock=clock) as pool:
        for seconds, records in [(0.0, 1), (LOG_INTERVAL / 2, 1), (LOG_INTERVAL / 2, 2)]:
            clock.advance(seconds)
            async with pool.connection("POST /notes") as connection:
                await lock(connection)
            assert len(warnings_of(caplog)) == records
