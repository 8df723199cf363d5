"""The connections that read: as many at once as there are, never waiting for the one that writes."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TypeVar

import aiosqlite

from ..driver import call
from ..pool.lease import Errand, Lease
from ..pool.pool import SQLiteConnectionPool
from ..pool.settings import check_label
from ..stats import PoolStats
from .transaction import Transaction

__all__ = ["Reader", "ReaderPool"]

R = TypeVar("R")

_BEGIN = "BEGIN"

_NOTE = "a connection that reads cannot write: use write() or run_write()"


class _ReadingLease(Lease[aiosqlite.Connection]):
    """A lease whose holder is told why it could not write."""

    __slots__ = ()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # SQLite says "readonly database", which sends people to look at the permissions of the file; its extended codes
        # tell of those indeed. The note is there if a block within this one has made it.
        code = getattr(error, "sqlite_errorcode", None) if isinstance(error, sqlite3.Error) else None
        if error is not None and code == sqlite3.SQLITE_READONLY and _NOTE not in getattr(error, "__notes__", ()):
            error.add_note(_NOTE)
        await super().__aexit__(kind, error, trace)


class _ReadingErrand(Errand[aiosqlite.Connection], _ReadingLease):
    """The same for one function, whose caller never gets the connection."""

    __slots__ = ()


class ReaderPool(SQLiteConnectionPool[aiosqlite.Connection]):
    """The pool of the connections that read, which says so."""

    def connection(self, *, label: str | None = None) -> Lease[aiosqlite.Connection]:
        """Borrow a connection that reads, as from any pool."""
        return _ReadingLease(self._lending, check_label(label))

    def lent_for(self, label: str | None) -> Lease[aiosqlite.Connection]:
        """A connection for a function."""
        return _ReadingErrand(self._lending, label)

    def stats(self) -> PoolStats:
        """The pool at this moment. Safe to call from any thread."""
        return replace(super().stats(), role="read")


class Reader:
    """Reads through the connections of its pool."""

    def __init__(self, pool: ReaderPool, patience: float | None, max_age: float | None) -> None:
        self.pool = pool
        self._patience = patience
        self._max_age = max_age

    def block(self, label: str | None, *, snapshot: bool) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        """A connection that reads; with `snapshot`, all of the block sees the same moment."""
        if snapshot:
            return self._snapshot(label)
        lease = self.pool.connection(label=label)
        return lease if self._max_age is None else self._bounded(lease)

    @asynccontextmanager
    async def _bounded(self, lease: Lease[aiosqlite.Connection]) -> AsyncIterator[aiosqlite.Connection]:
        # Inside the lease, so that its end gives back what the block was interrupted at.
        async with lease as connection, self._not_for_ever():
            yield connection

    @asynccontextmanager
    async def _snapshot(self, label: str | None) -> AsyncIterator[aiosqlite.Connection]:
        transaction = Transaction(self.pool, _BEGIN, self._patience, label)
        try:
            async with self._bounded(self.pool.connection(label=label)) as connection:
                await transaction.start(partial(call, connection, transaction.begin_reading))
                try:
                    yield connection
                    await call(connection, transaction.commit)
                except Exception:
                    with contextlib.suppress(Exception):  # the block's own error is what its caller should see
                        await call(connection, transaction.roll_back)
                    raise
        finally:
            transaction.tell()

    async def run(self, fn: Callable[[sqlite3.Connection], R], label: str | None, *, retry: bool) -> R:
        """A transaction around `fn(native)`, in one trip; cancelled, it is interrupted."""
        transaction = Transaction(self.pool, _BEGIN, self._patience, label)
        try:
            async with self._bounded(self.pool.lent_for(label)) as connection:
                return await transaction.start(lambda: call(connection, transaction.run, fn), again=retry)
        finally:
            transaction.tell()

    @asynccontextmanager
    async def _not_for_ever(self) -> AsyncIterator[None]:
        """Bound a block: what is read for too long keeps the WAL from being folded into the database."""
        scope = asyncio.timeout(self._max_age)
        try:
            async with scope:
                yield
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise TimeoutError(
                f"pool {self.pool.name!r}: a block that reads was open for longer than reader_max_age={self._max_age} s"
            ) from error
