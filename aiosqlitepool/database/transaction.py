"""One transaction: begin, commit and roll back, retry while the database is busy, and emit `TransactionEnded`."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import ClassVar, Final, Self, TypeVar

import aiosqlite

from ..driver import half_read, is_busy
from ..errors import PoolUsageError
from ..events import BusyRetried, DatabaseFailed, ErrorInfo, TransactionEnded, TransactionOutcome
from ..pool.pool import SQLiteConnectionPool
from .busy import busy_kind, pauses

__all__ = ["Transaction", "execute", "execute_inside", "roll_back_to"]

R = TypeVar("R")

# Seconds that the worker thread waits to commit a function's transaction, in a database without WAL. Readers block the
# commit, but no new reader can begin meanwhile. The alternative is to roll back and run the function again.
_COMMIT_TIMEOUT: Final = 5.0


class Transaction:
    """One transaction in one pool.

    `timeout` is the number of seconds to wait for the locks of other connections, `None` for as many as the pool lets a
    caller wait. As a context manager, it emits at the end what became of it.
    """

    __slots__ = ("_began", "_ended", "_label", "_pool", "_requested", "_retries", "_timeout", "outcome")

    _begins_with: ClassVar = "BEGIN"

    def __init__(
        self, pool: SQLiteConnectionPool[aiosqlite.Connection], label: str | None, timeout: float | None
    ) -> None:
        self._pool = pool
        self._timeout = pool._settings.acquisition_timeout if timeout is None else timeout
        self._label = label
        self._requested = time.monotonic()
        # The worker thread sets both times: a busy event loop does not lengthen the measured duration.
        self._began = 0.0
        self._ended: float | None = None
        self._retries = 0
        # `None` until the transaction begins. The worker thread writes it while the caller waits.
        self.outcome: TransactionOutcome | None = None

    # -- in the worker thread

    def begin(self, native: sqlite3.Connection) -> None:
        """Begin the transaction."""
        self._began, self._ended = time.monotonic(), None
        native.execute(self._begins_with)
        self.outcome = "rolled_back"

    def begin_reading(self, native: sqlite3.Connection) -> None:
        """Begin the transaction and fix its snapshot, which SQLite does at the first read."""
        self.begin(native)
        native.execute("SELECT 1 FROM sqlite_schema LIMIT 1").close()

    def commit(self, native: sqlite3.Connection) -> None:
        """Commit the transaction. Raises `PoolUsageError` if it has ended already."""
        if not native.in_transaction:
            self.outcome = "failed"
            raise PoolUsageError(
                "the transaction ended inside its block: SQLite itself rolls back on some errors, which must end the "
                "block; a function must not execute COMMIT or ROLLBACK, because the database commits when the function "
                "ends and rolls back when it raises. Each statement after the end was committed on its own"
            )
        try:
            execute(native, "COMMIT")
        except BaseException:
            self.outcome = "failed"
            raise
        self.outcome = "committed"
        self._ended = time.monotonic()

    def roll_back(self, native: sqlite3.Connection) -> None:
        """Roll the transaction back, unless it has ended already."""
        if native.in_transaction:
            native.execute("ROLLBACK")
        self._ended = time.monotonic()

    def run(self, native: sqlite3.Connection, fn: Callable[[sqlite3.Connection], R]) -> R:
        """Begin, run `fn(native)` and commit; roll back if any of that raises. Return the result of `fn`.

        Restores the row and text factories of `native` afterwards.
        """
        row_factory, text_factory = native.row_factory, native.text_factory
        self.begin(native)
        try:
            result = fn(native)
            self._commit_patiently(native)
        except BaseException:
            self.roll_back(native)
            raise
        finally:
            native.row_factory, native.text_factory = row_factory, text_factory
        return result

    def _commit_patiently(self, native: sqlite3.Connection) -> None:
        pausing: Iterator[float] | None = None
        while True:
            try:
                return self.commit(native)
            except sqlite3.Error as error:
                pausing = pausing or pauses(time.monotonic() + min(self._timeout, _COMMIT_TIMEOUT))
                if not is_busy(error) or (pause := next(pausing, None)) is None:
                    raise
            time.sleep(pause)

    # -- in the event loop

    async def start(self, work: Callable[[], Awaitable[R]], *, retry: bool = True) -> R:
        """Await `work()`, which begins the transaction, until the database is not busy. Return its result.

        The timeout counts from the construction of this object. With `retry` false, do not repeat `work()` once the
        transaction has begun. Raises SQLite's own error after the timeout.
        """
        return await self._attempt(work, self._requested, retry)

    async def finish(self, work: Callable[[], Awaitable[R]]) -> R:
        """Await `work()`, which ends the transaction, as `start` does. The timeout counts from now."""
        return await self._attempt(work, time.monotonic(), True)

    async def _attempt(self, work: Callable[[], Awaitable[R]], since: float, retry: bool) -> R:
        pausing: Iterator[float] | None = None
        while True:
            try:
                return await work()
            except sqlite3.Error as error:
                pausing = pausing or pauses(since + self._timeout)
                kind = busy_kind(error)
                may_retry = kind is not None and (retry or self.outcome is None)
                pause = next(pausing, None) if may_retry else None
                if kind is None or pause is None:
                    # A transaction that could not begin counts as failed: its caller gets "database is locked".
                    self.outcome = self.outcome or "failed"
                    if may_retry:
                        error.add_note(
                            f"pool {self._pool.name!r}: another connection locked the database until the timeout of "
                            f"{self._timeout:g} s. Shorten its transactions or raise the timeout"
                        )
                    if kind is not None:
                        self._pool.events.emit_new(DatabaseFailed, ErrorInfo.of(error), self._label)
                    raise
            self._retries += 1
            self._pool.events.emit_new(BusyRetried, kind, pause, self._label)
            await asyncio.sleep(pause)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Emit `TransactionEnded`, unless the transaction was cancelled before it began."""
        if self.outcome is None or TransactionEnded not in self._pool.events.handlers:
            return
        info = None if error is None or self.outcome == "committed" else ErrorInfo.of(error)
        if info is not None and info.database_code is not None:
            self.outcome = "failed"
        # No end was measured if the reset of the connection ended it, after a cancellation or a dead worker thread.
        duration = (self._ended or time.monotonic()) - self._began
        waited = self._began - self._requested
        self._pool.events.emit(
            TransactionEnded(self._pool.name, self.outcome, waited, duration, self._retries, self._label, info)
        )


def execute(native: sqlite3.Connection, statement: str) -> None:
    """Begin or end a transaction or savepoint. A half-read cursor that prevents this is closed, the newest first.

    SQLite refuses while a statement that writes, such as INSERT ... RETURNING, is not read to its end. All its rows are
    written by then. A half-read SELECT prevents nothing, and the loop that reads it goes on.
    """
    cursors: list[sqlite3.Cursor | sqlite3.Blob] | None = None
    while True:
        try:
            return native.execute(statement).close()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or "in progress" not in str(error):
                raise
            cursors = half_read(native) if cursors is None else cursors
            if not cursors:
                raise
            cursors.pop().close()


def execute_inside(native: sqlite3.Connection, statement: str) -> None:
    """Execute it if the transaction is open: a savepoint without one would begin one."""
    if not native.in_transaction:
        raise PoolUsageError(
            f"{statement}: there is no transaction: SQLite itself rolled it back, as it does on some errors. Let such "
            "an error end the block"
        )
    execute(native, statement)


def roll_back_to(native: sqlite3.Connection, savepoint: str) -> None:
    """Undo what a savepoint has done, and end it."""
    if native.in_transaction:
        try:
            native.execute(f"ROLLBACK TO {savepoint}")
            execute(native, f"RELEASE {savepoint}")
        except BaseException:
            # The outer block must not commit the statements of this one.
            native.execute("ROLLBACK")
            raise
