"""Any driver: only the three methods of the protocol are known. Rolls back on each release, checks by `SELECT 1`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..errors import ConnectionBrokenError
from ..events import RollbackCause
from .protocol import Connection, Lessee

__all__ = ["GenericAdapter"]


class GenericAdapter:
    """Drives a connection through `execute`, `rollback` and `close`. `stop()` closes it without a running loop."""

    may_read = True  # it is not known
    is_busy = False  # likewise

    def __init__(self, raw: Connection, stop: Callable[[], None] = lambda: None) -> None:
        self._raw = raw
        self._stop = stop
        self._closing = False

    async def attach(self) -> str | None:
        """Take it as it is."""
        return None

    def verify(self) -> None:
        """Nothing can be verified without a trip to the driver."""

    async def check(self) -> None:
        """Run `SELECT 1`."""
        await self._raw.execute("SELECT 1")

    def begin_lease(self, lease: Lessee) -> Any:
        """Return the factory's own object: use after release cannot be noticed."""
        return self._raw

    def end_lease(self) -> bool:
        """Ask for a reset: whether there is anything to undo is not known."""
        return False

    def revoke(self, error: Exception) -> None:
        """Close the connection: its holder has the factory's own object, and the next one must not share it."""
        self.abandon()

    async def reset(self, patience: float) -> RollbackCause | None:
        """Roll back. Returns `None`, because whether anything was undone is not known."""
        if self._closing:
            raise ConnectionBrokenError("the connection was closed under its holder")
        await self._raw.rollback()
        return None

    async def close(self) -> None:
        """Close it, once."""
        if not self._closing:
            self._closing = True
            await self._raw.close()

    def abandon(self) -> None:
        """Close it in a task of its own; without a running loop only `stop` can."""
        if self._closing:
            return
        self._closing = True
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._stop()
        else:
            # Not create_task(), which takes coroutines only.
            _closings.add(closing := asyncio.ensure_future(self._raw.close()))
            closing.add_done_callback(_closed)


# A loop keeps its tasks weakly.
_closings: set[asyncio.Future[None]] = set()


def _closed(closing: asyncio.Future[None]) -> None:
    _closings.discard(closing)
    if not closing.cancelled():
        closing.exception()  # retrieved, or asyncio would log it: no caller waits for it
