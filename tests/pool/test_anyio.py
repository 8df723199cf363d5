"""Scopes of anyio, which cancel a task again at each turn of the loop: FastAPI and Starlette run requests in them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiosqlite
import anyio
import pytest

from aiosqlitepool import SQLiteConnectionPool

from ..support.files import notes
from ..support.pools import pool_of
from ..support.scopes import LONG_ENOUGH, at_rest, cancelled_scope
from ..support.storm import assert_whole, quiet
from ..support.stub import StubDriver, waits_for
from ..support.worker import ENDLESS, began


def pool_on(database: Path) -> SQLiteConnectionPool[aiosqlite.Connection]:
    return SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1)


async def test_a_waiter_whose_scope_is_cancelled_leaves_the_queue(database: Path) -> None:
    async with pool_on(database) as pool:
        async with pool.connection():
            with anyio.move_on_after(0.01) as scope:
                await pool.acquire()
            assert scope.cancelled_caught
            assert pool.stats().waiting == 0
        await assert_whole(pool)


async def test_an_acquire_in_a_cancelled_scope_costs_the_pool_no_connection(database: Path) -> None:
    async with pool_on(database) as pool:
        with cancelled_scope():
            await pool.acquire()
        await quiet(pool)
        await assert_whole(pool)


async def test_a_block_in_a_cancelled_scope_has_rolled_back_when_the_scope_ends(database: Path) -> None:
    async with pool_on(database) as pool:
        with at_rest(), anyio.CancelScope() as scope:
            async with pool.connection() as connection:
                await connection.execute("INSERT INTO note (text) VALUES ('never')")
                scope.cancel()
                await asyncio.Event().wait()
        assert scope.cancelled_caught
        assert pool.stats().used == 0
        await assert_whole(pool)
    assert notes(database) == []


@pytest.mark.usefixtures("patient")
async def test_a_statement_in_a_cancelled_scope_has_stopped_when_the_scope_ends(database: Path) -> None:
    async with pool_on(database) as pool:
        with anyio.CancelScope() as scope:
            async with pool.connection() as connection:
                running = await began(connection)
                running_in_sqlite = asyncio.create_task(running.wait())
                running_in_sqlite.add_done_callback(lambda _: scope.cancel())
                await connection.execute_fetchall(ENDLESS)
        assert scope.cancelled_caught
        assert pool.stats().used == 0
        await assert_whole(pool)


async def test_a_release_in_a_cancelled_scope_waits_for_the_reset(driver: StubDriver) -> None:
    reset = asyncio.Event()
    driver.scripts["on_rollback"] = waits_for(reset)
    async with pool_of(driver, 1) as pool:
        connection = await pool.acquire()
        asyncio.get_running_loop().call_later(LONG_ENOUGH, reset.set)
        with at_rest(), cancelled_scope():
            await pool.release(connection)
        assert reset.is_set()
        assert pool.stats().used == 0


async def test_a_pool_whose_block_is_cancelled_has_closed_when_the_scope_ends(driver: StubDriver) -> None:
    closed = asyncio.Event()
    driver.scripts["on_close"] = waits_for(closed)
    asyncio.get_running_loop().call_later(LONG_ENOUGH, closed.set)
    with at_rest(), cancelled_scope() as scope:
        async with pool_of(driver, 1) as pool:
            await pool.acquire()
    assert scope.cancelled_caught
    assert pool.stats().state == "closed"


async def test_a_pool_that_is_opened_in_a_cancelled_scope_has_closed_when_the_scope_ends(driver: StubDriver) -> None:
    pool: SQLiteConnectionPool[Any] = pool_of(driver, 1, min_size=1)
    with at_rest(), cancelled_scope() as scope:
        async with pool:
            raise AssertionError("the pool opened")
    assert scope.cancelled_caught
    assert pool.stats().state == "closed"
    assert driver.open == 0


async def test_a_close_in_a_cancelled_scope_goes_on_without_its_caller(database: Path) -> None:
    pool = pool_on(database)
    connection = await pool.acquire()
    with at_rest(), anyio.move_on_after(0.01) as scope:
        await pool.close()
    assert scope.cancelled_caught
    assert pool.stats().state == "closing"
    await pool.release(connection)
    await pool.close()
    assert pool.stats().state == "closed"
