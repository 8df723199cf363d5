"""The spans of one pool's statements, written afterwards from their events, with OpenTelemetry's API. Part of
`opentelemetry`.

A handler runs in a copy of the context of the caller that sent the statement, so the current span is the right parent.
"""

from __future__ import annotations

from typing import Any, Literal

from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.events import StatementExecuted, StatementSlow

from . import _attributes as names
from . import _metrics as catalogue
from ._common import Detach

__all__ = ["StatementMode", "StatementSpans"]

StatementMode = Literal["off", "slow", "all"]
Attributes = dict[str, AttributeValue]


class StatementSpans:
    """Writes the spans of the statements of one pool."""

    # Keeps nothing of the pool: a program may keep the function that detaches for longer than that.

    def __init__(self, tracer: Tracer, pool: str) -> None:
        self._tracer = tracer
        self._common: Attributes = {
            names.SYSTEM: "sqlite",
            names.NAMESPACE: catalogue.namespace_of(pool),
            names.POOL: pool,
        }

    def subscribe(self, pool: SQLiteConnectionPool[Any], mode: StatementMode) -> list[Detach]:
        """Subscribe to the statements that have a span. Returns the functions that end that."""
        detaches = [pool.events.subscribe(StatementSlow, self._slow)]
        if mode == "all":
            detaches.append(pool.events.subscribe(StatementExecuted, self._executed))
        return detaches

    def _slow(self, event: StatementSlow) -> None:
        plan: Attributes = {}
        if event.plan:
            plan[names.PLAN] = event.plan
        if warnings := event.plan_warnings:
            plan[names.PLAN_WARNING] = warnings[0]
        self._write(event, plan)

    def _executed(self, event: StatementExecuted) -> None:
        if not event.is_slow:  # that has a span already
            self._write(event, {})

    def _write(self, event: StatementSlow | StatementExecuted, plan: Attributes) -> None:
        # As its caller saw it, so including the wait: that is what a client span covers by the semantic conventions.
        ended = round(event.ended_at * 1e9)
        began = ended - round((event.wait_time + event.run_time) * 1e9)
        # What a sampler may decide by is there from the beginning, the rest only if the span is recorded.
        attributes: Attributes = {
            **self._common,
            names.OPERATION: event.operation,
            names.SUMMARY: event.summary,
            names.QUERY_TEXT: event.statement,
        }
        span = self._tracer.start_span(event.summary, None, SpanKind.CLIENT, attributes, start_time=began)
        if span.is_recording():
            span.set_attributes({**_details(event), **plan})
            if event.error not in (None, "cancelled"):  # a cancellation was requested by the program: it is no error
                span.set_status(Status(StatusCode.ERROR))
        span.end(ended)


def _details(event: StatementSlow | StatementExecuted) -> Attributes:
    details: Attributes = {
        names.CONNECTION: event.connection,
        names.RETURNED_ROWS: event.rows,
        names.STATEMENT_WAIT_TIME: event.wait_time,
    }
    if event.label is not None:
        details[names.LABEL] = event.label
    if event.error is not None:
        details[names.ERROR_TYPE] = event.error
    return details
