"""Making one taken slot lendable: check what it holds, or open a connection.

Runs in a task of the stock's own, whose outcome is handled however it ends: no cancellation of a caller can lose the
slot. Knows nothing of leases, or of callers beyond the future they wait on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from ..driver import Connection
from ..errors import PoolError
from ..events import CloseReason
from .background import Tasks
from .connection import Lifecycle, OpenFailed
from .pooled import PooledConnection
from .slots import Slot

__all__ = ["PooledSlot", "Preparation"]

C = TypeVar("C", bound=Connection)
PooledSlot = Slot[PooledConnection[C]]


class Stock(Protocol[C]):
    """What a preparation needs of its stock."""

    lifecycle: Lifecycle[C]
    tasks: Tasks

    def why_not_idle(self, pooled: PooledConnection[C]) -> CloseReason | None:
        """Why a connection that stood idle has to go, if it does."""
        ...

    def tell_replaced(self, pooled: PooledConnection[C], reason: CloseReason) -> None:
        """Tell that it went."""
        ...

    def drop(self, slot: PooledSlot[C], reason: CloseReason) -> None:
        """Part a taken slot from its connection."""
        ...

    def filled_slot(self, slot: PooledSlot[C]) -> None:
        """A slot has a new connection."""
        ...

    def prepared(self, preparation: Preparation[C], failure: OpenFailed | None) -> None:
        """A preparation that nobody waits for any more, or that failed, gives its slot back."""
        ...


class Preparation(Generic[C]):
    """One slot on its way to be lendable. `claim` gets the slot, or the error; `None` if nobody is to have it.

    `ended` is done when the slot is no longer the preparation's own, and `error` says then why that failed, if it did.
    """

    __slots__ = ("_began", "_clock", "_pool", "_stock", "claim", "ended", "error", "slot", "task")

    def __init__(
        self, stock: Stock[C], slot: PooledSlot[C], *, claimed: bool, pool: str, clock: Callable[[], float]
    ) -> None:
        loop = asyncio.get_running_loop()
        self._stock = stock
        self._pool = pool
        self._clock = clock
        self._began = clock()
        self.slot: PooledSlot[C] = slot
        self.claim: asyncio.Future[PooledSlot[C] | None] | None = loop.create_future() if claimed else None
        self.ended: asyncio.Future[None] = loop.create_future()
        self.error: BaseException | None = None
        name = "prepare" if claimed else "fill"
        self.task: asyncio.Task[Any] = stock.tasks.spawn(self._run(), name=name, then=self._task_ended)

    async def _run(self) -> OpenFailed | None:
        slot, lifecycle = self.slot, self._stock.lifecycle
        if slot.connection is not None and await self._still_good(slot.connection):
            return None
        try:
            pooled = await lifecycle.open(slot)
        except OpenFailed as failure:
            return failure  # a loop that ends, and cancels this task, would complain of one that raises instead
        if self.ended.done():
            await lifecycle.discard(pooled)
            return None
        slot.connection = pooled
        self._stock.filled_slot(slot)
        lifecycle.tell_created(pooled)
        return None

    async def _still_good(self, pooled: PooledConnection[C]) -> bool:
        stock, now = self._stock, self._clock()
        reason = stock.why_not_idle(pooled)
        if reason is not None:
            stock.drop(self.slot, reason)
            stock.tell_replaced(pooled, reason)
            return False
        error = await stock.lifecycle.check(pooled)
        if error is None or self.ended.done():
            return True
        stock.drop(self.slot, "unhealthy")
        stock.lifecycle.tell_unhealthy(pooled, now - pooled.idle_since, error)
        return False

    def _task_ended(self, task: asyncio.Task[OpenFailed | None]) -> None:
        if self.ended.done():
            return
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        failure = task.result() if error is None else None
        self._end(failure, error)

    def _end(self, failure: OpenFailed | None, error: BaseException | None) -> None:
        """The slot goes to whoever waits for it, or back."""
        slot, claim = self.slot, self.claim
        self.ended.set_result(None)
        if failure is not None:
            error = failure.error
        if isinstance(error, asyncio.CancelledError):  # never the caller's own: it did not wait for that
            error = self._took_too_long()
        if error is not None and slot.connection is not None:
            self._stock.drop(slot, "broken")  # cancelled in the middle of a check: nobody knows what it would answer
        self.error = error
        if error is None and claim is not None and not claim.done():
            claim.set_result(slot)
            return
        self._stock.prepared(self, failure)
        # Asked only now: whoever was told of the failure may have cancelled the caller.
        if error is not None and claim is not None and not claim.done():
            claim.set_exception(error)

    def _took_too_long(self) -> PoolError:
        return PoolError(f"pool {self._pool!r}: opening the connection took too long or was cancelled")

    def give_up_later(self, seconds: float) -> None:
        """Cancel it if it still hangs after so many seconds; after as many again, do without it.

        A factory that swallows the cancellation loses its slot then; what it makes in the end is closed.
        """
        loop = self.task.get_loop()
        if self.task.done() or loop.is_closed():
            return
        giving_up = loop.call_later(seconds, self.task.cancel)
        doing_without = loop.call_later(2 * seconds, self._do_without)
        self.task.add_done_callback(lambda _: giving_up.cancel())
        self.task.add_done_callback(lambda _: doing_without.cancel())

    def _do_without(self) -> None:
        if not self.ended.done():
            checking = self.slot.connection is not None
            error = self._took_too_long()
            failure = None if checking else self._stock.lifecycle.failed_to_open(error, self._began)
            self._end(failure, error)
