"""Cursors that read ahead: the job that executes a statement also fetches its first rows.

Most results then need one trip to the worker thread instead of two to four, and a cursor that has reached its end pins
no snapshot and blocks no COMMIT. Knows no pool and no aiosqlite.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from time import perf_counter
from typing import Any, ClassVar, Final

from ..sql import LONGEST_READ
from ..timings import StatementPlace

__all__ = [
    "RUN_SQL",
    "ReadAheadCursor",
    "can_read_ahead",
    "closes_cursor",
    "execute",
    "new_cursor",
    "sql_of",
    "statement_of",
]

# Seconds. Rows that take longer to compute are not read ahead: most programs that fetch one row need no other.
READ_AHEAD_TIME: Final = 0.0002

_step = sqlite3.Cursor.__next__


def _zero_is_all() -> bool:
    """Return whether `fetchmany(0)` returns all rows, as before Python 3.14, and not none."""
    with closing(sqlite3.Connection(":memory:")) as native, closing(sqlite3.Cursor(native)) as cursor:
        return cursor.execute("SELECT 1").fetchmany(0) == [(1,)]


_ZERO_IS_ALL: Final = _zero_is_all()

# The operations whose first argument is SQL.
RUN_SQL: Final = frozenset({"execute", "executemany", "executescript", "_execute_fetchall", "_execute_insert"})


class ReadAheadCursor(sqlite3.Cursor):
    """A sqlite3 cursor with a buffer of raw rows. The row factory is applied when a row is handed out.

    `can_serve` says whether a call needs no SQLite. Such a call may be made in the event loop; all others belong to the
    worker thread. Errors that reading ahead meets are raised where the row would have been.
    """

    # Defaults at the class: a cursor without rows sets none of them.
    limit: int = 64  # rows to read ahead at a time
    is_done: bool = True  # whether SQLite has no more rows for it, so that it holds no statement
    is_closed: bool = False
    sql: str | None = None
    fresh: int = 0  # how many rows the newest trip to SQLite has read
    _error: BaseException | None = None
    _NO_ROWS: ClassVar[deque[Any]] = deque()
    _ahead: deque[Any] = _NO_ROWS

    # -- in the worker thread

    def execute(self, *args: Any) -> ReadAheadCursor:
        """Execute a statement and read its first rows."""
        self._forget()
        self.sql = args[0]
        self.is_done = False  # a statement that fails stays with its cursor
        super().execute(*args)
        if self.description is None:
            self.is_done = True
        else:
            self._ahead = deque()
            self._read_ahead()
        return self

    def executemany(self, *args: Any) -> ReadAheadCursor:
        """Execute a statement once for each of the parameters, as `sqlite3.Cursor` does."""
        self._forget()
        super().executemany(*args)
        return self

    def executescript(self, *args: Any) -> ReadAheadCursor:
        """Execute several statements, as `sqlite3.Cursor` does: the rows of the statement before stay."""
        self._check_open()
        super().executescript(*args)
        return self

    def _forget(self) -> None:
        self._check_open()
        self._ahead, self._error, self.is_done, self.fresh = self._NO_ROWS, None, True, 0

    def _read_ahead(self) -> None:
        append, until = self._ahead.append, perf_counter() + READ_AHEAD_TIME
        factory, self.row_factory = self.row_factory, None
        try:
            for _ in range(self.limit):
                append(_step(self))
                if perf_counter() >= until:
                    break
        except StopIteration:
            self.is_done = True
        except BaseException as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                raise  # meant for what runs now, not for a row that may never be fetched
            self._error = error.with_traceback(None)  # the traceback holds this frame, and that the cursor
        finally:
            self.row_factory, self.fresh = factory, len(self._ahead)

    # -- in either thread

    def can_serve(self, name: str, size: int | None = None) -> bool:
        """Return whether `fetchone`, `fetchmany`, `fetchall` or `close` needs no SQLite now."""
        if self.is_done or (self._error is not None and name != "close"):  # SQLite still has its statement
            return True
        if name == "fetchone":
            return len(self._ahead) > 0
        if name == "fetchmany":
            wanted = self.arraysize if size is None else size
            return type(wanted) is int and 0 < wanted <= len(self._ahead)
        return False

    def __next__(self) -> Any:
        self._check_open()
        if not self._ahead and not self.is_done and self._error is None:
            self._read_ahead()
        if self._ahead:
            return self._made(self._ahead.popleft())
        self._raise_error()
        raise StopIteration

    def fetchone(self) -> Any:
        """Return the next row, or `None` after the last one."""
        return next(self, None)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next rows, `arraysize` of them by default. 0 and less mean what they mean for `sqlite3`."""
        wanted = self.arraysize if size is None else size
        if wanted <= 0:
            return self.fetchall() if _ZERO_IS_ALL else super().fetchmany(wanted)
        self._check_open()
        rows = self._take(wanted)
        if len(rows) < wanted and not self.is_done:
            missing = wanted - len(rows)
            rest = super().fetchmany(missing)
            self.is_done, self.fresh = len(rest) < missing, len(rest)
            rows += rest
        return rows

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        self._check_open()
        rows = self._take(len(self._ahead) + 1)
        if not self.is_done:
            rest = super().fetchall()
            self.is_done, self.fresh = True, len(rest)
            rows += rest
        return rows

    def _take(self, wanted: int) -> list[Any]:
        """Return so many rows of the buffer, as far as it has them. Raises the error behind its last row."""
        ahead = self._ahead
        rows = [self._made(ahead.popleft()) for _ in range(min(wanted, len(ahead)))]
        if len(rows) < wanted:
            self._raise_error()
        return rows

    def close(self) -> None:
        """Close the cursor."""
        self._ahead, self._error, self.is_closed = self._NO_ROWS, None, True
        if not self.is_done:
            self.is_done = True
            super().close()

    def _made(self, row: tuple[Any, ...]) -> Any:
        factory: Any = self.row_factory
        return row if factory is None else factory(self, row)

    def _check_open(self) -> None:
        if self.is_closed:
            raise sqlite3.ProgrammingError("Cannot operate on a closed cursor.")

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error


def can_read_ahead(native: object) -> bool:
    """Return whether cursors of this connection may be replaced: not if its class makes its own, or is a proxy."""
    kind: Any = type(native)
    return all(getattr(kind, name, None) is getattr(sqlite3.Connection, name) for name in ("cursor", "execute"))


def new_cursor(native: sqlite3.Connection, limit: int) -> sqlite3.Cursor:
    """Return a new cursor, which reads up to `limit` rows ahead; with 0 a plain one."""
    if not limit:
        return native.cursor()
    cursor = native.cursor(ReadAheadCursor)
    cursor.limit = limit
    return cursor


def execute(sql: str, parameters: Any, native: sqlite3.Connection, limit: int) -> sqlite3.Cursor:
    """Execute a statement with a new cursor."""
    cursor = new_cursor(native, limit)
    try:
        return cursor.execute(sql, parameters)
    except BaseException:
        cursor.close()  # the traceback keeps it, and it would keep the statement and the file open
        raise


def closes_cursor(fn: Callable[..., Any]) -> bool:
    """Return whether this is the `close` method of a cursor."""
    return getattr(fn, "__name__", "") == "close" and isinstance(getattr(fn, "__self__", None), sqlite3.Cursor)


def sql_of(fn: Callable[..., Any], args: Sequence[Any]) -> str | None:
    """Return the SQL that an operation runs or fetches rows of; `None` if it has none that is a plain, short string."""
    sql = args[0] if args else getattr(getattr(fn, "__self__", None), "sql", None)
    return sql if type(sql) is str and len(sql) <= LONGEST_READ else None


def statement_of(fn: Callable[..., Any], args: Sequence[Any]) -> tuple[Any, StatementPlace | None]:
    """Return the SQL of an operation, `None` if it has none, and where it runs, `None` if it has run."""
    name = getattr(fn, "__name__", "")
    if name in RUN_SQL and args:
        return args[0], "thread"
    cursor = getattr(fn, "__self__", None)
    if type(cursor) is ReadAheadCursor and name.startswith("fetch"):
        return cursor.sql, None
    return (name.upper() if name in ("commit", "rollback") else None), "thread"
