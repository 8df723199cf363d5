"""sqlite3 details: rollback, autocommit mode, the identity of a file, and cursors that still hold a statement.

To be used in the thread that may use the connection. Knows nothing of aiosqlite.
"""

from __future__ import annotations

import gc
import os
import sqlite3
import weakref
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, cast

from ..errors import ConnectionBrokenError

__all__ = ["KNOWS_SQLITE3", "File", "LeaseCursors", "autocommit", "file_of", "roll_back"]


class File(NamedTuple):
    """A database file: its path, and the device and inode that `file_of` found there."""

    path: str
    device: int
    inode: int

    def verify(self) -> None:
        """Raise `ConnectionBrokenError` if the path now has another file, or none."""
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise ConnectionBrokenError(f"the database file is gone: {error}") from error
        if (found.st_dev, found.st_ino) != (self.device, self.inode):
            raise ConnectionBrokenError(f"the database file {self.path!r} was replaced by another")


def autocommit(native: sqlite3.Connection) -> Any:
    """Return `Connection.autocommit`: True or False where the program has set it (Python 3.12), else another value."""
    return getattr(native, "autocommit", None)


def roll_back(native: sqlite3.Connection) -> None:
    """Roll back the open transaction. Raises if it is still open: the next holder must not commit it."""
    mode = autocommit(native)
    if mode is True:  # where rollback() does nothing
        native.execute("ROLLBACK")
    else:
        native.rollback()
    if native.in_transaction and mode is not False:
        raise sqlite3.OperationalError("a transaction is still open after it was rolled back")


def file_of(native: sqlite3.Connection) -> File | None:
    """Return the file that the connection has open, or `None` if its database is not a file."""
    cursor, text_factory = native.cursor(), native.text_factory
    cursor.row_factory = None
    # A file's name need not be UTF-8, and the program's own text_factory may return anything.
    native.text_factory = bytes
    try:
        # Not the table-valued function of this name, which reads the schema: another process may lock that.
        (name,) = (file for _, schema, file in cursor.execute("PRAGMA database_list") if schema == b"main")
    finally:
        native.text_factory = text_factory
    path = os.fsdecode(name or b"")
    try:
        found = os.stat(path)
    except OSError:  # in memory, or a name of a virtual file system
        return None
    return File(path, found.st_dev, found.st_ino)


# -- cursors

_FEW: Final = 256


class LeaseCursors:
    """The cursors and blobs that the operations of one lease returned.

    A cursor with rows left to read, and an open blob, pin a snapshot, survive a rollback, and pass an interrupt on to
    the next statement.
    """

    __slots__ = ("_sweep_at", "newest", "older")

    def __init__(self) -> None:
        # Only the newest is held strongly: the worker thread does so anyway until its next job.
        self.newest: sqlite3.Cursor | None = None
        self.older: set[weakref.ref[sqlite3.Cursor | sqlite3.Blob]] = set()
        self._sweep_at = _FEW

    def note(self, result: object) -> bool:
        """Record what an operation returned; True if it is a cursor that was not known."""
        # Not isinstance(), which reads the value's __class__: that may be code of the user's, and raise.
        kind = type(result)
        if issubclass(kind, sqlite3.Cursor):
            return self._track(cast(sqlite3.Cursor, result))
        if issubclass(kind, sqlite3.Blob):
            self.older.add(weakref.ref(cast(sqlite3.Blob, result)))
        return False

    def note_frames(self, error: BaseException) -> None:
        """Record the cursors in the frames of a traceback: a program that keeps the error keeps them alive."""
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
            # Doubled, or thousands of live ones would be scanned for each new one.
            self._sweep_at = max(_FEW, 2 * len(self.older))
        return not known

    def half_read(self) -> list[sqlite3.Cursor | sqlite3.Blob]:
        """Return the cursors that still hold a statement, and the blobs."""
        known = [each for ref in tuple(self.older) if (each := ref()) is not None]
        if self.newest is not None:
            known.append(self.newest)
        return [each for each in known if _may_pin(each)]

    def forget_if_idle(self) -> bool:
        """Forget all of them, unless one is half-read; whether they were forgotten."""
        if self.older:
            if self.half_read():
                return False
        elif self.newest is not None and _may_pin(self.newest):
            return False
        self.forget()
        return True

    def close(self) -> bool:
        """Close what is half-read, and forget all of them; True if anything was half-read."""
        half_read = self.half_read()
        for each in half_read:
            each.close()
        self.forget()
        return bool(half_read)

    def forget(self) -> None:
        """Forget all of them."""
        self.newest = None
        if self.older:
            self.older = set()
            self._sweep_at = _FEW


def _may_pin(each: sqlite3.Cursor | sqlite3.Blob) -> bool:
    # CPython releases a cursor's statement at its last row. Whether a blob is open cannot be known.
    held: Iterable[type | None] = map(type, gc.get_referents(each))
    return _STATEMENT in held or issubclass(type(each), sqlite3.Blob)


def _find_statement_type() -> type | None:
    """Return the type of sqlite3's prepared statements, found on a half-read cursor: it has no public name."""
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
