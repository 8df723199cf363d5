"""SQLAlchemy's records and events of connections that a pool keeps."""

from __future__ import annotations

import asyncio
import gc
import logging
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import event, exc, text
from sqlalchemy.ext.asyncio import AsyncEngine

from aiosqlitepool import PoolFullError, SQLiteConnectionPool, SQLiteDatabase
from aiosqlitepool.events import ConnectionClosed, ConnectionCreated, LeakSuspected
from aiosqlitepool.sqlalchemy import create_async_engine
from aiosqlitepool.testing import Recorder

from ..support.stub import StubDriver
from .models import ENDLESS

EVENTS = ("connect", "checkout", "checkin", "reset", "invalidate", "soft_invalidate", "close", "close_detached")


def heard(engine: AsyncEngine) -> list[str]:
    """The names of SQLAlchemy's pool events, from now on."""
    names: list[str] = []

    def listen(name: str) -> None:
        event.listen(engine.sync_engine, name, lambda *_: names.append(name))

    for name in EVENTS:
        listen(name)
    return names


async def use(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def closed(events: Recorder) -> list[ConnectionClosed]:
    """What the pool has closed. It closes a connection that was given up in a task of its own."""
    async with asyncio.timeout(60):
        while not events.of(ConnectionClosed):
            await asyncio.sleep(0)
    return events.of(ConnectionClosed)


async def cancelled(engine: AsyncEngine, sql: str = ENDLESS) -> None:
    """Cancel a statement that runs."""
    begun = asyncio.Event()

    async def run() -> None:
        async with engine.connect() as connection:
            begun.set()
            await connection.execute(text(sql))

    task = asyncio.create_task(run())
    await begun.wait()
    for _ in range(5):
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_events_of_a_checkout_are_those_of_sqlalchemy(engine: AsyncEngine) -> None:
    names = heard(engine)
    await use(engine)
    assert names[-3:] == ["checkout", "reset", "checkin"]


async def test_a_connection_connects_once_for_all_its_leases(tmp_path: Path) -> None:
    engine = create_async_engine(tmp_path / "a.db")
    names = heard(engine)
    for _ in range(3):
        await use(engine)
    assert names.count("connect") == 1
    await engine.dispose()
    assert names.count("close") == 1


async def test_what_a_listener_of_connect_sets_stays(tmp_path: Path) -> None:
    engine = create_async_engine(tmp_path / "a.db")

    @event.listens_for(engine.sync_engine, "connect")
    def set_pragma(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    await use(engine)
    async with engine.connect() as connection:
        assert (await connection.execute(text("PRAGMA foreign_keys"))).scalar_one() == 1
    await engine.dispose()


async def test_a_listener_of_connect_that_fails_costs_no_slot(
    over_pool: AsyncEngine, pool: SQLiteConnectionPool
) -> None:
    pool.expire_connections()

    @event.listens_for(over_pool.sync_engine, "connect")
    def fail(*_: object) -> None:
        raise LookupError("not today")

    for _ in range(3):
        with pytest.raises(LookupError, match="not today"):
            await use(over_pool)
    event.remove(over_pool.sync_engine, "connect", fail)
    await use(over_pool)
    assert pool.stats().used == 0


@pytest.mark.usefixtures("patient")
async def test_a_cancelled_statement_costs_no_connection(tmp_path: Path) -> None:
    events = Recorder()
    engine = create_async_engine(tmp_path / "a.db", pool_settings={"subscribers": [events]})
    names = heard(engine)
    await cancelled(engine)
    await use(engine)
    assert len(events.of(ConnectionCreated)) == 1
    assert not events.of(ConnectionClosed)
    assert [name for name in names if name in {"connect", "invalidate", "close"}] == [
        "connect", "invalidate", "close", "connect",
    ]  # fmt: skip
    await engine.dispose()


@pytest.mark.usefixtures("patient")
async def test_a_waiter_that_gets_the_connection_of_a_cancelled_statement_gives_it_back(tmp_path: Path) -> None:
    engine = create_async_engine(tmp_path / "a.db", pool_size=1, max_overflow=0)
    names = heard(engine)

    async def use_it() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            kept.append(connection.sync_connection)

    kept: list[Any] = []  # not by the garbage collector
    cancelling = asyncio.create_task(cancelled(engine))
    await asyncio.sleep(0.01)
    await asyncio.gather(cancelling, use_it(), use_it())
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await use(engine)
    assert [name for name in names if name in {"connect", "invalidate", "close"}] == [
        "connect", "invalidate", "close", "connect",
    ]  # fmt: skip
    await engine.dispose()


@pytest.mark.usefixtures("patient")
async def test_a_cancelled_statement_of_a_database_costs_no_connection(
    over_db: AsyncEngine, db: SQLiteDatabase
) -> None:
    events = Recorder()
    db.subscribe(events)
    await cancelled(over_db)
    await cancelled(over_db, f"INSERT INTO note (text) SELECT ({ENDLESS})")
    await use(over_db)
    assert not events.of(ConnectionClosed)
    assert db.writer.stats().used == db.readers.stats().used == 0


async def test_a_cancelled_connection_in_memory_is_stopped_and_closed() -> None:
    engine = create_async_engine("sqlite://")
    await cancelled(engine)
    await use(engine)
    await engine.dispose()


@pytest.mark.usefixtures("patient")
async def test_after_a_cancellation_the_isolation_level_is_what_it_was(
    over_pool: AsyncEngine, pool: SQLiteConnectionPool
) -> None:
    await cancelled(over_pool.execution_options(isolation_level="AUTOCOMMIT"))
    async with over_pool.connect() as connection:
        await connection.execute(text("INSERT INTO note (text) VALUES ('a')"))
        await connection.rollback()
        assert (await connection.execute(text("SELECT count(*) FROM note"))).scalar_one() == 0


async def test_a_connection_that_is_invalidated_is_replaced(over_pool: AsyncEngine, pool: SQLiteConnectionPool) -> None:
    events = Recorder()
    pool.subscribe(events)
    async with over_pool.connect() as connection:
        await connection.invalidate()
        assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1  # with another one
    assert len(await closed(events)) == 1
    assert pool.stats().used == 0


async def test_a_connection_that_was_softly_invalidated_is_replaced_when_it_is_wanted_again(
    over_pool: AsyncEngine, pool: SQLiteConnectionPool
) -> None:
    events = Recorder()
    pool.subscribe(events)
    async with over_pool.connect() as connection:
        (await connection.get_raw_connection()).invalidate(soft=True)
    assert not events.of(ConnectionClosed)
    await asyncio.sleep(0.01)  # SQLAlchemy compares times
    await use(over_pool)
    assert len(await closed(events)) == 1


async def test_a_connection_that_was_closed_under_its_holder_is_replaced(
    over_pool: AsyncEngine, pool: SQLiteConnectionPool
) -> None:
    async with over_pool.connect() as connection:
        await (await connection.get_raw_connection()).driver_connection.close()  # type: ignore[union-attr]
        with pytest.raises(exc.OperationalError, match="(?i)connection closed|no active connection") as caught:
            await connection.execute(text("SELECT 1"))
        assert caught.value.connection_invalidated
    await use(over_pool)
    assert pool.stats().used == 0


async def test_a_detached_connection_is_closed_when_its_holder_closes_it(
    over_pool: AsyncEngine, pool: SQLiteConnectionPool
) -> None:
    names = heard(over_pool)
    connection = await over_pool.connect()
    (await connection.get_raw_connection()).detach()
    assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
    assert pool.stats().used == 1
    await connection.close()
    assert (pool.stats().used, pool.stats().idle) == (0, 0)
    assert "close_detached" in names
    await use(over_pool)


async def test_a_connection_that_the_pool_replaces_is_closed_for_sqlalchemy_too(
    over_pool: AsyncEngine, pool: SQLiteConnectionPool
) -> None:
    names = heard(over_pool)
    pool.expire_connections()
    while "close" not in names:
        await asyncio.sleep(0)
    await use(over_pool)
    assert [name for name in names if name in {"connect", "close"}] == ["close", "connect"]


async def test_a_connection_that_the_pool_takes_from_its_holder_is_closed_when_it_comes_back(
    over_pool: AsyncEngine, pool: SQLiteConnectionPool
) -> None:
    names = heard(over_pool)
    connection = await over_pool.connect()
    with pytest.warns(ResourceWarning, match="closed connections under their holders"):
        await pool.close(timeout=0)
    assert "close" not in names
    await connection.close()
    assert "close" in names


async def test_a_connection_that_is_forgotten_comes_back_and_is_reported(
    over_pool: AsyncEngine, pool: SQLiteConnectionPool, caplog: pytest.LogCaptureFixture
) -> None:
    events = Recorder()
    pool.subscribe(events)
    with pytest.warns(exc.SAWarning, match="garbage collector"), caplog.at_level(logging.WARNING):
        connection: Any = await over_pool.connect()
        del connection
        gc.collect()
        while pool.stats().used:
            await asyncio.sleep(0.001)
    assert events.of(LeakSuspected)
    await use(over_pool)


async def test_a_connection_of_a_database_that_is_forgotten_comes_back(
    over_db: AsyncEngine, db: SQLiteDatabase
) -> None:
    with pytest.warns(exc.SAWarning, match="garbage collector"):
        connection: Any = await over_db.connect()
        await connection.execute(text("INSERT INTO note (text) VALUES ('never')"))
        del connection
        gc.collect()
        while db.writer.stats().used:
            await asyncio.sleep(0.001)
    async with over_db.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM note"))).scalar_one() == 0


async def test_a_connection_that_is_wanted_in_vain_is_a_timeout_of_sqlalchemy_with_a_diagnosis(
    over_path: AsyncEngine, tmp_path: Path
) -> None:
    engine = create_async_engine(tmp_path / "a.db", pool_size=1, max_overflow=0, pool_timeout=0)
    async with engine.execution_options(label="the culprit").connect() as connection:
        await connection.execute(text("SELECT 1"))
        with pytest.raises(exc.TimeoutError, match="the culprit"):
            await use(engine)
    await engine.dispose()


async def test_a_queue_that_is_full_is_a_timeout_of_sqlalchemy(tmp_path: Path) -> None:
    engine = create_async_engine(tmp_path / "a.db", pool_size=1, max_overflow=0, pool_settings={"max_waiting": 0})
    async with engine.connect():
        with pytest.raises(exc.TimeoutError) as caught:
            await use(engine)
        assert isinstance(caught.value.__cause__, PoolFullError)
    await engine.dispose()


async def test_two_engines_share_the_connections_of_one_pool(pool: SQLiteConnectionPool) -> None:
    engines = [create_async_engine(pool) for _ in range(2)]
    for engine in engines:
        await use(engine)
    assert pool.stats().idle == 1


async def test_a_pool_of_another_driver_is_refused(driver: StubDriver) -> None:
    async with SQLiteConnectionPool(driver, 1) as stubs:
        engine = create_async_engine(stubs)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="SQLAlchemy needs a pool of aiosqlite connections, not of Stub"):
            await use(engine)
        assert stubs.stats().used == 0


async def test_a_database_keeps_a_hundred_idle_connections_that_hold_nothing(over_db: AsyncEngine) -> None:
    names = heard(over_db)
    open_at_once = [await over_db.connect() for _ in range(120)]
    for connection in open_at_once:
        await connection.close()
    connects = names.count("connect")
    open_at_once = [await over_db.connect() for _ in range(100)]
    assert names.count("connect") == connects
    for connection in open_at_once:
        await connection.close()


async def test_a_factory_that_fails_is_an_error_of_sqlalchemy(tmp_path: Path) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(tmp_path / "nowhere" / "a.db")) as failing:
        with pytest.raises(exc.OperationalError, match="unable to open database file"):
            await use(create_async_engine(failing))


async def test_a_listener_of_checkout_may_ask_for_another_connection(
    over_pool: AsyncEngine, pool: SQLiteConnectionPool
) -> None:
    async with over_pool.connect(), over_pool.connect():
        pass
    assert pool.stats().idle == 2
    names = heard(over_pool)
    refused: list[Any] = []

    @event.listens_for(over_pool.sync_engine, "checkout")
    def refuse(connection: Any, *_: object) -> None:
        if not refused:
            refused.append(connection)
            raise exc.DisconnectionError

    await use(over_pool)
    assert names.count("connect") == 1
    assert pool.stats().used == 0
    for _ in range(2):
        async with over_pool.connect(), over_pool.connect():
            pass
    assert pool.stats().idle == 2


async def test_an_engine_that_was_never_used_can_be_disposed_of(pool: SQLiteConnectionPool, tmp_path: Path) -> None:
    for target in (pool, tmp_path / "a.db"):
        await create_async_engine(target).dispose()
    assert not (tmp_path / "a.db").exists()
