"""sqlite3 details: rollback, autocommit mode, the identity of a file, and cursors that still hold a statement.

To be used in the thread that may use the connection. Knows nothing of aiosqlite.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any, Final, NamedTuple, cast

from ..errors import ConnectionBrokenError
from .cursors import ReadAheadCursor
from .proxies import held

__all__ = [
    "KNOWS_SQLITE3",
    "File",
    "LeaseCursors",
    "autocommit",
    "file_of",
    "half_read",
    "name_of",
    "note_busy",
    "roll_back",
]

log: Final = logging.getLogger("aiosqlitepool")

# -- the identity of a file

# A file whose inode changes so soon after a connection was opened, so many times in a row, changes its inode by itself:
# some network and overlay file systems keep no inodes. Replacing connections would never end.
_SOON: Final = 10.0  # seconds
_TIMES: Final = 2
# By path, when its inode was last found changed, and how many times in a row that was soon.
_changes: dict[str, tuple[float, int]] = {}


class File(NamedTuple):
    """A database file: its path, the device and inode that `file_of` found there, and when (`time.monotonic`)."""

    path: str
    # `None` where inodes change by themselves.
    identity: tuple[int, int] | None
    opened_at: float

    def verify(self) -> None:
        """Raise `ConnectionBrokenError` if the path now has another file, or none."""
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise ConnectionBrokenError(f"the database file is gone: {error}") from error
        if self.identity is not None and self.identity != (found.st_dev, found.st_ino):
            self._note_change()
            raise ConnectionBrokenError(f"the database file {self.path!r} was replaced by another")

    def _note_change(self) -> None:
        changed_at, times = _changes.get(self.path, (-math.inf, 0))
        if times == _TIMES or self.opened_at < changed_at:
            return  # another connection has noted this change
        now = time.monotonic()
        times = times + 1 if now - self.opened_at < _SOON else 0
        _changes[self.path] = (now, times)
        if times == _TIMES:
            log.warning(
                "the inode of %r changes by itself, as on some network file systems. From now on, pools do not notice "
                "that this file is replaced: call expire_connections() after you replace it",
                self.path,
            )


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


def note_busy(error: BaseException) -> None:
    """Add to an error which says "database is locked" why that is, and what to do."""
    if is_busy(error):
        is_snapshot = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY_SNAPSHOT
        error.add_note(_SNAPSHOT if is_snapshot else _BUSY)


def is_busy(error: BaseException) -> bool:
    """Return whether SQLite raised this error because another connection holds a lock."""
    code = getattr(error, "sqlite_errorcode", None) if isinstance(error, sqlite3.Error) else None
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY


_BUSY: Final = (
    "another connection, of this program or of another one, held the lock for longer than the busy timeout: shorten "
    "its transactions, or use SQLiteDatabase, whose writers wait for each other in a queue"
)
_SNAPSHOT: Final = (
    "another connection committed after this transaction had begun to read: begin with BEGIN IMMEDIATE, or use "
    "SQLiteDatabase.write(), which does"
)


def name_of(native: sqlite3.Connection) -> bytes:
    """Return the name of the file that the connection has open; empty if its database is in memory or temporary."""
    cursor, text_factory = native.cursor(), native.text_factory
    cursor.row_factory = None
    # A file's name need not be UTF-8, and the program's own text_factory may return anything.
    native.text_factory = bytes
    try:
        # Not the table-valued function of this name, which reads the schema: another process may lock that.
        (name,) = (file for _, schema, file in cursor.execute("PRAGMA database_list") if schema == b"main")
    finally:
        native.text_factory = text_factory
    return name or b""


def file_of(native: sqlite3.Connection) -> File | None:
    """Return the file that the connection has open, or `None` if its database is not a file."""
    path = os.fsdecode(name_of(native))
    try:
        found = os.stat(path)
    except OSError:  # in memory, or a name of a virtual file system
        return None
    keeps_inode = _changes.get(path, (0.0, 0))[1] < _TIMES
    return File(path, (found.st_dev, found.st_ino) if keeps_inode else None, time.monotonic())


# -- cursors

_FEW: Final = 256


class LeaseCursors:
    """The cursors and blobs that the operations of one lease returned.

    A cursor with rows left to read, and an open blob, pin a snapshot, survive a rollback, and pass an interrupt on to
    the next statement.
    """

    __slots__ = ("_behind", "_sweep_at", "newest", "older")

    def __init__(self, native: sqlite3.Connection | None = None) -> None:
        # The connection behind a tracer's proxy, whose cursors are proxies too; `None` for a plain connection.
        is_plain = native is None or type(native) is sqlite3.Connection
        self._behind = None if is_plain else held(native, sqlite3.Connection)
        # Only the newest is held strongly: the worker thread does so anyway until its next job.
        self.newest: sqlite3.Cursor | None = None
        self.older: set[weakref.ref[sqlite3.Cursor | sqlite3.Blob]] = set()
        self._sweep_at = _FEW

    def note(self, result: object) -> None:
        """Record what an operation returned, if it is a cursor that may hold a statement."""
        kind = type(result)
        if kind is ReadAheadCursor and cast(ReadAheadCursor, result).is_done:
            return
        if (cursor := self.cursor_of(result)) is not None:
            self._track(cursor)
        elif issubclass(kind, sqlite3.Blob):
            self.older.add(weakref.ref(cast(sqlite3.Blob, result)))

    def cursor_of(self, value: object) -> sqlite3.Cursor | None:
        """Return `value` if it is a cursor; for a proxy, the cursor of this connection that it stands for."""
        # Not isinstance(), which reads the value's __class__: that may be code of the user's, and raise.
        if issubclass(type(value), sqlite3.Cursor):
            return cast(sqlite3.Cursor, value)
        cursor = None if self._behind is None else held(value, sqlite3.Cursor)
        return cursor if cursor is not None and cursor.connection is self._behind else None

    def note_frames(self, error: BaseException) -> None:
        """Record the cursors in the frames of a traceback: a program that keeps the error keeps them alive."""
        trace = error.__traceback__
        while trace is not None:
            for value in trace.tb_frame.f_locals.values():
                self.note(value)
            trace = trace.tb_next

    def _track(self, cursor: sqlite3.Cursor) -> None:
        if cursor is self.newest:
            return
        older = self.older
        if self.newest is not None:
            older.add(weakref.ref(self.newest))
        self.newest = cursor
        if len(older) > self._sweep_at:
            self.older = {ref for ref in older if ref() is not None}
            # Doubled, or thousands of live ones would be scanned for each new one.
            self._sweep_at = max(_FEW, 2 * len(self.older))

    def half_read(self) -> list[sqlite3.Cursor | sqlite3.Blob]:
        """Return the cursors that still hold a statement, and the blobs."""
        known = [each for ref in list(self.older) if (each := ref()) is not None]
        if self.newest is not None:
            known.append(self.newest)
        return [each for each in known if _may_pin(each)]

    def forget_if_idle(self) -> bool:
        """Forget all of them, unless one is half-read; whether they were forgotten."""
        if self.half_read():
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


def half_read(native: sqlite3.Connection) -> list[sqlite3.Cursor | sqlite3.Blob]:
    """Return the cursors of a connection that still hold a statement, oldest first, and its blobs, wherever kept.

    Slower than `LeaseCursors` (about 5 us), but complete: CPython's connection has a list of weak references to its
    cursors, and one to its blobs. From Python 3.15 it has none of the cursors: then all objects of the program are
    searched, in milliseconds and in no order. `native` may be the proxy of an instrumentation.
    """
    own = held(native, sqlite3.Connection)
    known = _listed(own)
    if not _LISTS_CURSORS:
        known = [each for each in gc.get_referrers(own) if issubclass(type(each), sqlite3.Cursor)] + known
    return [each for each in known if each is not None and _may_pin(each)]


def _listed(native: object) -> list[Any]:
    lists = [each for each in gc.get_referents(native) if type(each) is list]
    return [ref() for each in lists for ref in each if isinstance(ref, weakref.ref)]


def _may_pin(each: sqlite3.Cursor | sqlite3.Blob) -> bool:
    if type(each) is ReadAheadCursor:
        return not each.is_done
    if issubclass(type(each), sqlite3.Blob):  # whether it is open cannot be known
        return True
    # CPython releases a cursor's statement at its last row, but that of executemany(), which has no rows, not at all.
    if _description(each) is None:  # asked first: without the GIL, get_referents() stops all threads
        return False
    held: Iterable[type | None] = map(type, gc.get_referents(each))
    return _STATEMENT in held


def _find_statement_type() -> type | None:
    """Return the type of sqlite3's prepared statements, found on a half-read cursor: it has no public name."""
    connection = sqlite3.Connection(":memory:")  # not connect(), which a tracer may have replaced
    try:
        cursor = connection.execute("SELECT 1 UNION ALL SELECT 2")
        held = {type(each) for each in gc.get_referents(cursor) if type(each).__name__ == "Statement"}
        cursor.fetchall()
        held -= set(map(type, gc.get_referents(cursor)))
        return held.pop() if held else None
    finally:
        connection.close()


_STATEMENT: Final = _find_statement_type()
# Not that of a class of the program.
_description: Final[Callable[[Any], Any]] = vars(sqlite3.Cursor)["description"].__get__


def _lists_cursors() -> bool:
    """Return whether connections of this Python refer to their cursors."""
    with closing(sqlite3.Connection(":memory:")) as connection, closing(sqlite3.Cursor(connection)) as cursor:
        return cursor in _listed(connection)


_LISTS_CURSORS: Final = _lists_cursors()

# Whether half-read cursors can be told from others.
KNOWS_SQLITE3: Final = _STATEMENT is not None
