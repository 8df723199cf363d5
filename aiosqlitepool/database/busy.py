"""What it means that SQLite is busy, and how to wait for that without holding a thread.

Inside one program writers queue. What is left is other processes: their locks end when they end, and nobody tells.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from ..events import BusyKind

__all__ = ["busy_kind", "pauses"]

# Seconds, doubled from the first to the last: short against the 100 ms that SQLite's own handler may sleep, so that a
# program that waits here gets its turn beside one that waits there.
_FIRST_PAUSE: Final = 0.001
_LAST_PAUSE: Final = 0.025


def busy_kind(error: BaseException) -> BusyKind | None:
    """Which kind of busy this error is, or `None` if it is none.

    "busy": another connection has the lock, and waiting helps. "snapshot": somebody committed after this transaction
    began to read; only starting it again helps. Source: sqlite.org/rescode.html.
    """
    code = getattr(error, "sqlite_errorcode", None) if isinstance(error, sqlite3.Error) else None
    if code is None or code & 0xFF != sqlite3.SQLITE_BUSY:
        return None
    return "snapshot" if code == sqlite3.SQLITE_BUSY_SNAPSHOT else "busy"


def pauses() -> Iterator[float]:
    """How long to wait before each further attempt, in seconds."""
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, _LAST_PAUSE)
