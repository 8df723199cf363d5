"""From a pool over a real SQLite file, through a real SDK, to a real receiver."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.subscribers.opentelemetry import OpenTelemetrySubscriber

from ..support.otlp import Receiver, attributes, over_grpc, over_http


class Sdk:
    """A real SDK with a batch processor and a periodic reader that export to a receiver."""

    def __init__(self, spans: Any, metrics: Any) -> None:
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(BatchSpanProcessor(spans))
        reader = PeriodicExportingMetricReader(metrics, 3_600_000)
        self.meter_provider = MeterProvider([reader], shutdown_on_exit=False)
        self.tracer = self.tracer_provider.get_tracer("tests")

    def shutdown(self) -> None:
        self.tracer_provider.shutdown()
        self.meter_provider.shutdown()


def sdk_over_http(receiver: Receiver) -> Sdk:
    return Sdk(HttpSpans(f"{receiver.endpoint}/v1/traces"), HttpMetrics(f"{receiver.endpoint}/v1/metrics"))


def sdk_over_grpc(receiver: Receiver) -> Sdk:
    return Sdk(GrpcSpans(receiver.endpoint, insecure=True), GrpcMetrics(receiver.endpoint, insecure=True))


async def two_requests(sdk: Sdk, database: Path) -> None:
    """The second waits for the first, which holds the only connection."""
    subscriber = OpenTelemetrySubscriber(sdk.tracer_provider, sdk.meter_provider, spans="queued", checkout_spans=True)
    holding = asyncio.Event()

    async def request(name: str, pool: SQLiteConnectionPool[aiosqlite.Connection]) -> None:
        with sdk.tracer.start_as_current_span(name):
            async with pool.connection(label=name) as connection:
                await connection.execute("SELECT text FROM note")
                holding.set()
                while not pool.stats().waiting and name == "first":
                    await asyncio.sleep(0)

    async with SQLiteConnectionPool(
        lambda: aiosqlite.connect(database), 1, slow_acquire=0, name="app.db", subscribers=[subscriber]
    ) as pool:
        first = asyncio.create_task(request("first", pool))
        await holding.wait()
        await request("second", pool)
        await first
    await asyncio.to_thread(sdk.shutdown)


@pytest.fixture(params=["http", "grpc"])
def received(request: pytest.FixtureRequest, database: Path) -> Iterator[Receiver]:
    """What has arrived after two requests of which the second waited for the first."""
    receive, sdk_for = (over_http, sdk_over_http) if request.param == "http" else (over_grpc, sdk_over_grpc)
    with receive() as receiver:
        asyncio.run(two_requests(sdk_for(receiver), database))
        yield receiver


def test_the_waiters_span_arrives_below_its_request_and_linked_to_the_one_it_waited_for(received: Receiver) -> None:
    (acquire,) = [
        span
        for span in received.spans
        if span.name == "aiosqlitepool.acquire" and attributes(span)["aiosqlitepool.acquire.path"] == "queued"
    ]
    assert acquire.parent_span_id == received.span("second").span_id
    assert [link.span_id for link in acquire.links] == [received.span("first").span_id]
    assert attributes(acquire.links[0])["aiosqlitepool.connection.id"] == 1


def test_checkouts_and_connects_arrive_below_their_requests(received: Receiver) -> None:
    checkouts = {span.parent_span_id for span in received.spans if span.name == "aiosqlitepool.checkout"}
    assert checkouts == {received.span("first").span_id, received.span("second").span_id}
    connect = received.span("aiosqlitepool.connect")
    (acquire,) = [span for span in received.spans if span.span_id == connect.parent_span_id]
    assert (acquire.name, acquire.parent_span_id) == ("aiosqlitepool.acquire", received.span("first").span_id)


def test_histograms_arrive_with_their_bounds_and_an_exemplar(received: Receiver) -> None:
    (point,) = received.metric("db.client.connection.wait_time").histogram.data_points
    assert point.count == 2
    assert list(point.explicit_bounds)[:2] == [0.0001, 0.0005]
    callers = {received.span("first").span_id, received.span("second").span_id}
    assert point.exemplars
    assert {exemplar.span_id for exemplar in point.exemplars} <= callers
    (uses,) = received.metric("db.client.connection.use_time").histogram.data_points
    assert uses.count == 2


def test_counters_arrive_as_monotonic_sums(received: Receiver) -> None:
    acquires = received.metric("aiosqlitepool.acquires").sum
    assert acquires.is_monotonic
    paths = {attributes(point)["aiosqlitepool.acquire.path"]: point.as_int for point in acquires.data_points}
    assert paths == {"idle": 0, "new": 1, "queued": 1}


def test_statements_arrive_with_their_operation_and_summary(received: Receiver) -> None:
    (point,) = received.metric("db.client.operation.duration").histogram.data_points
    assert point.count == 2
    assert list(point.explicit_bounds)[:2] == [0.00005, 0.0001]
    select = {"db.client.connection.pool.name": "app.db", "db.query.summary": "SELECT note"}
    assert attributes(point) == {
        **select,
        "db.system.name": "sqlite",
        "db.namespace": "app.db",
        "db.operation.name": "SELECT",
    }
    time = received.metric("aiosqlitepool.statement.time")
    (total,) = time.sum.data_points
    assert (time.unit, time.sum.is_monotonic, attributes(total)) == ("s", True, select)
    assert total.as_double > 0
