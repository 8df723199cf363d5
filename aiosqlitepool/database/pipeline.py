"""One lending of a connection for many functions: those that come one after the other have it together.

To hand it from one to the next would cost a turn of the event loop each time. Together they stand in the queue once,
and then follow each other in the connection's worker thread without a pause. Nobody is overtaken: whoever wants the
connection for itself ends the joining, and later functions queue behind it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Container
from dataclasses import replace
from functools import partial
from typing import Any

import aiosqlite

from ..driver import ended
from ..errors import PoolConnectionAcquireTimeoutError, PoolFullError
from ..events import AcquireRejected, AcquireTimedOut
from ..pool.diagnosis import explain_full, explain_timeout
from ..pool.request import Queued
from ..stats import Waiter
from .transaction import Pool

__all__ = ["Shares"]

# Seconds for which a share can be joined once it has the connection. Whoever goes to the pool itself waits no longer.
_JOINABLE = 0.1


class _Share:
    """The connection, or a place in the queue for it, for all of its members."""

    __slots__ = ("asleep", "closes_at", "holder", "left", "lent", "members", "timeout_told")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # In the order in which they came: the first is at work, or else the one for whom the pool's queue is told.
        self.members: dict[Queued, None] = {}
        # Those that wait for the connection, or that it is here and have not woken yet, in the same order.
        self.asleep: OrderedDict[Queued, None] = OrderedDict()
        self.closes_at: float = math.inf
        # The task that borrows the connection for all, what it has to tell them, and what they have to tell it.
        self.holder: asyncio.Task[None]
        self.lent: asyncio.Future[aiosqlite.Connection] = loop.create_future()
        self.left: asyncio.Future[None] = loop.create_future()
        # Whether a member has raised the timeout that the pool told of.
        self.timeout_told: bool = False

    @property
    def can_be_joined(self) -> bool:
        """Whether it is still open, and of this loop."""
        return time.monotonic() < self.closes_at and self.lent.get_loop() is asyncio.get_running_loop()

    def ended(self, holder: asyncio.Task[None]) -> None:
        """Tell those who still wait why there will be no connection."""
        self.closes_at = 0.0
        error = None if holder.cancelled() else holder.exception()
        if self.lent.done():
            return
        if error is None:
            self.lent.cancel()
        else:
            self.lent.set_exception(error)
            self.lent.exception()  # looked at, if nobody waits any more


class _Membership:
    """An `async with` block for one member; a class, for a generator would cost each function time."""

    __slots__ = ("_deadline", "_member", "_share", "_shares")

    def __init__(self, shares: Shares, deadline: float, label: str | None) -> None:
        self._shares = shares
        self._deadline = deadline
        self._member = Queued(time.monotonic(), label, asyncio.current_task())
        self._share: _Share

    async def __aenter__(self) -> aiosqlite.Connection:
        self._share = share = await self._shares.join(self._member, self._deadline)
        return share.lent.result()

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None:
            # Nobody joins a connection of which nobody knows how it is; the pool will look at it.
            self._share.closes_at = 0.0
        await self._shares.leave(self._share, self._member)


class Shares:
    """Shares the only connection of a pool, among functions, and in turn with those who want it for themselves."""

    def __init__(self, pool: Pool, max_waiting: int | None) -> None:
        self._pool = pool
        self._max_waiting = max_waiting
        # The last one in the queue, which can be joined.
        self._last: _Share | None = None
        # Those that have members.
        self._open: dict[_Share, None] = {}
        # Who has come and will be in the pool's queue before this turn of the loop is over, in order.
        self._arriving: set[object] = set()

    @property
    def are_none(self) -> bool:
        """Whether nobody shares the connection, nor is about to ask for it."""
        return not self._open and not self._arriving

    @property
    def holders(self) -> set[asyncio.Task[Any] | None]:
        """The tasks that borrow the connection for others. Safe to read from any thread."""
        return {share.holder for share in self._open.copy()}

    def waiting(self, now: float, queued: Container[asyncio.Task[Any] | None] = ()) -> list[Waiter]:
        """Who waits for their turn: all but the first of each share; of those whose tasks are `queued`, the first too.

        Safe to call from any thread.
        """
        # Copies are made in one go, whatever the loop's own thread does meanwhile.
        return [
            member.waiter(now)
            for share in self._open.copy()
            for member in list(share.members.copy())[0 if share.holder in queued else 1 :]
        ]

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

    def one(self, deadline: float, label: str | None) -> _Membership:
        """The connection, together with others. Raises what `acquire()` does, `deadline` being one of `monotonic`."""
        return _Membership(self, deadline, label)

    async def join(self, member: Queued, deadline: float) -> _Share:
        """Become a member of a share that has its connection."""
        # The first share was asked for no later than this member came, and by the same pool: it ends in time.
        timeout = None
        while True:
            share, ready = self._join(member), False
            try:
                ready = await self._ready(share, member, timeout)
            finally:
                if not ready:
                    await self.leave(share, member)
            if ready:
                return share
            timeout = None if deadline == math.inf else deadline - time.monotonic()
            if timeout is not None and timeout <= 0:
                raise self._late(share, member)

    def _join(self, member: Queued) -> _Share:
        share = self._last
        joins = share is not None and share.can_be_joined
        self._check_room(member.label, certain_to_wait=joins)
        if share is None or not joins:
            share = self._last = self._begin(member.label)
        share.members[member] = None
        return share

    def _begin(self, label: str | None) -> _Share:
        loop = asyncio.get_running_loop()
        share = _Share(loop)
        self._arriving.add(share)
        # A task of its own: no member is the one to borrow the connection for the others and to give it back.
        share.holder = loop.create_task(self._hold(share, label), name=f"{self._pool.name}:share")
        share.holder._log_destroy_pending = False  # type: ignore[attr-defined]  # see Tasks.spawn
        share.holder.add_done_callback(partial(self._held, share))
        self._open[share] = None
        return share

    async def _hold(self, share: _Share, label: str | None) -> None:
        self._arriving.discard(share)
        async with self._pool.connection(label=label) as connection:
            share.closes_at = time.monotonic() + _JOINABLE
            share.lent.set_result(connection)
            await ended(share.left)  # also when cancelled: its members still work with the connection

    def _held(self, share: _Share, holder: asyncio.Task[None]) -> None:
        self._arriving.discard(share)  # if it was cancelled before it began
        share.ended(holder)

    def _check_room(self, label: str | None, *, certain_to_wait: bool = False) -> None:
        """Turn away whoever is one too many; the pool itself counts each share once."""
        if self._max_waiting is None:
            return
        stats = self._pool.stats()
        # Those who arrive in this turn of the loop are in no queue yet; for one of them the connection may be free.
        ahead = stats.used + len(self._arriving) - stats.max_size
        stats = replace(stats, waiting=stats.waiting + max(0, ahead))
        if (certain_to_wait or ahead >= 0) and stats.waiting >= self._max_waiting:
            self._pool.events.emit(AcquireRejected(self._pool.name, 0.0, stats.waiting, label))
            raise PoolFullError(explain_full(stats, self._max_waiting))

    @staticmethod
    async def _ready(share: _Share, member: Queued, timeout: float | None) -> bool:
        """Wait for the connection of a share; false if that took too long, for the first member or for this one."""
        lent, asleep = share.lent, share.asleep
        if asleep or not lent.done():
            asleep[member] = None
            try:
                await asyncio.wait((lent,), timeout=timeout)
                # Those who waited wake some turns of the loop after the connection came: do not overtake them.
                while lent.done() and next(iter(asleep)) is not member:  # noqa: ASYNC110 - two turns, of many tasks
                    await asyncio.sleep(0)
            finally:
                del asleep[member]
        if not lent.done() or lent.cancelled():
            return False
        error = lent.exception()
        if error is None or isinstance(error, PoolConnectionAcquireTimeoutError):
            return error is None
        raise error

    async def leave(self, share: _Share, member: Queued) -> None:
        """Be a member no longer; the last one waits until the connection is back."""
        del share.members[member]
        if share.members:
            return
        del self._open[share]
        share.closes_at = 0.0
        if self._last is share:
            self._last = None  # or the context of the first member would be kept until there is another share
        share.left.set_result(None)
        if not share.lent.done():
            self._arriving.discard(share)  # now: it is not to be counted as one that will be queued
            share.holder.cancel()
        elif not share.holder.done():
            await asyncio.wait((share.holder,))

    def _late(self, share: _Share, member: Queued) -> PoolConnectionAcquireTimeoutError:
        """The timeout of one member: the one that the pool told of, or, for each further one, one of its own."""
        lent = share.lent
        error = lent.exception() if lent.done() and not lent.cancelled() else None
        if isinstance(error, PoolConnectionAcquireTimeoutError) and not share.timeout_told:
            share.timeout_told = True
            return error
        pool, waited = self._pool, time.monotonic() - member.began
        stats, holders = pool.stats(), pool.holders()
        pool.events.emit(AcquireTimedOut(pool.name, waited, stats.waiting, holders, member.label))
        message = explain_timeout(waited, stats, holders, (), None)
        return PoolConnectionAcquireTimeoutError(message, waited=waited, stats=stats, holders=holders)
