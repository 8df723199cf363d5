"""Classify SQLite's busy errors, and compute the pauses between attempts.

Writers of one `SQLiteDatabase` queue, so it is another process, or another connection, that holds the lock. SQLite does
not signal the end of a lock: the only way to wait for it is to try again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from typing import Final

from ..driver import is_busy
from ..events import BusyKind

__all__ = ["busy_kind", "locked", "pauses"]

# Seconds. The longest pause is shorter than the 100 ms that SQLite's own busy handler may sleep, so that programs which
# use that handler do not get the lock more often than this one.
_FIRST_PAUSE: Final = 0.001
_LAST_PAUSE: Final = 0.025

# sqlite3.SQLITE_BUSY_SNAPSHOT, which pysqlite3 does not have.
_BUSY_SNAPSHOT: Final = sqlite3.SQLITE_BUSY | 2 << 8


def busy_kind(error: BaseException) -> BusyKind | None:
    """Return the kind of a busy error, or `None` for any other error.

    "busy": another connection holds the lock; trying the statement again helps. "snapshot": another connection
    committed after this transaction began to read; only a new transaction helps. Source: sqlite.org/rescode.html.
    """
    if not is_busy(error):
        return None
    return "snapshot" if getattr(error, "sqlite_errorcode", None) == _BUSY_SNAPSHOT else "busy"


def locked() -> sqlite3.OperationalError:
    """Return the error that SQLite raises when another connection holds the lock."""
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_BUSY, "SQLITE_BUSY"
    return error


def pauses(until: float) -> Iterator[float]:
    """Yield the pause before each further attempt, in seconds, while one ends before `until` by `time.monotonic`.

    Pauses double from 1 ms to 25 ms.
    """
    pause = _FIRST_PAUSE
    while time.monotonic() + pause <= until:
        yield pause
        pause = min(2 * pause, _LAST_PAUSE)
