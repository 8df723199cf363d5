"""The durations of one pool, from its events to OpenTelemetry's histograms. Part of `opentelemetry`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.events import (
    ConnectionCreated,
    ConnectionReleased,
    PoolTimings,
    StatementTimings,
    TransactionEnded,
)

from ._buckets import exemplars_of
from ._common import Detach
from ._handlers import fail_events
from ._metrics import CREATE_TIME, TRANSACTION_TIME, TRANSACTION_WAIT, WAIT_TIME
from ._opentelemetry_deferred import DeferredCounts
from ._opentelemetry_spans import span_of_failure
from ._settings import MetricSettings

__all__ = ["PoolMetrics"]


class PoolMetrics:
    """Feeds the instruments with the events of one pool. Keeps nothing of its bus, which keeps this.

    Args:
        counts: the counts of the pool.
        record: records one duration at once: its metric, seconds, the name of the pool and the values of attributes.
        settings: those of the instruments.
    """

    def __init__(self, counts: DeferredCounts, record: Callable[..., None], settings: MetricSettings) -> None:
        self._counts = counts
        self._record = record
        self._by_label = settings.by_label
        self._wait_bounds = settings.buckets[WAIT_TIME]

    def subscribe(self, pool: SQLiteConnectionPool[Any]) -> list[Detach]:
        """Subscribe to what the metrics count. Returns the functions that end that."""
        subscribe = pool.events.subscribe
        return [
            *(subscribe(event_type, handler) for event_type, handler in fail_events(self._failed)),
            subscribe(PoolTimings, self._add_timings),
            subscribe(ConnectionReleased, self._counts.add_use)
            if self._by_label
            else subscribe(PoolTimings, self._counts.add_uses),
            subscribe(StatementTimings, self._counts.add_statements),
            subscribe(ConnectionCreated, self._created),
            subscribe(TransactionEnded, self._transaction_ended),
        ]

    def _add_timings(self, timings: PoolTimings) -> None:
        shown = exemplars_of(self._wait_bounds, timings.slow, _sampled)
        self._counts.add_timings(timings, recorded=shown)
        for place, context in shown.items():
            self._record(WAIT_TIME, timings.slow[place].wait_time, self._counts.shown, "", context=context)

    def _created(self, event: ConnectionCreated) -> None:
        self._record(CREATE_TIME, event.create_time, self._counts.shown)

    def _transaction_ended(self, event: TransactionEnded) -> None:
        self._record(TRANSACTION_TIME, event.duration, self._counts.shown, event.outcome)
        self._record(TRANSACTION_WAIT, event.wait_time, self._counts.shown)

    def _failed(self, event: Any, error_type: str) -> None:
        context = trace.set_span_in_context(span_of_failure(event), Context())
        kind = self._counts.limits.error(error_type)
        self._record(WAIT_TIME, event.wait_time, self._counts.shown, kind, context=context)


def _sampled() -> Context | None:
    """Return the current context, `None` if its span is not sampled."""
    is_sampled = trace.get_current_span().get_span_context().trace_flags.sampled
    return otel_context.get_current() if is_sampled else None
