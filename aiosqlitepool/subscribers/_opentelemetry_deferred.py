"""Durations noted now and recorded later, each exactly once, because recording one costs more than lending.

OpenTelemetry's `Histogram.record` takes ten times as long as noting a float. So what needs no trace is noted, and
recorded when somebody collects, or, if that takes too long, by a thread that leaves the loop its turns in between.
Knows no metrics library: it calls what it is given.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from ._counts import Account
from ._forks import renew_after_fork

__all__ = ["Backlog", "Flusher"]

# Noted durations of one pool from which a thread begins to record them. Four megabytes; a thousand acquires a second,
# with two each, make them in a minute, which is how often metrics are collected by default.
_PLENTY = 131_072
# From here on, whoever notes more records as many of each kind: the thread cannot keep up, and memory has an end.
_TOO_MANY = 2 * _PLENTY
# Recorded without a pause, about half a millisecond: without pauses the interpreter would make the loop wait for ten
# times as long, time and again. The pauses are in seconds; the long one, of the thread, leaves the loop nine tenths.
_SLICE = 64
_PAUSE = 0.0005
_LONG_PAUSE = 0.005


class Backlog:
    """What was noted of one pool and nobody recorded yet: how long connections were waited for, and out."""

    __slots__ = (
        "__weakref__",
        "_at_once",
        "_lock",
        "_record_use",
        "_record_wait",
        "_recorded_at_once",
        "_uses",
        "_waits",
        "account",
        "ended",
    )

    def __init__(
        self, account: Account, record_wait: Callable[[float], object], record_use: Callable[[float], object]
    ) -> None:
        self.account = account
        self.ended = False
        # Of acquires that waited for nothing, only the number.
        self._at_once = 0
        self._recorded_at_once = 0
        self._waits: deque[float] = deque()
        self._uses: deque[float] = deque()
        self._record_wait = record_wait
        self._record_use = record_use
        self.renew_lock()
        renew_after_fork(self)

    def renew_lock(self) -> None:
        """Take a new lock."""
        # Held by whoever records: a collection, the flusher, or a release that finds too many.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._at_once - self._recorded_at_once + len(self._waits) + len(self._uses)

    def note(self, at_once: int, waits: Iterable[float], uses: Iterable[float]) -> None:
        """Keep these for later. One at a time may do this, in any thread."""
        self._at_once += at_once
        self._waits.extend(waits)
        self._uses.extend(uses)

    @property
    def finished(self) -> bool:
        """Whether nothing is left, and nothing will come."""
        return (self.ended or self.account.over) and not len(self)

    def record(self, at_most: int, *, wait: bool = True) -> None:
        """Record so many, unless somebody else does just now and `wait` is false."""
        if not self._lock.acquire(blocking=wait):
            return
        try:
            for _ in range(min(at_most, self._at_once - self._recorded_at_once)):
                self._recorded_at_once += 1
                self._record_wait(0.0)
            for noted, record in ((self._waits, self._record_wait), (self._uses, self._record_use)):
                for _ in range(min(at_most, len(noted))):
                    record(noted.popleft())
        finally:
            self._lock.release()


class Flusher:
    """Records the backlogs of all pools that feed the same instruments."""

    def __init__(self) -> None:
        self.renew_lock()
        self._backlogs: tuple[Backlog, ...] = ()
        self._thread: threading.Thread | None = None
        renew_after_fork(self)

    def renew_lock(self) -> None:
        """Take a new lock."""
        self._lock = threading.RLock()

    def add(self, backlog: Backlog) -> None:
        """Record this one too, until it is finished."""
        with self._lock:
            self._backlogs = (*(each for each in self._backlogs if not each.finished), backlog)

    def record_all(self, seconds: float) -> None:
        """Record everything, as far as that can be done in so many seconds; the rest is for next time."""
        deadline = time.monotonic() + seconds
        for backlog in self._backlogs:
            backlog.account.ask()
            # What comes in meanwhile is for next time, too.
            for _ in range(len(backlog) // _SLICE):
                if time.monotonic() > deadline:
                    return
                backlog.record(_SLICE)
                time.sleep(_PAUSE)
            backlog.record(_SLICE)

    def look(self, backlog: Backlog, more: int) -> None:
        """See to it that this one, which has so many more, does not grow for ever."""
        if len(backlog) > _PLENTY:
            if self._thread is None or not self._thread.is_alive():
                self._start()
            if len(backlog) > _TOO_MANY:
                backlog.record(more, wait=False)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="aiosqlitepool-metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        # To the last slice only: a busy pool always has a few, and they may wait for the next collection.
        while left := [backlog for backlog in self._backlogs if len(backlog) > _SLICE]:
            for backlog in left:
                backlog.record(_SLICE)
            time.sleep(_LONG_PAUSE if max(map(len, left)) < (_PLENTY + _TOO_MANY) // 2 else _PAUSE)
