"""Turns of the event loop that work in its own thread shares, and rests between them."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from collections.abc import Generator
from contextvars import ContextVar
from typing import Any

import pytest

from aiosqlitepool.driver.loop_turn import _REST as REST
from aiosqlitepool.driver.loop_turn import LoopTurn
from aiosqlitepool.driver.loop_work import LoopWork

from ..support.clock import Clock

# -- turns of the loop


async def test_all_work_of_a_loop_shares_its_turns() -> None:
    turn = LoopTurn.of(asyncio.get_running_loop())
    assert LoopTurn.of(asyncio.get_running_loop()) is turn
    assert not turn.is_over
    turn.spend(0.00015)
    assert not turn.is_over
    turn.spend(0.00015)
    assert turn.is_over
    await turn.next()
    assert not turn.is_over


async def served(names: str, seconds: float) -> str:
    """The order in which tasks of these names get three turns each, when each spends so many seconds of its turn."""
    asyncio.get_running_loop().set_task_factory(None)  # an eager task runs at once
    turn, order = LoopTurn.of(asyncio.get_running_loop()), []

    async def use(name: str) -> None:
        for _ in range(3):
            await turn.next()
            turn.spend(seconds)
            order.append(name)

    using = asyncio.gather(*map(use, names))
    turn.spend(1.0)
    await using
    return "".join(order)


async def test_those_that_wait_for_a_turn_get_one_in_their_order_whatever_the_first_takes() -> None:
    """The first to ask in each turn used up each turn: others waited until it had no more to do."""
    assert await served("abc", 1.0) == "abcabcabc"


async def test_those_that_were_woken_too_late_for_a_turn_come_first_in_the_next_one() -> None:
    assert await served("abcde", 0.00015) == "abcdeabcdeabcde"  # two of them in each turn


async def test_one_that_comes_behind_those_that_were_woken_has_a_turn_also_if_they_spend_nothing() -> None:
    asyncio.get_running_loop().set_task_factory(None)  # an eager task runs at once
    turn = LoopTurn.of(asyncio.get_running_loop())
    first = asyncio.ensure_future(turn.next())
    turn.spend(1.0)  # the turn ends between the two
    await asyncio.gather(first, turn.next())
    assert not turn.is_taken


async def test_a_cancelled_waiter_leaves_the_turn_to_the_next_one() -> None:
    asyncio.get_running_loop().set_task_factory(None)  # an eager task runs at once
    turn = LoopTurn.of(asyncio.get_running_loop())
    cancelled, waiting = asyncio.ensure_future(turn.next()), asyncio.ensure_future(turn.next())
    asyncio.get_running_loop().call_soon(cancelled.cancel)  # behind both, which wait by then, and before the next turn
    turn.spend(1.0)
    await waiting
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert not turn.is_taken


async def test_time_that_others_wait_for_is_taken() -> None:
    asyncio.get_running_loop().set_task_factory(None)  # an eager task runs at once
    turn, seen = LoopTurn.of(asyncio.get_running_loop()), []

    async def first() -> None:
        await turn.next()
        seen.append(turn.is_taken)  # not for a moment: so another task is not switched to for each piece of work
        turn.spend(0.00002)
        seen.append(turn.is_taken)
        assert not turn.is_over

    waiting = asyncio.gather(first(), turn.next())
    turn.spend(1.0)
    await waiting
    assert seen == [False, True]


async def test_one_that_is_too_late_for_a_turn_is_told_so_and_the_others_keep_their_places() -> None:
    asyncio.get_running_loop().set_task_factory(None)  # an eager task runs at once
    loop, order = asyncio.get_running_loop(), []
    turn = LoopTurn.of(loop)

    async def use(name: str, until: float) -> None:
        has_turn = await turn.next(until)
        order.append((name, has_turn))
        if has_turn:
            turn.spend(1.0)

    using = asyncio.gather(use("a", loop.time() + 60), use("late", loop.time()), use("b", math.inf))
    turn.spend(1.0)
    await using
    assert order == [("late", False), ("a", True), ("b", True)]
    turn.spend(1.0)
    assert await turn.next(loop.time() + 60)


async def test_no_more_wait_for_a_turn_than_may() -> None:
    asyncio.get_running_loop().set_task_factory(None)  # an eager task runs at once
    turn = LoopTurn.of(asyncio.get_running_loop())
    using = asyncio.gather(*(turn.next(most=2) for _ in range(4)))
    turn.spend(1.0)
    assert await using == [True, True, False, False]


async def test_hardly_one_is_woken_before_its_turn_however_many_wait() -> None:
    """All that waited were woken in each turn: a thousand waiters cost a thousand times as much for each read."""
    asyncio.get_running_loop().set_task_factory(None)  # an eager task runs at once
    turn, wakes = LoopTurn.of(asyncio.get_running_loop()), 0

    class Counted:
        def __await__(self) -> Generator[Any, None, None]:
            nonlocal wakes
            waiting = turn.next().__await__()
            for each in waiting:
                yield each
                wakes += 1

    async def use() -> None:
        await Counted()
        turn.spend(0.00005)  # four in a turn

    using = asyncio.gather(*(use() for _ in range(100)))
    turn.spend(1.0)
    await using
    assert 100 <= wakes <= 130


async def test_a_rest_keeps_nothing_of_a_caller() -> None:
    work, variable = LoopWork(is_busy=lambda: True), ContextVar[Clock]("variable")

    async def caller() -> weakref.ref[Clock]:
        variable.set(value := Clock())
        work.turn.spend(1.0)
        return weakref.ref(value)

    kept = await asyncio.create_task(caller())
    await asyncio.sleep(0)
    assert work.turn.is_over
    gc.collect()
    assert kept() is None


# -- rests


async def turns_until_next(turn: LoopTurn) -> tuple[bool, float]:
    """Whether the next turn of the loop is one for work, and for how many seconds that was waited for."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.sleep(0)
    at_once = not turn.is_over
    await turn.next()
    return at_once, loop.time() - began


async def test_while_a_worker_is_busy_for_long_the_loop_sleeps_between_two_turns() -> None:
    busy = True
    work = LoopWork(is_busy=lambda: busy)
    work.turn.spend(1.0)
    at_once, waited = await turns_until_next(work.turn)
    assert not at_once
    assert waited > 0.9 * REST  # the clock of the loop is coarse on some systems
    busy = False
    work.turn.spend(1.0)
    assert (await turns_until_next(work.turn))[0]


async def test_work_in_several_turns_is_followed_by_a_rest_when_it_is_as_much_as_fits_into_one() -> None:
    work = LoopWork(is_busy=lambda: True)
    at_once = []
    for _ in range(4):
        work.turn.spend(0.0001)
        at_once.append((await turns_until_next(work.turn))[0])
    assert at_once == [True, False, True, False]


async def test_a_busy_worker_of_another_pool_of_the_loop_counts_too_until_the_pool_is_gone() -> None:
    busy, work = LoopWork(is_busy=lambda: True), LoopWork()
    assert busy.turn is work.turn
    work.turn.spend(1.0)
    assert not (await turns_until_next(work.turn))[0]
    del busy
    gc.collect()
    work.turn.spend(1.0)
    assert (await turns_until_next(work.turn))[0]
