from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, TypeVarTuple, Unpack

import pytest

from aiosqlitepool.driver.completions import Completions

from ..support.stub import settle

PATIENCE = 60

Ts = TypeVarTuple("Ts")


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts how often another thread wakes it."""

    wakes = 0

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        self.wakes += 1
        return super().call_soon_threadsafe(callback, *args, context=context)


def in_a_thread(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE)


def future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


async def test_a_result_from_another_thread_arrives() -> None:
    completions, awaited = Completions.of(asyncio.get_running_loop()), future()
    in_a_thread(lambda: completions.post(awaited, 5, None))
    assert await asyncio.wait_for(awaited, PATIENCE) == 5


async def test_an_error_from_another_thread_arrives_as_it_is() -> None:
    completions, awaited, error = Completions.of(asyncio.get_running_loop()), future(), OSError("disk I/O error")
    in_a_thread(lambda: completions.post(awaited, None, error))
    with pytest.raises(OSError, match="disk") as caught:
        await asyncio.wait_for(awaited, PATIENCE)
    assert caught.value is error


async def test_stop_iteration_which_a_future_refuses_arrives_as_a_runtime_error() -> None:
    completions, awaited = Completions.of(asyncio.get_running_loop()), future()
    in_a_thread(lambda: completions.post(awaited, None, StopIteration(5)))
    with pytest.raises(RuntimeError, match=r"StopIteration\(5\)"):
        await asyncio.wait_for(awaited, PATIENCE)


async def test_results_arrive_in_the_order_in_which_they_were_posted() -> None:
    completions, order = Completions.of(asyncio.get_running_loop()), list[int]()
    futures = [future() for _ in range(5)]
    for number, each in enumerate(futures):
        each.add_done_callback(partial(lambda number, _: order.append(number), number))

    def post() -> None:
        for each in futures:
            completions.post(each, None, None)

    in_a_thread(post)
    await asyncio.wait_for(asyncio.gather(*futures), PATIENCE)
    assert order == [0, 1, 2, 3, 4]


async def test_a_completion_for_a_cancelled_waiter_is_dropped() -> None:
    completions, left, stayed = Completions.of(asyncio.get_running_loop()), future(), future()
    left.cancel()
    completions.post(left, 1, None)
    completions.post(stayed, 2, None)
    assert await asyncio.wait_for(stayed, PATIENCE) == 2
    assert left.cancelled()


def test_one_wake_up_delivers_all_that_is_pending() -> None:
    async def program() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingLoop)
        completions, futures = Completions.of(loop), [future() for _ in range(10)]

        def post() -> None:
            for each in futures:
                completions.post(each, None, None)

        in_a_thread(post)
        await asyncio.gather(*futures)
        return loop.wakes

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        assert runner.run(program()) == 1


async def test_what_is_posted_after_a_delivery_wakes_the_loop_again() -> None:
    completions = Completions.of(asyncio.get_running_loop())
    for number in range(3):
        awaited = future()
        completions.post(awaited, number, None)
        assert await asyncio.wait_for(awaited, PATIENCE) == number


async def test_a_loop_has_one_instance() -> None:
    loop = asyncio.get_running_loop()
    assert Completions.of(loop) is Completions.of(loop)


def test_each_loop_has_an_instance_of_its_own() -> None:
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    assert Completions.of(first) is not Completions.of(second)
    first.close()
    second.close()


def test_a_completion_for_a_closed_loop_is_dropped_without_an_error() -> None:
    loop = asyncio.new_event_loop()
    completions, awaited = Completions.of(loop), loop.create_future()
    loop.close()
    completions.post(awaited, 5, None)
    assert not awaited.done()


def test_an_instance_keeps_no_loop_alive() -> None:
    loop = asyncio.new_event_loop()
    completions, gone = Completions.of(loop), weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert gone() is None
    del completions


async def test_a_completion_for_a_collected_loop_is_dropped_without_an_error() -> None:
    loop = asyncio.new_event_loop()
    completions, awaited = Completions.of(loop), future()
    loop.close()
    del loop
    gc.collect()
    completions.post(awaited, 5, None)
    await settle()
    assert not awaited.done()


async def test_completions_posted_during_a_delivery_arrive() -> None:
    completions, first, second = Completions.of(asyncio.get_running_loop()), future(), future()
    first.add_done_callback(lambda _: completions.post(second, 2, None))
    completions.post(first, 1, None)
    await settle()
    assert (first.result(), second.result()) == (1, 2)
