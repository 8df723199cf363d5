from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from aiosqlitepool.subscribers.opentelemetry import OpenTelemetrySubscriber
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

POOL = "db_client_connection_pool_name"


def system_of(name: str) -> dict[str, str]:
    """The label that metrics of the semantic conventions have."""
    return {"db_system_name": "sqlite"} if name.startswith("db_") else {}


@dataclass
class Scrape:
    """What a registry shows: `scrape("..._total", aiosqlitepool_acquire_path="idle")` of the pool named app.db."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __call__(self, name: str, pool: str = "app.db", **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {POOL: pool, **system_of(name), **labels})


@pytest.fixture
def scrape() -> Scrape:
    return Scrape()


@pytest.fixture
def prometheus(scrape: Scrape) -> PrometheusSubscriber:
    return PrometheusSubscriber(scrape.registry)


class Telemetry:
    """An OpenTelemetry SDK that keeps everything in memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.tracer = self.tracer_provider.get_tracer("tests")

    def subscriber(self, **options: object) -> OpenTelemetrySubscriber:
        return OpenTelemetrySubscriber(self.tracer_provider, self.meter_provider, **options)  # type: ignore[arg-type]

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def span(self, name: str) -> ReadableSpan:
        (span,) = self.spans(name)
        return span

    def points(self, name: str) -> dict[frozenset[tuple[str, object]], HistogramDataPoint | NumberDataPoint]:
        """The data points of one metric by their attributes."""
        data = self.reader.get_metrics_data()
        return {
            frozenset((point.attributes or {}).items()): point  # type: ignore[misc]
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
            if metric.name == name
        }

    def point(self, name: str, pool: str = "app.db", **attributes: str) -> HistogramDataPoint | NumberDataPoint | None:
        """One of them: `error_type="timeout"` is the attribute `error.type`."""
        spelled = {key.replace("__", "."): value for key, value in attributes.items()}
        system = {"db.system.name": "sqlite"} if name.startswith("db.") else {}
        return self.points(name).get(frozenset({"db.client.connection.pool.name": pool, **system, **spelled}.items()))

    def value(self, name: str, pool: str = "app.db", **attributes: str) -> float | None:
        point = self.point(name, pool, **attributes)
        return None if point is None else point.value  # type: ignore[union-attr]


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry()
    yield telemetry
    telemetry.tracer_provider.shutdown()
