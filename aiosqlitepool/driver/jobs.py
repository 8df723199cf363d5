"""Run whole functions in a connection's worker thread, in one trip.

The functions `call*` differ in what a cancellation of the caller does: only `call` interrupts what runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Generic, TypeVar, TypeVarTuple

import aiosqlite

from .handle import Handle
from .shield import shielded

__all__ = ["Job", "begin_at_once", "call", "call_anyway", "call_last", "call_to_the_end", "ended"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


async def call(connection: aiosqlite.Connection, fn: Callable[[sqlite3.Connection, *Ts], R], *args: *Ts) -> R:
    """Run `fn(native, *args)` in the worker of this connection, behind all that was queued before.

    Cancelled, it is skipped if it has not begun, and interrupted as any statement would be if it has.
    """
    result: R = await connection._execute(fn, connection._conn, *args)  # type: ignore[no-untyped-call]
    return result


class Job(Generic[R]):
    """A function in a worker thread that either never begins or runs to its end. Queued at once."""

    __slots__ = ("_begun", "_ended", "_fn", "_over", "future")

    def __init__(self, connection: aiosqlite.Connection, fn: Callable[[sqlite3.Connection], R]) -> None:
        self._fn = fn
        # Popped by the first of two: the worker that begins it, or the loop that withdraws it.
        self._begun = [None]
        self._ended = False
        # Awaited by a cancelled caller until the function has ended.
        self._over: asyncio.Future[None] | None = None
        self.future: asyncio.Future[Any] = submit(connection, self._run)

    def _run(self, native: sqlite3.Connection) -> R | None:
        if not self._take():
            return None
        try:
            return self._fn(native)
        finally:
            # In this order: the loop sets `_over` first and then looks at `_ended`, so that one of them sees the other.
            self._ended = True
            if self._over is not None:
                with contextlib.suppress(RuntimeError):  # a closed loop waits for nothing
                    self._over.get_loop().call_soon_threadsafe(self._over.set_result, None)

    def _take(self) -> bool:
        try:
            self._begun.pop()
        except IndexError:
            return False
        return True

    def withdraw(self, error: BaseException) -> None:
        """Keep it from beginning, and raise `error` in its caller, unless it has begun."""
        if self._take():
            self._ended = True
            with contextlib.suppress(asyncio.InvalidStateError):  # its caller was cancelled a moment ago
                self.future.set_exception(error)

    async def result(self) -> R:
        """Return what the function returned. A cancellation is raised when the function has ended or cannot begin."""
        try:
            result: R = await self.future
        except asyncio.CancelledError:
            if not self.future.cancelled():
                raise  # by the function itself
            over = self._over = asyncio.get_running_loop().create_future()
            if not self._take() and not self._ended:
                await ended(over)
            raise
        except BaseException:
            del self.future  # as in `AiosqliteAdapter.execute`
            raise
        return result


async def call_to_the_end(
    connection: aiosqlite.Connection, fn: Callable[[sqlite3.Connection, *Ts], R], *args: *Ts
) -> R:
    """Run `fn(native, *args)` in the worker of this connection; a cancellation never leaves it half done.

    Cancelled before the worker begins, it never runs. Cancelled later, this waits until it has ended, and then raises
    the cancellation.
    """
    return await Job(connection, lambda native: fn(native, *args)).result()


async def call_last(connection: aiosqlite.Connection, fn: Callable[[sqlite3.Connection, *Ts], R], *args: *Ts) -> R:
    """Do the same; once it has returned, nothing that was sent behind it runs: it would be on its own."""

    def last(native: sqlite3.Connection) -> R:
        result = fn(native, *args)
        if isinstance(connection, Handle):
            adapter = connection._pool_adapter
            adapter.lease = adapter.has_lock = None
        return result

    return await Job(connection, last).result()


async def call_anyway(connection: aiosqlite.Connection, fn: Callable[[sqlite3.Connection, *Ts], R], *args: *Ts) -> R:
    """Run `fn(native, *args)` in the worker of this connection, also when the caller is cancelled meanwhile.

    For what must be undone before anything else. A cancellation is raised once it has ended.
    """
    running = submit(connection, fn, *args)
    cancellation = await ended(running)
    if cancellation is not None:
        raise cancellation
    return running.result()


def begin_at_once(connection: aiosqlite.Connection, fn: Callable[[sqlite3.Connection], object]) -> bool:
    """Begin a transaction by `fn(native)` in the event loop's own thread; False if only the worker can do it.

    It waits for no lock. For a connection that any thread may use.
    """
    return isinstance(connection, Handle) and connection._pool_adapter.begin_at_once(connection._pool_lease, fn)


async def ended(running: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait for what is about to end by itself, however often this task is cancelled; return the cancellation."""
    cancellation = None
    while not running.done():
        try:
            await shielded(asyncio.wait((running,)))
        except asyncio.CancelledError as error:
            cancellation = error
    if not running.cancelled():
        running.exception()  # retrieved, or asyncio would log it
    return cancellation


def submit(connection: aiosqlite.Connection, fn: Callable[..., R], *args: Any) -> asyncio.Future[R]:
    """Queue `fn(native, *args)` for the worker of a connection, whether or not its adapter knows aiosqlite."""
    if isinstance(connection, Handle):
        return connection._pool_adapter.submit(connection._pool_lease, fn, *args)
    run = copy_context().run
    return asyncio.ensure_future(connection._execute(run, fn, connection._conn, *args))  # type: ignore[no-untyped-call]
