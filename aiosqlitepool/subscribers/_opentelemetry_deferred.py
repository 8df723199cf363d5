"""Durations that are recorded later, when OpenTelemetry collects: recording one costs more than an acquire.

`Histogram.record` takes 7 to 11 µs, ten times as long as appending a float. Knows no metrics library: it calls the
function that it is given.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from itertools import chain, repeat

from aiosqlitepool.events import ConnectionReleased, PoolTimings, StatementTimings

from ._counts import PoolCounts
from ._metrics import OPERATION_DURATION, USE_TIME, WAIT_TIME, Metric, Values, namespace_of

__all__ = ["DeferredCounts", "Record", "record_deferred"]

# Records durations of a metric, the name of a pool and the values of the metric's attributes.
Record = Callable[[Metric, str, Values, Iterable[float]], None]

# Deferred durations of one pool, at most 4 MB. When there are more, the excess is recorded when a batch arrives, in the
# thread that delivers it. 1,000 acquires per second reach this in a minute, the default interval of collections.
_MOST = 131_072
# Durations recorded without a pause, which takes half a millisecond; and the pause in seconds. Without pauses, the
# event loop would wait for the interpreter lock ten times as long, each time.
_SLICE = 64
_PAUSE = 0.0005


class DeferredCounts(PoolCounts):
    """The counts of one pool, and its durations that are not recorded yet."""

    # Each deque is appended to by one thread at a time and read by any. Both operations are atomic: there is no lock.
    __slots__ = ("_pending", "_record")

    def __init__(self, name: str, record: Record, statement_summaries: int = 0) -> None:
        super().__init__(name, statement_summaries)
        self._record = record
        self._pending: dict[tuple[Metric, Values], deque[float]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._pending.copy().values()))

    def add_timings(self, timings: PoolTimings, recorded: Container[int] = ()) -> None:
        """Count the acquires of a batch, and defer its waits, without the slow ones at the places in `recorded`."""
        self.count_acquires(timings)
        slow = (each.wait_time for place, each in enumerate(timings.slow) if place not in recorded)
        self._defer(WAIT_TIME, ("",), chain(repeat(0.0, timings.immediate), *timings.waits.values(), slow))
        self._limit()

    def add_uses(self, timings: PoolTimings) -> None:
        """Defer the uses of a batch."""
        self._defer(USE_TIME, ("",), timings.uses)
        self._limit()

    def add_use(self, event: ConnectionReleased) -> None:
        """Defer one use, by its label. The next batch limits them."""
        self._defer(USE_TIME, (self.limits.label(event.label),), (event.use_time,))

    def add_statements(self, timings: StatementTimings) -> None:
        """Defer the statements of a batch."""
        namespace = namespace_of(self.shown)
        for kind, runs in timings.executed():
            values = (kind.operation, self.limits.error(kind.error), self.limits.summary(kind.summary), namespace)
            self._defer(OPERATION_DURATION, values, runs)
        self._limit()

    def _defer(self, metric: Metric, values: Values, durations: Iterable[float]) -> None:
        if (metric, values) not in self._pending:
            self._pending[metric, values] = deque()
        self._pending[metric, values].extend(durations)

    def _limit(self) -> None:
        if (excess := len(self) - _MOST) > 0:
            self.record(excess)

    def move_to(self, target: PoolCounts) -> None:
        """Move all numbers to those of another name, and record what is deferred: nothing will collect it."""
        super().move_to(target)
        self.record(len(self))

    def record(self, at_most: int) -> None:
        """Record up to `at_most` durations. Safe in any thread."""
        for (metric, values), durations in self._pending.copy().items():
            number = min(at_most, len(durations))
            if number > 0:
                self._record(metric, self.shown, values, _taken(durations, number))
                at_most -= number


def _taken(durations: deque[float], number: int) -> Iterable[float]:
    # IndexError: another collection took the last one.
    with contextlib.suppress(IndexError):
        for _ in range(number):
            yield durations.popleft()


def record_deferred(every: Sequence[DeferredCounts], seconds: float) -> None:
    """Record what is deferred, for `seconds` at most; the rest stays for the next collection."""
    deadline = time.monotonic() + seconds
    for counts in every:
        # What arrives meanwhile is left for the next collection.
        for _ in range(len(counts) // _SLICE):
            if time.monotonic() > deadline:
                return
            counts.record(_SLICE)
            time.sleep(_PAUSE)
        counts.record(_SLICE)
