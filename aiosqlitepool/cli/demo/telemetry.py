"""The demo's telemetry: `/metrics` for Prometheus, and OTLP if the environment configures it.

Covers every pool of the demo, through `subscribe_all`. A library that is missing is reported and skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from ...pool.registry import subscribe_all

__all__ = ["observing"]

Show = Callable[[str], None]

_OTLP = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")


@contextmanager
def observing(show: Show, port: int) -> Iterator[None]:
    """Serve `/metrics` on loopback (`port` 0: a free port), and export to OTLP if the environment names an endpoint."""
    with ExitStack() as stack:
        for observer in (_prometheus(show, port), _otlp(show)):
            try:
                stack.enter_context(observer)
            except ModuleNotFoundError as error:
                show(f"Skipped: {error}")
        yield


@contextmanager
def _prometheus(show: Show, port: int) -> Iterator[None]:
    from ...subscribers.prometheus import PrometheusSubscriber

    # Imported second: without prometheus_client, the import above fails with a message that names the extra.
    from prometheus_client import CollectorRegistry, start_http_server  # isort: skip

    registry = CollectorRegistry()
    detach = subscribe_all(PrometheusSubscriber(registry=registry))
    server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    try:
        show(f"Serving metrics during this run: http://127.0.0.1:{server.server_port}/metrics")
        yield
    finally:
        detach()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def _otlp(show: Show) -> Iterator[None]:
    if not any(os.environ.get(name) for name in _OTLP):
        yield
        return
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from ...subscribers.opentelemetry import OpenTelemetrySubscriber

    tracing, metering = TracerProvider(), MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
    tracing.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    subscriber = OpenTelemetrySubscriber(tracer_provider=tracing, meter_provider=metering)
    detach = subscribe_all(subscriber)
    try:
        show("Exporting spans and metrics to the OTLP endpoint in the environment")
        yield
    finally:
        detach()
        metering.shutdown()
        tracing.shutdown()
