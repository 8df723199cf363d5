"""One statement alone: check it, run it, read its rows, commit it. For aiosqlite, one trip to the worker thread.

A `Fetch` or a `Change`, called with a native connection, runs in the thread that may use it. `run_alone` runs in the
event loop, with a connection of any driver.
"""

from __future__ import annotations

import inspect
import sqlite3
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, Final, Generic, NamedTuple, TypeVar

import aiosqlite

from ..sql import first_word
from .handle import ReadsAhead

__all__ = [
    "Change",
    "Executed",
    "Fetch",
    "Parameters",
    "RowFactory",
    "Statement",
    "call_as_statement",
    "check_sql",
    "raw_row",
    "run_alone",
]

R = TypeVar("R")
Parameters = Sequence[Any] | Mapping[str, Any]
RowFactory = Callable[[sqlite3.Cursor, Any], R]

# The first words of statements that leave nothing to commit. WITH may begin any.
_READS: Final = frozenset({"SELECT", "VALUES", "PRAGMA", "EXPLAIN"})


class Executed(NamedTuple):
    """What a statement changed.

    `rows` is the number of rows that it inserted, updated or deleted, and -1 for other statements. `last_row_id` is the
    rowid of the last row that its connection has inserted, `None` if there is none.
    """

    rows: int
    last_row_id: int | None


class Statement(Generic[R]):
    """A statement with its parameters. Raises `TypeError` for an argument of another kind.

    Called with a native connection, it runs there, in the thread that may use it.
    """

    __slots__ = ("_parameters", "sql")

    def __init__(self, sql: str, parameters: Parameters) -> None:
        self.sql: str = check_sql(sql)
        self._parameters = parameters if type(parameters) is tuple else check_parameters(parameters)

    @abstractmethod
    def __call__(self, native: sqlite3.Connection, /) -> R:
        """Run it, in the worker thread."""
        ...

    @abstractmethod
    async def run_with(self, connection: Any) -> R:
        """Run it through the methods of a connection of any driver, whose cursors have `fetchall` and `fetchone`."""
        ...

    async def _execute(self, connection: Any) -> Any:
        # Without parameters if there are none: a driver's execute() may take none.
        given = (self._parameters,) if len(self._parameters) else ()
        return await connection.execute(self.sql, *given)


class Fetch(Statement[list[Any]]):
    """A statement of which `most` rows are wanted, `None` for all. Returns them as a list, made by `row_factory`."""

    __slots__ = ("_most", "_row_factory")

    def __init__(
        self, sql: str, parameters: Parameters, row_factory: RowFactory[Any] | None = None, most: int | None = None
    ) -> None:
        if row_factory is not None and not callable(row_factory):
            kind = type(row_factory).__name__
            raise TypeError(f"row_factory must be callable or None, not {row_factory!r} ({kind})")
        super().__init__(sql, parameters)
        self._row_factory = row_factory
        self._most = most

    def __call__(self, native: sqlite3.Connection, /) -> list[Any]:
        """Run it, in the worker thread."""
        cursor = native.cursor()
        try:
            if self._row_factory is not None:
                cursor.row_factory = self._row_factory
            # The result of execute(): a tracer's cursor has the rows elsewhere. A list: the rows are counted.
            found = cursor.execute(self.sql, self._parameters)
            return found.fetchall() if self._most is None else found.fetchmany(self._most)
        finally:
            cursor.close()

    async def run_with(self, connection: Any) -> list[Any]:
        """Run it through the methods of a connection of any driver."""
        cursor, factory = await self._execute(connection), self._row_factory
        makes_rows = hasattr(cursor, "row_factory")
        if factory is not None and makes_rows:
            cursor.row_factory = factory
        if self._most is None:
            rows = list(await cursor.fetchall())
        else:
            rows = [row for _ in range(self._most) if (row := await cursor.fetchone()) is not None]
            await _close(cursor)  # half-read, it could prevent the commit
        return rows if factory is None or makes_rows else [factory(cursor, row) for row in rows]


class Change(Statement[Executed]):
    """A statement of which it is wanted what it changed."""

    __slots__ = ()

    def __call__(self, native: sqlite3.Connection, /) -> Executed:
        """Run it, in the worker thread."""
        with closing(native.cursor()) as cursor:
            cursor.execute(self.sql, self._parameters).fetchall()  # of RETURNING: unread rows would block the commit
            return Executed(cursor.rowcount, cursor.lastrowid)

    async def run_with(self, connection: Any) -> Executed:
        """Run it through the methods of a connection of any driver."""
        cursor = await self._execute(connection)
        if getattr(cursor, "description", ()) is not None:
            await cursor.fetchall()
        return Executed(getattr(cursor, "rowcount", -1), getattr(cursor, "lastrowid", None))


def check_parameters(parameters: Parameters) -> Parameters:
    """Return `parameters` if they are a tuple, a list or a mapping."""
    if isinstance(parameters, str | bytes) or not hasattr(parameters, "__getitem__"):
        kind = type(parameters).__name__
        raise TypeError(
            f"parameters must be a tuple, a list or a mapping, not {parameters!r} ({kind}): a tuple of one value "
            "is written (value,)"
        )
    return parameters


def check_sql(sql: object) -> str:
    """Return `sql` if it is a string."""
    if not isinstance(sql, str):
        raise TypeError(f"sql must be a str, not {sql!r} ({type(sql).__name__})")
    return sql


def raw_row(_: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the row as it is: a row factory for a tuple, whatever the connection's own makes."""
    return row


# -- in the event loop


async def run_alone(connection: Any, statement: Statement[R]) -> R:
    """Run a statement with a connection that has no open transaction, and commit what it changed.

    If that fails, or is cancelled before the commit has begun, the change is left to the release to roll back.
    """
    kind: Any = type(connection)
    if issubclass(kind, ReadsAhead) and kind.commit is aiosqlite.Connection.commit:  # nothing of the program's own
        return await _in_one_trip(connection, statement)
    result = await statement.run_with(connection)
    if first_word(statement.sql) not in _READS and getattr(connection, "in_transaction", True):
        # A driver without commit() begins no transaction by itself.
        commit = getattr(connection, "commit", None)
        if commit is not None:
            await commit()
    return result


async def _in_one_trip(connection: Any, statement: Statement[R]) -> R:
    adapter, is_open = connection._pool_adapter, False

    def run(native: sqlite3.Connection) -> R:
        nonlocal is_open
        result = statement(native)
        if native.in_transaction and not adapter.running.done():  # as is the future of a caller that was cancelled
            native.commit()
        is_open = native.in_transaction
        return result

    result = await call_as_statement(connection, statement.sql, run)
    if is_open and first_word(statement.sql) not in _READS:
        # With autocommit=False, where a transaction is always open, `Unsaved` notes commits that are operations.
        await connection.commit()
    return result


async def call_as_statement(connection: aiosqlite.Connection, sql: str, fn: Callable[[sqlite3.Connection], R]) -> R:
    """Run `fn(native)`, which executes the statement `sql`, in the worker thread of this connection.

    It runs under the name of `execute()`, with the same first argument: it is recorded, and a pragma is noticed.
    """

    def execute(_: str, native: sqlite3.Connection) -> R:
        return fn(native)

    result: R = await connection._execute(execute, sql, connection._conn)  # type: ignore[no-untyped-call]
    return result


async def _close(cursor: Any) -> None:
    closed = getattr(cursor, "close", lambda: None)()
    if inspect.isawaitable(closed):
        await closed
