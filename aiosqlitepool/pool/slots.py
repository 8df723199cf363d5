"""Who holds which slot and who waits. Pure and synchronous: no SQLite, no clock, no events, no await.

A pool is `size` slots, made once. A slot is in exactly one of three places, and the place *is* its state:

              take()                        give_back(slot)
    vacant ──────────►            ┌──────►  the oldest waiter (the slot stays taken)
                         taken ───┤──────►  idle    if it has a connection   (newest first out)
    idle   ──────────►            └──────►  vacant  if it has none

Everything slow happens to a *taken* slot, and only its taker touches its connection; so there is no lock here,
and nothing anybody has to clean up but the taker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Slot", "Slots"]

T = TypeVar("T")
R = TypeVar("R")
T_contra = TypeVar("T_contra", contravariant=True)


class Slot(Generic[T]):
    """A place for one connection; `connection` is `None` while it is vacant or being filled."""

    __slots__ = ("connection", "number")

    def __init__(self, number: int) -> None:
        self.number: int = number
        self.connection: T | None = None

    def __repr__(self) -> str:
        return f"<Slot {self.number}: {self.connection!r}>"


class Waiter(Protocol[T_contra]):
    """What a queue of waiters needs of an `asyncio.Future`."""

    def done(self) -> bool:
        """Whether it was answered or given up already."""
        ...

    def set_result(self, result: T_contra, /) -> None:
        """Answer it."""
        ...

    def set_exception(self, exception: BaseException, /) -> None:
        """Tell it that there will be no answer."""
        ...


class Caller(Protocol):
    """Who queues."""

    # What tells it that a slot is its own, of type `Waiter`; `None` unless it stands in the queue.
    turn: Any


class Slots(Generic[T]):
    """The slots of one pool and the queue for them, first come, first served.

    Invariants, true whenever no method is running (`check()` asserts them):
      - every slot is in one place only: in `_idle`, in `_vacant`, or taken, which is neither;
      - an idle slot has a connection, a vacant one has none;
      - while anyone waits (and is not done waiting), nothing is idle and nothing is vacant;
      - the first in the queue has not left it, and no more places are kept there for those who left than others wait.
    """

    __slots__ = ("_idle", "_left", "_queue", "_vacant", "all")

    def __init__(self, size: int) -> None:
        self.all: tuple[Slot[T], ...] = tuple(Slot(number) for number in range(1, size + 1))
        # Oldest first; taken from the end, so that a quiet pool keeps few connections busy and can shrink.
        self._idle: list[Slot[T]] = []
        self._vacant: list[Slot[T]] = list(reversed(self.all))
        # The first of them waits. Who leaves from the middle keeps its place until those before it are gone, or too
        # many have left: a mapping could forget it at once, but costs each who waits more the longer the queue is.
        self._queue: deque[Any] = deque()
        # Who has left and keeps its place. A set, for whom Ctrl-C interrupts as they leave may be taken out twice.
        self._left: set[Any] = set()

    @property
    def idle(self) -> int:
        """How many slots hold a connection nobody uses."""
        return len(self._idle)

    @property
    def used(self) -> int:
        """How many slots are taken. Safe to read from any thread, never negative, never more than there are."""
        return max(0, len(self.all) - len(self._idle) - len(self._vacant))

    @property
    def waiting(self) -> int:
        """How many callers are queued. Safe to read from any thread, never negative."""
        return max(0, len(self._queue) - len(self._left))

    @property
    def oldest_caller(self) -> Any:
        """Who has waited longest, or `None`. Safe to read from any thread."""
        return _retried(lambda: next((caller for caller in self._queue if caller.turn is not None), None))

    def queue(self) -> tuple[Any, ...]:
        """Who waits, oldest first. Safe to call from any thread."""
        return tuple(caller for caller in _retried(lambda: tuple(self._queue)) if caller.turn is not None)

    def idle_slots(self) -> tuple[Slot[T], ...]:
        """The idle slots, longest idle first."""
        return tuple(self._idle)

    def take_idle(self) -> Slot[T] | None:
        """Take the idle slot used last, or nothing."""
        return self._idle.pop() if self._idle else None

    def take_vacant(self) -> Slot[T] | None:
        """Take a slot without connection, or nothing."""
        return self._vacant.pop() if self._vacant else None

    def take_this(self, slot: Slot[T]) -> bool:
        """Take one particular idle slot, as trimming does; False if it is no longer idle."""
        try:
            self._idle.remove(slot)
        except ValueError:
            return False
        return True

    def give_back(self, slot: Slot[T]) -> None:
        """Hand a taken slot to the oldest waiter, or put it where its content says it belongs."""
        while self._queue:
            waiter = self._queue[0].turn
            # A waiter cancelled a moment ago is done but has not run yet to leave the queue. Handing it the slot
            # would raise here and lose the slot for ever. And one that is gone was interrupted as it left, by Ctrl-C.
            if waiter is not None and not waiter.done():
                waiter.set_result(slot)
                self._step_up()  # only now, or Ctrl-C in between would lose it
                return
            self._step_up()
        (self._vacant if slot.connection is None else self._idle).append(slot)

    def enqueue(self, caller: Caller, waiter: Waiter[Slot[T]]) -> None:
        """Queue behind everyone; only right after nothing could be taken."""
        caller.turn = waiter
        self._queue.append(caller)

    def leave(self, caller: Caller) -> None:
        """Take a caller out of the queue, if it is still there."""
        if caller.turn is not None:
            caller.turn = None
            self._left.add(caller)
            self._close_ranks()

    def _step_up(self) -> None:
        """The first in the queue need not wait any more."""
        self._queue[0].turn = None
        self._close_ranks()

    def _close_ranks(self) -> None:
        """Let the queue begin with somebody who waits, and hold no more who left than who wait."""
        queue = self._queue
        while queue and queue[0].turn is None:
            self._left.discard(queue[0])
            queue.popleft()
        if 2 * len(self._left) > len(queue):
            self._queue = deque(caller for caller in queue if caller.turn is not None)
            self._left = set()

    def dismiss(self) -> list[Waiter[Slot[T]]]:
        """Empty the queue and return who stood in it, oldest first."""
        dismissed = []
        for caller in self.queue():
            dismissed.append(caller.turn)
            self.leave(caller)
        return dismissed

    def check(self) -> None:
        """Assert the invariants."""
        idle, vacant = set(self._idle), set(self._vacant)
        assert len(idle) == len(self._idle), "a slot is idle twice"
        assert len(vacant) == len(self._vacant), "a slot is vacant twice"
        assert not idle & vacant, "a slot is idle and vacant"
        assert idle | vacant <= set(self.all), "a slot of another pool"
        assert all(slot.connection is not None for slot in idle), "an idle slot without a connection"
        assert all(slot.connection is None for slot in vacant), "a vacant slot with a connection"
        assert not self._queue or self._queue[0].turn is not None, "the first in the queue has left"
        assert self.waiting == len(self.queue()) >= len(self._left), "more have left the queue than wait in it"
        queued = [caller for caller in self.queue() if not caller.turn.done()]
        assert not (queued and (idle or vacant)), "someone waits although a slot is free"


def _retried(look: Callable[[], R]) -> R:
    """What a look from another thread sees, once the queue did not change between two of its steps."""
    while True:
        try:
            return look()
        except RuntimeError:
            continue
