"""What a type checker knows of the pool. `mypy tests` is the test; running it shows that the types are true."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

import aiosqlite
import pytest
import turso.aio
from prometheus_client import CollectorRegistry

from aiosqlitepool import (
    Connection,
    Executed,
    Holder,
    PoolConnectionAcquireTimeoutError,
    PoolError,
    PoolStats,
    PoolUsageError,
    SQLiteConnectionPool,
    SQLiteDatabase,
    Subscriber,
    Waiter,
    subscribe_all,
)
from aiosqlitepool.bus import EventBus
from aiosqlitepool.database import Step
from aiosqlitepool.debug import DebugApp
from aiosqlitepool.events import (
    AcquireSlow,
    AcquireTimedOut,
    ConnectionAcquired,
    ConnectionClosed,
    ConnectionCreated,
    ErrorInfo,
    HealthCheckFailed,
    PoolEvent,
    RolledBackOnReturn,
    event_types,
)
from aiosqlitepool.subscribers.opentelemetry import OpenTelemetrySubscriber
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber
from aiosqlitepool.subscribers.structlog import StructlogSubscriber
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
async def test_a_lease_is_nothing_to_await_or_to_execute_with(driver: StubDriver) -> None:
    async with SQLiteConnectionPool(driver) as pool:
        with pytest.raises(PoolUsageError):
            await pool.connection()  # type: ignore[misc]
        with pytest.raises(PoolUsageError), pool.connection():  # type: ignore[attr-defined]
            pass
        with pytest.raises(AttributeError):
            pool.connection().execute  # type: ignore[attr-defined] # noqa: B018


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
    # A lambda knows what it is given: `Any` here would let a misspelt field through.
    bus.subscribe(ConnectionClosed, lambda event: assert_type(event, ConnectionClosed))
    bus.subscribe(ConnectionAcquired, lambda event: assert_type(event.wait_time, float))
    bus.emit(ConnectionAcquired("app.db", 1, "idle", 0.0))
    assert acquired == ["idle", "acquire_wait"]


def test_a_recorder_keeps_the_type_of_what_it_finds() -> None:
    recorder = Recorder()
    assert_type(recorder.of(ConnectionCreated), list[ConnectionCreated])
    subscriber: Subscriber = recorder
    anything: SQLiteConnectionPool[Any] = SQLiteConnectionPool(StubDriver(), subscribers=[subscriber])
    assert anything.events.handlers
    assert_type(recorder.names, list[str])
    for event in recorder:
        assert_type(event, PoolEvent)
    assert_type(anything.subscribe(recorder), Callable[[], None])


@timeless
async def test_no_any_leaks_from_what_a_pool_lends(driver: StubDriver) -> None:
    pool = SQLiteConnectionPool(driver)
    if TYPE_CHECKING:
        # Any has every attribute: were it lent, these comments would be unused, which is an error.
        async with pool.connection() as lent:
            lent.no_such_method()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        (await pool.acquire()).no_such_method()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        await pool.release("no connection")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await pool.open(), None)
    assert_type(await pool.close(timeout=1.5), None)


def test_a_snapshot_is_made_of_numbers_and_names() -> None:
    stats = SQLiteConnectionPool(StubDriver(), name="app.db").stats()
    assert_type(stats.pool, str)
    assert_type(stats.used, int)
    assert_type(stats.size, int)
    assert_type(stats.oldest_waiter, float)
    assert_type(stats.subscriber_errors, int)
    assert (stats.pool, stats.size) == ("app.db", 0)


def test_holders_and_waiters_tell_who_and_how_long() -> None:
    holder, waiter = Holder(1, "Task-1", None, 0.5), Waiter("Task-2", "GET /users", 0.25)
    assert_type(holder.connection, int)
    assert_type(holder.label, str | None)
    assert_type(holder.held, float)
    assert_type(waiter.task, str)
    assert_type(waiter.waited, float)
    assert holder.held > waiter.waited


def test_an_event_s_fields_have_types() -> None:
    if TYPE_CHECKING:
        from aiosqlitepool.events import AcquirePath, CloseReason, RollbackCause

        def look(
            acquired: ConnectionAcquired,
            slow: AcquireSlow,
            timed_out: AcquireTimedOut,
            closed: ConnectionClosed,
            failed: HealthCheckFailed,
            rolled_back: RolledBackOnReturn,
        ) -> None:
            assert_type(acquired.path, AcquirePath)
            assert_type(slow.holders, tuple[Holder, ...])
            assert_type(timed_out.holders, tuple[Holder, ...])
            assert_type(closed.reason, CloseReason)
            assert_type(failed.error, ErrorInfo)
            assert_type(rolled_back.cause, RollbackCause)

    assert_type(event_types(), tuple[type[PoolEvent], ...])
    assert ConnectionAcquired in event_types()


def test_a_timeout_carries_its_diagnosis() -> None:
    error = PoolConnectionAcquireTimeoutError()
    assert_type(error.waited, float)
    assert_type(error.stats, PoolStats | None)
    assert_type(error.holders, tuple[Holder, ...])
    assert_type(error.message, str)
    parents: tuple[PoolError, TimeoutError] = (error, error)
    assert parents == (error, error)


def test_what_is_shipped_for_watching_watches_any_pool(driver: StubDriver) -> None:
    pool = SQLiteConnectionPool(driver)
    shipped: tuple[Subscriber, ...] = (
        PrometheusSubscriber(CollectorRegistry()),
        OpenTelemetrySubscriber(),
        StructlogSubscriber(),
    )
    for subscriber in shipped:
        detach = pool.subscribe(subscriber)
        assert_type(detach, Callable[[], None])
        detach()
    if TYPE_CHECKING:
        pool.subscribe(print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(subscribe_all(Recorder()), Callable[[], None])()


def test_the_debug_app_takes_pools_of_any_kind(driver: StubDriver) -> None:
    app = DebugApp(SQLiteConnectionPool(driver), stacks=True)
    if TYPE_CHECKING:
        DebugApp("app.db")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert callable(app)


def _text(_: sqlite3.Cursor, row: tuple[Any, ...]) -> str:
    return f"<{row[0]}>"


async def test_single_statements_return_what_a_row_factory_makes(database: Path) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database)) as pool, SQLiteDatabase(database) as db:
        for each in (pool, db):
            assert_type(await each.execute("INSERT INTO note (text) VALUES (?)", ("a",)), Executed)
            assert_type(await each.fetch_all("SELECT text FROM note", row_factory=_text), list[str])
            assert_type(await each.fetch_all("SELECT text FROM note WHERE id = :id", {"id": 1}), list[Any])
            assert_type(await each.fetch_one("SELECT text FROM note", row_factory=sqlite3.Row), sqlite3.Row | None)
            assert_type(await each.fetch_one("SELECT text FROM note"), Any | None)
            assert_type(await each.fetch_val("SELECT count(*) FROM note"), Any)
        assert await pool.fetch_one("SELECT text FROM note", row_factory=_text) == "<a>"
        if TYPE_CHECKING:
            await pool.fetch_all("SELECT 1", 1)  # type: ignore[arg-type]  # pyright: ignore
            await pool.execute("SELECT 1", label=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def _count(native: sqlite3.Connection, least: int) -> list[str]:
    return [name for (name,) in native.execute("SELECT text FROM note WHERE id >= ?", (least,))]


async def test_a_database_returns_what_its_functions_return(database: Path) -> None:
    async with SQLiteDatabase(database) as db:
        assert_type(db, SQLiteDatabase)
        assert_type(await db.run_read(_count, 0), list[str])
        assert_type(await db.run_write(_count, 0), list[str])
        assert_type(db.writer, SQLiteConnectionPool[aiosqlite.Connection])
        steps: list[Step] = ["SELECT 1", ["SELECT 1"], Path("missing.sql"), lambda native: native.execute("SELECT 1")]
        assert_type(await db.migrate(steps[:2]), int)
        for block in (db.read(), db.write(), db.maintenance()):
            async with block as connection:
                assert_type(connection, aiosqlite.Connection)
        if TYPE_CHECKING:
            await db.run_read(_count, "0")  # type: ignore[arg-type]
            await db.run_read(_count)  # type: ignore[arg-type]
