from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, Counter, generate_latest

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.cli.top.endpoint import DebugPageError, EndpointError
from aiosqlitepool.cli.top.scrape import full_url, scrape
from aiosqlitepool.debug import DebugApp
from aiosqlitepool.events import AcquireFailed, AcquireTimedOut, ErrorInfo, RolledBackOnReturn
from aiosqlitepool.subscribers import _metrics as names
from aiosqlitepool.subscribers.opentelemetry import OpenTelemetrySubscriber
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

from ...support.acquires import acquired
from ...support.pools import pool_of, queued
from ...support.serving import served
from ...support.stub import StubDriver

Endpoint = Callable[[CollectorRegistry], str]


@pytest.fixture(params=["prometheus", "opentelemetry"])
def subscriber(request: pytest.FixtureRequest, registry: CollectorRegistry) -> Any:
    """Either way to an endpoint of the same metrics; OpenTelemetry's adds labels of its own."""
    if request.param == "prometheus":
        return PrometheusSubscriber(registry)
    reader = PrometheusMetricReader(registry=registry)
    return OpenTelemetrySubscriber(None, MeterProvider([reader], shutdown_on_exit=False), spans="off")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


async def test_it_reads_levels_counters_and_buckets_of_every_pool(
    driver: StubDriver, subscriber: Any, registry: CollectorRegistry, endpoint: Endpoint
) -> None:
    async with (
        pool_of(driver, 2, name="app.db/write", subscribers=[subscriber]) as pool,
        pool_of(driver, 3, name="app.db/read", subscribers=[subscriber]),
        pool.connection(),
    ):
        async with pool.connection():
            waiter = await queued(pool)
            pool.events.emit(AcquireTimedOut(pool.name, 2.0, 0, ()))
            pool.events.emit(AcquireFailed(pool.name, 0.2, 0, ErrorInfo("OSError", "")))
            pool.events.emit(RolledBackOnReturn(pool.name, 1, "cursor", 0.1))
            pool.events.emit(RolledBackOnReturn(pool.name, 1, "transaction", 0.1))
            found = scrape(endpoint(registry))
        await pool.release(await waiter)
    assert found.pools == ("app.db/read", "app.db/write")
    assert found.number(names.COUNT, "app.db/write", "used") == 2
    assert found.number(names.MAX, "app.db/read") == 3
    assert found.number(names.PENDING_REQUESTS, "app.db/write") == 1
    assert found.number(names.OLDEST_CHECKOUT, "app.db/write") > 0
    assert found.number(names.ACQUIRES, "app.db/write", "new") == 2
    assert found.number(names.TIMEOUTS, "app.db/write") == 1
    assert found.number(names.ROLLBACKS, "app.db/write") == 2
    waits = found.buckets[names.WAIT_TIME, "app.db/write"]
    assert (waits[1.0], waits[math.inf]) == (3, 4)  # of whatever outcome


async def test_a_pool_that_closed_is_no_longer_there(
    driver: StubDriver, registry: CollectorRegistry, endpoint: Endpoint
) -> None:
    subscriber = PrometheusSubscriber(registry)
    url = endpoint(registry)
    async with pool_of(driver, name="a.db", subscribers=[subscriber]):
        async with pool_of(driver, name="b.db", subscribers=[subscriber]):
            assert scrape(url).pools == ("a.db", "b.db")
        assert scrape(url).pools == ("a.db",)


def test_plain_text_and_openmetrics_are_read_alike(driver: StubDriver, says: Callable[..., str]) -> None:
    from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

    registry = CollectorRegistry()
    pool: SQLiteConnectionPool[Any] = SQLiteConnectionPool(
        driver, name="app.db", subscribers=[PrometheusSubscriber(registry)]
    )
    acquired(pool.events, 0.2)
    plain = scrape(says((200, "text/plain; version=0.0.4", generate_latest(registry))))
    openmetrics = scrape(says((200, "application/openmetrics-text; version=1.0.0", generate_openmetrics(registry))))
    assert plain.buckets == openmetrics.buckets
    assert plain.numbers == openmetrics.numbers
    assert plain.number(names.ACQUIRES, "app.db", "queued") == 1


def test_series_that_differ_in_foreign_labels_only_are_one(says: Callable[..., str]) -> None:
    pool = 'db_client_connection_pool_name="app.db"'
    lines = [
        f'db_client_connection_count{{{pool},db_client_connection_state="used",instance="a"}} 2',
        f'db_client_connection_count{{{pool},db_client_connection_state="used",instance="b"}} 3',
        f'aiosqlitepool_oldest_waiter_age_seconds{{{pool},instance="a"}} 1.5',
        f'aiosqlitepool_oldest_waiter_age_seconds{{{pool},instance="b"}} 0.5',
    ]
    found = scrape(says((200, "text/plain", "\n".join([*lines, ""]).encode())))
    assert found.number(names.COUNT, "app.db", "used") == 5
    assert found.number(names.OLDEST_WAITER, "app.db") == 1.5


# -- what can be wrong


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ((200, "text/html", b"<html><body>Hello</body></html>"), "returned no valid metrics, but text/html"),
        ((200, "application/json", b'{"status": "ok"}'), "returned no valid metrics, but application/json"),
        ((200, "", b"hello"), "returned no valid metrics, but content of unknown type"),
        ((200, "application/openmetrics-text", b"a 1\n"), "returned no valid metrics"),
        ((200, "text/plain", b"up 1\n"), "has no metrics of aiosqlitepool: attach a PrometheusSubscriber"),
        ((200, "text/plain", b""), "has no metrics of aiosqlitepool"),
        ((200, "application/json", b"[" * 100_000), "returned no valid metrics, but application/json"),
        ((200, "application/json", b"7"), "returned no valid metrics, but application/json"),
        ((200, "text/plain", b"\xff\xfe 1\n"), "no"),
    ],
)
def test_an_answer_that_is_of_no_use_is_told(says: Callable[..., str], answer: Any, complaint: str) -> None:
    with pytest.raises(EndpointError, match=complaint):
        scrape(says(answer))


async def test_a_debug_page_and_its_json_are_told(driver: StubDriver) -> None:
    async with pool_of(driver) as pool, served(DebugApp(pool)) as url:
        for path in ("", "data.json"):
            with pytest.raises(DebugPageError, match="is a debug page"):
                await asyncio.to_thread(scrape, f"{url}/{path}")


def test_metrics_of_another_program_are_told_from_none(endpoint: Endpoint) -> None:
    registry = CollectorRegistry()
    Counter("visits", "Visits.", registry=registry)
    with pytest.raises(EndpointError, match="has no metrics of aiosqlitepool"):
        scrape(endpoint(registry))


# -- addresses


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost:8000", "http://localhost:8000/metrics"),
        ("localhost:8000/", "http://localhost:8000/metrics"),
        ("http://localhost:8000", "http://localhost:8000/metrics"),
        ("https://app.test/internal/metrics?x=1", "https://app.test/internal/metrics?x=1"),
        ("[::1]:8000", "http://[::1]:8000/metrics"),
    ],
)
def test_an_address_may_be_short(text: str, url: str) -> None:
    assert full_url(text) == url
