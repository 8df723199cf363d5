from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from aiosqlitepool.attempt import Attempt
from aiosqlitepool.bus import LOG_INTERVAL, EventBus
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
    event_types,
)
from aiosqlitepool.testing import Recorder

from .support.clock import Clock
from .support.pools import pool_of
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


def test_a_handler_that_goes_on_raising_is_logged_once_per_interval(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    bus = EventBus(clock)
    bus.subscribe(ConnectionCreated, Broken(ValueError("broken")))
    for _ in range(5):
        bus.emit(CREATED)
    assert len(caplog.records) == 1
    clock.advance(LOG_INTERVAL)
    bus.emit(CREATED)
    assert len(caplog.records) == 2
    assert "4 more failures" in caplog.records[1].getMessage()
    assert bus.errors == 6


def test_each_broken_handler_has_a_log_interval_of_its_own(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    bus = EventBus(clock)
    bus.subscribe(ConnectionCreated, Broken(ValueError("first")))
    bus.subscribe(ConnectionCreated, Broken(ValueError("second")))
    bus.emit(CREATED)
    bus.emit(CREATED)
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["first", "second"]


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


# -- how long connections were out


def released(use_time: float) -> ConnectionReleased:
    return ConnectionReleased("app.db", 1, use_time)


async def test_who_wants_nothing_but_how_long_connections_were_out_is_told_that(driver: StubDriver) -> None:
    uses: list[float] = []
    pool = pool_of(driver)
    recorder = Recorder()
    pool.subscribe(recorder)
    pool.events.subscribe_uses(uses.append)
    async with pool, pool.connection():
        pass
    assert uses == [event.use_time for event in recorder.of(ConnectionReleased)]
    assert len(uses) == 1


async def test_nobody_else_needs_to_listen_for_that(driver: StubDriver) -> None:
    uses: list[float] = []
    pool = pool_of(driver)
    pool.events.subscribe_uses(uses.append)
    async with pool, pool.connection():
        pass
    assert len(uses) == 1


def test_emitting_a_release_tells_how_long_it_was_out() -> None:
    bus, uses = EventBus(), list[float]()
    bus.subscribe_uses(uses.append)
    bus.emit(released(0.25))
    assert uses == [0.25]


def test_detached_it_is_told_no_more_and_the_others_are() -> None:
    bus, uses = EventBus(), list[float]()
    note = uses.append
    detach = bus.subscribe_uses(note)
    bus.subscribe_uses(note)
    detach()
    detach()
    bus.emit(released(0.25))
    assert uses == [0.25]


async def test_a_handler_of_uses_that_fails_is_counted_and_told(driver: StubDriver, recorder: Recorder) -> None:
    def fail(use_time: float) -> None:
        raise RuntimeError("no")

    pool = pool_of(driver)
    pool.events.subscribe(SubscriberFailed, recorder.append)
    pool.events.subscribe_uses(fail)
    async with pool, pool.connection():
        pass
    assert pool.stats().subscriber_errors == 1
    (told,) = recorder.of(SubscriberFailed)
    assert (told.event, told.error.message) == ("release", "no")


def test_a_handler_of_uses_that_fails_at_an_emitted_release_is_counted_once() -> None:
    def fail(use_time: float) -> None:
        raise RuntimeError("no")

    bus = EventBus()
    bus.subscribe_uses(fail)
    bus.emit(released(0.25))
    assert bus.errors == 1


@pytest.mark.parametrize("handler", [None, 1])
def test_a_handler_of_uses_must_be_callable(handler: Any) -> None:
    with pytest.raises(TypeError, match="must be callable"):
        EventBus().subscribe_uses(handler)


async def test_who_wants_nothing_but_how_long_callers_waited_is_told_that(driver: StubDriver) -> None:
    waits: list[tuple[str, float]] = []
    pool, recorder = pool_of(driver, 1), Recorder()
    pool.subscribe(recorder)
    pool.events.subscribe_waits(lambda path, seconds: waits.append((path, seconds)))
    async with pool:
        async with pool.connection():
            waiting = asyncio.create_task(pool.acquire())
            await settle()
        await pool.release(await waiting)
    told = [event for event in recorder.of(ConnectionAcquired) if type(event) is ConnectionAcquired]
    assert waits == [(event.path, event.wait_time) for event in told]
    assert [path for path, _ in waits] == ["new", "queued"]


async def test_an_acquire_that_nobody_wants_an_event_of_makes_none(
    driver: StubDriver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, slow = list[float](), list[ConnectionAcquired]()
    pool = pool_of(driver, 1, clock=clock)
    pool.events.subscribe_waits(lambda path, seconds: waits.append(seconds))
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
    assert waits == [0.0, 0.25, 0.5]
    assert made == [event.wait_time for event in slow] == [0.5]
    assert [holder.held for holder in slow[0].waited_for] == [0.0]


def acquired(wait_time: float, create_time: float = 0.0) -> ConnectionAcquired:
    return ConnectionAcquired("app.db", 1, "queued", wait_time, create_time=create_time)


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


def test_detached_a_handler_of_waits_is_told_no_more_and_the_others_are() -> None:
    bus, waits = EventBus(), list[float]()

    def note(path: str, seconds: float) -> None:
        waits.append(seconds)

    detach = bus.subscribe_waits(note)
    bus.subscribe_waits(note)
    detach()
    detach()
    bus.emit(acquired(0.25))
    assert waits == [0.25]


async def test_a_handler_of_waits_that_fails_is_counted_and_told(driver: StubDriver, recorder: Recorder) -> None:
    def fail(path: str, seconds: float) -> None:
        raise RuntimeError("no")

    pool = pool_of(driver)
    pool.events.subscribe(SubscriberFailed, recorder.append)
    pool.events.subscribe_waits(fail)
    async with pool, pool.connection():
        pass
    assert pool.stats().subscriber_errors == 1
    (told,) = recorder.of(SubscriberFailed)
    assert (told.event, told.error.message) == ("acquire_wait", "no")


@pytest.mark.parametrize("handler", [None, 1])
def test_a_handler_of_waits_must_be_callable(handler: Any) -> None:
    with pytest.raises(TypeError, match="must be callable"):
        EventBus().subscribe_waits(handler)
