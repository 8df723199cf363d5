"""Work in the loop's own thread: its turns, how long it took, and when it goes to the worker threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from aiosqlitepool.driver.loop_work import STALL_WINDOW, Kind, LoopWork
from aiosqlitepool.driver.machine import Machine

from ..support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def work(clock: Clock) -> LoopWork:
    return LoopWork(machine=Machine(clock, lambda: 0, lambda: 0))


def ran(work: LoopWork, kind: Kind, taking: Callable[[], object]) -> bool:
    """Run it in the loop if that is allowed; return whether it was."""
    if work.takes(kind):
        work.run(kind, taking)
        return True
    return False


# -- what is slow


async def test_work_that_is_slow_twice_goes_to_the_worker_for_longer_and_longer(work: LoopWork, clock: Clock) -> None:
    kind = Kind()
    pauses, pause = [], 0
    while len(pauses) < 12:
        if ran(work, kind, lambda: clock.advance(0.002)):
            pauses.append(pause)
            pause = 0
        else:
            pause += 1
    assert pauses == [0, 0, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120]


async def test_work_that_raises_counts_as_any_other(work: LoopWork, clock: Clock) -> None:
    def fails() -> None:
        clock.advance(0.002)
        raise OSError("disk")

    kind = Kind()
    for _ in range(2):
        with pytest.raises(OSError, match="disk"):
            ran(work, kind, fails)
    assert not work.allows(kind)


async def test_slow_work_of_one_kind_keeps_other_kinds_of_the_pool_away(work: LoopWork, clock: Clock) -> None:
    other = Kind()
    for _ in range(2):
        ran(work, Kind(), lambda: clock.advance(0.002))
    assert [work.takes(other) for _ in range(11)] == [False] * 10 + [True]


async def test_what_must_never_run_in_the_loop_does_not(work: LoopWork) -> None:
    never = Kind(float("inf"))
    assert not any(work.takes(never) for _ in range(100))


# -- stalls


async def test_the_longest_stall_is_that_of_the_last_scrape_or_two(work: LoopWork, clock: Clock) -> None:
    stalls, kind = [], Kind()
    for seconds, later in ((0.0004, 10.0), (0.0001, 10.0), (0.0002, 14.0), (0.0001, 0.0)):
        work.run(kind, lambda seconds=seconds: clock.advance(seconds))  # type: ignore[misc]
        stalls.append(round(work.stall(), 6))
        await work.turn.next()
        await asyncio.sleep(0)
        clock.advance(later)
    assert stalls == [0.0004, 0.0004, 0.0004, 0.0002]
    clock.advance(STALL_WINDOW)
    assert work.stall() == pytest.approx(0.0001)
    clock.advance(STALL_WINDOW)
    assert work.stall() == 0.0


async def test_work_in_one_turn_of_the_loop_is_one_stall_whichever_pool_it_is_of(work: LoopWork, clock: Clock) -> None:
    for each in (work, LoopWork(machine=Machine(clock)), work):
        each.run(Kind(), lambda: clock.advance(0.0001))
    assert work.stall() == pytest.approx(0.0003)
