from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolUsageError, SQLiteConnectionPool
from aiosqlitepool.driver.worker import OverriddenAdapter, _raise_in, harry, stop

from ..support.children import run_program

BAD = "PRAGMA no_such_pragma = ,"

Factory = Callable[[], Awaitable[aiosqlite.Connection]]


def workers() -> int:
    return sum("_connection_worker_thread" in thread.name for thread in threading.enumerate())


async def until_workers_are(count: int) -> None:
    """Wait for worker threads to end, which wakes nobody; a thread that stays is a hang."""
    async with asyncio.timeout(60):
        while workers() > count:  # fewer: one of an earlier test was still about to end
            await asyncio.sleep(0.001)


async def fails_to_open(factory: Factory, **settings: Any) -> BaseException:
    """What an acquire raises, while it is kept: an error that is forgotten would free its frames by itself."""
    async with SQLiteConnectionPool(factory, 1, **settings) as pool:
        with pytest.raises((sqlite3.Error, RuntimeError, TimeoutError)) as raised:
            await pool.acquire()
        return raised.value


async def usable(connection: aiosqlite.Connection) -> bool:
    return list(await connection.execute_fetchall("SELECT 1")) == [(1,)]


# -- what a factory that fails leaves open


async def test_a_factory_that_fails_after_connecting_leaves_no_worker_thread(database: Path) -> None:
    async def connect() -> aiosqlite.Connection:
        connection = await aiosqlite.connect(database)
        cursor = await connection.execute("PRAGMA foreign_keys = ON")
        await cursor.execute(BAD)
        return connection

    before = workers()
    error = await fails_to_open(connect)
    await until_workers_are(before)
    assert isinstance(error, sqlite3.OperationalError)


async def test_a_connection_opened_in_a_helper_whose_error_was_replaced_is_stopped_as_well(database: Path) -> None:
    async def helper() -> aiosqlite.Connection:
        connection = await aiosqlite.connect(database)
        await connection.execute(BAD)
        return connection

    async def connect() -> aiosqlite.Connection:
        try:
            return await helper()
        except sqlite3.Error as error:
            raise RuntimeError("no connection") from error

    before = workers()
    error = await fails_to_open(connect)
    await until_workers_are(before)
    assert str(error) == "no connection"


async def test_a_factory_that_is_given_up_after_connecting_leaves_no_worker_thread(database: Path) -> None:
    async def connect() -> aiosqlite.Connection:
        connection = await aiosqlite.connect(database)
        await asyncio.Event().wait()
        return connection

    before = workers()
    await fails_to_open(connect, acquisition_timeout=0.1, operation_timeout=0.1)
    await until_workers_are(before)


async def test_a_connection_that_was_open_before_the_factory_ran_is_left_alone(database: Path) -> None:
    async with aiosqlite.connect(database) as shared:

        async def connect() -> aiosqlite.Connection:
            connection = shared
            await connection.execute(BAD)
            return connection

        await fails_to_open(connect)
        assert await usable(shared)


async def test_a_connection_that_the_factory_keeps_for_later_is_left_alone(database: Path) -> None:
    kept: aiosqlite.Connection | None = None

    class Factory:
        kept: aiosqlite.Connection | None = None

        async def __call__(self) -> aiosqlite.Connection:
            nonlocal kept
            connection = self.kept = await aiosqlite.connect(database)
            kept = await aiosqlite.connect(database)
            await connection.execute(BAD)
            return connection

    factory = Factory()
    await fails_to_open(factory)
    assert kept is not None
    assert factory.kept is not None
    for connection in (kept, factory.kept):
        assert await usable(connection)
        await connection.close()


async def test_a_connection_that_another_pool_opened_meanwhile_is_left_alone(database: Path) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database)) as other:

        async def connect() -> aiosqlite.Connection:
            async with other.connection() as connection:
                await connection.execute(BAD)
                return connection

        await fails_to_open(connect)
        async with other.connection() as connection:
            assert await usable(connection)
        assert other.stats().size == 1


async def test_a_connection_of_another_pool_is_refused_and_left_alone(database: Path) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database)) as other, other.connection() as lent:

        async def connect() -> aiosqlite.Connection:
            return lent

        assert isinstance(error := await fails_to_open(connect), PoolUsageError)
        assert "another pool" in str(error)
        assert await usable(lent)


@pytest.mark.parametrize("state", ["idle", "running"])
def test_a_program_that_forgets_a_pool_of_a_class_of_its_own_ends(tmp_path: Path, state: str) -> None:
    ended = run_program(
        f"""
        import asyncio, sqlite3
        import aiosqlite
        from aiosqlitepool import SQLiteConnectionPool

        class Own(aiosqlite.Connection):
            async def close(self):
                await super().close()

        async def connect():
            return await Own(lambda: sqlite3.connect("app.db"), 64)

        pool = SQLiteConnectionPool(connect, name="shop")
        SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

        async def main():
            conn = await pool.acquire()
            if {state == "running"}:
                asyncio.ensure_future(conn.execute(SLOW))
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        asyncio.run(main())
        """,
        tmp_path,
    )
    assert ended.code == 0
    assert "was never closed" in ended.err


def test_a_program_whose_factory_fails_ends(tmp_path: Path) -> None:
    ended = run_program(
        """
        import asyncio, pathlib
        import aiosqlite
        from aiosqlitepool import SQLiteConnectionPool

        pathlib.Path("app.db").write_bytes(b"this is no database" * 100)

        async def connect():
            conn = await aiosqlite.connect("app.db")
            await conn.execute("PRAGMA synchronous = NORMAL")
            return conn

        async def main():
            async with SQLiteConnectionPool(connect) as pool, pool.connection():
                pass

        try:
            asyncio.run(main())
        except Exception as error:
            print(error)
        """,
        tmp_path,
    )
    assert (ended.code, ended.out, ended.untidy()) == (0, "file is not a database\n", [])


# -- workers that have ended, and workers that will not


class Own(aiosqlite.Connection):
    """Overrides what the watchful link would go around."""

    async def close(self) -> None:
        await super().close()


async def own(database: Path) -> Own:
    connection = Own(lambda: sqlite3.connect(database), 64)
    connection._thread.daemon = True
    await connection
    return connection


async def test_a_worker_that_has_ended_is_harried_no_more(database: Path) -> None:
    connection = await aiosqlite.connect(database)
    native, thread = connection._conn, connection._thread
    await connection.close()
    await until_workers_are(0)
    harry(thread, native)
    _raise_in(thread)  # a new thread may have its number by now: this one, say
    assert "aiosqlitepool-exit" not in {each.name for each in threading.enumerate()}


async def test_stopping_does_not_wait_for_ever_for_a_worker_that_goes_on(database: Path) -> None:
    connection, enough = aiosqlite.connect(database), threading.Event()
    connection._thread.daemon = True
    await connection
    busy = asyncio.ensure_future(connection._execute(enough.wait))  # type: ignore[no-untyped-call]
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await stop(connection)
    assert connection._thread.is_alive()
    enough.set()
    assert await busy
    await until_workers_are(0)


def test_a_worker_that_opens_its_file_after_its_loop_was_closed_complains_of_nothing(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: a tenth of a second after the pool gave up on it, the thread ended with a traceback on stderr."""
    complaints, enough, opened = list[threading.ExceptHookArgs](), threading.Event(), list[sqlite3.Connection]()
    monkeypatch.setattr(threading, "excepthook", complaints.append)
    connections: list[aiosqlite.Connection] = []

    def open_late() -> sqlite3.Connection:
        enough.wait(60)
        opened.append(sqlite3.connect(database, check_same_thread=False))
        return opened[0]

    def connect() -> aiosqlite.Connection:
        connections.append(aiosqlite.Connection(open_late, 64))
        return connections[-1]

    async def give_up() -> None:
        async with SQLiteConnectionPool(connect, 1, acquisition_timeout=0.05, operation_timeout=0.05) as pool:
            with pytest.raises(TimeoutError):
                await pool.acquire()

    asyncio.run(give_up())
    assert connections[0]._thread.is_alive()
    enough.set()
    connections[0]._thread.join(60)
    assert not connections[0]._thread.is_alive()
    assert complaints == []
    opened[0].close()  # Python 3.13 warns of one that nobody closed, whenever it is collected


async def test_an_overriding_connection_that_is_abandoned_in_its_loop_closes_its_own_way(database: Path) -> None:
    connection = await own(database)
    OverriddenAdapter(connection).abandon()
    await until_workers_are(0)
    assert connection._connection is None


def test_an_overriding_connection_that_is_closed_already_can_be_abandoned_without_a_loop(database: Path) -> None:
    async def closed() -> Own:
        connection = await own(database)
        await connection.close()
        await until_workers_are(0)
        return connection

    OverriddenAdapter(asyncio.run(closed())).abandon()
    assert workers() == 0
