from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolConnectionAcquireTimeoutError, PoolUsageError, SQLiteConnectionPool
from aiosqlitepool.events import ConnectionClosed, ConnectionCreated, ConnectionCreateFailed, HealthCheckFailed
from aiosqlitepool.testing import Recorder

from ..support.clock import Clock
from ..support.files import make_database
from ..support.pools import pool_of
from ..support.stub import StubConnection, StubDriver, fails, hangs, settle, waits_for
from ..support.timeless import about, timeless

# -- the factory


@timeless
async def test_what_the_factory_raises_passes_through_as_it_is(driver: StubDriver) -> None:
    class DriverError(Exception):
        pass

    failure = DriverError("no such database")

    def factory() -> Any:
        raise failure

    async with SQLiteConnectionPool(factory) as pool:
        with pytest.raises(DriverError) as caught:
            await pool.acquire()
    assert caught.value is failure
    assert caught.value.__cause__ is None


@timeless
async def test_a_factory_that_returns_no_awaitable_is_told_so(driver: StubDriver) -> None:
    factory: Any = lambda: 5  # noqa: E731
    async with SQLiteConnectionPool(factory) as pool:
        with pytest.raises(TypeError, match=r"connection_factory must return an awaitable, not 5 \(int\)"):
            await pool.acquire()


@timeless
async def test_a_factory_that_makes_something_else_is_told_what_is_missing(driver: StubDriver) -> None:
    class Half:
        execute = None

        async def rollback(self) -> None:
            raise AssertionError("never called")

    async def factory() -> Any:
        return Half()

    async with SQLiteConnectionPool(factory) as pool:
        with pytest.raises(TypeError, match=r"connection_factory made .*Half.* no execute and no close"):
            await pool.acquire()


@timeless
async def test_a_factory_that_makes_connections_of_sqlite3_is_told_to_use_aiosqlite() -> None:
    made: list[sqlite3.Connection] = []

    async def factory() -> Any:
        made.append(sqlite3.connect(":memory:"))
        return made[-1]

    async with SQLiteConnectionPool(factory) as pool:
        with pytest.raises(TypeError, match=r"made <sqlite3\.Connection .*cannot be awaited; use aiosqlite\.connect"):
            await pool.acquire()
        assert pool.stats().used == 0
    made[0].close()


@timeless
async def test_a_factory_that_makes_the_same_connection_twice_is_told_so(driver: StubDriver) -> None:
    only = StubConnection()

    async def factory() -> StubConnection:
        return only

    async with SQLiteConnectionPool(factory, 2) as pool, pool.connection() as connection:
        with pytest.raises(PoolUsageError, match=r"made .*again"):
            await pool.acquire()
        assert connection.closed == 0


async def test_the_same_connection_twice_at_the_same_time_is_refused_as_well(database: Path) -> None:
    only = await aiosqlite.connect(database)

    async def factory() -> aiosqlite.Connection:
        return only

    async with SQLiteConnectionPool(factory, 2) as pool:
        results = await asyncio.gather(pool.acquire(), pool.acquire(), return_exceptions=True)
        (lent,) = (result for result in results if isinstance(result, aiosqlite.Connection))
        (error,) = (result for result in results if isinstance(result, BaseException))
        assert isinstance(error, PoolUsageError)
        assert "which is in the pool already" in str(error)
        await (await lent.execute("SELECT 1")).close()  # it works
        await pool.release(lent)


@timeless
async def test_a_failure_to_open_is_told_with_its_time_and_its_error(driver: StubDriver, recorder: Recorder) -> None:
    async def connect() -> None:
        await asyncio.sleep(2)
        raise OSError("disk I/O error")

    driver.on_connect = connect
    async with pool_of(driver, subscribers=[recorder]) as pool:
        with pytest.raises(OSError, match="disk"):
            await pool.acquire()
    (event,) = recorder.of(ConnectionCreateFailed)
    assert (event.error.type, event.error.message) == ("OSError", "disk I/O error")
    assert event.create_time == about(2)


@timeless
async def test_a_factory_that_raises_no_ordinary_exception_is_told_of_like_any_other(
    driver: StubDriver, recorder: Recorder
) -> None:
    class Weird(BaseException):
        pass

    driver.on_connect = fails(Weird("weird"))
    async with pool_of(driver, 1, acquisition_timeout=1, subscribers=[recorder]) as pool:
        with pytest.raises(Weird):
            await pool.acquire()
        (event,) = recorder.of(ConnectionCreateFailed)
        assert event.error.message == "weird"
        driver.on_connect = hangs
        with pytest.raises(PoolConnectionAcquireTimeoutError, match="Weird: weird"):
            await pool.acquire()


@timeless
async def test_a_failure_to_open_is_told_after_the_place_is_free_again(driver: StubDriver) -> None:
    used: list[int] = []
    driver.on_connect = fails(OSError("no"))
    async with pool_of(driver) as pool:
        pool.events.subscribe(ConnectionCreateFailed, lambda _: used.append(pool.stats().used))
        with pytest.raises(OSError, match="no"):
            await pool.acquire()
    assert used == [0]


@timeless
async def test_connections_are_numbered_in_the_order_of_their_opening(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, 3, subscribers=[recorder]) as pool:
        async with pool.connection(), pool.connection(), pool.connection():
            pass
        assert [event.connection for event in recorder.of(ConnectionCreated)] == [1, 2, 3]


# -- the health check


@timeless
async def test_a_connection_idle_for_long_is_asked_before_it_is_lent(driver: StubDriver) -> None:
    async with pool_of(driver, health_check_after=1.0) as pool:
        async with pool.connection() as connection:
            pass
        await asyncio.sleep(1.5)
        async with pool.connection():
            assert connection.executed == ["SELECT 1"]


@timeless
async def test_a_connection_used_a_moment_ago_is_not_asked(driver: StubDriver) -> None:
    async with pool_of(driver, health_check_after=1.0) as pool:
        for _ in range(3):
            async with pool.connection() as connection:
                pass
            await asyncio.sleep(0.5)
        assert connection.executed == []


@timeless
async def test_with_a_health_check_after_zero_every_connection_is_asked(driver: StubDriver) -> None:
    async with pool_of(driver, health_check_after=0) as pool:
        for _ in range(3):
            async with pool.connection() as connection:
                pass
        assert connection.executed == ["SELECT 1", "SELECT 1"]


@timeless
async def test_with_a_health_check_of_none_no_connection_is_asked(driver: StubDriver) -> None:
    async with pool_of(driver, health_check_after=None) as pool:
        async with pool.connection():
            pass
        await asyncio.sleep(1000)
        async with pool.connection() as connection:
            assert connection.executed == []


@timeless
async def test_a_connection_that_does_not_answer_is_replaced(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, subscribers=[recorder]) as pool:
        async with pool.connection() as dead:
            pass
        await asyncio.sleep(5)
        dead.on_execute = fails(OSError("gone"))
        async with pool.connection() as connection:
            assert connection is driver.connections[1]
        (event,) = recorder.of(HealthCheckFailed)
        assert (event.connection, event.error.type, event.error.message) == (1, "OSError", "gone")
        assert event.idle_time == about(5)
        await settle()
        assert [event.reason for event in recorder.of(ConnectionClosed)] == ["unhealthy"]
        assert dead.closed == 1


@timeless
async def test_a_connection_that_takes_too_long_to_answer_is_replaced(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, operation_timeout=3, subscribers=[recorder]) as pool:
        async with pool.connection() as stuck:
            pass
        await asyncio.sleep(5)
        stuck.on_execute = hangs
        async with pool.connection() as connection:
            assert connection is driver.connections[1]
        (event,) = recorder.of(HealthCheckFailed)
        assert event.error.type == "TimeoutError"


@timeless
@pytest.mark.parametrize(
    ("script", "said"),
    [
        (hangs, "TimeoutError: it did not answer within 3 s"),
        (fails(OSError("gone")), "OSError: gone"),
        (fails(ValueError()), "ValueError"),
    ],
)
async def test_what_a_check_found_is_told_and_logged_with_its_kind(
    driver: StubDriver, recorder: Recorder, caplog: pytest.LogCaptureFixture, script: Any, said: str
) -> None:
    async with pool_of(driver, operation_timeout=3, subscribers=[recorder]) as pool:
        async with pool.connection() as bad:
            pass
        await asyncio.sleep(5)
        bad.on_execute = script
        async with pool.connection():
            pass
    (event,) = recorder.of(HealthCheckFailed)
    assert str(event.error) == said
    assert f"connection 1 is unhealthy: {said}" in caplog.text


@timeless
async def test_when_both_the_check_and_the_opening_fail_the_caller_gets_the_drivers_error(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as pool:
        async with pool.connection() as dead:
            pass
        await asyncio.sleep(5)
        dead.on_execute, driver.on_connect = fails(OSError("gone")), fails(OSError("no new one"))
        with pytest.raises(OSError, match="no new one"):
            await pool.acquire()
        assert (pool.stats().used, pool.stats().idle) == (0, 0)


@timeless
async def test_a_check_that_ends_after_its_caller_left_makes_the_connection_idle(driver: StubDriver) -> None:
    answered = asyncio.Event()
    async with pool_of(driver, 1) as pool:
        async with pool.connection() as connection:
            pass
        await asyncio.sleep(5)
        connection.on_execute = waits_for(answered)
        caller = asyncio.create_task(pool.acquire())
        await settle()
        caller.cancel()
        await settle()
        answered.set()
        await settle()
        assert (pool.stats().used, pool.stats().idle, driver.attempts) == (0, 1, 1)


@timeless
async def test_a_check_that_is_given_up_costs_the_connection_its_place(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, 1, operation_timeout=10, subscribers=[recorder]) as pool:
        async with pool.connection() as stuck:
            pass
        await asyncio.sleep(5)
        stuck.on_execute = hangs
        caller = asyncio.create_task(pool.acquire())
        await settle()
        caller.cancel()
        await asyncio.sleep(11)
        assert (pool.stats().used, stuck.closed) == (0, 1)
        assert len(recorder.of(ConnectionClosed)) == 1


# -- the file under the connection, which only the aiosqlite link can watch


def replace(path: Path) -> None:
    """Put another database in its place, as restoring a backup does."""
    other = make_database(path.with_name("other.db"), "restored")
    os.replace(other, path)


@pytest.mark.parametrize("change", [replace, Path.unlink], ids=["replaced", "deleted"])
async def test_a_changed_file_is_noticed_before_lending(
    database: Path, clock: Clock, recorder: Recorder, change: Any
) -> None:
    async with SQLiteConnectionPool(
        lambda: aiosqlite.connect(database), 1, idle_timeout=None, clock=clock, subscribers=[recorder]
    ) as pool:
        async with pool.connection() as before:
            pass
        change(database)
        clock.advance(2)
        async with pool.connection() as after:
            assert after is not before
        (event,) = recorder.of(HealthCheckFailed)
        assert str(database) in event.error.message
        assert event.idle_time == 2.0
    assert {event.connection: event.reason for event in recorder.of(ConnectionClosed)} == {
        1: "unhealthy",
        2: "pool_closed",
    }


@pytest.mark.parametrize("change", [replace, Path.unlink], ids=["replaced", "deleted"])
async def test_a_changed_file_is_noticed_at_return_when_nothing_is_ever_idle(
    database: Path, clock: Clock, recorder: Recorder, change: Any
) -> None:
    async with SQLiteConnectionPool(
        lambda: aiosqlite.connect(database), 1, idle_timeout=None, clock=clock, subscribers=[recorder]
    ) as pool:
        async with pool.connection() as before:
            waiter = asyncio.create_task(pool.acquire())
            await settle()
            change(database)
            clock.advance(2)
        after = await waiter
        assert after is not before
        assert len(recorder.of(HealthCheckFailed)) == 1
        await pool.release(after)


async def test_readers_see_the_restored_file(clock: Clock, database: Path) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, idle_timeout=None, clock=clock) as pool:
        async with pool.connection() as connection:
            assert list(await connection.execute_fetchall("SELECT text FROM note")) == []
        replace(database)
        clock.advance(2)
        async with pool.connection() as connection:
            assert list(await connection.execute_fetchall("SELECT text FROM note")) == [("restored",)]


async def test_a_file_that_stays_is_no_reason_to_replace_anything(
    database: Path, clock: Clock, recorder: Recorder
) -> None:
    async with SQLiteConnectionPool(
        lambda: aiosqlite.connect(database), 1, idle_timeout=None, clock=clock, subscribers=[recorder]
    ) as pool:
        for _ in range(3):
            async with pool.connection():
                clock.advance(2)
            clock.advance(2)
        assert recorder.of(HealthCheckFailed) == []
        assert len(recorder.of(ConnectionCreated)) == 1


async def test_a_database_in_memory_has_no_file_to_lose(clock: Clock, recorder: Recorder) -> None:
    async with SQLiteConnectionPool(
        lambda: aiosqlite.connect(":memory:"), 1, idle_timeout=None, clock=clock, subscribers=[recorder]
    ) as pool:
        for _ in range(3):
            async with pool.connection():
                clock.advance(2)
            clock.advance(2)
        assert recorder.of(HealthCheckFailed) == []


async def test_an_unhealthy_connection_found_at_return_is_told_after_it_has_left(database: Path, clock: Clock) -> None:
    seen: list[tuple[int, int]] = []
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, idle_timeout=None, clock=clock) as pool:
        pool.events.subscribe(HealthCheckFailed, lambda _: seen.append((pool.stats().used, pool.stats().idle)))
        async with pool.connection():
            replace(database)
            clock.advance(2)
    assert seen == [(0, 0)]
