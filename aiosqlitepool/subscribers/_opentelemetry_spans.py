"""The spans of one pool, written afterwards from its events, with OpenTelemetry's API. Part of `opentelemetry`.

A handler runs in the task that the event belongs to, so the current span is the right parent, also when another task
handed the connection over. A slow or failed acquire is linked to the spans of the holders that it waited for. A span
with links costs the loop up to 100 µs, so those of slow acquires are limited.
"""

from __future__ import annotations

import asyncio
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
    AcquireSlow,
    ConnectionAcquired,
    ConnectionCreated,
    ConnectionCreateFailed,
    ConnectionReleased,
    ErrorInfo,
    HealthCheckFailed,
    IdleReplaced,
    LeakSuspected,
    PoolClosed,
    RolledBackOnReturn,
)

from . import _attributes as names
from ._common import Detach
from ._handlers import fail_events
from ._span_limit import SpanLimit

__all__ = ["PoolSpans", "SpanMode", "span_of_failure"]

SpanMode = Literal["off", "slow", "queued", "all"]
Attributes = dict[str, AttributeValue]

_MOST_LINKS = 8
# Seconds for which a connect span waits for its parent, the span of the acquire: that one is emitted a few turns of the
# event loop later, and not at all if the caller was cancelled or, in mode "slow", if the acquire was not slow.
_PARENT_WITHIN = 0.05


@dataclass(slots=True, eq=False)
class _Connect:
    """A connection that was opened, or failed to open; its span is not written yet."""

    cause: object
    ended: int
    seconds: float
    context: Context
    attributes: Attributes
    error: ErrorInfo | None = None


# The failed acquire whose span was written last, and that span.
_last_failure: list[Any] = [None, None]


def span_of_failure(event: object) -> Span:
    """Return the span of a failed acquire, in a handler of its event; the current span if it has none."""
    failed, span = _last_failure
    return span if failed is event else trace.get_current_span()


class PoolSpans:
    """Writes the spans of one pool. Those of slow acquires count towards the limit."""

    def __init__(self, tracer: Tracer, pool: SQLiteConnectionPool[Any], mode: SpanMode, limit: SpanLimit) -> None:
        self.mode = mode
        self._tracer = tracer
        self._limit = limit
        # Weak: a program may keep the function that detaches for longer than the pool.
        self._pool = weakref.ref(pool)
        self._common: Attributes = {names.SYSTEM: "sqlite", names.POOL: pool.name}
        self._connects: list[_Connect] = []
        # The connection of the last AcquireSlow, until the ConnectionAcquired that follows it at once.
        self._slow: int | None = None

    def subscribe(self, pool: SQLiteConnectionPool[Any], *, checkouts: bool) -> list[Detach]:
        """Subscribe to what the spans show. Returns the functions that end that."""
        subscribe = pool.events.subscribe
        # In every mode, because the pool captures the contexts of holders only while AcquireSlow has a subscriber.
        detaches = [subscribe(AcquireSlow, self._acquired_slow)]
        if checkouts:
            detaches.append(subscribe(ConnectionReleased, self._released))
        if self.mode in ("queued", "all"):
            detaches.append(subscribe(ConnectionAcquired, self._acquired))
        if self.mode != "off":
            detaches += [
                *(subscribe(event_type, handler) for event_type, handler in fail_events(self._failed)),
                subscribe(ConnectionCreated, self._created),
                subscribe(ConnectionCreateFailed, self._create_failed),
                subscribe(HealthCheckFailed, self._health_failed),
                subscribe(RolledBackOnReturn, self._rolled_back),
                subscribe(IdleReplaced, self._idle_replaced),
                subscribe(LeakSuspected, self._leak_suspected),
                subscribe(PoolClosed, lambda event: self._write_connects()),
                self._write_connects,
            ]
        return detaches

    # -- acquires

    def _acquired_slow(self, event: AcquireSlow) -> None:
        if self.mode == "off":
            return
        self._slow = event.connection
        if self._limit.admits():
            self._write_acquired(event, event.holders)
        elif self._connects and event.create_time:
            self._end_connect(event.connection, None)

    def _acquired(self, event: ConnectionAcquired) -> None:
        slow, self._slow = self._slow, None
        # The span of a slow acquire is written already.
        if slow != event.connection and (self.mode == "all" or event.path == "queued"):
            self._write_acquired(event, ())
        elif self._connects and event.create_time:
            self._end_connect(event.connection, None)

    def _write_acquired(self, event: AcquireSlow | ConnectionAcquired, holders: Sequence[Holder]) -> None:
        attributes: Attributes = {
            names.CONNECTION: event.connection,
            names.ACQUIRE_PATH: event.path,
            names.QUEUE_TIME: event.queue_time,
            names.ACQUIRE_CREATE_TIME: event.create_time,
            names.CHECK_TIME: event.check_time,
        }
        span = self._write_acquire(event, attributes, holders)
        if self._connects and event.create_time:
            self._end_connect(event.connection, span)

    def _failed(self, event: Any, error_type: str) -> None:
        error: ErrorInfo | None = getattr(event, "error", None)
        # A cancellation was requested by the program: it is no error.
        status = None if error_type == "cancelled" else str(error or error_type)
        span = self._write_acquire(event, {names.ERROR_TYPE: error_type}, getattr(event, "holders", ()), status)
        if error is not None:
            self._end_connect(error, span)
        _last_failure[:] = (event, span)

    def _write_acquire(
        self, event: Any, attributes: Attributes, holders: Sequence[Holder], error: str | None = None
    ) -> Span:
        ended = time.time_ns()
        span = self._start(names.ACQUIRE_SPAN, ended, event.wait_time)
        if span.is_recording():
            more: Attributes = {names.PENDING: event.pending}
            if (pool := self._pool()) is not None:
                stats = pool.stats()
                more |= {names.USED: stats.used, names.POOL_MAX: stats.max_size}
            if event.label is not None:
                more[names.LABEL] = event.label
            if isinstance(event, AcquireSlow):
                self._limit.add()
            if left_out := self._limit.take_left_out():
                more[names.LEFT_OUT] = left_out
            span.set_attributes({**attributes, **more})
            for holder in holders[:_MOST_LINKS]:
                _link(span, holder)
            if error is not None:
                span.set_status(Status(StatusCode.ERROR, error))
        span.end(ended)
        return span

    def _start(self, name: str, ended: int, seconds: float, context: Context | None = None) -> Span:
        began = ended - int(seconds * 1e9)
        return self._tracer.start_span(name, context, attributes=self._common, start_time=began)

    # -- connects

    def _created(self, event: ConnectionCreated) -> None:
        self._add_connect(event.connection, event.create_time, {names.CONNECTION: event.connection})

    def _create_failed(self, event: ConnectionCreateFailed) -> None:
        self._add_connect(event.error, event.create_time, {names.ERROR_TYPE: event.error.type}, event.error)

    def _add_connect(
        self, cause: object, seconds: float, attributes: Attributes, error: ErrorInfo | None = None
    ) -> None:
        context = otel_context.get_current()
        connect = _Connect(cause, time.time_ns(), seconds, context, attributes, error)
        self._connects.append(connect)
        try:
            asyncio.get_running_loop().call_later(_PARENT_WITHIN, self._write_orphan, connect)
        except RuntimeError:  # Emitted outside an event loop: no acquire will follow.
            self._write_orphan(connect)

    def _end_connect(self, cause: object, acquire: Span | None) -> None:
        """Write the connect span of an acquire that has ended, as a child of the acquire's span."""
        for connect in self._connects:
            if connect.cause == cause:
                self._connects.remove(connect)
                self._write_connect(connect, acquire)
                return

    def _write_orphan(self, connect: _Connect) -> None:
        if connect in self._connects:
            self._connects.remove(connect)
            self._write_connect(connect, None)

    def _write_connects(self) -> None:
        while self._connects:
            self._write_connect(self._connects.pop(0), None)

    def _write_connect(self, connect: _Connect, parent: Span | None) -> None:
        context = connect.context if parent is None else trace.set_span_in_context(parent, connect.context)
        span = self._start(names.CONNECT_SPAN, connect.ended, connect.seconds, context)
        span.set_attributes(connect.attributes)
        if connect.error is not None:
            span.set_status(Status(StatusCode.ERROR, str(connect.error)))
        span.end(connect.ended)

    # -- checkouts and span events

    def _released(self, event: ConnectionReleased) -> None:
        ended = time.time_ns()
        context = None if event.context is None else event.context.run(otel_context.get_current)
        span = self._start(names.CHECKOUT_SPAN, ended, event.use_time, context)
        if span.is_recording():
            span.set_attributes({names.CONNECTION: event.connection, names.ROLLED_BACK: event.needs_reset})
            if event.label is not None:
                span.set_attribute(names.LABEL, event.label)
        span.end(ended)

    def _leak_suspected(self, event: LeakSuspected) -> None:
        """Write what is known of a lease that may never end, in the trace of its holder."""
        ended, holder = time.time_ns(), event.holder
        context = Context() if holder.context is None else holder.context.run(otel_context.get_current)
        span = self._start(names.LEAK_SPAN, ended, event.use_time, context)
        if span.is_recording():
            span.set_attributes(_shown(holder))
        span.end(ended)

    def _health_failed(self, event: HealthCheckFailed) -> None:
        error: Attributes = {names.ERROR_TYPE: event.error.type, names.ERROR_MESSAGE: event.error.message}
        idle: Attributes = {names.CONNECTION: event.connection, names.IDLE_TIME: event.idle_time}
        self._add_event(names.HEALTH_FAILED, {**idle, **error})

    def _rolled_back(self, event: RolledBackOnReturn) -> None:
        cause: Attributes = {names.ROLLBACK_CAUSE: event.cause, names.RESET_TIME: event.reset_time}
        self._add_event(names.RETURN_ROLLED_BACK, {names.CONNECTION: event.connection, **cause})

    def _idle_replaced(self, event: IdleReplaced) -> None:
        idle: Attributes = {names.CONNECTION: event.connection, names.IDLE_TIME: event.idle_time}
        self._add_event(names.IDLE_REPLACED, idle)

    def _add_event(self, name: str, attributes: Attributes) -> None:
        span = trace.get_current_span()
        if span.is_recording():
            span.add_event(name, {**self._common, **attributes})


def _link(span: Span, holder: Holder) -> None:
    if holder.context is None:
        return
    context = holder.context.run(trace.get_current_span).get_span_context()
    if context.is_valid:
        span.add_link(context, _shown(holder))


def _shown(holder: Holder) -> Attributes:
    shown: Attributes = {names.CONNECTION: holder.connection, names.HELD_TIME: holder.held}
    if holder.label is not None:
        shown[names.LABEL] = holder.label
    if holder.statement is not None:
        shown[names.QUERY_TEXT] = holder.statement
    if holder.ended:
        shown[names.HOLDER_ENDED] = True
    return shown
