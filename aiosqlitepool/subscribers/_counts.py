"""What the pools of one process did, as plain numbers. Knows no metrics library.

Counters are increased by events; levels are read from the pools when they are needed. Counts are kept per attached
pool, where one thread writes at a time, and summed by pool name when they are read, in any thread.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from aiosqlitepool import PoolStats, SQLiteConnectionPool
from aiosqlitepool.events import (
    AcquireCancelled,
    AcquireFailed,
    AcquireRejected,
    AcquireTimedOut,
    BusyRetried,
    CheckpointBlocked,
    Checkpointed,
    ConnectionClosed,
    ConnectionCreateFailed,
    HealthCheckFailed,
    PoolEvent,
    PoolTimings,
    RolledBackOnReturn,
)

from ._common import Detach, renew_after_fork
from ._metrics import (
    ACQUIRES,
    BUSY_RETRIES,
    CHECKPOINTS,
    CLOSED,
    COUNT,
    COUNTERS,
    CREATE_FAILURES,
    HEALTH_FAILURES,
    IDLE_MAX,
    IDLE_MIN,
    MAX,
    OLDEST_CHECKOUT,
    OLDEST_WAITER,
    PENDING_REQUESTS,
    ROLLBACKS,
    SUBSCRIBER_ERRORS,
    TIMEOUTS,
    WAL_SIZE,
    Metric,
    error_type,
)

__all__ = ["Counts", "PoolCounts", "Series", "count_events", "fail_events", "levels", "open_pools"]

AnyPool = SQLiteConnectionPool[Any]
# A metric, the name of a pool, and the value of the metric's attribute ("" if it has none).
Series = tuple[Metric, str, str]
Handlers = Iterator[tuple[type[PoolEvent], Callable[[Any], None]]]
P = TypeVar("P", bound="PoolCounts")


class PoolCounts:
    """The counts of one attached pool. Written in the pool's thread, and by the thread that delivers a batch."""

    __slots__ = ("_bus", "_errors_before", "_pool", "counts", "errors", "name")

    def __init__(self, name: str, pool: AnyPool | None = None) -> None:
        self.name = name
        # Weak, so that a forgotten pool is still collected, with its own warning. Its bus counts until then.
        self._pool = None if pool is None else weakref.ref(pool)
        self._bus = None if pool is None else pool.events
        # Exceptions of handlers before the pool was attached, and since.
        self._errors_before = 0 if self._bus is None else self._bus.errors
        self.errors = 0
        # Every known value starts at 0, or Prometheus' increase() would miss the first event.
        role = None if pool is None else pool.stats().role
        self.counts: dict[tuple[Metric, str], int] = {
            (metric, value): 0
            for metric in COUNTERS
            if role is not None or not metric.database
            for value in _first_values(metric)
        }

    @property
    def pool(self) -> AnyPool | None:
        """The pool, while it exists."""
        return None if self._pool is None else self._pool()

    @property
    def finished(self) -> bool:
        """Whether the pool no longer exists and no more events will come."""
        return self.pool is None and (self._bus is None or self._bus.ended)

    def count(self, metric: Metric, value: str = "") -> None:
        """Add one to a counter."""
        self.counts[metric, value] = self.counts.get((metric, value), 0) + 1

    def count_acquires(self, timings: PoolTimings) -> None:
        """Count the acquires of a batch."""
        self.counts[ACQUIRES, "idle"] += timings.immediate
        for path, waits in timings.waits.items():
            self.counts[ACQUIRES, path] += len(waits)
        for slow in timings.slow:
            self.counts[ACQUIRES, slow.path] += 1

    def flush(self) -> None:
        """Have the pending timings delivered. Safe in any thread that holds no lock."""
        if (bus := self._bus) is not None:
            bus.flush_timings()

    def read_errors(self) -> None:
        """Read how many exceptions handlers have raised since the pool was attached. Safe in any thread."""
        if (bus := self._bus) is not None:
            self.errors = bus.errors - self._errors_before

    def close(self) -> None:
        """Read the errors a last time, and release the bus."""
        self.read_errors()
        self._bus = None

    def totals(self) -> dict[tuple[Metric, str], int]:
        """Return a copy of all counts. Safe in any thread."""
        totals = self.counts.copy()
        totals[SUBSCRIBER_ERRORS, ""] += self.errors
        return totals

    def add(self, other: PoolCounts) -> None:
        """Add the counts of `other`, which no thread writes any more."""
        for key, value in other.totals().items():
            self.counts[key] = self.counts.get(key, 0) + value


def _first_values(metric: Metric) -> tuple[str, ...]:
    return metric.known if metric.attribute is not None else ("",)


def count_events(count: Callable[..., None]) -> Handlers:
    """Yield each event type that increases a counter, and a handler that calls `count(metric, value)`."""
    yield AcquireTimedOut, lambda event: count(TIMEOUTS)
    yield ConnectionClosed, lambda event: count(CLOSED, event.reason)
    yield ConnectionCreateFailed, lambda event: count(CREATE_FAILURES, event.error.type)
    yield HealthCheckFailed, lambda event: count(HEALTH_FAILURES)
    yield RolledBackOnReturn, lambda event: count(ROLLBACKS, event.cause)
    yield BusyRetried, lambda event: count(BUSY_RETRIES, event.kind)
    yield Checkpointed, lambda event: count(CHECKPOINTS, event.result)
    yield CheckpointBlocked, lambda event: count(CHECKPOINTS, "blocked")


def fail_events(fail: Callable[[Any, str], None]) -> Handlers:
    """Yield each event type of a failed acquire, and a handler that calls `fail(event, error_type)`."""
    yield AcquireTimedOut, lambda event: fail(event, "timeout")
    yield AcquireCancelled, lambda event: fail(event, "cancelled")
    yield AcquireRejected, lambda event: fail(event, "rejected")
    yield AcquireFailed, lambda event: fail(event, error_type(event.error))


def open_pools(pools: Iterable[AnyPool | None]) -> Iterator[PoolStats]:
    """Yield a snapshot of each pool that is not closed; of a pool that occurs twice, one."""
    for pool in {id(pool): pool for pool in pools if pool is not None}.values():
        stats = pool.stats()
        if stats.state not in ("closed", "forked"):
            yield stats


def levels(pools: Iterable[PoolStats]) -> dict[Series, float]:
    """Return the levels of these pools by name. Pools of one name are summed; of ages and WAL sizes, the maximum."""
    found: dict[Series, float] = {}
    for stats in pools:
        for metric, value, number in (
            (COUNT, "idle", stats.idle),
            (COUNT, "used", stats.used),
            (MAX, "", stats.max_size),
            (IDLE_MAX, "", stats.max_size),
            (IDLE_MIN, "", stats.min_size),
            (PENDING_REQUESTS, "", stats.waiting),
        ):
            found[metric, stats.pool, value] = found.get((metric, stats.pool, value), 0) + number
        for metric, most in (
            (OLDEST_WAITER, stats.oldest_waiter),
            (OLDEST_CHECKOUT, stats.oldest_checkout),
            (WAL_SIZE, stats.wal_bytes),
        ):
            if most is not None:
                found[metric, stats.pool, ""] = max(found.get((metric, stats.pool, ""), 0.0), most)
    return found


class Counts(Generic[P]):
    """The counts of all pools that feed the same metrics."""

    def __init__(self, new_counts: Callable[[str, AnyPool | None], P]) -> None:
        self._new_counts = new_counts
        self.renew_lock()
        renew_after_fork(self)
        self._attached: dict[int, P] = {}
        # By pool name, the sums of pools that were detached or no longer exist: a counter must never decrease.
        self._past: dict[str, P] = {}

    def renew_lock(self) -> None:
        """Replace the lock."""
        # Guards both dicts. Reentrant: the garbage collector may detach a pool at any allocation.
        self._lock = threading.RLock()

    def attach(self, pool: AnyPool) -> tuple[P, list[Detach]]:
        """Count the events of `pool` from now on. Returns its counts, and the functions that end the counting."""
        counts = self._new_counts(pool.name, pool)
        with self._lock:
            self._attached[id(counts)] = counts
        subscribe = pool.events.subscribe
        detaches = [subscribe(event_type, handler) for event_type, handler in count_events(counts.count)]
        return counts, [*detaches, lambda: self._detach(counts)]

    def _detach(self, counts: P) -> None:
        with self._lock:
            if self._attached.pop(id(counts), None) is None:
                return
            counts.close()
            past = self._past.get(counts.name)
            if past is None:
                past = self._past[counts.name] = self._new_counts(counts.name, None)
            past.add(counts)

    @contextmanager
    def reading(self) -> Iterator[tuple[P, ...]]:
        """Yield all counts, brought up to date; none is detached inside the block. Safe in any thread."""
        with self._lock:
            attached = tuple(self._attached.values())
        # Without the lock: a handler of the timings may read the counts as well.
        for counts in attached:
            counts.flush()
        with self._lock:
            for counts in tuple(self._attached.values()):
                counts.read_errors()
                if counts.finished:
                    self._detach(counts)
            yield (*self._past.values(), *self._attached.values())

    def counters(self) -> dict[Series, int]:
        """Return every counter by pool name. Safe in any thread."""
        sums: dict[Series, int] = {}
        with self.reading() as every:
            for counts in every:
                for (metric, value), number in counts.totals().items():
                    sums[metric, counts.name, value] = sums.get((metric, counts.name, value), 0) + number
        return sums

    def levels(self) -> dict[Series, float]:
        """Return every level of the pools that are not closed, by pool name. Safe in any thread."""
        with self._lock:
            pools = [counts.pool for counts in self._attached.values()]
        return levels(open_pools(pools))
