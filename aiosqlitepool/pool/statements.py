"""Single statements: `fetch_all()` and the like, of a pool and of a database; and how a pool runs them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final

from ..driver import Change, Connection, Executed, Fetch, Parameters, RowFactory, Statement, raw_row, run_alone
from ..errors import PoolUsageError
from ..sql import first_word
from .lease import Lease
from .lifecycle import PoolLifecycle
from .settings import check_label

__all__ = ["PoolStatements", "SingleStatements"]

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # What a row is that no row factory of the call makes.
    R = TypeVar("R", default=Any)
else:
    from typing import TypeVar

    R = TypeVar("R")

C = TypeVar("C", bound=Connection)

# What begins or ends a transaction: nothing that a statement can do alone.
_NEED_BLOCK: Final = frozenset({"BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"})


class SingleStatements:
    """The methods that run one statement, as a transaction of its own."""

    @abstractmethod
    def _fetch(self, statement: Fetch, label: str, timeout: float | None) -> Awaitable[list[Any]]:
        """Run a statement, and return its rows."""
        ...

    @abstractmethod
    def _change(self, statement: Change, label: str, timeout: float | None) -> Awaitable[Executed]:
        """Run a statement, and return what it changed."""
        ...

    async def fetch_all(
        self, sql: str, parameters: Parameters = (), *, row_factory: RowFactory[R] | None = None,
        label: str | None = None, timeout: float | None = None,
    ) -> list[R]:  # fmt: skip
        """Run one statement and read its rows, commit what it changed; return all rows.

        A connection is acquired for it, and released: of a `SQLiteDatabase` a reader, or the writer for INSERT,
        REPLACE, UPDATE and DELETE. If it fails, or is cancelled before its commit has begun, its change is rolled back.

        Args:
            sql: one statement.
            parameters: a sequence for `?`, or a mapping for `:name`.
            row_factory: makes the rows of this call, as `sqlite3.Cursor.row_factory` does; the connection's own if not
                given.
            label: what for, in diagnoses, events and spans; the name of this method if not given.
            timeout: seconds to wait for a connection, instead of `acquisition_timeout`.

        Raises `TypeError` or `ValueError` for an invalid argument, `PoolUsageError` for a statement that begins or ends
        a transaction, the errors of acquiring a connection, and those of the driver.
        """
        return await self._fetch(Fetch(sql, parameters, row_factory), check_label(label) or "fetch_all", timeout)

    async def fetch_one(
        self, sql: str, parameters: Parameters = (), *, row_factory: RowFactory[R] | None = None,
        label: str | None = None, timeout: float | None = None,
    ) -> R | None:  # fmt: skip
        """Do the same as `fetch_all()`, but return the first row, `None` if there is none."""
        statement = Fetch(sql, parameters, row_factory, most=1)
        rows = await self._fetch(statement, check_label(label) or "fetch_one", timeout)
        return rows[0] if rows else None

    async def fetch_val(
        self, sql: str, parameters: Parameters = (), *, label: str | None = None, timeout: float | None = None
    ) -> Any:
        """Do the same as `fetch_all()`, but return the first column of the first row, `None` if there is none."""
        label = check_label(label) or "fetch_val"
        row = await self.fetch_one(sql, parameters, row_factory=raw_row, label=label, timeout=timeout)
        return None if row is None else row[0]

    async def execute(
        self, sql: str, parameters: Parameters = (), *, label: str | None = None, timeout: float | None = None
    ) -> Executed:
        """Do the same as `fetch_all()`, but return what the statement changed.

        A `SQLiteDatabase` runs it on the writer; inside the task's own `write()` block, in a savepoint.
        """
        return await self._change(Change(sql, parameters), check_label(label) or "execute", timeout)


class PoolStatements(SingleStatements, PoolLifecycle[C]):
    """Runs single statements on any connection of a pool."""

    @abstractmethod
    def connection(self, label: str | None = None, *, timeout: float | None = None) -> Lease[C]:
        """Acquire a connection for an `async with` block."""
        ...

    async def _run_alone(self, statement: Statement[R], label: str, timeout: float | None) -> R:
        if (word := first_word(statement.sql)) in _NEED_BLOCK:
            raise PoolUsageError(
                f"{word} cannot run alone: the connection is released behind it. Use `async with pool.connection()` "
                "for a transaction of several statements"
            )
        async with self.connection(label, timeout=timeout) as connection:
            return await run_alone(connection, statement)

    _fetch = _change = _run_alone
