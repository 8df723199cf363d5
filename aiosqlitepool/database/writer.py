"""The one connection that writes: transactions in the order in which their callers came.

A block has the connection for itself. Functions that follow each other share it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

import aiosqlite

from ..driver import call, call_anyway, call_to_the_end
from ..errors import PoolUsageError
from ..pool.lease import Errand
from ..pool.pool import SQLiteConnectionPool
from ..stats import PoolStats, Waiter
from .file import DatabaseFile
from .pipeline import Shares
from .transaction import Transaction

__all__ = ["Writer", "WriterPool"]

R = TypeVar("R")

_BEGIN: Final = "BEGIN IMMEDIATE"


class WriterPool(SQLiteConnectionPool[aiosqlite.Connection]):
    """The pool of the connection that writes, which also knows who shares it, and how large the WAL is."""

    def __init__(self, file: DatabaseFile, *, max_waiting: int | None, **settings: Any) -> None:
        self._file = file
        self.shares: Shares = Shares(self, max_waiting)
        super().__init__(
            file.factory("write"), pool_size=1, min_size=1, idle_timeout=None, max_waiting=max_waiting, **settings
        )

    def lent_for(
        self, transaction: Transaction, label: str | None
    ) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        """The connection, for a function that others may follow; alone, if nobody is there: that is the shorter way."""
        if self._stock.slots.idle and self.shares.are_none:
            return Errand(self._lending, label)
        return self.shares.one(transaction.deadline, label)

    def stats(self) -> PoolStats:
        """The pool at this moment. Safe to call from any thread."""
        stats, waiting = super().stats(), self.waiters()
        return replace(
            stats,
            role="write",
            waiting=len(waiting),
            oldest_waiter=waiting[0].waited if waiting else 0.0,
            wal_bytes=self._file.wal_bytes(),
        )

    def waiters(self) -> tuple[Waiter, ...]:
        """Who queues now, longest first, for its connection or for their turn with it. Safe to call from any thread."""
        now, queue = time.monotonic(), self._stock.slots.queue()
        sharing = self.shares.waiting(now, {attempt.task for attempt in queue})
        sharers = self.shares.holders
        alone = [attempt.waiter(now) for attempt in queue if attempt.task not in sharers]
        return tuple(sorted((*alone, *sharing), key=lambda waiter: -waiter.waited))


class Writer:
    """Writes through the only connection of its pool."""

    def __init__(self, pool: WriterPool, patience: float | None) -> None:
        self.pool = pool
        self._patience = patience
        # The block that is open: its connection, the task that opened it, and how many blocks are open inside it.
        self._connection: aiosqlite.Connection | None = None
        self._owner: asyncio.Task[Any] | None = None
        self._depth = 0

    @property
    def is_mine(self) -> bool:
        """Whether this very task is inside a block."""
        return self._owner is not None and self._owner is asyncio.current_task()

    # -- blocks

    @asynccontextmanager
    async def alone(self, label: str | None) -> AsyncIterator[aiosqlite.Connection]:
        """The connection, without a transaction."""
        if self.is_mine:
            raise PoolUsageError(f"{label}: not possible inside a block that writes; do it after the block")
        await self.pool.shares.end_joining(label)
        async with self.pool.connection(label=label) as connection:
            yield connection

    @asynccontextmanager
    async def block(self, label: str | None) -> AsyncIterator[aiosqlite.Connection]:
        """A transaction around a block; inside a block of the same task, a savepoint."""
        if self.is_mine:
            async with self._savepoint() as connection:
                yield connection
            return
        transaction = Transaction(self.pool, _BEGIN, self._patience, label)
        try:
            async with self.alone(label) as connection:
                await transaction.start(partial(call_to_the_end, connection, transaction.begin))
                self._connection, self._owner = connection, asyncio.current_task()
                try:
                    yield connection
                    await transaction.finish(partial(call_to_the_end, connection, transaction.commit))
                except Exception:
                    # What the block raised is what its caller should see; what is left open the pool will roll back.
                    with contextlib.suppress(Exception):
                        await call(connection, transaction.roll_back)
                    raise
                finally:
                    # A cancelled block is rolled back on its way to the pool, where no cancellation reaches.
                    self._connection = self._owner = None
        finally:
            transaction.tell()

    @asynccontextmanager
    async def _savepoint(self) -> AsyncIterator[aiosqlite.Connection]:
        connection = self._connection
        assert connection is not None
        self._depth += 1
        name = f"block_{self._depth}"
        try:
            await call_to_the_end(connection, _execute, f"SAVEPOINT {name}")
            try:
                yield connection
            except BaseException:
                # Also when cancelled, and cancelled again: whoever set the deadline may go on in the outer block.
                # If there is nothing to go back to any more, the outer block will hear of it when it commits.
                with contextlib.suppress(Exception):
                    await call_anyway(connection, _go_back, name)
                raise
            await call_anyway(connection, _execute, f"RELEASE {name}")
        finally:
            self._depth -= 1

    # -- functions

    async def run(self, fn: Callable[[sqlite3.Connection], R], label: str | None, *, retry: bool) -> R:
        """A transaction around `fn(native)`; inside a block of the same task, a savepoint."""
        if self.is_mine:
            async with self._savepoint() as connection:
                return await call_to_the_end(connection, fn)
        transaction = Transaction(self.pool, _BEGIN, self._patience, label)
        try:
            async with self.pool.lent_for(transaction, label) as connection:
                return await transaction.start(lambda: call_to_the_end(connection, transaction.run, fn), again=retry)
        finally:
            transaction.tell()


def _execute(native: sqlite3.Connection, statement: str) -> None:
    if not native.in_transaction:
        raise PoolUsageError(f"{statement}: SQLite has rolled the transaction back, or its block has ended it")
    native.execute(statement)


def _go_back(native: sqlite3.Connection, savepoint: str) -> None:
    if native.in_transaction:
        try:
            native.execute(f"ROLLBACK TO {savepoint}")
            native.execute(f"RELEASE {savepoint}")
        except BaseException:
            # What cannot be taken back alone must not be committed with the rest.
            native.execute("ROLLBACK")
            raise
