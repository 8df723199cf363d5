"""The demo as an SRE would run it: `/metrics` for Prometheus, and OTLP where the environment asks for it.

Every pool of the demo is observed, by way of `subscribe_all`. What is not installed is left out, and said to be.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from ...pool.process import subscribe_all

__all__ = ["observing"]

Say = Callable[[str], None]

_OTLP = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")


@contextmanager
def observing(say: Say, port: int) -> Iterator[None]:
    """Serve `/metrics` on loopback (`port` 0 takes a free one) and export to OTLP if the environment says so."""
    with ExitStack() as stack:
        for observer in (_prometheus(say, port), _otlp(say)):
            try:
                stack.enter_context(observer)
            except ModuleNotFoundError as error:
                say(f"Left out: {error}")
        yield


@contextmanager
def _prometheus(say: Say, port: int) -> Iterator[None]:
    from ...subscribers.prometheus import PrometheusSubscriber

    # Only now: without prometheus_client, the import above fails with a hint at the extra.
    from prometheus_client import CollectorRegistry, start_http_server  # isort: skip

    registry = CollectorRegistry()
    detach = subscribe_all(PrometheusSubscriber(registry=registry))
    server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    try:
        say(f"Metrics while this runs: http://127.0.0.1:{server.server_port}/metrics")
        yield
    finally:
        detach()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def _otlp(say: Say) -> Iterator[None]:
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
        say("Spans and metrics go to the OTLP endpoint that the environment names")
        yield
    finally:
        detach()
        metering.shutdown()
        tracing.shutdown()
