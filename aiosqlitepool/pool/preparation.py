"""Slots that are being opened or checked, each in a task of the pool's own, and when to give that up.

A task ends in `ended`, in its callback, which runs whatever becomes of it: no cancellation can lose the slot.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, Generic, TypeVar

from ..bus import EventBus
from ..driver import Connection
from ..errors import PoolError
from ..events import CloseReason, IdleReplaced
from .background import BackgroundTasks, Timer
from .connection import Connector, PooledConnection
from .settings import PoolSettings
from .slots import Slot, Slots

__all__ = ["PooledSlot", "Preparation", "Preparations"]

C = TypeVar("C", bound=Connection)
PooledSlot = Slot[PooledConnection[C]]


class Preparation(Generic[C]):
    """A slot that is being opened or checked. It owns the slot until it has ended."""

    __slots__ = ("began", "caller", "due", "ended", "given_up", "slot", "task")

    def __init__(self, slot: PooledSlot[C], caller: object, began: float, due: float) -> None:
        self.slot: PooledSlot[C] = slot
        # The request that it was begun for, if any, and when it is given up unless that still waits.
        self.caller: object = caller
        self.began: float = began
        self.due: float = due
        self.given_up: bool = False
        self.ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[BaseException | None]


class Preparations(Generic[C]):
    """The preparations of one pool.

    `remove(slot, reason)` removes the connection of a slot; `ended(preparation, error)` takes the slot back.
    """

    def __init__(
        self,
        slots: Slots[PooledConnection[C]],
        connector: Connector[C],
        background: BackgroundTasks,
        settings: PoolSettings,
        bus: EventBus,
        timer: Timer,
        remove: Callable[[PooledSlot[C], CloseReason], None],
        ended: Callable[[Preparation[C], BaseException | None], None],
    ) -> None:
        self._slots = slots
        self._connector = connector
        self._background = background
        self._bus = bus
        self._timer = timer
        self._remove = remove
        self._ended = ended
        self._name = str(settings.name)
        self._clock = settings.clock
        self._limit = settings.operation_timeout
        self._idle_timeout = math.inf if settings.idle_timeout is None else settings.idle_timeout
        # A dict for its order: what is given up at the same moment is given up in the same order in every run.
        self._running: dict[Preparation[C], None] = {}

    def start(self, slot: PooledSlot[C], caller: object, context: Context | None) -> None:
        """Check what a taken slot holds, or open a connection for it."""
        now = self._clock()
        preparation = Preparation(slot, caller, now, now + self._limit)
        self._running[preparation] = None
        self._slots.preparing += 1
        self._timer.wake(preparation.due)
        work, then = self._prepare(preparation), partial(self._task_ended, preparation)
        preparation.task = self._background.spawn(work, name="prepare", then=then, context=context)

    async def wait(self) -> list[BaseException]:
        """Wait for those that run now; return why they failed."""
        ending = [preparation.ended for preparation in self._running]
        if ending:
            # Not gather, whose cancellation would cancel what others wait for too.
            await asyncio.wait(ending)
        return [error for ended in ending if (error := ended.result()) is not None]

    async def _prepare(self, preparation: Preparation[C]) -> BaseException | None:
        slot = preparation.slot
        if slot.connection is not None and await self._is_good(preparation, slot.connection):
            return None
        preparation.began = self._clock()
        try:
            pooled = await self._connector.open()
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            return error  # a loop that ends, and cancels this task, would complain of one that raises instead
        if preparation.ended.done():
            await self._connector.discard(pooled)
            return None
        slot.connection = pooled
        self._timer.wake(pooled.expires_at)
        self._connector.emit_created(pooled)
        return None

    async def _is_good(self, preparation: Preparation[C], pooled: PooledConnection[C]) -> bool:
        now = self._clock()
        reason = self.why_not_idle(pooled, now)
        if reason is not None:
            self._remove(preparation.slot, reason)
            self.emit_replaced(pooled, reason, now)
            return False
        error = await self._connector.check(pooled)
        if error is None or preparation.ended.done():
            return True
        self._remove(preparation.slot, "unhealthy")
        self._connector.emit_unhealthy(pooled, now - pooled.idle_since, error)
        return False

    def why_not_idle(self, pooled: PooledConnection[C], now: float) -> CloseReason | None:
        """Return why a connection that is idle has to be replaced, if it does."""
        if now >= pooled.expires_at:
            return "lifetime"
        return "idle" if now - pooled.idle_since >= self._idle_timeout else None

    def emit_replaced(self, pooled: PooledConnection[C], reason: CloseReason, now: float) -> None:
        """Emit that an idle connection was replaced."""
        if reason == "idle" and IdleReplaced in self._bus.handlers:
            self._bus.emit(IdleReplaced(self._name, pooled.number, now - pooled.idle_since))

    def _task_ended(self, preparation: Preparation[C], task: asyncio.Task[BaseException | None]) -> None:
        self._end(preparation, asyncio.CancelledError() if task.cancelled() else task.exception() or task.result())

    def _end(self, preparation: Preparation[C], error: BaseException | None) -> None:
        if not preparation.ended.done():
            del self._running[preparation]
            self._slots.preparing -= 1
            # Not the cancellation of any caller: none runs in this task.
            is_cancelled = isinstance(error, asyncio.CancelledError)
            preparation.ended.set_result(self._took_too_long() if is_cancelled else error)
            self._ended(preparation, error)

    # -- giving up

    def give_up_hanging(self, now: float) -> float:
        """Give up what has run for `operation_timeout` and lost its caller; return when to look next."""
        due = math.inf
        for preparation in [each for each in self._running if not each.given_up]:
            if now >= preparation.due:
                if preparation.caller is None or not self._slots.waits(preparation.caller):
                    self._give_up(preparation, self._limit)
                    continue
                preparation.due = now + self._limit
            due = min(due, preparation.due)
        return due

    def left(self, caller: object, now: float) -> None:
        """Note that a caller has left the queue: what it had prepared may go on for `operation_timeout`."""
        for preparation in self._running:
            if preparation.caller is caller:
                preparation.due = now + self._limit
                self._timer.wake(preparation.due)

    def give_up_all(self, seconds: float) -> None:
        """Give up everything after so many seconds."""
        seconds = min(seconds, self._limit)
        for preparation in self._running:
            self._later(preparation, seconds, self._give_up, seconds)

    def _give_up(self, preparation: Preparation[C], seconds: float) -> None:
        """Cancel it; after so many seconds, take its slot away.

        A factory that swallows the cancellation loses its slot then; what it makes in the end is closed.
        """
        preparation.given_up = True
        preparation.task.cancel()
        self._later(preparation, seconds, self._end, self._took_too_long())

    @staticmethod
    def _later(preparation: Preparation[C], seconds: float, what: Callable[..., None], *args: Any) -> None:
        timer = preparation.task.get_loop().call_later(seconds, what, preparation, *args)
        preparation.ended.add_done_callback(lambda _: timer.cancel())

    def _took_too_long(self) -> PoolError:
        return PoolError(f"pool {self._name!r}: opening the connection took too long or was cancelled")
