"""Single statements: one call, one trip to a worker thread, one transaction."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple, TypeVar, overload

from ..pool.settings import check_label
from .functions import checked_timeout
from .guard import GAP, check_statement
from .lifecycle import DatabaseLifecycle

__all__ = ["Executed", "Parameters", "Statements"]

R = TypeVar("R")
Parameters = Sequence[Any] | Mapping[str, Any]
RowFactory = Callable[[sqlite3.Cursor, Any], R]

# A statement that begins with one of these changes the database. WITH may begin either: it reads.
_CHANGES: Final = re.compile(rf"{GAP}(?:INSERT|REPLACE|UPDATE|DELETE)\b", re.IGNORECASE | re.DOTALL)


class Executed(NamedTuple):
    """What a statement changed.

    `rows` is the number of rows that it inserted, updated or deleted, and -1 for other statements. `last_row_id` is the
    rowid of the last row that the writer connection has inserted, `None` if there is none.
    """

    rows: int
    last_row_id: int | None


class Statements(DatabaseLifecycle):
    """The methods of a `SQLiteDatabase` that run one statement.

    `parameters` is a sequence for `?`, or a mapping for `:name`. `row_factory` makes the rows of this call, as
    `sqlite3.Cursor.row_factory` does; the default is that of the connection. `label` and `timeout` are those of
    `read()` and `write()`.

    A statement that begins with SELECT, VALUES, WITH, PRAGMA or EXPLAIN runs on a reader. One that begins with INSERT,
    REPLACE, UPDATE or DELETE, with a RETURNING clause, runs on the writer, as a transaction of its own.
    """

    @overload
    async def fetch_all(
        self, sql: str, parameters: Parameters = (), *, row_factory: RowFactory[R], label: str | None = None,
        timeout: float | None = None,
    ) -> list[R]: ...  # fmt: skip
    @overload
    async def fetch_all(
        self, sql: str, parameters: Parameters = (), *, label: str | None = None, timeout: float | None = None
    ) -> list[Any]: ...
    async def fetch_all(
        self, sql: str, parameters: Parameters = (), *, row_factory: RowFactory[Any] | None = None,
        label: str | None = None, timeout: float | None = None,
    ) -> list[Any]:  # fmt: skip
        """Run a statement and return all its rows."""
        _check_parameters(parameters)

        def fetch(native: sqlite3.Connection) -> list[Any]:
            with closing(_cursor(native, row_factory)) as cursor:
                return cursor.execute(sql, parameters).fetchall()

        return await self._run_statement(fetch, sql, check_label(label) or "fetch_all", timeout)

    @overload
    async def fetch_one(
        self, sql: str, parameters: Parameters = (), *, row_factory: RowFactory[R], label: str | None = None,
        timeout: float | None = None,
    ) -> R | None: ...  # fmt: skip
    @overload
    async def fetch_one(
        self, sql: str, parameters: Parameters = (), *, label: str | None = None, timeout: float | None = None
    ) -> Any | None: ...
    async def fetch_one(
        self, sql: str, parameters: Parameters = (), *, row_factory: RowFactory[Any] | None = None,
        label: str | None = None, timeout: float | None = None,
    ) -> Any | None:  # fmt: skip
        """Run a statement and return its first row, `None` if it has no row."""
        _check_parameters(parameters)

        def fetch(native: sqlite3.Connection) -> list[Any]:
            with closing(_cursor(native, row_factory)) as cursor:
                return cursor.execute(sql, parameters).fetchmany(1)  # a list: the log of statements counts its rows

        rows = await self._run_statement(fetch, sql, check_label(label) or "fetch_one", timeout)
        return rows[0] if rows else None

    async def fetch_val(
        self, sql: str, parameters: Parameters = (), *, label: str | None = None, timeout: float | None = None
    ) -> Any:
        """Run a statement and return the first column of its first row, `None` if it has no row."""
        row = await self.fetch_one(
            sql, parameters, row_factory=_raw, label=check_label(label) or "fetch_val", timeout=timeout
        )
        return None if row is None else row[0]

    @overload
    def iterate(
        self, sql: str, parameters: Parameters = (), *, row_factory: RowFactory[R], label: str | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[R, None]: ...  # fmt: skip
    @overload
    def iterate(
        self, sql: str, parameters: Parameters = (), *, label: str | None = None, timeout: float | None = None
    ) -> AsyncGenerator[Any, None]: ...
    async def iterate(
        self, sql: str, parameters: Parameters = (), *, row_factory: RowFactory[Any] | None = None,
        label: str | None = None, timeout: float | None = None,
    ) -> AsyncGenerator[Any, None]:  # fmt: skip
        """Yield the rows of a statement that reads, in batches, from one moment.

        Holds a reader until the last row, or until the iterator is closed: wrap it in `contextlib.aclosing()` if the
        loop may end early. The label says "iterate" in diagnostics unless there is another.
        """
        _check_parameters(parameters)
        self._check_readable()
        block = self._reader.block(check_label(label) or "iterate", checked_timeout(timeout), snapshot=False)
        async with block as connection, connection.execute(sql, parameters) as cursor:
            if row_factory is not None:
                cursor.row_factory = row_factory  # type: ignore[assignment]
            async for row in cursor:
                yield row

    async def execute(
        self, sql: str, parameters: Parameters = (), *, label: str | None = None, timeout: float | None = None
    ) -> Executed:
        """Run a statement on the writer, as one transaction; inside the task's own `write()` block, in a savepoint."""
        _check_parameters(parameters)

        def execute(native: sqlite3.Connection) -> Executed:
            with closing(native.cursor()) as cursor:
                cursor.execute(sql, parameters).fetchall()  # of a RETURNING clause: unread, they would block the COMMIT
                return Executed(cursor.rowcount, cursor.lastrowid)

        return await self._write_statement(execute, sql, check_label(label) or "execute", timeout)

    async def execute_many(
        self, sql: str, parameters: Iterable[Parameters], *, label: str | None = None, timeout: float | None = None
    ) -> int:
        """Run a statement once for each of the parameters, as one transaction; return the number of rows changed."""
        given = list(parameters)  # in the event loop: an iterator may use what belongs to it

        def execute(native: sqlite3.Connection) -> int:
            with closing(native.cursor()) as cursor:
                return cursor.executemany(sql, given).rowcount

        return await self._write_statement(execute, sql, check_label(label) or "execute_many", timeout)

    async def _run_statement(
        self, fn: Callable[[sqlite3.Connection], R], sql: str, label: str, timeout: float | None
    ) -> R:
        if _CHANGES.match(_checked(sql)):
            return await self._write_statement(fn, sql, label, timeout)
        self._check_readable()
        return await self._reader.run_one(fn, sql, label, checked_timeout(timeout))

    async def _write_statement(
        self, fn: Callable[[sqlite3.Connection], R], sql: str, label: str, timeout: float | None
    ) -> R:
        self._check_open()
        check_statement(_checked(sql))
        return await self._writer.run(fn, label, timeout=checked_timeout(timeout), retry=True, sql=sql)


def _checked(sql: object) -> str:
    if not isinstance(sql, str):
        raise TypeError(f"sql must be a str, not {sql!r} ({type(sql).__name__})")
    return sql


def _check_parameters(parameters: object) -> None:
    if isinstance(parameters, str | bytes) or not hasattr(parameters, "__getitem__"):
        kind = type(parameters).__name__
        raise TypeError(
            f"parameters must be a tuple, a list or a mapping, not {parameters!r} ({kind}): a tuple of one value is "
            "written (value,)"
        )


def _cursor(native: sqlite3.Connection, row_factory: RowFactory[Any] | None) -> sqlite3.Cursor:
    cursor = native.cursor()
    if row_factory is not None:
        cursor.row_factory = row_factory
    return cursor


def _raw(_: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[Any, ...]:
    return row
