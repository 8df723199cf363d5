"""A second real driver, of which the pool knows nothing: what it promises for any driver must hold for this one."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
import turso.aio

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.driver import GenericAdapter, adapter_for
from aiosqlitepool.events import ConnectionClosed, ConnectionCreated, HealthCheckFailed
from aiosqlitepool.testing import Recorder

from ..support.clock import Clock

Pool = SQLiteConnectionPool[turso.aio.Connection]


@pytest.fixture
async def path(tmp_path: Path) -> str:
    path = str(tmp_path / "turso.db")
    async with turso.aio.connect(path) as connection:
        await connection.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)")
        await connection.commit()
    return path


async def texts(connection: turso.aio.Connection) -> list[str]:
    cursor = await connection.execute("SELECT text FROM note ORDER BY id")
    return [row[0] for row in await cursor.fetchall()]


async def insert(connection: turso.aio.Connection, text: str) -> None:
    await connection.execute("INSERT INTO note (text) VALUES (?)", (text,))


async def test_it_gets_the_plain_link(path: str) -> None:
    async with turso.aio.connect(path) as connection:
        assert isinstance(adapter_for(connection), GenericAdapter)


async def test_a_lambda_will_do_as_a_factory(path: str) -> None:
    async with SQLiteConnectionPool(lambda: turso.aio.connect(path), 2) as pool:
        async with pool.connection() as connection:
            assert isinstance(connection, turso.aio.Connection)
            await insert(connection, "kept")
            await connection.commit()
        async with pool.connection() as connection:
            assert await texts(connection) == ["kept"]


async def test_an_async_factory_will_do(path: str) -> None:
    async def factory() -> turso.aio.Connection:
        connection: turso.aio.Connection = await turso.aio.connect(path)
        await (await connection.execute("PRAGMA cache_size = 100")).fetchall()
        return connection

    async with SQLiteConnectionPool(factory, 2) as pool, pool.connection() as connection:
        assert await texts(connection) == []


async def test_a_connection_is_reused(path: str, recorder: Recorder) -> None:
    async with SQLiteConnectionPool(lambda: turso.aio.connect(path), 2, subscribers=[recorder]) as pool:
        for _ in range(5):
            async with pool.connection() as connection:
                await texts(connection)
    assert len(recorder.of(ConnectionCreated)) == 1


async def test_an_uncommitted_write_is_gone_after_the_return(path: str) -> None:
    async with SQLiteConnectionPool(lambda: turso.aio.connect(path), 1) as pool:
        async with pool.connection() as connection:
            await insert(connection, "never committed")
        async with pool.connection() as again:
            assert again is connection
            assert await texts(again) == []


async def test_an_uncommitted_write_is_gone_after_a_cancellation(path: str) -> None:
    written = asyncio.Event()

    async def work() -> None:
        async with pool.connection() as connection:
            await insert(connection, "never committed")
            written.set()
            await asyncio.Event().wait()

    async with SQLiteConnectionPool(lambda: turso.aio.connect(path), 1) as pool:
        task = asyncio.create_task(work())
        await asyncio.wait_for(written.wait(), 60)
        task.cancel()
        await asyncio.wait({task})
        async with pool.connection() as connection:
            assert await texts(connection) == []


async def test_an_idle_connection_is_checked_before_it_is_lent(path: str, clock: Clock, recorder: Recorder) -> None:
    async with SQLiteConnectionPool(
        lambda: turso.aio.connect(path), 1, idle_timeout=None, clock=clock, subscribers=[recorder]
    ) as pool:
        async with pool.connection() as connection:
            pass
        clock.advance(2)
        async with pool.connection() as again:
            assert again is connection
    assert recorder.of(HealthCheckFailed) == []


async def test_a_connection_closed_by_its_user_is_replaced(path: str, recorder: Recorder) -> None:
    async with SQLiteConnectionPool(lambda: turso.aio.connect(path), 1, subscribers=[recorder]) as pool:
        async with pool.connection() as connection:
            await connection.close()
        async with pool.connection() as again:
            assert again is not connection
            assert await texts(again) == []
    assert {event.connection: event.reason for event in recorder.of(ConnectionClosed)} == {
        1: "reset_failed",
        2: "pool_closed",
    }


async def test_what_the_driver_raises_at_connecting_passes_through(tmp_path: Path) -> None:
    async with SQLiteConnectionPool(lambda: turso.aio.connect(str(tmp_path / "missing" / "turso.db"))) as pool:
        with pytest.raises(Exception) as own:  # noqa: PT011 - whatever the driver raises without the pool
            async with turso.aio.connect(str(tmp_path / "missing" / "turso.db")):
                raise AssertionError("it connected")
        with pytest.raises(type(own.value)) as pooled:
            await pool.acquire()
        assert str(pooled.value) == str(own.value)


async def test_many_tasks_share_few_connections(path: str) -> None:
    async def write(number: int) -> None:
        async with pool.connection() as connection:
            await insert(connection, str(number))
            await connection.commit()

    async with SQLiteConnectionPool(lambda: turso.aio.connect(path), 1) as pool:
        await asyncio.gather(*(write(number) for number in range(20)))
        async with pool.connection() as connection:
            assert sorted(await texts(connection), key=int) == [str(number) for number in range(20)]


async def test_closing_the_pool_ends_its_worker_threads(path: str) -> None:
    before = set(threading.enumerate())
    async with SQLiteConnectionPool(lambda: turso.aio.connect(path), 2) as pool, pool.connection(), pool.connection():
        workers = [thread for thread in threading.enumerate() if thread not in before]
        assert len(workers) == 2
    assert not any(thread.is_alive() for thread in workers)


async def test_one_statement_needs_no_block(path: str) -> None:
    async with SQLiteConnectionPool(lambda: turso.aio.connect(path), 1) as pool:
        assert await pool.execute("INSERT INTO note (text) VALUES (?), (?)", ("a", "b")) == (2, 2)
        assert await pool.fetch_val("INSERT INTO note (text) VALUES (:text) RETURNING id", {"text": "c"}) == 3
        assert await pool.fetch_one("SELECT text FROM note ORDER BY id") == ("a",)
        assert await pool.fetch_all("SELECT text FROM note", row_factory=lambda _, row: row[0]) == ["a", "b", "c"]
        assert await pool.fetch_val("SELECT text FROM note WHERE id = ?", (9,)) is None
    async with turso.aio.connect(path) as connection:
        assert await texts(connection) == ["a", "b", "c"]
