"""The writer connection: one transaction at a time, in the order of the calls.

A `write()` block holds the connection exclusively. Consecutive `run_write()` functions share one lease of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import aiosqlite

from ..driver import Kind, LoopWork, begin_at_once, call_anyway, call_last, call_to_the_end, guarded, half_read
from ..errors import PoolUsageError
from ..pool.lease import Lease, SharedLease
from ..pool.pool import SQLiteConnectionPool
from ..pool.settings import finite
from ..pool.task_graph import held_up_by
from ..stats import PoolStats
from .blocks import check_nested, database_block
from .busy import locked
from .file import DatabaseFile
from .gaps import Gaps
from .guard import check_write
from .process_turns import NotOurTurn, ProcessTurns
from .transaction import Transaction, execute_inside, roll_back_to

__all__ = ["Writer", "WriterPool"]

R = TypeVar("R")


class WriterPool(SQLiteConnectionPool[aiosqlite.Connection]):
    """The pool of the writer connection. Its `stats()` include the size of the WAL."""

    def __init__(self, file: DatabaseFile, turns: ProcessTurns, **settings: Any) -> None:
        self.file: DatabaseFile = file
        self.session_sql: Sequence[str] = file.session_sql("write")
        self.turns: ProcessTurns = turns
        # The BEGIN of blocks, in the loop's own thread.
        self.loop_work: LoopWork = LoopWork()
        # Any thread: blocks begin their transaction in that of the loop.
        super().__init__(file.factory("write", any_thread=True), pool_size=1, idle_timeout=None, **settings)

    def shared(self, label: str | None, timeout: float | None, sql: str | None = None) -> SharedLease:
        """Return a lease for one function. Further functions may be queued in the worker thread behind it."""
        return SharedLease(self._acquirer, self._releaser, label, timeout, self._statements, sql)

    @property
    def opening_timeout(self) -> float:
        """Seconds for opening: to wait for other processes, and then to connect."""
        return self._settings.acquisition_timeout + self._settings.operation_timeout

    def _end(self, abandoned: int) -> None:
        self.turns.close()
        super()._end(abandoned)

    def forked(self) -> None:
        """Become unusable. Called in a forked child process."""
        self.turns.forked()
        super().forked()

    def stats(self) -> PoolStats:
        """Return the pool's current state. Safe to call from any thread."""
        file = self.file
        wal_bytes, database_bytes, disk_free = file.wal_bytes(), file.bytes(), file.disk_free()
        stats = super().stats()
        return replace(
            stats, role="write", wal_bytes=wal_bytes, database_bytes=database_bytes, disk_free=disk_free,
            inline_stall=self.loop_work.stall(),
        )  # fmt: skip


class _WriteTransaction(Transaction):
    """A transaction that leaves other processes their turn, and the WAL small."""

    __slots__ = ("_writer",)

    _begins_with = "BEGIN IMMEDIATE"

    def __init__(self, writer: Writer, label: str | None, timeout: float | None) -> None:
        super().__init__(writer.pool, label, timeout)
        self._writer = writer

    def __enter__(self) -> Self:
        self._writer.callers += 1
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        writer = self._writer
        writer.callers -= 1
        writer.pool.turns.end(self, has_more=writer.callers > 0)
        super().__exit__(kind, error, trace)

    def begin(self, native: sqlite3.Connection) -> None:
        writer = self._writer
        writer.pool.turns.begin(self)
        writer.gaps.before_begin()
        super().begin(native)

    def begin_at_once(self, native: sqlite3.Connection) -> None:
        """Begin the transaction without a gap before it. Called in the event loop."""
        self._writer.pool.turns.begin(self)
        super().begin(native)

    async def start(self, work: Callable[[], Awaitable[R]], *, retry: bool = True) -> R:
        """Await `work()`, which begins the transaction, in our turn and until the database is not busy."""
        return await super().start(partial(self._in_turn, work), retry=retry)

    async def _in_turn(self, work: Callable[[], Awaitable[R]]) -> R:
        while True:
            try:
                return await work()
            except NotOurTurn:
                left = self._requested + self._timeout - time.monotonic()
                if left <= 0:
                    raise locked() from None
            await self._writer.pool.turns.wait(finite(left))

    def commit(self, native: sqlite3.Connection) -> None:
        super().commit(native)
        writer, ended = self._writer, self._ended or 0.0
        writer.gaps.held += ended - self._began
        writer.pool.turns.end(self, has_more=writer.callers > 1)
        if writer.after_commit is not None and ended >= writer.look_at:
            writer.after_commit(native)


class Writer:
    """Runs write blocks and functions on the only connection of its pool."""

    def __init__(self, pool: WriterPool) -> None:
        self.pool = pool
        # The open block: its connection, the task that opened it, and the savepoints open inside it. A task that has
        # ended keeps its exception, whose frames may have lost the block: nothing would ever end that.
        self._connection: aiosqlite.Connection | None = None
        self._owner: weakref.ref[asyncio.Task[Any]] | None = None
        self._savepoints: list[str] = []
        # Of BEGIN in the loop's thread. Never in memory: without WAL, a COMMIT may have to wait for readers.
        self._begins = Kind(math.inf if pool.file.in_memory else 0)
        # How many write, or wait for that.
        self.callers: int = 0
        self.gaps: Gaps = Gaps(pool.file.path)
        # Called in the worker thread after a commit at this time (of `time.monotonic`) or later.
        self.after_commit: Callable[[sqlite3.Connection], None] | None = None
        self.look_at: float = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether the connection has a holder or waiters."""
        stats = self.pool.stats()
        return stats.used + stats.waiting > 0

    @property
    def in_own_block(self) -> bool:
        """Whether the current task is inside a write block that it opened."""
        task = asyncio.current_task()
        return self._owner is not None and task is not None and self._owner() is task

    @property
    def block_waits_for_caller(self) -> bool:
        """Whether the current task is inside the open write block, or the task of that block awaits it."""
        task = asyncio.current_task()
        return self._owner is not None and task is not None and self._owner() in held_up_by(task, lambda _: True)

    # -- blocks

    def exclusive(self, label: str | None, timeout: float | None = None) -> Lease[aiosqlite.Connection]:
        """Return a lease without a transaction. Raises `PoolUsageError` inside the task's own write block."""
        if self.in_own_block:
            raise PoolUsageError(f"{label}: not possible inside a write() block; call it after the block")
        return self.pool.connection(label=label, timeout=timeout)

    async def call(self, label: str, fn: Callable[[sqlite3.Connection], R]) -> R:
        """Run `fn(native)` in the worker thread, without a transaction."""
        async with self.exclusive(label) as connection:
            return await call_to_the_end(connection, fn)

    @database_block
    async def maintenance(
        self, label: str, timeout: float | None, close_readers: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[aiosqlite.Connection]:
        """Yield the connection, without a transaction, and replace it afterwards, with all that was set on it."""
        async with self.exclusive(label, timeout) as connection:
            try:
                await call_to_the_end(connection, _close_cursors)
                await close_readers()  # while one is open, a file in WAL mode stays in it
                yield connection
                if not connection.in_transaction:  # the release rolls it back
                    # Now, and not when the writer is needed next: readers may come first, and can delay it.
                    await self.pool.file.set_up(connection, "write")
            finally:
                self.pool.expire_connections()

    @database_block
    async def block(self, label: str | None, timeout: float | None) -> AsyncIterator[aiosqlite.Connection]:
        """Yield the connection inside a transaction; inside the task's own write block, inside a savepoint."""
        if self.in_own_block:
            async with self._savepoint() as connection:
                yield connection
            return
        with self.transaction(label, timeout) as transaction:
            async with self.exclusive(label, timeout) as connection:
                await transaction.start(partial(self._begin, connection, transaction))
                task = asyncio.current_task()
                self._connection, self._owner, self._savepoints = connection, weakref.ref(task) if task else None, []
                try:
                    with guarded(connection, check_write):
                        yield connection
                    check_nested(self._savepoints)
                    await transaction.finish(partial(call_last, connection, transaction.commit))
                except Exception:
                    # The caller gets the error of the block. If the rollback fails, the release rolls back.
                    with contextlib.suppress(Exception):
                        await call_last(connection, transaction.roll_back)
                    raise
                finally:
                    # The release rolls a cancelled block back: a second cancellation cannot stop it.
                    self._connection = self._owner = None

    async def _begin(self, connection: aiosqlite.Connection, transaction: _WriteTransaction) -> None:
        """Begin at once, in the loop's thread, if nothing is to be waited for; else in the worker, which may wait.

        BEGIN IMMEDIATE takes SQLite less than the trip that this saves. There is no moment between it and the block.
        """
        work, kind = self.pool.loop_work, self._begins
        if not self.gaps.is_due and not work.turn.is_over and work.takes(kind):
            with contextlib.suppress(sqlite3.Error):  # the worker meets it, too, waits, and reports it
                if begin_at_once(connection, lambda it: work.run(kind, partial(transaction.begin_at_once, it))):
                    return
        await call_to_the_end(connection, transaction.begin)

    @asynccontextmanager
    async def _savepoint(self) -> AsyncIterator[aiosqlite.Connection]:
        connection, savepoints = self._connection, self._savepoints
        assert connection is not None
        name = f"block_{len(savepoints) + 1}"
        savepoints.append(name)
        try:
            await call_to_the_end(connection, execute_inside, f"SAVEPOINT {name}")
            try:
                yield connection
            except BaseException:
                if not self.in_own_block:
                    # To roll back would undo what the outer block has done since: leave the name, and so let that fail.
                    savepoints.append(name)
                    raise
                # Runs also if the task is cancelled again: the outer block may continue after a timeout of this one.
                # If the rollback fails, the commit of the outer block raises.
                with contextlib.suppress(Exception):
                    await call_anyway(connection, roll_back_to, name)
                raise
            await call_anyway(connection, execute_inside, f"RELEASE {name}")
        finally:
            savepoints.remove(name)

    # -- functions

    def transaction(self, label: str | None, timeout: float | None) -> _WriteTransaction:
        """Return a transaction, not begun, to be entered. `timeout` is in seconds; `None` for the default."""
        return _WriteTransaction(self, label, timeout)

    async def run(
        self,
        fn: Callable[[sqlite3.Connection], R],
        label: str | None,
        *,
        timeout: float | None,
        retry: bool,
        sql: str | None = None,
    ) -> R:
        """Run `fn(native)` as one transaction; inside the task's own write block, in a savepoint.

        `sql` is what it executes, if that is one statement.
        """
        if self.in_own_block:
            async with self._savepoint() as connection:
                return await call_to_the_end(connection, fn)
        with self.transaction(label, timeout) as transaction:
            async with self.pool.shared(label, timeout, sql) as lease:
                return await transaction.start(lambda: lease.run(partial(transaction.run, fn=fn)), retry=retry)


def _close_cursors(native: sqlite3.Connection) -> None:
    for each in half_read(native):  # a function may have left one open, which would prevent VACUUM
        each.close()
