"""All connections of one pool, in their slots. Opening one goes on when its caller is cancelled. Knows no leases.

Opens, checks, takes, puts back and removes them. A taken slot is opened or checked by a task of the pool's own. It is
freed in the callback of that task, which runs also when the task fails or is cancelled: no cancellation can lose it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ..bus import EventBus
from ..errors import ErrorInfo, PoolError
from ..events import CloseReason, ConnectionCreated, ConnectionCreateFailed
from .background import BackgroundTasks, Timer
from .connection import Connector, PooledConnection
from .settings import PoolSettings
from .slots import Slot, Slots

__all__ = ["Inventory", "PooledSlot"]

PooledSlot = Slot[PooledConnection]

# Seconds that closing waits for connections that are being opened, before and after it cancels them.
_OPENING_GRACE: Final = 1.0


@dataclass(slots=True, eq=False)
class _Preparation:
    """A taken slot that is being opened or checked, for the request `caller` if there is one."""

    slot: PooledSlot
    caller: Any
    began: float
    # The task that opens or checks, and whether it was cancelled because it took too long.
    work: asyncio.Task[BaseException | None] | None = None
    given_up: bool = False
    # What to raise in those that wait for it.
    error: BaseException | None = None

    def failure(self) -> BaseException | None:
        """Return why the slot is not ready."""
        if self.work is None or not self.work.done() or self.work.cancelled():
            return asyncio.CancelledError()
        return self.work.exception() or self.work.result()


class Inventory:
    """The connections of one pool. Asks `timer` for the housekeeper when there will be something to do."""

    def __init__(self, connector: Connector, settings: PoolSettings, bus: EventBus, timer: Timer) -> None:
        self.slots: Slots[PooledConnection] = Slots(settings.pool_size)
        self.connector: Connector = connector
        self.background: BackgroundTasks = BackgroundTasks(settings.name)
        self.closing: bool = False
        # Set while the pool closes and every slot has come back.
        self.all_back: asyncio.Event = asyncio.Event()
        # Connections close one after another: each waits for the one before it.
        self.last_closing: asyncio.Task[None] | None = None
        # What is being opened or checked, in order, with the task that frees the slot: no longer once that has ended.
        self._preparing: dict[_Preparation, asyncio.Task[None]] = {}
        # Set when the pool is opened, done when it begins to close: opening and checking then has less time.
        self.closing_began: asyncio.Future[None]
        # What the other parts of the pool work with.
        self.settings: PoolSettings = settings
        self.name: str = settings.name
        self.clock: Callable[[], float] = settings.clock
        self.bus: EventBus = bus
        self.timer: Timer = timer
        # How long after a release the housekeeper must have looked: at idle connections, and at leases.
        self._look_within = min(settings.idle_timeout, settings.leak_threshold)
        # How long an idle connection can be acquired without a check.
        self.fresh_for: float = min(settings.idle_timeout, settings.health_check_after)

    # -- taking and filling

    def take(self) -> PooledSlot | None:
        """Take an idle slot, else a vacant one, else nothing."""
        return self.slots.take_idle() or self.slots.take_vacant()

    def take_fresh(self, now: float) -> PooledSlot | None:
        """Take a slot with an idle connection that needs no check, if there is one."""
        if (slot := self.slots.take_idle()) is not None:
            pooled = slot.connection
            if pooled is not None and now - pooled.idle_since < self.fresh_for and now < pooled.expires_at:
                return slot
            self.slots.give_back(slot)
        return None

    def feed(self) -> None:
        """Have a free slot opened or checked for each request that waits and for which none is being prepared."""
        slots, preparing = self.slots, self._preparing
        while slots.waiting > len(preparing) and not self.closing and (slot := self.take()) is not None:
            self.prepare(slot, slots.waiter(len(preparing)))

    @property
    def coming(self) -> int:
        """How many slots requests will get soon: those being prepared, and the free ones while they are held."""
        slots = self.slots
        return len(self._preparing) + (len(slots.all) - slots.used if slots.is_held else 0)

    def is_short(self) -> bool:
        """Whether fewer connections are open or opening than `min_size` asks for."""
        return not self.closing and self.slots.used + self.slots.idle < self.settings.min_size

    def fill(self) -> None:
        """Start opening connections up to `min_size`."""
        while self.is_short() and (slot := self.slots.take_vacant()) is not None:
            self.prepare(slot)

    async def filled(self) -> None:
        """Open up to `min_size` connections and wait for them; raises what the driver did, unless the pool closes."""
        self.fill()
        if running := self._preparing.copy():
            # Not gather, whose cancellation would cancel what others wait for too.
            await asyncio.wait(running.values())
        for preparation in running:
            if preparation.error is not None and not self.closing:
                raise preparation.error

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
                self.timer.wake(self.clock())

    def begin_closing(self) -> None:
        """Open nothing more, and end a hold."""
        self.closing = True
        self.slots.resume()
        self.closing_began.set_result(None)

    # -- opening and checking

    def prepare(self, slot: PooledSlot, caller: Any = None) -> None:
        """Have a taken slot opened or checked, and then freed.

        `caller` is the request that this is for, if any. The factory runs in a copy of its context, or of the current.
        """
        preparation = _Preparation(slot, caller, self.clock())
        work = self._prepare(preparation, copy_context() if caller is None else caller.context.copy())
        then = partial(self._prepared, preparation)
        # In a context of its own: a timer that is cancelled keeps its context until it would have been due.
        self._preparing[preparation] = self.background.spawn(work, name="prepare", then=then, context=Context())

    async def _prepare(self, preparation: _Preparation, context: Context) -> None:
        """Open or check as long as its caller waits, and for `operation_timeout` after that; then give up."""
        work = preparation.work = self.background.spawn(self._open_or_check(preparation), name="open", context=context)
        if preparation.caller is not None:
            futures = (work, preparation.caller.answer, self.closing_began)
            await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        if not await self._is_done(work):
            preparation.given_up = True
            work.cancel()
            # A factory that swallows its cancellation loses its slot then; what it makes in the end is closed.
            await self._is_done(work)

    async def _is_done(self, work: asyncio.Task[Any]) -> bool:
        limit = self.settings.operation_timeout
        await asyncio.wait((work, self.closing_began), timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if self.closing:
            await asyncio.wait((work,), timeout=min(_OPENING_GRACE, limit))
        return work.done()

    async def _open_or_check(self, preparation: _Preparation) -> BaseException | None:
        slot = preparation.slot
        if slot.connection is not None and await self._is_good(preparation, slot.connection):
            return None
        preparation.began = self.clock()
        try:
            pooled = await self.connector.open()
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            return error  # a loop that ends, and cancels this task, would complain of one that raises instead
        if preparation not in self._preparing:  # its slot was freed
            await self.connector.discard(pooled)
            return None
        slot.connection = pooled
        self.timer.wake(pooled.expires_at)
        self.bus.emit_new(ConnectionCreated, pooled.number, pooled.create_time)
        return None

    async def _is_good(self, preparation: _Preparation, pooled: PooledConnection) -> bool:
        now = self.clock()
        reason = pooled.why_expired(now)
        if reason is not None:
            self.remove(preparation.slot, reason)
            self.connector.emit_replaced(pooled, reason, now)
            return False
        error = await self.connector.check(pooled)
        if error is None or preparation not in self._preparing:
            return True
        self.remove(preparation.slot, "unhealthy")
        self.connector.emit_unhealthy(pooled, now - pooled.idle_since, error)
        return False

    def _prepared(self, preparation: _Preparation, _: asyncio.Task[None]) -> None:
        """Free a slot: with its connection, or empty and with an error for the oldest waiter."""
        del self._preparing[preparation]
        slot, now, error = preparation.slot, self.clock(), preparation.failure()
        opened = slot.connection is not None
        if error is not None and opened:
            self.remove(slot, "broken")  # cancelled in the middle of a check, so its state is not known
        elif error is not None:
            self.connector.failed(error, now)
        if error is not None:
            preparation.error = error
            goes_on = preparation.given_up
            if isinstance(error, asyncio.CancelledError):  # by the pool or of all tasks, not of any caller
                took_too_long = f"pool {self.name!r}: opening the connection took too long or was cancelled"
                preparation.error = PoolError(took_too_long)
                goes_on = goes_on or not self.slots.waits(preparation.caller)
            if not goes_on:
                self.slots.fail_oldest(preparation.error)
        self.put_back(slot, now)
        if error is not None and not opened:
            self.bus.emit_new(ConnectionCreateFailed, now - preparation.began, ErrorInfo.of(error))

    # -- freeing and removing

    def put_back(self, slot: PooledSlot, now: float) -> None:
        """Free a taken slot. Removes its connection if that expired, was replaced on disk, or the pool closes."""
        pooled = slot.connection
        if pooled is None or now >= pooled.good_until or self.closing:
            self._put_back_verified(slot, now)
            return
        pooled.idle_since = now
        if now + self._look_within < self.timer.wake_at:
            self.timer.wake(now + self._look_within)
        self.slots.give_back(slot)

    def _put_back_verified(self, slot: PooledSlot, now: float) -> None:
        pooled, error = slot.connection, None
        if pooled is not None:
            pooled.idle_since = now
            if self.closing:
                self.remove(slot, "pool_closed")
            elif now >= pooled.expires_at:
                self.remove(slot, "lifetime")
            # Under load no connection is ever idle long enough to be checked before it is acquired: it is done here.
            elif (error := self.connector.verify(pooled, now)) is not None:
                self.remove(slot, "unhealthy")
            self.timer.wake(min(now + self._look_within, pooled.expires_at))
        self.give_back(slot)
        if pooled is not None and error is not None:
            self.connector.emit_unhealthy(pooled, 0.0, error)

    def put_back_unused(self, slot: PooledSlot, taker: object) -> None:
        """Free a slot whose taker did not begin a lease."""
        if self.slots.part(slot, taker):
            self.put_back(slot, self.clock())

    def give_back(self, slot: PooledSlot) -> None:
        """Free a taken slot as it is, and have others filled for those that still wait and for `min_size`."""
        self.slots.give_back(slot)
        self.feed()
        if self.is_short():
            self.timer.wake(self.clock())
        elif self.closing and not self.slots.used:
            self.all_back.set()

    def remove(self, slot: PooledSlot, reason: CloseReason) -> None:
        """Remove the connection of a taken slot, which closes on its own; the slot need not wait for that."""
        pooled, slot.connection = slot.connection, None
        assert pooled is not None
        closing = self.connector.close(pooled, after=self.last_closing)
        self.last_closing = self.background.spawn(closing, name="close", then=partial(self._closed, pooled, reason))

    def _closed(self, pooled: PooledConnection, reason: CloseReason, task: asyncio.Task[None]) -> None:
        if self.last_closing is task:
            self.last_closing = None
        if task.cancelled():
            pooled.adapter.abandon()
        self.connector.closed(pooled, reason)
