"""The cursors of a lease, and which of them still hold a statement. Knows sqlite3, nothing of aiosqlite or of threads.

A half-read cursor pins its snapshot, survives a rollback and passes an interrupt on to the next statement.
"""

from __future__ import annotations

import gc
import sqlite3
import weakref
from collections.abc import Iterable
from typing import Final, cast

__all__ = ["KNOWS_SQLITE3", "LeaseCursors"]

_FEW: Final = 256


class LeaseCursors:
    """Every cursor that one lease got to see, and every blob, which pins a snapshot until it is closed."""

    __slots__ = ("_sweep_at", "newest", "older")

    def __init__(self) -> None:
        # Only the newest is held, which the worker thread does anyway until its next job.
        self.newest: sqlite3.Cursor | None = None
        self.older: set[weakref.ref[sqlite3.Cursor | sqlite3.Blob]] = set()
        self._sweep_at = _FEW

    def note(self, result: object) -> bool:
        """Note what an operation returned; True if it is a cursor that was not known."""
        # Not isinstance(), which asks the value's own __class__: code of the user's, which may raise.
        kind = type(result)
        if issubclass(kind, sqlite3.Cursor):
            return self._track(cast(sqlite3.Cursor, result))
        if issubclass(kind, sqlite3.Blob):
            self.older.add(weakref.ref(cast(sqlite3.Blob, result)))
        return False

    def note_frames(self, error: BaseException) -> None:
        """Note the cursors in the frames that an error has passed: whoever keeps the error keeps them."""
        trace = error.__traceback__
        while trace is not None:
            for value in trace.tb_frame.f_locals.values():
                self.note(value)
            trace = trace.tb_next

    def _track(self, cursor: sqlite3.Cursor) -> bool:
        if cursor is self.newest:
            return False
        older = self.older
        known = weakref.ref(cursor) in older
        if self.newest is not None:
            older.add(weakref.ref(self.newest))
        self.newest = cursor
        if len(older) > self._sweep_at:
            self.older = {ref for ref in older if ref() is not None}
            self._sweep_at = max(_FEW, 2 * len(self.older))  # or thousands that live would be looked at again and again
        return not known

    def half_read(self) -> list[sqlite3.Cursor | sqlite3.Blob]:
        """The cursors that still hold a statement, and the blobs."""
        known = [each for ref in tuple(self.older) if (each := ref()) is not None]
        if self.newest is not None:
            known.append(self.newest)
        return [each for each in known if _may_pin(each)]

    def forget_if_at_rest(self) -> bool:
        """Forget all, unless something is half-read; whether that is so."""
        if self.older:
            if self.half_read():
                return False
        elif self.newest is not None and _may_pin(self.newest):
            return False
        self.forget()
        return True

    def close(self) -> bool:
        """Close what is half-read and forget all; True if anything was."""
        half_read = self.half_read()
        for each in half_read:
            each.close()
        self.forget()
        return bool(half_read)

    def forget(self) -> None:
        """The lease has ended."""
        self.newest = None
        if self.older:
            self.older = set()
            self._sweep_at = _FEW


def _may_pin(each: sqlite3.Cursor | sqlite3.Blob) -> bool:
    # CPython lets go of a cursor's statement at its last row. Whether a blob is open cannot be asked.
    held: Iterable[type | None] = map(type, gc.get_referents(each))
    return _STATEMENT in held or issubclass(type(each), sqlite3.Blob)


def _find_statement_type() -> type | None:
    """The type of sqlite3's prepared statements, found on a half-read cursor; it has no public name."""
    connection = sqlite3.connect(":memory:")
    try:
        cursor = connection.execute("SELECT 1 UNION ALL SELECT 2")
        held = {type(each) for each in gc.get_referents(cursor) if type(each).__name__ == "Statement"}
        cursor.fetchall()
        held -= set(map(type, gc.get_referents(cursor)))
        return held.pop() if held else None
    finally:
        connection.close()


_STATEMENT: Final = _find_statement_type()

# Whether half-read cursors can be told from others.
KNOWS_SQLITE3: Final = _STATEMENT is not None
