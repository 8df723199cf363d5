from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from aiosqlitepool.bus import Detach, EventBus
from aiosqlitepool.events import (
    ConnectionCreated,
    ErrorInfo,
    IdleReplaced,
    PoolClosed,
    PoolEvent,
    PoolTimings,
    StatementExecuted,
    StatementKind,
    StatementSlow,
    StatementTimings,
    SubscriberFailed,
    event_types,
)
from aiosqlitepool.failures import LOG_INTERVAL, FailureLog

from .support.clock import Clock
from .support.stub import settle

CREATED = ConnectionCreated("app.db", 1, 0.25)
CLOSED = PoolClosed("app.db", 0)
SLOW = StatementSlow("app.db", 1, "SELECT ?", "SELECT", "SELECT", 0.0, 0.5, 1000.0, 1, 0)
EXECUTED = StatementExecuted("app.db", 1, "SELECT ?", "SELECT", "SELECT", 0.0, 0.5, 1000.0, 1, 0)
RUNS = {StatementKind("SELECT", "SELECT", None): [0.5]}


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
    class Slept(PoolClosed):
        """An event of a program's own."""

    bus, got = EventBus(), list[PoolEvent]()
    bus.subscribe(Slept, got.append)
    bus.subscribe(PoolClosed, got.append)
    bus.emit(slept := Slept("app.db", 0))
    bus.emit(CLOSED)
    assert got == [slept, CLOSED]


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


@pytest.mark.parametrize("event_type", [object, int, CREATED, "create", None, StatementKind, EXECUTED])
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

    with pytest.raises(TypeError, match=r"handler must be a plain function.* not .*handler"):
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


# -- statements


def test_a_handler_of_all_events_gets_slow_statements_and_no_others() -> None:
    bus, got = EventBus(pool="app.db"), list[PoolEvent]()
    bus.subscribe(PoolEvent, got.append)
    assert not {PoolTimings, StatementTimings, StatementExecuted} & set(bus.handlers)
    bus.emit(SLOW)
    bus.emit(EXECUTED)
    bus.emit_statements(RUNS)
    assert got == [SLOW]


def test_each_statement_and_batches_of_their_times_go_to_their_own_handlers() -> None:
    bus, got = EventBus(pool="app.db"), list[object]()
    detaches = [bus.subscribe(StatementExecuted, got.append), bus.subscribe(StatementTimings, got.append)]
    bus.emit(SLOW)
    bus.emit(EXECUTED)
    bus.emit_statements(RUNS)
    assert got == [EXECUTED, StatementTimings("app.db", RUNS)]
    for detach in detaches:
        detach()
    assert bus.handlers == {}


def test_a_flush_asks_for_the_pending_times_of_statements_too() -> None:
    bus, flushes = EventBus(), list[str]()
    bus.flush_statements = lambda: flushes.append("flushed")
    bus.flush_timings()
    detach = bus.subscribe(StatementTimings, print)
    detach()
    assert flushes == ["flushed"] * 3  # what happened before a subscription, and during it, is not mixed with the rest


@pytest.mark.parametrize("end", [EventBus.end, EventBus.forked])
def test_a_pool_that_has_ended_or_was_forked_is_asked_for_no_more_times(end: Callable[[EventBus], None]) -> None:
    bus = EventBus()
    bus.flush_statements = lambda: pytest.fail("there are none")
    end(bus)
    bus.flush_timings()


# -- attaching


def test_a_failed_attach_leaves_the_handlers_as_they_were() -> None:
    bus, got, kept = EventBus(), list[PoolEvent](), list[Detach]()
    bus.subscribe(ConnectionCreated, got.append)
    handlers, before = bus.handlers, bus.handlers.copy()

    def attach() -> Detach:
        for event_type in (ConnectionCreated, PoolClosed, StatementExecuted, StatementTimings, PoolTimings):
            kept.append(bus.subscribe(event_type, Broken(AssertionError("it is not attached"))))  # type: ignore[arg-type,type-var]
        raise OSError("no log file")

    with pytest.raises(OSError, match="no log file"):
        bus.attach_once(attach, attach)
    assert bus.handlers is handlers
    assert bus.handlers == before
    for detach in kept:
        detach()  # harmless
    bus.emit(CREATED)
    assert (got, bus.errors) == ([CREATED], 0)


def test_an_object_whose_attach_failed_may_be_attached_again() -> None:
    bus, got = EventBus(), list[PoolEvent]()
    errors = iter([OSError("not yet")])

    def attach() -> Detach:
        detach = bus.subscribe(ConnectionCreated, got.append)
        for error in errors:
            raise error
        return detach

    with pytest.raises(OSError, match="not yet"):
        bus.attach_once(attach, attach)
    detach = bus.attach_once(attach, attach)
    bus.emit(CREATED)
    assert got == [CREATED]
    detach()
    assert bus.handlers == {}


# -- the log of failures


def fail(failures: FailureLog, text: str = "broken", handler: object = "handler", *, stays: bool = True) -> None:
    failures.add(handler, "create", ValueError(text), stays=stays)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The errors that were logged with their tracebacks."""
    return [str(record.exc_info[1]) for record in caplog.records if record.exc_info]


def test_a_failure_is_logged_with_handler_event_and_traceback(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    fail(FailureLog(clock))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("aiosqlitepool", logging.ERROR)
    assert record.getMessage() == "subscriber 'handler' failed on 'create'"
    assert logged(caplog) == ["broken"]


def test_a_handler_that_goes_on_failing_is_logged_once_per_interval(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    failures = FailureLog(clock)
    for _ in range(5):
        fail(failures)
    assert len(caplog.records) == 1
    clock.advance(LOG_INTERVAL)
    fail(failures)
    assert len(caplog.records) == 2
    assert "4 more failures" in caplog.records[1].getMessage()
    assert failures.count == 6


def test_each_handler_that_fails_has_a_log_interval_of_its_own(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    failures = FailureLog(clock)
    for _ in range(2):
        fail(failures, "first", handler="one")
        fail(failures, "second", handler="another")
    assert logged(caplog) == ["first", "second"]


def test_nothing_is_remembered_of_a_handler_that_is_gone(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    failures = FailureLog(clock)
    fail(failures, "first")
    failures.forget("handler")
    fail(failures, "second")
    assert logged(caplog) == ["first", "second"]


def test_nothing_is_remembered_of_a_handler_that_unsubscribed_before_it_failed(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    failures = FailureLog(clock)
    fail(failures, "first", stays=False)
    fail(failures, "second", stays=False)
    assert logged(caplog) == ["first", "second"]
