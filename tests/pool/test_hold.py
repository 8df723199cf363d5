"""Hold a pool: those that have a connection go on, all others wait, and nothing is lost when the hold ends."""

from __future__ import annotations

import asyncio

import pytest

from aiosqlitepool import PoolClosedError, PoolConnectionAcquireTimeoutError, PoolFullError

from ..support.pools import StubPool, in_turn, pool_of, queued, runs
from ..support.slots import check_slots
from ..support.storm import assert_whole
from ..support.stub import StubDriver, settle
from ..support.timeless import timeless


async def held(driver: StubDriver, size: int = 2, **settings: object) -> StubPool:
    """A pool that is held, with one idle connection."""
    pool = pool_of(driver, size, **settings)
    await pool.release(await pool.acquire())
    await settle()
    pool._inventory.hold()
    return pool


@timeless
async def test_acquires_wait_for_the_end_of_a_hold_although_connections_are_free(driver: StubDriver) -> None:
    pool = await held(driver)
    waiters = await in_turn(pool, 3)
    assert not any(waiter.done() for waiter in waiters)
    assert (pool.stats().used, pool.stats().idle, pool.stats().waiting) == (0, 1, 3)
    pool._inventory.resume()
    first, second = await waiters[0], await waiters[1]
    assert await runs(waiters[2])
    await pool.release(first)
    await pool.release(await waiters[2])
    await pool.release(second)
    await assert_whole(pool)
    await pool.close()


@timeless
async def test_holders_go_on_and_what_they_release_is_held(driver: StubDriver) -> None:
    pool = pool_of(driver)
    connection = await pool.acquire()
    pool._inventory.hold()
    await connection.execute("SELECT 1")
    waiter = await queued(pool)
    await pool.release(connection)
    assert await runs(waiter)
    assert pool.stats().idle == 1
    pool._inventory.resume()
    await pool.release(await waiter)
    await assert_whole(pool)
    await pool.close()


@timeless
async def test_a_hold_refuses_no_caller_that_would_have_found_a_connection(driver: StubDriver) -> None:
    pool = await held(driver, max_waiting=0, acquisition_timeout=0)
    waiters = await in_turn(pool, 2)
    with pytest.raises(PoolConnectionAcquireTimeoutError):
        await pool.acquire()
    with pytest.raises(PoolFullError):
        await pool.acquire(timeout=5)
    pool._inventory.resume()
    for waiter in waiters:
        await waiter
    assert pool.stats().used == 2
    for waiter in waiters:
        await pool.release(waiter.result())
    await pool.close()


@timeless
async def test_a_deadline_counts_on_during_a_hold(driver: StubDriver) -> None:
    pool = await held(driver)
    with pytest.raises(PoolConnectionAcquireTimeoutError):
        await pool.acquire(timeout=1)
    pool._inventory.resume()
    await assert_whole(pool)
    await pool.close()


@timeless
async def test_a_waiter_that_is_cancelled_during_a_hold_costs_nothing(driver: StubDriver) -> None:
    pool = await held(driver)
    waiter, other = await in_turn(pool, 2)
    waiter.cancel()
    await settle()
    pool._inventory.resume()
    await pool.release(await other)
    await assert_whole(pool)
    await pool.close()


@timeless
async def test_a_connection_that_is_opened_during_a_hold_is_held(driver: StubDriver) -> None:
    pool, opening = pool_of(driver), asyncio.Event()

    async def connect() -> None:
        await opening.wait()

    driver.on_connect = connect
    waiter = await queued(pool)
    pool._inventory.hold()
    opening.set()
    assert await runs(waiter)
    assert pool.stats().idle == 1
    pool._inventory.resume()
    await pool.release(await waiter)
    await pool.close()


@timeless
async def test_a_pool_closes_while_it_is_held(driver: StubDriver) -> None:
    pool = await held(driver)
    waiter = await queued(pool)
    await pool.close()
    with pytest.raises(PoolClosedError):
        await waiter
    assert [connection.closed for connection in driver.connections] == [1]
    pool._inventory.hold()
    pool._inventory.resume()
    check_slots(pool._inventory.slots)


@timeless
async def test_a_pool_fills_up_again_after_a_hold(driver: StubDriver) -> None:
    pool = await held(driver, min_size=1, max_lifetime=1)
    await asyncio.sleep(10)
    assert pool.stats().size == 0
    pool._inventory.resume()
    await asyncio.sleep(0.1)
    assert pool.stats().idle == 1
    await pool.close()
