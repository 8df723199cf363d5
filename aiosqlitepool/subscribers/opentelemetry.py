"""Spans and metrics for OpenTelemetry, through its API: `OpenTelemetrySubscriber`.

Counters and levels are read when the SDK collects. Durations of failed acquires, and of the slow ones that become
exemplars, are recorded at once, in their trace; all others are deferred to the next collection. Needs the API only; the
program chooses the SDK, if any.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, get_args

from aiosqlitepool import SQLiteConnectionPool, __version__

from . import _attributes as names
from . import _buckets, _metrics
from ._buckets import Bounds
from ._common import Detach, together
from ._counts import Counts
from ._levels import AnyPool
from ._metrics import Metric, Values
from ._opentelemetry_deferred import DeferredCounts, record_deferred
from ._pool_names import PoolNames
from ._settings import MetricSettings
from ._span_limit import SpanLimit

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation
    from opentelemetry.trace import TracerProvider
except ModuleNotFoundError as _error:
    hint = "aiosqlitepool.subscribers.opentelemetry needs its API: pip install 'aiosqlitepool[opentelemetry]'"
    raise ModuleNotFoundError(f"{hint} ({_error})", name=_error.name) from _error

from ._opentelemetry_metrics import PoolMetrics
from ._opentelemetry_spans import PoolSpans, SpanMode
from ._opentelemetry_statements import StatementMode, StatementSpans

__all__ = ["OpenTelemetrySubscriber", "SpanMode", "StatementMode"]


class OpenTelemetrySubscriber:
    """Exports the spans and metrics of pools through OpenTelemetry. One subscriber serves any number of pools.

    Args:
        tracer_provider: receives the spans; the global provider if not given.
        meter_provider: receives the metrics; the global provider if not given.
        spans: which acquires have a span: "slow" those that took the pool's `slow_acquire` seconds or failed, "queued"
            also those that queued, "all" each one, "off" none; "off" also omits the spans of connects and the span
            events. Only a slow or failed acquire is linked to the spans of the holders that it waited for.
        slow_spans_per_second: with "slow", the most spans of slow acquires for each pool in a second; `None` for no
            limit. The next span of an acquire says how many had none. One that failed always has a span.
        checkout_spans: whether there is a span from each acquire to its release.
        statements: which statements of aiosqlite connections have a span: "slow" those that ran for the pool's
            `slow_statement` seconds, with their query plan, "all" each one, "off" none. A span begins when the caller
            sent the statement; the wait until it ran is an attribute. It has no literal and no parameter.
        metrics: whether there are metrics; `False` costs nothing.
        wait_buckets: advised bucket bounds for the time to acquire a connection. Seconds, as are all bounds.
        create_buckets: advised bucket bounds for the time to open a connection.
        use_buckets: advised bucket bounds for the time from acquire to release.
        transaction_buckets: advised bucket bounds for the duration of transactions of a `SQLiteDatabase`.
        statement_buckets: advised bucket bounds for the time of a statement in its worker thread.
        statement_summaries: how many statements of a pool, those with the longest total time, are shown with that
            time, as `aiosqlitepool.statement.time`; and how many have a `db.query.summary` in
            `db.client.operation.duration`: those that came first, the others have "other". 0 to 100; 0 shows none.
        by_label: whether the use time is shown by the labels of leases: the first 50 of a pool, the others as "other".
        clock: returns the time in seconds, as `time.monotonic`.

    Raises:
        ValueError: an argument is invalid, or the provider has this package's metrics with other buckets,
            `statement_summaries` or `by_label`.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        spans: SpanMode = "slow",
        slow_spans_per_second: int | None = 100,
        checkout_spans: bool = False,
        statements: StatementMode = "slow",
        metrics: bool = True,
        wait_buckets: Iterable[float] = _buckets.WAIT_BUCKETS,
        create_buckets: Iterable[float] = _buckets.CREATE_BUCKETS,
        use_buckets: Iterable[float] = _buckets.USE_BUCKETS,
        transaction_buckets: Iterable[float] = _buckets.TRANSACTION_BUCKETS,
        statement_buckets: Iterable[float] = _buckets.STATEMENT_BUCKETS,
        statement_summaries: int = 20,
        by_label: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _check_mode("spans", spans, get_args(SpanMode))
        _check_mode("statements", statements, get_args(StatementMode))
        _check_limit(slow_spans_per_second)
        settings = MetricSettings.checked(
            wait_buckets=wait_buckets,
            create_buckets=create_buckets,
            use_buckets=use_buckets,
            transaction_buckets=transaction_buckets,
            statement_buckets=statement_buckets,
            statement_summaries=statement_summaries,
            by_label=by_label,
        )
        self._spans: SpanMode = spans
        self._new_limit = partial(SpanLimit, slow_spans_per_second if spans == "slow" else None, clock)
        self._checkout_spans = checkout_spans
        self._statements: StatementMode = statements
        self._tracer = trace.get_tracer(names.SCOPE, __version__, tracer_provider, names.SCHEMA_URL)
        # The global provider may be another object later.
        is_global = tracer_provider is None or tracer_provider is trace.get_tracer_provider()
        self._tracer_owner: object = PoolSpans if is_global else tracer_provider
        # Another one: the first subscriber with spans of acquires need not be the first with spans of statements.
        self._statements_owner: object = StatementSpans if is_global else _owners.setdefault(tracer_provider, object())
        self._instruments = _instruments_of(meter_provider, settings) if metrics else None

    def attach(self, pool: SQLiteConnectionPool[Any], /) -> Detach:
        """Export what `pool` does from now on. Its levels end when it closes or is detached; its counters stay.

        A provider gets each event once, however many subscribers it has on this pool: from the first one.
        """
        once, instruments = pool.events.attach_once, self._instruments
        detaches = list[Detach]()
        # Before the metrics: a failed acquire is recorded in the trace of its span.
        if self._spans != "off" or self._checkout_spans:
            detaches.append(once(self._tracer_owner, lambda: self._attach_spans(pool)))
        if self._statements != "off":
            detaches.append(once(self._statements_owner, lambda: self._attach_statements(pool)))
        if instruments is not None:
            detaches.append(once(instruments, lambda: _attach_metrics(instruments, pool)))
        return together(detaches)

    def _attach_spans(self, pool: AnyPool) -> Detach:
        spans = PoolSpans(self._tracer, pool, self._spans, self._new_limit())
        return together(spans.subscribe(pool, checkouts=self._checkout_spans))

    def _attach_statements(self, pool: AnyPool) -> Detach:
        return together(StatementSpans(self._tracer, pool.name).subscribe(pool, self._statements))


# By tracer provider, the object that stands for its spans of statements.
_owners: weakref.WeakKeyDictionary[TracerProvider | None, object] = weakref.WeakKeyDictionary()


def _check_mode(argument: str, mode: object, modes: tuple[str, ...]) -> None:
    if mode not in modes:
        raise ValueError(f"{argument} must be one of {', '.join(map(repr, modes))}, not {mode!r}")


def _check_limit(most: object) -> None:
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise ValueError(f"slow_spans_per_second must be a whole number, at least 1, or None, not {most!r}")


# -- metrics

# A context without a span. Not an empty one: OpenTelemetry would replace it by the current context of the collection.
_NO_TRACE = trace.set_span_in_context(trace.INVALID_SPAN, Context())
# By metric, its points: the name of the pool, the values of the attributes, the number.
Snapshot = dict[Metric, list[tuple[str, Values, float]]]


class _Instruments:
    """The instruments of one meter provider, for all pools that feed them."""

    def __init__(self, meter: Meter, settings: MetricSettings) -> None:
        self.settings, summaries = settings, settings.statement_summaries
        new = partial(DeferredCounts, record=self.record_deferred, statement_summaries=summaries)
        names = PoolNames()  # the SDK keeps each series of its histograms
        self.counts = Counts[DeferredCounts](new, reads_statements=summaries > 0, names=names)
        self._collection = threading.local()
        for metric in (*_metrics.LEVELS, *_metrics.COUNTERS):
            create = {
                "gauge": meter.create_observable_gauge,
                "time": meter.create_observable_gauge,
                "level": meter.create_observable_up_down_counter,
                "counter": meter.create_observable_counter,
            }[metric.kind]
            create(metric.name, [self._observer(metric)], metric.unit, metric.description)
        self._histograms = {metric: _histogram(meter, metric, bounds) for metric, bounds in settings.buckets.items()}

    def record(self, metric: Metric, seconds: float, pool: str, *values: str, context: Context | None = None) -> None:
        """Record one duration, in the current context if none is given."""
        self._histograms[metric].record(seconds, _attributes(metric, pool, values), context)

    def record_deferred(self, metric: Metric, pool: str, values: Values, durations: Iterable[float]) -> None:
        """Record durations without a trace: that of the collection is not theirs."""
        histogram, attributes = self._histograms[metric], _attributes(metric, pool, values)
        for seconds in durations:
            histogram.record(seconds, attributes, _NO_TRACE)

    def _observer(self, metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterator[Observation]:
            for pool, values, number in self._points(metric, options):
                yield Observation(number, _attributes(metric, pool, values))

        return observe

    def _points(self, metric: Metric, options: CallbackOptions) -> list[tuple[str, Values, float]]:
        """Take the points of one metric from the snapshot of this collection.

        A collection calls each callback once, one after the other in one thread. So the thread keeps the snapshot, each
        callback takes its own part out, and one that finds its part missing begins a new collection. That holds for any
        number of readers and threads, also after a collection that was broken off.
        """
        found: list[tuple[str, Values, float]] | None
        found = getattr(self._collection, "snapshot", Snapshot()).pop(metric, None)
        if found is None:
            self._collection.snapshot = snapshot = self._take_snapshot(options)
            found = snapshot.pop(metric)
        return found

    def _take_snapshot(self, options: CallbackOptions) -> Snapshot:
        # Before the SDK reads the histograms, which it does after all callbacks; in half of the time that it allows.
        with self.counts.reading() as every:
            pass
        record_deferred(every, options.timeout_millis / 2000)
        snapshot: Snapshot = {metric: [] for metric in (*_metrics.LEVELS, *_metrics.COUNTERS)}
        for (metric, pool, values), number in {**self.counts.levels(), **self.counts.counters()}.items():
            snapshot[metric].append((pool, values, number))
        return snapshot


def _histogram(meter: Meter, metric: Metric, bounds: Bounds) -> Histogram:
    return meter.create_histogram(
        metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=bounds
    )


def _attributes(metric: Metric, pool: str, values: Values) -> dict[str, str]:
    shown = zip((*metric.attributes, *metric.extra), values, strict=True)
    return {names.POOL: pool, **metric.fixed, **{attribute: value for attribute, value in shown if value}}


# One set of instruments per provider, for any number of subscribers: asked for the same observable instrument again, a
# provider drops the new callback.
_shared: weakref.WeakKeyDictionary[MeterProvider, _Instruments] = weakref.WeakKeyDictionary()
# The instruments of the global provider: later it may be another object, and is the same provider all the same.
_global: list[_Instruments] = []


def _instruments_of(provider: MeterProvider | None, settings: MetricSettings) -> _Instruments:
    global_provider = metrics.get_meter_provider()
    is_global = provider is None or provider is global_provider
    # A provider that was given as an argument may have become the global one since.
    found = _shared.get(provider or global_provider)
    if found is None and is_global:
        found = next(iter(_global), None)
    if found is None:
        found = _Instruments(metrics.get_meter(names.SCOPE, __version__, provider, names.SCHEMA_URL), settings)
        if is_global:
            _global.append(found)
        else:
            assert provider is not None
            _shared[provider] = found
    found.settings.check_same(settings, "meter provider")
    return found


def _attach_metrics(instruments: _Instruments, pool: AnyPool) -> Detach:
    counts, detaches = instruments.counts.attach(pool)
    metrics = PoolMetrics(counts, instruments.record, instruments.settings)
    return together([*metrics.subscribe(pool), *detaches])
