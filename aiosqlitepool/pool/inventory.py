"""The pool's stock of connections: who prepares, replaces and drops what is in the slots.

Everything that takes time happens here to a *taken* slot, in a task of the pool's own, and its outcome is handled
in that task's callback, which runs whatever becomes of the task: no cancellation can lose a slot or a connection.
Knows nothing of leases, timeouts or callers beyond the future they wait on.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

from ..bus import EventBus
from ..driver import Connection
from ..events import CloseReason, IdleReplaced
from .background import LAST_GRACE, Tasks
from .connection import Lifecycle, OpenFailed
from .diagnosis import closed_while_waiting
from .housekeeper import Timer
from .pooled import PooledConnection
from .preparation import PooledSlot, Preparation
from .settings import PoolSettings
from .slots import Slots

__all__ = ["Stock"]

C = TypeVar("C", bound=Connection)

# Seconds between attempts to refill a pool whose factory fails: doubled from the first up to the last.
_REFILL_PAUSE, _LONGEST_REFILL_PAUSE = 1.0, 30.0

# Seconds that closing gives to connections that are being opened for nobody any more.
_OPENING_GRACE = 1.0


class Stock(Generic[C]):
    """The connections of one pool, in their slots."""

    def __init__(
        self,
        factory: Callable[[], Awaitable[C]],
        settings: PoolSettings,
        bus: EventBus,
        clock: Callable[[], float],
        timer: Timer,
    ) -> None:
        self.slots: Slots[PooledConnection[C]] = Slots(settings.pool_size)
        self.lifecycle: Lifecycle[C] = Lifecycle(factory, settings, bus, clock)
        self.tasks: Tasks = Tasks(str(settings.name))
        self.closing: bool = False
        self._settings = settings
        self._bus = bus
        self._clock = clock
        self._timer = timer
        # A dict for its order: what is given up at the same moment is given up in the same order in every run.
        self._preparing: dict[Preparation[C], None] = {}
        self._all_back = asyncio.Event()
        # While the pool closes: the slot whose connection is to close after all others.
        self._last: PooledSlot[C] | None = None
        self._keep_last = False
        # And until when it waits for what is out, in loop time.
        self._drain_until = math.inf
        self._patience: asyncio.Timeout | None = None
        self._refill_at = math.inf
        self._refill_pause = _REFILL_PAUSE
        never = math.inf
        self._idle_timeout = never if settings.idle_timeout is None else settings.idle_timeout
        check_after = never if settings.health_check_after is None else settings.health_check_after
        # How long an idle connection can be lent as it is.
        self.fresh_for: float = min(self._idle_timeout, check_after)

    # -- taking and putting back

    def take(self) -> PooledSlot[C] | None:
        """Take an idle slot, else a vacant one, else nothing."""
        return self.slots.take_idle() or self.slots.take_vacant()

    def put_back(self, slot: PooledSlot[C], now: float) -> None:
        """Give a taken slot back, dropping its connection if that is expired, replaced on disk, or the pool closes."""
        pooled = slot.connection
        if pooled is None or now >= pooled.good_until or self.closing:
            self._put_back_after_a_look(slot, now)
            return
        pooled.idle_since = now
        if now + self._idle_timeout < self._timer.wake_at:
            self._timer.wake(now + self._idle_timeout)
        self.slots.give_back(slot)

    def _put_back_after_a_look(self, slot: PooledSlot[C], now: float) -> None:
        pooled, error = slot.connection, None
        if pooled is not None:
            pooled.idle_since = now
            if self._keep_last:
                self._close_but_one(slot)
                return
            if self.closing:
                self.drop(slot, "pool_closed")
            elif now >= pooled.expires_at:
                self.drop(slot, "lifetime")
            # Under load nothing is ever idle long enough to be checked before lending: then it is done here.
            elif (error := self.lifecycle.verify(pooled, now)) is not None:
                self.drop(slot, "unhealthy")
            self._timer.wake(min(now + self._idle_timeout, pooled.expires_at))
        self._give_back(slot)
        if pooled is not None and error is not None:
            self.lifecycle.tell_unhealthy(pooled, 0.0, error)

    def _close_but_one(self, slot: PooledSlot[C]) -> None:
        """Close a connection of a closing pool, but keep the newest back: the last one to close must do so alone.

        Connections that close at the same moment each see the others, and nobody folds the WAL into the database.
        """
        previous, self._last = self._last, slot
        if previous is not None:
            self.drop(previous, "pool_closed")
            self.slots.give_back(previous)
        self._note_all_back()

    def _give_back(self, slot: PooledSlot[C]) -> None:
        self.slots.give_back(slot)
        if self.closing:
            self._note_all_back()
        elif self._settings.min_size and self.size_is_short():
            if self._refill_at == math.inf:  # else it is due anyway, or waits because the last attempt failed
                self._refill_at = self._clock()
            self._timer.wake(self._refill_at)

    def drop(self, slot: PooledSlot[C], reason: CloseReason) -> None:
        """Part a taken slot from its connection, which closes on its own; the empty slot need not wait for that."""
        pooled, slot.connection = slot.connection, None
        assert pooled is not None
        self.tasks.spawn(self.lifecycle.close(pooled), name="close", then=partial(self._closed, pooled, reason))

    def _closed(self, pooled: PooledConnection[C], reason: CloseReason, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            pooled.link.abandon()
        self.lifecycle.left(pooled, reason)

    # -- preparing

    def prepare(self, slot: PooledSlot[C], *, claimed: bool = True) -> Preparation[C]:
        """Make a taken slot lendable: check what it holds, or open. The slot now belongs to the preparation."""
        preparation = Preparation(self, slot, claimed=claimed, pool=str(self._settings.name), clock=self._clock)
        self._preparing[preparation] = None
        preparation.ended.add_done_callback(lambda _: self._preparing.pop(preparation))
        return preparation

    def why_not_idle(self, pooled: PooledConnection[C]) -> CloseReason | None:
        """Why a connection that stood idle has to go, if it does."""
        now = self._clock()
        if now - pooled.idle_since >= self._idle_timeout:
            return "idle"
        return "lifetime" if now >= pooled.expires_at else None

    def tell_replaced(self, pooled: PooledConnection[C], reason: CloseReason) -> None:
        """Tell that it went."""
        if reason == "idle" and IdleReplaced in self._bus.handlers:
            idle_time = self._clock() - pooled.idle_since
            self._bus.emit(IdleReplaced(str(self._settings.name), pooled.number, idle_time))

    def filled_slot(self, slot: PooledSlot[C]) -> None:
        """A slot has a new connection."""
        assert slot.connection is not None
        self._timer.wake(slot.connection.expires_at)

    def prepared(self, preparation: Preparation[C], failure: OpenFailed | None) -> None:
        """A preparation that nobody waits for any more, or that failed, gives its slot back."""
        self.put_back(preparation.slot, self._clock())
        if failure is not None:
            self.lifecycle.tell_create_failed(failure)
        if preparation.claim is None:
            self._refilled(preparation.error)

    # -- while nobody calls

    def sweep(self, now: float) -> float:
        """Close what stood idle too long or lived too long, refill to `min_size`; returns when to look again."""
        for slot in self.slots.idle_slots():
            pooled = slot.connection
            assert pooled is not None
            reason = self.why_not_idle(pooled)
            if reason is not None and self.slots.take_this(slot):
                self.drop(slot, reason)
                self._give_back(slot)
                self.tell_replaced(pooled, reason)
        return min(self._refill(now), self._next_end(now))

    def _next_end(self, now: float) -> float:
        """When the next connection will have been idle or alive for too long."""
        connections = [slot.connection for slot in self.slots.all if slot.connection is not None]
        idle = [slot.connection for slot in self.slots.idle_slots() if slot.connection is not None]
        return min(
            # Lent ones too, which are not looked at when they come back in time; but not if they are late already.
            min((pooled.expires_at for pooled in connections if pooled.expires_at > now), default=math.inf),
            min((pooled.idle_since + self._idle_timeout for pooled in idle), default=math.inf),
        )

    def size_is_short(self) -> bool:
        """Whether fewer connections are open or opening than `min_size` asks for."""
        return not self.closing and self.slots.used + self.slots.idle < self._settings.min_size

    def _refill(self, now: float) -> float:
        if now >= self._refill_at:
            self._refill_at = math.inf
            self.fill()
        return self._refill_at

    def fill(self) -> None:
        """Start opening connections up to `min_size`."""
        while self.size_is_short() and (slot := self.slots.take_vacant()) is not None:
            self.prepare(slot, claimed=False).give_up_later(self._settings.operation_timeout)

    async def filled(self) -> None:
        """Open up to `min_size` connections and wait for them; raises what the driver did, unless the pool closes."""
        self.fill()
        filling = [preparation for preparation in self._preparing if preparation.claim is None]
        if filling:
            # Not gather, whose cancellation would cancel what others wait for too.
            await asyncio.wait([preparation.ended for preparation in filling])
        for preparation in filling:
            if preparation.error is not None and not self.closing:
                raise preparation.error

    def _refilled(self, error: BaseException | None) -> None:
        if error is None:
            self._refill_pause = _REFILL_PAUSE
        elif not self.closing:
            self._refill_at = self._clock() + self._refill_pause
            self._refill_pause = min(2 * self._refill_pause, _LONGEST_REFILL_PAUSE)
            self._timer.wake(self._refill_at)

    # -- closing

    def close_idle(self) -> None:
        """Begin to close: everybody who waits gets `PoolClosedError`, what is idle closes."""
        self.closing = self._keep_last = True
        for preparation in self._preparing:
            preparation.give_up_later(min(_OPENING_GRACE, self._settings.operation_timeout))
        claims = [preparation.claim for preparation in self._preparing if preparation.claim is not None]
        for waiting in (*self.slots.dismiss(), *claims):
            if not waiting.done():
                # One for each: an exception that is raised in many tasks gathers the tracebacks of all.
                waiting.set_exception(closed_while_waiting(self._settings.name))
        now = self._clock()
        while (slot := self.slots.take_idle()) is not None:
            self.put_back(slot, now)
        self._note_all_back()

    def _note_all_back(self) -> None:
        if self.slots.used == (0 if self._last is None else 1):
            self._all_back.set()

    def hurry(self, timeout: float | None) -> None:
        """Let `drain` wait so many seconds from now at most; the shortest patience asked for wins."""
        if timeout is not None:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + timeout
            if deadline < self._drain_until:
                self._drain_until = deadline
                if self._patience is not None and not self._patience.expired():
                    self._patience.reschedule(deadline)

    async def drain(self) -> None:
        """Wait until every slot is back and every connection but the last closed, as long as `hurry` allows."""
        until = self._drain_until
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(None if math.isinf(until) else until) as self._patience:
                await self._all_back.wait()
                await self.tasks.rest(None)
        self._patience = None
        await self.tasks.rest()

    async def close_last(self) -> None:
        """Close the connection that was kept back until all others had closed."""
        self._keep_last = False
        alone = not self.tasks
        if self._last is not None:
            self.drop(self._last, "pool_closed")
            self.slots.give_back(self._last)
            self._last = None
        # Folding a long WAL into the database takes its time, for which the close has a limit of its own; but SQLite
        # does that only for the very last, and a driver that hangs in one close would hang in the next.
        await self.tasks.rest(None if alone else LAST_GRACE)

    def abandon(self) -> int:
        """Let every connection close by itself, without waiting and without a running loop; returns how many."""
        self.tasks.abandon()
        abandoned = tuple(self.lifecycle.connections.values())
        for pooled in abandoned:
            pooled.lease = pooled.slot.connection = None
            pooled.link.abandon()
            self.lifecycle.left(pooled, "pool_closed")
        return len(abandoned)
