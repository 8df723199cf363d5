"""Whom a waiter found when it joined the queue, and what a holder says of itself."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from time import perf_counter
from typing import Any

import pytest

from aiosqlitepool.events import AcquireSlow
from aiosqlitepool.pool.checkout import Checkout, Ended, found_by
from aiosqlitepool.pool.slots import Slot

from ..support.clock import Clock
from ..support.pools import pool_of, queued
from ..support.stub import StubDriver, settle

FIRST, SECOND, THIRD = slots = tuple(Slot[Any](number) for number in (1, 2, 3))


def lease(label: str, slot: Slot[Any], since: float) -> Checkout[Any]:
    """A checkout that holds a connection since then."""
    made: Checkout[Any] = Checkout(label)
    made.slot, made.since, made.connection, made.task = slot, since, slot.number, None
    return made


def joined(ended: Ended, asked: float) -> Checkout[Any]:
    """A waiter that joins the queue."""
    waiter: Checkout[Any] = Checkout("waiter")
    waiter.asked, waiter.since = asked, math.inf
    ended.join(waiter)
    return waiter


def names(found: list[tuple[Checkout[Any], float]]) -> list[tuple[str | None, float]]:
    return sorted((each.label, when) for each, when in found)


def test_a_waiter_finds_holders_that_have_released_since_and_those_that_still_hold() -> None:
    ended, one, two = Ended(), lease("one", FIRST, 1), lease("two", SECOND, 2)
    waiter = joined(ended, 5)
    ended.add(one, FIRST, 7)
    assert names(found_by(waiter, [two, lease("later", FIRST, 7)], 3)) == [("one", 7), ("two", math.inf)]


def test_a_waiter_does_not_find_leases_that_began_after_it_had_joined() -> None:
    ended = Ended()
    waiter = joined(ended, 5)
    for since in (6, 8):
        ended.add(lease(f"since {since}", FIRST, since), FIRST, since + 1)
    assert found_by(waiter, [lease("later", SECOND, 9)], 3) == []


def test_a_waiter_does_not_find_leases_that_had_ended_before_it_joined() -> None:
    ended = Ended()
    joined(ended, 3)
    ended.add(lease("before", FIRST, 1), FIRST, 4)
    assert found_by(joined(ended, 5), [], 3) == []


def test_two_leases_of_one_slot_at_one_reading_of_the_clock_are_told_apart_by_their_order() -> None:
    ended = Ended()
    waiter = joined(ended, 5)
    ended.add(lease("found", FIRST, 5), FIRST, 5)
    ended.add(lease("later", FIRST, 5), FIRST, 5)
    assert names(found_by(waiter, [lease("last", FIRST, 5), lease("second", SECOND, 5)], 3)) == [
        ("found", 5),
        ("second", math.inf),
    ]


def test_a_waiter_does_not_find_itself() -> None:
    ended = Ended()
    waiter = joined(ended, 5)
    waiter.slot, waiter.since = FIRST, 5
    assert found_by(waiter, [waiter], 3) == []


def test_a_waiter_looks_no_further_once_it_knows_of_every_slot() -> None:
    """Or each of ten thousand waiters would look at ten thousand leases."""
    ended = Ended()
    waiter = joined(ended, 5)
    for slot in slots:
        ended.add(lease("found", slot, 1), slot, 6)
    fourth = Slot[Any](4)
    ended.add(lease("not looked at", fourth, 1), fourth, 7)
    assert names(found_by(waiter, [], 3)) == [("found", 6)] * 3


def test_a_caller_that_did_not_queue_has_found_nobody() -> None:
    caller: Checkout[Any] = Checkout(None)
    caller.asked, caller.found = 5, None
    assert found_by(caller, [lease("one", FIRST, 1)], 3) == []


@pytest.mark.parametrize("has_waiter", [True, False])
async def test_an_ended_lease_is_kept_only_for_waiters_that_found_it(
    driver: StubDriver, clock: Clock, has_waiter: bool
) -> None:
    class Result:
        """What the task of a holder returns."""

    async def hold() -> Result:
        async with pool.connection():
            await asyncio.sleep(0)
            await settle()
        return Result()

    async with pool_of(driver, 1, min_size=1, clock=clock) as pool:
        pool.events.subscribe(AcquireSlow, lambda event: None)
        task = asyncio.create_task(hold())
        await asyncio.sleep(0)
        waiting = await queued(pool) if has_waiter else None
        result = weakref.ref(await task)
        del task
        if waiting is not None:
            await pool.release(await waiting)
            del waiting
        await settle()  # asyncio keeps a task until the step of the one that has awaited it ends
        gc.collect()
        assert result() is None


def test_a_statement_that_outlives_its_lease_is_shown_as_of_the_release() -> None:
    holding = lease("one", FIRST, 10)
    now = perf_counter()
    holding.activity = "SELECT 1", now - 1003, None
    shown = holding.holder(13, ago=1000)
    assert (shown.held, shown.statement_runs) == (3, True)
    assert 3 <= shown.statement_time < 500
    holding.activity = "SELECT 1", now - 1003, now - 1
    assert holding.holder(13, ago=1000).statement_time < 500
    holding.activity = "SELECT 1", now - 1003, now - 1001
    shown = holding.holder(13, ago=1000)
    assert (shown.statement_runs, round(shown.statement_time)) == (False, 2)


def test_an_ended_lease_is_shown_as_of_its_end_and_made_into_a_holder_once_for_all_waiters_that_found_it() -> None:
    """In a full pool, each of them is found by as many waiters as there are connections."""
    ended, one = Ended(), lease("one", FIRST, 1)
    ended.add(one, FIRST, 7)
    shown = one.holder_until(7, 100)
    assert (shown.label, shown.held) == ("one", 6)
    assert one.holder_until(7, 200) is shown


def test_a_lease_that_has_not_ended_is_shown_as_of_now_each_time() -> None:
    one = lease("one", FIRST, 1)
    assert [one.holder_until(math.inf, now).held for now in (10, 20)] == [9, 19]
