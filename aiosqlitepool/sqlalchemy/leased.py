"""A connection of SQLAlchemy's that holds a lease of a pool while it is checked out."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import aiosqlite

from ..driver import call, call_as_statement, discard
from ..pool.lease import Lease
from .adapted import Adapted
from .options import label_of, role_of

__all__ = ["Leased"]

# The isolation level that a connection had when SQLAlchemy used it first: an attribute of the factory's connection.
_AT_FIRST = "_aiosqlitepool_isolation_level"


class Leased(Adapted):
    """Works with the connection of a lease; without a lease, with one that no pool of this package has."""

    __slots__ = ("_lease", "number", "was_cancelled")

    _connection: Any

    def __init__(self, connection: aiosqlite.Connection, lease: Lease[aiosqlite.Connection] | None = None) -> None:
        self._connection = connection
        self._lease = lease
        # The number of the connection in its pool, which every lease of it has.
        self.number: int = 0 if lease is None else lease.connection
        # Whether SQLAlchemy gives it up because a task was cancelled: the pool can go on with the connection.
        self.was_cancelled: bool = False

    # -- leases

    def check(self) -> None:
        """Raise `TypeError` unless this is a connection of aiosqlite."""
        if not isinstance(self._connection, aiosqlite.Connection):
            kind = type(self._connection).__name__
            raise TypeError(f"SQLAlchemy needs a pool of aiosqlite connections, not of {kind}")

    def take_over(self, other: Leased) -> None:
        """Hold the lease that another one has of the same connection."""
        self._lease, self._connection = other._lease, other._connection
        other._take()

    def _take(self) -> Lease[aiosqlite.Connection] | None:
        """Let go of the lease and of its handle."""
        lease, self._lease, self._connection = self._lease, None, None
        return lease

    async def give_back(self) -> None:
        """End the lease."""
        lease = self._take()
        assert lease is not None, "what SQLAlchemy checks in was checked out"
        await lease.__aexit__(None, None, None)

    async def end(self) -> None:
        """Close the connection and release it, for the pool to replace it. A cancelled statement costs none."""
        connection, lease = self._connection, self._take()
        try:
            if lease is None or not self.was_cancelled:
                with suppress(Exception):  # it is broken, or was taken from its holder
                    await connection.interrupt()
                    await connection.close()
        finally:
            if lease is not None:
                await lease.__aexit__(None, None, None)

    def forget(self) -> None:
        """Let the pool notice that the handle is gone: it reclaims the connection and reports the leak."""
        connection, lease = self._connection, self._take()
        if lease is None:
            discard(connection)
        else:
            lease.keep_nothing()

    async def restore(self) -> None:
        """Restore the isolation level of a connection that SQLAlchemy has used before and given up."""
        connection = self._connection
        if not hasattr(connection, _AT_FIRST):
            setattr(connection, _AT_FIRST, connection.isolation_level)
        elif connection.isolation_level != getattr(connection, _AT_FIRST):
            await call(connection, _set_isolation_level, getattr(connection, _AT_FIRST))

    # -- statements

    @property
    def _open(self) -> Any:
        if self._connection is None:
            raise sqlite3.ProgrammingError("this connection was released to its pool")
        return self._connection

    async def run(
        self, sql: str, fn: Callable[[sqlite3.Connection], list[Any]], options: Mapping[str, Any]
    ) -> list[Any]:
        """Run `fn(native)`, which executes the statement `sql`, in one trip to the worker thread."""
        connection = self._open
        self._note_label(options)
        if role_of(options) == "write":
            fn = partial(_run_immediately, fn)
        return await call_as_statement(connection, sql, fn)

    async def stream(self, sql: str, parameters: Any, many: bool, options: Mapping[str, Any]) -> aiosqlite.Cursor:
        """Execute a statement whose rows are fetched as they are needed."""
        connection = self._open
        self._note_label(options)
        if role_of(options) == "write":
            await call(connection, _begin_immediately)
        cursor: aiosqlite.Cursor = await (connection.executemany if many else connection.execute)(sql, parameters)
        return cursor

    def _note_label(self, options: Mapping[str, Any]) -> None:
        label = label_of(options)
        if label is not None and self._lease is not None:
            self._lease.label = label

    # -- what SQLAlchemy calls. Nothing is in flight then: the state of the connection is known without a trip.

    def commit(self) -> None:
        """Commit what was changed."""
        if self._open.in_transaction:
            self.wait_for(self._connection.commit())

    def rollback(self) -> None:
        """Roll back what was changed."""
        connection = self._connection
        if connection is not None and connection._connection is not None and connection.in_transaction:
            self.wait_for(connection.rollback())

    def create_function(self, *args: Any, **kwargs: Any) -> None:
        """Make a Python function known to SQL."""
        self.wait_for(self._open.create_function(*args, **kwargs))

    @property
    def isolation_level(self) -> str | None:
        """`None` if each statement commits by itself."""
        level: str | None = self._open.isolation_level
        return level

    @isolation_level.setter
    def isolation_level(self, value: str | None) -> None:
        self.wait_for(call(self._open, _set_isolation_level, value))


def _set_isolation_level(native: sqlite3.Connection, value: Any) -> None:
    native.isolation_level = value


def _begin_immediately(native: sqlite3.Connection) -> None:
    if not native.in_transaction and native.isolation_level is not None:
        native.execute("BEGIN IMMEDIATE").close()


def _run_immediately(fn: Callable[[sqlite3.Connection], list[Any]], native: sqlite3.Connection) -> list[Any]:
    _begin_immediately(native)
    return fn(native)
