"""The slots of a pool, and the queue for them. Pure and synchronous: no SQLite, no clock, no events, no await.

A pool is `size` slots, made once. A slot is in one of three places, and the place *is* its state:

              take()                        give_back(slot)
    vacant ──────────►            ┌──────►  the oldest waiter (the slot stays taken)
                         taken ───┤──────►  idle    if it has a connection   (newest first out)
    idle   ──────────►            └──────►  vacant  if it has none

Everything slow happens to a *taken* slot, and only its taker touches its connection. So there is no lock here, and
nothing to clean up but by the taker.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["Sharing", "Slot", "Slots", "retried"]

T = TypeVar("T")
R = TypeVar("R")


class Sharing:
    """The requests that have a slot together; `requests` is empty while one has it alone, or none has it.

    It has the lease of the connection for all of them.
    """

    __slots__ = ("handle", "label", "paused", "requests")

    def __init__(self) -> None:
        # In the order in which they got the slot.
        self.requests: dict[Any, None] = {}
        # Through which all of them use the connection.
        self.handle: Any = None
        # What for the one that runs. Set in the worker thread.
        self.label: str | None = None
        # The one that has to run again: none behind it runs any more, also when it has given up, as the worker may have
        # sent back the first of them already: each queues again. Set in the worker thread.
        self.paused: Any = None

    def forgotten(self) -> None:
        """Do nothing: the handle is kept here."""

    def refusal(self) -> None:
        """Return no error of its own for a use after the end."""


class Slot(Generic[T]):
    """A place for one connection; `connection` is `None` while it is vacant or being filled."""

    __slots__ = ("connection", "number", "sharing")

    def __init__(self, number: int) -> None:
        self.number: int = number
        self.connection: T | None = None
        self.sharing: Sharing = Sharing()

    def __repr__(self) -> str:
        return f"<Slot {self.number}: {self.connection!r}>"


class Slots(Generic[T]):
    """The slots of one pool and the queue for them, first come, first served.

    A request is a `Checkout`. This reads its `asked`, `deadline`, `timeout` (`None` if it is that of all) and `shared`,
    and sets the result of `answer`: a slot, or an exception.

    Invariants, true whenever no method is running:
      - every slot is in one place only: in `_idle`, in `_vacant`, or taken, which is neither;
      - an idle slot has a connection, a vacant one has none;
      - no slot is idle or vacant while more requests wait (whose futures are not done) than connections are prepared
        by the owner of the slots, unless the free slots are held.
    """

    __slots__ = ("_idle", "_in_order", "_queue", "_takable", "_vacant", "all", "is_held", "shared")

    def __init__(self, size: int) -> None:
        self.all: tuple[Slot[T], ...] = tuple(Slot(number) for number in range(1, size + 1))
        # Oldest first; taken from the end, so that a quiet pool keeps few connections busy and can shrink.
        self._idle: list[Slot[T]] = []
        # What `take_idle` takes from: the idle slots, or while they are held another list, which is empty. So a hold
        # costs the fast path nothing.
        self._takable: list[Slot[T]] = self._idle
        # Whether free slots are kept from all requests, see `hold`.
        self.is_held: bool = False
        self._vacant: list[Slot[T]] = list(reversed(self.all))
        # The requests that wait, oldest first.
        self._queue: OrderedDict[Any, None] = OrderedDict()
        # Whether the deadlines of the queue are in its order.
        self._in_order = True
        # The slot that more shared requests may join.
        self.shared: Slot[T] | None = None

    @property
    def idle(self) -> int:
        """How many slots hold a connection that is not in use."""
        return len(self._idle)

    @property
    def has_free(self) -> bool:
        """Whether a request would get a slot at once."""
        return bool(self._takable or (self._vacant and not self.is_held))

    @property
    def used(self) -> int:
        """How many slots are taken. Safe to read from any thread, never negative, never more than there are."""
        return max(0, len(self.all) - len(self._idle) - len(self._vacant))

    @property
    def waiting(self) -> int:
        """How many requests wait. Safe to read from any thread."""
        return len(self._queue)

    @property
    def oldest(self) -> Any:
        """The request that has waited longest, or `None`. Safe to read from any thread."""
        return retried(lambda: next(iter(self._queue), None))

    @property
    def newest(self) -> Any:
        """The request that is last in the queue, or `None`."""
        return next(reversed(self._queue), None)

    def queue(self) -> tuple[Any, ...]:
        """Return the requests that wait, oldest first. Safe to call from any thread."""
        return retried(lambda: tuple(self._queue))

    def waits(self, request: object) -> bool:
        """Whether this request is in the queue."""
        return request in self._queue

    def waiter(self, position: int) -> Any:
        """Return the request that is this far from the front."""
        return next(itertools.islice(self._queue, position, None))

    def idle_slots(self) -> tuple[Slot[T], ...]:
        """Return the idle slots, longest idle first."""
        return tuple(self._idle)

    # -- taking

    def take_idle(self) -> Slot[T] | None:
        """Take the idle slot used last, or nothing."""
        return self._takable.pop() if self._takable else None

    def take_vacant(self) -> Slot[T] | None:
        """Take a slot without connection, or nothing."""
        return self._vacant.pop() if self._vacant and not self.is_held else None

    def take_this(self, slot: Slot[T]) -> bool:
        """Take one particular idle slot, as trimming does; False if it is no longer idle."""
        try:
            self._idle.remove(slot)
        except ValueError:
            return False
        return True

    def share(self, slot: Slot[T], request: object) -> None:
        """Give a taken slot to a shared request; others may join it."""
        if not slot.sharing.requests:
            slot.sharing.paused = None
        slot.sharing.requests[request] = None
        self.shared = slot

    def join(self, request: object) -> Slot[T] | None:
        """Join the slot that is shared now, or nothing. Never overtakes a request that waits, or is going to."""
        slot = self.shared
        if slot is None or self._queue or slot.sharing.paused is not None:
            return None
        slot.sharing.requests[request] = None
        return slot

    def part(self, slot: Slot[T], request: object) -> bool:
        """End the share of a request, if it has one; True if no other has one: its caller is to free the slot."""
        sharing = slot.sharing
        sharing.requests.pop(request, None)
        if not sharing.requests:
            self.end_sharing(slot)
            return True
        # Else those that share it are to queue again, before all that would join them.
        if sharing.paused is None:
            self._hand_on(slot)
        return False

    def end_sharing(self, slot: Slot[T]) -> None:
        """Let no further request join this slot."""
        if self.shared is slot:
            self.shared = None

    # -- holding

    def hold(self) -> None:
        """Keep every free slot, and every slot that becomes free, from all requests until `resume()`."""
        self.is_held, self._takable, self.shared = True, [], None

    def resume(self) -> None:
        """Let free slots be taken again. The caller has them taken for the requests that wait."""
        self.is_held, self._takable = False, self._idle

    # -- freeing

    def give_back(self, slot: Slot[T]) -> None:
        """Free a taken slot: hand it to the oldest waiter, or put it where it belongs by what it holds."""
        if slot.connection is None:
            self._vacant.append(slot)
        elif not (self._queue and self._hand_on(slot)):
            self._idle.append(slot)

    def _hand_on(self, slot: Slot[T]) -> bool:
        """Hand the slot to the oldest waiter, and to those behind it that may share it; whether any got it."""
        while not self.is_held and (request := self._first()) is not None:
            if slot.sharing.requests and not (request.shared and self.shared is slot):
                return True
            if request.shared:
                self.share(slot, request)
            # Answered before it leaves the queue: Ctrl-C in between must not lose the slot.
            request.answer.set_result(slot)
            del self._queue[request]
            if not request.shared:
                return True
        return bool(slot.sharing.requests)

    def _first(self) -> Any:
        """Return the oldest request that still waits for an answer."""
        while self._queue:
            request = next(iter(self._queue))
            # A waiter cancelled a moment ago is done but has not run yet to leave the queue. Handing it the slot would
            # raise here and lose the slot.
            if not request.answer.done():
                return request
            del self._queue[request]
        return None

    # -- the queue

    def enqueue(self, request: Any, *, again: bool = False) -> None:
        """Queue behind all others; a request that queues again, behind those that asked before it only."""
        self._in_order = request.timeout is None and (self._in_order or not self._queue)
        self._queue[request] = None
        if again:
            others = itertools.islice(reversed(self._queue), 1, None)
            for later in reversed([*itertools.takewhile(lambda each: each.asked > request.asked, others)]):
                self._queue.move_to_end(later)

    def leave(self, request: object) -> None:
        """Take a request out of the queue, if it is still there."""
        self._queue.pop(request, None)

    def overdue(self, now: float) -> tuple[list[Any], float]:
        """Return the requests whose deadline has passed, and the next deadline."""
        late, due = [], math.inf
        for request in self._queue:
            if request.deadline <= now:
                late.append(request)
                continue
            due = min(due, request.deadline)
            if self._in_order:
                break
        return late, due

    def fail_oldest(self, error: BaseException) -> bool:
        """Raise `error` in the oldest waiter; False if none waits."""
        request = self._first()
        if request is None:
            return False
        request.answer.set_exception(error)
        self.leave(request)
        return True


def retried(read: Callable[[], R]) -> R:
    """Read from any thread: again, if the queue was changed in the middle of it."""
    while True:
        try:
            return read()
        except RuntimeError:
            continue
