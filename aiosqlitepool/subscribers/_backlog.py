"""Durations noted now and recorded later, each exactly once, because recording one costs more than lending.

OpenTelemetry's `Histogram.record` takes ten times as long as noting a float. So what needs no trace is noted, and
recorded when somebody collects, or, if that takes too long, by a thread that leaves the loop its turns in between.
Knows no metrics library: it calls what it is given.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from ._forks import renew_after_fork
from ._ledger import Account

__all__ = ["PLENTY", "Backlog", "Flusher"]

# Noted durations of one pool from which a thread begins to record them. Two megabytes; a thousand acquires a second
# make them in a minute, which is how often metrics are collected by default.
PLENTY = 65_536
# From here on each release records a few itself: the thread cannot keep up, and memory has an end.
_TOO_MANY = 2 * PLENTY
_A_FEW = 4
# Recorded without a pause, about half a millisecond: without pauses the interpreter would make the loop wait for ten
# times as long, time and again. The pauses are in seconds; the long one, of the thread, leaves the loop nine tenths.
_SLICE = 64
_PAUSE = 0.0005
_LONG_PAUSE = 0.005


class Backlog:
    """What one pool's account has noted and nobody recorded yet.

    `waits` and `uses` are appended to by the pool's thread; acquires that waited for nothing are in `account.at_once`.
    """

    __slots__ = ("__weakref__", "_lock", "_record_use", "_record_wait", "_zeros", "account", "ended", "uses", "waits")

    def __init__(
        self, account: Account, record_wait: Callable[[float], object], record_use: Callable[[float], object]
    ) -> None:
        self.account = account
        self.waits: deque[float] = deque()
        self.uses: deque[float] = deque()
        self.ended = False
        self._record_wait = record_wait
        self._record_use = record_use
        # How many of `account.at_once` are recorded.
        self._zeros = 0
        self.renew_lock()
        renew_after_fork(self)

    def renew_lock(self) -> None:
        """Take a new lock."""
        # Held by whoever records: a collection, the flusher, or a release that finds too many.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        self.account.look()
        return self.account.at_once - self._zeros + len(self.waits) + len(self.uses)

    @property
    def finished(self) -> bool:
        """Whether nothing is left, and nothing will come."""
        return (self.ended or self.account.pool is None) and not len(self)

    def record(self, at_most: int, *, wait: bool = True) -> None:
        """Record so many, unless somebody else does just now and `wait` is false."""
        if not self._lock.acquire(blocking=wait):
            return
        try:
            self.account.look()
            zeros = min(at_most, self.account.at_once - self._zeros)
            for _ in range(zeros):
                self._zeros += 1
                self._record_wait(0.0)
            for noted, record in ((self.waits, self._record_wait), (self.uses, self._record_use)):
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
            # What comes in meanwhile is for next time, too.
            for _ in range(len(backlog) // _SLICE):
                if time.monotonic() > deadline:
                    return
                backlog.record(_SLICE)
                time.sleep(_PAUSE)
            backlog.record(_SLICE)

    def watcher(self, backlog: Backlog) -> Callable[[], None]:
        """What is to be called when many durations have been noted."""

        def look() -> None:
            if self._thread is None or not self._thread.is_alive():
                self._start()
            if len(backlog.uses) > _TOO_MANY:
                backlog.record(_A_FEW, wait=False)

        return look

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="aiosqlitepool-metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        # To the last slice only: a busy pool always has a few, and they may wait for the next collection.
        while left := [backlog for backlog in self._backlogs if len(backlog) > _SLICE]:
            for backlog in left:
                backlog.record(_SLICE)
            # An acquire and a release each note one, so that there are two of each.
            time.sleep(_LONG_PAUSE if max(map(len, left)) < 3 * PLENTY else _PAUSE)
