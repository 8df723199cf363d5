"""One lending of a connection for many functions: those that come one after the other have it together.

To hand it from one to the next would cost a turn of the event loop each time. Together they stand in the queue once,
and then follow each other in the connection's worker thread without a pause. Nobody is overtaken: whoever wants the
connection for itself ends the joining, and later functions queue behind it.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiosqlite

from ..diagnosis import explain_full, explain_timeout
from ..errors import PoolConnectionAcquireTimeoutError, PoolFullError
from ..events import AcquireRejected, AcquireTimedOut
from .transaction import Pool

__all__ = ["Shares"]

# Seconds for which a share can be joined once it has the connection. Whoever goes to the pool itself waits no longer.
_JOINABLE = 0.1


class _Share:
    """The connection, or a place in the queue for it, for all of its members."""

    __slots__ = ("acquiring", "closes_at", "context", "members", "timeout_told")

    def __init__(self, acquiring: asyncio.Task[aiosqlite.Connection], context: contextvars.Context) -> None:
        self.acquiring = acquiring
        self.context = context
        self.members = 0
        self.closes_at = math.inf
        # Whether a member has raised the timeout that the pool told of.
        self.timeout_told = False
        acquiring.add_done_callback(self._acquired)

    def _acquired(self, acquiring: asyncio.Task[aiosqlite.Connection]) -> None:
        failed = acquiring.cancelled() or acquiring.exception() is not None
        # The earlier one: all members may have left between its end and this call.
        self.closes_at = min(self.closes_at, 0.0 if failed else time.monotonic() + _JOINABLE)

    @property
    def can_be_joined(self) -> bool:
        """Whether it is still open, and of this loop."""
        return time.monotonic() < self.closes_at and self.acquiring.get_loop() is asyncio.get_running_loop()


class Shares:
    """Shares the only connection of a pool, among functions, and in turn with those who want it for themselves."""

    def __init__(self, pool: Pool, max_waiting: int | None) -> None:
        self._pool = pool
        self._max_waiting = max_waiting
        # The last one in the queue, which can be joined.
        self._last: _Share | None = None
        # How many functions there are, and how many shares they have.
        self._members = self._shares = 0
        # Who has come and will be in the pool's queue before this turn of the loop is over, in order.
        self._arriving: set[object] = set()

    @property
    def waiting_with_others(self) -> int:
        """How many wait beyond one for each share, which the pool knows of. Safe to read from any thread."""
        return max(0, self._members - self._shares)

    async def end_joining(self, label: str | None) -> None:
        """Let functions that come from now on queue behind whoever asks the pool right after this."""
        self._last = None
        self._check_room(label)
        if self._arriving:
            # A share asks the pool in a task of its own, which has not begun yet: do not overtake it.
            self._arriving.add(myself := object())
            try:
                await asyncio.sleep(0)
            finally:
                self._arriving.discard(myself)

    @asynccontextmanager
    async def one(self, deadline: float, label: str | None) -> AsyncIterator[aiosqlite.Connection]:
        """The connection, together with others. Raises what `acquire()` does, `deadline` being one of `monotonic`."""
        share = await self._member_of_one(deadline, label)
        try:
            yield share.acquiring.result()
        except BaseException:
            # Nobody joins a connection of which nobody knows how it is; the pool will look at it.
            share.closes_at = 0.0
            raise
        finally:
            await self._leave(share)

    async def _member_of_one(self, deadline: float, label: str | None) -> _Share:
        asked = time.monotonic()
        # The first share was asked for no later than this member came, and by the same pool: it ends in time.
        timeout = None
        while True:
            share, ready = self._join(label), False
            try:
                ready = await self._ready(share, timeout)
            finally:
                if not ready:
                    await self._leave(share)
            if ready:
                return share
            timeout = None if deadline == math.inf else deadline - time.monotonic()
            if timeout is not None and timeout <= 0:
                raise self._late(share, asked, label)

    def _join(self, label: str | None) -> _Share:
        share = self._last
        joins = share is not None and share.can_be_joined
        self._check_room(label, certain_to_wait=joins)
        if share is None or not joins:
            share = self._last = self._begin(label)
        share.members += 1
        self._members += 1
        return share

    def _begin(self, label: str | None) -> _Share:
        self._arriving.add(place := object())

        async def acquire() -> aiosqlite.Connection:
            self._arriving.discard(place)
            return await self._pool.acquire(label=label)

        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        acquiring = loop.create_task(acquire(), name=f"{self._pool.name}:share", context=context)
        acquiring._log_destroy_pending = False  # type: ignore[attr-defined]  # see Stock.spawn
        acquiring.add_done_callback(lambda _: self._arriving.discard(place))  # also if it was cancelled before
        self._shares += 1
        return _Share(acquiring, context)

    def _check_room(self, label: str | None, *, certain_to_wait: bool = False) -> None:
        """Turn away whoever is one too many; the pool itself counts each share once."""
        if self._max_waiting is None:
            return
        stats = self._pool.stats()
        if (certain_to_wait or stats.used) and stats.waiting >= self._max_waiting:
            self._pool.events.emit(AcquireRejected(self._pool.name, 0.0, stats.waiting, label))
            raise PoolFullError(explain_full(stats, self._max_waiting))

    @staticmethod
    async def _ready(share: _Share, timeout: float | None) -> bool:
        """Wait for the connection of a share; false if that took too long, for the first member or for this one."""
        acquiring = share.acquiring
        if not acquiring.done():
            await asyncio.wait((acquiring,), timeout=timeout)
        if not acquiring.done() or acquiring.cancelled():
            return False
        error = acquiring.exception()
        if error is None or isinstance(error, PoolConnectionAcquireTimeoutError):
            return error is None
        raise error

    async def _leave(self, share: _Share) -> None:
        share.members -= 1
        self._members -= 1
        if share.members:
            return
        self._shares -= 1
        share.closes_at = 0.0
        if not share.acquiring.done():
            share.acquiring.cancel()
        elif not share.acquiring.cancelled() and share.acquiring.exception() is None:
            # Where it was acquired, not where the last member happens to be: that may have had the connection itself
            # once, and given it back.
            release = self._pool.release(share.acquiring.result())
            await asyncio.shield(asyncio.get_running_loop().create_task(release, context=share.context))

    def _late(self, share: _Share, asked: float, label: str | None) -> PoolConnectionAcquireTimeoutError:
        """The timeout of one member: the one that the pool told of, or, for each further one, one of its own."""
        acquiring = share.acquiring
        error = acquiring.exception() if acquiring.done() and not acquiring.cancelled() else None
        if isinstance(error, PoolConnectionAcquireTimeoutError) and not share.timeout_told:
            share.timeout_told = True
            return error
        pool, waited = self._pool, time.monotonic() - asked
        stats, holders = pool.stats(), pool.holders()
        pool.events.emit(AcquireTimedOut(pool.name, waited, stats.waiting, holders, label))
        message = explain_timeout(waited, stats, holders, (), None)
        return PoolConnectionAcquireTimeoutError(message, waited=waited, stats=stats, holders=holders)
