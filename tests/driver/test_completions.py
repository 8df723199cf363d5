from __future__ import annotations

import asyncio
import errno
import gc
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from contextvars import Context, ContextVar
from functools import partial
from pathlib import Path
from typing import Any, TypeVarTuple, Unpack

import aiosqlite
import pytest

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.driver.completions import Completions, Outcome

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


def future() -> Outcome[Any]:
    return Outcome(loop=asyncio.get_running_loop())


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
    completions, awaited = Completions.of(loop), Outcome[Any](loop=loop)
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


# -- without a turn of the loop in between


class TurnsLoop(asyncio.SelectorEventLoop):
    """Counts what is queued for a later turn by its own thread."""

    queued = 0

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        self.queued += 1
        return super().call_soon(callback, *args, context=context)


def test_a_task_goes_on_in_the_turn_of_the_loop_in_which_its_result_arrives(database: Path) -> None:
    async def program() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnsLoop)
        async with SQLiteConnectionPool(lambda: aiosqlite.connect(database)) as pool, pool.connection() as connection:
            await connection.execute_fetchall("SELECT 1")
            before = loop.queued
            await connection.execute_fetchall("SELECT 1")
            return loop.queued - before

    with asyncio.Runner(loop_factory=TurnsLoop) as runner:
        assert runner.run(program()) == 0


async def test_a_task_goes_on_in_its_own_context() -> None:
    completions, awaited, variable = Completions.of(asyncio.get_running_loop()), future(), ContextVar[int]("v")

    async def task() -> int:
        variable.set(5)
        await awaited
        return variable.get()

    running = asyncio.create_task(task())
    await settle()
    completions.post(awaited, None, None)
    assert await running == 5


async def test_a_task_that_is_cancelled_while_it_waits_gets_no_result() -> None:
    completions, awaited = Completions.of(asyncio.get_running_loop()), future()

    async def task() -> None:
        await awaited

    running = asyncio.create_task(task())
    await settle()
    running.cancel()
    completions.post(awaited, None, None)
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_what_arrives_while_tasks_run_waits_for_the_next_turn_so_that_the_loop_does_its_other_work() -> None:
    completions, order = Completions.of(asyncio.get_running_loop()), list[str]()
    first, second = future(), future()

    async def begin() -> None:
        await first
        asyncio.get_running_loop().call_soon(order.append, "the loop's other work")
        completions.post(second, None, None)

    async def go_on() -> None:
        await second
        order.append("the next result")

    tasks = asyncio.gather(begin(), go_on())
    await settle()
    completions.post(first, None, None)
    await tasks
    assert order == ["the loop's other work", "the next result"]


@pytest.mark.parametrize("serves", [False, True])
def test_a_task_that_ends_the_program_keeps_no_result_from_the_others(serves: bool) -> None:
    tasks = list[asyncio.Task[Any]]()

    async def leave(first: Outcome[None]) -> None:
        await first
        raise SystemExit

    async def stay(second: Outcome[int]) -> int:
        return await second

    async def program() -> None:
        completions, first, second = Completions.of(asyncio.get_running_loop()), future(), future()
        tasks[:] = asyncio.create_task(leave(first)), asyncio.create_task(stay(second))
        await settle()
        if serves:
            completions.add_worker()
        completions.post(first, None, None)
        completions.post(second, 2, None)
        await asyncio.sleep(PATIENCE)

    loop = asyncio.new_event_loop()
    with pytest.raises(SystemExit):
        loop.run_until_complete(program())
    leaving, staying = tasks
    assert loop.run_until_complete(asyncio.wait_for(staying, PATIENCE)) == 2
    assert isinstance(leaving.exception(), SystemExit)
    for task in asyncio.all_tasks(loop):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
    loop.close()


# -- the descriptor that wakes the loop


def wake_descriptors() -> int:
    gc.collect()
    return sum("eventfd" in os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink())


needs_eventfd = pytest.mark.skipif(not hasattr(os, "eventfd"), reason="the system has no eventfd")


@needs_eventfd
async def test_all_connections_of_a_loop_have_one_descriptor_which_the_last_one_closes(database: Path) -> None:
    before = wake_descriptors()
    for _ in range(2):
        async with (
            SQLiteConnectionPool(lambda: aiosqlite.connect(database), 2, min_size=2),
            SQLiteConnectionPool(lambda: aiosqlite.connect(database)) as pool,
        ):
            await pool.fetch_one("SELECT 1")
            assert wake_descriptors() == before + 1
        assert wake_descriptors() == before


@needs_eventfd
async def test_what_the_last_worker_has_sent_arrives_although_it_has_closed_the_descriptor() -> None:
    completions, awaited = Completions.of(asyncio.get_running_loop()), future()
    completions.add_worker()

    def work() -> None:
        completions.post(awaited, 5, None)
        completions.remove_worker()

    in_a_thread(work)
    assert await asyncio.wait_for(awaited, PATIENCE) == 5
    await settle()
    assert completions._wake_fd is None


@needs_eventfd
def test_the_descriptor_of_a_loop_that_was_closed_before_its_connections_is_closed_with_the_last_of_them() -> None:
    before, loop = wake_descriptors(), asyncio.new_event_loop()

    async def add() -> Completions:
        completions = Completions.of(asyncio.get_running_loop())
        completions.add_worker()
        return completions

    completions = loop.run_until_complete(add())
    loop.close()
    completions.post(Outcome(loop=loop), None, None)
    in_a_thread(completions.remove_worker)
    assert wake_descriptors() == before + 1
    del completions, loop
    gc.collect()
    assert wake_descriptors() == before


@needs_eventfd
def test_the_descriptor_keeps_no_context_of_the_request_that_opened_it() -> None:
    class Value:
        """Can be referred to weakly."""

    async def program() -> None:
        variable, value = ContextVar[Value]("v"), Value()
        variable.set(value)
        completions, kept = Completions.of(asyncio.get_running_loop()), weakref.ref(value)
        completions.add_worker()
        del value
        variable.set(Value())
        gc.collect()
        assert kept() is None
        completions.remove_worker()
        await settle()

    asyncio.run(program())


async def test_a_system_without_eventfd_is_woken_as_asyncio_does(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "eventfd", raising=False)
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 2) as pool:
        assert await asyncio.wait_for(pool.fetch_val("SELECT 5"), PATIENCE) == 5
        assert Completions.of(asyncio.get_running_loop())._wake_fd is None


async def test_a_task_that_runs_the_loop_inside_itself_gets_what_was_delivered_with_its_own_result() -> None:
    """As nest_asyncio lets it: what was pending is delivered inside, and nothing is left for the outer delivery."""
    loop = asyncio.get_running_loop()
    completions, first, second = Completions.of(loop), Outcome[int](loop=loop), Outcome[int](loop=loop)
    errors: list[Any] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))

    async def program() -> None:
        await first
        completions.deliver()

    running = asyncio.create_task(program())
    await asyncio.sleep(0)
    for outcome in (first, second):
        completions.post(outcome, 5, None)
    await running
    assert (second.result(), errors) == (5, [])


async def test_a_task_that_has_caught_an_error_is_freed_without_a_garbage_collection(database: Path) -> None:
    """From Python 3.12, the traceback keeps the frames that have run the task."""

    async def request() -> None:
        async with pool.connection() as connection:
            with pytest.raises(sqlite3.OperationalError):
                await connection.execute("SELECT nope")

    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database)) as pool:
        gc.collect()
        gc.disable()
        try:
            task = asyncio.create_task(request())
            await asyncio.wait({task})
            task.result()
            freed = weakref.ref(task)
            del task
            async with asyncio.timeout(5):  # until the worker has let go of its last job
                while freed() is not None:
                    await asyncio.sleep(0.001)
        finally:
            gc.enable()


def test_a_result_that_ctrl_c_has_kept_from_its_task_arrives_when_the_loop_runs_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python handles a signal where a function begins: here, where the result has left the queue."""
    loop = asyncio.new_event_loop()
    completions, awaited = Completions.of(loop), Outcome[int](loop=loop)

    def interrupted(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    async def program() -> int:
        completions.post(awaited, 5, None)
        return await awaited

    monkeypatch.setattr(Outcome, "settle", interrupted)
    task = loop.create_task(program())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    assert loop.run_until_complete(asyncio.wait_for(task, 5)) == 5
    loop.close()


def test_the_end_of_a_delivery_before_it_begins_loses_no_result_in_uvloop() -> None:
    """Python handles a signal where a function begins: here, where the delivery does."""
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop()
    awaited = Outcome[int](loop=loop)

    class Interrupted(Completions):
        deliveries = 0

        def deliver(self) -> None:
            self.deliveries += 1
            if self.deliveries == 1:
                raise KeyboardInterrupt
            super().deliver()

    completions = Interrupted(loop)

    async def program() -> int:
        completions.add_worker()
        completions.post(awaited, 5, None)
        return await awaited

    task = loop.create_task(program())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    loop.call_later(5, task.cancel)
    assert loop.run_until_complete(task) == 5
    loop.close()


async def test_a_system_that_refuses_the_descriptor_is_woken_as_asyncio_does(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "eventfd", refuse, raising=False)
    monkeypatch.setattr(os, "EFD_NONBLOCK", 0, raising=False)
    monkeypatch.setattr(os, "EFD_CLOEXEC", 0, raising=False)
    completions = Completions.of(asyncio.get_running_loop())
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 2) as pool:
        assert await asyncio.wait_for(pool.fetch_val("SELECT 5"), PATIENCE) == 5
        assert completions._wake_fd is None
    await settle()
    assert completions._workers == 0


async def test_in_debug_mode_asyncio_names_the_task_that_keeps_the_loop_for_long(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It named the delivery of the task's result, which says nothing of who is slow."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.01

    async def slow() -> None:
        await pool.fetch_val("SELECT 5")
        time.sleep(0.02)

    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1) as pool:
        await asyncio.create_task(slow(), name="the slow one")
    loop.set_debug(False)
    assert any("name='the slow one'" in record.getMessage() for record in caplog.records)
