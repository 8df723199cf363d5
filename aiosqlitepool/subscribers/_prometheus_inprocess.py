"""The Prometheus metrics of one process, as a collector of plain numbers.

Events cost additions, and a scrape, in whichever thread, costs the rest: it reads the levels of the pools and adds up
what each pool has counted.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

from prometheus_client.core import Metric as Family
from prometheus_client.samples import Exemplar

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.events import (
    AcquireCancelled,
    AcquireFailed,
    AcquireRejected,
    AcquireTimedOut,
    ConnectionAcquired,
    ConnectionCreated,
    TimesNoted,
    TransactionEnded,
)

from ._common import current_trace
from ._counts import Account, Ledger, Series
from ._detach import Detach, together
from ._metrics import (
    COUNTERS,
    CREATE_TIME,
    LEVELS,
    METRICS,
    TRANSACTION_TIME,
    TRANSACTION_WAIT,
    USE_TIME,
    WAIT_TIME,
    Buckets,
    Metric,
    error_type,
)

__all__ = ["InProcessBackend"]

AnyPool = SQLiteConnectionPool[Any]


class _Histogram:
    """Observations counted by bucket. One thread at a time observes, any thread may read."""

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.exemplars: dict[int, Exemplar] = {}
        self.sum = 0.0

    def observe(self, seconds: float, trace: dict[str, str] | None = None) -> None:
        """Count one observation, as the exemplar of its bucket if it has a trace."""
        self.observe_all((seconds,))
        if trace is not None:
            self.show(seconds, trace)

    def observe_all(self, many: Iterable[float], of_no_time: int = 0) -> None:
        """Count these observations, and so many of no time at all."""
        # Sorted first: a bucket is found once for all, in half the time.
        ordered, below = sorted(many), 0
        for bucket, bound in enumerate(self.bounds):
            if below == len(ordered):
                break
            up_to = bisect_right(ordered, bound, below)
            self.counts[bucket] += up_to - below
            below = up_to
        self.counts[-1] += len(ordered) - below
        self.counts[0] += of_no_time
        self.sum = sum(ordered, self.sum)

    def show(self, seconds: float, trace: dict[str, str]) -> None:
        """Let one that is or will be counted be the exemplar of its bucket."""
        self.exemplars[bisect_left(self.bounds, seconds)] = Exemplar(trace, seconds, time.time())

    def absorb(self, other: _Histogram) -> None:
        """Add another's observations."""
        counts, self.sum = other.counts.copy(), self.sum + other.sum
        self.counts = [mine + more for mine, more in zip(self.counts, counts, strict=True)]
        self.exemplars.update(other.exemplars.copy())


class _PoolAccount(Account):
    """The counts and durations of one pool."""

    __slots__ = ("buckets", "histograms")

    def __init__(self, name: str, pool: AnyPool | None, buckets: Buckets) -> None:
        super().__init__(name, pool)
        self.buckets = buckets
        # By metric and `error.type`, which is "" unless an acquire failed.
        role = None if pool is None else pool.stats().role
        self.histograms = {
            (metric, value): _Histogram(bounds)
            for metric, bounds in buckets.items()
            if role is not None or not metric.database
            for value in metric.known or ("",)
        }

    def histogram(self, metric: Metric, value: str) -> _Histogram:
        """The histogram of this metric and `error.type`."""
        if (metric, value) not in self.histograms:
            self.histograms[metric, value] = _Histogram(self.buckets[metric])
        return self.histograms[metric, value]

    def absorb(self, other: Account) -> None:
        """Add another's counts and durations, which are no longer written."""
        super().absorb(other)
        assert isinstance(other, _PoolAccount)
        for (metric, value), histogram in other.histograms.copy().items():
            self.histogram(metric, value).absorb(histogram)


class InProcessBackend:
    """A collector whose numbers live in this process, and whose levels are read when it collects."""

    def __init__(self, buckets: Buckets) -> None:
        self.buckets = buckets
        self._ledger: Ledger[_PoolAccount] = Ledger(lambda name, pool: _PoolAccount(name, pool, buckets))

    def refresh(self) -> None:
        """Nothing: a scrape reads the levels."""

    def attach(self, pool: AnyPool, exemplars_from: float | None) -> Detach:
        """Count what this pool does."""
        account, detaches = self._ledger.open(pool)
        subscribe = pool.events.subscribe
        created = account.histogram(CREATE_TIME, "")
        detaches = [
            subscribe(TimesNoted, partial(_noted, account)),
            subscribe(ConnectionCreated, lambda event: created.observe(event.create_time)),
            subscribe(TransactionEnded, partial(_ended, account)),
            *_subscribe_failures(pool, account, exemplars_from),
            *_subscribe_exemplars(pool, account, exemplars_from),
            *detaches,
        ]
        return together(detaches)

    def describe(self) -> Iterator[Family]:
        """The families that `collect` returns, without samples."""
        for metric in METRICS:
            kind = "gauge" if metric in LEVELS else metric.kind
            yield Family(metric.family, metric.description, kind, metric.prometheus_unit)

    def collect(self) -> Iterator[Family]:
        """The families at this moment, in any thread."""
        families = dict(zip(METRICS, self.describe(), strict=True))
        series: dict[Series, float] = {**self._ledger.levels(), **self._ledger.counters()}
        for (metric, pool, value), number in series.items():
            suffix = "_total" if metric in COUNTERS else ""
            families[metric].add_sample(metric.family + suffix, _labels(metric, pool, value), number)
        for (metric, pool, value), histogram in self._histograms().items():
            _add_histogram(families[metric], _labels(metric, pool, value), histogram)
        yield from families.values()

    def _histograms(self) -> dict[Series, _Histogram]:
        sums: dict[str, _PoolAccount] = {}
        with self._ledger.reading() as accounts:
            for account in accounts:
                if account.name not in sums:
                    sums[account.name] = _PoolAccount(account.name, None, self.buckets)
                sums[account.name].absorb(account)
        return {
            (metric, name, value): histogram
            for name, total in sums.items()
            for (metric, value), histogram in total.histograms.items()
        }


def _labels(metric: Metric, pool: str, value: str) -> dict[str, str]:
    # An empty label is no label.
    return dict(zip(metric.labels, (pool, value) if value else (pool,), strict=False))


def _add_histogram(family: Family, labels: dict[str, str], histogram: _Histogram) -> None:
    below = 0
    for bucket, bound in enumerate((*histogram.bounds, "+Inf")):
        below += histogram.counts[bucket]
        exemplar = histogram.exemplars.get(bucket)
        family.add_sample(f"{family.name}_bucket", {**labels, "le": str(bound)}, below, exemplar=exemplar)
    family.add_sample(f"{family.name}_count", labels, below)
    family.add_sample(f"{family.name}_sum", labels, histogram.sum)


# -- handlers


def _noted(account: _PoolAccount, times: TimesNoted) -> None:
    account.note(times)
    waits, uses = account.histogram(WAIT_TIME, ""), account.histogram(USE_TIME, "")
    waits.observe_all(chain.from_iterable(times.waits.values()), of_no_time=times.at_once)
    uses.observe_all(times.uses)


def _subscribe_exemplars(pool: AnyPool, account: _PoolAccount, exemplars_from: float | None) -> Iterator[Detach]:
    if exemplars_from is None:
        return
    waits = account.histogram(WAIT_TIME, "")

    def acquired(event: ConnectionAcquired) -> None:
        trace = current_trace(sampled_only=True)
        if trace is not None and (event.path == "queued" or event.wait_time >= exemplars_from):
            waits.show(event.wait_time, trace)

    yield pool.events.subscribe(ConnectionAcquired, acquired, exact=True, at_least=exemplars_from, samples=True)


def _ended(account: _PoolAccount, event: TransactionEnded) -> None:
    account.histogram(TRANSACTION_TIME, event.outcome).observe(event.duration)
    account.histogram(TRANSACTION_WAIT, "").observe(event.wait_time)


def _subscribe_failures(pool: AnyPool, account: _PoolAccount, exemplars_from: float | None) -> Iterator[Detach]:
    def observe(event: Any, kind: str) -> None:
        trace = None if exemplars_from is None else current_trace(sampled_only=True)
        account.histogram(WAIT_TIME, kind).observe(event.wait_time, trace)

    subscribe = pool.events.subscribe
    yield subscribe(AcquireTimedOut, lambda event: observe(event, "timeout"))
    yield subscribe(AcquireCancelled, lambda event: observe(event, "cancelled"))
    yield subscribe(AcquireRejected, lambda event: observe(event, "rejected"))
    yield subscribe(AcquireFailed, lambda event: observe(event, error_type(event.error)))
