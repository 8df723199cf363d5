from __future__ import annotations

import asyncio
import functools
import gc
import os
import sys
import weakref
from collections.abc import Callable, Collection, Coroutine
from contextvars import ContextVar
from typing import Any, ParamSpec

import pytest

from aiosqlitepool.driver.limiter import AT_ONCE, COUNTED_FOR, COUNTED_WITH_MANY_ROWS, Limiter

from ..support.virtual import VirtualLoop, run

P = ParamSpec("P")

A_MOMENT = 1e-6


class FineLoop(VirtualLoop):
    """Virtual time in steps of any size: a statement takes microseconds."""

    def __init__(self) -> None:
        super().__init__()
        self._clock_resolution = 1e-9

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return asyncio.BaseEventLoop.call_at(self, when, callback, *args, context=context)

    def compute(self, seconds: float) -> None:
        """Let time pass without running any callback, as a task that computes does."""
        self.now += seconds

    @property
    def timers(self) -> int:
        return len(self._scheduled)  # type: ignore[attr-defined]


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in an event loop of its own, in which time passes only while a test waits."""

    @functools.wraps(test)
    def in_a_loop(*args: P.args, **kwargs: P.kwargs) -> None:
        run(test(*args, **kwargs), FineLoop())

    return in_a_loop


def the_loop() -> FineLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FineLoop)
    return loop


def limiter_here(cores: int = 2) -> Limiter:
    return Limiter(asyncio.get_running_loop().time, cores, has_gil=True)


def complete(limiter: Limiter, keys: Collection[object]) -> None:
    """Report one batch of completions, as `Completions.deliver` does."""
    for key in keys:
        limiter.completed(key, None)
    limiter.start_delayed_soon()


def send_all(limiter: Limiter, put: Callable[[Any], None], keys: Collection[Any]) -> None:
    """Send statements whose jobs are their keys."""
    for key in keys:
        limiter.send(put, key, key)


# -- how many run


@in_virtual_time
async def test_two_statements_start_at_once_and_the_others_are_delayed() -> None:
    limiter, started = limiter_here(), list[int]()
    send_all(limiter, started.append, range(5))
    assert (started, limiter.delayed) == ([0, 1], 3)


@in_virtual_time
async def test_for_each_statement_that_completes_one_starts_in_order_of_arrival() -> None:
    limiter, started = limiter_here(), list[int]()
    send_all(limiter, started.append, range(5))
    for done in range(3):
        complete(limiter, [done])
        await asyncio.sleep(0)
        assert started == list(range(AT_ONCE + done + 1))
    assert limiter.delayed == 0


@in_virtual_time
async def test_a_statement_that_arrives_later_does_not_overtake_a_delayed_one() -> None:
    limiter, started = limiter_here(), list[int]()
    send_all(limiter, started.append, range(3))
    complete(limiter, [0, 1])
    limiter.send(started.append, 3, 3)  # although none is running
    await asyncio.sleep(0)
    assert started == [0, 1, 2, 3]


@in_virtual_time
async def test_statements_that_follow_each_other_are_never_delayed() -> None:
    limiter, started = limiter_here(), list[int]()
    for key in range(100):
        limiter.send(started.append, key, key)
        assert (len(started), limiter.delayed) == (key + 1, 0)
        complete(limiter, [key])
    assert the_loop().timers == 0


@in_virtual_time
async def test_a_batch_of_completions_starts_as_many_as_completed() -> None:
    limiter, started = limiter_here(), list[int]()
    send_all(limiter, started.append, range(6))
    complete(limiter, [0, 1])
    await asyncio.sleep(0)
    assert started == [0, 1, 2, 3]


@in_virtual_time
async def test_a_task_that_awaited_a_completion_runs_before_the_next_statement_starts() -> None:
    limiter, order, result = limiter_here(), list[str](), asyncio.get_running_loop().create_future()

    async def wait() -> None:
        await result
        order.append("the task runs")

    send_all(limiter, order.append, ["1", "2", "3"])
    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    result.set_result(None)
    complete(limiter, ["1"])
    await asyncio.sleep(0)
    await waiting
    assert order == ["1", "2", "the task runs", "3"]


# -- which statements count


@in_virtual_time
async def test_statements_older_than_a_millisecond_delay_no_other() -> None:
    limiter, started = limiter_here(), list[str]()
    send_all(limiter, started.append, ["report", "backup"])
    await asyncio.sleep(COUNTED_FOR)
    limiter.send(started.append, "click", "click")
    assert started == ["report", "backup", "click"]


@in_virtual_time
async def test_a_statement_waits_for_long_ones_until_the_oldest_is_a_millisecond_old() -> None:
    limiter, started, loop = limiter_here(), list[tuple[str, float]](), the_loop()

    def put(name: str) -> None:
        started.append((name, loop.time()))

    began = loop.time()
    limiter.send(put, "report", "report")
    await asyncio.sleep(0.4 * COUNTED_FOR)
    send_all(limiter, put, ["backup", "click", "second click"])
    await asyncio.sleep(2 * COUNTED_FOR)
    times = [round((time - began) / COUNTED_FOR, 6) for _, time in started]
    assert [name for name, _ in started] == ["report", "backup", "click", "second click"]
    assert times == [0, 0.4, 1, 1.4]


@in_virtual_time
async def test_a_statement_that_no_longer_counted_makes_no_room_when_it_completes() -> None:
    limiter, started = limiter_here(), list[str]()
    send_all(limiter, started.append, ["report", "backup"])
    await asyncio.sleep(COUNTED_FOR)
    send_all(limiter, started.append, ["1", "2", "3"])
    complete(limiter, ["report", "backup"])
    await asyncio.sleep(A_MOMENT)
    assert started == ["report", "backup", "1", "2"]


@in_virtual_time
async def test_statements_that_never_complete_delay_each_pair_behind_them_by_a_millisecond() -> None:
    limiter, started = limiter_here(), list[int]()
    send_all(limiter, started.append, range(20))
    for pair in range(1, 11):
        assert started == list(range(2 * pair))
        await asyncio.sleep(COUNTED_FOR + A_MOMENT)
    assert limiter.delayed == 0


@in_virtual_time
async def test_statements_that_have_returned_many_rows_count_for_longer() -> None:
    """They need the GIL for each row: beside two that no longer counted, two more began, and all were slower."""
    limiter, started = limiter_here(), list[str]()
    limiter.note_many_rows("list")
    for key in ("1", "2", "3"):
        limiter.send(started.append, key, key, "list")
    await asyncio.sleep(0.9 * COUNTED_WITH_MANY_ROWS)
    assert started == ["1", "2"]
    await asyncio.sleep(0.2 * COUNTED_WITH_MANY_ROWS)
    assert started == ["1", "2", "3"]


@in_virtual_time
async def test_a_statement_waits_no_longer_for_a_long_one_because_another_counts_for_longer() -> None:
    limiter, started = limiter_here(), list[str]()
    limiter.note_many_rows("list")
    limiter.send(started.append, "1", "1", "list")
    send_all(limiter, started.append, ["report", "click"])
    await asyncio.sleep(1.1 * COUNTED_FOR)
    assert started == ["1", "report", "click"]


@in_virtual_time
async def test_only_the_sql_of_some_statements_is_known() -> None:
    limiter = limiter_here()
    limiter.note_many_rows(None)
    for number in range(1_200):
        limiter.note_many_rows(f"SELECT {number}")
    assert 0 < len(limiter.many_rows) <= 500
    assert "SELECT 1199" in limiter.many_rows


@in_virtual_time
async def test_a_long_statement_leaves_room_for_the_short_ones_beside_it() -> None:
    limiter, started = limiter_here(), list[str]()
    limiter.send(started.append, "report", "report")
    await asyncio.sleep(COUNTED_FOR)
    send_all(limiter, started.append, ["1", "2", "3"])
    assert started == ["report", "1", "2"]


@in_virtual_time
async def test_a_loop_that_is_late_starts_what_is_due_in_its_next_turn() -> None:
    limiter, started = limiter_here(), list[int]()
    send_all(limiter, started.append, range(4))
    the_loop().compute(10 * COUNTED_FOR)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert started == [0, 1, 2, 3]


@in_virtual_time
async def test_at_most_one_timer_is_set_however_many_are_delayed() -> None:
    limiter = limiter_here()
    for round_ in range(10):
        send_all(limiter, lambda job: None, [(round_, key) for key in range(10)])
        complete(limiter, [(round_, key) for key in range(10)])
        await asyncio.sleep(0)
    assert the_loop().timers == 1


@in_virtual_time
async def test_once_none_is_delayed_no_timer_is_set_again() -> None:
    limiter = limiter_here()
    send_all(limiter, lambda job: None, range(3))
    await asyncio.sleep(10 * COUNTED_FOR)
    assert (limiter.delayed, the_loop().timers) == (0, 0)


def test_a_timer_that_fires_early_starts_nothing_early() -> None:
    class EarlyLoop(FineLoop):
        """Its timers fire after half the time, as coarse clocks allow."""

        def call_later(  # type: ignore[override]
            self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None
        ) -> asyncio.TimerHandle:
            return super().call_later(delay / 2, callback, *args, context=context)

    async def program() -> None:
        limiter, started = limiter_here(), list[int]()
        send_all(limiter, started.append, range(3))
        await asyncio.sleep(1.9 * COUNTED_FOR)  # 0.95 of it, by the loop's clock
        assert len(started) == AT_ONCE
        await asyncio.sleep(0.2 * COUNTED_FOR)
        assert len(started) == 3

    run(program(), EarlyLoop())


# -- on one core


@in_virtual_time
async def test_on_one_core_no_statement_is_delayed() -> None:
    limiter, started = limiter_here(cores=1), list[int]()
    send_all(limiter, started.append, range(100))
    limiter.send_now(started.append, 100)
    complete(limiter, range(100))
    assert (started, limiter.delayed) == (list(range(101)), 0)


@pytest.mark.parametrize("has_gil", [True, False])
def test_without_the_gil_no_statement_is_delayed(monkeypatch: pytest.MonkeyPatch, has_gil: bool) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: has_gil, raising=False)
    assert Limiter(cores=2).limits == has_gil


@pytest.mark.parametrize(("cores", "delayed"), [({3}, 0), ({0, 3}, 1)])
@in_virtual_time
async def test_the_cores_that_the_system_gives_the_process_decide(
    monkeypatch: pytest.MonkeyPatch, cores: set[int], delayed: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cores, raising=False)
    limiter = Limiter(has_gil=True)
    send_all(limiter, lambda job: None, range(3))
    assert limiter.delayed == delayed


# -- what leaves the queue otherwise


@in_virtual_time
async def test_a_job_that_is_sent_now_runs_behind_all_that_was_sent_the_same_way_and_no_other() -> None:
    limiter, here, there = limiter_here(), list[int](), list[int]()
    put_here, put_there = here.append, there.append
    for key in range(6):
        limiter.send(put_here if key % 2 else put_there, key, key)
    limiter.send_now(put_here, 7)
    assert (here, there) == ([1, 3, 5, 7], [0])
    assert limiter.delayed == 2


@in_virtual_time
async def test_a_withdrawn_statement_never_starts_and_the_others_keep_their_order() -> None:
    limiter, started = limiter_here(), list[int]()
    put_here, put_there = started.append, started.append
    for key in range(6):
        limiter.send(put_here if key % 2 else put_there, key, key)
    assert limiter.withdraw(put_here) == [3, 5]
    await asyncio.sleep(10 * COUNTED_FOR)
    assert started == [0, 1, 2, 4]
    assert limiter.withdraw(put_there) == []


@in_virtual_time
async def test_one_statement_is_withdrawn_by_its_key() -> None:
    limiter, started = limiter_here(), list[int]()
    send_all(limiter, started.append, range(5))
    assert limiter.withdraw_one(3)
    assert not limiter.withdraw_one(3), "it was withdrawn before"
    assert not limiter.withdraw_one(0), "it has started"
    await asyncio.sleep(10 * COUNTED_FOR)
    assert started == [0, 1, 2, 4]


@in_virtual_time
async def test_completions_that_arrive_after_the_queue_was_withdrawn_start_nothing() -> None:
    limiter, started = limiter_here(), list[int]()
    put = started.append
    send_all(limiter, put, range(3))
    complete(limiter, [0])
    limiter.withdraw(put)
    await asyncio.sleep(10 * COUNTED_FOR)
    assert started == [0, 1]


@in_virtual_time
async def test_a_statement_is_out_of_the_queue_before_it_starts() -> None:
    """Otherwise an exception at that moment, as from Ctrl-C, would let it run twice."""
    limiter, delayed = limiter_here(), list[int]()
    send_all(limiter, lambda job: delayed.append(limiter.delayed), range(4))
    complete(limiter, [0, 1])
    await asyncio.sleep(0)
    assert delayed == [0, 0, 1, 0]


def test_a_statement_whose_sender_gets_an_error_is_not_in_the_queue() -> None:
    limiter, started = Limiter(lambda: 0.0, cores=2, has_gil=True), list[int]()
    send_all(limiter, started.append, range(2))
    with pytest.raises(RuntimeError):  # no event loop runs here, in which a timer could be set
        limiter.send(started.append, 2, 2)
    assert (started, limiter.delayed) == ([0, 1], 0)


class Request:
    """What a context variable holds."""


@in_virtual_time
async def test_the_timer_keeps_no_context_of_a_caller_alive() -> None:
    request = ContextVar[Request]("request")

    async def be_delayed(limiter: Limiter) -> weakref.ref[Request]:
        mine = Request()
        request.set(mine)
        send_all(limiter, lambda job: None, range(3))
        return weakref.ref(mine)

    gone = await asyncio.create_task(be_delayed(limiter_here()))
    await asyncio.sleep(0)  # until now the loop refers to the task
    gc.collect()
    assert gone() is None
    assert the_loop().timers == 1
