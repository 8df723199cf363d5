"""Whole functions in a connection's worker thread: one trip, and no place inside to be cancelled at."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import aiosqlite

from .aiosqlite_link import submit

__all__ = ["call", "call_to_the_end"]

P = ParamSpec("P")
R = TypeVar("R")


async def call(
    connection: aiosqlite.Connection,
    fn: Callable[Concatenate[sqlite3.Connection, P], R],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """Run `fn(native, ...)` in the worker of this connection, behind all that was queued before.

    Cancelled, it is skipped if it has not begun, and interrupted as any statement would be if it has.
    """
    result: R = await connection._execute(fn, connection._conn, *args, **kwargs)  # type: ignore[no-untyped-call]
    return result


class _Ticket:
    """Who comes first: the worker that begins, or the caller that withdraws. One list, popped by one of them."""

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
    connection: aiosqlite.Connection,
    fn: Callable[Concatenate[sqlite3.Connection, P], R],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """Run `fn(native, ...)` in the worker of this connection; a cancellation never leaves it half done.

    Cancelled before the worker came to it, it never runs. Cancelled later, this waits until it has ended, and then
    raises the cancellation: whoever is cancelled here knows that nothing of its own is still on its way.
    """
    ticket = _Ticket()

    def begin(native: sqlite3.Connection) -> R | None:
        return fn(native, *args, **kwargs) if ticket.take() else None

    running = submit(connection, begin)
    try:
        # Not awaited itself, because that would pass a cancellation on to it.
        await asyncio.wait((running,))
    except asyncio.CancelledError:
        if ticket.take():
            running.cancel()
        await _ended(running)
        raise
    result: Any = running.result()
    return result  # type: ignore[no-any-return]


async def _ended(running: asyncio.Future[Any]) -> None:
    """Wait for it however often this task is cancelled meanwhile: it is about to end by itself."""
    while not running.done():
        try:
            await asyncio.wait((running,))
        except asyncio.CancelledError:
            continue
    if not running.cancelled():
        running.exception()  # looked at; the cancellation is what its caller hears of
