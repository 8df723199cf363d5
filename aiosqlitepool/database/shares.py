"""One connection for many functions: those that come one after the other have it together.

To hand it from one to the next would cost a turn of the event loop each time. Together they stand in the queue once,
and then follow each other in the connection's worker thread without a pause. Nobody is overtaken: whoever wants the
connection for itself ends the joining, and later functions queue behind it.
"""

from __future__ import annotations

import asyncio
import copy
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiosqlite

from ..diagnosis import explain_timeout
from ..errors import PoolConnectionAcquireTimeoutError
from ..events import AcquireTimedOut
from .transaction import Pool

__all__ = ["Shares"]

# Seconds for which a share can be joined once it has the connection. Whoever goes to the pool itself waits no longer.
_JOINABLE = 0.1


class _Share:
    """The connection, or a place in the queue for it, for all of its members."""

    __slots__ = ("acquiring", "closes_at", "members", "waiting")

    def __init__(self, acquiring: asyncio.Task[aiosqlite.Connection]) -> None:
        self.acquiring = acquiring
        self.members = self.waiting = 0
        self.closes_at = math.inf
        acquiring.add_done_callback(self._acquired)

    def _acquired(self, acquiring: asyncio.Task[aiosqlite.Connection]) -> None:
        failed = acquiring.cancelled() or acquiring.exception() is not None
        self.closes_at = 0.0 if failed else time.monotonic() + _JOINABLE


class Shares:
    """Shares the connections of one pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        # The last one in the queue, which can be joined.
        self._last: _Share | None = None
        # How many wait, beyond one for each share, which the pool knows of.
        self.waiting_with_others = 0

    def stop_joining(self) -> None:
        """Let functions that come from now on queue behind whoever comes now."""
        self._last = None

    @asynccontextmanager
    async def one(self, deadline: float, label: str | None) -> AsyncIterator[aiosqlite.Connection]:
        """The connection, together with others. Raises what `acquire()` does, `deadline` being one of `monotonic`."""
        asked = time.monotonic()
        share = self._join(label)
        try:
            while not await self._ready(share, deadline):
                await self._leave(share)
                if time.monotonic() >= deadline:
                    raise self._late(asked, label)
                share = self._join(label)
            yield share.acquiring.result()
        except BaseException:
            # Nobody joins a connection of which nobody knows how it is; the pool will look at it.
            share.closes_at = 0.0
            raise
        finally:
            await self._leave(share)

    def _join(self, label: str | None) -> _Share:
        share = self._last
        if share is None or time.monotonic() >= share.closes_at:
            acquiring = asyncio.ensure_future(self._pool.acquire(label=label))
            acquiring.set_name(f"{self._pool.name}:share")
            share = self._last = _Share(acquiring)
        share.members += 1
        return share

    async def _ready(self, share: _Share, deadline: float) -> bool:
        """Wait for the connection of a share; false if that took too long, for the first member or for this one."""
        if not share.acquiring.done():
            timeout = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
            await self._wait(share, timeout)
        if not share.acquiring.done() or share.acquiring.cancelled():
            return False
        error = share.acquiring.exception()
        if error is None or isinstance(error, PoolConnectionAcquireTimeoutError):
            return error is None
        # Each member gets its own: a traceback is no common good.
        raise copy.copy(error) from error

    async def _wait(self, share: _Share, timeout: float | None) -> None:
        self.waiting_with_others += share.waiting > 0
        share.waiting += 1
        try:
            await asyncio.wait((share.acquiring,), timeout=timeout)
        finally:
            share.waiting -= 1
            self.waiting_with_others -= share.waiting > 0

    async def _leave(self, share: _Share) -> None:
        share.members -= 1
        if share.members:
            return
        share.closes_at = 0.0
        if not share.acquiring.done():
            share.acquiring.cancel()
        elif not share.acquiring.cancelled() and share.acquiring.exception() is None:
            await self._pool.release(share.acquiring.result())

    def _late(self, asked: float, label: str | None) -> PoolConnectionAcquireTimeoutError:
        pool, waited = self._pool, time.monotonic() - asked
        stats, holders = pool.stats(), pool.holders()
        pool.events.emit(AcquireTimedOut(pool.name, waited, stats.waiting, holders, label))
        message = explain_timeout(waited, stats, holders, (), None)
        return PoolConnectionAcquireTimeoutError(message, waited=waited, stats=stats, holders=holders)
