"""Batches of timings: each wait and each use in exactly one of them."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque

import pytest

from aiosqlitepool.bus import BATCH_SIZE, EventBus
from aiosqlitepool.events import (
    ConnectionAcquired,
    ConnectionReleased,
    PoolEvent,
    PoolTimings,
    SlowWait,
    SubscriberFailed,
)
from aiosqlitepool.testing import Recorder

from .support.acquires import released
from .support.pools import StubPool, pool_of
from .support.stub import StubDriver, settle
from .support.timeless import about, timeless


class Broken:
    """A handler that raises an exception."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, event: object) -> None:
        raise self.error


async def wait_and_use(pool: StubPool) -> None:
    """One caller opens the only connection, one waits for it, and one acquires it at once."""
    async with pool:
        async with pool.connection():
            waiting = asyncio.create_task(pool.acquire())
            await settle()
        await pool.release(await waiting)
        async with pool.connection():
            pass


async def test_a_batch_has_each_wait_and_each_use_that_the_events_have(driver: StubDriver) -> None:
    batches = list[PoolTimings]()
    # On a busy machine, a wait could be a slow one, which has another place.
    pool, recorder = pool_of(driver, 1, slow_acquire=None), Recorder()
    pool.subscribe(recorder)
    pool.events.subscribe(PoolTimings, batches.append)
    await wait_and_use(pool)
    new, queued, immediate = recorder.of(ConnectionAcquired)
    (timings,) = batches
    assert (timings.pool, timings.immediate, immediate.wait_time) == (pool.name, 1, 0.0)
    assert timings.waits == {"new": (new.wait_time,), "queued": (queued.wait_time,)}
    assert timings.uses == tuple(event.use_time for event in recorder.of(ConnectionReleased))
    assert len(timings.uses) == 3


async def test_batches_need_no_other_subscriber(driver: StubDriver) -> None:
    batches, pool = list[PoolTimings](), pool_of(driver, 1, slow_acquire=None)
    pool.events.subscribe(PoolTimings, batches.append)
    assert set(pool.events.handlers) == {PoolTimings}
    await wait_and_use(pool)
    (timings,) = batches
    assert (timings.immediate, len(timings.uses), timings.slow) == (1, 3, ())
    assert {path: len(waits) for path, waits in timings.waits.items()} == {"new": 1, "queued": 1}


@timeless
async def test_each_acquire_is_in_exactly_one_place_of_a_batch(driver: StubDriver) -> None:
    batches = list[PoolTimings]()
    async with pool_of(driver, 1, slow_acquire=1) as pool:
        pool.events.subscribe(PoolTimings, batches.append)
        for seconds in (0.25, 3):
            async with pool.connection():
                waiting = asyncio.create_task(pool.acquire())
                await asyncio.sleep(seconds)
            await pool.release(await waiting)
        pool.events.flush_timings()
    (timings,) = batches
    assert timings.immediate == 1  # The first acquire opened a connection.
    assert timings.waits == {"new": (about(0),), "queued": (about(0.25),)}
    assert [(slow.path, slow.wait_time) for slow in timings.slow] == [("queued", about(3))]
    assert timings.uses == (about(0.25), about(0), about(3), about(0))


@timeless
async def test_a_slow_wait_has_the_context_of_its_caller(driver: StubDriver) -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
    batches = list[PoolTimings]()

    async def caller() -> None:
        request.set("GET /users")
        async with pool.connection():
            request.set("later")

    async with pool_of(driver, 1) as pool:
        pool.events.subscribe(PoolTimings, batches.append)
        async with pool.connection():
            waiting = asyncio.create_task(caller())
            await asyncio.sleep(3)
        await waiting
    (slow,) = batches[0].slow
    assert slow.context.run(request.get) == "GET /users"


@pytest.mark.parametrize("events", [(), (ConnectionAcquired, ConnectionReleased)])
async def test_a_batch_is_emitted_when_it_is_full(driver: StubDriver, events: tuple[type[PoolEvent], ...]) -> None:
    batches, pool = list[PoolTimings](), pool_of(driver, 1)
    for event_type in events:
        pool.events.subscribe(event_type, lambda event: None)
    pool.events.subscribe(PoolTimings, batches.append)
    async with pool:
        for _ in range(BATCH_SIZE):
            assert batches == []
            async with pool.connection():
                pass
        (timings,) = batches
    assert (timings.immediate, len(timings.uses)) == (BATCH_SIZE - 1, BATCH_SIZE)
    assert len(batches) == 1, "nothing is left for a batch when the pool closes"


async def test_a_batch_that_is_full_comes_after_the_event_of_its_last_use(driver: StubDriver) -> None:
    released, before = list[ConnectionReleased](), list[int]()
    async with pool_of(driver, 1) as pool:
        pool.events.subscribe(ConnectionReleased, released.append)
        pool.events.subscribe(PoolTimings, lambda timings: before.append(len(released)))
        for _ in range(BATCH_SIZE):
            async with pool.connection():
                pass
        assert before == [BATCH_SIZE]


def test_a_flush_emits_a_batch_unless_nothing_happened() -> None:
    bus, batches = EventBus(pool="app.db"), list[PoolTimings]()
    bus.subscribe(PoolTimings, batches.append)
    bus.record_wait("queued", 0.025)
    bus.record_slow_wait("new", 0.5)
    bus.record_use(0.25)
    assert batches == []
    bus.flush_timings()
    bus.flush_timings()
    slow = (SlowWait("new", 0.5, contextvars.copy_context()),)
    assert batches == [PoolTimings("app.db", 0, {"queued": (0.025,)}, slow, (0.25,))]


def test_an_event_adds_nothing_to_a_batch() -> None:
    bus, batches = EventBus(), list[PoolTimings]()
    bus.subscribe(PoolTimings, batches.append)
    bus.emit(ConnectionAcquired("app.db", 1, "queued", 0.5))
    bus.emit(ConnectionReleased("app.db", 1, 0.25))
    bus.flush_timings()
    assert batches == []


def test_a_subscriber_of_every_event_receives_no_batches() -> None:
    bus, got = EventBus(), list[PoolEvent]()
    bus.subscribe(PoolEvent, got.append)
    assert PoolTimings not in bus.handlers
    released(bus, 0.25)
    bus.flush_timings()
    assert got == [ConnectionReleased("app.db", 1, 0.25)]


def test_batches_are_wanted_while_they_have_a_subscriber() -> None:
    bus = EventBus()
    detaches = [bus.subscribe(PoolTimings, lambda timings: None) for _ in range(2)]
    seen = [PoolTimings in bus.handlers]
    for detach in detaches:
        detach()
        seen.append(PoolTimings in bus.handlers)
    assert seen == [True, True, False]


def test_a_later_subscriber_does_not_receive_earlier_timings() -> None:
    bus, early, late = EventBus(), list[PoolTimings](), list[PoolTimings]()
    bus.immediate += 1
    bus.subscribe(PoolTimings, early.append)
    released(bus, 0.25)
    bus.subscribe(PoolTimings, late.append)
    released(bus, 0.5)
    bus.flush_timings()
    assert [(timings.immediate, timings.uses) for timings in early] == [(0, (0.25,)), (0, (0.5,))]
    assert [timings.uses for timings in late] == [(0.5,)]


def test_a_subscriber_that_detaches_receives_the_timings_up_to_then() -> None:
    bus, batches = EventBus(), list[PoolTimings]()
    detach = bus.subscribe(PoolTimings, batches.append)
    released(bus, 0.25)
    detach()
    released(bus, 0.5)
    bus.flush_timings()
    assert [timings.uses for timings in batches] == [(0.25,)]


async def test_a_failing_handler_of_batches_is_counted_and_reported(driver: StubDriver, recorder: Recorder) -> None:
    pool = pool_of(driver)
    pool.events.subscribe(SubscriberFailed, recorder.append)
    pool.events.subscribe(PoolTimings, Broken(RuntimeError("no")))
    async with pool, pool.connection():
        pass
    assert pool.stats().subscriber_errors == 1
    (report,) = recorder.of(SubscriberFailed)
    assert (report.event, report.error.message) == ("timings", "no")


def test_each_time_is_delivered_once_while_other_threads_flush() -> None:
    bus, uses, done = EventBus(), list[float](), threading.Event()
    bus.subscribe(PoolTimings, lambda timings: uses.extend(timings.uses))

    def flush() -> None:
        while not done.is_set():
            bus.flush_timings()

    threads = [threading.Thread(target=flush) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(5000):
        bus.record_use(float(number))
    done.set()
    for thread in threads:
        thread.join()
    bus.flush_timings()
    assert uses == [float(number) for number in range(5000)]


def test_a_handler_of_batches_may_flush() -> None:
    bus, batches = EventBus(), list[PoolTimings]()

    def flush(timings: PoolTimings) -> None:
        batches.append(timings)
        bus.flush_timings()

    bus.subscribe(PoolTimings, flush)
    bus.record_use(0.25)
    bus.flush_timings()
    assert len(batches) == 1


def test_timings_are_delivered_once_when_another_flush_interrupts_the_first() -> None:
    """Bug: a signal handler that flushed made a release raise `IndexError`, and lost what was drained so far."""
    bus, uses = EventBus(), list[float]()

    class Interrupted(deque[float]):
        def popleft(self) -> float:
            first = super().popleft()
            if len(self) == 2:
                bus.flush_timings()
            return first

    bus._uses = Interrupted()
    bus.subscribe(PoolTimings, lambda timings: uses.extend(timings.uses))
    for number in range(3):
        bus.record_use(float(number))
    bus.flush_timings()
    assert sorted(uses) == [0.0, 1.0, 2.0]


def test_a_flush_waits_until_another_thread_has_delivered_its_batch() -> None:
    """Bug: a scrape in between showed neither the batch in delivery nor anything else of it."""
    bus, uses, delivering, go_on = EventBus(), list[float](), threading.Event(), threading.Event()

    def deliver_slowly(timings: PoolTimings) -> None:
        delivering.set()
        go_on.wait(60)
        uses.extend(timings.uses)

    bus.subscribe(PoolTimings, deliver_slowly)
    bus.record_use(0.25)
    one = threading.Thread(target=bus.flush_timings)
    one.start()
    assert delivering.wait(60)
    for _ in range(BATCH_SIZE):  # A full batch is left for later: a release must not wait.
        bus.record_use(0.5)
    assert uses == []
    threading.Timer(0.01, go_on.set).start()
    bus.flush_timings()
    assert uses == [0.25] + [0.5] * BATCH_SIZE
    one.join()


def test_a_forked_process_does_not_deliver_the_timings_of_its_parent() -> None:
    """Bug: with Prometheus's files, every child wrote what its parent had recorded and was to write itself."""
    bus, batches = EventBus(), list[PoolTimings]()
    bus.subscribe(PoolTimings, batches.append)
    bus.immediate += 1
    bus.record_wait("queued", 0.025)
    bus.record_slow_wait("queued", 0.5)
    bus.record_use(0.25)
    bus.forked()
    bus.flush_timings()
    assert batches == []


def test_a_handler_that_ends_the_program_does_not_keep_a_batch_from_the_others() -> None:
    bus, batches = EventBus(), list[PoolTimings]()
    bus.subscribe(PoolTimings, Broken(SystemExit(3)))
    bus.subscribe(PoolTimings, batches.append)
    bus.subscribe(SubscriberFailed, Broken(KeyboardInterrupt()))
    bus.record_use(0.25)
    with pytest.raises(SystemExit):  # No loop is running that could raise it.
        bus.flush_timings()
    assert [timings.uses for timings in batches] == [(0.25,)]
