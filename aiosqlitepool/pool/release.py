"""Taking back: what a lease leaves behind is undone before its slot goes on, and each release is told.

A clean connection is taken back without a single await.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

from ..bus import EventBus
from ..driver import Connection
from ..errors import PoolUsageError
from ..events import CloseReason, ConnectionReleased, LeakReturned
from ..stats import Holder
from .diagnostics import Leases
from .inventory import Stock
from .lease import Lease
from .pooled import PooledConnection
from .settings import PoolSettings

__all__ = ["Returning"]

C = TypeVar("C", bound=Connection)


class Returning(Generic[C]):
    """Takes the connections of one stock back from those who hold them."""

    def __init__(
        self,
        stock: Stock[C],
        leases: Leases[C],
        settings: PoolSettings,
        bus: EventBus,
        clock: Callable[[], float],
    ) -> None:
        self._stock = stock
        self._leases = leases
        self._name = str(settings.name)
        self._bus = bus
        self._clock = clock

    def take_back(self, lease: Lease[C]) -> Awaitable[None] | None:
        """End a lease: at once if nothing has to be awaited for it, else by awaiting what this returns."""
        pooled = lease.pooled
        if pooled is None:
            raise PoolUsageError("this lease holds no connection")
        now = self._clock()
        lease.pooled = None
        if pooled.lease is not lease:
            return None  # the pool closed it under its holder
        outcome = pooled.link.settle()
        pooled.lease = None
        if outcome is True:
            self._stock.put_back(pooled.slot, now)
        if self._bus.handlers:
            self._tell(lease, now, outcome is not True)
        if outcome is True:
            return None
        if outcome is False:
            return self._reset(pooled, lease.label)
        return self._finish(pooled, lease.label, outcome)

    def _tell(self, lease: Lease[C], now: float, needs_reset: bool) -> None:
        bus = self._bus
        if ConnectionReleased in bus.handlers:
            bus.emit(self._released(lease, now, needs_reset))
        if bus.batches:
            bus.record_use(now - lease.since)
        if lease.leak_told and LeakReturned in bus.handlers:
            bus.emit(LeakReturned(self._name, lease.holder(now), now - lease.since))

    def _released(self, lease: Lease[C], now: float, needs_reset: bool) -> ConnectionReleased:
        use_time = now - lease.since
        return ConnectionReleased(self._name, lease.connection, use_time, lease.label, needs_reset, lease.context)

    async def _reset(self, pooled: PooledConnection[C], label: str | None) -> None:
        """Reset in a task of the pool's own: the releasing task may be cancelled again, the connection not lost."""
        # Not shield(): when closing the pool cuts the reset short, nobody cancelled the releasing task.
        await asyncio.wait({self._start_reset(pooled, label)})

    def _start_reset(self, pooled: PooledConnection[C], label: str | None) -> asyncio.Task[CloseReason | None]:
        work = self._stock.lifecycle.reset(pooled, label)
        return self._stock.tasks.spawn(work, name="reset", then=partial(self._after_reset, pooled))

    async def _finish(self, pooled: PooledConnection[C], label: str | None, rest: Awaitable[None]) -> None:
        try:
            reason = await self._stock.lifecycle.finish(pooled, rest)
        except asyncio.CancelledError:
            self._start_reset(pooled, label)
            task = asyncio.current_task()
            if task is None or task.cancelling():  # else it is the driver's own, of something that it had waited for
                raise
            return
        except BaseException:  # Ctrl-C, or a loop that is gone: no time for a second attempt
            self._abandon(pooled)
            raise
        self._returned(pooled, reason)

    def _after_reset(self, pooled: PooledConnection[C], task: asyncio.Task[CloseReason | None]) -> None:
        failed = task.cancelled() or task.exception() is not None
        self._returned(pooled, "reset_failed" if failed else task.result())

    def _abandon(self, pooled: PooledConnection[C]) -> None:
        try:
            self._returned(pooled, "reset_failed")
        except RuntimeError:  # no loop runs to close it in
            pooled.link.abandon()

    def _returned(self, pooled: PooledConnection[C], reason: CloseReason | None) -> None:
        slot = pooled.slot
        if reason is not None and slot.connection is pooled:  # else it was abandoned meanwhile
            self._stock.drop(slot, reason)
        self._stock.put_back(slot, self._clock())

    def abandon(self) -> tuple[Holder, ...]:
        """Close every connection that is still out, under its holder; returns who they were."""
        holders, leases, now = self._leases.holders(), self._leases.now(), self._clock()
        for pooled in [lease.pooled for lease in leases if lease.pooled is not None]:
            pooled.lease = None
            self._stock.drop(pooled.slot, "pool_closed")
            self._stock.put_back(pooled.slot, now)
        self._tell_abandoned(leases, now)
        return holders

    def abandon_all(self) -> tuple[Holder, ...]:
        """Let every connection close by itself, without a running loop; returns who held one."""
        holders, leases, now = self._leases.holders(), self._leases.now(), self._clock()
        self._stock.abandon()
        self._tell_abandoned(leases, now)
        return holders

    def _tell_abandoned(self, leases: list[Lease[C]], now: float) -> None:
        for lease in leases:
            self._bus.emit(self._released(lease, now, True))
            if self._bus.batches:
                self._bus.record_use(now - lease.since)
