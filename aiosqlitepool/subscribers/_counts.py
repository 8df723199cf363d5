"""What the pools of one process did, as plain numbers. Knows no metrics library.

Counters are increased by events; levels are read from the pools when they are needed. Counts are kept by the name of
the pool. No two pools have one name at a time, so that one thread writes at a time; any thread may read.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

from aiosqlitepool.events import PoolClosed, PoolTimings

from ._common import Detach, renew_after_fork
from ._handlers import count_events
from ._levels import AnyPool, Series, lags, levels, open_pools
from ._limits import PoolLimits
from ._loop_lag import PoolLag
from ._metrics import ACQUIRES, COUNTERS, STATEMENT_TIME, SUBSCRIBER_ERRORS, Metric, Values
from ._pool_names import MOST_PAST, OTHER_POOLS, UNNAMED, PoolNames
from ._statement_times import StatementTimes

__all__ = ["Counts", "PoolCounts", "bounded"]

P = TypeVar("P", bound="PoolCounts")


# How many names of closed pools have series of their own, of the pools that closed last; a name takes about 6 kB. A
# program may open and close a database for each of its tenants, and no scrape may ever come.
_MOST_CLOSED = MOST_PAST
# Series of one metric, of counts that were moved from pools of other names.
_MOST_MOVED = 100


class PoolCounts:
    """The counts of one pool, and of those that had its name before: a counter continues.

    Written in the pool's thread, and by the thread that delivers a batch.
    """

    __slots__ = (
        "_bus",
        "_errors_before",
        "_pool",
        "counts",
        "errors",
        "lag",
        "limits",
        "name",
        "shown",
        "statement_times",
        "token",
    )

    def __init__(self, name: str, statement_summaries: int = 0) -> None:
        self.name = name
        # The name in metrics.
        self.shown = name
        self.limits = PoolLimits(statement_summaries)
        self.statement_times = StatementTimes(statement_summaries)
        self.lag = PoolLag()
        self._pool: weakref.ref[AnyPool] | None = None
        # The bus of the pool that is watched, and what tells this watch from earlier ones.
        self._bus: Any = None
        self.token: object = None
        # Exceptions of handlers: those to subtract from what the bus says, and those that count.
        self._errors_before = 0
        self.errors = 0
        self.counts: dict[tuple[Metric, Values], float] = {}

    def watch(self, pool: AnyPool, token: object, lost: Callable[[object], None]) -> None:
        """Count what happens in `pool` from now on. Call `lost` when it is collected."""
        # Weak, so that a forgotten pool is still collected, with its own warning.
        self._pool = weakref.ref(pool, lost)
        self._bus, self.token = pool.events, token
        self._errors_before = pool.events.errors - self.errors
        # Every known value starts at 0, or Prometheus' increase() would miss the first event.
        is_database = pool.stats().role is not None
        for metric in COUNTERS:
            for values in metric.first_values() if is_database or not metric.database else ():
                self.counts.setdefault((metric, values), 0)

    def release(self) -> None:
        """Read the errors a last time, and keep nothing of the pool. Its last events may still come."""
        self.read_errors()
        self.statement_times.end()
        self.lag.end()
        self._pool = self._bus = self.token = None

    def move_to(self, target: PoolCounts) -> None:
        """Move all numbers to those of another name. What is counted later stays here."""
        for (metric, values), number in tuple(self.counts.items()):
            del self.counts[metric, values]
            target.add(metric, values, number)
        target.errors += self.errors
        self.errors = 0
        self.statement_times.move_to(target.statement_times)

    def add(self, metric: Metric, values: Values, number: float) -> None:
        """Add a number of another pool; with `_OTHER` for its values if the metric has many series already."""
        values = bounded(self.counts, metric, values)
        before = self.counts.get((metric, values), 0)
        self.counts[metric, values] = max(before, number) if metric.kind == "time" else before + number

    @property
    def pool(self) -> AnyPool | None:
        """The pool, while it exists."""
        return None if self._pool is None else self._pool()

    @property
    def is_closed(self) -> bool:
        """Whether no pool is watched."""
        return self._bus is None

    def count(self, metric: Metric, *values: str, number: int = 1) -> None:
        """Add to a counter."""
        self.counts[metric, values] = self.counts.get((metric, values), 0) + number

    def note(self, metric: Metric, *values: str, number: float) -> None:
        """Replace a number."""
        self.counts[metric, values] = number

    def count_acquires(self, timings: PoolTimings) -> None:
        """Count the acquires of a batch."""
        self.count(ACQUIRES, "idle", number=timings.immediate)
        for path, waits in timings.waits.items():
            self.count(ACQUIRES, path, number=len(waits))
        for slow in timings.slow:
            self.count(ACQUIRES, slow.path)

    def flush(self) -> None:
        """Have the pending timings delivered. Safe in any thread that holds no lock."""
        if (bus := self._bus) is not None:
            bus.flush_timings()

    def read_errors(self) -> None:
        """Read how many exceptions handlers have raised since the pool was attached. Safe in any thread."""
        if (bus := self._bus) is not None:
            self.errors = bus.errors - self._errors_before

    def totals(self) -> dict[tuple[Metric, Values], float]:
        """Return a copy of all counts. Safe in any thread."""
        totals: dict[tuple[Metric, Values], float] = {**self.counts.copy(), (SUBSCRIBER_ERRORS, ()): self.errors}
        totals.update(((STATEMENT_TIME, (summary,)), seconds) for summary, seconds in self.statement_times.shown())
        return totals


def bounded(known: Mapping[tuple[Metric, Values], object], metric: Metric, values: Values) -> Values:
    """Return the values for a series that is moved: `_OTHER` for each if they would be one of too many."""
    if (metric, values) in known or sum(each is metric for each, _ in known) < _MOST_MOVED:
        return values
    return (OTHER_POOLS,) * len(values)


class Counts(Generic[P]):
    """The counts of all pools that feed the same metrics."""

    def __init__(
        self, new_counts: Callable[[str], P], *, reads_statements: bool = False, names: PoolNames | None = None
    ) -> None:
        self._new_counts = new_counts
        # Where a series, once shown, lasts as long as the process.
        self._names = names
        self._reads_statements = reads_statements
        self.renew_lock()
        renew_after_fork(self)
        # By name; those of pools that closed last are at the end.
        self._by_name: dict[str, P] = {}
        # By name in metrics, what is left of closed pools that have no series of their own.
        self._moved: dict[str, P] = {}

    def renew_lock(self) -> None:
        """Replace the lock."""
        # Guards the dict. Reentrant: the garbage collector may collect a pool at any allocation.
        self._lock = threading.RLock()
        # Held by the thread that reads tables of statements.
        self._reading = threading.Lock()

    def attach(self, pool: AnyPool) -> tuple[P, list[Detach]]:
        """Count the events of `pool` from now on. Returns its counts, and the functions that end the counting."""
        bus, name = pool.events, pool.name
        with self._lock:
            counts = self._by_name.get(name)
            if counts is None:
                counts = self._by_name[name] = self._new_counts(name)
                counts.shown = shown = self._names.shown(pool) if self._names else name if pool.is_named else UNNAMED
                if shown != name:
                    # Values beyond the limits are those of all pools that share the series.
                    counts.limits = self._moved_to(shown).limits
            release = partial(self._release, counts, token := object())
            counts.watch(pool, token, release)
        handlers = count_events(counts.count, counts.note, counts.limits)
        detaches = [bus.subscribe(event_type, handler) for event_type, handler in handlers]
        # Whether or not a scrape comes: nothing is kept of a closed pool but its counts.
        detaches.append(bus.subscribe(PoolClosed, release))
        return counts, [*detaches, *counts.lag.watch(pool), release]

    def _read_statements(self, every: Iterable[P]) -> None:
        # Never waits: reading a table delivers timings, and their handlers may do whatever waits for this thread.
        if self._reads_statements and self._reading.acquire(blocking=False):
            try:
                for counts in every:
                    if (pool := counts.pool) is not None:
                        counts.statement_times.read(pool.statements())
            finally:
                self._reading.release()

    def _release(self, counts: P, token: object, _: object = None) -> None:
        self._read_statements((counts,))
        with self._lock:
            if counts.token is not token:
                return
            counts.release()
            has_series = counts.shown == counts.name
            if not has_series:
                # At once, so that no scrape adds them up. Its last events may still come, so that it stays for a while.
                counts.move_to(self._moved_to(counts.shown))
            self._by_name[counts.name] = self._by_name.pop(counts.name)
            like = [each for each in self._by_name.values() if (each.shown == each.name) == has_series]
            closed = [each for each in like if each.is_closed]
            for each in closed[: max(0, len(closed) - _MOST_CLOSED)]:
                each.move_to(self._moved_to(OTHER_POOLS if has_series else each.shown))
                del self._by_name[each.name]

    def _moved_to(self, shown: str) -> P:
        if shown not in self._moved:
            self._moved[shown] = self._new_counts(shown)
        return self._moved[shown]

    @contextmanager
    def reading(self) -> Iterator[tuple[P, ...]]:
        """Yield all counts, brought up to date; none is dropped inside the block. Safe in any thread."""
        # Without the lock: a handler of the timings may read the counts as well.
        for counts in self._every():
            counts.flush()
        with self._lock:
            every = self._every()
            for counts in every:
                counts.read_errors()
            yield every

    def _every(self) -> tuple[P, ...]:
        with self._lock:
            return (*self._by_name.values(), *self._moved.values())

    def counters(self) -> dict[Series, float]:
        """Return every counter by pool name. Safe in any thread."""
        self._read_statements(self._every())
        found: dict[Series, float] = {}
        with self.reading() as every:
            for counts in every:
                for (metric, values), number in counts.totals().items():
                    before = found.get(series := (metric, counts.shown, values), 0)
                    found[series] = max(before, number) if metric.kind == "time" else before + number
        return found

    def levels(self) -> dict[Series, float]:
        """Return every level of the pools that are not closed, by pool name. Safe in any thread."""
        every = self._every()
        found = levels(open_pools((counts.shown, counts.pool) for counts in every))
        return found | lags((counts.shown, counts.lag) for counts in every)
