from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExporter, PeriodicExportingMetricReader

from aiosqlitepool import PoolConnectionAcquireTimeoutError, SQLiteConnectionPool
from aiosqlitepool.events import AcquirePath, AcquireTimedOut, ConnectionReleased
from aiosqlitepool.subscribers import _counts, _metrics, _opentelemetry_deferred, opentelemetry
from aiosqlitepool.subscribers._counts import Counts
from aiosqlitepool.subscribers.opentelemetry import OpenTelemetrySubscriber

from ..support.acquires import acquired, released
from ..support.pools import StubPool, pool_of, queued
from ..support.stub import StubDriver
from ..support.timeless import timeless
from .conftest import Telemetry

WAIT = "db.client.connection.wait_time"
USE = "db.client.connection.use_time"
COUNT = "db.client.connection.count"
PATH = "aiosqlitepool__acquire__path"
ACQUIRES = "aiosqlitepool.acquires"


def observed_pool(telemetry: Telemetry, name: str = "app.db", **options: object) -> StubPool:
    return SQLiteConnectionPool(StubDriver(), 2, name=name, subscribers=[telemetry.subscriber(**options)])


def emit_acquired(pool: StubPool, wait_time: float, path: AcquirePath = "queued") -> None:
    acquired(pool.events, wait_time, path, pool.name)


async def test_levels_are_what_the_pool_says_when_they_are_collected(telemetry: Telemetry) -> None:
    async with pool_of(StubDriver(), 2, min_size=1, subscribers=[telemetry.subscriber()]) as pool:
        async with pool.connection(), pool.connection():
            waiter = await queued(pool)
            assert telemetry.value(COUNT, db__client__connection__state="used") == 2
            assert telemetry.value("db.client.connection.pending_requests") == 1
        await pool.release(await waiter)
        assert telemetry.value(COUNT, db__client__connection__state="idle") == 2
        assert telemetry.value("db.client.connection.max") == telemetry.value("db.client.connection.idle.max") == 2
        assert telemetry.value("db.client.connection.idle.min") == 1


async def test_a_closed_pool_has_counters_and_no_levels(telemetry: Telemetry) -> None:
    pool = observed_pool(telemetry)
    async with pool, pool.connection():
        pass
    assert telemetry.points("db.client.connection.max") == {}
    assert telemetry.value(ACQUIRES, **{PATH: "new"}) == 1


async def test_a_detached_pool_has_counters_and_no_levels_and_loses_no_duration(telemetry: Telemetry) -> None:
    async with pool_of(StubDriver()) as pool:
        detach = pool.subscribe(telemetry.subscriber())
        for _ in range(3):
            async with pool.connection():
                pass
        detach()
        async with pool.connection():
            pass
        assert telemetry.points("db.client.connection.max") == {}
        assert telemetry.value(ACQUIRES, **{PATH: "idle"}) == 2
        assert telemetry.point(WAIT).count == telemetry.point(USE).count == 3  # type: ignore[union-attr]


def test_a_forgotten_pool_loses_no_duration(telemetry: Telemetry) -> None:
    pool = observed_pool(telemetry)
    emit_acquired(pool, 1.0)
    released(pool.events, 2.0)
    del pool
    gc.collect()
    assert telemetry.point(WAIT).sum == 1.0  # type: ignore[union-attr]
    assert telemetry.point(USE).sum == 2.0  # type: ignore[union-attr]


def test_every_known_counter_starts_at_0(telemetry: Telemetry) -> None:
    pool = observed_pool(telemetry)
    assert [telemetry.value(ACQUIRES, **{PATH: path}) for path in ("idle", "new", "queued")] == [0, 0, 0]
    assert telemetry.value("db.client.connection.timeouts", pool.name) == 0


def test_histograms_have_the_advised_bounds(telemetry: Telemetry) -> None:
    pool = observed_pool(telemetry)
    emit_acquired(pool, 0.3)
    point = telemetry.point(WAIT)
    assert point.explicit_bounds[0] == 0.0001  # type: ignore[union-attr]
    assert point.explicit_bounds[-1] == 30.0  # type: ignore[union-attr]
    assert point.sum == 0.3  # type: ignore[union-attr]


def test_each_acquire_that_waited_for_nothing_is_a_wait_of_no_time(telemetry: Telemetry) -> None:
    pool = observed_pool(telemetry)
    for _ in range(1000):
        emit_acquired(pool, 0.0, "idle")
    for _ in range(2):  # once recorded, they are not recorded again
        point = telemetry.point(WAIT)
        assert (point.count, point.sum) == (1000, 0)  # type: ignore[union-attr]


@timeless
async def test_a_timeout_is_a_wait_with_its_error() -> None:
    telemetry = Telemetry()
    subscribers = [telemetry.subscriber()]
    async with pool_of(StubDriver(), 1, acquisition_timeout=2, subscribers=subscribers) as pool:
        held = await pool.acquire()
        with pytest.raises(PoolConnectionAcquireTimeoutError):
            await pool.acquire()
        await pool.release(held)
        assert telemetry.point(WAIT, error__type="timeout").sum == pytest.approx(2, abs=0.001)  # type: ignore[union-attr]
        assert telemetry.value("db.client.connection.timeouts") == 1


def test_a_slow_wait_in_a_sampled_trace_is_an_exemplar_of_its_caller(telemetry: Telemetry) -> None:
    pool = observed_pool(telemetry)
    with telemetry.tracer.start_as_current_span("request") as request:
        emit_acquired(pool, 0.2)
    with telemetry.tracer.start_as_current_span("GET /metrics"):
        (exemplar,) = telemetry.point(WAIT).exemplars  # type: ignore[union-attr]
    assert exemplar.span_id == request.get_span_context().span_id


def test_a_slow_wait_is_recorded_once_among_others_that_are_not(telemetry: Telemetry) -> None:
    pool = observed_pool(telemetry, spans="all")
    waits = (0.2, 0.02, 0.3, 0.0)
    for wait in waits:
        with telemetry.tracer.start_as_current_span("request"):
            emit_acquired(pool, wait)
            pool.events.flush_timings()
    point = telemetry.point(WAIT)
    assert (point.count, point.sum) == (len(waits), pytest.approx(sum(waits)))  # type: ignore[union-attr]


def test_of_a_batch_the_last_slow_wait_of_each_bucket_is_its_exemplar(telemetry: Telemetry) -> None:
    pool = observed_pool(telemetry)
    callers = []
    for wait in (0.06, 0.2, 0.07, 0.21):
        with telemetry.tracer.start_as_current_span("request") as request:
            callers.append(request.get_span_context().span_id)
            emit_acquired(pool, wait)
    emit_acquired(pool, 0.22)  # of no trace
    point = telemetry.point(WAIT)
    assert {exemplar.value: exemplar.span_id for exemplar in point.exemplars} == {  # type: ignore[union-attr]
        0.07: callers[2],
        0.21: callers[3],
    }
    assert (point.count, point.sum) == (5, pytest.approx(0.76))  # type: ignore[union-attr]


def test_a_wait_for_nothing_is_no_exemplar_of_whoever_collects(telemetry: Telemetry) -> None:
    pool = observed_pool(telemetry)
    emit_acquired(pool, 0.0, "idle")
    with telemetry.tracer.start_as_current_span("GET /metrics"):
        assert list(telemetry.point(WAIT).exemplars) == []  # type: ignore[union-attr]


def test_several_subscribers_share_the_instruments_of_a_provider(telemetry: Telemetry) -> None:
    pools = [observed_pool(telemetry, name) for name in ("a.db", "b.db")]
    emit_acquired(pools[0], 1.0)
    assert [telemetry.value("db.client.connection.max", pool.name) for pool in pools] == [2, 2]
    assert [telemetry.value(ACQUIRES, pool.name, **{PATH: "queued"}) for pool in pools] == [1, 0]


def test_a_provider_that_becomes_everybodys_after_it_was_given_loses_no_pool(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = observed_pool(telemetry, "given.db")
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: telemetry.meter_provider)
    found = SQLiteConnectionPool(StubDriver(), 2, name="found.db", subscribers=[OpenTelemetrySubscriber()])
    emit_acquired(found, 1.0)  # type: ignore[arg-type]
    assert [telemetry.value("db.client.connection.max", pool.name) for pool in (given, found)] == [2, 2]
    assert telemetry.value(ACQUIRES, "found.db", **{PATH: "queued"}) == 1


def test_two_pools_of_one_name_have_points_of_their_own(telemetry: Telemetry) -> None:
    for pool in (pools := [observed_pool(telemetry) for _ in range(2)]):
        emit_acquired(pool, 1.0)
    assert [pool.name for pool in pools] == ["app.db", "app.db#2"]
    for pool in pools:
        assert telemetry.value("db.client.connection.max", pool.name) == 2
        assert telemetry.value(ACQUIRES, pool.name, **{PATH: "queued"}) == 1
        assert telemetry.point(WAIT, pool.name).count == 1  # type: ignore[union-attr]


def test_several_subscribers_of_one_meter_provider_count_a_pool_once(telemetry: Telemetry) -> None:
    pool = observed_pool(telemetry)
    detach = pool.subscribe(OpenTelemetrySubscriber(None, telemetry.meter_provider, spans="off"))
    emit_acquired(pool, 1.0)
    pool.events.emit(AcquireTimedOut(pool.name, 1.0, 0, ()))
    assert telemetry.value(ACQUIRES, **{PATH: "queued"}) == 1
    assert telemetry.point(WAIT, error__type="timeout").count == 1  # type: ignore[union-attr]
    detach()
    emit_acquired(pool, 1.0)
    assert telemetry.value(ACQUIRES, **{PATH: "queued"}) == 2


async def test_the_durations_of_a_pool_that_is_no_longer_remembered_are_recorded(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_counts, "_MOST_CLOSED", 0)
    pool = observed_pool(telemetry)
    emit_acquired(pool, 0.01)
    released(pool.events, 2.0)
    await pool.close()
    assert telemetry.value(ACQUIRES, **{PATH: "queued"}) is None
    assert telemetry.point(WAIT).count == 1  # type: ignore[union-attr]
    assert telemetry.point(USE).sum == 2.0  # type: ignore[union-attr]


def test_every_reader_of_a_provider_sees_everything() -> None:
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    telemetry = Telemetry()
    telemetry.meter_provider = MeterProvider(readers, shutdown_on_exit=False)
    emit_acquired(observed_pool(telemetry), 1.0)
    for telemetry.reader in readers:
        assert telemetry.point(WAIT).count == 1  # type: ignore[union-attr]


def test_other_buckets_for_a_provider_that_has_the_metrics_are_refused(telemetry: Telemetry) -> None:
    telemetry.subscriber()
    with pytest.raises(ValueError, match=r"already, with wait_buckets=.* not \(1.0,\)"):
        telemetry.subscriber(wait_buckets=[1.0])


def test_metrics_can_be_off(telemetry: Telemetry) -> None:
    pool = observed_pool(telemetry, metrics=False)
    emit_acquired(pool, 1.0)
    assert telemetry.reader.get_metrics_data() is None
    assert ConnectionReleased not in pool.events.handlers


def test_without_metrics_a_failure_has_its_span_all_the_same(telemetry: Telemetry) -> None:
    pool = observed_pool(telemetry, metrics=False)
    pool.events.emit(AcquireTimedOut(pool.name, 1.0, 0, ()))
    assert (telemetry.span("aiosqlitepool.acquire").attributes or {})["error.type"] == "timeout"
    assert pool.stats().subscriber_errors == 0


@pytest.mark.parametrize("name", ['say "hi"\nand \\go', "x" * 200])
def test_a_hostile_pool_name_arrives_as_it_is(telemetry: Telemetry, name: str) -> None:
    emit_acquired(observed_pool(telemetry, name), 1.0)
    assert telemetry.point(WAIT, name).count == 1  # type: ignore[union-attr]


# -- providers that are not there, or no longer


async def works(pool: StubPool) -> bool:
    async with pool:
        for _ in range(3):
            async with pool.connection():
                pass
    return pool.stats().subscriber_errors == 0


async def test_without_an_sdk_nothing_happens_and_nothing_fails() -> None:
    assert await works(pool_of(StubDriver(), subscribers=[OpenTelemetrySubscriber()]))


async def test_a_provider_that_makes_nothing_is_as_good_as_none() -> None:
    assert await works(pool_of(StubDriver(), subscribers=[OpenTelemetrySubscriber(None, NoOpMeterProvider())]))


async def test_a_provider_that_was_shut_down_says_so_and_the_pool_works(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry.tracer_provider.shutdown()
    telemetry.meter_provider.shutdown()
    with caplog.at_level(logging.WARNING):
        pool = pool_of(StubDriver(), subscribers=[telemetry.subscriber(spans="all", checkout_spans=True)])
    assert "shutdown" in caplog.text
    assert await works(pool)


async def test_a_provider_that_is_shut_down_later_gets_what_was_noted_before(telemetry: Telemetry) -> None:
    exported = []

    class Exporter(MetricExporter):
        def export(self, metrics_data, timeout_millis=10_000, **kwargs):  # type: ignore[no-untyped-def]
            exported.append(metrics_data)

        def force_flush(self, timeout_millis: float = 10_000) -> bool:
            return True

        def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
            pass

    telemetry.meter_provider = MeterProvider(
        [PeriodicExportingMetricReader(Exporter(), 3_600_000)], shutdown_on_exit=False
    )
    pool = observed_pool(telemetry, spans="all")
    async with pool:
        async with pool.connection():
            pass
        telemetry.meter_provider.shutdown()
        telemetry.tracer_provider.shutdown()
        async with pool.connection():
            pass
    found = [m for e in exported for r in e.resource_metrics for s in r.scope_metrics for m in s.metrics]
    assert [p.count for m in found if m.name == USE for p in m.data.data_points] == [1]
    assert pool.stats().subscriber_errors == 0


async def test_an_exporter_that_hangs_is_never_noticed_by_the_pool(telemetry: Telemetry) -> None:
    hanging, release = threading.Event(), threading.Event()

    class Exporter(MetricExporter):
        def export(self, metrics_data, timeout_millis=10_000, **kwargs):  # type: ignore[no-untyped-def]
            hanging.set()
            release.wait(60)

        def force_flush(self, timeout_millis: float = 10_000) -> bool:
            return True

        def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
            pass

    reader = PeriodicExportingMetricReader(Exporter(), 1)
    telemetry.meter_provider = MeterProvider([reader], shutdown_on_exit=False)
    try:
        pool = observed_pool(telemetry)
        await asyncio.to_thread(hanging.wait, 60)
        assert await works(pool)
    finally:
        release.set()
        await asyncio.to_thread(telemetry.meter_provider.shutdown)


# -- collections


def test_a_collection_reads_the_counts_and_the_levels_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = list[str]()

    def counted(name: str, read: Callable[[Counts[Any]], Any]) -> Callable[[Counts[Any]], Any]:
        return lambda counts: reads.append(name) or read(counts)  # type: ignore[func-returns-value]

    for name in ("counters", "levels"):
        monkeypatch.setattr(Counts, name, counted(name, getattr(Counts, name)))
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    telemetry = Telemetry()
    telemetry.meter_provider = MeterProvider(readers, shutdown_on_exit=False)
    pool = observed_pool(telemetry)
    for telemetry.reader in (*readers, *readers):
        emit_acquired(pool, 1.0)
        seen = len(reads)
        assert telemetry.reader.get_metrics_data() is not None
        assert sorted(reads[seen:]) == ["counters", "levels"]


def test_each_collection_is_up_to_date_in_any_reader_and_thread() -> None:
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    telemetry = Telemetry()
    telemetry.meter_provider = MeterProvider(readers, shutdown_on_exit=False)
    pool, seen = observed_pool(telemetry), list[float | None]()

    def collect() -> None:
        seen.append(telemetry.value(ACQUIRES, **{PATH: "queued"}))

    for telemetry.reader in (*readers, *readers):
        emit_acquired(pool, 1.0)
        collect()
        emit_acquired(pool, 1.0)
        thread = threading.Thread(target=collect)
        thread.start()
        thread.join()
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_collection_after_one_that_was_broken_off_is_up_to_date(telemetry: Telemetry) -> None:
    pool = observed_pool(telemetry)
    emit_acquired(pool, 1.0)
    instruments = opentelemetry._shared[telemetry.meter_provider]
    instruments._points(_metrics.LEVELS[0], CallbackOptions())
    emit_acquired(pool, 1.0)
    assert telemetry.value(ACQUIRES, **{PATH: "queued"}) == 2


# -- many durations at once


def test_when_many_durations_are_deferred_the_excess_is_recorded_as_it_comes_and_none_is_lost(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_opentelemetry_deferred, "_MOST", 100)
    pool, threads = observed_pool(telemetry), set(threading.enumerate())
    for _ in range(2000):
        emit_acquired(pool, 0.0, "idle")
        released(pool.events, 0.25)
    assert not set(threading.enumerate()) - threads, "recorded by a thread of its own"
    assert telemetry.point(WAIT).count == telemetry.point(USE).count == 2000  # type: ignore[union-attr]
    assert telemetry.point(USE).sum == 2000 * 0.25  # type: ignore[union-attr]


async def test_collections_during_a_storm_lose_nothing(telemetry: Telemetry) -> None:
    done, failures = threading.Event(), []

    def collect() -> None:
        while not done.is_set():
            try:
                telemetry.reader.get_metrics_data()
            except Exception as error:
                failures.append(error)

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        async with pool_of(StubDriver(), 3, subscribers=[telemetry.subscriber()]) as pool:

            async def work() -> None:
                for _ in range(200):
                    async with pool.connection():
                        await asyncio.sleep(0)

            await asyncio.gather(*(work() for _ in range(10)))
    finally:
        done.set()
        await asyncio.to_thread(thread.join)
    assert failures == []
    assert telemetry.point(WAIT).count == telemetry.point(USE).count == 2000  # type: ignore[union-attr]
