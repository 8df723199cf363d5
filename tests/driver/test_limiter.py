from __future__ import annotations

import asyncio
import functools
import gc
import weakref
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from itertools import groupby
from random import Random
from typing import Any, ParamSpec

import pytest

from aiosqlitepool.driver.limiter import (
    AT_ONCE,
    HELD_AT_MOST,
    HELD_FOR_EACH,
    KEPT,
    KEPT_AT_MOST,
    KEPT_UNCONFIRMED,
    PATIENCE,
    RUN_IN,
    TRIAL,
    Limiter,
)

from ..support.clock import Clock
from ..support.limiter import come_back, that_holds_back
from ..support.virtual import VirtualLoop, run

P = ParamSpec("P")

TRIALS = RUN_IN + 4 * (RUN_IN + TRIAL)
MANY = 4096
A_WHILE = PATIENCE + 1e-6


class FineLoop(VirtualLoop):
    """Virtual time in steps of any size: what is measured here takes microseconds."""

    def __init__(self) -> None:
        super().__init__()
        self._clock_resolution = 1e-9

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return asyncio.BaseEventLoop.call_at(self, when, callback, *args, context=context)


def short(out: int) -> float:
    """Seconds for a statement that shares one lock with the others that are out: more than two waste time on it."""
    return 20e-6 * out * (1 + 0.3 * max(0, out - 2))


def long(out: int) -> float:
    """Seconds for a statement that has nothing to do with the others."""
    return 300e-6


def very_long(out: int) -> float:
    return 10e-3


class Workers:
    """As many worker threads as anybody wants, whose statements take as long as `seconds(out)` says."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.seconds = seconds
        self.turnstile = Limiter(asyncio.get_running_loop().time)
        self.out = 0
        # How many were out, themselves included, when each statement was let out.
        self.company: list[int] = []

    async def statement(self) -> None:
        done = asyncio.get_running_loop().create_future()
        self.turnstile.send(self.put, done, done)
        await done

    def put(self, done: asyncio.Future[None]) -> None:
        self.out += 1
        self.company.append(self.out)
        asyncio.get_running_loop().call_later(self.seconds(self.out), self.finish, done)

    def finish(self, done: asyncio.Future[None]) -> None:
        self.out -= 1
        done.set_result(None)
        come_back(self.turnstile, [done])

    async def serve(self, statements: int, tasks: int = 5) -> float:
        """Let `tasks` tasks send so many statements, one after another; returns how many seconds one took."""
        left = iter(range(statements))
        began = asyncio.get_running_loop().time()

        async def work() -> None:
            for _ in left:
                await self.statement()

        await asyncio.gather(*(work() for _ in range(tasks)))
        return (asyncio.get_running_loop().time() - began) / statements


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run it in a loop of its own, in which no time passes but what is waited for."""

    @functools.wraps(test)
    def in_a_loop(*args: P.args, **kwargs: P.kwargs) -> None:
        run(test(*args, **kwargs), FineLoop())

    return in_a_loop


@in_virtual_time
async def test_statements_that_are_in_each_others_way_are_let_out_two_at_a_time() -> None:
    workers = Workers(short)
    await workers.serve(TRIALS)
    workers.company.clear()
    took = await workers.serve(MANY // 4)
    assert max(workers.company) == AT_ONCE
    assert took < 0.6 * short(5) / 5


@in_virtual_time
async def test_statements_that_have_nothing_to_do_with_each_other_are_all_let_out_at_once() -> None:
    workers = Workers(long)
    await workers.serve(TRIALS + RUN_IN)
    workers.company.clear()
    assert await workers.serve(MANY // 8) < 1.01 * long(5) / 5
    assert max(workers.company) == 5


@pytest.mark.parametrize(
    ("seconds", "best"), [(short, short(2) / 2), (long, long(5) / 5), (very_long, very_long(5) / 5)]
)
@in_virtual_time
async def test_whatever_the_statements_are_nearly_all_of_them_take_the_faster_way(
    seconds: Callable[[int], float], best: float
) -> None:
    assert await Workers(seconds).serve(20 * MANY) < 1.05 * best


@in_virtual_time
async def test_long_statements_after_short_ones_are_soon_let_out_at_once() -> None:
    workers = Workers(short)
    await workers.serve(TRIALS + RUN_IN)
    workers.seconds = very_long
    await workers.serve(1000)
    assert await workers.serve(1000) < 1.03 * very_long(5) / 5


@in_virtual_time
async def test_short_statements_after_long_ones_are_held_back_in_the_end() -> None:
    workers = Workers(long)
    await workers.serve(TRIALS + RUN_IN)
    workers.seconds = short
    await workers.serve(4 * MANY)
    assert await workers.serve(MANY // 4) < 1.05 * short(2) / 2


@in_virtual_time
async def test_in_a_line_of_a_hundred_short_statements_nobody_is_let_out_before_its_turn() -> None:
    workers = Workers(lambda out: 150e-6 * out * (1 if out <= AT_ONCE else 3))
    await workers.serve(MANY, tasks=100)
    workers.company.clear()
    await workers.serve(MANY, tasks=100)
    assert sum(company <= AT_ONCE for company in workers.company) > 0.9 * MANY


@in_virtual_time
async def test_three_senders_that_are_held_back_in_vain_soon_are_no_more() -> None:
    """Bug: whenever one came back, there were two, which is nobody to hold back, so that nothing was tried again."""
    workers = Workers(lambda out: 3e-3)
    workers.turnstile = that_holds_back()
    await workers.serve(4 * MANY, tasks=3)
    assert await workers.serve(1000, tasks=3) < 1.05 * 3e-3 / 3


@in_virtual_time
async def test_a_choice_is_kept_many_times_as_long_as_it_took_to_make_once_it_was_made_twice() -> None:
    workers = Workers(short)
    await workers.serve(6 * MANY)
    first, second, third, *_ = held_back_in_a_row(workers)
    trial = 2 * (RUN_IN + TRIAL) * (short(5) / 5 + short(2) / 2)
    assert first * short(2) / 2 == pytest.approx(KEPT_UNCONFIRMED * trial, rel=0.1)
    assert second / first == pytest.approx(KEPT / KEPT_UNCONFIRMED, rel=0.1)
    assert third == pytest.approx(second, rel=0.1)


@in_virtual_time
async def test_a_choice_that_was_wrong_once_is_soon_made_again() -> None:
    workers = Workers(short)
    await workers.serve(3 * MANY)
    workers.seconds = long  # until a trial, and only for that
    await workers.serve(2 * MANY)
    workers.seconds = short
    workers.company.clear()
    await workers.serve(MANY)
    assert held_back_in_a_row(workers)


def held_back_in_a_row(workers: Workers) -> list[int]:
    """How many statements each time, from one trial to the next."""
    runs = [sum(1 for _ in run) for few, run in groupby(workers.company, lambda out: out <= AT_ONCE) if few]
    return [run for run in runs if run > 2 * (RUN_IN + TRIAL)]


@in_virtual_time
async def test_a_task_alone_is_never_held_back() -> None:
    workers = Workers(short)
    assert await workers.serve(3 * MANY, tasks=1) <= 1.0001 * short(1)


@in_virtual_time
async def test_a_statement_waits_for_long_ones_no_longer_than_a_millisecond() -> None:
    turnstile, out = that_holds_back(), list[str]()
    for name in ("a report", "a backup", "a click"):
        turnstile.send(out.append, name, name)
    await asyncio.sleep(PATIENCE / 2)
    assert out == ["a report", "a backup"]
    await asyncio.sleep(A_WHILE)
    assert out == ["a report", "a backup", "a click"]
    turnstile.send(out.append, "another click", "another click")  # who is not waited for does not count
    assert out[-1] == "another click"
    come_back(turnstile, ["a report", "a backup"])
    turnstile.send(out.append, "a third click", "a third click")
    assert out[-1] == "another click", "what is not waited for does not make room when it is back"


@in_virtual_time
async def test_in_a_loop_that_is_busy_nobody_waits_longer_either() -> None:
    loop, turnstile, out = asyncio.get_running_loop(), that_holds_back(), list[int]()
    assert isinstance(loop, VirtualLoop)
    for number in range(20):
        turnstile.send(out.append, number, number)
    loop.now += 1.1 * HELD_AT_MOST  # a task computes
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert out == list(range(20))


@in_virtual_time
async def test_in_a_loop_that_is_busy_holding_back_is_soon_given_up() -> None:
    loop, turnstile, out = asyncio.get_running_loop(), that_holds_back(), list[int]()
    assert isinstance(loop, VirtualLoop)
    began, held_back = loop.now, True
    while held_back:
        for number in range(5):
            turnstile.send(out.append, number, number)
        held_back = turnstile.held_back > 0
        loop.now += 5 * PATIENCE
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        come_back(turnstile, range(5))
        assert loop.now - began < KEPT_AT_MOST / 2


@in_virtual_time
async def test_statements_are_let_out_in_the_order_in_which_they_were_sent() -> None:
    turnstile, out = that_holds_back(), list[int]()
    for number in range(4):
        turnstile.send(out.append, number, number)
    assert (len(out), turnstile.held_back) == (AT_ONCE, 4 - AT_ONCE)
    come_back(turnstile, [0, 1])
    turnstile.send(out.append, 4, 4)  # although nothing is out now
    turnstile.send_now(out.append, 5)
    turnstile.send(out.append, 6, 6)
    turnstile.release()
    assert out == list(range(7))


@in_virtual_time
async def test_who_waited_for_a_result_goes_on_before_the_next_statement_is_let_out() -> None:
    turnstile, order, result = that_holds_back(), list[str](), asyncio.get_running_loop().create_future()

    async def waiter() -> None:
        await result
        order.append("the waiter goes on")

    for name in ("1", "2", "3"):
        turnstile.send(order.append, name, name)
    waiting = asyncio.create_task(waiter())
    await asyncio.sleep(0)
    result.set_result(None)
    come_back(turnstile, ["1"])
    await asyncio.sleep(0)
    await waiting
    assert order == ["1", "2", "the waiter goes on", "3"]


@in_virtual_time
async def test_a_choice_to_let_all_out_ends_the_waiting_of_those_held_back() -> None:
    turnstile, out = that_holds_back(), list[int]()
    for number in range(5):
        turnstile.send(out.append, number, number)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.now += KEPT_AT_MOST
    come_back(turnstile, range(RUN_IN))  # the next trial begins, which lets all out first
    assert out == list(range(5))


@in_virtual_time
async def test_whoever_is_withdrawn_is_never_let_out_and_the_others_keep_their_order() -> None:
    turnstile, out = that_holds_back(), list[int]()
    here, there = out.append, out.append
    for number in range(6):
        turnstile.send(here if number % 2 else there, number, number)
    assert turnstile.withdraw(here) == [3, 5]
    turnstile.release()
    assert out == [0, 1, 2, 4]
    assert not turnstile.withdraw_one(4)


@in_virtual_time
async def test_one_is_withdrawn_by_its_key() -> None:
    turnstile, out = that_holds_back(), list[int]()
    for number in range(5):
        turnstile.send(out.append, number, number)
    assert turnstile.withdraw_one(3)
    assert not turnstile.withdraw_one(0), "it is out"
    turnstile.release()
    assert out == [0, 1, 2, 4]


@pytest.mark.parametrize("line", [20, 60])
@in_virtual_time
async def test_behind_long_statements_nobody_waits_longer_than_ten_milliseconds_or_half_a_one_for_each(
    line: int,
) -> None:
    workers = Workers(lambda out: 1.7e-3)
    workers.turnstile = that_holds_back()
    loop = asyncio.get_running_loop()
    began, waits = loop.time(), list[float]()

    def put(done: asyncio.Future[None]) -> None:
        waits.append(loop.time() - began)
        workers.put(done)

    for _ in range(line):
        done = loop.create_future()
        workers.turnstile.send(put, done, done)
    await asyncio.sleep(1)
    assert len(waits) == line
    assert max(waits) <= max(HELD_AT_MOST, HELD_FOR_EACH * line) + PATIENCE + 1e-6


@pytest.mark.parametrize("tasks", [20, 50, 200])
@in_virtual_time
async def test_many_tasks_are_not_slowed_down_by_what_is_tried_on_them(tasks: int) -> None:
    workers = Workers(very_long)
    await workers.serve(20 * tasks, tasks)
    assert await workers.serve(20 * tasks + 2 * MANY, tasks) < 1.15 * very_long(tasks) / tasks


@pytest.mark.parametrize("burst", [1, 30, 50])
@in_virtual_time
async def test_statements_that_come_when_they_like_are_not_held_back_by_chance(burst: int) -> None:
    workers, random, loop = Workers(lambda out: 0.9e-3), Random(burst), asyncio.get_running_loop()
    sent = held = 0
    while sent < 4 * MANY:
        for _ in range(burst):
            before = workers.turnstile.held_back
            done = loop.create_future()
            workers.turnstile.send(workers.put, done, done)
            held += workers.turnstile.held_back - before
        sent += burst
        await asyncio.sleep(random.expovariate(2500 / burst))
    await asyncio.sleep(1)
    assert held < 0.05 * sent


def test_a_timer_that_is_early_is_no_sign_that_everything_is_stuck() -> None:
    class EarlyLoop(FineLoop):
        """Its timers fire in half the time, as coarse clocks let them."""

        def call_later(
            self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None
        ) -> asyncio.TimerHandle:
            return super().call_later(delay / 2, callback, *args, context=context)

    async def program() -> None:
        turnstile, out = that_holds_back(), list[int]()
        for number in range(3):
            turnstile.send(out.append, number, number)
        await asyncio.sleep(1.9 * PATIENCE)  # half as long
        assert len(out) == AT_ONCE
        await asyncio.sleep(0.4 * PATIENCE)
        assert len(out) == 3

    run(program(), EarlyLoop())


class Request:
    """What a context variable holds."""


@in_virtual_time
async def test_waiting_keeps_nothing_alive_of_who_waited() -> None:
    request = ContextVar[Request]("request")

    async def hold_back(turnstile: Limiter) -> weakref.ref[Request]:
        mine = Request()
        request.set(mine)
        for number in range(3):
            turnstile.send([].append, number, number)
        return weakref.ref(mine)

    turnstile = that_holds_back()
    gone = await asyncio.create_task(hold_back(turnstile))
    await asyncio.sleep(0)  # this turn of the loop has the task in its hands
    gc.collect()
    assert gone() is None
    turnstile.release()
    await asyncio.sleep(A_WHILE)


def test_nothing_is_held_back_before_it_was_seen_to_help(clock: Clock) -> None:
    turnstile, out = Limiter(clock), list[int]()
    for number in range(RUN_IN + TRIAL):
        turnstile.send(out.append, number, number)
    assert out == list(range(RUN_IN + TRIAL))


def test_while_nobody_would_be_held_back_nothing_is_tried(clock: Clock) -> None:
    turnstile, out = Limiter(clock), list[int]()
    for number in range(AT_ONCE):
        turnstile.send(out.append, number, number)
    for _ in range(RUN_IN + RUN_IN + TRIAL + 1):  # in a trial, the other way would be next
        turnstile.went_on(1)
    for number in range(AT_ONCE, 100):
        turnstile.send(out.append, number, number)
    assert out == list(range(100))


async def test_a_trial_in_which_nobody_was_out_ends_as_well(clock: Clock) -> None:
    turnstile, out = Limiter(clock), list[int]()
    for number in range(AT_ONCE + 1):
        turnstile.send(out.append, number, number)
    turnstile.went_on(RUN_IN)
    come_back(turnstile, range(AT_ONCE + 1))
    turnstile.went_on(RUN_IN)
    turnstile.went_on(TRIAL)  # as letters that no statement sent
    for number in range(AT_ONCE + 1):
        turnstile.send(out.append, number, number)
    assert turnstile.held_back == 1, "the other way is not tried next"
