"""One transaction: begun as often as another process is in the way, and told of when it has ended."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar

import aiosqlite

from ..errors import PoolUsageError
from ..events import BusyRetried, TransactionEnded, TransactionOutcome
from ..pool.pool import SQLiteConnectionPool
from .busy import busy_kind, pauses

__all__ = ["Pool", "Transaction"]

R = TypeVar("R")
Pool = SQLiteConnectionPool[aiosqlite.Connection]

# Seconds that the worker waits, with the transaction done, for readers of a database without WAL to let it commit.
# They cannot begin anew meanwhile, and a function that was rolled back would have to be run again.
_COMMIT_PATIENCE: Final = 5.0


class Transaction:
    """What happens to one transaction of one pool. Its methods `begin` to `run` are for the connection's worker."""

    __slots__ = ("_asked", "_began", "_ended", "_label", "_patience", "_pool", "_retries", "_statement", "outcome")

    def __init__(self, pool: Pool, statement: str, patience: float | None, label: str | None) -> None:
        self._pool = pool
        self._statement = statement
        self._patience = patience
        self._label = label
        self._asked = time.monotonic()
        self._began = 0.0
        # Read in the worker: a busy event loop, which hears of the end late, does not make a transaction longer.
        self._ended: float | None = None
        self._retries = 0
        # `None` until it has begun. Written by the worker while the caller awaits it.
        self.outcome: TransactionOutcome | None = None

    # -- in the worker

    def begin(self, native: sqlite3.Connection) -> None:
        """Begin it."""
        self._began, self._ended = time.monotonic(), None
        native.execute(self._statement)
        self.outcome = "rolled_back"

    def begin_reading(self, native: sqlite3.Connection) -> None:
        """Begin it, and read: only that fixes what it sees."""
        self.begin(native)
        native.execute("SELECT 1 FROM sqlite_schema LIMIT 1").close()

    def commit(self, native: sqlite3.Connection) -> None:
        """Commit it; raises `PoolUsageError` if somebody has ended it before."""
        if not native.in_transaction:
            self.outcome = "failed"
            raise PoolUsageError(
                "the transaction was ended before its block was: leave commit() and rollback() to the database, which "
                "commits when the block ends and rolls back when it raises; executescript() commits too, and some "
                "errors make SQLite roll back. Whatever the block wrote after that was committed by itself"
            )
        try:
            native.execute("COMMIT")
        except BaseException:
            self.outcome = "failed"
            raise
        self.outcome = "committed"
        self._ended = time.monotonic()

    def roll_back(self, native: sqlite3.Connection) -> None:
        """Roll it back, if SQLite has not done so itself."""
        if native.in_transaction:
            native.execute("ROLLBACK")
        self._ended = time.monotonic()

    def run(self, native: sqlite3.Connection, fn: Callable[[sqlite3.Connection], R]) -> R:
        """Begin it, run `fn(native)`, and commit; roll back if that raises."""
        self.begin(native)
        try:
            result = fn(native)
            try:
                self.commit(native)
            except sqlite3.Error as error:
                if busy_kind(error) is None:
                    raise
                self._commit_patiently(native)
        except BaseException:
            self.roll_back(native)
            raise
        return result

    def _commit_patiently(self, native: sqlite3.Connection) -> None:
        patience = _COMMIT_PATIENCE if self._patience is None else min(self._patience, _COMMIT_PATIENCE)
        pausing, deadline = pauses(), time.monotonic() + patience
        while True:
            try:
                return self.commit(native)
            except sqlite3.Error as error:
                pause = next(pausing)
                if busy_kind(error) is None or time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)

    # -- in the event loop

    @property
    def deadline(self) -> float:
        """Until when it may wait for its turn, as a reading of `time.monotonic()`."""
        return math.inf if self._patience is None else self._asked + self._patience

    async def start(self, work: Callable[[], Awaitable[R]], *, again: bool = True) -> R:
        """Await `work()`, which begins it, as often as another process is in the way.

        The time that there is counts from when the transaction was asked for. With `again` false, `work()` is not
        repeated once it has begun.
        """
        return await self._attempt(work, self._asked, again)

    async def finish(self, work: Callable[[], Awaitable[R]]) -> R:
        """Await `work()`, which ends it, likewise, with the whole time anew."""
        return await self._attempt(work, time.monotonic(), True)

    async def _attempt(self, work: Callable[[], Awaitable[R]], since: float, again: bool) -> R:
        pausing: Iterator[float] | None = None
        while True:
            try:
                return await work()
            except sqlite3.Error as error:
                pausing = pausing or pauses()
                kind, pause = busy_kind(error), next(pausing)
                if kind is None or (self.outcome is not None and not again):
                    self._failed()
                    raise
                if self._patience is not None and time.monotonic() + pause > since + self._patience:
                    # SQLite's own error passes through.
                    error.add_note(f"another connection held the database of pool {self._pool.name!r} all that time")
                    self._failed()
                    raise
            self._retries += 1
            if BusyRetried in self._pool.events.handlers:
                self._pool.events.emit(BusyRetried(self._pool.name, kind, pause, self._label))
            await asyncio.sleep(pause)

    def _failed(self) -> None:
        # One that could not even begin: else nothing would count the callers that get "database is locked".
        self.outcome = self.outcome or "failed"

    def tell(self) -> None:
        """Tell how it ended, if it began or could not; of one that was cancelled before, nothing."""
        if self.outcome is not None and TransactionEnded in self._pool.events.handlers:
            # Cancelled, or its worker dead, it was ended by the reset of its connection.
            took = (self._ended or time.monotonic()) - self._began
            waited = self._began - self._asked
            self._pool.events.emit(
                TransactionEnded(self._pool.name, self.outcome, waited, took, self._retries, self._label)
            )
