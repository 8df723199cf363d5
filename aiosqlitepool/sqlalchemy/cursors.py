"""Cursors of the DBAPI, as SQLAlchemy wants them: synchronous, in a greenlet whose task awaits the worker thread."""

from __future__ import annotations

import sqlite3
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import aiosqlite
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

if TYPE_CHECKING:
    from .adapted import Adapted

__all__ = ["BufferedCursor", "StreamCursor"]


class _Cursor:
    """What both kinds of cursors have."""

    server_side: bool = False

    def __init__(self, connection: Adapted, options: Mapping[str, Any]) -> None:
        self._connection = connection
        self._options = options

    def execute(self, operation: str, parameters: Any = None) -> Self:
        """Execute a statement."""
        return self._execute(operation, () if parameters is None else parameters, False)

    def executemany(self, operation: str, seq_of_parameters: Any) -> Self:
        """Execute a statement once for each of the parameters."""
        return self._execute(operation, seq_of_parameters, True)

    @abstractmethod
    def _execute(self, sql: str, parameters: Any, many: bool) -> Self: ...

    def close(self) -> None:
        """Close the cursor."""

    def setinputsizes(self, *_: Any) -> None:
        """Do nothing: SQLite needs no sizes."""

    async def _async_soft_close(self) -> None:
        """Called by SQLAlchemy before it leaves the greenlet: nothing of a buffered cursor is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BufferedCursor(_Cursor):
    """Executes a statement and fetches all its rows in one trip to the worker thread.

    Rows are tuples, whatever the row factory of the connection makes.
    """

    def __init__(self, connection: Adapted, options: Mapping[str, Any]) -> None:
        super().__init__(connection, options)
        self._rows: deque[Any] = deque()
        # Written by the worker thread, while the caller waits.
        self.description: Any = None
        self.rowcount: int = -1
        self.lastrowid: int | None = None
        self.arraysize: int = 1

    def _execute(self, sql: str, parameters: Any, many: bool) -> Self:
        fetch = partial(self._fetch, sql, parameters, many)
        self._rows = deque(self._connection.wait_for(self._connection.run(sql, fetch, self._options)))
        return self

    def _fetch(self, sql: str, parameters: Any, many: bool, native: sqlite3.Connection) -> list[Any]:
        with closing(native.cursor()) as cursor:
            cursor.row_factory = None
            # The result of execute(): a tracer's cursor has the rows elsewhere.
            found = (cursor.executemany if many else cursor.execute)(sql, parameters)
            self.description = cursor.description
            rows = found.fetchall()
            self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid
            return rows

    def close(self) -> None:
        """Forget the rows that are left."""
        self._rows.clear()

    def fetchone(self) -> Any:
        """Return the next row, `None` if there is none."""
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> Sequence[Any]:
        """Return the next `size` rows, or those that are left."""
        wanted = self.arraysize if size is None else size
        return [self._rows.popleft() for _ in range(min(wanted, len(self._rows)))]

    def fetchall(self) -> Sequence[Any]:
        """Return all rows that are left."""
        rows, self._rows = list(self._rows), deque()
        return rows

    def __iter__(self) -> Iterator[Any]:
        while self._rows:
            yield self._rows.popleft()


class StreamCursor(_Cursor):
    """Fetches rows as they are needed, for `stream()` and `stream_results`. Until then the statement stays open."""

    server_side: bool = True

    def __init__(self, connection: Adapted, options: Mapping[str, Any]) -> None:
        super().__init__(connection, options)
        self._cursor: aiosqlite.Cursor | None = None

    def _execute(self, sql: str, parameters: Any, many: bool) -> Self:
        cursor = self._connection.wait_for(self._connection.stream(sql, parameters, many, self._options))
        cursor.row_factory = None
        self._cursor = cursor
        return self

    @property
    def _open(self) -> aiosqlite.Cursor:
        if self._cursor is None:
            raise sqlite3.ProgrammingError("the cursor is closed, or has executed nothing")
        return self._cursor

    @property
    def description(self) -> Any:
        """The names of the columns."""
        return None if self._cursor is None else self._cursor.description

    @property
    def rowcount(self) -> int:
        """The number of rows changed, -1 if the statement changes none."""
        return -1 if self._cursor is None else self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The rowid of the row inserted last."""
        return None if self._cursor is None else self._cursor.lastrowid

    def close(self) -> None:
        """Close the cursor; where nothing can be awaited, the release of its connection does."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None and in_greenlet():
            await_only(cursor.close())

    def fetchone(self) -> Any:
        """Return the next row, `None` if there is none."""
        return self._connection.wait_for(self._open.fetchone())

    def fetchmany(self, size: int | None = None) -> Any:
        """Return the next `size` rows, or those that are left."""
        return self._connection.wait_for(self._open.fetchmany(size))

    def fetchall(self) -> Any:
        """Return all rows that are left."""
        return self._connection.wait_for(self._open.fetchall())

    def __iter__(self) -> Iterator[Any]:
        while (row := self.fetchone()) is not None:
            yield row
