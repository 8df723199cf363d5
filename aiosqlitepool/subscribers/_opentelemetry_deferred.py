"""Durations that are recorded later, when OpenTelemetry collects: recording one costs more than an acquire.

`Histogram.record` takes 7 to 11 µs, ten times as long as appending a float. Knows no metrics library: it calls the
functions that it is given.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat

from aiosqlitepool.events import PoolTimings

from ._counts import PoolCounts

__all__ = ["DeferredCounts", "record_deferred"]

Record = Callable[[str, float], None]

# Deferred durations of one pool, at most 4 MB. When there are as many, a batch is recorded as it arrives, in the thread
# that delivers it. 1,000 acquires per second reach this in a minute, the default interval of collections.
_MOST = 131_072
# Durations recorded without a pause, which takes half a millisecond; and the pause in seconds. Without pauses, the
# event loop would wait for the interpreter lock ten times as long, again and again.
_SLICE = 64
_PAUSE = 0.0005


class DeferredCounts(PoolCounts):
    """The counts of one pool, and its durations that are not recorded yet."""

    # Appended to by one thread at a time, read by any. Both operations are atomic, so there is no lock.
    __slots__ = ("_record_use", "_record_wait", "_uses", "_waits")

    def __init__(self, name: str, record_wait: Record, record_use: Record) -> None:
        super().__init__(name)
        self._waits: deque[float] = deque()
        self._uses: deque[float] = deque()
        self._record_wait = record_wait
        self._record_use = record_use

    def __len__(self) -> int:
        return len(self._waits) + len(self._uses)

    def add_timings(self, timings: PoolTimings) -> None:
        """Count the acquires of a batch, and defer its waits that were not slow and its uses."""
        self.count_acquires(timings)
        self._defer(chain(repeat(0.0, timings.immediate), *timings.waits.values()), timings.uses)

    def _defer(self, waits: Iterable[float], uses: Iterable[float]) -> None:
        if len(self) < _MOST:
            self._waits.extend(waits)
            self._uses.extend(uses)
            return
        for seconds in waits:
            self._record_wait(self.name, seconds)
        for seconds in uses:
            self._record_use(self.name, seconds)

    def drop(self) -> None:
        """Record what is deferred: nothing will collect it."""
        self.record(len(self))

    def record(self, at_most: int) -> None:
        """Record up to `at_most` waits and as many uses. Safe in any thread."""
        for seconds in _taken(self._waits, at_most):
            self._record_wait(self.name, seconds)
        for seconds in _taken(self._uses, at_most):
            self._record_use(self.name, seconds)


def _taken(durations: deque[float], at_most: int) -> Iterable[float]:
    # IndexError: another collection took the last one.
    with contextlib.suppress(IndexError):
        for _ in range(min(at_most, len(durations))):
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
