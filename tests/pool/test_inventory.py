from __future__ import annotations

import asyncio
import contextlib
from contextvars import ContextVar
from typing import Any

import pytest

from aiosqlitepool import PoolConnectionAcquireTimeoutError
from aiosqlitepool.events import ConnectionClosed, ConnectionCreated, ConnectionCreateFailed
from aiosqlitepool.testing import Recorder

from ..support.pools import in_turn, pool_of, queued
from ..support.stub import StubConnection, StubDriver, fails, hangs, settle, waits_for
from ..support.timeless import timeless


class Stubborn:
    """A script that swallows every cancellation and goes on until the test ends it."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.enough = asyncio.Event()

    async def __call__(self, *_: object) -> None:
        while not self.enough.is_set():
            try:
                await self.enough.wait()
            except asyncio.CancelledError:
                self.cancelled += 1


@timeless
async def test_a_factory_that_swallows_its_cancellation_loses_its_slot_and_what_it_makes_late_is_closed(
    driver: StubDriver, recorder: Recorder
) -> None:
    driver.on_connect = stubborn = Stubborn()
    async with pool_of(driver, 1, acquisition_timeout=1, operation_timeout=3, subscribers=[recorder]) as pool:
        with pytest.raises(PoolConnectionAcquireTimeoutError):
            await pool.acquire()
        driver.on_connect = None
        await asyncio.sleep(7)
        assert (stubborn.cancelled, pool.stats().used) == (1, 0)
        assert len(recorder.of(ConnectionCreateFailed)) == 1

        async with pool.connection() as connection:
            stubborn.enough.set()
            await settle()
            late = driver.connections[-1]
            assert late is not connection
            assert (late.closed, connection.closed, pool.stats().size) == (1, 0, 1)
    assert [event.connection for event in recorder.of(ConnectionCreated)] == [1]
    assert [event.connection for event in recorder.of(ConnectionClosed)] == [1]


@timeless
async def test_a_waiter_behind_a_factory_that_swallows_its_cancellation_gets_the_slot(driver: StubDriver) -> None:
    driver.on_connect = stubborn = Stubborn()
    async with pool_of(driver, 1, operation_timeout=3) as pool:
        first = await queued(pool)
        driver.on_connect = None
        second = await queued(pool)
        first.cancel()
        try:
            await pool.release(await second)
        finally:
            stubborn.enough.set()


@timeless
async def test_a_factory_that_hangs_does_not_keep_its_slot_for_ever_while_new_callers_come(driver: StubDriver) -> None:
    served: list[str] = []

    async def caller(name: str) -> None:
        with contextlib.suppress(PoolConnectionAcquireTimeoutError):
            async with pool.connection():
                served.append(name)

    driver.on_connect = hangs
    async with pool_of(driver, 1, acquisition_timeout=2, operation_timeout=3) as pool:
        callers = [asyncio.create_task(caller("first"))]
        await settle()
        driver.on_connect = None  # only the first attempt hangs
        for number in range(2, 60):
            await asyncio.sleep(1)
            callers.append(asyncio.create_task(caller(f"caller {number}")))
        await asyncio.wait(callers)
    assert len(served) > 40, "callers time out one after another while a hanging attempt keeps the only slot"


@timeless
async def test_a_slow_factory_has_as_long_as_a_caller_waits(driver: StubDriver) -> None:
    async def connect() -> None:
        await asyncio.sleep(20)

    driver.on_connect = connect
    async with pool_of(driver, 1, operation_timeout=3) as pool:
        async with pool.connection() as connection:
            assert connection is driver.connections[0]
    assert driver.attempts == 1


@timeless
@pytest.mark.parametrize("outcome", [None, OSError("disk I/O error")], ids=["good", "bad"])
async def test_a_check_that_swallows_its_cancellation_costs_the_connection_and_not_the_slot(
    driver: StubDriver, outcome: OSError | None, recorder: Recorder
) -> None:
    stubborn = Stubborn()

    async def check(_: StubConnection) -> None:
        await stubborn()
        if outcome is not None:
            raise outcome

    settings: dict[str, Any] = {"acquisition_timeout": 1, "operation_timeout": 3, "health_check_after": 0}
    async with pool_of(driver, 1, subscribers=[recorder], **settings) as pool:
        async with pool.connection() as first:
            first.on_execute = check
        with pytest.raises(PoolConnectionAcquireTimeoutError):
            await pool.acquire()
        await asyncio.sleep(7)
        async with pool.connection() as second:
            assert second is not first
            stubborn.enough.set()
            await settle()
            assert (first.closed, second.closed, pool.stats().size) == (1, 0, 1)
    assert [event.reason for event in recorder.of(ConnectionClosed)] == ["broken", "pool_closed"]


@timeless
async def test_a_handler_of_the_failure_may_cancel_the_caller(driver: StubDriver) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    driver.on_connect = fails(OSError("disk on fire"))
    async with pool_of(driver, 1) as pool:
        caller = asyncio.create_task(pool.acquire())
        pool.events.subscribe(ConnectionCreateFailed, lambda _: caller.cancel())
        await asyncio.wait({caller})
        await settle()
        assert pool.stats().used == 0
    assert complaints == []


@timeless
async def test_a_preparation_that_is_given_up_twice_ends_once(driver: StubDriver, recorder: Recorder) -> None:
    driver.on_connect = stubborn = Stubborn()
    pool = pool_of(driver, 1, acquisition_timeout=1, operation_timeout=20, subscribers=[recorder])
    with pytest.raises(PoolConnectionAcquireTimeoutError):
        await pool.acquire()  # the housekeeper gives up what it waited for in 20 seconds, and closing sooner
    closing = asyncio.create_task(pool.close(timeout=3))
    try:
        await asyncio.wait({closing}, timeout=60)
        assert closing.done(), "a factory that swallows its cancellation keeps the pool from closing"
    finally:
        stubborn.enough.set()
    await asyncio.sleep(60)
    assert len(recorder.of(ConnectionCreateFailed)) == 1
    assert recorder.names[-1] == "pool_close"
    assert driver.open == 0


# -- one queue, fed by preparations


@timeless
async def test_a_waiter_gets_the_first_connection_that_is_free_or_opened(driver: StubDriver) -> None:
    async with pool_of(driver, 2) as pool:
        held = await pool.acquire()
        opening = asyncio.Event()
        driver.on_connect = waits_for(opening)
        first, second = await in_turn(pool, 2)
        await pool.release(held)
        assert await first is held
        opening.set()
        assert await second is driver.connections[1]
        assert driver.attempts == 2
        await pool.release(first.result())
        await pool.release(second.result())


@timeless
async def test_a_connection_opened_for_a_caller_that_left_is_kept(driver: StubDriver) -> None:
    driver.on_connect = waits_for(opening := asyncio.Event())
    async with pool_of(driver, 1) as pool:
        caller = await queued(pool)
        caller.cancel()
        await settle()
        assert (pool.stats().used, pool.stats().waiting) == (1, 0)
        opening.set()
        await settle()
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@timeless
async def test_a_failure_to_open_goes_to_the_oldest_waiter_and_another_attempt_serves_the_next(
    driver: StubDriver,
) -> None:
    opening = asyncio.Event()

    async def connect() -> None:
        if driver.attempts == 1:
            await opening.wait()
            raise OSError("disk I/O error")

    driver.on_connect = connect
    async with pool_of(driver, 1) as pool:
        first, second = await in_turn(pool, 2)
        opening.set()
        await settle()
        assert isinstance(first.exception(), OSError)
        assert await second is driver.connections[0]
        assert driver.attempts == 2
        await pool.release(second.result())


@timeless
async def test_when_a_connection_breaks_another_is_opened_for_the_waiter(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        waiter = await queued(pool)
        held.on_rollback = fails(OSError("broken"))
        await pool.release(held)
        assert await waiter is driver.connections[1]
        await pool.release(waiter.result())


@timeless
async def test_no_more_connections_are_opened_than_callers_wait(driver: StubDriver) -> None:
    driver.on_connect = waits_for(opening := asyncio.Event())
    async with pool_of(driver, 5) as pool:
        callers = await in_turn(pool, 3)
        assert (driver.attempts, pool.stats().used) == (3, 3)
        assert len(pool._inventory._preparing) == 3
        opening.set()
        connections = await asyncio.gather(*callers)
        assert len(set(connections)) == 3
        assert not pool._inventory._preparing
        for connection in connections:
            await pool.release(connection)


@timeless
async def test_every_emptied_slot_is_filled_again_for_those_who_wait(driver: StubDriver) -> None:
    async with pool_of(driver, 2) as pool:
        held = [await pool.acquire(), await pool.acquire()]
        waiters = await in_turn(pool, 3)
        for connection in held:
            connection.on_rollback = fails(OSError("broken"))
            await pool.release(connection)
        await settle()
        assert [waiter.done() for waiter in waiters] == [True, True, False]
        assert driver.attempts == 4
        await pool.release(waiters[0].result())
        assert await waiters[2] is waiters[0].result()
        await pool.release(waiters[1].result())
        await pool.release(waiters[2].result())


@timeless
async def test_a_connection_is_opened_in_the_context_of_the_caller_that_waits(driver: StubDriver) -> None:
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[str] = []

    async def connect() -> None:
        seen.append(request.get())

    async def caller(name: str) -> None:
        request.set(name)
        connection = await pool.acquire()
        connection.on_rollback = fails(OSError("broken"))
        request.set("another")
        await asyncio.sleep(1)
        await pool.release(connection)

    driver.on_connect = connect
    async with pool_of(driver, 1) as pool:
        await asyncio.gather(caller("first"), caller("second"))
    assert seen == ["first", "second"]
