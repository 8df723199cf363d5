"""Leave gaps in which other processes write, while the writer of this one would never pause.

SQLite's busy handler polls, at intervals that grow to 100 ms. It does not queue: against a writer that releases the
lock for microseconds only, it can poll for minutes without finding the lock free.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Final

from .process_turns import is_locked

__all__ = ["Gaps"]

# Seconds. A gap is longer than the longest interval of SQLite's busy handler, so that each poller finds it.
_GAP: Final = 0.105
_EVERY: Final = 0.6
# The part of the time that the lock is held from which others need a gap. Below it, 20 polls, which is what SQLite's
# handler makes in a second, find the lock free by chance.
_BUSY: Final = 0.75

# Byte of the WAL index that each process locks, shared, as long as it has the index open. Source: os_unix.c.
_DMS: Final = 128


class Gaps:
    """Measures how much of the time the lock is held, in the writer's worker thread. `path` is that of the database."""

    def __init__(self, path: str) -> None:
        self._path = path
        # Seconds since `_since` for which transactions held the lock.
        self.held: float = 0.0
        self._since = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is time to look whether others need a gap."""
        return time.monotonic() - self._since >= _EVERY

    def before_begin(self) -> None:
        """Sleep, if the lock was held nearly all the time, and another process has the database open."""
        if not self.is_due:
            return
        now = time.monotonic()
        passed = now - self._since
        if self.held > _BUSY * passed and is_open_elsewhere(f"{self._path}-shm"):
            time.sleep(_GAP)
            now += _GAP
        self.held, self._since = 0.0, now


def is_open_elsewhere(path: str) -> bool:
    """Return whether another process has the WAL index at `path` open; False where that is not known.

    Asks with a descriptor that SQLite has open: closing one of our own would drop all locks that this process holds.
    """
    if sys.platform != "linux":  # pragma: no cover - `struct flock` differs
        return False
    import fcntl

    try:
        wanted = os.stat(path)
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if _is_at(descriptor, wanted):
                return is_locked(descriptor, _DMS, fcntl.F_GETLK)
    except OSError:
        pass  # there is no WAL index, or it was closed a moment ago
    return False


def _is_at(descriptor: int, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), wanted)
    except OSError:  # closed meanwhile, as that of the listing itself
        return False
