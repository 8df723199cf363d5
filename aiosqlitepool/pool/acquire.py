"""Acquire connections: an idle one at once, or a wait in the queue, which `housekeeper` ends at its timeout.

Runs in the event loop only. An idle connection is acquired without a single await.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from ..driver import Adapter
from ..errors import PoolClosedError
from ..events import AcquireSlow, ConnectionAcquired, ConnectionReleased, PoolTimings
from .checkout import Checkout, failure_event, outcome
from .connection import PooledConnection
from .diagnostics import LOOK_EVERY, Diagnostics, closed_while_waiting
from .inventory import Inventory, PooledSlot

__all__ = ["Acquirer"]

R = TypeVar("R")
_Caller = Checkout[PooledConnection]

# Events of each lease: a subscriber that wants one counts them all.
_EACH_LEASE: Final = frozenset({ConnectionAcquired, ConnectionReleased})

_this_thread = threading.get_ident
_current_task = asyncio.current_task


class Acquirer:
    """Gets the connections of one inventory for callers, first come, first served.

    `enter` raises if the pool cannot be used in the running loop, and opens it if it is not open.
    """

    def __init__(self, inventory: Inventory, diagnostics: Diagnostics, enter: Callable[[], None]) -> None:
        self._inventory, self._slots, self._settings = inventory, inventory.slots, inventory.settings
        self._diagnostics: Diagnostics = diagnostics
        self._requests, self._ended = diagnostics.requests, diagnostics.ended
        self.name: str = inventory.name
        self.clock: Callable[[], float] = inventory.clock
        self._bus, self._timer = inventory.bus, inventory.timer
        self._enter = enter
        # Where the pool is open; elsewhere `enter` is called first.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0

    def start(self) -> None:
        """Serve callers in the running loop from now on."""
        self._loop, self._thread = asyncio.get_running_loop(), _this_thread()

    def stop(self) -> None:
        """Serve no more callers."""
        self._loop, self._thread = None, 0

    # -- one caller for each connection

    def try_acquire(self, lease: _Caller) -> Any:
        """Return an idle connection at once, if there is one that needs no check."""
        # One thread runs one loop at a time, so a current task of our loop, in our thread, means that our loop runs
        # it: half the price of asking for the running loop.
        task = _current_task(self._loop) if _this_thread() == self._thread else None
        if task is None:
            self._enter_or_emit(lease)
        slot = self._slots.take_idle()
        if slot is None:
            return None
        pooled, now = slot.connection, self.clock()
        if (  # as in take_fresh(), without the price of a call
            pooled is None
            or now - pooled.idle_since >= self._inventory.fresh_for
            or now >= pooled.expires_at
            or (connection := self._begin(lease, slot, now, task)) is None
        ):
            self._slots.give_back(slot)  # for acquire(), which takes it again and has it checked
            return None
        self._bus.immediate += 1
        if self._bus.handlers:
            if AcquireSlow in self._bus.handlers:
                lease.context = contextvars.copy_context()
            if ConnectionAcquired in self._bus.handlers:
                self._bus.emit(ConnectionAcquired(self.name, lease.connection, "idle", 0.0, label=lease.label))
        return connection

    @property
    def is_here(self) -> bool:
        """Whether this is a task of the loop in which the pool is open."""
        return _this_thread() == self._thread and _current_task(self._loop) is not None

    def use_at_once(self, use: Callable[[Adapter, int], R]) -> R | None:
        """Return `use(adapter, number)` for an idle connection, without a lease; `None` if there is none."""
        # Only if `is_here`, and for what takes milliseconds at most.
        bus, began = self._bus, self.clock()
        slot = self._slots.take_idle() if _EACH_LEASE.isdisjoint(bus.handlers) else None
        if slot is None or (pooled := slot.connection) is None:
            return None
        try:
            if began >= pooled.good_until and (  # it is checked without a trip, as when it is released
                self._inventory.connector.verify(pooled, began) is not None or began >= pooled.good_until
            ):
                return None
            bus.immediate += 1
            return use(pooled.adapter, pooled.number)
        finally:
            self._inventory.put_back(slot, began)
            if PoolTimings in bus.handlers:
                bus.record_use(self.clock() - began)

    async def acquire(self, lease: _Caller) -> Any:
        """Return a connection as soon as possible: queue, open and check, all within one deadline."""
        lease.wait_from(self.clock(), self._settings.acquisition_timeout)
        try:
            slot = await self._slot_for(lease)
            while (connection := self._begin(lease, slot, self.clock(), lease.task)) is None:
                slot = await self._another_slot(lease, slot)
        except BaseException as error:
            self.emit_failure(lease, error)
            raise
        self.emit_acquired(lease, slot.connection)
        return connection

    def _begin(self, lease: _Caller, slot: PooledSlot, now: float, task: asyncio.Task[Any] | None) -> Any:
        """Begin a lease of the connection in this slot; `None` if there is none, or if it is dead."""
        pooled = slot.connection
        connection: Any = None if pooled is None else pooled.adapter.begin_lease(lease)  # type: ignore[arg-type]
        if pooled is None or connection is None:
            return None
        lease.since, lease.task, lease.slot, lease.connection = now, task, slot, pooled.number
        pooled.lease = lease
        return connection

    # -- many callers for one connection

    async def acquire_shared(self, lease: _Caller) -> PooledConnection:
        """Get the connection for functions, together with those right before and behind in the queue."""
        lease.wait_from(self.clock(), self._settings.acquisition_timeout)
        if _this_thread() != self._thread or _current_task(self._loop) is None:
            self._enter_or_emit(lease)
        try:
            return await self._begin_shared(lease, self._join_or_take(lease) or await self._slot_for(lease))
        except BaseException as error:
            self.emit_failure(lease, error)
            raise

    async def acquire_again(self, lease: _Caller, release: Callable[[], object]) -> PooledConnection:
        """Do the same for a lease that has one, which `release()` ends: behind those only that asked before it."""
        if self._inventory.closing:
            raise closed_while_waiting(self.name)
        self._queue(lease, again=True)
        release()
        return await self._begin_shared(lease, await self._answered(lease))

    def _join_or_take(self, lease: _Caller) -> PooledSlot | None:
        slots, shared = self._slots, self._slots.shared
        # Not while a waiter has the slot and has not woken up to use it: it came first.
        if shared is not None and next(reversed(shared.sharing.requests)).slot is not None:
            self._check_full()
            return slots.join(lease) if lease.deadline > lease.asked else None
        slot = self._inventory.take_fresh(self.clock())
        if slot is not None:
            slots.share(slot, lease)
        return slot

    async def _begin_shared(self, lease: _Caller, slot: PooledSlot) -> PooledConnection:
        while True:
            pooled, sharing = slot.connection, slot.sharing
            if pooled is not None and sharing.handle is None:
                sharing.handle = pooled.adapter.begin_lease(sharing)  # type: ignore[arg-type]
            if pooled is not None and sharing.handle is not None:
                lease.slot, lease.connection = slot, pooled.number
                self._timer.wake(lease.deadline)
                return pooled
            slot = await self._another_slot(lease, slot)

    # -- waiting

    async def _slot_for(self, lease: _Caller) -> PooledSlot:
        """Queue for a slot, and have one opened or checked if there is one to take."""
        slot = self._inventory.take()
        if slot is None and self._slots.waiting >= (coming := self._inventory.coming):
            self._check_room(lease, coming)
        elif lease.deadline <= lease.asked:  # never queues; but opening takes the time it takes
            lease.deadline = lease.asked + self._settings.operation_timeout
        self._queue(lease)
        if slot is not None:
            self._inventory.prepare(slot, lease)
        return await self._answered(lease)

    def _check_room(self, lease: _Caller, coming: int) -> None:
        """Raise if this caller may not wait for a connection that others hold."""
        if lease.deadline <= lease.asked:
            raise self._diagnostics.timeout_error(lease)
        self._check_full(coming)
        lease.queued, lease.pending = True, self._slots.waiting
        if AcquireSlow in self._bus.handlers:
            self._ended.join(lease)

    def _check_full(self, served_soon: int = 0) -> None:
        most = self._settings.max_waiting
        if most is not None and self._diagnostics.waiting - served_soon >= most:
            raise self._diagnostics.full_error()

    def _queue(self, lease: _Caller, *, again: bool = False) -> None:
        lease.answer = asyncio.get_running_loop().create_future()
        lease.context = contextvars.copy_context()
        self._slots.enqueue(lease, again=again)
        self._requests[lease.task] = lease
        look_at = min(lease.deadline, lease.asked + LOOK_EVERY)
        if look_at < self._timer.wake_at:
            self._timer.wake(look_at)

    async def _another_slot(self, lease: _Caller, slot: PooledSlot) -> PooledSlot:
        """Have the connection of this slot replaced, which died on its way, and wait before all others."""
        if self._inventory.closing:
            self._inventory.put_back_unused(slot, lease)
            raise closed_while_waiting(self.name)
        self._slots.end_sharing(slot)
        self._queue(lease, again=True)
        if self._slots.part(slot, lease):
            self._inventory.prepare(slot, lease)
        else:
            self._inventory.feed()
        return await self._answered(lease)

    async def _answered(self, lease: _Caller) -> PooledSlot:
        try:
            return await lease.answer
        except BaseException:
            self._leave(lease)
            raise
        finally:
            self._requests.pop(lease.task, None)

    def _leave(self, lease: _Caller) -> None:
        """Leave the queue, or pass on the slot that was handed over, when the wait ends by an exception.

        The one subtle place in the pool. A slot is handed over in two steps: the giver sets the future's result, and
        some turns of the loop later the waiter runs and finds it. A cancellation can fall in between: its await raises,
        although the slot is its own already, and nothing else would ever free that. So the question is not whether
        this task was cancelled, but on which side of the hand-over.

        Before it, the future is cancelled: a giver that comes later goes on to the next waiter. After it, the future
        has a slot, which must go to the next waiter at once; or an error. The cancellation itself goes on untouched.
        """
        answer = lease.answer
        # Not cancelled yet is the future of a coroutine that was closed, with GeneratorExit: it knows nothing of that.
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nothing waits any more
            if answer.cancel() or answer.cancelled():
                self._slots.leave(lease)
            elif answer.exception() is None:
                self._inventory.put_back_unused(answer.result(), lease)
            else:
                del lease.answer  # its error would keep the frames of its caller until the next collection

    # -- events

    def _enter_or_emit(self, lease: _Caller) -> None:
        try:
            self._enter()
        except PoolClosedError as error:
            lease.wait_from(self.clock(), self._settings.acquisition_timeout)
            self.emit_failure(lease, error)
            raise

    def emit_failure(self, lease: Checkout[Any], error: BaseException) -> None:
        """Emit how an acquire failed."""
        lease.found = lease.context = None
        kind, more = failure_event(error)
        if kind in self._bus.handlers:
            waited, waiting = self.clock() - lease.asked, self._diagnostics.waiting
            self._bus.emit(kind(self.name, waited, waiting, label=lease.label, **more))

    def emit_acquired(self, lease: Checkout[Any], pooled: PooledConnection | None) -> None:
        """Emit that a caller that waited has its connection, and what the wait was made of."""
        handlers, waited = self._bus.handlers, lease.since - lease.asked
        if AcquireSlow not in handlers:
            lease.context = None
        elif lease.context is None:
            lease.context = contextvars.copy_context()
        if pooled is not None and handlers:
            if waited >= self._settings.slow_acquire or not lease.queued or ConnectionAcquired in handlers:
                self._emit_path(lease, pooled)
            elif PoolTimings in handlers:  # of most that queue, nothing but the wait is of use
                self._bus.record_queued(waited)
        lease.found = None

    def _emit_path(self, lease: Checkout[Any], pooled: PooledConnection) -> None:
        bus, facts = self._bus, (self.name, lease.connection, *outcome(lease, pooled), lease.label, lease.pending)
        is_slow = facts[3] >= self._settings.slow_acquire
        if PoolTimings in bus.handlers:
            (bus.record_slow_wait if is_slow else bus.record_wait)(facts[2], facts[3])
        if is_slow and AcquireSlow in bus.handlers:
            bus.emit(AcquireSlow(*facts, self._diagnostics.found_by(lease)))
        if ConnectionAcquired in bus.handlers:
            bus.emit(ConnectionAcquired(*facts))
