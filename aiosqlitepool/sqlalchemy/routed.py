"""A connection of SQLAlchemy's over a `SQLiteDatabase`: it holds nothing until the first statement of a transaction."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any, Final

import aiosqlite

from ..database import SQLiteDatabase
from ..driver import call, call_as_statement
from ..errors import PoolUsageError
from ..sql import normalized
from .adapted import Adapted, acquired
from .options import label_of, role_of
from .routing import needs_writer, reads_schema

__all__ = ["Routed"]

_SAY: Final = (
    'Say before its first statement that it writes: `session.connection(execution_options={"sqlite_role": "write"})`, '
    'or use an engine for transactions that write, `engine.execution_options(sqlite_role="write")`'
)
# The functions that were created on a connection: an attribute of the native connection.
_FUNCTIONS: Final = "_aiosqlitepool_functions"


class _RollBackError(Exception):
    """Ends a block of a database without a commit; never leaves this module."""


class Routed(Adapted):
    """Takes a reader, or the writer, for the first statement of a transaction, until commit or rollback."""

    __slots__ = ("_block", "_db", "_functions", "_is_set_up", "_lock", "_loop", "_writes", "level")

    def __init__(self, db: SQLiteDatabase) -> None:
        self._connection: Any = None
        self._db = db
        self._loop = asyncio.get_running_loop()
        # Statements that are executed at the same time must not take two connections.
        self._lock = asyncio.Lock()
        self._block: AbstractAsyncContextManager[aiosqlite.Connection] | None = None
        self._writes = False
        # READ UNCOMMITTED is SERIALIZABLE, as in each database without a shared cache.
        self.level: str = "SERIALIZABLE"
        self._functions: dict[tuple[str, int], partial[None]] = {}
        self._is_set_up = False

    def begin(self) -> None:
        """Allow statements: the `connect` event is over."""
        self._is_set_up = True

    # -- transactions

    async def _enter(self, sql: str, options: Mapping[str, Any]) -> aiosqlite.Connection:
        """Return the connection that this transaction has, or gets for this statement."""
        role = role_of(options)
        writes = role == "write" or needs_writer(sql)
        if writes and not self._writes and (role == "read" or (self._block is not None and role != "upgrade")):
            raise _too_late(sql, role)
        if writes and not self._writes:
            await self._leave(None)  # a reader, which would be kept from others while this waits for the writer
        if self._block is None:
            await self._begin(writes, label_of(options))
        connection: aiosqlite.Connection = self._connection
        return connection

    async def _begin(self, writes: bool, label: str | None) -> None:
        if writes and self._db._writer.in_own_block:
            raise PoolUsageError(
                "this task has a transaction open that writes, and a second one would never get its turn: commit the "
                "other session or write() block first, or use it"
            )
        block = self._db.write(label) if writes else self._db.read(label)
        self._connection = await acquired(block.__aenter__())
        self._block, self._writes = block, writes

    async def _leave(self, error: BaseException | None) -> None:
        """End the block: commit without an error, roll back with one."""
        block, self._block, self._connection, self._writes = self._block, None, None, False
        if block is not None:
            # It does not raise `error` itself: a context manager leaves that to the `async with` statement.
            await block.__aexit__(None if error is None else type(error), error, None)

    async def end(self) -> None:
        """Roll back. What runs is interrupted, as when a task is cancelled."""
        await self._leave(asyncio.CancelledError())

    def forget(self) -> None:
        """Roll back in a task of its own."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self.end()))

    # -- statements

    async def run(
        self, sql: str, fn: Callable[[sqlite3.Connection], list[Any]], options: Mapping[str, Any]
    ) -> list[Any]:
        """Run `fn(native)`, which executes the statement `sql`, where it belongs."""
        self._check_set_up(sql)
        fn = partial(_run, fn, self._functions, reads_schema(sql))
        async with self._lock:
            if self._block is None and (self.level == "AUTOCOMMIT" or self._decides_nothing(sql, options)):
                return await self._run_alone(sql, fn, options)
            connection = await self._enter(sql, options)
            try:
                return await call_as_statement(connection, sql, fn)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_READONLY and not self._writes:
                    raise _too_late(sql, role_of(options)) from error
                raise

    async def stream(self, sql: str, parameters: Any, many: bool, options: Mapping[str, Any]) -> aiosqlite.Cursor:
        """Execute a statement whose rows are fetched as they are needed; they keep the connection."""
        self._check_set_up(sql)
        async with self._lock:
            connection = await self._enter(sql, options)
            await call(connection, _create_functions, self._functions)
            return await (connection.executemany if many else connection.execute)(sql, parameters)

    def _decides_nothing(self, sql: str, options: Mapping[str, Any]) -> bool:
        return role_of(options) != "write" and reads_schema(sql) and not needs_writer(sql)

    async def _run_alone(
        self, sql: str, fn: Callable[[sqlite3.Connection], list[Any]], options: Mapping[str, Any]
    ) -> list[Any]:
        """Run a statement as a transaction of its own, in one trip."""
        label = label_of(options)
        if needs_writer(sql):
            return await acquired(self._db._write(fn, sql, label or "autocommit", None))
        self._db._check_readable()
        reader = self._db._reader
        return await acquired(reader.run_one(fn, sql, reader.inline_kind(sql), label, None))

    def _check_set_up(self, sql: str) -> None:
        if not self._is_set_up:
            raise PoolUsageError(
                f"a listener of `connect` executed {sql!r}: over a SQLiteDatabase, what SQLAlchemy connects has no "
                "connection yet. Set pragmas by SQLiteDatabase(pragmas={...}), and all else by its on_connect"
            )

    # -- what SQLAlchemy calls

    def commit(self) -> None:
        """Commit, and release the connection."""
        self.wait_for(self._leave(None))

    def rollback(self) -> None:
        """Roll back, and release the connection."""
        self.wait_for(self._leave(_RollBackError()))

    def create_function(self, name: str, narg: int, func: Callable[..., Any], deterministic: bool = False) -> None:
        """Make a Python function known to SQL, on each connection that this one gets."""
        self._functions[name, narg] = partial(_create_function, name, narg, func, deterministic)

    @property
    def isolation_level(self) -> str | None:
        """`None` if each statement is a transaction of its own."""
        return None if self.level == "AUTOCOMMIT" else ""

    @isolation_level.setter
    def isolation_level(self, value: str | None) -> None:
        self.level = "AUTOCOMMIT" if value is None else "SERIALIZABLE"


def _run(
    fn: Callable[[sqlite3.Connection], list[Any]],
    functions: Mapping[tuple[str, int], partial[None]],
    reads_schema: bool,
    native: sqlite3.Connection,
) -> list[Any]:
    _create_functions(native, functions)
    if reads_schema:
        # PRAGMA foreign_key_list and index_list do not look whether another connection has changed the schema.
        native.execute("SELECT 1 FROM sqlite_schema LIMIT 1").close()
    return fn(native)


def _create_functions(native: sqlite3.Connection, functions: Mapping[tuple[str, int], partial[None]]) -> None:
    created = getattr(native, _FUNCTIONS, None)
    if created is None:
        created = set()
        with suppress(AttributeError):  # a class without a __dict__: they are created each time
            setattr(native, _FUNCTIONS, created)
    for which, create in functions.items():
        if which not in created:
            create(native)
            created.add(which)


def _create_function(
    name: str, narg: int, func: Callable[..., Any], deterministic: bool, native: sqlite3.Connection
) -> None:
    native.create_function(name, narg, func, deterministic=deterministic)


def _too_late(sql: str, role: str) -> PoolUsageError:
    statement = normalized(sql)
    if role == "read":
        return PoolUsageError(f'a transaction with sqlite_role="read" cannot write: {statement}')
    return PoolUsageError(
        f"this transaction began with a read, on a connection that only reads, and now writes: {statement}. {_SAY}. "
        'sqlite_role="upgrade" gives it the writer now, although what it has read may have changed meanwhile'
    )
