"""Whole functions in a connection's worker thread: one trip, and no place inside to be cancelled at."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

import aiosqlite

from .aiosqlite_adapter import AiosqliteAdapter

__all__ = ["call", "call_anyway", "call_to_the_end", "ended"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


async def call(connection: aiosqlite.Connection, fn: Callable[[sqlite3.Connection, *Ts], R], *args: *Ts) -> R:
    """Run `fn(native, *args)` in the worker of this connection, behind all that was queued before.

    Cancelled, it is skipped if it has not begun, and interrupted as any statement would be if it has.
    """
    result: R = await connection._execute(fn, connection._conn, *args)  # type: ignore[no-untyped-call]
    return result


class _Ticket:
    """Who comes first: the worker, or the caller that is cancelled. One list, popped by one of them."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = [None]

    def take(self) -> bool:
        """Whether this is the first to take it; safe in any thread."""
        try:
            self._left.pop()
        except IndexError:
            return False
        return True


async def call_to_the_end(
    connection: aiosqlite.Connection, fn: Callable[[sqlite3.Connection, *Ts], R], *args: *Ts
) -> R:
    """Run `fn(native, *args)` in the worker of this connection; a cancellation never leaves it half done.

    Cancelled before the worker came to it, it never runs. Cancelled later, this waits until it has ended, and then
    raises the cancellation: whoever is cancelled here knows that nothing of its own is still on its way.
    """
    beginning, ending = _Ticket(), _Ticket()
    over: asyncio.Future[None]  # made by the caller before it takes the second ticket: who takes it last has to act

    def run(native: sqlite3.Connection) -> R | None:
        if not beginning.take():
            return None
        try:
            return fn(native, *args)
        finally:
            if not ending.take():
                with contextlib.suppress(RuntimeError):  # a loop that has closed waits for nothing
                    over.get_loop().call_soon_threadsafe(over.set_result, None)

    running = _submit(connection, run)
    try:
        result: Any = await running
    except asyncio.CancelledError:
        over = asyncio.get_running_loop().create_future()
        if not running.cancelled():
            raise  # by the function itself
        if not beginning.take() and ending.take():
            await ended(over)
        raise
    return result  # type: ignore[no-any-return]


async def call_anyway(connection: aiosqlite.Connection, fn: Callable[[sqlite3.Connection, *Ts], R], *args: *Ts) -> R:
    """Run `fn(native, *args)` in the worker of this connection, whoever is cancelled meanwhile.

    For what must be undone before anybody goes on. A cancellation is raised once it has ended.
    """
    running = _submit(connection, fn, *args)
    cancellation = await ended(running)
    if cancellation is not None:
        raise cancellation
    return running.result()


async def ended(running: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait for what is about to end by itself, however often this task is cancelled; returns the cancellation."""
    cancellation = None
    while not running.done():
        try:
            await asyncio.wait((running,))
        except asyncio.CancelledError as error:
            cancellation = error
    if not running.cancelled():
        running.exception()  # looked at, if nobody else does
    return cancellation


def _submit(connection: aiosqlite.Connection, fn: Callable[..., R], *args: Any) -> asyncio.Future[R]:
    """Queue `fn(native, *args)` for the worker of a connection, watched or not."""
    link = getattr(connection._execute, "__self__", None)
    if isinstance(link, AiosqliteAdapter):
        return link.submit(fn, *args)
    return asyncio.ensure_future(connection._execute(fn, connection._conn, *args))  # type: ignore[no-untyped-call]
