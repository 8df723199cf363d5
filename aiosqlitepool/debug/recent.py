"""Durations of the last minute: their percentiles, and how many ran at once. Of fixed size; knows no pool."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable

__all__ = ["WINDOW", "RecentLevel", "RecentTimes"]

# Seconds that are covered, and the number of pieces in which the oldest are dropped.
WINDOW = 60.0
_PIECES = 12

# Upper bounds from 10 µs to a bit over 1,000 s, each a tenth above the last. Less than 10 µs counts as 0.
_STEP = 1.1
_BOUNDS = tuple(1e-5 * _STEP**power for power in range(math.ceil(math.log(1e8, _STEP))))


class _Piece:
    """The durations of five seconds, counted by bucket; the last bucket has no bound."""

    __slots__ = ("counts", "longest")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS) + 1)
        self.longest = 0.0


class RecentTimes:
    """Counts durations in buckets a tenth apart, and drops them after a minute, five seconds at a time.

    A percentile is the upper bound of its bucket, at most a tenth too high; the maximum is exact. One thread observes,
    any thread may read. All times are seconds, floats.
    """

    __slots__ = ("_clock", "_pieces", "_turns_at")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pieces: deque[_Piece] = deque([_Piece()], maxlen=_PIECES)
        self._turns_at = clock() + WINDOW / _PIECES

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        if self._clock() >= self._turns_at:
            self._turn()
        piece = self._pieces[-1]
        piece.counts[bisect_left(_BOUNDS, seconds)] += 1
        if seconds > piece.longest:
            piece.longest = seconds

    def _turn(self) -> None:
        """Begin a new piece for each that has passed, which drops the oldest."""
        length = WINDOW / _PIECES
        passed = int((self._clock() - self._turns_at) // length) + 1
        for _ in range(min(passed, _PIECES)):
            self._pieces.append(_Piece())
        self._turns_at += passed * length

    def summary(self) -> dict[str, float | int]:
        """Return `count`, `p50`, `p90`, `p99` and `max` of the last minute; zeros if nothing was observed."""
        # Skips outdated pieces instead of replacing them: only the observing thread writes.
        stale = max(0, int((self._clock() - self._turns_at) // (WINDOW / _PIECES)) + 1)
        pieces = list(self._pieces.copy())[max(0, stale - _PIECES + len(self._pieces)) :]
        counts = [sum(column) for column in zip(*(piece.counts for piece in pieces), strict=True)]
        longest = max((piece.longest for piece in pieces), default=0.0)
        found: dict[str, float | int] = {"count": sum(counts)}
        for percent in (50, 90, 99):
            found[f"p{percent}"] = min(longest, _percentile(counts, percent))
        return {**found, "max": longest}


class RecentLevel:
    """How many durations ran at once, on average, in each whole second of the last minute.

    Computed from durations that have ended, and those that still run: between two events nothing has to be sampled. One
    thread adds, any thread may read. All times are seconds, floats.
    """

    __slots__ = ("_clock", "_since", "_slots")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        # By second modulo their number: the second, and the time that durations spent in it.
        self._slots: list[tuple[int, float]] = [(-1, 0.0)] * (int(WINDOW) + 1)

    def ended(self, seconds: float) -> None:
        """Add a duration that ends now."""
        now = self._clock()
        for second, spent in _by_second(now, seconds):
            index = second % len(self._slots)
            of, before = self._slots[index]
            self._slots[index] = second, spent + before if of == second else spent

    def means(self, running: Iterable[float]) -> tuple[float, list[float]]:
        """Return how long ago the last whole second ended, and the mean of each, oldest first.

        Args:
            running: for how many seconds each duration has run that still runs.
        """
        now = self._clock()
        last = int(now)
        first = max(last - int(WINDOW), math.ceil(self._since))
        spent = {second: seconds for second, seconds in self._slots if first <= second < last}
        for each in running:
            for second, part in _by_second(now, each):
                spent[second] = spent.get(second, 0.0) + part
        return now - last, [round(spent.get(second, 0.0), 3) for second in range(first, last)]


def _by_second(now: float, seconds: float) -> Iterable[tuple[int, float]]:
    """Split a duration that ends now into the seconds of the last minute."""
    begin = max(now - seconds, now - WINDOW)
    for second in range(int(begin), int(now) + 1):
        yield second, min(now, second + 1) - max(begin, second)


def _percentile(counts: list[int], percent: int) -> float:
    """Return the upper bound of the bucket of the nearest rank."""
    rank = -(-percent * sum(counts) // 100)
    for bound, count in zip((0.0, *_BOUNDS[1:], math.inf), counts, strict=False):
        rank -= count
        if rank <= 0:
            return bound
    return 0.0
