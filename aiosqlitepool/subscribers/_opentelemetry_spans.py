"""The spans of one pool, written backwards from its events, with OpenTelemetry's API. Part of `opentelemetry`.

An event is told in the task it belongs to, so the current span is the right parent also after a hand-over from
another task. Whoever waited is linked to the spans of those it waited for.
"""

from __future__ import annotations

import asyncio
import math
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from aiosqlitepool import Holder, SQLiteConnectionPool
from aiosqlitepool.events import (
    ConnectionAcquired,
    ConnectionCreated,
    ConnectionCreateFailed,
    ConnectionReleased,
    ErrorInfo,
    HealthCheckFailed,
    IdleReplaced,
    PoolClosed,
    RolledBackOnReturn,
)

from . import _metrics as names
from ._detach import Detach

__all__ = ["PoolSpans", "SpanMode"]

SpanMode = Literal["off", "slow", "queued", "all"]
Attributes = dict[str, AttributeValue]

_MOST_LINKS = 8
# How long, in seconds, a finished opening waits for the acquire that caused it, which is told a few turns of the loop
# later, if at all.
_PATIENCE = 0.05


@dataclass(slots=True, eq=False)
class _Opening:
    """A connection that was opened, or failed to: a span not written yet, for want of its parent."""

    cause: object
    ended: int
    seconds: float
    context: Context
    attributes: Attributes
    error: ErrorInfo | None = None


class PoolSpans:
    """Writes the spans of one pool."""

    def __init__(self, tracer: Tracer, pool: SQLiteConnectionPool[Any], mode: SpanMode, slow_acquire: float) -> None:
        self.mode = mode
        self._tracer = tracer
        # Weakly: what ends a subscription may be kept by somebody for as long as the pool exists.
        self._pool = weakref.ref(pool)
        self._events = pool.events
        self._slow = slow_acquire
        # How long, in seconds, an acquire takes at least that may have to be told of.
        self.told_from = {"off": math.inf, "slow": slow_acquire, "queued": 0.0, "all": 0.0}[mode]
        self._common: Attributes = {names.SYSTEM: "sqlite", names.POOL: pool.name}
        self._openings: list[_Opening] = []

    def subscribe(self, *, checkouts: bool) -> list[Detach]:
        """Subscribe to everything but acquires; returns what ends that."""
        subscribe = self._events.subscribe
        detaches = [subscribe(ConnectionReleased, self._checked_in)] if checkouts else []
        if self.mode != "off":
            detaches += [
                subscribe(ConnectionCreated, self._created),
                subscribe(ConnectionCreateFailed, self._create_failed),
                subscribe(HealthCheckFailed, self._health_failed),
                subscribe(RolledBackOnReturn, self._rolled_back),
                subscribe(IdleReplaced, self._idle_replaced),
                subscribe(PoolClosed, lambda event: self._write_openings()),
                self._write_openings,
            ]
        return detaches

    # -- acquires

    def acquired(self, event: ConnectionAcquired) -> Span | None:
        """Write the span of an acquire that succeeded, if it is to be told; returns it."""
        span = None
        if self._wanted(event):
            attributes: Attributes = {
                names.CONNECTION: event.connection,
                names.ACQUIRE_PATH: event.path,
                names.QUEUE_TIME: event.queue_time,
                names.ACQUIRE_CREATE_TIME: event.create_time,
                names.CHECK_TIME: event.check_time,
            }
            span = self._write_acquire(event, attributes, event.waited_for)
        if self._openings and event.create_time:
            self._claim(event.connection, span)
        return span

    def _wanted(self, event: ConnectionAcquired) -> bool:
        return event.wait_time >= self.told_from and (
            self.mode != "queued" or event.path == "queued" or event.wait_time >= self._slow
        )

    def failed(self, event: Any, kind: str) -> Span | None:
        """Write the span of an acquire that failed; returns it."""
        if self.mode == "off":
            return None
        error: ErrorInfo | None = getattr(event, "error", None)
        # Cancelled is what its caller wanted: no error.
        status = None if kind == "cancelled" else str(error or kind)
        span = self._write_acquire(event, {names.ERROR_TYPE: kind}, getattr(event, "holders", ()), status)
        if error is not None:
            self._claim(error, span)
        return span

    def _write_acquire(
        self, event: Any, attributes: Attributes, holders: Sequence[Holder], error: str | None = None
    ) -> Span:
        ended = time.time_ns()
        span = self._start(names.ACQUIRE_SPAN, ended, event.wait_time)
        if span.is_recording():
            where: Attributes = {names.PENDING: event.pending}
            if (pool := self._pool()) is not None:
                stats = pool.stats()
                where |= {names.USED: stats.used, names.POOL_MAX: stats.max_size}
            if event.label is not None:
                where[names.LABEL] = event.label
            span.set_attributes({**attributes, **where})
            for holder in holders[:_MOST_LINKS]:
                _link(span, holder)
            if error is not None:
                span.set_status(Status(StatusCode.ERROR, error))
        span.end(ended)
        return span

    def _start(self, name: str, ended: int, seconds: float, context: Context | None = None) -> Span:
        began = ended - int(seconds * 1e9)
        return self._tracer.start_span(name, context, attributes=self._common, start_time=began)

    # -- connecting

    def _created(self, event: ConnectionCreated) -> None:
        self._open(event.connection, event.create_time, {names.CONNECTION: event.connection})

    def _create_failed(self, event: ConnectionCreateFailed) -> None:
        self._open(event.error, event.create_time, {names.ERROR_TYPE: event.error.type}, event.error)

    def _open(self, cause: object, seconds: float, attributes: Attributes, error: ErrorInfo | None = None) -> None:
        here = otel_context.get_current()
        opening = _Opening(cause, time.time_ns(), seconds, here, attributes, error)
        self._openings.append(opening)
        try:
            asyncio.get_running_loop().call_later(_PATIENCE, self._give_up_on, opening)
        except RuntimeError:  # told by hand, outside a loop: nobody will claim it
            self._give_up_on(opening)

    def _claim(self, cause: object, acquire: Span | None) -> None:
        """The acquire that an opening was for has ended: now its span can be written, as that one's child."""
        for opening in self._openings:
            if opening.cause == cause:
                self._openings.remove(opening)
                self._write_opening(opening, acquire)
                return

    def _give_up_on(self, opening: _Opening) -> None:
        if opening in self._openings:
            self._openings.remove(opening)
            self._write_opening(opening, None)

    def _write_openings(self) -> None:
        while self._openings:
            self._write_opening(self._openings.pop(0), None)

    def _write_opening(self, opening: _Opening, parent: Span | None) -> None:
        context = opening.context if parent is None else trace.set_span_in_context(parent, opening.context)
        span = self._start(names.CONNECT_SPAN, opening.ended, opening.seconds, context)
        span.set_attributes(opening.attributes)
        if opening.error is not None:
            span.set_status(Status(StatusCode.ERROR, str(opening.error)))
        span.end(opening.ended)

    # -- the rest

    def _checked_in(self, event: ConnectionReleased) -> None:
        ended = time.time_ns()
        lent_in = None if event.context is None else event.context.run(otel_context.get_current)
        span = self._start(names.CHECKOUT_SPAN, ended, event.use_time, lent_in)
        if span.is_recording():
            span.set_attributes({names.CONNECTION: event.connection, names.ROLLED_BACK: event.needs_reset})
            if event.label is not None:
                span.set_attribute(names.LABEL, event.label)
        span.end(ended)

    def _health_failed(self, event: HealthCheckFailed) -> None:
        error: Attributes = {names.ERROR_TYPE: event.error.type, names.ERROR_MESSAGE: event.error.message}
        self._note(names.HEALTH_FAILED, {names.CONNECTION: event.connection, names.IDLE_TIME: event.idle_time, **error})

    def _rolled_back(self, event: RolledBackOnReturn) -> None:
        cause: Attributes = {names.ROLLBACK_CAUSE: event.cause, names.RESET_TIME: event.reset_time}
        self._note(names.RETURN_ROLLED_BACK, {names.CONNECTION: event.connection, **cause})

    def _idle_replaced(self, event: IdleReplaced) -> None:
        self._note(names.IDLE_REPLACED, {names.CONNECTION: event.connection, names.IDLE_TIME: event.idle_time})

    def _note(self, name: str, attributes: Attributes) -> None:
        span = trace.get_current_span()
        if span.is_recording():
            span.add_event(name, {**self._common, **attributes})


def _link(span: Span, holder: Holder) -> None:
    if holder.context is None:
        return
    context = holder.context.run(trace.get_current_span).get_span_context()
    if context.is_valid:
        span.add_link(context, {names.CONNECTION: holder.connection, names.HELD_TIME: holder.held})
