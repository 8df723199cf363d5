"""Release connections: end the lease, have it rolled back, and hand the slot on. Report leases that were forgotten.

A clean connection is released without a single await, and without a trip to its worker thread. What undoes the rest,
its rollback included, is the adapter's `reset()`: in `driver/aiosqlite_adapter.py` or `driver/generic_adapter.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from functools import partial
from typing import Any, Final

from ..copying import CapturedContext
from ..errors import PoolUsageError
from ..events import CloseReason, ConnectionReleased, LeakReturned, LeakSuspected, PoolTimings
from .checkout import Checkout, Ended
from .connection import PooledConnection
from .inventory import Inventory, PooledSlot

__all__ = ["Releaser"]

log: Final = logging.getLogger("aiosqlitepool")


class Releaser:
    """Takes connections from their holders and frees their slots."""

    def __init__(self, inventory: Inventory, ended: Ended) -> None:
        self._inventory, self._ended = inventory, ended
        self._name, self._clock, self._bus = inventory.name, inventory.clock, inventory.bus
        # Set when the pool is opened.
        self.loop: asyncio.AbstractEventLoop

    def release(self, lease: Checkout[PooledConnection]) -> asyncio.Task[Any] | None:
        """End a lease. Returns the task that resets its connection, or `None` if it is clean."""
        slot = lease.slot
        if slot is None:
            raise PoolUsageError("this lease holds no connection")
        lease.slot = None
        pooled, now = slot.connection, self._clock()
        if pooled is None or pooled.lease is not lease:
            return None  # the pool closed it under its holder
        is_clean = pooled.adapter.end_lease()
        pooled.lease = None
        handlers = self._bus.handlers
        if handlers and lease.since <= self._ended.newest_asked:
            self._ended.add(lease, slot, now)
        if is_clean:
            self._inventory.put_back(slot, now)
        if handlers:
            if ConnectionReleased in handlers:  # as in emit_released(), without the price of a call
                self._emit_event(lease, now, not is_clean)
            if PoolTimings in handlers:
                self._bus.record_use(now - lease.since)
            if pooled.suspected is lease:
                self._bus.emit_new(LeakReturned, lease.holder(now), now - lease.since)
        if not handlers or lease.since > self._ended.newest_asked:  # else waiters may ask for both
            lease.task = lease.context = None  # a program may keep a handle that is of no use any more
        return None if is_clean else self._reset(slot, pooled, lease.label)

    def release_shared(self, lease: Checkout[PooledConnection], *, failed: bool) -> asyncio.Task[Any] | None:
        """End a shared lease, likewise: the last one frees the connection, and resets it if need be."""
        slot = lease.slot
        lease.slot = None
        pooled = None if slot is None else slot.connection
        if slot is None or pooled is None or lease not in slot.sharing.requests:
            return None
        if lease.since <= self._ended.newest_asked:
            self._ended.add(lease, slot, self._clock())
        if failed:  # the state of the connection is not certain
            self._inventory.slots.end_sharing(slot)
        if not self._inventory.slots.part(slot, lease):
            return None
        is_clean = pooled.adapter.end_lease()
        slot.sharing.handle = None
        if is_clean:
            self._inventory.put_back(slot, self._clock())
            return None
        return self._reset(slot, pooled, lease.label)

    def emit_released(self, lease: Checkout[Any], now: float, needs_reset: bool) -> None:
        """Emit that a lease has ended."""
        if ConnectionReleased in self._bus.handlers:
            self._emit_event(lease, now, needs_reset)
        # Last: a batch that it fills has the uses whose events were emitted.
        if PoolTimings in self._bus.handlers:
            self._bus.record_use(now - lease.since)

    def _emit_event(self, lease: Checkout[Any], now: float, needs_reset: bool) -> None:
        context, used = None if lease.context is None else CapturedContext(lease.context), now - lease.since
        self._bus.emit(ConnectionReleased(self._name, lease.connection, used, lease.label, needs_reset, context))

    # -- resetting

    def _reset(self, slot: PooledSlot, pooled: PooledConnection, label: str | None) -> asyncio.Task[CloseReason | None]:
        """Reset in a task of the pool's own: the releasing task may be cancelled again, the connection not lost."""
        # A block that raised is no surprise; nor is a release in its `finally` clause.
        work = self._inventory.connector.reset(pooled, label, warns=sys.exc_info()[0] is None)
        return self._inventory.background.spawn(work, name="reset", then=partial(self._after_reset, slot, pooled))

    def _after_reset(self, slot: PooledSlot, pooled: PooledConnection, task: asyncio.Task[CloseReason | None]) -> None:
        reason: CloseReason | None = "reset_failed"
        if task.cancelled():
            reason = "pool_closed" if self._inventory.closing else reason
        elif task.exception() is None:
            reason = task.result()
        if reason is not None and slot.connection is pooled:  # else it was abandoned meanwhile
            self._inventory.remove(slot, reason)
        self._inventory.put_back(slot, self._clock())

    # -- leases that do not end by themselves

    def forgotten(self, lease: Checkout[PooledConnection]) -> None:
        """Reclaim the connection of a lease whose handle was garbage collected. Safe in any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._reclaim, lease)

    def _reclaim(self, lease: Checkout[PooledConnection]) -> None:
        pooled = self._held(lease)
        if pooled is None:
            return
        now = self._clock()
        holder = lease.holder(now)
        reclaimed = "pool %r: a holder never released its connection, so the pool reclaimed it: %s. Use `async with`"
        log.warning(reclaimed, self._name, holder)
        if pooled.suspected is not lease:
            self._bus.emit_new(LeakSuspected, holder, now - lease.since)
        self.release(lease)

    def revoke(self, lease: Checkout[PooledConnection], error: Exception) -> None:
        """Take the connection from its holder, who gets `error` now and `lease.refusal()` later."""
        pooled = self._held(lease)
        if pooled is not None:
            pooled.adapter.revoke(error)
            self.release(lease)

    @staticmethod
    def _held(lease: Checkout[PooledConnection]) -> PooledConnection | None:
        """Return the connection of a lease that has not ended."""
        pooled = None if lease.slot is None else lease.slot.connection
        return pooled if pooled is not None and pooled.lease is lease else None
