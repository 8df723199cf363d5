"""Single statements: one call, one trip to a worker thread, one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import closing
from typing import Any, Final, TypeVar, overload

from ..driver import Change, Executed, Fetch, Parameters, RowFactory, check_parameters, check_sql
from ..pool.settings import check_label
from ..pool.statements import SingleStatements
from ..sql import READS, first_word
from .arguments import checked_timeout
from .guard import check_statement
from .lifecycle import DatabaseLifecycle

__all__ = ["Statements"]

R = TypeVar("R")

# The first words of statements that change the database. WITH may begin either: it reads.
_CHANGES: Final = frozenset({"INSERT", "REPLACE", "UPDATE", "DELETE"})


class Statements(SingleStatements, DatabaseLifecycle):
    """The methods of a `SQLiteDatabase` that run one statement.

    `parameters` is a sequence for `?`, or a mapping for `:name`. `row_factory` makes the rows of this call, as
    `sqlite3.Cursor.row_factory` does; the default is that of the connection. `label` and `timeout` are those of
    `read()` and `write()`.

    A statement that begins with SELECT, VALUES, WITH, PRAGMA or EXPLAIN runs on a reader. One that begins with INSERT,
    REPLACE, UPDATE or DELETE, with a RETURNING clause, runs on the writer, as a transaction of its own.
    """

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
        sql = statement.sql
        kind = self._reader.inline_kind(sql)
        word = "SELECT" if kind is not None else first_word(sql)
        if word not in READS:
            check_statement(sql)
        if word in _CHANGES:
            return self._write(statement, sql, label, timeout)
        self._check_readable()
        return self._reader.run_one(statement, sql, kind, label, checked_timeout(timeout))

    def _change(self, statement: Change, label: str, timeout: float | None) -> Awaitable[Executed]:
        return self._write(statement, statement.sql, label, timeout)

    async def _write(self, fn: Callable[[sqlite3.Connection], R], sql: str, label: str, timeout: float | None) -> R:
        self._check_open()
        check_statement(sql)
        return await self._writer.run(fn, label, timeout=checked_timeout(timeout), retry=True, sql=sql)
