"""What connections of SQLAlchemy have in common, whether they hold a lease or a block of a database."""

from __future__ import annotations

import sqlite3
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import aiosqlite
from sqlalchemy import exc
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from ..errors import ConnectionBrokenError, PoolConnectionAcquireTimeoutError, PoolFullError
from .cursors import BufferedCursor, StreamCursor
from .options import NO_OPTIONS

__all__ = ["Adapted", "acquired"]

R = TypeVar("R")

# aiosqlite's own words. SQLAlchemy's dialect recognizes a lost connection by them.
_CLOSED = ("no active connection", "connection closed")


class Adapted(AdaptedConnection):
    """A connection of the DBAPI over aiosqlite. Its methods are called in a greenlet of SQLAlchemy's."""

    __slots__ = ()

    _connection: Any

    # -- what a subclass does

    @abstractmethod
    async def run(
        self, sql: str, fn: Callable[[sqlite3.Connection], list[Any]], options: Mapping[str, Any]
    ) -> list[Any]:
        """Run `fn(native)`, which executes the statement `sql`, in the worker thread."""
        ...

    @abstractmethod
    async def stream(self, sql: str, parameters: Any, many: bool, options: Mapping[str, Any]) -> aiosqlite.Cursor:
        """Execute a statement whose rows are fetched as they are needed."""
        ...

    @property
    def is_lent(self) -> bool:
        """Whether it holds a connection."""
        return self._connection is not None

    @abstractmethod
    async def end(self) -> None:
        """Release the connection, whose state is not known."""
        ...

    @abstractmethod
    def forget(self) -> None:
        """Release what the connection holds, without waiting for that. Safe in any thread."""
        ...

    # -- what SQLAlchemy calls

    def cursor(self, server_side: bool = False, options: Mapping[str, Any] = NO_OPTIONS) -> Any:
        """Return a new cursor, whose statements have these execution options."""
        return StreamCursor(self, options) if server_side else BufferedCursor(self, options)

    def execute(self, operation: str, parameters: Any = None) -> Any:
        """Execute a statement with a new cursor."""
        return self.cursor().execute(operation, parameters)

    def close(self) -> None:
        """Release what the connection holds."""
        if not self.is_lent:
            return  # an event of the pool may close it, where nothing can be awaited
        if in_greenlet():
            self.wait_for(self.end())
        else:
            self.forget()

    def terminate(self) -> None:
        """Called by SQLAlchemy for a connection that it gives up, perhaps because it was garbage collected."""
        self.close()

    def wait_for(self, awaitable: Awaitable[R]) -> R:
        """Await, and turn errors into those that SQLAlchemy knows."""
        try:
            return await_only(awaitable)
        except ConnectionBrokenError as error:
            raise sqlite3.OperationalError(f"connection closed: {error}") from error
        except ValueError as error:
            if str(error).lower() in _CLOSED:
                raise sqlite3.OperationalError(str(error)) from error
            raise


async def acquired(entering: Awaitable[R]) -> R:
    """Await a connection of a pool. Raises SQLAlchemy's `TimeoutError`, with the pool's diagnosis, if there is none."""
    try:
        return await entering
    except (PoolConnectionAcquireTimeoutError, PoolFullError) as error:
        raise exc.TimeoutError(str(error), code="3o7r") from error
