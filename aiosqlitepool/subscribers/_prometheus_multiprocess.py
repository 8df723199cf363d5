"""The Prometheus metrics of several processes: counters, histograms and gauges of prometheus_client.

prometheus_client's multiprocess mode has no collectors: a scrape, in any process, reads files that all processes write.
Events are written when they happen; levels and pending timings once a second.
"""

from __future__ import annotations

import os
import threading
from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any

from prometheus_client import Counter, Gauge
from prometheus_client.core import Metric as Family

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.events import (
    ConnectionCreated,
    PoolTimings,
    StatementTimings,
    TransactionEnded,
)

from ._common import Detach, together
from ._file_histogram import FileHistogram, FileHistograms
from ._handlers import count_events, fail_events, uses_by_label
from ._level_updater import LevelUpdater
from ._levels import Series
from ._limits import PoolLimits
from ._loop_lag import PoolLag
from ._metrics import (
    ACQUIRES,
    COUNTERS,
    CREATE_TIME,
    HISTOGRAMS,
    LEVELS,
    OPERATION_DURATION,
    STATEMENT_TIME,
    SUBSCRIBER_ERRORS,
    TRANSACTION_TIME,
    TRANSACTION_WAIT,
    USE_TIME,
    WAIT_TIME,
    Metric,
)
from ._pool_names import PoolNames
from ._settings import MetricSettings

__all__ = ["MultiprocessBackend"]

AnyPool = SQLiteConnectionPool[Any]

# Held while values are written, and while the process forks. prometheus_client has a lock for each metric and one for
# all values: if a worker thread held one at the fork, nothing in the child would ever release it. Reentrant: the
# garbage collector may collect a pool, whose last events are written.
_writing = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_writing.acquire, after_in_parent=_writing.release, after_in_child=_writing.release)


class MultiprocessBackend:
    """The metrics of one registry in prometheus_client's multiprocess mode."""

    def __init__(self, settings: MetricSettings) -> None:
        self.settings = settings
        self._names = PoolNames()
        # By the name of a pool in metrics, as its series: those last as long as the process.
        self._limits: defaultdict[str, PoolLimits] = defaultdict(partial(PoolLimits, settings.statement_summaries))
        # Registered as one collector: if the registry has one of the names already, none is registered.
        self._counters = {m: Counter(m.family, m.description, m.labels, registry=None) for m in COUNTERS}
        self._gauges = {m: _gauge(m) for m in LEVELS}
        self._histograms = {m: FileHistograms(m, bounds) for m, bounds in settings.buckets.items()}
        self._updater = LevelUpdater(self._set_levels, self._count_errors)

    def describe(self) -> Iterator[Family]:
        """Yield every family, without samples."""
        for metric in self._all():
            yield from metric.describe()

    def collect(self) -> Iterator[Family]:
        """Yield every family with the samples of this process."""
        for metric in self._all():
            yield from metric.collect()

    def _all(self) -> tuple[Counter | Gauge | FileHistograms, ...]:
        return (*self._counters.values(), *self._gauges.values(), *self._histograms.values())

    def refresh(self) -> None:
        """Write the current levels and pending timings of this process."""
        self._updater.update()

    def attach(self, pool: AnyPool, exemplars: bool) -> Detach:
        """Count the events of `pool`. This mode of prometheus_client has no exemplars."""
        name = self._names.shown(pool)
        shown = [each for each in (*COUNTERS, *HISTOGRAMS) if pool.stats().role is not None or not each.database]
        for metric in shown:
            for values in metric.first_values():
                (self._counter if metric.kind == "counter" else self._histogram)(metric, name, *values)
        detaches = [pool.events.subscribe(kind, _writes(handler)) for kind, handler in self._handlers(name)]
        lag = PoolLag()
        detaches += [self._updater.add(pool, name, lag), *lag.watch(pool)]
        return together(detaches)

    def _counter(self, metric: Metric, pool: str, *values: str) -> Counter:
        return self._counters[metric].labels(pool, *values, *metric.fixed.values())

    def _gauge(self, metric: Metric, pool: str, *values: str) -> Gauge:
        return self._gauges[metric].labels(pool, *values, *metric.fixed.values())

    def _histogram(self, metric: Metric, pool: str, *values: str) -> FileHistogram:
        return self._histograms[metric].labels(pool, *values, *metric.fixed.values())

    def _handlers(self, pool: str) -> Iterator[tuple[Any, Callable[[Any], None]]]:
        def count(metric: Metric, *values: str, number: int = 1) -> None:
            self._counter(metric, pool, *values).inc(number)

        def note(metric: Metric, *values: str, number: float) -> None:
            self._gauge(metric, pool, *values).set(number)

        def fail(event: Any, error_type: str) -> None:
            self._histogram(WAIT_TIME, pool, self._limits[pool].error(error_type)).observe(event.wait_time)

        created = self._histogram(CREATE_TIME, pool).observe

        def ended(event: TransactionEnded) -> None:
            self._histogram(TRANSACTION_TIME, pool, event.outcome).observe(event.duration)
            self._histogram(TRANSACTION_WAIT, pool).observe(event.wait_time)

        yield ConnectionCreated, lambda event: created(event.create_time)
        yield TransactionEnded, ended
        yield from fail_events(fail)
        yield from count_events(count, note, self._limits[pool])
        yield PoolTimings, self._add_timings(pool)
        yield from self._uses(pool)
        yield StatementTimings, self._add_statements(pool)

    def _add_timings(self, pool: str) -> Callable[[PoolTimings], None]:
        acquired = {path: self._counter(ACQUIRES, pool, path).inc for path in ACQUIRES.known}
        waited = self._histogram(WAIT_TIME, pool, "")

        def add_timings(timings: PoolTimings) -> None:
            acquired["idle"](timings.immediate)
            for path, waits in timings.waits.items():
                acquired[path](len(waits))
            for path, number in Counts(each.path for each in timings.slow).items():
                acquired[path](number)
            slow = (each.wait_time for each in timings.slow)
            waited.observe_all(chain(slow, *timings.waits.values()), zeros=timings.immediate)

        return add_timings

    def _uses(self, pool: str) -> Iterator[tuple[Any, Callable[[Any], None]]]:
        uses, label = partial(self._histogram, USE_TIME, pool), self._limits[pool].label
        if not self.settings.by_label:
            used = uses("").observe_all
            yield PoolTimings, lambda timings: used(timings.uses)
        else:
            yield from uses_by_label(lambda found, many: uses(label(found)).observe_all(many))

    def _add_statements(self, pool: str) -> Callable[[StatementTimings], None]:
        durations, times = (
            partial(self._histogram, OPERATION_DURATION, pool),
            partial(self._counter, STATEMENT_TIME, pool),
        )
        summary = self._limits[pool].summary

        def add_statements(timings: StatementTimings) -> None:
            for kind, runs in timings.executed():
                durations(kind.operation, self._limits[pool].error(kind.error)).observe_all(runs)
                if self.settings.statement_summaries:
                    times(summary(kind.summary)).inc(sum(runs))

        return add_statements

    def _set_levels(self, series: dict[Series, float]) -> None:
        with _writing:
            for (metric, pool, values), number in series.items():
                self._gauge(metric, pool, *values).set(number)

    def _count_errors(self, pool: str, more: int) -> None:
        with _writing:
            self._counter(SUBSCRIBER_ERRORS, pool).inc(more)


def _writes(handler: Callable[[Any], None]) -> Callable[[Any], None]:
    def handle(event: Any) -> None:
        with _writing:
            handler(event)

    return handle


def _gauge(metric: Metric) -> Gauge:
    # Levels of live processes are summed, ages are not. Of processes that have ended, only times count.
    mode = {"level": "livesum", "gauge": "livemax", "time": "max"}[metric.kind]
    return Gauge(metric.family, metric.description, metric.labels, registry=None, multiprocess_mode=mode)  # type: ignore[arg-type]
