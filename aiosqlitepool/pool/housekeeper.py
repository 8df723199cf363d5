"""What a pool does at a certain time: end waits, close connections that are too old, refill, report suspected leaks.

Tasks that ended without a release are forgotten, so that the garbage collector can find what they held. What an acquire
checks is in `inventory`; the timer itself is in `background`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, Final

from ..events import LeakSuspected
from .diagnostics import LOOK_EVERY, Diagnostics
from .inventory import Inventory

__all__ = ["Housekeeper"]

log: Final = logging.getLogger("aiosqlitepool")

# Seconds between attempts to refill a pool whose factory fails: doubled from the first up to the last.
_REFILL_PAUSE: Final = 1.0
_LONGEST_REFILL_PAUSE: Final = 30.0

# The part of the newest waiter's wait after which the housekeeper looks for deadlocks again.
_LOOK_LESS: Final = 1 / 16

_HELD_LONG: Final = (
    "pool %r: %s; longer than %g s. Release it earlier, or raise the limit: leak_threshold, or reader_warn_after and "
    "writer_warn_after of a SQLiteDatabase; None turns this warning off"
)


class Housekeeper:
    """Does what is due; `sweep` is called by the pool's timer."""

    def __init__(self, inventory: Inventory, diagnostics: Diagnostics) -> None:
        self._inventory, self._slots, self._diagnostics = inventory, inventory.slots, diagnostics
        self._name, self._clock, self._bus = inventory.name, inventory.clock, inventory.bus
        self._settings = inventory.settings

    def sweep(self) -> float:
        """Do what is due; return when the next thing will be."""
        for lease in self._diagnostics.checkouts():
            lease.forget_task()
        now = self._clock()
        return min(self._time_out_waiters(now), self.trim(now), self._refill(now), self._suspect_leaks(now))

    def trim(self, now: float) -> float:
        """Remove connections that were idle or open for too long; return when the next one will have been."""
        inventory = self._inventory
        for slot in self._slots.idle_slots():
            pooled = slot.connection
            assert pooled is not None
            reason = pooled.why_expired(now)
            if reason is not None and self._slots.take_this(slot):
                inventory.remove(slot, reason)
                inventory.give_back(slot)
                inventory.connector.emit_replaced(pooled, reason, now)
        connections = [slot.connection for slot in self._slots.all if slot.connection is not None]
        idle = [slot.connection for slot in self._slots.idle_slots() if slot.connection is not None]
        return min(
            # Those in use too, which are not looked at when they come back in time; but not if they are late already.
            min((pooled.expires_at for pooled in connections if pooled.expires_at > now), default=math.inf),
            min((pooled.idle_since + self._settings.idle_timeout for pooled in idle), default=math.inf),
        )

    def _refill(self, now: float) -> float:
        """Open connections up to `min_size`; after failures in a row, at longer and longer intervals."""
        connector = self._inventory.connector
        if not self._inventory.is_short():
            return math.inf
        if connector.last_failure is not None:
            pause = min(_REFILL_PAUSE * 2.0 ** min(connector.failures - 1, 30), _LONGEST_REFILL_PAUSE)
            due = connector.last_failure[1] + pause
            if now < due:
                return due
        self._inventory.fill()
        return math.inf

    def _time_out_waiters(self, now: float) -> float:
        late, due = self._slots.overdue(now)
        self._end_waits(late)
        self._end_waits(self._diagnostics.stuck(now))
        newest = self._slots.newest
        look_at = math.inf if newest is None else now + max(LOOK_EVERY, (now - newest.asked) * _LOOK_LESS)
        return min(due, look_at, self._time_out_functions(now))

    def _end_waits(self, requests: Sequence[Any]) -> None:
        for request in requests:
            self._slots.leave(request)
        # Here, and not where they wait: what one of them holds is released when it goes on.
        for request in requests:
            if not request.answer.done():
                request.answer.set_exception(self._diagnostics.timeout_error(request))

    def _time_out_functions(self, now: float) -> float:
        """Time out those whose function waits for others; return when the next one is due."""
        due = math.inf
        for lease in self._diagnostics.behind():
            if lease.deadline > now:
                due = min(due, lease.deadline)
            else:
                lease.withdraw(self._diagnostics.timeout_error(lease))
        return due

    def _suspect_leaks(self, now: float) -> float:
        """Emit leases that last too long, each once; return when the next one will."""
        threshold = self._settings.leak_threshold
        # A lease of an idle connection begins without waking the timer: this look is early enough for it.
        due = now + threshold if self._slots.idle else math.inf
        for lease in self._diagnostics.checkouts():
            suspect_at = lease.since + threshold
            pooled = None if lease.slot is None else lease.slot.connection
            if pooled is None or pooled.suspected is lease:
                continue
            if now < suspect_at:
                due = min(due, suspect_at)
                continue
            pooled.suspected, holder = lease, self._diagnostics.holder(lease, now)
            log.warning(_HELD_LONG, self._name, holder, threshold)
            self._bus.emit_new(LeakSuspected, holder, now - lease.since)
        return due
