"""What the fast path costs, in instructions and calls: the guard against getting slower a little at a time.

Times differ from machine to machine and from minute to minute. What the interpreter does for one acquire and release
does not: the instructions it executes in code of the package, and the functions which that code calls, are the same
each time. A change that makes the fast path do more fails here, and must say why it raises a number; one that makes it
do much less lowers the number, so that the gain is kept. Small pools are compared with large ones too, and short queues
with long ones, for which no number needs to be written down.

What it cannot see is how long a C function takes: a search through a whole deque is one call. That shows only in time,
which `benchmarks/` measures.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from prometheus_client import CollectorRegistry

from aiosqlitepool import SQLiteConnectionPool, SQLiteDatabase
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

from .support.clock import Clock
from .support.costs import Costs, counted
from .support.limiter import limit_here
from .support.pools import StubPool, pool_of
from .support.stub import StubDriver

Numbers = dict[tuple[int, int], tuple[int, int]]

# At most so many instructions and calls in code of the package, by Python. A later Python is held to the last numbers.
BORROW: Numbers = {(3, 11): (392, 20), (3, 12): (368, 21), (3, 13): (362, 21), (3, 14): (390, 21)}
BORROW_AND_SELECT: Numbers = {
    (3, 11): (685, 45),
    (3, 12): (631, 46),
    (3, 13): (621, 46),
    (3, 14): (661, 46),
    (3, 15): (662, 46),
}
BORROW_OBSERVED: Numbers = {(3, 11): (458, 23), (3, 12): (430, 24), (3, 13): (423, 24), (3, 14): (451, 24)}
FETCH_INLINE: Numbers = {(3, 11): (827, 58), (3, 12): (756, 59), (3, 13): (744, 59), (3, 14): (801, 59)}
# Below this part of a number it is out of date.
STALE = 0.9


def allowed(numbers: Numbers, version: tuple[int, int] = sys.version_info[:2]) -> Costs:
    return Costs(*numbers[min(version, max(numbers))])


def assert_costs(measured: Costs, numbers: Numbers) -> None:
    most = allowed(numbers)
    assert measured.instructions <= most.instructions, f"the fast path does more than it did: {measured}, was {most}"
    assert measured.calls <= most.calls, f"the fast path calls more than it did: {measured}, was {most}"
    assert measured.instructions >= STALE * most.instructions, f"faster: write it down, {measured} instead of {most}"


async def costs_of(work: Callable[[], Awaitable[Any]]) -> Costs:
    """What `work` costs once everything is warm, and that it costs the same nearly each time.

    Not each time: the loop may run callbacks of pools that other tests have left behind, and a worker thread may be
    done before the loop has gone to sleep.
    """
    gc.collect()
    for _ in range(20):
        await work()
    seen = []
    for _ in range(8):
        with counted() as costs:  # the first time, the interpreter also puts its own counting into place
            await work()
        seen.append(costs)
    usual = max(seen, key=seen.count)
    assert usual.instructions > 0
    assert seen.count(usual) > len(seen) / 2, f"not the same nearly each time: {seen}"
    return usual


def file_pool(path: Path, **settings: Any) -> SQLiteConnectionPool[aiosqlite.Connection]:
    # Never checked: a slow machine may let more than a second pass between two loans.
    return SQLiteConnectionPool(lambda: aiosqlite.connect(path), 2, health_check_after=None, **settings)


async def test_borrowing_costs_no_more_than_it_did(database: Path) -> None:
    async with file_pool(database) as pool:

        async def borrow() -> None:
            async with pool.connection():
                pass

        assert_costs(await costs_of(borrow), BORROW)


async def test_a_statement_costs_no_more_than_it_did(database: Path) -> None:
    limit_here()  # on one core there is no limit, which costs less
    async with file_pool(database) as pool:

        async def select() -> None:
            async with pool.connection() as conn:
                await conn.execute_fetchall("SELECT 1")

        assert_costs(await costs_of(select), BORROW_AND_SELECT)


async def test_a_read_in_the_loops_own_thread_costs_no_more_than_it_did(database: Path) -> None:
    async with SQLiteDatabase(database, inline_reads=True) as db:
        db.readers.inline._clock = Clock()  # type: ignore[union-attr]  # on a slow machine a turn would be over

        async def fetch() -> None:
            await db.fetch_one("SELECT 1")
            await asyncio.sleep(0)  # the end of the turn is part of it

        assert_costs(await costs_of(fetch), FETCH_INLINE)


async def test_being_observed_costs_no_more_than_it_did(database: Path) -> None:
    subscriber = PrometheusSubscriber(registry=CollectorRegistry())
    async with file_pool(database, subscribers=[subscriber]) as pool:

        async def borrow() -> None:
            async with pool.connection():
                pass

        assert_costs(await costs_of(borrow), BORROW_OBSERVED)


async def test_a_large_pool_costs_what_a_small_one_costs(driver: StubDriver) -> None:
    async def cost(size: int) -> Costs:
        async with pool_of(driver, size, min_size=size, health_check_after=None) as pool:
            assert pool.stats().idle == size

            async def borrow() -> None:
                async with pool.connection():
                    pass

            return await costs_of(borrow)

    assert await cost(1) == await cost(100)


async def test_a_waiter_costs_the_same_behind_ten_and_behind_a_thousand(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=30, health_check_after=None) as pool:
        few, many = await cost_of_waiters(pool, 10), await cost_of_waiters(pool, 1_000)
    # What begins and ends a queue is shared by all who stand in it: the few may cost a little more each, never less.
    assert many.instructions / 1_000 <= few.instructions / 10
    assert many.calls / 1_000 <= few.calls / 10


async def cost_of_waiters(pool: StubPool, waiters: int) -> Costs:
    served = 0

    async def borrow() -> None:
        nonlocal served
        async with pool.connection():
            served += 1

    async def queue_and_be_served() -> Costs:
        with counted() as costs:
            async with pool.connection():
                tasks = [asyncio.create_task(borrow()) for _ in range(waiters)]
                while pool.stats().waiting < waiters:
                    await asyncio.sleep(0)
            await asyncio.wait(tasks)
        return costs

    await queue_and_be_served()
    costs = await queue_and_be_served()
    assert served == 2 * waiters
    return costs


@pytest.mark.parametrize("numbers", [BORROW, BORROW_AND_SELECT, BORROW_OBSERVED, FETCH_INLINE])
def test_a_later_python_is_held_to_the_last_numbers(numbers: Numbers) -> None:
    assert allowed(numbers, (3, 99)) == Costs(*numbers[max(numbers)])
