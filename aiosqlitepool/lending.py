"""Lending and taking back: where callers meet the stock, and what each acquire and release tells.

Runs in the event loop only. An idle connection is lent, and a clean one taken back, without a single await.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from .bus import EventBus
from .diagnosis import explain_full, explain_timeout
from .driver import Connection
from .errors import PoolClosedError, PoolConnectionAcquireTimeoutError, PoolFullError, PoolUsageError
from .events import (
    AcquireCancelled,
    AcquiredAtOnce,
    AcquireFailed,
    AcquirePath,
    AcquireRejected,
    AcquireTimedOut,
    CloseReason,
    ConnectionAcquired,
    ConnectionReleased,
    ErrorInfo,
    LeakReturned,
    LeakSuspected,
)
from .housekeeping import Timer
from .lease import Lease
from .lifecycle import PooledConnection
from .settings import PoolSettings
from .stats import Holder, Holders, PoolStats, Waiter
from .stock import PooledSlot, Stock

__all__ = ["Lending"]

C = TypeVar("C", bound=Connection)

# A waiter's span links to this many holders at most.
_LINKED_HOLDERS = 8

_this_thread = threading.get_ident
_current_task = asyncio.current_task


class _Attempt:
    """One acquire on its way, and what its events will tell of it."""

    __slots__ = ("began", "check_time", "create_time", "label", "path", "pending", "queue_time", "task", "waited_for")

    def __init__(self, began: float, label: str | None) -> None:
        self.began = began
        self.label = label
        self.path: AcquirePath = "idle"
        self.queue_time = self.create_time = self.check_time = 0.0
        self.pending = 0
        self.waited_for: Sequence[Holder] = ()
        self.task: asyncio.Task[Any] | None = None

    def waiter(self, now: float) -> Waiter:
        """Who waits at `now`; only while it is queued."""
        task = self.task
        return Waiter("a callback" if task is None else task.get_name(), self.label, max(0.0, now - self.began))


class Lending(Generic[C]):
    """Lends the connections of one stock to callers, first come, first served."""

    def __init__(
        self,
        stock: Stock[C],
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
        self._leak_threshold = settings.leak_threshold
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
            self._enter()
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
        bus.acquired_at_once += 1
        if bus.handlers:
            self._tell_at_once(lease, pooled)
        return pooled.raw

    def _tell_at_once(self, lease: Lease[C], pooled: PooledConnection[C]) -> None:
        if ConnectionAcquired in self._bus.handlers:
            lease.context = contextvars.copy_context()
        if AcquiredAtOnce in self._bus.handlers:
            self._bus.emit(AcquiredAtOnce(self._name, pooled.number, "idle", 0.0, label=lease.label))

    def _begin(self, lease: Lease[C], pooled: PooledConnection[C], now: float, task: asyncio.Task[Any] | None) -> bool:
        """Tie the lease to the connection; False if that turns out to be dead."""
        lease.since = now
        lease.task = task
        if not pooled.link.lend(lease):
            return False
        lease.pooled = pooled
        pooled.lease = lease
        if self._leak_threshold is not None:
            lease.leak_told = False
            self._timer.wake(now + self._leak_threshold)
        return True

    async def lend(self, lease: Lease[C]) -> C:
        """Lend as soon as it can be done: queue, open or check, all within the one deadline."""
        attempt = _Attempt(self._clock(), lease.label)
        try:
            slot = self._stock.take()
            if slot is None:
                slot = await self._granted(self._enqueue(attempt))
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
        if ConnectionAcquired in self._bus.handlers:
            lease.context = contextvars.copy_context()
            self._bus.emit(self._acquired(attempt, pooled.number, lease.since))
        return pooled.raw

    def _acquired(self, attempt: _Attempt, connection: int, now: float) -> ConnectionAcquired:
        return ConnectionAcquired(
            self._name,
            connection,
            attempt.path,
            now - attempt.began,
            attempt.queue_time,
            attempt.create_time,
            attempt.check_time,
            attempt.label,
            attempt.pending,
            attempt.waited_for,
        )

    def _tell_failure(self, attempt: _Attempt, error: BaseException) -> None:
        kind, more = self._failure(error)
        if kind in self._bus.handlers:
            waited = self._clock() - attempt.began
            self._bus.emit(kind(self._name, waited, self._slots.waiting, label=attempt.label, **more))

    @staticmethod
    def _failure(error: BaseException) -> tuple[Any, dict[str, Any]]:
        if isinstance(error, PoolConnectionAcquireTimeoutError):
            return AcquireTimedOut, {"holders": error.holders}
        if isinstance(error, asyncio.CancelledError):
            return AcquireCancelled, {}
        if isinstance(error, PoolFullError):
            return AcquireRejected, {}
        return AcquireFailed, {"error": ErrorInfo.of(error)}

    def _enqueue(self, attempt: _Attempt) -> asyncio.Future[PooledSlot[C] | None]:
        """Stand behind everyone else, if that is allowed."""
        settings = self._settings
        attempt.path, attempt.pending = "queued", self._slots.waiting
        if settings.acquisition_timeout == 0:
            raise self._timed_out(attempt)
        if settings.max_waiting is not None and attempt.pending >= settings.max_waiting:
            raise PoolFullError(explain_full(self._stats(), settings.max_waiting))
        if ConnectionAcquired in self._bus.handlers:
            attempt.waited_for = Holders(partial(_as_they_were, self._leased(), attempt.began))
        waiter: asyncio.Future[PooledSlot[C] | None] = asyncio.get_running_loop().create_future()
        attempt.task = _current_task()
        self._slots.enqueue(waiter, attempt.began, attempt)
        if settings.acquisition_timeout is not None:
            self._timer.wake(attempt.began + settings.acquisition_timeout)
        return waiter

    async def _prepare(self, slot: PooledSlot[C], attempt: _Attempt) -> None:
        began = self._clock()
        if self._stock.closing:
            self._stock.put_back(slot, began)
            raise PoolClosedError(f"pool {self._name!r} closed while its caller waited")
        claim, task = self._stock.prepare(slot)
        limit = self._settings.acquisition_timeout
        remaining = None if limit is None else max(0.0, attempt.began + limit - began)
        if limit == 0:  # never queues; but opening takes the time it takes
            remaining = self._settings.operation_timeout
        loop = asyncio.get_running_loop()
        deadline = None if remaining is None else loop.call_later(remaining, _give_up, claim)
        try:
            if await self._granted(claim) is None:
                raise self._timed_out(attempt)
        finally:
            if deadline is not None:
                deadline.cancel()
            if not task.done():
                # What hangs without anybody waiting for it must not keep its slot for ever.
                self._stock.give_up_later(task)
        self._note_preparation(attempt, slot, began)

    def _note_preparation(self, attempt: _Attempt, slot: PooledSlot[C], began: float) -> None:
        pooled = slot.connection
        assert pooled is not None
        if pooled.created_at >= began:
            attempt.create_time = pooled.create_time
            attempt.path = "new" if attempt.path == "idle" else attempt.path
        else:
            attempt.check_time = pooled.check_time

    async def _granted(self, future: asyncio.Future[PooledSlot[C] | None]) -> PooledSlot[C] | None:
        """Await a slot, or `None` for "too late".

        The one subtle place in the pool. A slot is handed over in two steps: the giver sets the future's result, and
        some turns of the loop later the waiter runs and finds it. A cancellation can fall in between. Then the slot
        is already this task's own, although this line raises: nobody else knows of it, and nobody else will ever give
        it back. So the question is not whether this task was cancelled, but on which side of the hand-over.

        Before it, the future itself is cancelled (or was answered with an error or with "too late"), and leaving the
        queue is all there is to do; a giver that comes later finds the future done and goes on to the next waiter.
        After it, the future has a slot, which must go on to the next waiter at once, or that waiter sleeps for ever
        beside a connection that nobody uses. Either way the cancellation itself goes on its way untouched.
        """
        try:
            return await future
        except asyncio.CancelledError:
            if future.cancelled():
                self._slots.leave(future)
            elif future.exception() is None and (slot := future.result()) is not None:
                self._stock.put_back(slot, self._clock())
            raise

    def _timed_out(self, attempt: _Attempt) -> PoolConnectionAcquireTimeoutError:
        now = self._clock()
        waited, stats, holders = now - attempt.began, self._stats(), self.holders()
        mine = _current_task()
        own = [pooled.number for pooled, lease in self._leased() if lease.task is mine and mine is not None]
        last = self._stock.lifecycle.last_failure
        failure = None if last is None else (last[0], now - last[1])
        message = explain_timeout(waited, stats, holders, own, failure)
        return PoolConnectionAcquireTimeoutError(message, waited=waited, stats=stats, holders=holders)

    # -- taking back

    def take_back(self, lease: Lease[C]) -> Awaitable[None] | None:
        """End a lease: at once if nothing has to be awaited for it, else by awaiting what this returns."""
        pooled = lease.pooled
        if pooled is None:
            raise PoolUsageError("this lease holds no connection")
        now = self._clock()
        late = lease.holder(now, pooled.number) if self._leak_threshold is not None and lease.leak_told else None
        lease.pooled = None
        if pooled.lease is not lease:
            return None  # the pool closed it under its holder
        outcome = pooled.link.settle()
        pooled.lease = None
        if outcome is True:
            self._stock.put_back(pooled.slot, now)
        if ConnectionReleased in self._bus.handlers:
            self._bus.emit(
                ConnectionReleased(
                    self._name,
                    pooled.number,
                    now - lease.since,
                    lease.label,
                    outcome is not True,
                    lease.context,
                )
            )
        if late is not None and LeakReturned in self._bus.handlers:
            self._bus.emit(LeakReturned(self._name, late, now - lease.since))
        if outcome is True:
            return None
        if outcome is False:
            return self._reset(pooled, lease.label)
        return self._finish(pooled, lease.label, outcome)

    async def _reset(self, pooled: PooledConnection[C], label: str | None) -> None:
        """Reset in a task of the pool's own: the releasing task may be cancelled again, the connection not lost."""
        # Not shield(): when closing the pool cuts the reset short, nobody cancelled the releasing task.
        await asyncio.wait({self._start_reset(pooled, label)})

    def _start_reset(self, pooled: PooledConnection[C], label: str | None) -> asyncio.Task[CloseReason | None]:
        work = self._stock.lifecycle.reset(pooled, label)
        return self._stock.spawn(work, name="reset", then=partial(self._after_reset, pooled))

    async def _finish(self, pooled: PooledConnection[C], label: str | None, rest: Awaitable[None]) -> None:
        try:
            reason = await self._stock.lifecycle.finish(pooled, rest)
        except asyncio.CancelledError:
            self._start_reset(pooled, label)
            raise
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

    # -- watching

    def _leased(self) -> list[tuple[PooledConnection[C], Lease[C]]]:
        return [
            (pooled, lease)
            for slot in self._slots.all
            if (pooled := slot.connection) is not None and (lease := pooled.lease) is not None
        ]

    def holders(self) -> tuple[Holder, ...]:
        """Who holds a connection, longest first. Safe to call from any thread."""
        return _as_they_were(self._leased(), self._clock(), None)

    def waiters(self) -> tuple[Waiter, ...]:
        """Who queues now, longest first. Safe to call from any thread."""
        now = self._clock()
        return tuple(attempt.waiter(now) for _, attempt in self._slots.queue())

    def oldest_checkout(self, now: float) -> float:
        """How long the longest lease has lasted. Safe to call from any thread."""
        return max((now - lease.since for _, lease in self._leased()), default=0.0)

    def sweep(self, now: float) -> float:
        """Tell late waiters that they are late, and tell of suspected leaks; returns when to look again."""
        return min(self._expire_waiters(now), self._suspect_leaks(now))

    def _expire_waiters(self, now: float) -> float:
        limit = self._settings.acquisition_timeout
        while limit is not None and (oldest := self._slots.next_waiter()) is not None:
            waiter, since = oldest
            if since + limit > now:
                return since + limit
            self._slots.leave(waiter)
            _give_up(waiter)
        return float("inf")

    def _suspect_leaks(self, now: float) -> float:
        due = float("inf")
        for pooled, lease in self._leased() if self._leak_threshold is not None else ():
            suspect_at = lease.since + (self._leak_threshold or 0.0)
            if lease.leak_told:
                continue
            if now < suspect_at:
                due = min(due, suspect_at)
                continue
            lease.leak_told = True
            if LeakSuspected in self._bus.handlers:
                self._bus.emit(LeakSuspected(self._name, lease.holder(now, pooled.number), now - lease.since))
        return due

    def abandon(self) -> tuple[Holder, ...]:
        """Close every connection that is still out, under its holder; returns who they were."""
        holders, now = self.holders(), self._clock()
        for pooled, _ in self._leased():
            pooled.lease = None
            self._stock.drop(pooled.slot, "pool_closed")
            self._stock.put_back(pooled.slot, now)
        return holders


def _as_they_were(
    leased: list[tuple[PooledConnection[C], Lease[C]]], now: float, most: int | None = _LINKED_HOLDERS
) -> tuple[Holder, ...]:
    """The holders of these connections at `now`, longest first; also when they have given them back since."""
    oldest_first = sorted(leased, key=lambda each: each[1].since)[:most]
    return tuple(lease.holder(now, pooled.number) for pooled, lease in oldest_first)


def _give_up(waiter: Any) -> None:
    if not waiter.done():
        waiter.set_result(None)
