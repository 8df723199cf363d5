"""The one connection that writes: transactions in the order in which their callers came.

A block has the connection for itself. Functions that follow each other share it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import aiosqlite

from ..driver import call, call_to_the_end
from ..errors import PoolUsageError
from .shares import Shares
from .transaction import Pool, Transaction

__all__ = ["Writer"]

R = TypeVar("R")

_BEGIN = "BEGIN IMMEDIATE"


class Writer:
    """Writes through the only connection of its pool."""

    def __init__(self, pool: Pool, patience: float | None) -> None:
        self.pool = pool
        self._patience = patience
        self.shares = Shares(pool)
        # The block that is open: its connection, the task that opened it, and how many blocks are open inside it.
        self._connection: aiosqlite.Connection | None = None
        self._owner: asyncio.Task[Any] | None = None
        self._depth = 0

    @property
    def _is_mine(self) -> bool:
        return self._owner is not None and self._owner is asyncio.current_task()

    # -- blocks

    @asynccontextmanager
    async def alone(self, label: str | None) -> AsyncIterator[aiosqlite.Connection]:
        """The connection, without a transaction."""
        self.shares.stop_joining()
        async with self.pool.connection(label=label) as connection:
            yield connection

    @asynccontextmanager
    async def block(self, label: str | None) -> AsyncIterator[aiosqlite.Connection]:
        """A transaction around a block; inside a block of the same task, a savepoint."""
        if self._is_mine:
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
                # Also when cancelled: whoever set the deadline may go on in the outer block.
                await call_to_the_end(connection, _execute, f"ROLLBACK TO {name}", f"RELEASE {name}")
                raise
            await call_to_the_end(connection, _execute, f"RELEASE {name}")
        finally:
            self._depth -= 1

    # -- functions

    async def run(self, fn: Callable[[sqlite3.Connection], R], label: str | None, *, retry: bool) -> R:
        """A transaction around `fn(native)`; inside a block of the same task, a savepoint."""
        if self._is_mine:
            async with self._savepoint() as connection:
                return await call_to_the_end(connection, fn)
        transaction = Transaction(self.pool, _BEGIN, self._patience, label)
        try:
            async with self.shares.one(transaction.deadline, label) as connection:
                run = partial(call_to_the_end, connection, transaction.run, fn)
                return await transaction.start(run, again=retry)
        finally:
            transaction.tell()


def _execute(native: sqlite3.Connection, *statements: str) -> None:
    if not native.in_transaction:
        raise PoolUsageError(f"{statements[0]}: SQLite has rolled the transaction back, or its block has ended it")
    for statement in statements:
        native.execute(statement)
