from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aiosqlitepool import PoolConnectionAcquireTimeoutError
from aiosqlitepool.events import ConnectionClosed, ConnectionCreated, ConnectionCreateFailed
from aiosqlitepool.testing import Recorder

from ..support.pools import pool_of, queued
from ..support.stub import StubConnection, StubDriver, fails, settle
from ..support.timeless import timeless


class Stubborn:
    """A script that goes on until the test says so, whoever cancels it."""

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
async def test_a_factory_that_swallows_its_cancellation_loses_its_place_and_what_it_makes_late_is_closed(
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
async def test_a_waiter_behind_a_factory_that_swallows_its_cancellation_gets_the_place(driver: StubDriver) -> None:
    driver.on_connect = stubborn = Stubborn()
    async with pool_of(driver, 1, operation_timeout=3) as pool:
        first = await queued(pool)
        driver.on_connect = None
        second = await queued(pool)
        first.cancel()
        connection = await second
        await pool.release(connection)
        stubborn.enough.set()


@timeless
async def test_an_open_does_not_wait_for_a_factory_that_swallows_its_cancellation(driver: StubDriver) -> None:
    driver.on_connect = stubborn = Stubborn()
    pool = pool_of(driver, min_size=1, operation_timeout=3)
    with pytest.raises(Exception, match="took too long"):
        await pool.open()
    stubborn.enough.set()
    await pool.close()
    assert driver.open == 0


@timeless
@pytest.mark.parametrize("outcome", [None, OSError("disk I/O error")], ids=["good", "bad"])
async def test_a_check_that_swallows_its_cancellation_costs_the_connection_and_not_the_place(
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
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    driver.on_connect = fails(OSError("disk on fire"))
    async with pool_of(driver, 1) as pool:
        caller = asyncio.create_task(pool.acquire())
        pool.events.subscribe(ConnectionCreateFailed, lambda _: caller.cancel())
        await asyncio.wait({caller})
        await settle()
        assert pool.stats().used == 0
    assert told == []


@timeless
async def test_a_preparation_that_two_give_up_on_is_done_without_once(driver: StubDriver, recorder: Recorder) -> None:
    driver.on_connect = stubborn = Stubborn()
    pool = pool_of(driver, 1, acquisition_timeout=1, operation_timeout=20, subscribers=[recorder])
    with pytest.raises(PoolConnectionAcquireTimeoutError):
        await pool.acquire()  # whoever waited gives up on it in 20 seconds, and closing sooner
    await pool.close(timeout=3)
    await asyncio.sleep(60)
    assert len(recorder.of(ConnectionCreateFailed)) == 1
    assert recorder.names[-1] == "pool_close"
    stubborn.enough.set()
    await settle()
    assert driver.open == 0
