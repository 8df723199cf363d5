"""Lending: where callers meet the stock, how long they wait there, and what each acquire tells.

Runs in the event loop only. An idle connection is lent without a single await.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from ..bus import EventBus
from ..driver import Connection
from ..errors import PoolClosedError, PoolConnectionAcquireTimeoutError, PoolFullError
from ..events import AcquireSlow, ConnectionAcquired
from ..stats import PoolStats, Waiter
from .diagnosis import closed_while_waiting, explain_full, explain_timeout
from .diagnostics import Leases, Situation
from .housekeeper import Timer
from .inventory import Stock
from .lease import Lease
from .pooled import PooledConnection
from .preparation import PooledSlot
from .release import Returning
from .request import Attempt, failure_of
from .settings import PoolSettings

__all__ = ["Lending"]

C = TypeVar("C", bound=Connection)

_this_thread = threading.get_ident
_current_task = asyncio.current_task


class Lending(Generic[C]):
    """Lends the connections of one stock to callers, first come, first served."""

    def __init__(
        self,
        stock: Stock[C],
        leases: Leases[C],
        returning: Returning[C],
        settings: PoolSettings,
        bus: EventBus,
        clock: Callable[[], float],
        timer: Timer,
        enter: Callable[[], None],
        stats: Callable[[], PoolStats],
    ) -> None:
        self._stock = stock
        self._slots = stock.slots
        self._settings = settings
        self._name = str(settings.name)
        self._bus = bus
        self._clock = clock
        self._timer = timer
        self._enter = enter
        self._stats = stats
        self._leases = leases
        # What those who give up in this turn of the loop share.
        self._situation: Situation | None = None
        self._leak_threshold = settings.leak_threshold
        self._slow_acquire = math.inf if settings.slow_acquire is None else settings.slow_acquire
        # The way back, as a lease expects it of its lender; a method here would cost every release one more call.
        self.take_back: Callable[[Lease[C]], Awaitable[None] | None] = returning.take_back
        # Where lending goes on; elsewhere, and while the pool is not open, `enter` is asked first.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0

    def start(self) -> None:
        """Lend in the running loop from now on."""
        self._loop, self._thread = asyncio.get_running_loop(), _this_thread()

    def stop(self) -> None:
        """Lend no more."""
        self._loop, self._thread = None, 0

    # -- lending

    def try_lend(self, lease: Lease[C]) -> C | None:
        """Lend at once if an idle connection is fresh."""
        # One thread runs one loop at a time, so a current task of ours, in our thread, means that our loop runs it:
        # half the price of asking for the running loop.
        task = _current_task(self._loop) if _this_thread() == self._thread else None
        if task is None:
            self._enter_or_tell(lease.label)
        slot = self._slots.take_idle()
        if slot is None:
            return None
        pooled, now = slot.connection, self._clock()
        if (
            pooled is None
            or now - pooled.idle_since >= self._stock.fresh_for
            or now >= pooled.expires_at
            or not self._begin(lease, pooled, now, task)
        ):
            self._slots.give_back(slot)  # for lend(), which takes it again and looks at it
            return None
        bus = self._bus
        bus.immediate += 1
        if bus.handlers:
            self._tell_at_once(lease, pooled)
        return pooled.raw

    def _enter_or_tell(self, label: str | None) -> None:
        try:
            self._enter()
        except PoolClosedError as error:
            self._tell_failure(Attempt(self._clock(), label), error)
            raise

    def _tell_at_once(self, lease: Lease[C], pooled: PooledConnection[C]) -> None:
        if AcquireSlow in self._bus.handlers:
            lease.context = contextvars.copy_context()
        if ConnectionAcquired in self._bus.handlers:
            self._bus.emit(ConnectionAcquired(self._name, pooled.number, "idle", 0.0, label=lease.label))

    def _begin(self, lease: Lease[C], pooled: PooledConnection[C], now: float, task: asyncio.Task[Any] | None) -> bool:
        """Tie the lease to the connection; False if that turns out to be dead."""
        lease.since = now
        lease.task = task
        if not pooled.link.lend(lease):
            return False
        lease.connection = pooled.number
        lease.pooled = pooled
        pooled.lease = lease
        if self._leak_threshold is not None:
            lease.leak_told = False
            self._timer.wake(now + self._leak_threshold)
        return True

    async def lend(self, lease: Lease[C]) -> C:
        """Lend as soon as it can be done: queue, open or check, all within the one deadline."""
        attempt = Attempt(self._clock(), lease.label)
        try:
            slot = self._stock.take()
            if slot is None:
                waiter = self._enqueue(attempt)
                try:
                    slot = await waiter
                except (asyncio.CancelledError, GeneratorExit):
                    self._pass_on(waiter, attempt)
                    raise
                if slot is None:
                    raise self._timed_out(attempt)
                attempt.queue_time = self._clock() - attempt.began
            else:  # vacant, or not fresh, or try_lend() would have lent it
                await self._prepare(slot, attempt)
            while (pooled := slot.connection) is None or not self._begin(lease, pooled, self._clock(), _current_task()):
                await self._prepare(slot, attempt)
        except BaseException as error:
            self._tell_failure(attempt, error)
            raise
        if self._bus.handlers:
            self._tell_acquired(lease, attempt)
        return pooled.raw

    def _tell_acquired(self, lease: Lease[C], attempt: Attempt) -> None:
        bus, waited = self._bus, lease.since - attempt.began
        slow = waited >= self._slow_acquire
        if AcquireSlow in bus.handlers:
            lease.context = contextvars.copy_context()
            if slow:
                holders = self._leases.holders_then(attempt.found, attempt.began)
                bus.emit(attempt.slow(self._name, lease.connection, lease.since, holders))
        if ConnectionAcquired in bus.handlers:
            bus.emit(attempt.acquired(self._name, lease.connection, lease.since))
        if bus.batches:
            if slow:
                bus.record_slow_wait(attempt.path, waited)
            else:
                bus.record_wait(attempt.path, waited)

    def _tell_failure(self, attempt: Attempt, error: BaseException) -> None:
        kind, more = failure_of(error)
        if kind in self._bus.handlers:
            waited = self._clock() - attempt.began
            self._bus.emit(kind(self._name, waited, self._slots.waiting, label=attempt.label, **more))

    def _enqueue(self, attempt: Attempt) -> asyncio.Future[PooledSlot[C] | None]:
        """Stand behind everyone else, if that is allowed."""
        settings = self._settings
        attempt.path, waiting = "queued", self._slots.waiting
        if settings.acquisition_timeout == 0:
            raise self._timed_out(attempt)
        if settings.max_waiting is not None and waiting >= settings.max_waiting:
            raise PoolFullError(explain_full(self._stats(), settings.max_waiting))
        if self._bus.handlers:  # else nobody is told, and each who waits would keep a number for nothing
            attempt.pending = waiting
        if AcquireSlow in self._bus.handlers:
            attempt.found = self._leases.now()
        waiter: asyncio.Future[PooledSlot[C] | None] = asyncio.get_running_loop().create_future()
        attempt.task = _current_task()
        self._slots.enqueue(attempt, waiter)
        if settings.acquisition_timeout is not None:
            self._timer.wake(attempt.began + settings.acquisition_timeout)
        return waiter

    async def _prepare(self, slot: PooledSlot[C], attempt: Attempt) -> None:
        began = self._clock()
        if self._stock.closing:
            self._stock.put_back(slot, began)
            raise closed_while_waiting(self._name)
        preparation = self._stock.prepare(slot)
        claim = preparation.claim
        assert claim is not None
        limit = self._settings.acquisition_timeout
        remaining = None if limit is None else max(0.0, attempt.began + limit - began)
        if limit == 0:  # never queues; but opening takes the time it takes
            remaining = self._settings.operation_timeout
        loop = asyncio.get_running_loop()
        deadline = None if remaining is None else loop.call_later(remaining, _give_up, claim)
        try:
            if await claim is None:
                raise self._timed_out(attempt)
        except (asyncio.CancelledError, GeneratorExit):
            self._pass_on(claim, attempt)
            raise
        finally:
            if deadline is not None:
                deadline.cancel()
            # What hangs without anybody waiting for it must not keep its slot for ever.
            preparation.give_up_later(self._settings.operation_timeout)
        self._note_preparation(attempt, slot, began)

    def _note_preparation(self, attempt: Attempt, slot: PooledSlot[C], began: float) -> None:
        pooled = slot.connection
        assert pooled is not None
        if pooled.created_at >= began:
            attempt.create_time = pooled.create_time
            attempt.path = "new" if attempt.path == "idle" else attempt.path
        else:
            attempt.check_time = pooled.check_time

    def _pass_on(self, future: asyncio.Future[PooledSlot[C] | None], attempt: Attempt) -> None:
        """Let go of the slot that this task awaited when it was cancelled, or of its place in the queue for it.

        The one subtle place in the pool. A slot is handed over in two steps: the giver sets the future's result, and
        some turns of the loop later the waiter runs and finds it. A cancellation can fall in between. Then the slot
        is already this task's own, although its await raises: nobody else knows of it, and nobody else will ever give
        it back. So the question is not whether this task was cancelled, but on which side of the hand-over.

        Before it, the future itself is cancelled (or was answered with an error or with "too late"), and leaving the
        queue is all there is to do; a giver that comes later finds the future done and goes on to the next waiter.
        After it, the future has a slot, which must go on to the next waiter at once, or that waiter sleeps for ever
        beside a connection that nobody uses. Either way the cancellation itself goes on its way untouched.
        """
        # Not cancelled yet is the future of a coroutine that was closed, with GeneratorExit: it knows nothing of that.
        with contextlib.suppress(RuntimeError):  # the loop has closed, and nobody is left to be told
            if future.cancel() or future.cancelled():
                self._slots.leave(attempt)
                # It may keep its place in the queue for a while, but should keep no task alive.
                attempt.task, attempt.found = None, ()
            elif future.exception() is None and (slot := future.result()) is not None:
                self._stock.put_back(slot, self._clock())

    # -- giving up

    def waiters(self) -> tuple[Waiter, ...]:
        """Who queues now, longest first. Safe to call from any thread."""
        now = self._clock()
        return tuple(attempt.waiter(now) for attempt in self._slots.queue())

    def expire_waiters(self, now: float) -> float:
        """Tell late waiters that they are late; returns when the next one will be."""
        limit, due, late = self._settings.acquisition_timeout, float("inf"), False
        while limit is not None and (attempt := self._slots.oldest_caller) is not None:
            if attempt.began + limit > now:
                due = attempt.began + limit
                break
            _give_up(attempt.turn)
            self._slots.leave(attempt)
            late = True
        if late:
            self._situation = self._look()
            # Behind those who have just been told, who wake in the same turn of the loop.
            asyncio.get_running_loop().call_soon(self._look_again)
        return due

    def _look(self) -> Situation:
        return self._leases.situation(self._stats())

    def _look_again(self) -> None:
        self._situation = None

    def _timed_out(self, attempt: Attempt) -> PoolConnectionAcquireTimeoutError:
        now, task, situation = self._clock(), _current_task(), self._situation or self._look()
        waited, own = now - attempt.began, situation.held_by.get(task, ()) if task is not None else ()
        last = self._stock.lifecycle.last_failure
        failure = None if last is None else (last[0], now - last[1])
        message = explain_timeout(waited, situation.stats, situation.holders, own, failure)
        return PoolConnectionAcquireTimeoutError(
            message, waited=waited, stats=situation.stats, holders=situation.holders
        )


def _give_up(waiter: Any) -> None:
    if not waiter.done():
        waiter.set_result(None)
