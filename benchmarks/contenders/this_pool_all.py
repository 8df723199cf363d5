# /// script
# dependencies = ["aiosqlite", "uvloop"]
# [tool.bench]
# title = "this pool, all subscribers"
# tree = ["prometheus", "opentelemetry", "structlog"]
# ///
"""The pool of the working tree with all three subscribers, set up as a program in production does.

OpenTelemetry with its SDK, spans in batches, metrics exported every minute and once after each round; structlog
writing lines of JSON from level INFO up. What they export goes nowhere.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from aiosqlitepool.subscribers.opentelemetry import OpenTelemetrySubscriber
from aiosqlitepool.subscribers.structlog import StructlogSubscriber

from .this_pool_prometheus import ThisPoolPrometheus


class _NoSpans(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


class _NoMetrics(MetricExporter):
    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None: ...


class ThisPoolAll(ThisPoolPrometheus):
    def subscribers(self) -> Iterable[Any]:
        self._tracing = TracerProvider()
        self._tracing.add_span_processor(BatchSpanProcessor(_NoSpans()))
        self._metering = MeterProvider([PeriodicExportingMetricReader(_NoMetrics())])
        self._nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - closed with the contender
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            logger_factory=structlog.WriteLoggerFactory(self._nowhere),
        )
        return (
            *super().subscribers(),
            OpenTelemetrySubscriber(tracer_provider=self._tracing, meter_provider=self._metering),
            StructlogSubscriber(),
        )

    def settle(self) -> None:
        super().settle()
        self._metering.force_flush()

    async def close(self) -> None:
        await super().close()
        self._metering.shutdown()
        self._tracing.shutdown()
        self._nowhere.close()


contender = ThisPoolAll
