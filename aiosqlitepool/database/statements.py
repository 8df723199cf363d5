"""Single statements: one call, one trip to a worker thread, one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import closing
from typing import Any, Final, TypeVar, overload

from ..driver import Change, Executed, Fetch, Parameters, RowFactory, check_parameters, check_sql, raw_row
from ..pool.settings import check_label
from ..sql import READS, first_word
from .arguments import checked_timeout
from .guard import check_statement
from .lifecycle import DatabaseLifecycle

__all__ = ["Statements"]

R = TypeVar("R")

# The first words of statements that change the database. WITH may begin either: it reads.
_CHANGES: Final = frozenset({"INSERT", "REPLACE", "UPDATE", "DELETE"})


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
        return await self._fetch(Fetch(sql, parameters, row_factory), check_label(label) or "fetch_all", timeout)

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
        statement = Fetch(sql, parameters, row_factory, most=1)
        rows = await self._fetch(statement, check_label(label) or "fetch_one", timeout)
        return rows[0] if rows else None

    async def fetch_val(
        self, sql: str, parameters: Parameters = (), *, label: str | None = None, timeout: float | None = None
    ) -> Any:
        """Run a statement and return the first column of its first row, `None` if it has no row."""
        label = check_label(label) or "fetch_val"
        row = await self.fetch_one(sql, parameters, row_factory=raw_row, label=label, timeout=timeout)
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
        Fetch(sql, parameters, row_factory)  # checks them
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
        return await self._write(Change(sql, parameters), sql, check_label(label) or "execute", timeout)

    async def execute_many(
        self, sql: str, parameters: Iterable[Parameters], *, label: str | None = None, timeout: float | None = None
    ) -> int:
        """Run a statement once for each of the parameters, as one transaction; return the number of rows changed."""
        check_sql(sql)
        # In the event loop: an iterator may use what belongs to it.
        given = [check_parameters(each) for each in parameters]

        def execute(native: sqlite3.Connection) -> int:
            with closing(native.cursor()) as cursor:
                return cursor.executemany(sql, given).rowcount

        return await self._write(execute, sql, check_label(label) or "execute_many", timeout)

    def _fetch(self, statement: Fetch, label: str, timeout: float | None) -> Awaitable[list[Any]]:
        word = "SELECT" if self._reader.runs_inline(statement.sql) else first_word(statement.sql)
        if word not in READS:
            check_statement(statement.sql)
        if word in _CHANGES:
            return self._write(statement, statement.sql, label, timeout)
        self._check_readable()
        return self._reader.run_one(statement, statement.sql, label, checked_timeout(timeout))

    async def _write(self, fn: Callable[[sqlite3.Connection], R], sql: str, label: str, timeout: float | None) -> R:
        self._check_open()
        check_statement(sql)
        return await self._writer.run(fn, label, timeout=checked_timeout(timeout), retry=True, sql=sql)
