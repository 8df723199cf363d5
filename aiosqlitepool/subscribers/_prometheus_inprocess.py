"""The Prometheus metrics of one process, as a collector.

An event costs an addition. A scrape, in any thread, reads the levels of the pools and sums what each pool has counted.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import accumulate, chain, repeat, starmap
from typing import Any

from prometheus_client.core import Metric as Family
from prometheus_client.samples import Exemplar, Sample

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.events import (
    ConnectionCreated,
    PoolTimings,
    StatementTimings,
    TransactionEnded,
)

from ._buckets import Bounds, by_bucket, exemplars_of
from ._common import Detach, current_trace, together
from ._counts import Counts, PoolCounts, bounded
from ._handlers import Handlers, fail_events, uses_by_label
from ._levels import Series
from ._metrics import (
    COUNTERS,
    CREATE_TIME,
    LEVELS,
    METRICS,
    OPERATION_DURATION,
    TRANSACTION_TIME,
    TRANSACTION_WAIT,
    USE_TIME,
    WAIT_TIME,
    Metric,
    Values,
)
from ._settings import MetricSettings

__all__ = ["InProcessBackend"]

AnyPool = SQLiteConnectionPool[Any]


class _Histogram:
    """Observations counted by bucket. One thread at a time observes, any thread may read."""

    __slots__ = ("bounds", "counts", "exemplars", "labels", "sum")

    def __init__(self, bounds: Bounds, labels: Sequence[dict[str, str]] = ()) -> None:
        self.bounds = bounds
        # Those of its buckets, and last those of its sum: made once, and not in each scrape.
        self.labels = labels
        self.counts = [0] * (len(bounds) + 1)
        self.exemplars: dict[int, Exemplar] = {}
        self.sum = 0.0

    def observe(self, seconds: float, trace: dict[str, str] | None = None) -> None:
        """Count one observation. With a trace, it becomes the exemplar of its bucket."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds
        if trace is not None:
            self.show(seconds, trace)

    def show(self, seconds: float, trace: dict[str, str]) -> None:
        """Make an observation that is counted already the exemplar of its bucket."""
        self.exemplars[bisect_left(self.bounds, seconds)] = Exemplar(trace, seconds, time.time())

    def observe_all(self, many: Iterable[float], zeros: int = 0) -> None:
        """Count these observations, and `zeros` observations of 0 seconds."""
        ordered = sorted(many)
        for bucket, number in by_bucket(self.bounds, ordered, zeros):
            self.counts[bucket] += number
        self.sum = sum(ordered, self.sum)

    def take(self, other: _Histogram) -> None:
        """Add the observations of another histogram of these bounds, and leave none there."""
        for bucket, number in enumerate(other.counts):
            self.counts[bucket] += number
            other.counts[bucket] -= number
        self.exemplars.update(other.exemplars)
        self.sum += other.sum
        other.sum = 0.0

    def copy(self) -> _Histogram:
        """Return a copy. Safe in any thread."""
        copy = _Histogram(self.bounds, self.labels)
        copy.counts, copy.exemplars, copy.sum = self.counts.copy(), self.exemplars.copy(), self.sum
        return copy


class _PoolCounts(PoolCounts):
    """The counts and histograms of one pool."""

    __slots__ = ("buckets", "histograms")

    def __init__(self, name: str, buckets: dict[Metric, Bounds], statement_summaries: int) -> None:
        super().__init__(name, statement_summaries)
        self.buckets = buckets
        # Each is written by one thread at a time: those of batches by the thread that delivers one.
        self.histograms: dict[tuple[Metric, Values], _Histogram] = {}

    def watch(self, pool: AnyPool, token: object, lost: Callable[[object], None]) -> None:
        """Count and observe what happens in `pool` from now on."""
        super().watch(pool, token, lost)
        is_database = pool.stats().role is not None
        for metric in self.buckets:
            for values in metric.first_values() if is_database or not metric.database else ():
                self.histogram(metric, *values)

    def histogram(self, metric: Metric, *values: str) -> _Histogram:
        """Return the histogram of this metric and these values of its attributes."""
        if (metric, values) not in self.histograms:
            labels, bounds = _labels(metric, self.shown, values), self.buckets[metric]
            every = [*({**labels, "le": bound} for bound in (*map(str, bounds), "+Inf")), labels]
            self.histograms[metric, values] = _Histogram(bounds, every)
        return self.histograms[metric, values]

    def move_to(self, target: PoolCounts) -> None:
        """Move all numbers and histograms to those of another name. What is observed later stays here."""
        super().move_to(target)
        assert isinstance(target, _PoolCounts)
        for (metric, values), histogram in self.histograms.items():
            target.histogram(metric, *bounded(target.histograms, metric, values)).take(histogram)


class InProcessBackend:
    """A collector for the pools of this process."""

    def __init__(self, settings: MetricSettings) -> None:
        self.settings = settings
        buckets, summaries = settings.buckets, settings.statement_summaries
        self._counts: Counts[_PoolCounts] = Counts(
            lambda name: _PoolCounts(name, buckets, summaries), reads_statements=summaries > 0
        )

    def refresh(self) -> None:
        """Do nothing: a scrape reads the levels."""

    def attach(self, pool: AnyPool, exemplars: bool) -> Detach:
        """Count the events of `pool`."""
        counts, detaches = self._counts.attach(pool)
        subscribe = pool.events.subscribe
        created = counts.histogram(CREATE_TIME)

        def fail(event: Any, error_type: str) -> None:
            trace = current_trace(sampled_only=True) if exemplars else None
            counts.histogram(WAIT_TIME, counts.limits.error(error_type)).observe(event.wait_time, trace)

        detaches = [
            subscribe(PoolTimings, partial(_add_timings, counts, exemplars)),
            subscribe(StatementTimings, partial(_add_statements, counts)),
            subscribe(ConnectionCreated, lambda event: created.observe(event.create_time)),
            subscribe(TransactionEnded, partial(_add_transaction, counts)),
            *(subscribe(event_type, handler) for event_type, handler in chain(self._uses(counts), fail_events(fail))),
            *detaches,
        ]
        return together(detaches)

    def _uses(self, counts: _PoolCounts) -> Handlers:
        if self.settings.by_label:
            yield from uses_by_label(partial(_add_uses_of, counts))
        else:
            yield PoolTimings, partial(_add_uses, counts)

    def describe(self) -> Iterator[Family]:
        """Yield the families of `collect()`, without samples."""
        for metric in METRICS:
            kind = "gauge" if metric in LEVELS else metric.kind
            yield Family(metric.family, metric.description, kind, metric.prometheus_unit)

    def collect(self) -> Iterator[Family]:
        """Yield the families with their current samples. Safe in any thread."""
        families = dict(zip(METRICS, self.describe(), strict=True))
        series: dict[Series, float] = {**self._counts.levels(), **self._counts.counters()}
        for (metric, pool, values), number in series.items():
            suffix = "_total" if metric in COUNTERS else ""
            families[metric].add_sample(metric.family + suffix, _labels(metric, pool, values), number)
        for (metric, _, _), histogram in self._histograms().items():
            _add_samples(families[metric], histogram)
        yield from families.values()

    def _histograms(self) -> dict[Series, _Histogram]:
        found: dict[Series, _Histogram] = {}
        with self._counts.reading() as every:
            for counts in every:
                for (metric, values), histogram in counts.histograms.copy().items():
                    copy, series = histogram.copy(), (metric, counts.shown, values)
                    if series in found:
                        found[series].take(copy)
                    else:
                        found[series] = copy
        return found


# Building these took a sixth of a scrape. No reader changes them.
@lru_cache(maxsize=8_192)
def _labels(metric: Metric, pool: str, values: Values) -> dict[str, str]:
    # To Prometheus, an empty label and no label are the same.
    every = (pool, *values, *metric.fixed.values())
    return {label: value for label, value in zip(metric.labels, every, strict=True) if value}


def _add_samples(family: Family, histogram: _Histogram) -> None:
    *of_buckets, labels = histogram.labels
    # Iterators throughout: most of a scrape is the making of these samples.
    below = tuple(accumulate(histogram.counts))
    exemplars = map(histogram.exemplars.get, range(len(below)))
    samples = zip(repeat(f"{family.name}_bucket"), of_buckets, below, repeat(None), exemplars)
    family.samples.extend(starmap(Sample, samples))
    family.samples.append(Sample(f"{family.name}_count", labels, below[-1]))
    family.samples.append(Sample(f"{family.name}_sum", labels, histogram.sum))


# -- handlers


def _add_timings(counts: _PoolCounts, exemplars: bool, timings: PoolTimings) -> None:
    counts.count_acquires(timings)
    waits, slow = counts.histogram(WAIT_TIME, ""), timings.slow
    others = chain.from_iterable(timings.waits.values())
    waits.observe_all(chain(others, (each.wait_time for each in slow)), zeros=timings.immediate)
    found = exemplars_of(waits.bounds, slow, partial(current_trace, sampled_only=True)) if exemplars else {}
    for place, trace in found.items():
        waits.show(slow[place].wait_time, trace)


def _add_uses(counts: _PoolCounts, timings: PoolTimings) -> None:
    counts.histogram(USE_TIME, "").observe_all(timings.uses)


def _add_uses_of(counts: _PoolCounts, label: str | None, uses: list[float]) -> None:
    counts.histogram(USE_TIME, counts.limits.label(label)).observe_all(uses)


def _add_statements(counts: _PoolCounts, timings: StatementTimings) -> None:
    for kind, runs in timings.executed():
        counts.histogram(OPERATION_DURATION, kind.operation, counts.limits.error(kind.error)).observe_all(runs)


def _add_transaction(counts: _PoolCounts, event: TransactionEnded) -> None:
    counts.histogram(TRANSACTION_TIME, event.outcome).observe(event.duration)
    counts.histogram(TRANSACTION_WAIT).observe(event.wait_time)
