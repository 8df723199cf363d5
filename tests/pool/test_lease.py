from __future__ import annotations

import asyncio

import pytest

from aiosqlitepool import PoolUsageError

from ..support.pools import pool_of, queued
from ..support.stub import StubDriver, settle
from ..support.timeless import timeless


@timeless
async def test_a_block_lends_the_very_object_that_the_factory_returned(driver: StubDriver) -> None:
    async with pool_of(driver) as pool, pool.connection() as connection:
        assert connection is driver.connections[0]


@timeless
async def test_leaving_a_block_gives_the_connection_back(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        async with pool.connection():
            assert pool.stats().used == 1
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@timeless
async def test_an_error_in_a_block_passes_through_and_gives_the_connection_back(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        with pytest.raises(ZeroDivisionError):
            async with pool.connection():
                raise ZeroDivisionError
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@timeless
async def test_a_cancellation_in_a_block_passes_through_and_gives_the_connection_back(driver: StubDriver) -> None:
    async def work() -> None:
        async with pool.connection():
            await asyncio.Event().wait()

    async with pool_of(driver) as pool:
        task = asyncio.create_task(work())
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@timeless
async def test_nothing_is_taken_before_the_block_is_entered(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        pool.connection()
        assert pool.stats().used == 0


@timeless
async def test_a_lease_cannot_be_entered_while_it_is_in_use(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        lease = pool.connection()
        async with lease:
            with pytest.raises(PoolUsageError, match="one block only"):
                await lease.__aenter__()
            assert pool.stats().used == 1
        assert pool.stats().used == 0


@timeless
async def test_a_lease_cannot_be_entered_while_it_waits(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        lease = pool.connection()
        waiting = asyncio.create_task(lease.__aenter__())
        await settle()
        second = asyncio.create_task(lease.__aenter__())
        await settle()
        await pool.release(held)
        await waiting
        with pytest.raises(PoolUsageError):
            await second
        await lease.__aexit__(None, None, None)
        assert pool.stats().used == 0


@timeless
async def test_a_lease_that_was_never_entered_cannot_be_left(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        with pytest.raises(PoolUsageError, match="holds no connection"):
            await pool.connection().__aexit__(None, None, None)


@timeless
async def test_a_lease_cannot_be_left_twice(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        lease = pool.connection()
        async with lease:
            pass
        with pytest.raises(PoolUsageError, match="holds no connection"):
            await lease.__aexit__(None, None, None)
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@timeless
async def test_a_block_whose_connection_was_given_back_early_says_so_and_takes_nothing_from_the_next_holder(
    driver: StubDriver,
) -> None:
    async with pool_of(driver, 1) as pool:
        lease = pool.connection()
        await pool.release(await lease.__aenter__())
        other = (await queued(pool)).result()
        with pytest.raises(PoolUsageError, match="holds no connection"):
            await lease.__aexit__(None, None, None)
        assert (pool.stats().used, driver.connections[0].rollbacks) == (1, 1)
        await pool.release(other)


@timeless
async def test_one_task_may_hold_several_connections(driver: StubDriver) -> None:
    async with pool_of(driver, 2) as pool, pool.connection() as first, pool.connection() as second:
        assert first is not second
        assert pool.stats().used == 2


@timeless
async def test_another_task_may_leave_the_block(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        lease = pool.connection()
        await lease.__aenter__()
        await asyncio.create_task(lease.__aexit__(None, None, None))
        assert (pool.stats().used, pool.stats().idle) == (0, 1)
