"""The reader connections: as many reads at a time as there are connections, in parallel with the writer."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Final, TypeVar

import aiosqlite

from ..driver import InlineReads, Kind, Reading, Unfinished, call, call_as_statement, guarded, read_inline
from ..pool.checkout import Checkout
from ..pool.lease import Lease
from ..pool.pool import SQLiteConnectionPool
from ..pool.settings import check_label, check_timeout, finite
from ..stats import PoolStats
from .blocks import database_block
from .file import DatabaseFile
from .guard import check_read
from .transaction import Transaction

__all__ = ["Reader", "ReaderPool"]

R = TypeVar("R")

# How many turns of the loop a reader waits for a connection that is idle, before it queues for one. In these turns a
# queue must empty, or it never ends: each connection goes on to the next in it, and each reader queues anew.
_TURNS: Final = range(10)

_NOTE = "a connection that reads cannot write: use write(), run_write() or execute()"


class _ReaderLease(Lease[aiosqlite.Connection]):
    """A lease that adds a note to the error of a holder that tries to write."""

    __slots__ = ()

    _use = "`async with db.read() as connection:`"

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # SQLite's message, "attempt to write a readonly database", suggests wrong file permissions. Wrong permissions
        # have extended error codes: they get no note. An inner block may have added the note already.
        code = getattr(error, "sqlite_errorcode", None) if isinstance(error, sqlite3.Error) else None
        if error is not None and code == sqlite3.SQLITE_READONLY and _NOTE not in getattr(error, "__notes__", ()):
            error.add_note(_NOTE)
        await super().__aexit__(kind, error, trace)


class _InlineLease(_ReaderLease):
    """A lease whose short statements run in the event loop, which it waits for before it takes a connection."""

    __slots__ = ("_pool",)

    def __init__(self, pool: ReaderPool, label: str | None, timeout: float | None) -> None:
        super().__init__(pool._acquirer, pool._releaser, label, timeout)
        self._pool = pool

    async def __aenter__(self) -> aiosqlite.Connection:
        pool = self._pool
        if not pool.reads_at_once:
            until = pool.until(self.timeout)
            await pool.its_turn(until)
            self.timeout = pool.left(until)
        return await super().__aenter__()


class _LimitedLease(_ReaderLease):
    """A lease that the pool ends after `max_age` seconds: an open snapshot keeps the WAL from shrinking.

    The holder is not cancelled: it may be elsewhere by then. It gets `TimeoutError` at its next use of the connection,
    in a statement that runs, and at the end of its block.
    """

    __slots__ = ("_is_over", "_max_age", "_pool", "_timer")

    def __init__(self, pool: ReaderPool, label: str | None, timeout: float | None, max_age: float) -> None:
        super().__init__(pool._acquirer, pool._releaser, label, timeout)
        self._pool = pool.name
        self._max_age = max_age
        self._is_over = False

    async def __aenter__(self) -> aiosqlite.Connection:
        connection = await super().__aenter__()
        # In an empty context: a timer that is cancelled keeps its context until it would have been due.
        self._timer = asyncio.get_running_loop().call_later(self._max_age, self._take_back, context=Context())
        return connection

    def _take_back(self) -> None:
        self._is_over = True
        self._releaser.revoke(self, self._error())

    def _error(self) -> TimeoutError:
        return TimeoutError(
            f"pool {self._pool!r}: a read was open for longer than reader_max_age={self._max_age} s. Raise "
            "reader_max_age or split the read"
        )

    def refusal(self) -> Exception | None:
        """Return the error of a use after the read was ended."""
        return self._error() if self._is_over else None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._is_over:
            self._lent = None
            if error is None:
                raise self._error()
            return
        await super().__aexit__(kind, error, trace)


class ReaderPool(SQLiteConnectionPool[aiosqlite.Connection]):
    """The pool of the reader connections."""

    def __init__(self, file: DatabaseFile, *, inline_reads: bool, **settings: Any) -> None:
        self.session_sql: Sequence[str] = file.session_sql("read")
        self.inline: InlineReads | None = InlineReads(self._is_busy) if inline_reads else None
        super().__init__(file.factory("read", any_thread=inline_reads), **settings)
        self._slots = self._inventory.slots

    def connection(self, label: str | None = None, *, timeout: float | None = None) -> _ReaderLease:
        """Acquire a reader connection for an `async with` block, as `SQLiteConnectionPool.connection()` does."""
        if timeout is not None:
            timeout = check_timeout("timeout", timeout)
        return _ReaderLease(self._acquirer, self._releaser, check_label(label), timeout)

    def until(self, timeout: float | None) -> float:
        """Return until when a caller waits, in the time of the loop."""
        return asyncio.get_running_loop().time() + (self._settings.acquisition_timeout if timeout is None else timeout)

    def left(self, until: float) -> float:
        """Return the seconds from now until then."""
        return max(0.0, until - asyncio.get_running_loop().time())

    @property
    def reads_at_once(self) -> bool:
        """Whether the loop has time left in this turn for a short read, and the pool a free connection."""
        inline = self.inline
        return inline is not None and self._acquirer.is_here and not inline.turn.is_taken and self._slots.has_free

    async def its_turn(self, until: float) -> bool:
        """Wait for that, for some turns of the loop and until this time at most; return whether it is so."""
        if self.inline is None or not self._acquirer.is_here:
            return False
        turn, most = self.inline.turn, self._settings.max_waiting
        for _ in _TURNS:
            if turn.is_taken and not await turn.next(until, most):
                break
            if self._slots.has_free:
                return True
            await asyncio.sleep(0)
        return False

    def _is_busy(self) -> bool:
        slots = self._inventory.slots
        return slots.used > 0 and any(each.connection and each.connection.adapter.is_busy for each in slots.all)

    async def close_idle(self) -> None:
        """Close the idle connections, and wait for that. The others are closed when they are released."""
        self.expire_connections()
        await self._inventory.background.wait()

    def stats(self) -> PoolStats:
        """Return the pool's current state. Safe to call from any thread."""
        return replace(super().stats(), role="read", inline_stall=None if self.inline is None else self.inline.stall())

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

    `max_age` is the longest duration of a read, in seconds.
    """

    def __init__(self, pool: ReaderPool, max_age: float) -> None:
        self.pool = pool
        self._max_age = finite(max_age)

    def block(
        self, label: str | None, timeout: float | None, *, snapshot: bool
    ) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        """Return a context manager that yields a connection, with `snapshot` inside a read transaction."""
        if snapshot:
            return self._snapshot(label, timeout)
        if self.pool.inline is not None and self._max_age is None:
            return _InlineLease(self.pool, label, timeout)
        return self._lease(label, timeout)

    def _lease(self, label: str | None, timeout: float | None) -> _ReaderLease:
        if self._max_age is None:
            return self.pool.connection(label=label, timeout=timeout)
        return _LimitedLease(self.pool, label, timeout, self._max_age)

    @database_block
    async def _snapshot(self, label: str | None, timeout: float | None) -> AsyncIterator[aiosqlite.Connection]:
        with Transaction(self.pool, label, timeout) as transaction:
            async with self._lease(label, timeout) as connection:
                await transaction.start(partial(call, connection, transaction.begin_reading))
                try:
                    with guarded(connection, check_read):
                        yield connection
                    await call(connection, transaction.commit)
                except Exception:
                    with contextlib.suppress(Exception):  # the caller gets the error of the block
                        await call(connection, transaction.roll_back)
                    raise

    async def run(
        self, fn: Callable[[sqlite3.Connection], R], label: str | None, *, timeout: float | None, retry: bool
    ) -> R:
        """Run `fn(native)` as one read transaction, in one call to the worker thread. A cancellation interrupts it."""
        with Transaction(self.pool, label, timeout) as transaction:
            async with self._lease(label, timeout) as connection:
                return await transaction.start(lambda: call(connection, transaction.run, fn), retry=retry)

    def inline_kind(self, sql: str) -> Kind | None:
        """Return the kind of this statement, which then reads, if it is to run in the loop's own thread."""
        inline = self.pool.inline
        if inline is None:
            return None
        kind = inline.kind(sql)
        return kind if inline.allows(kind) else None

    async def run_one(
        self, fn: Callable[[sqlite3.Connection], R], sql: str, kind: Kind | None, label: str | None,
        timeout: float | None,
    ) -> R:  # fmt: skip
        """Run `fn(native)`, which executes the statement `sql`: a transaction of its own, without BEGIN and COMMIT.

        `kind` is the statement's `inline_kind()`.
        """
        pool = self.pool
        inline = pool.inline
        if inline is None or kind is None:
            async with self._lease(label, timeout) as connection:
                return await call_as_statement(connection, sql, fn)
        until = 0.0
        if pool.reads_at_once or await pool.its_turn(until := pool.until(timeout)):
            try:
                result = pool._acquirer.use_at_once(
                    lambda it: read_inline(it.adapter, inline, kind, Reading(label, it.number), sql, fn)
                )
            except Unfinished:
                result = None
            if result is not None:
                return result
        until = until or pool.until(timeout)
        async with self._lease(label, pool.left(until)) as connection:
            if inline.allows(kind):
                await inline.turn.next(until, pool._settings.max_waiting)
            return await call_as_statement(connection, sql, fn)
