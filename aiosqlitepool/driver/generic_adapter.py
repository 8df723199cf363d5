"""Any driver: correct by being pessimistic, for only the three methods of the protocol are known."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Generator
from typing import Any

from ..events import RollbackCause
from .protocol import Connection, Lessee

__all__ = ["GenericAdapter"]


class GenericAdapter:
    """A connection of which only the protocol is known."""

    __slots__ = ("_closing", "_raw")

    def __init__(self, raw: Connection) -> None:
        self._raw = raw
        self._closing = False

    async def adopt(self) -> None:
        """Take it as it is."""

    def verify(self) -> None:
        """Nothing is known."""

    async def check(self) -> None:
        """Run `SELECT 1`."""
        await self._raw.execute("SELECT 1")

    def lend(self, lease: Lessee) -> bool:
        """Nothing to note, and nothing is known that speaks against it."""
        return True

    def challenge(self) -> None:
        """Nothing is known: a stale release cannot be told from one on the holder's behalf."""

    def excuse(self) -> None:
        """Nobody is ever refused."""

    def settle(self) -> Awaitable[None] | bool:
        """Start the rollback; most drivers need no second step when there is nothing to undo."""
        try:
            steps = self._raw.rollback().__await__()
            waits_for = next(steps)
        except StopIteration:
            return True
        except BaseException as error:  # a driver's own cancelled future, say: no reason to lose the connection's place
            return _raise(error)
        return _Resumed(steps, waits_for)

    async def reset(self, patience: float) -> RollbackCause | None:
        """Roll back. Whether there was anything to undo cannot be known."""
        await self._raw.rollback()
        return None

    async def close(self) -> None:
        """Close it."""
        if not self._closing:
            self._closing = True
            await self._raw.close()

    def abandon(self) -> None:
        """Close it without waiting, if its loop still runs and that has not begun; else nothing can be done."""
        with contextlib.suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            if not self._closing:
                self._closing = True
                _closings.add(closing := loop.create_task(self._raw.close()))
                closing.add_done_callback(_closed)


# A loop keeps its tasks weakly.
_closings: set[asyncio.Task[None]] = set()


def _closed(closing: asyncio.Task[None]) -> None:
    _closings.discard(closing)
    if not closing.cancelled():
        closing.exception()  # looked at; there is nobody left to tell


async def _raise(error: BaseException) -> None:
    raise error


class _Resumed:
    """The rest of an awaitable whose first step has been taken already, for the same task to await.

    Taking the first step by hand is what makes a release that need not wait cost no task and no timer.
    """

    __slots__ = ("_steps", "_waits_for")

    def __init__(self, steps: Generator[Any, Any, Any], waits_for: Any) -> None:
        self._steps = steps
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        waits_for = self._waits_for
        while True:
            try:
                try:
                    value = yield waits_for
                except BaseException as error:
                    waits_for = self._steps.throw(error)
                else:
                    waits_for = self._steps.send(value)
            except StopIteration:
                return
