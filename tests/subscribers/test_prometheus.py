from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from aiosqlitepool import (
    Holder,
    PoolClosedError,
    PoolConnectionAcquireTimeoutError,
    PoolFullError,
    SQLiteConnectionPool,
)
from aiosqlitepool.events import AcquireCancelled, AcquirePath, ConnectionReleased, LeakSuspected
from aiosqlitepool.subscribers import _counts, _metric
from aiosqlitepool.subscribers._metrics import Metric
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

from ..support.acquires import acquired
from ..support.pools import StubPool, pool_of, queued
from ..support.stub import StubDriver, fails, settle
from ..support.timeless import timeless
from .conftest import POOL, Scrape

WAITS = "db_client_connection_wait_time_seconds"
USES = "db_client_connection_use_time_seconds"
DURATIONS = "db_client_operation_duration_seconds"
ACQUIRES = "aiosqlitepool_acquires_total"
COUNT = "db_client_connection_count"


def emit_acquired(pool: StubPool, wait_time: float, path: AcquirePath = "queued") -> None:
    acquired(pool.events, wait_time, path, pool.name)


@pytest.fixture
def pool(driver: StubDriver, prometheus: PrometheusSubscriber) -> StubPool:
    return SQLiteConnectionPool(driver, 2, name="app.db", subscribers=[prometheus])


def exemplars(scrape: Scrape) -> list[dict[str, str]]:
    return [
        sample.exemplar.labels for family in scrape.registry.collect() for sample in family.samples if sample.exemplar
    ]


@pytest.fixture(params=[TraceFlags.SAMPLED, TraceFlags.DEFAULT])
def traced(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Inside a span; whether that is sampled."""
    span = NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(request.param)))
    token = otel_context.attach(trace.set_span_in_context(span))
    yield request.param == TraceFlags.SAMPLED
    otel_context.detach(token)


# -- levels


async def test_levels_are_what_the_pool_says_when_they_are_scraped(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    async with pool_of(driver, 2, min_size=1, subscribers=[prometheus]) as pool, pool.connection():
        async with pool.connection():
            waiter = await queued(pool)
            assert scrape(COUNT, db_client_connection_state="used") == 2
            assert scrape("db_client_connection_pending_requests") == 1
        await pool.release(await waiter)
        assert scrape(COUNT, db_client_connection_state="used") == 1
        assert scrape(COUNT, db_client_connection_state="idle") == 1
        assert scrape("db_client_connection_pending_requests") == 0
        assert scrape("db_client_connection_max") == scrape("db_client_connection_idle_max") == 2
        assert scrape("db_client_connection_idle_min") == 1


@timeless
async def test_ages_are_those_of_the_oldest_waiter_and_the_oldest_checkout() -> None:
    scrape = Scrape()
    async with pool_of(StubDriver(), 1, subscribers=[PrometheusSubscriber(scrape.registry)]) as pool:
        async with pool.connection():
            await asyncio.sleep(2)
            waiter = await queued(pool)
            await asyncio.sleep(3)
            assert scrape("aiosqlitepool_oldest_waiter_age_seconds") == pytest.approx(3, abs=0.001)
            assert scrape("aiosqlitepool_oldest_checkout_age_seconds") == pytest.approx(5, abs=0.001)
        await pool.release(await waiter)


async def test_a_closed_pool_shows_no_levels_but_its_counters(pool: StubPool, scrape: Scrape) -> None:
    async with pool, pool.connection():
        pass
    assert scrape("db_client_connection_max") is None
    assert scrape(COUNT, db_client_connection_state="idle") is None
    assert scrape(ACQUIRES, aiosqlitepool_acquire_path="new") == 1


async def test_a_detached_pool_shows_no_levels_but_its_counters(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    async with pool_of(driver) as pool:
        detach = pool.subscribe(prometheus)
        async with pool.connection():
            pass
        detach()
        async with pool.connection():
            pass
        assert scrape("db_client_connection_max") is None
        assert scrape(ACQUIRES, aiosqlitepool_acquire_path="new") == 1
        assert scrape(ACQUIRES, aiosqlitepool_acquire_path="idle") == 0
        assert scrape(f"{WAITS}_count") == 1


async def test_detaching_twice_changes_nothing(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    async with pool_of(driver) as pool:
        detach = pool.subscribe(prometheus)
        async with pool.connection():
            pass
        detach()
        detach()
        assert scrape(ACQUIRES, aiosqlitepool_acquire_path="new") == 1


async def test_a_pool_attached_again_goes_on_counting_where_it_was(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    async with pool_of(driver) as pool:
        for _ in range(3):
            detach = pool.subscribe(prometheus)
            async with pool.connection():
                pass
            detach()
        assert scrape(f"{WAITS}_count") == 3
        assert scrape(f"{USES}_count") == 3


def test_the_metrics_keep_no_pool_alive(driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape) -> None:
    pool = SQLiteConnectionPool(driver, 2, name="app.db", subscribers=[prometheus])
    emit_acquired(pool, 1.0)
    del pool
    gc.collect()
    assert scrape("db_client_connection_max") is None
    assert scrape(ACQUIRES, aiosqlitepool_acquire_path="queued") == 1


# -- counters


async def test_every_known_label_starts_at_0(pool: StubPool, scrape: Scrape) -> None:
    assert [scrape(ACQUIRES, aiosqlitepool_acquire_path=path) for path in ("idle", "new", "queued")] == [0, 0, 0]
    reasons = ("idle", "lifetime", "unhealthy", "reset_failed", "broken", "pool_closed")
    closed = "aiosqlitepool_connection_closed_total"
    assert [scrape(closed, aiosqlitepool_connection_close_reason=reason) for reason in reasons] == [0] * 6
    rollbacks = "aiosqlitepool_return_rollbacks_total"
    causes = ("in_flight", "transaction", "cursor")
    assert [scrape(rollbacks, aiosqlitepool_rollback_cause=cause) for cause in causes] == [0] * 3
    for name in ("db_client_connection_timeouts", "aiosqlitepool_health_check_failures"):
        assert scrape(f"{name}_total") == 0
    assert scrape("aiosqlitepool_subscriber_errors_total") == 0
    assert scrape(f"{WAITS}_count") == 0


async def test_acquires_are_counted_by_path(pool: StubPool, scrape: Scrape) -> None:
    async with pool:
        async with pool.connection(), pool.connection():
            waiter = await queued(pool)
        await pool.release(await waiter)
        async with pool.connection():
            pass
        paths = [scrape(ACQUIRES, aiosqlitepool_acquire_path=path) for path in ("new", "queued", "idle")]
        assert paths == [2, 1, 1]


@timeless
async def test_a_timeout_is_counted_and_its_wait_observed_as_one() -> None:
    scrape = Scrape()
    subscribers = [PrometheusSubscriber(scrape.registry)]
    async with pool_of(StubDriver(), 1, acquisition_timeout=2, subscribers=subscribers) as pool:
        held = await pool.acquire()
        with pytest.raises(PoolConnectionAcquireTimeoutError):
            await pool.acquire()
        await pool.release(held)
    assert scrape("db_client_connection_timeouts_total") == 1
    assert scrape(f"{WAITS}_bucket", error_type="timeout", le="1.0") == 0
    assert scrape(f"{WAITS}_bucket", error_type="timeout", le="2.5") == 1


async def test_a_cancelled_acquire_is_observed_as_one(pool: StubPool, scrape: Scrape) -> None:
    async with pool, pool.connection(), pool.connection():
        waiter = await queued(pool)
        waiter.cancel()
        await settle()
        assert scrape(f"{WAITS}_count", error_type="cancelled") == 1


async def test_an_acquire_turned_away_is_observed_as_one(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    async with pool_of(driver, 1, max_waiting=0, subscribers=[prometheus]) as pool, pool.connection():
        with pytest.raises(PoolFullError):
            await pool.acquire()
    assert scrape(f"{WAITS}_count", error_type="rejected") == 1


async def test_an_acquire_of_a_pool_that_closes_is_observed_as_one(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    pool = pool_of(driver, 1, subscribers=[prometheus])
    async with pool.connection():
        waiter = await queued(pool)
        closing = asyncio.create_task(pool.close())
        with pytest.raises(PoolClosedError):
            await waiter
    await closing
    assert scrape(f"{WAITS}_count", error_type="closed") == 1


async def test_an_acquire_that_cannot_connect_is_observed_by_its_exception(
    driver: StubDriver, pool: StubPool, scrape: Scrape
) -> None:
    driver.on_connect = fails(OSError("disk on fire"))
    async with pool:
        with pytest.raises(OSError, match="disk on fire"):
            await pool.acquire()
    assert scrape(f"{WAITS}_count", error_type="OSError") == 1
    assert scrape("aiosqlitepool_connection_create_failures_total", error_type="OSError") == 1


async def test_failing_handlers_are_counted_from_when_the_pool_was_attached(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    def broken(event: object) -> None:
        raise RuntimeError

    async with pool_of(driver) as pool:
        pool.events.subscribe(ConnectionReleased, broken)
        async with pool.connection():
            pass
        pool.subscribe(prometheus)
        async with pool.connection():
            pass
        assert scrape("aiosqlitepool_subscriber_errors_total") == 1
    assert scrape("aiosqlitepool_subscriber_errors_total") == 1


# -- histograms


def test_a_wait_is_in_the_bucket_of_its_bound(pool: StubPool, scrape: Scrape) -> None:
    emit_acquired(pool, 0.25)
    assert scrape(f"{WAITS}_bucket", le="0.1") == 0
    assert scrape(f"{WAITS}_bucket", le="0.25") == 1
    assert scrape(f"{WAITS}_bucket", le="+Inf") == 1
    assert scrape(f"{WAITS}_sum") == 0.25


def test_a_wait_beyond_all_bounds_is_counted(pool: StubPool, scrape: Scrape) -> None:
    emit_acquired(pool, 1000.0)
    assert scrape(f"{WAITS}_bucket", le="30.0") == 0
    assert scrape(f"{WAITS}_count") == 1


def test_an_acquire_that_waited_for_nothing_is_a_wait_of_no_time(pool: StubPool, scrape: Scrape) -> None:
    emit_acquired(pool, 0.0, "idle")
    assert scrape(f"{WAITS}_bucket", le="0.0001") == 1
    assert scrape(f"{WAITS}_sum") == 0


def test_an_idle_connection_that_had_to_be_checked_is_a_wait(pool: StubPool, scrape: Scrape) -> None:
    emit_acquired(pool, 0.002, "idle")
    assert scrape(f"{WAITS}_sum") == 0.002
    assert scrape(ACQUIRES, aiosqlitepool_acquire_path="idle") == 1


@timeless
async def test_use_time_is_how_long_a_connection_was_out() -> None:
    scrape = Scrape()
    async with pool_of(StubDriver(), subscribers=[PrometheusSubscriber(scrape.registry)]) as pool, pool.connection():
        await asyncio.sleep(3)
    assert scrape(f"{USES}_sum") == pytest.approx(3, abs=0.001)
    assert scrape(f"{USES}_bucket", le="1.0") == 0
    assert scrape(f"{USES}_bucket", le="5.0") == 1


async def test_create_time_is_observed_for_each_connection(pool: StubPool, scrape: Scrape) -> None:
    async with pool, pool.connection(), pool.connection():
        pass
    assert scrape("db_client_connection_create_time_seconds_count") == 2


def test_buckets_can_be_chosen(driver: StubDriver, scrape: Scrape) -> None:
    subscriber = PrometheusSubscriber(
        scrape.registry, wait_buckets=[1, 2], create_buckets=[3], use_buckets=(4, "inf"), statement_buckets=[5]
    )  # type: ignore[arg-type]
    _pool = SQLiteConnectionPool(driver, name="app.db", subscribers=[subscriber])  # or it is collected
    bounds = {
        (sample.name, sample.labels["le"])
        for family in scrape.registry.collect()
        for sample in family.samples
        if sample.name.endswith("_bucket")
    }
    assert bounds == {
        *((f"{WAITS}_bucket", le) for le in ("1.0", "2.0", "+Inf")),
        *(("db_client_connection_create_time_seconds_bucket", le) for le in ("3.0", "+Inf")),
        *((f"{USES}_bucket", le) for le in ("4.0", "+Inf")),
        *((f"{DURATIONS}_bucket", le) for le in ("5.0", "+Inf")),
    }


@pytest.mark.parametrize("argument", ["wait_buckets", "create_buckets", "use_buckets", "statement_buckets"])
@pytest.mark.parametrize("bounds", [[], [2, 1], [1, 1], [-1, 1], ["a"], 5, [float("nan")]])
def test_buckets_that_make_no_sense_are_refused_by_name(scrape: Scrape, argument: str, bounds: object) -> None:
    with pytest.raises(ValueError, match=argument):
        PrometheusSubscriber(scrape.registry, **{argument: bounds})  # type: ignore[arg-type]
    assert list(scrape.registry.collect()) == []


# -- exemplars


def test_a_slow_wait_is_an_exemplar_if_its_trace_is_sampled(pool: StubPool, scrape: Scrape, traced: bool) -> None:
    emit_acquired(pool, 0.06, "new")
    expected = [{"trace_id": f"{0xABC:032x}", "span_id": f"{0xDEF:016x}"}] if traced else []
    assert exemplars(scrape) == expected


def test_a_wait_that_was_not_slow_is_none(pool: StubPool, scrape: Scrape, traced: bool) -> None:
    emit_acquired(pool, 0.01)
    assert exemplars(scrape) == []


def test_an_exemplar_is_of_the_trace_of_its_caller_and_not_of_the_scrape(pool: StubPool, scrape: Scrape) -> None:
    spans = [
        trace.set_span_in_context(NonRecordingSpan(SpanContext(number, number, False, TraceFlags(TraceFlags.SAMPLED))))
        for number in (1, 2)
    ]
    token = otel_context.attach(spans[0])
    emit_acquired(pool, 0.06)
    otel_context.detach(token)
    token = otel_context.attach(spans[1])
    assert [exemplar["span_id"] for exemplar in exemplars(scrape)] == [f"{1:016x}"]
    otel_context.detach(token)


def test_of_a_batch_the_last_slow_wait_of_each_bucket_is_its_exemplar(pool: StubPool, scrape: Scrape) -> None:
    for number, wait in enumerate((0.06, 0.2, 0.07, 0.21), start=1):
        context = SpanContext(number, number, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
        token = otel_context.attach(trace.set_span_in_context(NonRecordingSpan(context)))
        emit_acquired(pool, wait)
        otel_context.detach(token)
    emit_acquired(pool, 0.22)  # of no trace
    assert [exemplar["span_id"] for exemplar in exemplars(scrape)] == [f"{3:016x}", f"{4:016x}"]
    assert scrape(f"{WAITS}_count") == 5


@timeless
async def test_what_is_slow_is_what_the_pool_says() -> None:
    span = NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)))
    found = []
    for slow_acquire in (None, 2, 1):
        scrape = Scrape()
        subscribers = [PrometheusSubscriber(scrape.registry)]
        async with pool_of(StubDriver(), 1, slow_acquire=slow_acquire, subscribers=subscribers) as pool:
            token = otel_context.attach(trace.set_span_in_context(span))
            async with pool.connection():
                waiter = await queued(pool)
                await asyncio.sleep(1)
            await pool.release(await waiter)
            otel_context.detach(token)
            found.append((len(exemplars(scrape)), scrape(f"{WAITS}_count")))
    assert found == [(0, 2), (0, 2), (1, 2)]


def test_a_failed_wait_is_an_exemplar_of_its_own_series(pool: StubPool, scrape: Scrape, traced: bool) -> None:
    pool.events.emit(AcquireCancelled(pool.name, 0.001, 0))
    assert bool(exemplars(scrape)) is traced


def test_without_a_span_there_are_no_exemplars(pool: StubPool, scrape: Scrape) -> None:
    emit_acquired(pool, 1.0)
    assert exemplars(scrape) == []


def test_exemplars_can_be_off(driver: StubDriver, scrape: Scrape, traced: bool) -> None:
    subscriber = PrometheusSubscriber(scrape.registry, exemplars=False)
    emit_acquired(SQLiteConnectionPool(driver, name="app.db", subscribers=[subscriber]), 1.0)
    assert exemplars(scrape) == []


def test_openmetrics_shows_exemplars_and_can_be_parsed(pool: StubPool, scrape: Scrape, traced: bool) -> None:
    emit_acquired(pool, 0.2)
    text = openmetrics.generate_latest(scrape.registry).decode()
    list(openmetrics_parser.text_string_to_metric_families(text))
    assert ("# {" in text) is traced


# -- what a scrape computes


def test_a_scrape_derives_no_name_of_a_metric_again(
    pool: StubPool, scrape: Scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, label_name = list[str](), _metric.label_name

    def counted(attribute: str) -> str:
        calls.append(attribute)
        return label_name(attribute)

    monkeypatch.setattr(_metric, "label_name", counted)
    Metric("aiosqlitepool.one", "counter", "{one}", "One.", ("aiosqlitepool.attribute",))
    assert len(calls) == 3, "a metric, its pool and its attribute, once when the metric is made"
    emit_acquired(pool, 1.0)
    assert scrape(f"{WAITS}_count") == 1
    assert len(calls) == 3


# -- registries and names


def test_one_subscriber_serves_several_pools(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    pools = [SQLiteConnectionPool(driver, size, name=f"{size}.db", subscribers=[prometheus]) for size in (1, 2, 3)]
    emit_acquired(pools[1], 1.0)
    assert [scrape("db_client_connection_max", pool.name) for pool in pools] == [1, 2, 3]
    assert [scrape(f"{WAITS}_count", pool.name) for pool in pools] == [0, 1, 0]


def test_one_registry_serves_several_subscribers(driver: StubDriver, scrape: Scrape) -> None:
    pools = [
        SQLiteConnectionPool(driver, size, name=f"{size}.db", subscribers=[PrometheusSubscriber(scrape.registry)])
        for size in (1, 2)
    ]
    assert [scrape("db_client_connection_max", pool.name) for pool in pools] == [1, 2]


def test_two_pools_of_one_name_have_series_of_their_own(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    pools = [SQLiteConnectionPool(driver, size, name="app.db", subscribers=[prometheus]) for size in (1, 2)]
    for pool in pools:
        emit_acquired(pool, 0.0, "idle")
    for name, size in (("app.db", 1), ("app.db#2", 2)):
        assert scrape("db_client_connection_max", name) == size
        assert scrape(ACQUIRES, name, aiosqlitepool_acquire_path="idle") == 1
        assert scrape(f"{WAITS}_count", name) == 1


async def test_a_pool_with_the_name_of_one_that_was_closed_continues_its_counters(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    for count in (1, 2):
        async with SQLiteConnectionPool(driver, count, name="app.db", subscribers=[prometheus]) as pool:
            emit_acquired(pool, 0.0, "idle")
            assert scrape("db_client_connection_max") == count
        assert scrape(ACQUIRES, aiosqlitepool_acquire_path="idle") == count
        assert scrape(f"{WAITS}_count") == count


def test_several_subscribers_of_one_registry_count_a_pool_once(driver: StubDriver, scrape: Scrape) -> None:
    subscribers = [PrometheusSubscriber(scrape.registry) for _ in range(2)]
    pool = SQLiteConnectionPool(driver, 2, name="app.db", subscribers=subscribers)
    detaches = [subscriber.attach(pool) for subscriber in subscribers]
    emit_acquired(pool, 0.0, "idle")
    assert scrape(ACQUIRES, aiosqlitepool_acquire_path="idle") == 1
    for detach in detaches:
        detach()
    emit_acquired(pool, 0.0, "idle")
    assert scrape(ACQUIRES, aiosqlitepool_acquire_path="idle") == 2


async def test_of_pools_that_have_closed_the_last_ones_are_remembered(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_counts, "_MOST_CLOSED", 2)
    async with SQLiteConnectionPool(driver, name="open", subscribers=[prometheus]):
        for name in ("a", "b", "a", "c"):
            async with SQLiteConnectionPool(driver, name=name, subscribers=[prometheus]) as pool:
                emit_acquired(pool, 0.0, "idle")
        names = ("open", "a", "b", "c", "_OTHER")
        shown = [scrape(ACQUIRES, name, aiosqlitepool_acquire_path="idle") for name in names]
    assert shown == [0, 2, None, 1, 1]


def test_a_registry_with_a_metric_of_that_name_is_refused_with_it(scrape: Scrape) -> None:
    Counter("db_client_connection_timeouts", "mine", registry=scrape.registry)
    with pytest.raises(ValueError, match="db_client_connection_timeouts"):
        PrometheusSubscriber(scrape.registry)
    assert [family.name for family in scrape.registry.collect()] == ["db_client_connection_timeouts"]


def test_other_buckets_in_a_registry_that_has_the_metrics_are_refused(scrape: Scrape) -> None:
    PrometheusSubscriber(scrape.registry)
    with pytest.raises(ValueError, match=r"already, with wait_buckets=.* not \(1.0,\)"):
        PrometheusSubscriber(scrape.registry, wait_buckets=[1.0])


@pytest.mark.parametrize("name", ['say "hi"\nand \\go', "x" * 200, "数据库", "{}=,'"])
def test_a_hostile_pool_name_arrives_as_it_is(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape, name: str
) -> None:
    pool = SQLiteConnectionPool(driver, name=name, subscribers=[prometheus])
    emit_acquired(pool, 1.0)
    text = generate_latest(scrape.registry).decode()
    names = {sample.labels[POOL] for family in text_string_to_metric_families(text) for sample in family.samples}
    assert names == {name}


def test_without_a_registry_the_default_one_is_used(driver: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry()
    monkeypatch.setattr("aiosqlitepool.subscribers.prometheus.REGISTRY", registry)
    pool = SQLiteConnectionPool(driver, 7, name="app.db", subscribers=[PrometheusSubscriber()])
    assert Scrape(registry)("db_client_connection_max") == pool.stats().max_size == 7


# -- from another thread


async def test_scrapes_during_a_storm_never_fail_and_never_show_more_used_than_max(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    done, problems, scrapes, rounds = threading.Event(), list[str](), 0, 0

    def storm() -> None:
        nonlocal scrapes
        while not done.is_set():
            scrapes += 1
            try:
                text = generate_latest(scrape.registry).decode()
                families = text_string_to_metric_families(text)
                samples = [sample for family in families for sample in family.samples]
                problems.extend(_overfull(samples))
            except Exception as error:
                problems.append(repr(error))

    async def work(pool: StubPool) -> None:
        for _ in range(100):
            async with pool.connection() as connection:
                await asyncio.sleep(0)
                if connection.number % 3 == 0:
                    connection.on_rollback = fails(OSError())

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        for number in range(5):
            before = scrapes
            async with pool_of(driver, 3, name=f"{number}.db", subscribers=[prometheus]) as pool:
                while scrapes < before + 2:  # so that one at least was made while they worked
                    rounds += 1
                    await asyncio.gather(*(work(pool) for _ in range(10)))
    finally:
        done.set()
        thread.join()
    assert problems == []
    acquired = sum(
        scrape(ACQUIRES, f"{number}.db", aiosqlitepool_acquire_path=path) or 0
        for number in range(5)
        for path in ("idle", "new", "queued")
    )
    assert acquired == 1000 * rounds


def _overfull(samples: list[Any]) -> list[str]:
    most = {each.labels[POOL]: each.value for each in samples if each.name == "db_client_connection_max"}
    used = [each for each in samples if each.name == COUNT and each.labels["db_client_connection_state"] == "used"]
    too_many = [each for each in used if each.value > most[each.labels[POOL]]]
    return [f"{each.value} used of {most[each.labels[POOL]]}" for each in too_many]


async def test_the_limits_of_a_pool_are_shown_and_those_it_has_not_are_absent(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    limits = (
        "aiosqlitepool_acquisition_timeout_seconds",
        "aiosqlitepool_pending_requests_max",
        "aiosqlitepool_leak_threshold_seconds",
    )
    settings = {"acquisition_timeout": 5, "max_waiting": 7, "leak_threshold": 60}
    pools = [
        pool_of(driver, subscribers=[prometheus], **settings),
        pool_of(driver, name="none.db", subscribers=[prometheus], **dict.fromkeys(settings)),
    ]
    assert [scrape(name) for name in limits] == [5, 7, 60]
    assert [scrape(name, "none.db") for name in limits] == [None, None, None]
    for pool in pools:
        await pool.close()


async def test_leaks_and_connections_that_are_abandoned_are_counted(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    suspected, abandoned = "aiosqlitepool_leaks_suspected_total", "aiosqlitepool_connection_abandoned_total"
    pool = pool_of(driver, 2, subscribers=[prometheus])
    assert (scrape(suspected), scrape(abandoned)) == (0, 0)
    held = [await pool.acquire() for _ in range(2)]
    pool.events.emit(LeakSuspected("app.db", Holder(1, "Task-1", None, 60.0), 60.0))
    with pytest.warns(ResourceWarning, match="under their holders"):
        await pool.close(timeout=0)
    assert (scrape(suspected), scrape(abandoned)) == (1, len(held))


async def test_a_leak_is_counted_by_the_label_and_the_last_statement_of_its_holder(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    async with pool_of(driver, subscribers=[prometheus]) as pool:
        holder = Holder(1, "Task-1", "GET /report", 60.0, statement="SELECT count(*) FROM orders")
        pool.events.emit(LeakSuspected("app.db", holder, 60.0))
        pool.events.emit(LeakSuspected("app.db", holder, 60.0))
    name = "aiosqlitepool_leaks_suspected_total"
    assert scrape(name, aiosqlitepool_acquire_label="GET /report", db_query_summary="SELECT orders") == 2
    assert scrape(name) == 0
