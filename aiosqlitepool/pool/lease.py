"""What a caller gets: a lease of a connection for a block, and a shared lease for functions."""

from __future__ import annotations

import asyncio
import contextvars
import math
import sqlite3
from collections.abc import Callable
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

import aiosqlite

from ..driver import Connection, Figures, Job, StatementLog, is_busy, shielded
from ..errors import PoolUsageError, error_name, set_absent
from .acquire import Acquirer
from .checkout import Checkout
from .connection import PooledConnection
from .diagnostics import closed_while_waiting
from .release import Releaser
from .slots import Sharing, Slot

__all__ = ["AsyncWith", "Lease", "SharedLease"]

C = TypeVar("C", bound=Connection)
R = TypeVar("R")

# What a function returns that may not run yet.
_NOT_YET: Final = object()


class AsyncWith:
    """What is entered by `async with`; says so to callers that use it in another way."""

    __slots__ = ()

    _use: ClassVar[str]

    if not TYPE_CHECKING:  # pragma: no branch - type checkers report these uses themselves

        def __await__(self):
            raise PoolUsageError(f"use {self._use}")

        def __enter__(self):
            raise PoolUsageError(f"use `async with`: {self._use}")

        def __exit__(self, *_):
            """Never called. Python looks it up before it calls `__enter__`."""


set_absent(AsyncWith, aiosqlite.Connection, lambda kind, _: f"; it is no connection yet: {kind._use} acquires one")


class Lease(AsyncWith, Checkout[PooledConnection], Generic[C]):
    """Has a connection for the length of an `async with` block. Each lease serves one block.

    Entering raises `PoolConnectionAcquireTimeoutError`, `PoolFullError`, `PoolClosedError`, or what the driver
    raised when it could not connect. Leaving rolls back what was not committed.
    """

    __slots__ = ("_acquirer", "_lent", "_releaser")

    _use = "`async with pool.connection() as connection:`, or `await pool.acquire()`"

    def __init__(self, acquirer: Acquirer, releaser: Releaser, label: str | None, timeout: float | None) -> None:
        # As in Checkout, without the price of a call.
        self.label: str | None = label
        self.timeout: float | None = timeout
        self.context: contextvars.Context | None = None
        self.slot: Slot[PooledConnection] | None = None
        # `None` once the block was entered.
        self._acquirer: Acquirer | None = acquirer
        self._releaser = releaser

    async def __aenter__(self) -> C:
        acquirer = self._acquirer
        if acquirer is None:
            raise PoolUsageError("this lease serves one block only; call pool.connection() again for another one")
        self._acquirer = None
        connection = acquirer.try_acquire(self)
        if connection is None:
            connection = await acquirer.acquire(self)
        # Kept for the length of the block, also if the block does not: a handle that is collected ends its lease.
        self._lent: C | None = connection
        return connection  # type: ignore[no-any-return]

    @property
    def is_block(self) -> bool:
        """Whether an `async with` block has it, so that no other task releases it."""
        return self._lent is not None

    def keep_nothing(self) -> None:
        """Leave the connection to the caller alone, as `acquire()` does."""
        self._lent = None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        resetting = self._releaser.release(self)
        self._lent = None
        if resetting is not None:
            # Not shield(): when closing the pool cuts the reset short, nothing has cancelled the releasing task.
            await shielded(asyncio.wait((resetting,)))

    def forgotten(self) -> None:
        """Release the connection: its handle was garbage collected. Called in any thread."""
        self._releaser.forgotten(self)


class SharedLease(Checkout[PooledConnection]):
    """Runs functions in the worker thread of a connection, right behind those of other shared leases.

    Its caller waits, also with the slot, until the worker begins its first function: until then it can time out. The
    connection is never exposed to the caller.
    """

    __slots__ = ("_acquirer", "_log", "_pooled", "_releaser", "_sql", "job")

    shared: ClassVar[bool] = True
    activity: tuple[Any, float, float | None]

    def __init__(
        self,
        acquirer: Acquirer,
        releaser: Releaser,
        label: str | None,
        timeout: float | None,
        log: StatementLog,
        sql: str | None = None,
    ) -> None:
        super().__init__(label, timeout)
        self.since: float = math.inf
        # The one statement that its function executes, and where to record it.
        self._sql = sql
        self._log = log
        self._acquirer = acquirer
        self._releaser = releaser
        # The function that it runs, or has queued for the worker.
        self.job: Job[Any] | None = None
        # Set when it is entered.
        self._pooled: PooledConnection

    async def __aenter__(self) -> SharedLease:
        self._pooled = await self._acquirer.acquire_shared(self)
        return self

    async def run(self, fn: Callable[[sqlite3.Connection], R]) -> R:
        """Run `fn(native)`: cancelled, it either never began, or it is waited for.

        May be called again if the database was locked. Until then, functions behind it do not run: they queue again.
        """
        while True:
            assert self.slot is not None, "entered"
            sharing = self.slot.sharing
            if self not in sharing.requests:  # taken away before it could run again
                raise closed_while_waiting(self._acquirer.name)
            self.job = Job(sharing.handle, partial(self._in_order, sharing, fn))
            result: Any = await self.job.result()
            if result is not _NOT_YET:
                return result  # type: ignore[no-any-return]
            self.since = math.inf
            release: Callable[[], object] = partial(self._releaser.release_shared, self, failed=True)
            if len(sharing.requests) == 1:
                # The slot is free then, and goes to all that wait: this one waits, too, and wakes up in their order.
                release = partial(asyncio.get_running_loop().call_soon, release)
            self._pooled = await self._acquirer.acquire_again(self, release)

    def _in_order(self, sharing: Sharing, fn: Callable[[sqlite3.Connection], R], native: sqlite3.Connection) -> Any:
        """Run the function in the worker thread, unless one before it has to run again."""
        if sharing.paused is not None and sharing.paused is not self:
            return _NOT_YET
        sharing.label = self.label
        if not self.holds:
            self.since = self._acquirer.clock()
        try:
            return fn(native) if self._sql is None else self._run_sql(self._sql, fn, native)
        except sqlite3.Error as error:
            if is_busy(error):
                sharing.paused = self
            raise

    def _run_sql(self, sql: str, fn: Callable[[sqlite3.Connection], R], native: sqlite3.Connection) -> R:
        began, changes, raised, rows, was_locked = perf_counter(), native.total_changes, None, 0, False
        self.activity = sql, began, None
        try:
            result: Any = fn(native)
            rows = len(result) if type(result) is list else 0
            return result  # type: ignore[no-any-return]
        except BaseException as error:
            raised, was_locked = error_name(error), is_busy(error)
            raise
        finally:
            ended, changed = perf_counter(), native.total_changes - changes
            self.activity = sql, began, ended
            waited = max(0.0, self.since - self.asked)
            figures: Figures = ("thread", self.label, waited, ended - began, rows, changed, raised)
            if not was_locked:  # else it has not run
                self._log.record(sql, figures, self.connection, native, contextvars.copy_context())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        now, self.job = self._acquirer.clock(), None
        is_abandoned = self.slot is None or self not in self.slot.sharing.requests
        resetting = self._releaser.release_shared(self, failed=kind is not None)
        if self.holds:
            self._acquirer.emit_acquired(self, self._pooled)
            if not is_abandoned:
                self._releaser.emit_released(self, now, resetting is not None)
        elif error is not None:
            self._acquirer.emit_failure(self, error)
        if resetting is not None:
            await shielded(asyncio.wait((resetting,)))

    def withdraw(self, error: BaseException) -> None:
        """Raise `error` in the caller unless its function runs."""
        if self.job is not None:
            self.job.withdraw(error)
