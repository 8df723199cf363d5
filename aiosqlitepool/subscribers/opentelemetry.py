"""Spans and metrics for OpenTelemetry, through its API: `OpenTelemetrySubscriber`.

Spans are written backwards, from finished facts. Counters and levels are read when somebody collects; durations that
no trace asks for are noted in a backlog and recorded then. Needs the API only: which SDK there is, if any, is the
program's business.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, get_args

from aiosqlitepool import SQLiteConnectionPool, __version__
from aiosqlitepool.events import (
    AcquireCancelled,
    AcquiredAtOnce,
    AcquireFailed,
    AcquireRejected,
    AcquireTimedOut,
    ConnectionAcquired,
    ConnectionCreated,
    TimesNoted,
    TransactionEnded,
)

from . import _metrics as names
from ._counts import Account, Ledger
from ._detach import Detach, together
from ._metrics import Buckets, Metric, checked_seconds, error_type
from ._opentelemetry_deferred import Backlog, Flusher

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation
    from opentelemetry.trace import Span, TracerProvider
except ModuleNotFoundError as _error:
    hint = "aiosqlitepool.subscribers.opentelemetry needs its API: pip install 'aiosqlitepool[opentelemetry]'"
    raise ModuleNotFoundError(f"{hint} ({_error})", name=_error.name) from _error

from ._opentelemetry_spans import PoolSpans, SpanMode

__all__ = ["OpenTelemetrySubscriber", "SpanMode"]

AnyPool = SQLiteConnectionPool[Any]


class OpenTelemetrySubscriber:
    """Shows what pools do as OpenTelemetry spans and metrics. One subscriber serves any number of pools.

    Args:
        tracer_provider: where spans go; the global one if not given.
        meter_provider: where metrics go; the global one if not given.
        spans: which acquires are told as spans: those that were "slow" or failed, also those that "queued", "all", or
            none ("off", and then there are no spans for connecting and no span events either).
        slow_acquire: how long a slow acquire takes at least. Seconds, as are all bounds.
        checkout_spans: whether there is a span from each lending to its return.
        metrics: whether there are metrics; without, nothing is paid for them.
        wait_buckets: advised bounds of the buckets of the time to obtain a connection.
        create_buckets: advised bounds of the buckets of the time to open a connection.
        use_buckets: advised bounds of the buckets of the time for which connections are out.
        transaction_buckets: advised bounds of the buckets of the time that transactions of a `SQLiteDatabase` take.

    Raises `ValueError` for an argument that makes no sense, and if the provider has our metrics with other buckets.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        spans: SpanMode = "slow",
        slow_acquire: float = 0.05,
        checkout_spans: bool = False,
        metrics: bool = True,
        wait_buckets: Iterable[float] = names.WAIT_BUCKETS,
        create_buckets: Iterable[float] = names.CREATE_BUCKETS,
        use_buckets: Iterable[float] = names.USE_BUCKETS,
        transaction_buckets: Iterable[float] = names.TRANSACTION_BUCKETS,
    ) -> None:
        if spans not in get_args(SpanMode):
            raise ValueError(f"spans must be one of {', '.join(map(repr, get_args(SpanMode)))}, not {spans!r}")
        buckets = names.checked_bounds(wait_buckets, create_buckets, use_buckets, transaction_buckets)
        self._spans: SpanMode = spans
        self._slow_acquire = checked_seconds("slow_acquire", slow_acquire)
        self._checkout_spans = checkout_spans
        self._tracer = trace.get_tracer(names.SCOPE, __version__, tracer_provider, names.SCHEMA_URL)
        self._instruments = _instruments_of(meter_provider, buckets) if metrics else None

    def attach(self, pool: AnyPool, /) -> Detach:
        """Tell what `pool` does from now on. Its levels go when it closes or is detached, its counters stay."""
        subscribe, detaches = pool.events.subscribe, list[Detach]()
        metrics = spans = None
        if self._instruments is not None:
            metrics = _PoolMetrics(self._instruments, pool, self._slow_acquire)
            detaches += [subscribe(TimesNoted, metrics.noted), *metrics.detaches]
            detaches.append(subscribe(ConnectionCreated, metrics.created))
            detaches.append(subscribe(TransactionEnded, metrics.transaction_ended))
        if self._spans != "off" or self._checkout_spans:
            spans = PoolSpans(self._tracer, pool, self._spans, self._slow_acquire)
            detaches += spans.subscribe(checkouts=self._checkout_spans)
        detaches += _subscribe_acquires(pool, metrics, spans)
        return together(detaches)


def _subscribe_acquires(pool: AnyPool, metrics: _PoolMetrics | None, spans: PoolSpans | None) -> Iterator[Detach]:
    told_from = math.inf if spans is None else spans.told_from

    def failed(event: Any, kind: str) -> None:
        span = None if spans is None else spans.failed(event, kind)
        if metrics is not None:
            metrics.failed(event.wait_time, kind, span)

    subscribe = pool.events.subscribe
    if metrics is not None:

        def sampled(event: ConnectionAcquired) -> None:
            # Of what is told as a span, that span is the best exemplar: see `acquired`.
            if spans is None or (event.wait_time < told_from and not event.create_time):
                metrics.show(event, trace.get_current_span())

        yield subscribe(ConnectionAcquired, sampled, exact=True, at_least=metrics.slow_acquire, samples=True)
    if spans is not None:

        def acquired(event: ConnectionAcquired) -> None:
            span = spans.acquired(event)
            if metrics is not None:
                metrics.show(event, trace.get_current_span() if span is None else span)

        yield subscribe(ConnectionAcquired, acquired, exact=True, at_least=told_from)
        if spans.mode == "all":
            yield subscribe(AcquiredAtOnce, spans.acquired)
    yield subscribe(AcquireTimedOut, lambda event: failed(event, "timeout"))
    yield subscribe(AcquireCancelled, lambda event: failed(event, "cancelled"))
    yield subscribe(AcquireRejected, lambda event: failed(event, "rejected"))
    yield subscribe(AcquireFailed, lambda event: failed(event, error_type(event.error)))


# -- metrics


class _Instruments:
    """The metrics of one meter provider, for all pools that feed them."""

    def __init__(self, meter: Meter, buckets: Buckets) -> None:
        self.buckets = buckets
        self.ledger: Ledger[Account] = Ledger(Account)
        self.flusher = Flusher()
        for metric in names.LEVELS:
            create = (
                meter.create_observable_gauge if metric.kind == "gauge" else meter.create_observable_up_down_counter
            )
            create(metric.name, [self._observe(metric, self.ledger.levels)], metric.unit, metric.description)
        for metric in names.COUNTERS:
            observe = self._observe(metric, self.ledger.counters)
            meter.create_observable_counter(metric.name, [observe], metric.unit, metric.description)
        histograms = {metric: _histogram(meter, metric, buckets[metric]) for metric in names.HISTOGRAMS}
        self.wait_time, self.create_time = histograms[names.WAIT_TIME], histograms[names.CREATE_TIME]
        self.use_time = histograms[names.USE_TIME]
        self.transaction_time = histograms[names.TRANSACTION_TIME]
        self.transaction_wait = histograms[names.TRANSACTION_WAIT]

    def _observe(
        self, metric: Metric, read: Callable[[], Mapping[tuple[Metric, str, str], float]]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterator[Observation]:
            if metric is names.LEVELS[0]:
                # Whoever collects calls this before looking at the histograms, and has that much patience in all.
                self.flusher.record_all(options.timeout_millis / 2000)
            for (found, pool, value), number in read().items():
                if found is metric:
                    yield Observation(number, _attributes(metric, pool, value))

        return observe


def _histogram(meter: Meter, metric: Metric, bounds: tuple[float, ...]) -> Histogram:
    return meter.create_histogram(
        metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=bounds
    )


def _attributes(metric: Metric, pool: str, value: str = "") -> dict[str, str]:
    return {names.POOL: pool, metric.attribute: value} if metric.attribute and value else {names.POOL: pool}


# A provider has one set of instruments, however many subscribers there are: asked for the same observable instrument
# again, it forgets the new callback.
_shared: weakref.WeakKeyDictionary[MeterProvider, _Instruments] = weakref.WeakKeyDictionary()
# The global provider's, which may be another object later and is the same provider all the same.
_global: list[_Instruments] = []


def _instruments_of(provider: MeterProvider | None, buckets: Buckets) -> _Instruments:
    everybodys = metrics.get_meter_provider()
    is_global = provider is None or provider is everybodys
    # What was given as an argument may have become everybody's since.
    found = _shared.get(provider or everybodys)
    if found is None and is_global:
        found = next(iter(_global), None)
    if found is None:
        found = _Instruments(metrics.get_meter(names.SCOPE, __version__, provider, names.SCHEMA_URL), buckets)
        if is_global or provider is None:
            _global.append(found)
        else:
            _shared[provider] = found
    for metric, bounds in buckets.items():
        if found.buckets[metric] != bounds:
            raise ValueError(
                f"the meter provider has {metric.name} already, with buckets {found.buckets[metric]}, not {bounds}"
            )
    return found


# The context of a duration that belongs to no trace. Not empty: then it would be the one of whoever collects.
_NO_TRACE = trace.set_span_in_context(trace.INVALID_SPAN, Context())


class _PoolMetrics:
    """What one pool contributes to the instruments."""

    def __init__(self, instruments: _Instruments, pool: AnyPool, slow_acquire: float) -> None:
        self.slow_acquire = slow_acquire
        self.account, self.detaches = instruments.ledger.open(pool)
        self._instruments = instruments
        # Waits that were recorded as they happened, in their trace, and will be told of as times.
        self._shown: list[float] = []
        self._labels = labels = {names.POOL: pool.name}
        wait, use = instruments.wait_time, instruments.use_time
        self._backlog = Backlog(
            self.account,
            lambda seconds: wait.record(seconds, labels, _NO_TRACE),
            lambda seconds: use.record(seconds, labels, _NO_TRACE),
        )
        instruments.flusher.add(self._backlog)
        self.detaches.append(self._end)

    def _end(self) -> None:
        self._backlog.ended = True

    def noted(self, times: TimesNoted) -> None:
        """Count the acquires, and keep all durations but those recorded already."""
        self.account.note(times)
        waits = list(chain.from_iterable(times.waits.values()))
        for shown in self._shown.copy():
            if shown in waits:  # else it is told of next time
                waits.remove(shown)
                self._shown.remove(shown)
        self._backlog.note(times.at_once, waits, times.uses)
        self._instruments.flusher.look(self._backlog, len(waits) + len(times.uses))

    def created(self, event: ConnectionCreated) -> None:
        """Record how long it took to connect."""
        self._instruments.create_time.record(event.create_time, self._labels)

    def transaction_ended(self, event: TransactionEnded) -> None:
        """Record how long a transaction took, and how long it was waited for."""
        outcome = _attributes(names.TRANSACTION_TIME, event.pool, event.outcome)
        self._instruments.transaction_time.record(event.duration, outcome)
        self._instruments.transaction_wait.record(event.wait_time, self._labels)

    def show(self, event: ConnectionAcquired, span: Span) -> None:
        """Record a wait now, in the trace of the span, if that is sampled and the wait worth looking at."""
        worth_it = event.path == "queued" or event.wait_time >= self.slow_acquire
        if worth_it and span.get_span_context().trace_flags.sampled:
            self._shown.append(event.wait_time)
            self._record(event.wait_time, self._labels, span)

    def failed(self, wait_time: float, kind: str, span: Span | None) -> None:
        """Record how long a failed acquire took to fail."""
        told = trace.get_current_span() if span is None else span
        self._record(wait_time, {**self._labels, names.ERROR_TYPE: kind}, told)

    def _record(self, wait_time: float, labels: dict[str, str], span: Span) -> None:
        self._instruments.wait_time.record(wait_time, labels, trace.set_span_in_context(span, Context()))
