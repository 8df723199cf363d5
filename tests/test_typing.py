"""What a type checker knows of the pool. `mypy tests` is the test; running it shows that the types are true."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

import aiosqlite
import turso.aio

from aiosqlitepool import Connection, Holder, PoolStats, SQLiteConnectionPool, Subscriber, Waiter
from aiosqlitepool.bus import EventBus
from aiosqlitepool.events import ConnectionAcquired, ConnectionCreated, PoolEvent
from aiosqlitepool.testing import Recorder

from .support.stub import StubConnection, StubDriver
from .support.timeless import timeless


async def test_the_pool_is_generic_in_what_a_lambda_returns(database: Path) -> None:
    pool = SQLiteConnectionPool(lambda: aiosqlite.connect(database))
    assert_type(pool, SQLiteConnectionPool[aiosqlite.Connection])
    async with pool as entered:
        assert_type(entered, SQLiteConnectionPool[aiosqlite.Connection])
        async with pool.connection() as connection:
            assert_type(connection, aiosqlite.Connection)
            assert isinstance(connection, aiosqlite.Connection)
        acquired = await pool.acquire()
        assert_type(acquired, aiosqlite.Connection)
        await pool.release(acquired)


async def test_the_pool_is_generic_in_what_an_async_function_returns(database: Path) -> None:
    async def factory() -> aiosqlite.Connection:
        return await aiosqlite.connect(database)

    async with SQLiteConnectionPool(factory) as pool:
        assert_type(pool, SQLiteConnectionPool[aiosqlite.Connection])


async def test_another_driver_keeps_its_type(tmp_path: Path) -> None:
    async def factory() -> turso.aio.Connection:
        connection: turso.aio.Connection = await turso.aio.connect(str(tmp_path / "turso.db"))
        return connection

    async with SQLiteConnectionPool(factory) as pool:
        assert_type(pool, SQLiteConnectionPool[turso.aio.Connection])
        async with pool.connection() as connection:
            assert_type(connection, turso.aio.Connection)
            assert isinstance(connection, turso.aio.Connection)


@timeless
async def test_a_callable_object_is_a_factory(driver: StubDriver) -> None:
    async with SQLiteConnectionPool(driver) as pool, pool.connection() as connection:
        assert_type(connection, StubConnection)
        assert isinstance(connection, StubConnection)


def test_drivers_are_connections() -> None:
    if TYPE_CHECKING:
        known: tuple[Connection, ...] = (
            aiosqlite.connect(""),
            turso.aio.connect(""),
            StubConnection(),
        )
        SQLiteConnectionPool[StubConnection](lambda: 5)  # type: ignore[arg-type,return-value]
        assert known
    for kind in (aiosqlite.Connection, turso.aio.Connection, StubConnection):
        assert all(callable(getattr(kind, name)) for name in ("execute", "rollback", "close"))


@timeless
async def test_a_lease_is_an_async_context_manager(driver: StubDriver) -> None:
    async with SQLiteConnectionPool(driver) as pool:
        lease: AbstractAsyncContextManager[StubConnection] = pool.connection(label="GET /users")
        async with lease as connection:
            assert connection is driver.connections[0]


@timeless
async def test_what_can_be_seen_of_a_pool_has_types(driver: StubDriver) -> None:
    async with SQLiteConnectionPool(driver) as pool:
        assert_type(pool.stats(), PoolStats)
        assert_type(pool.holders(), tuple[Holder, ...])
        assert_type(pool.waiters(), tuple[Waiter, ...])
        assert_type(pool.name, str)
        assert_type(pool.events, EventBus)
        assert isinstance(pool.stats(), PoolStats)


def test_a_handler_takes_the_event_it_subscribed_to() -> None:
    bus = EventBus()
    acquired: list[str] = []

    def handler(event: ConnectionAcquired) -> None:
        acquired.append(event.path)

    detach = bus.subscribe(ConnectionAcquired, handler)
    assert_type(detach, Callable[[], None])
    bus.subscribe(PoolEvent, lambda event: acquired.append(event.name))
    if TYPE_CHECKING:
        bus.subscribe(ConnectionCreated, handler)  # type: ignore[arg-type]
    bus.emit(ConnectionAcquired("app.db", 1, "idle", 0.0))
    assert acquired == ["idle", "acquire_wait"]


def test_a_recorder_keeps_the_type_of_what_it_finds() -> None:
    recorder = Recorder()
    assert_type(recorder.of(ConnectionCreated), list[ConnectionCreated])
    subscriber: Subscriber = recorder
    anything: SQLiteConnectionPool[Any] = SQLiteConnectionPool(StubDriver(), subscribers=[subscriber])
    assert anything.events.handlers
