from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolUsageError, SQLiteConnectionPool
from aiosqlitepool.driver import call, call_anyway, call_last, call_to_the_end, ended
from aiosqlitepool.driver.jobs import Job, submit

from ..support.databases import Hold
from ..support.stub import settle

CALLS: list[Callable[..., Any]] = [call, call_to_the_end, call_anyway]


def pool_on(database: Path) -> SQLiteConnectionPool[aiosqlite.Connection]:
    return SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1)


def one(native: sqlite3.Connection, *more: int) -> int:
    return int(native.execute("SELECT 1").fetchone()[0]) + sum(more)


def fails(native: sqlite3.Connection) -> None:
    raise KeyError("k")


@pytest.mark.parametrize("how", CALLS)
async def test_a_call_returns_what_the_function_does_and_raises_what_it_raises(
    database: Path, how: Callable[..., Any]
) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        assert await how(connection, one, 2, 3) == 6
        with pytest.raises(KeyError, match="k"):
            await how(connection, fails)


@pytest.mark.parametrize("how", CALLS)
async def test_a_cancellation_that_the_function_raises_itself_is_raised_and_waits_for_nothing(
    database: Path, how: Callable[..., Any]
) -> None:
    def gives_up(native: sqlite3.Connection) -> None:
        raise asyncio.CancelledError("by itself")

    async with pool_on(database) as pool, pool.connection() as connection:
        with pytest.raises(asyncio.CancelledError, match="by itself"):
            await how(connection, gives_up)
        assert await how(connection, one) == 1


@pytest.mark.parametrize("how", CALLS)
async def test_a_connection_outside_any_pool_can_be_called_too(database: Path, how: Callable[..., Any]) -> None:
    async with aiosqlite.connect(database) as connection:
        assert await how(connection, one) == 1


@pytest.mark.parametrize("how", CALLS)
async def test_a_connection_that_went_back_is_not_called(database: Path, how: Callable[..., Any]) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            pass
        with pytest.raises(PoolUsageError, match="went back to the pool"):
            await how(connection, one)


@pytest.mark.parametrize("how", CALLS)
async def test_a_connection_that_its_holder_closed_is_not_called(database: Path, how: Callable[..., Any]) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        await connection.close()
        with pytest.raises(ValueError, match=r"[Cc]losed|no active connection"):
            await how(connection, one)


async def test_what_was_not_begun_when_it_was_cancelled_never_is(database: Path) -> None:
    ran: list[str] = []
    async with pool_on(database) as pool, pool.connection() as connection:
        with Hold() as hold:
            first = submit(connection, hold)
            await hold.reached.wait()
            for how in (call, call_to_the_end):
                second = asyncio.create_task(how(connection, lambda native: ran.append("it ran")))
                await asyncio.sleep(0)
                second.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await second
            hold.let_go()
            await first
        assert await call(connection, one) == 1
    assert ran == []


async def test_outside_any_pool_too(database: Path) -> None:
    ran: list[str] = []
    async with aiosqlite.connect(database) as connection:
        with Hold() as hold:
            first = submit(connection, hold)
            await hold.reached.wait()
            second = asyncio.create_task(call_to_the_end(connection, lambda native: ran.append("it ran")))
            await settle()  # it is in the queue of aiosqlite by now, which cannot be withdrawn from
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            hold.let_go()
            await first
        assert await call(connection, one) == 1
    assert ran == []


@pytest.mark.parametrize("how", [call_to_the_end, call_anyway])
async def test_what_was_begun_is_waited_for_however_often_it_is_cancelled(
    database: Path, how: Callable[..., Any]
) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        with Hold() as hold:
            running = asyncio.create_task(how(connection, hold))
            await hold.reached.wait()
            for _ in range(3):
                running.cancel()
                await asyncio.sleep(0)
            assert not running.done()
            hold.let_go()
            with pytest.raises(asyncio.CancelledError):
                await running


async def test_what_must_be_done_is_done_although_its_caller_was_cancelled_before(database: Path) -> None:
    ran: list[str] = []
    async with pool_on(database) as pool, pool.connection() as connection:
        with Hold() as hold:
            first = submit(connection, hold)
            await hold.reached.wait()
            running = asyncio.create_task(call_anyway(connection, lambda native: ran.append("it ran")))
            await asyncio.sleep(0)
            running.cancel()
            hold.let_go()
            with pytest.raises(asyncio.CancelledError):
                await running
            await first
    assert ran == ["it ran"]


async def test_waiting_for_the_end_says_whether_one_was_cancelled_meanwhile() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(ended(future))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    future.set_exception(KeyError())
    assert isinstance(await waiting, asyncio.CancelledError)
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    assert await ended(done) is None


async def test_a_cancelled_caller_whose_function_is_withdrawn_before_it_wakes_up_goes_on(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        with Hold() as hold:
            first = submit(connection, hold)
            await hold.reached.wait()
            job = Job(connection, one)
            caller = asyncio.create_task(job.result())
            await settle()
            caller.cancel()
            job.withdraw(TimeoutError())
            async with asyncio.timeout(60):
                with pytest.raises(asyncio.CancelledError):
                    await caller
            hold.let_go()
            await first


async def test_nothing_runs_behind_the_last_call(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        assert await call_last(connection, one) == 1
        with pytest.raises(PoolUsageError, match="went back to the pool"):
            await connection.execute("SELECT 1")
        with pytest.raises(PoolUsageError, match="went back to the pool"):
            await call(connection, one)


async def test_a_last_call_is_a_call_for_a_connection_of_an_unknown_driver(database: Path) -> None:
    async with aiosqlite.connect(database) as connection:
        assert await call_last(connection, one) == 1
