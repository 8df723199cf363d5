from __future__ import annotations

import asyncio
import gc
import weakref
from contextvars import copy_context
from pathlib import Path

import aiosqlite
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from aiosqlitepool import PoolClosedError, PoolConnectionAcquireTimeoutError, PoolFullError, SQLiteConnectionPool
from aiosqlitepool.events import (
    AcquirePath,
    AcquireSlow,
    AcquireTimedOut,
    ConnectionCreated,
    ErrorInfo,
    HealthCheckFailed,
    IdleReplaced,
    LeakSuspected,
)
from aiosqlitepool.stats import Holder
from aiosqlitepool.subscribers.opentelemetry import OpenTelemetrySubscriber

from ..support.acquires import acquired
from ..support.clock import Clock
from ..support.pools import StubPool, pool_of, queued
from ..support.stub import StubDriver, fails, settle
from ..support.timeless import timeless
from .conftest import Telemetry

ACQUIRE, CONNECT, CHECKOUT = "aiosqlitepool.acquire", "aiosqlitepool.connect", "aiosqlitepool.checkout"
LEAK = "aiosqlitepool.leak"


def emit_acquired(pool: StubPool, wait_time: float, path: AcquirePath = "queued") -> None:
    acquired(pool.events, wait_time, path, pool.name)


def slowly(seconds: float) -> StubDriver:
    """A driver that takes so long to connect."""
    driver = StubDriver()
    driver.on_connect = lambda: asyncio.sleep(seconds)
    return driver


# -- which acquires


@pytest.mark.parametrize(("mode", "told"), [("off", 0), ("slow", 1), ("queued", 2), ("all", 4)])
def test_the_mode_says_which_acquires_are_told(telemetry: Telemetry, mode: str, told: int) -> None:
    pool = SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[telemetry.subscriber(spans=mode)])
    emit_acquired(pool, 0.0, "idle")
    emit_acquired(pool, 0.01, "new")
    emit_acquired(pool, 0.01, "queued")
    emit_acquired(pool, 0.05, "new")
    assert len(telemetry.spans(ACQUIRE)) == told


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="spans must be one of 'off', 'slow', 'queued', 'all', not 'some'"):
        OpenTelemetrySubscriber(spans="some")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["slow", "queued", "all"])
@timeless
async def test_what_is_slow_is_what_the_pool_says_and_an_acquire_has_one_span(mode: str) -> None:
    telemetry = Telemetry()
    subscribers = [telemetry.subscriber(spans=mode)]
    async with pool_of(StubDriver(), 1, slow_acquire=1, subscribers=subscribers) as pool:
        for seconds in (0.9, 1.1):
            async with pool.connection():
                waiter = await queued(pool)
                await asyncio.sleep(seconds)
            await pool.release(await waiter)
    paths = [(span.attributes or {})["aiosqlitepool.acquire.path"] for span in telemetry.spans(ACQUIRE)]
    assert paths == {"slow": ["queued"], "queued": ["queued"] * 2, "all": ["new", "queued", "idle", "queued"]}[mode]


@timeless
async def test_only_the_span_of_a_slow_acquire_is_linked(telemetry: Telemetry) -> None:
    async with pool_of(StubDriver(), 1, slow_acquire=1, subscribers=[telemetry.subscriber(spans="all")]) as pool:
        for seconds in (0.9, 1.1):
            with telemetry.tracer.start_as_current_span("holder"):
                held = await pool.acquire()
            waiter = await queued(pool)
            await asyncio.sleep(seconds)
            await pool.release(held)
            await pool.release(await waiter)
    assert [len(span.links) for span in telemetry.spans(ACQUIRE)] == [0, 0, 0, 1]


# -- how many


def left_out(telemetry: Telemetry) -> list[object]:
    """Of each acquire span, how many the limit had left out before it."""
    return [(span.attributes or {}).get("aiosqlitepool.acquire.left_out") for span in telemetry.spans(ACQUIRE)]


def limited(telemetry: Telemetry, clock: Clock, most: int | None = 2, **options: object) -> StubPool:
    """A pool whose slow acquires may have so many spans in a second."""
    subscriber = telemetry.subscriber(slow_spans_per_second=most, clock=clock, **options)
    return SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[subscriber])


def test_spans_of_slow_acquires_are_limited_and_the_next_one_says_how_many_were_left_out(
    telemetry: Telemetry, clock: Clock
) -> None:
    pool = limited(telemetry, clock)
    for _ in range(10):
        emit_acquired(pool, 1.0)
    clock.advance(1)
    emit_acquired(pool, 1.0)
    emit_acquired(pool, 1.0)
    assert left_out(telemetry) == [None, None, 8, None]


def test_by_default_a_hundred_slow_acquires_have_a_span_in_a_second(telemetry: Telemetry, clock: Clock) -> None:
    pool = SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[telemetry.subscriber(clock=clock)])
    for _ in range(150):
        emit_acquired(pool, 1.0)
    assert len(telemetry.spans(ACQUIRE)) == 100


def test_each_pool_has_a_limit_of_its_own(telemetry: Telemetry, clock: Clock) -> None:
    subscriber = telemetry.subscriber(slow_spans_per_second=1, clock=clock)
    for name in ("a.db", "b.db"):
        pool = SQLiteConnectionPool(StubDriver(), name=name, subscribers=[subscriber])
        for _ in range(3):
            emit_acquired(pool, 1.0)
    pools = [(span.attributes or {})["db.client.connection.pool.name"] for span in telemetry.spans(ACQUIRE)]
    assert pools == ["a.db", "b.db"]


def test_a_failed_acquire_is_never_left_out_and_says_what_was(telemetry: Telemetry, clock: Clock) -> None:
    pool = limited(telemetry, clock)
    for _ in range(5):
        emit_acquired(pool, 1.0)
    for _ in range(3):
        pool.events.emit(AcquireTimedOut(pool.name, 1.0, 0, ()))
    assert left_out(telemetry) == [None, None, 3, None, None]


def test_failed_acquires_do_not_use_up_the_limit(telemetry: Telemetry, clock: Clock) -> None:
    pool = limited(telemetry, clock)
    for _ in range(3):
        pool.events.emit(AcquireTimedOut(pool.name, 1.0, 0, ()))
    for _ in range(3):
        emit_acquired(pool, 1.0)
    assert len(telemetry.spans(ACQUIRE)) == 5


@pytest.mark.parametrize(("most", "mode"), [(None, "slow"), (2, "queued"), (2, "all")])
def test_where_each_acquire_shall_have_a_span_none_is_left_out(
    telemetry: Telemetry, clock: Clock, most: int | None, mode: str
) -> None:
    pool = limited(telemetry, clock, most, spans=mode)
    for _ in range(150):
        emit_acquired(pool, 1.0)
    assert left_out(telemetry) == [None] * 150


def test_an_acquire_whose_trace_is_not_sampled_does_not_use_up_the_limit(telemetry: Telemetry, clock: Clock) -> None:
    pool = limited(telemetry, clock)
    unsampled = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False).get_tracer("tests")
    with unsampled.start_as_current_span("request"):
        for _ in range(5):
            emit_acquired(pool, 1.0)
    emit_acquired(pool, 1.0)
    assert left_out(telemetry) == [None]


def test_metrics_count_what_spans_leave_out(telemetry: Telemetry, clock: Clock) -> None:
    pool = limited(telemetry, clock)
    for _ in range(10):
        with telemetry.tracer.start_as_current_span("request"):
            emit_acquired(pool, 1.0)
    point = telemetry.point("db.client.connection.wait_time")
    assert (point.count, point.sum) == (10, 10.0)  # type: ignore[union-attr]


@timeless
async def test_the_connect_of_an_acquire_that_is_left_out_is_the_child_of_its_callers_span(clock: Clock) -> None:
    telemetry = Telemetry()
    subscribers = [telemetry.subscriber(slow_spans_per_second=1, clock=clock)]
    async with pool_of(slowly(2), 2, subscribers=subscribers) as pool, pool.connection():
        with telemetry.tracer.start_as_current_span("request") as request:
            async with pool.connection():
                connects = telemetry.spans(CONNECT)
    assert len(telemetry.spans(ACQUIRE)) == 1
    assert [connect.parent and connect.parent.span_id for connect in connects] == [
        telemetry.span(ACQUIRE).context.span_id,
        request.get_span_context().span_id,
    ]


@pytest.mark.parametrize("most", [0, -1, True, 1.5, "5"])
def test_a_limit_that_makes_no_sense_is_refused(most: object) -> None:
    with pytest.raises(ValueError, match="slow_spans_per_second must be a whole number, at least 1, or None, not"):
        OpenTelemetrySubscriber(slow_spans_per_second=most)  # type: ignore[arg-type]


# -- what a span says


def test_an_acquire_span_has_lasted_as_long_as_the_wait(telemetry: Telemetry) -> None:
    pool = SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[telemetry.subscriber()])
    emit_acquired(pool, 0.25)
    span = telemetry.span(ACQUIRE)
    assert span.end_time - span.start_time == 250_000_000  # type: ignore[operator]
    assert span.kind is SpanKind.INTERNAL


@timeless
async def test_an_acquire_span_says_how_it_came_to_be() -> None:
    telemetry = Telemetry()
    async with pool_of(StubDriver(), 1, subscribers=[telemetry.subscriber()]) as pool:
        async with pool.connection():
            waiter = await queued(pool, "GET /users")
            await asyncio.sleep(2)
        await pool.release(await waiter)
    attributes = dict(telemetry.span(ACQUIRE).attributes or {})
    assert attributes.pop("aiosqlitepool.acquire.queue_time") == pytest.approx(2, abs=0.001)
    assert attributes == {
        "db.system.name": "sqlite",
        "db.client.connection.pool.name": "app.db",
        "aiosqlitepool.acquire.path": "queued",
        "aiosqlitepool.acquire.create_time": 0.0,
        "aiosqlitepool.acquire.check_time": 0.0,
        "aiosqlitepool.acquire.pending": 0,
        "aiosqlitepool.acquire.label": "GET /users",
        "aiosqlitepool.connection.id": 1,
        "aiosqlitepool.pool.used": 1,
        "aiosqlitepool.pool.max": 1,
    }


async def test_several_subscribers_of_one_tracer_provider_write_each_span_once() -> None:
    telemetry = Telemetry()
    subscribers = [OpenTelemetrySubscriber(telemetry.tracer_provider, metrics=metrics) for metrics in (False, True)]
    pool = pool_of(StubDriver(), 1, subscribers=subscribers)
    emit_acquired(pool, 1.0)
    assert len(telemetry.spans(ACQUIRE)) == 1


# -- whose child, and linked to whom


@timeless
async def test_an_acquire_span_is_the_child_of_its_waiters_span_and_linked_to_the_span_it_waited_for() -> None:
    telemetry = Telemetry()
    spans = {}

    async def request(name: str, pool: StubPool, use: float) -> None:
        with telemetry.tracer.start_as_current_span(name) as span:
            spans[name] = span.get_span_context()
            async with pool.connection():
                await asyncio.sleep(use)

    async with pool_of(StubDriver(), 1, subscribers=[telemetry.subscriber()]) as pool:
        first = asyncio.create_task(request("first", pool, 3))
        await settle()
        await asyncio.gather(first, request("second", pool, 0))
    span = telemetry.span(ACQUIRE)
    assert span.parent is not None
    assert span.parent.span_id == spans["second"].span_id
    (link,) = span.links
    assert link.context == spans["first"]
    assert dict(link.attributes or {}) == {
        "aiosqlitepool.connection.id": 1,
        "aiosqlitepool.connection.held_time": pytest.approx(3, abs=0.001),
    }


def test_a_link_names_the_label_the_statement_and_whether_the_task_has_ended(telemetry: Telemetry) -> None:
    pool = SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[telemetry.subscriber()])
    with telemetry.tracer.start_as_current_span("holder"):
        context = copy_context()
    holders = [
        Holder(1, "Task-3", "GET /export", 8.2, context, ended=True, statement="SELECT 1"),
        Holder(2, "Task-4", None, 1.0, context),
    ]
    pool.events.emit(AcquireTimedOut(pool.name, 1.0, 0, tuple(holders)))
    named, plain = telemetry.span(ACQUIRE).links
    assert dict(named.attributes or {}) == {
        "aiosqlitepool.connection.id": 1,
        "aiosqlitepool.connection.held_time": 8.2,
        "aiosqlitepool.acquire.label": "GET /export",
        "db.query.text": "SELECT 1",
        "aiosqlitepool.holder.ended": True,
    }
    assert set(plain.attributes or {}) == {"aiosqlitepool.connection.id", "aiosqlitepool.connection.held_time"}


@timeless
async def test_a_waiter_is_linked_to_eight_holders_at_most() -> None:
    telemetry = Telemetry()
    async with pool_of(StubDriver(), 10, slow_acquire=0, subscribers=[telemetry.subscriber(spans="queued")]) as pool:
        held = []
        for number in range(10):
            with telemetry.tracer.start_as_current_span(f"holder {number}"):
                held.append(await pool.acquire())
        waiter = await queued(pool)
        for connection in held:
            await pool.release(connection)
        await pool.release(await waiter)
    assert [len(span.links) for span in telemetry.spans(ACQUIRE)] == [0] * 10 + [8]


@timeless
async def test_a_holder_without_a_span_is_not_linked_to(telemetry: Telemetry) -> None:
    async with pool_of(StubDriver(), 1, slow_acquire=0, subscribers=[telemetry.subscriber()]) as pool:
        async with pool.connection():
            waiter = await queued(pool)
        await pool.release(await waiter)
    assert [span.links for span in telemetry.spans(ACQUIRE)] == [(), ()]


@timeless
async def test_a_holder_that_was_lent_its_connection_before_anybody_listened_is_not_linked_to(
    telemetry: Telemetry,
) -> None:
    async with pool_of(StubDriver(), 1, slow_acquire=0) as pool:
        with telemetry.tracer.start_as_current_span("holder"):
            held = await pool.acquire()
        pool.subscribe(telemetry.subscriber())
        waiter = await queued(pool)
        await pool.release(held)
        await pool.release(await waiter)
    assert telemetry.span(ACQUIRE).links == ()
    assert pool.stats().subscriber_errors == 0


# -- failures


@timeless
async def test_a_timeout_is_an_error_linked_to_the_holders() -> None:
    telemetry = Telemetry()
    subscribers = [telemetry.subscriber()]
    async with pool_of(StubDriver(), 1, acquisition_timeout=2, subscribers=subscribers) as pool:
        with telemetry.tracer.start_as_current_span("holder") as holder:
            connection = await pool.acquire()
        with pytest.raises(PoolConnectionAcquireTimeoutError):
            await pool.acquire()
        await pool.release(connection)
    span = telemetry.span(ACQUIRE)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "timeout"
    assert [link.context for link in span.links] == [holder.get_span_context()]


@timeless
async def test_a_cancelled_acquire_is_told_and_no_error(telemetry: Telemetry) -> None:
    async with pool_of(StubDriver(), 1, subscribers=[telemetry.subscriber()]) as pool, pool.connection():
        waiter = await queued(pool)
        waiter.cancel()
        await settle()
    span = telemetry.span(ACQUIRE)
    assert span.status.status_code is StatusCode.UNSET
    assert (span.attributes or {})["error.type"] == "cancelled"


@timeless
async def test_an_acquire_turned_away_is_an_error(telemetry: Telemetry) -> None:
    subscribers = [telemetry.subscriber()]
    async with pool_of(StubDriver(), 1, max_waiting=0, subscribers=subscribers) as pool, pool.connection():
        with pytest.raises(PoolFullError):
            await pool.acquire()
    span = telemetry.span(ACQUIRE)
    assert (span.status.status_code, (span.attributes or {})["error.type"]) == (StatusCode.ERROR, "rejected")


# -- connecting


@timeless
async def test_a_slow_connect_is_the_child_of_the_acquire_it_was_for() -> None:
    telemetry = Telemetry()
    async with pool_of(slowly(2), 1, subscribers=[telemetry.subscriber()]) as pool, pool.connection():
        pass
    acquire, connect = telemetry.span(ACQUIRE), telemetry.span(CONNECT)
    assert connect.parent is not None
    assert connect.parent.span_id == acquire.context.span_id
    assert (connect.attributes or {})["aiosqlitepool.connection.id"] == 1
    assert connect.end_time - connect.start_time == pytest.approx(2e9, rel=0.001)  # type: ignore[operator]


async def test_a_quick_connect_is_the_child_of_its_callers_span(telemetry: Telemetry) -> None:
    async with pool_of(StubDriver(), 1, slow_acquire=60, subscribers=[telemetry.subscriber()]) as pool:
        with telemetry.tracer.start_as_current_span("request") as request:
            await pool.release(await pool.acquire())
    connect = telemetry.span(CONNECT)
    assert connect.parent is not None
    assert connect.parent.span_id == request.get_span_context().span_id


async def test_a_connect_for_nobody_is_told_when_the_pool_closes_at_the_latest(telemetry: Telemetry) -> None:
    async with pool_of(StubDriver(), 2, min_size=2, subscribers=[telemetry.subscriber()]):
        pass
    assert len(telemetry.spans(CONNECT)) == 2


@pytest.mark.parametrize("mode", ["queued", "all"])
@timeless
async def test_a_quick_connect_is_written_at_once_and_once_where_every_acquire_is_seen(mode: str) -> None:
    telemetry = Telemetry()
    subscribers = [telemetry.subscriber(spans=mode)]
    async with pool_of(slowly(0.01), 1, slow_acquire=60, subscribers=subscribers) as pool, pool.connection():
        connect = telemetry.span(CONNECT)
        parents = [span.context.span_id for span in telemetry.spans(ACQUIRE)]
        assert [connect.parent and connect.parent.span_id] == (parents or [None])
        await asyncio.sleep(1)
    assert len(telemetry.spans(CONNECT)) == 1


@timeless
async def test_a_connect_whose_caller_left_is_told_soon() -> None:
    telemetry = Telemetry()
    async with pool_of(slowly(2), 1, subscribers=[telemetry.subscriber()]) as pool:
        caller = await queued(pool)
        caller.cancel()
        await asyncio.sleep(3)
        assert len(telemetry.spans(CONNECT)) == 1


async def test_a_failed_connect_is_an_error_and_the_child_of_the_failed_acquire(telemetry: Telemetry) -> None:
    driver = StubDriver()
    driver.on_connect = fails(OSError("disk on fire"))
    async with pool_of(driver, 1, subscribers=[telemetry.subscriber()]) as pool:
        with pytest.raises(OSError, match="disk on fire"):
            await pool.acquire()
    acquire, connect = telemetry.span(ACQUIRE), telemetry.span(CONNECT)
    assert connect.parent is not None
    assert connect.parent.span_id == acquire.context.span_id
    assert connect.status.status_code is StatusCode.ERROR
    assert connect.status.description == "OSError: disk on fire"
    assert (acquire.attributes or {})["error.type"] == "OSError"


@timeless
async def test_a_connect_is_no_child_of_an_acquire_that_failed_for_another_reason() -> None:
    telemetry = Telemetry()
    async with pool_of(StubDriver(), 1, subscribers=[telemetry.subscriber()]) as pool:
        held = await pool.acquire()  # a moment ago, so that its connect is not written yet
        waiter = await queued(pool)
        closing = asyncio.create_task(pool.close())
        with pytest.raises(PoolClosedError):
            await waiter
        await pool.release(held)
        await closing
    assert (telemetry.span(ACQUIRE).attributes or {})["error.type"] == "closed"
    assert telemetry.span(CONNECT).parent is None


async def test_without_spans_nobody_hears_of_connections(telemetry: Telemetry) -> None:
    async with pool_of(StubDriver(), 1, subscribers=[telemetry.subscriber(spans="off")]) as pool, pool.connection():
        pass
    assert telemetry.exporter.get_finished_spans() == ()


# -- checkouts


@timeless
async def test_a_checkout_lasts_from_lending_to_return_and_belongs_to_the_span_it_was_lent_in() -> None:
    telemetry = Telemetry()
    subscribers = [telemetry.subscriber(spans="off", checkout_spans=True)]
    async with pool_of(StubDriver(), 1, subscribers=subscribers) as pool:
        with telemetry.tracer.start_as_current_span("request") as request:
            connection = await pool.acquire(label="GET /users")
        slow = await queued(pool)
        await asyncio.sleep(3)
        await pool.release(connection)
        await pool.release(await slow)
    assert telemetry.spans(ACQUIRE) == []
    span = telemetry.spans(CHECKOUT)[0]
    assert span.parent is not None
    assert span.parent.span_id == request.get_span_context().span_id
    assert span.end_time - span.start_time == pytest.approx(3e9, rel=0.001)  # type: ignore[operator]
    attributes = span.attributes or {}
    assert attributes["aiosqlitepool.connection.id"] == 1
    assert attributes["aiosqlitepool.acquire.label"] == "GET /users"
    assert attributes["aiosqlitepool.connection.rolled_back"] in (True, False)


@timeless
async def test_with_checkouts_alone_a_failure_has_no_span_of_its_own() -> None:
    telemetry = Telemetry()
    subscribers = [telemetry.subscriber(spans="off", checkout_spans=True)]
    async with pool_of(StubDriver(), 1, acquisition_timeout=2, subscribers=subscribers) as pool, pool.connection():
        with pytest.raises(PoolConnectionAcquireTimeoutError):
            await pool.acquire()
    assert [span.name for span in telemetry.exporter.get_finished_spans()] == [CHECKOUT]
    assert pool.stats().subscriber_errors == 0


async def test_by_default_there_are_no_checkouts(telemetry: Telemetry) -> None:
    async with pool_of(StubDriver(), 1, subscribers=[telemetry.subscriber()]) as pool, pool.connection():
        pass
    assert telemetry.spans(CHECKOUT) == []


# -- leases that may never end


@timeless
async def test_a_suspected_leak_has_a_span_in_the_trace_of_its_holder_that_names_it() -> None:
    telemetry = Telemetry()
    async with pool_of(StubDriver(), 1, leak_threshold=30, subscribers=[telemetry.subscriber()]) as pool:
        with telemetry.tracer.start_as_current_span("request") as request:
            connection = await pool.acquire(label="GET /report")
        await asyncio.sleep(31)
        span = telemetry.span(LEAK)
        await pool.release(connection)
    assert span.parent is not None
    assert span.parent.span_id == request.get_span_context().span_id
    assert span.end_time - span.start_time == pytest.approx(30e9, rel=0.001)  # type: ignore[operator]
    attributes = span.attributes or {}
    assert attributes["db.client.connection.pool.name"] == "app.db"
    assert attributes["aiosqlitepool.acquire.label"] == "GET /report"
    assert attributes["aiosqlitepool.connection.held_time"] == pytest.approx(30, rel=0.001)


def test_the_span_of_a_leak_has_the_statement_and_is_of_no_trace_without_a_holders_one(telemetry: Telemetry) -> None:
    pool = SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[telemetry.subscriber()])
    holder = Holder(1, "Task-3", "GET /export", 60.0, statement="SELECT 1")
    with telemetry.tracer.start_as_current_span("of the timer"):
        pool.events.emit(LeakSuspected(pool.name, holder, 60.0))
    span = telemetry.span(LEAK)
    assert span.parent is None
    assert (span.attributes or {})["db.query.text"] == "SELECT 1"


# -- events of the current span


def test_failed_checks_and_replacements_are_events_of_the_current_span(telemetry: Telemetry) -> None:
    pool = SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[telemetry.subscriber()])
    with telemetry.tracer.start_as_current_span("request"):
        pool.events.emit(HealthCheckFailed(pool.name, 1, 60.0, ErrorInfo("OSError", "gone")))
        pool.events.emit(IdleReplaced(pool.name, 1, 90.0))
    failed, replaced = telemetry.span("request").events
    assert failed.name == "aiosqlitepool.health_check.failed"
    assert (failed.attributes or {})["error.type"] == "OSError"
    assert replaced.name == "aiosqlitepool.connection.idle_replaced"
    assert (replaced.attributes or {})["aiosqlitepool.connection.idle_time"] == 90.0


def test_without_a_current_span_there_are_no_events(telemetry: Telemetry) -> None:
    pool = SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[telemetry.subscriber()])
    pool.events.emit(IdleReplaced(pool.name, 1, 90.0))
    assert telemetry.exporter.get_finished_spans() == ()
    assert pool.stats().subscriber_errors == 0


# -- what can be wrong with a provider


@pytest.mark.parametrize("checkouts", [False, True])
async def test_a_trace_that_is_not_sampled_costs_no_attributes_and_no_failure(checkouts: bool) -> None:
    provider = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)
    subscriber = OpenTelemetrySubscriber(provider, spans="all", checkout_spans=checkouts)
    async with pool_of(StubDriver(), 1, subscribers=[subscriber]) as pool, pool.connection():
        pool.events.emit(LeakSuspected(pool.name, Holder(1, "Task-1", None, 60.0), 60.0))
    assert pool.stats().subscriber_errors == 0


async def test_a_span_exporter_that_hangs_is_never_noticed_by_the_pool() -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Hanging(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
            return SpanExportResult.SUCCESS

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(Hanging(), max_queue_size=8, schedule_delay_millis=1, max_export_batch_size=4)
    )
    try:
        async with pool_of(
            StubDriver(), 1, subscribers=[OpenTelemetrySubscriber(provider, spans="all", metrics=False)]
        ) as pool:
            for _ in range(100):
                async with pool.connection():
                    await asyncio.sleep(0)
        assert pool.stats().subscriber_errors == 0
    finally:
        release.set()
        await asyncio.to_thread(provider.shutdown)


async def test_a_pool_that_is_detached_tells_nothing_more(telemetry: Telemetry) -> None:
    async with pool_of(StubDriver(), 1) as pool:
        detach = pool.subscribe(telemetry.subscriber(spans="all", checkout_spans=True))
        detach()
        async with pool.connection():
            pass
        assert pool.events.handlers == {}
    assert telemetry.exporter.get_finished_spans() == ()


async def test_a_rollback_on_return_is_an_event_of_the_span_it_happened_in(
    telemetry: Telemetry, database: Path
) -> None:
    subscribers = [telemetry.subscriber(checkout_spans=True)]
    async with SQLiteConnectionPool(
        lambda: aiosqlite.connect(database), name="app.db", subscribers=subscribers
    ) as pool:
        with telemetry.tracer.start_as_current_span("request"):
            async with pool.connection() as connection:
                await connection.execute("INSERT INTO note (text) VALUES ('lost')")
        async with pool.connection():
            pass
    (event,) = telemetry.span("request").events
    assert event.name == "aiosqlitepool.return.rolled_back"
    assert (event.attributes or {})["aiosqlitepool.rollback.cause"] == "transaction"
    rolled_back = [
        (span.attributes or {})["aiosqlitepool.connection.rolled_back"] for span in telemetry.spans(CHECKOUT)
    ]
    assert rolled_back == [True, False]


def test_a_connect_told_outside_of_any_loop_is_written_at_once(telemetry: Telemetry) -> None:
    pool = SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[telemetry.subscriber()])
    pool.events.emit(ConnectionCreated(pool.name, 1, 0.5))
    connect = telemetry.span(CONNECT)
    assert connect.end_time - connect.start_time == 500_000_000  # type: ignore[operator]


def test_an_acquire_told_after_its_pool_is_gone_has_a_span_without_its_levels(telemetry: Telemetry) -> None:
    pool = SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[telemetry.subscriber()])
    events = pool.events
    del pool
    gc.collect()
    events.emit(AcquireSlow("app.db", 1, "queued", 1.0))
    attributes = telemetry.span(ACQUIRE).attributes or {}
    assert attributes["aiosqlitepool.connection.id"] == 1
    assert "aiosqlitepool.pool.used" not in attributes
    assert events.errors == 0


@pytest.mark.parametrize("options", [{}, {"spans": "all", "checkout_spans": True}])
async def test_a_forgotten_pool_is_not_kept_by_what_detaches_it(
    telemetry: Telemetry, options: dict[str, object]
) -> None:
    pool = SQLiteConnectionPool(StubDriver(), name="app.db")
    detach = pool.subscribe(telemetry.subscriber(**options))
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    detach()
