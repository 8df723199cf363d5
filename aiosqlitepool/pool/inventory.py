"""All connections of one pool, in their slots: fill, take, put back, and remove them. Knows no leases."""

from __future__ import annotations

import asyncio
import math
from contextvars import Context
from functools import partial
from typing import Generic, TypeVar

from ..bus import EventBus
from ..driver import Connection
from ..events import CloseReason
from .background import BackgroundTasks, Timer
from .connection import Connector, PooledConnection
from .preparation import PooledSlot, Preparation, Preparations
from .settings import PoolSettings
from .slots import Slots

__all__ = ["Inventory", "PooledSlot"]

C = TypeVar("C", bound=Connection)


class Inventory(Generic[C]):
    """The connections of one pool. Asks `timer` for the housekeeper when there will be something to do."""

    def __init__(self, connector: Connector[C], settings: PoolSettings, bus: EventBus, timer: Timer) -> None:
        self.slots: Slots[PooledConnection[C]] = Slots(settings.pool_size)
        self.connector: Connector[C] = connector
        self.background: BackgroundTasks = BackgroundTasks(str(settings.name))
        self.preparations: Preparations[C] = Preparations(
            self.slots, connector, self.background, settings, bus, timer, self.remove, self._prepared
        )
        self.closing: bool = False
        # Set while the pool closes and every slot has come back.
        self.all_back: asyncio.Event = asyncio.Event()
        # Connections close one after another: each waits for the one before it.
        self.last_closing: asyncio.Task[None] | None = None
        self._min_size = settings.min_size
        self._clock = settings.clock
        self._timer = timer
        never = math.inf
        idle_timeout = never if settings.idle_timeout is None else settings.idle_timeout
        # How long after a release the housekeeper must have looked: at idle connections, and at leases.
        self._look_within = min(idle_timeout, never if settings.leak_threshold is None else settings.leak_threshold)
        check_after = never if settings.health_check_after is None else settings.health_check_after
        # How long an idle connection can be lent without a check.
        self.fresh_for: float = min(idle_timeout, check_after)

    # -- taking and filling

    def take(self) -> PooledSlot[C] | None:
        """Take an idle slot, else a vacant one, else nothing."""
        return self.slots.take_idle() or self.slots.take_vacant()

    def prepare(self, slot: PooledSlot[C], caller: object = None, *, context: Context | None = None) -> None:
        """Have a taken slot opened or checked, and then given back.

        `caller` is the request that this is for, if any. Runs in a copy of the running context, or in `context`.
        """
        self.preparations.start(slot, caller, context)

    def feed(self) -> None:
        """Have a free slot opened or checked for each request that waits and for which none is being prepared."""
        slots = self.slots
        while slots.waiting > slots.preparing and not self.closing and (slot := self.take()) is not None:
            caller = slots.waiter(slots.preparing)
            self.prepare(slot, caller, context=caller.context)

    def is_short(self) -> bool:
        """Whether fewer connections are open or opening than `min_size` asks for."""
        return not self.closing and self.slots.used + self.slots.idle < self._min_size

    def fill(self) -> None:
        """Start opening connections up to `min_size`."""
        while self.is_short() and (slot := self.slots.take_vacant()) is not None:
            self.prepare(slot)

    async def filled(self) -> None:
        """Open up to `min_size` connections and wait for them; raises what the driver did, unless the pool closes."""
        self.fill()
        for error in await self.preparations.wait():
            if not self.closing:
                raise error

    def hold(self) -> None:
        """Let those that have a connection go on, and all others wait, until `resume()`."""
        if not self.closing:
            self.slots.hold()

    def resume(self) -> None:
        """End a hold, and serve those that wait. Harmless if there is none."""
        if self.slots.is_held:
            self.slots.resume()
            self.feed()
            if self.is_short():
                self._timer.wake(self._clock())

    def begin_closing(self) -> None:
        """Open nothing more, and end a hold."""
        self.closing = True
        self.slots.resume()

    # -- giving back and removing

    def put_back(self, slot: PooledSlot[C], now: float) -> None:
        """Give a taken slot back. Removes its connection if that expired, was replaced on disk, or the pool closes."""
        pooled = slot.connection
        if pooled is None or now >= pooled.good_until or self.closing:
            self._put_back_verified(slot, now)
            return
        pooled.idle_since = now
        if now + self._look_within < self._timer.wake_at:
            self._timer.wake(now + self._look_within)
        self.slots.give_back(slot)

    def _put_back_verified(self, slot: PooledSlot[C], now: float) -> None:
        pooled, error = slot.connection, None
        if pooled is not None:
            pooled.idle_since = now
            if self.closing:
                self.remove(slot, "pool_closed")
            elif now >= pooled.expires_at:
                self.remove(slot, "lifetime")
            # Under load no connection is ever idle long enough to be checked before it is lent: then it is done here.
            elif (error := self.connector.verify(pooled, now)) is not None:
                self.remove(slot, "unhealthy")
            self._timer.wake(min(now + self._look_within, pooled.expires_at))
        self.give_back(slot)
        if pooled is not None and error is not None:
            self.connector.emit_unhealthy(pooled, 0.0, error)

    def put_back_unused(self, slot: PooledSlot[C]) -> None:
        """Give back a slot whose taker did not begin a lease."""
        if slot.sharers > 1:
            self.slots.give_back(slot)
        else:
            self.put_back(slot, self._clock())

    def give_back(self, slot: PooledSlot[C]) -> None:
        """Give a taken slot back as it is, and have others filled for those who still wait and for `min_size`."""
        self.slots.give_back(slot)
        self.feed()
        if self.closing:
            self.note_all_back()
        elif self.is_short():
            self._timer.wake(self._clock())

    def note_all_back(self) -> None:
        """Note, while the pool closes, whether every slot has come back."""
        if not self.slots.used:
            self.all_back.set()

    def _prepared(self, preparation: Preparation[C], error: BaseException | None) -> None:
        """Take a slot back: with its connection, or empty and with an error for the oldest waiter."""
        slot, now = preparation.slot, self._clock()
        opened = slot.connection is not None
        if error is not None:
            if opened:
                self.remove(slot, "broken")  # cancelled in the middle of a check, so its state is not known
            else:
                self.connector.failed(error, now)
            # A cancellation, by the pool or of all tasks, concerns nobody but its own caller.
            is_cancelled = isinstance(error, asyncio.CancelledError)
            goes_on = preparation.given_up or (is_cancelled and not self.slots.waits(preparation.caller))
            if not goes_on and (shown := preparation.ended.result()) is not None:
                self.slots.fail_oldest(shown)
        self.put_back(slot, now)
        if error is not None and not opened:
            self.connector.emit_create_failed(error, now - preparation.began)

    def remove(self, slot: PooledSlot[C], reason: CloseReason) -> None:
        """Remove the connection of a taken slot, which closes on its own; the slot need not wait for that."""
        pooled, slot.connection = slot.connection, None
        assert pooled is not None
        closing = self.connector.close(pooled, after=self.last_closing)
        self.last_closing = self.background.spawn(closing, name="close", then=partial(self._closed, pooled, reason))

    def _closed(self, pooled: PooledConnection[C], reason: CloseReason, task: asyncio.Task[None]) -> None:
        if self.last_closing is task:
            self.last_closing = None
        if task.cancelled():
            pooled.adapter.abandon()
        self.connector.closed(pooled, reason)
