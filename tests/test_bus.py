from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from typing import Any

import pytest

from aiosqlitepool.bus import PLENTY, SAMPLE_INTERVAL, EventBus
from aiosqlitepool.events import (
    AcquiredAtOnce,
    ConnectionAcquired,
    ConnectionCreated,
    ConnectionReleased,
    ErrorInfo,
    IdleReplaced,
    PoolClosed,
    PoolEvent,
    SubscriberFailed,
    TimesNoted,
    event_types,
)
from aiosqlitepool.pool.request import Attempt
from aiosqlitepool.testing import Recorder

from .support.clock import Clock
from .support.pools import StubPool, pool_of
from .support.stub import StubDriver, settle

CREATED = ConnectionCreated("app.db", 1, 0.25)
CLOSED = PoolClosed("app.db", 0)


class Broken:
    """A handler that raises what it is told to."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, event: PoolEvent) -> None:
        raise self.error


def test_a_handler_gets_the_events_of_its_type_only() -> None:
    bus, got = EventBus(), list[PoolEvent]()
    bus.subscribe(ConnectionCreated, got.append)
    bus.emit(CREATED)
    bus.emit(CLOSED)
    assert got == [CREATED]


def test_a_handler_of_the_parent_gets_every_event() -> None:
    bus, got = EventBus(), list[PoolEvent]()
    bus.subscribe(PoolEvent, got.append)
    bus.emit(CREATED)
    bus.emit(CLOSED)
    assert got == [CREATED, CLOSED]
    assert set(bus.handlers) == set(event_types())


def test_a_handler_of_a_parent_gets_its_children_too() -> None:
    bus, got = EventBus(), list[PoolEvent]()
    bus.subscribe(ConnectionAcquired, got.append)
    bus.emit(at_once := AcquiredAtOnce("app.db", 1, "idle", 0.0))
    bus.emit(waited := ConnectionAcquired("app.db", 1, "queued", 1.0))
    assert got == [at_once, waited]


def test_a_handler_that_wants_exactly_its_type_gets_no_children() -> None:
    bus, got = EventBus(), list[PoolEvent]()
    bus.subscribe(ConnectionAcquired, got.append, exact=True)
    bus.emit(AcquiredAtOnce("app.db", 1, "idle", 0.0))
    bus.emit(waited := ConnectionAcquired("app.db", 1, "queued", 1.0))
    assert got == [waited]


def test_handlers_run_in_the_order_of_their_subscription() -> None:
    bus, order = EventBus(), list[str]()
    bus.subscribe(ConnectionCreated, lambda _: order.append("first"))
    bus.subscribe(PoolEvent, lambda _: order.append("second"))
    bus.subscribe(ConnectionCreated, lambda _: order.append("third"))
    bus.emit(CREATED)
    assert order == ["first", "second", "third"]


def test_a_bus_without_subscribers_has_no_handlers_at_all() -> None:
    bus = EventBus()
    detach = bus.subscribe(PoolEvent, print)
    detach()
    assert bus.handlers == {}


def test_detaching_twice_is_harmless() -> None:
    bus, got = EventBus(), list[PoolEvent]()
    detach = bus.subscribe(ConnectionCreated, print)
    bus.subscribe(ConnectionCreated, got.append)
    detach()
    detach()
    bus.emit(CREATED)
    assert got == [CREATED]


def test_a_handler_subscribed_twice_and_detached_once_is_left_once() -> None:
    bus, got = EventBus(), list[PoolEvent]()
    bus.subscribe(ConnectionCreated, got.append)
    detach = bus.subscribe(ConnectionCreated, got.append)
    detach()
    bus.emit(CREATED)
    assert got == [CREATED]


@pytest.mark.parametrize("event_type", [object, int, CREATED, "create", None])
def test_only_event_types_can_be_subscribed_to(event_type: object) -> None:
    with pytest.raises(TypeError, match="event_type"):
        EventBus().subscribe(event_type, print)  # type: ignore[arg-type]


@pytest.mark.parametrize("handler", [None, 5, "print"])
def test_a_handler_must_be_callable(handler: object) -> None:
    with pytest.raises(TypeError, match=f"handler.*{handler!r}"):
        EventBus().subscribe(ConnectionCreated, handler)  # type: ignore[arg-type]


def test_a_handler_that_nobody_would_await_is_refused() -> None:
    async def handler(event: ConnectionCreated) -> None:
        raise AssertionError("never called")

    with pytest.raises(TypeError, match=r"handler must be synchronous.*handler"):
        EventBus().subscribe(ConnectionCreated, handler)


@pytest.mark.parametrize(
    "error", [ValueError("broken"), asyncio.CancelledError(), GeneratorExit(), BaseException("broken")], ids=repr
)
def test_a_handler_that_raises_is_counted_and_logged_and_the_others_still_run(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    bus, got = EventBus(), list[PoolEvent]()
    bus.subscribe(ConnectionCreated, Broken(error))
    bus.subscribe(ConnectionCreated, got.append)
    bus.emit(CREATED)
    assert got == [CREATED]
    assert bus.errors == 1
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("aiosqlitepool", logging.ERROR)
    assert "'create'" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_nothing_is_remembered_of_a_broken_handler_that_is_gone(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    bus = EventBus(clock)
    for _ in range(2):
        detach = bus.subscribe(ConnectionCreated, Broken(ValueError("broken")))
        bus.emit(CREATED)
        detach()
    assert len(caplog.records) == 2


def test_a_handler_may_subscribe_another_while_it_runs() -> None:
    bus, got = EventBus(), list[PoolEvent]()
    detach = bus.subscribe(ConnectionCreated, lambda _: bus.subscribe(ConnectionCreated, got.append))
    bus.emit(CREATED)
    assert got == []  # from the next event on
    detach()
    bus.emit(CREATED)
    assert got == [CREATED]


def test_a_handler_may_detach_itself_without_another_being_skipped() -> None:
    bus, got = EventBus(), list[PoolEvent]()

    def once(event: ConnectionCreated) -> None:
        got.append(event)
        detach()

    detach = bus.subscribe(ConnectionCreated, once)
    bus.subscribe(ConnectionCreated, got.append)
    bus.emit(CREATED)
    assert got == [CREATED, CREATED]
    bus.emit(CREATED)
    assert got == [CREATED, CREATED, CREATED]


def test_a_handler_may_emit_another_event() -> None:
    bus, got = EventBus(), list[PoolEvent]()
    bus.subscribe(ConnectionCreated, lambda _: bus.emit(CLOSED))
    bus.subscribe(PoolEvent, got.append)
    bus.emit(CREATED)
    assert got == [CLOSED, CREATED]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_ctrl_c_in_a_handler_ends_the_program_from_the_loop_and_not_inside_the_pool(error: BaseException) -> None:
    steps = list[str]()

    async def program() -> None:
        bus = EventBus()
        bus.subscribe(ConnectionCreated, Broken(error))
        bus.subscribe(ConnectionCreated, lambda _: steps.append("the next handler"))
        bus.emit(CREATED)
        steps.append("after emit")
        await settle()
        steps.append("never")

    loop = asyncio.new_event_loop()
    try:
        task = loop.create_task(program())
        with pytest.raises(type(error)) as caught:
            loop.run_until_complete(task)
        assert caught.value is error
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
    finally:
        loop.close()
    assert steps == ["the next handler", "after emit"]


def test_ctrl_c_in_a_handler_without_a_loop_ends_the_program_at_once() -> None:
    bus = EventBus()
    bus.subscribe(ConnectionCreated, Broken(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        bus.emit(CREATED)
    assert bus.errors == 1


def test_an_event_nobody_wants_is_delivered_to_nobody() -> None:
    bus, got = EventBus(), list[PoolEvent]()
    bus.subscribe(IdleReplaced, got.append)
    bus.emit(CREATED)
    assert got == []


def test_a_failure_to_hear_of_a_failure_is_told_to_nobody() -> None:
    bus, told = EventBus(), list[PoolEvent]()
    bus.subscribe(SubscriberFailed, Broken(RuntimeError()))
    bus.subscribe(SubscriberFailed, told.append)
    failure = SubscriberFailed("app.db", "create", "a handler", ErrorInfo("RuntimeError", ""))
    bus.emit(failure)
    assert told == [failure]
    assert bus.errors == 1


# -- times


def released(use_time: float) -> ConnectionReleased:
    return ConnectionReleased("app.db", 1, use_time)


def acquired(wait_time: float, create_time: float = 0.0) -> ConnectionAcquired:
    return ConnectionAcquired("app.db", 1, "queued", wait_time, create_time=create_time)


async def wait_and_use(pool: StubPool) -> None:
    """One opens the only connection, one waits for it, and one gets it at once."""
    async with pool:
        async with pool.connection():
            waiting = asyncio.create_task(pool.acquire())
            await settle()
        await pool.release(await waiting)
        async with pool.connection():
            pass


async def test_who_wants_nothing_but_times_is_told_of_many_at_a_time(driver: StubDriver) -> None:
    told = list[TimesNoted]()
    pool, recorder = pool_of(driver, 1), Recorder()
    pool.subscribe(recorder)
    pool.events.subscribe(TimesNoted, told.append)
    await wait_and_use(pool)
    waits = [event for event in recorder.of(ConnectionAcquired) if type(event) is ConnectionAcquired]
    (times,) = told
    assert (times.pool, times.at_once) == (pool.name, 1)
    assert times.waits == {event.path: (event.wait_time,) for event in waits}
    assert set(times.waits) == {"new", "queued"}
    assert times.uses == tuple(event.use_time for event in recorder.of(ConnectionReleased))
    assert len(times.uses) == 3


async def test_nobody_else_needs_to_listen_for_times(driver: StubDriver) -> None:
    told, pool = list[TimesNoted](), pool_of(driver, 1)
    pool.events.subscribe(TimesNoted, told.append)
    await wait_and_use(pool)
    (times,) = told
    assert (times.at_once, len(times.uses)) == (1, 3)
    assert {path: len(waits) for path, waits in times.waits.items()} == {"new": 1, "queued": 1}


@pytest.mark.parametrize("events", [(), (ConnectionAcquired, ConnectionReleased)])
async def test_times_are_told_when_there_are_plenty(driver: StubDriver, events: tuple[type[PoolEvent], ...]) -> None:
    told, pool = list[TimesNoted](), pool_of(driver, 1)
    for event_type in events:
        pool.events.subscribe(event_type, lambda event: None)
    pool.events.subscribe(TimesNoted, told.append)
    async with pool:
        for _ in range(PLENTY):
            assert told == []
            async with pool.connection():
                pass
        (times,) = told
    assert (times.at_once, len(times.uses)) == (PLENTY - 1, PLENTY)
    assert len(told) == 1, "there are none left to tell of at the end"


def test_times_are_told_when_somebody_asks() -> None:
    bus, told = EventBus(pool="app.db"), list[TimesNoted]()
    bus.subscribe(TimesNoted, told.append)
    bus.emit(acquired(0.5))
    bus.emit(released(0.25))
    assert told == []
    bus.tell_times()
    bus.tell_times()
    assert told == [TimesNoted("app.db", 0, {"queued": (0.5,)}, (0.25,))]


def test_who_subscribes_to_every_event_is_not_told_of_times() -> None:
    bus, told = EventBus(), list[PoolEvent]()
    bus.subscribe(PoolEvent, told.append)
    bus.emit(released(0.25))
    bus.tell_times()
    assert told == [released(0.25)]


def test_who_comes_later_is_not_told_the_times_of_before() -> None:
    bus, early, late = EventBus(), list[TimesNoted](), list[TimesNoted]()
    bus.acquired_at_once += 1
    bus.subscribe(TimesNoted, early.append)
    bus.emit(released(0.25))
    bus.subscribe(TimesNoted, late.append)
    bus.emit(released(0.5))
    bus.tell_times()
    assert [(times.at_once, times.uses) for times in early] == [(0, (0.25,)), (0, (0.5,))]
    assert [times.uses for times in late] == [(0.5,)]


def test_who_goes_is_told_the_times_of_before() -> None:
    bus, told = EventBus(), list[TimesNoted]()
    detach = bus.subscribe(TimesNoted, told.append)
    bus.emit(released(0.25))
    detach()
    bus.emit(released(0.5))
    bus.tell_times()
    assert [times.uses for times in told] == [(0.25,)]


async def test_a_handler_of_times_that_fails_is_counted_and_told(driver: StubDriver, recorder: Recorder) -> None:
    pool = pool_of(driver)
    pool.events.subscribe(SubscriberFailed, recorder.append)
    pool.events.subscribe(TimesNoted, Broken(RuntimeError("no")))
    async with pool, pool.connection():
        pass
    assert pool.stats().subscriber_errors == 1
    (told,) = recorder.of(SubscriberFailed)
    assert (told.event, told.error.message) == ("times", "no")


def test_each_time_is_told_once_whoever_asks_meanwhile() -> None:
    bus, told, done = EventBus(), list[float](), threading.Event()
    bus.subscribe(TimesNoted, lambda times: told.extend(times.uses))

    def ask() -> None:
        while not done.is_set():
            bus.tell_times()

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    for number in range(5000):
        bus.emit(released(float(number)))
    done.set()
    for asker in askers:
        asker.join()
    bus.tell_times()
    assert told == [float(number) for number in range(5000)]


def test_a_handler_of_times_may_ask_for_times() -> None:
    bus, told = EventBus(), list[TimesNoted]()

    def ask(times: TimesNoted) -> None:
        told.append(times)
        bus.tell_times()

    bus.subscribe(TimesNoted, ask)
    bus.emit(released(0.25))
    bus.tell_times()
    assert len(told) == 1


def test_times_are_told_once_though_whoever_tells_them_is_interrupted_by_another() -> None:
    """Bug: a signal handler that asked for times made a release raise `IndexError`, and lost what was taken so far."""
    bus, told = EventBus(), list[float]()

    class Interrupted(deque[float]):
        def popleft(self) -> float:
            first = super().popleft()
            if len(self) == 2:
                bus.tell_times()
            return first

    bus.uses = Interrupted()
    bus.subscribe(TimesNoted, lambda times: told.extend(times.uses))
    for number in range(3):
        bus.emit(released(float(number)))
    bus.tell_times()
    assert sorted(told) == [0.0, 1.0, 2.0]


def test_who_asks_for_times_while_another_thread_tells_them_waits_until_everybody_was_told() -> None:
    """Bug: a scrape in between showed neither what was being told nor anything else of it."""
    bus, told, telling, go_on = EventBus(), list[float](), threading.Event(), threading.Event()

    def tell_slowly(times: TimesNoted) -> None:
        telling.set()
        go_on.wait(60)
        told.extend(times.uses)

    bus.subscribe(TimesNoted, tell_slowly)
    bus.emit(released(0.25))
    one = threading.Thread(target=bus.tell_times)
    one.start()
    assert telling.wait(60)
    bus.tell_times(wait=False)  # as a release does, which must not be held up
    assert told == []
    threading.Timer(0.01, go_on.set).start()
    bus.tell_times()
    assert told == [0.25]
    one.join()


def test_in_a_forked_process_the_times_of_its_parent_are_not_told_again() -> None:
    """Bug: with Prometheus's files, every child wrote what its parent had noted and was to write itself."""
    bus, told = EventBus(), list[TimesNoted]()
    bus.subscribe(TimesNoted, told.append)
    bus.acquired_at_once += 1
    bus.emit(acquired(0.5))
    bus.emit(released(0.25))
    bus.forked()
    bus.tell_times()
    assert told == []


def test_an_end_of_the_program_in_one_handler_of_times_is_no_reason_not_to_tell_the_others() -> None:
    bus, told = EventBus(), list[TimesNoted]()
    bus.subscribe(TimesNoted, Broken(SystemExit(3)))
    bus.subscribe(TimesNoted, told.append)
    bus.subscribe(SubscriberFailed, Broken(KeyboardInterrupt()))
    bus.emit(released(0.25))
    with pytest.raises(SystemExit):  # there is no loop that could be ended with it
        bus.tell_times()
    assert [times.uses for times in told] == [(0.25,)]


# -- slow acquires, and samples of the others


async def test_an_acquire_that_nobody_wants_an_event_of_makes_none(
    driver: StubDriver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    times, slow = list[TimesNoted](), list[ConnectionAcquired]()
    pool = pool_of(driver, 1, clock=clock)
    pool.events.subscribe(TimesNoted, times.append)
    pool.events.subscribe(ConnectionAcquired, slow.append, at_least=0.5)
    made = list[float]()
    acquired = Attempt.acquired

    def made_of(attempt: Attempt, *args: Any) -> ConnectionAcquired:
        event = acquired(attempt, *args)
        made.append(event.wait_time)
        return event

    monkeypatch.setattr(Attempt, "acquired", made_of)
    async with pool:
        for seconds in (0.25, 0.5):
            async with pool.connection():
                waiting = asyncio.create_task(pool.acquire())
                await settle()
                clock.advance(seconds)
            await pool.release(await waiting)
    assert [told.waits for told in times] == [{"new": (0.0,), "queued": (0.25, 0.5)}]
    assert made == [event.wait_time for event in slow] == [0.5]
    assert [holder.held for holder in slow[0].waited_for] == [0.0]


def test_a_handler_of_slow_acquires_is_told_of_no_others() -> None:
    bus, slow, every = EventBus(), list[PoolEvent](), list[PoolEvent]()
    bus.subscribe(ConnectionAcquired, slow.append, at_least=0.5)
    detach = bus.subscribe(ConnectionAcquired, every.append)
    events = [acquired(0.25), acquired(0.5), acquired(0.25, create_time=0.2)]
    for event in events:
        bus.emit(event)
    bus.emit(AcquiredAtOnce("app.db", 1, "idle", 0.0))
    assert slow == events[1:]
    assert every[:3] == events
    assert bus.acquired_from == 0.0
    detach()
    assert bus.acquired_from == 0.5


def test_a_handler_of_slow_acquires_that_fails_is_named_as_itself(caplog: pytest.LogCaptureFixture) -> None:
    bus = EventBus()
    bus.subscribe(ConnectionAcquired, Broken(RuntimeError("no")), at_least=0.5)
    bus.emit(acquired(1.0))
    assert "tests.test_bus.Broken" in caplog.text


@pytest.mark.parametrize(("event_type", "at_least"), [(ConnectionCreated, 0.5), (PoolEvent, 0.5)])
def test_only_acquires_can_be_slow(event_type: Any, at_least: float) -> None:
    with pytest.raises(ValueError, match=r"at_least=0\.5 is for ConnectionAcquired"):
        EventBus().subscribe(event_type, print, at_least=at_least)


@pytest.mark.parametrize("at_least", [-1, float("nan")])
def test_a_negative_threshold_is_refused(at_least: float) -> None:
    with pytest.raises(ValueError, match="at_least must be"):
        EventBus().subscribe(ConnectionAcquired, print, at_least=at_least)


async def test_samples_are_told_now_and_then(driver: StubDriver, clock: Clock) -> None:
    told, slow, pool = list[float](), list[float](), pool_of(driver, 1, clock=clock)
    pool.events.subscribe(ConnectionAcquired, lambda event: told.append(event.wait_time), at_least=9.0, samples=True)
    pool.events.subscribe(ConnectionAcquired, lambda event: slow.append(event.wait_time), at_least=9.0)
    async with pool:
        for seconds in (0.25, 0.0, 0.0, 0.0):
            clock.advance(SAMPLE_INTERVAL / 2)
            async with pool.connection():
                waiting = asyncio.create_task(pool.acquire())
                await settle()
                clock.advance(seconds)
            await pool.release(await waiting)
    assert told == [0.0, 0.25, 0.0], "no two of them soon after each other"
    assert slow == [], "for whoever wants no samples"


async def test_for_samples_alone_nobody_looks_whom_an_acquire_waits_for(driver: StubDriver, clock: Clock) -> None:
    told, pool = list[ConnectionAcquired](), pool_of(driver, 1, clock=clock)
    pool.events.subscribe(ConnectionAcquired, told.append, at_least=0.5, samples=True)
    detach = None
    async with pool:
        for _ in range(2):
            async with pool.connection():
                waiting = asyncio.create_task(pool.acquire())
                await settle()
                clock.advance(1.0)
            await pool.release(await waiting)
            detach = detach or pool.events.subscribe(ConnectionAcquired, lambda event: None, at_least=0.5)
    assert [len(event.waited_for) for event in told if event.path == "queued"] == [0, 1]
    detach()
    assert not pool.events.wants_holders
