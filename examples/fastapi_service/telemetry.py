"""The telemetry of the service: metrics for Prometheus, log records, and, if the environment says so, traces and the
debug page."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from aiosqlitepool import subscribe_all
from aiosqlitepool.debug import DebugApp
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber
from aiosqlitepool.subscribers.structlog import StructlogSubscriber


def observe(app: FastAPI) -> None:
    """Observe every pool of the process, and serve `/metrics`."""
    # The statements that take the time, and use time by label: up to 20 statements and a few labels of each pool.
    subscribe_all(PrometheusSubscriber(statement_summaries=20, by_label=True))
    subscribe_all(StructlogSubscriber(logger()))
    # Not app.mount(): it redirects /metrics. Not `async def`: a scrape must not block the loop.
    app.add_api_route("/metrics", metrics, include_in_schema=False)
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        trace(app)
    if os.environ.get("DEBUG_PAGE"):
        # It shows statements and labels, and has no password: make it reachable for yourself only.
        app.mount("/debug/pool", DebugApp())


def logger() -> Any:
    """Return a logger that writes lines of JSON to LOG_FILE, for a collector of logs; without it, structlog's own."""
    if not (path := os.environ.get("LOG_FILE")):
        return structlog.get_logger("aiosqlitepool")
    processors: list[Any] = [structlog.processors.TimeStamper("iso"), structlog.processors.add_log_level]
    # Open until the process ends; flushed after each line.
    lines = open(path, "a", encoding="utf-8")  # noqa: SIM115
    return structlog.wrap_logger(structlog.WriteLogger(lines), [*processors, structlog.processors.JSONRenderer()])


def metrics(request: Request) -> Response:
    """The metrics, as OpenMetrics if the scraper accepts it: only that format has exemplars."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        # With `uvicorn --workers 2`, or gunicorn: each worker answers for all, from the files that they write.
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(encode(registry), headers={"Content-Type": content_type})


def trace(app: FastAPI) -> None:
    """Export a span for every request, and below it one for every slow acquire and every slow statement.

    The environment also sets the name and the sampling: OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from aiosqlitepool.subscribers.opentelemetry import OpenTelemetrySubscriber

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=provider, excluded_urls="metrics,health,debug", exclude_spans=["receive", "send"]
    )
    # Metrics go to Prometheus already.
    subscribe_all(OpenTelemetrySubscriber(provider, metrics=False))
    app.state.tracer_provider = provider


async def close(app: FastAPI) -> None:
    """Send the spans that are not sent yet: the last thing that a process does. Without it, they are lost."""
    if (provider := getattr(app.state, "tracer_provider", None)) is not None:
        await asyncio.to_thread(provider.shutdown)
