"""The reader connections: as many reads at a time as there are connections, in parallel with the writer."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import aiosqlite

from ..driver import call
from ..pool.checkout import Checkout
from ..pool.lease import Lease
from ..pool.pool import SQLiteConnectionPool
from ..pool.settings import check_label, check_timeout
from ..stats import PoolStats
from .file import DatabaseFile
from .transaction import Transaction

__all__ = ["Reader", "ReaderPool"]

R = TypeVar("R")

_NOTE = "a connection that reads cannot write: use write() or run_write()"


class _ReaderLease(Lease[aiosqlite.Connection]):
    """A lease that adds a note to the error of a holder that tries to write."""

    __slots__ = ()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # SQLite's message, "attempt to write a readonly database", suggests wrong file permissions. Wrong permissions
        # have extended error codes: they get no note. An inner block may have added the note already.
        code = getattr(error, "sqlite_errorcode", None) if isinstance(error, sqlite3.Error) else None
        if error is not None and code == sqlite3.SQLITE_READONLY and _NOTE not in getattr(error, "__notes__", ()):
            error.add_note(_NOTE)
        await super().__aexit__(kind, error, trace)


class ReaderPool(SQLiteConnectionPool[aiosqlite.Connection]):
    """The pool of the reader connections."""

    def __init__(self, file: DatabaseFile, **settings: Any) -> None:
        self.session_sql: Sequence[str] = file.session_sql("read")
        super().__init__(file.factory("read"), **settings)

    def connection(self, *, label: str | None = None, timeout: float | None = None) -> Lease[aiosqlite.Connection]:
        """Acquire a reader connection for an `async with` block, as `SQLiteConnectionPool.connection()` does."""
        if timeout is not None:
            timeout = check_timeout("timeout", timeout)
        return _ReaderLease(self._acquirer, self._releaser, check_label(label), timeout)

    def stats(self) -> PoolStats:
        """Return the pool's current state. Safe to call from any thread."""
        return replace(super().stats(), role="read")

    def hold(self) -> None:
        """Let those that have a connection go on, and all others wait, until `resume()`."""
        self._inventory.hold()

    def resume(self) -> None:
        """End a hold. Harmless if there is none."""
        self._inventory.resume()

    def reading(self) -> list[Checkout[Any]]:
        """Return the holders whose connection may have a snapshot open."""
        slots = ((holder, holder.slot) for holder in self._diagnostics.checkouts())
        return [it for it, slot in slots if slot is not None and slot.connection and slot.connection.adapter.may_read]


class Reader:
    """Runs read blocks and functions on the connections of one pool.

    `timeout` is the default of each call, `max_age` the longest duration of a read: in seconds, `None` for no limit.
    """

    def __init__(self, pool: ReaderPool, timeout: float | None, max_age: float | None) -> None:
        self.pool = pool
        self._timeout = timeout
        self._max_age = max_age

    def block(
        self, label: str | None, timeout: float | None, *, snapshot: bool
    ) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        """Return a context manager that yields a connection, with `snapshot` inside a read transaction."""
        if snapshot:
            return self._snapshot(label, timeout)
        lease = self.pool.connection(label=label, timeout=timeout)
        return lease if self._max_age is None else self._limited(lease)

    @asynccontextmanager
    async def _limited(self, lease: Lease[aiosqlite.Connection]) -> AsyncIterator[aiosqlite.Connection]:
        # The time limit is inside the lease: the release then resets what the limit interrupted.
        async with lease as connection, self._age_limit():
            yield connection

    @asynccontextmanager
    async def _snapshot(self, label: str | None, timeout: float | None) -> AsyncIterator[aiosqlite.Connection]:
        transaction = self._transaction(label, timeout)
        try:
            async with self._limited(self.pool.connection(label=label, timeout=timeout)) as connection:
                await transaction.start(partial(call, connection, transaction.begin_reading))
                try:
                    yield connection
                    await call(connection, transaction.commit)
                except Exception:
                    with contextlib.suppress(Exception):  # the caller gets the error of the block
                        await call(connection, transaction.roll_back)
                    raise
        finally:
            transaction.emit()

    def _transaction(self, label: str | None, timeout: float | None) -> Transaction:
        return Transaction(self.pool, "BEGIN", self._timeout if timeout is None else timeout, label)

    async def run(
        self, fn: Callable[[sqlite3.Connection], R], label: str | None, *, timeout: float | None, retry: bool
    ) -> R:
        """Run `fn(native)` as one read transaction, in one call to the worker thread. A cancellation interrupts it."""
        transaction = self._transaction(label, timeout)
        try:
            async with self._limited(self.pool.connection(label=label, timeout=timeout)) as connection:
                return await transaction.start(lambda: call(connection, transaction.run, fn), retry=retry)
        finally:
            transaction.emit()

    @asynccontextmanager
    async def _age_limit(self) -> AsyncIterator[None]:
        """Raise `TimeoutError` in a block that reads for too long: an open snapshot keeps the WAL from shrinking."""
        scope = asyncio.timeout(self._max_age)
        try:
            async with scope:
                yield
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise TimeoutError(
                f"pool {self.pool.name!r}: a read was open for longer than reader_max_age={self._max_age} s. Raise "
                "reader_max_age or split the read"
            ) from error
