"""What is known of one caller, from its request for a connection to its release: who, what for, since when. Plain data.

All times are readings of the pool's clock, in seconds.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Sequence
from time import perf_counter
from typing import Any, ClassVar, Final, Generic, TypeVar

from ..copying import CapturedContext, NotCopyable
from ..errors import PoolConnectionAcquireTimeoutError, PoolFullError
from ..events import AcquireCancelled, AcquireFailed, AcquirePath, AcquireRejected, AcquireTimedOut, ErrorInfo
from ..sql import normalized
from ..stats import Holder, Waiter
from .slots import Slot

__all__ = ["Checkout", "Ended", "failure_event", "found_by", "outcome"]

T = TypeVar("T")


# The names of a caller's task and of its coroutine, if it has none.
_NO_TASK: Final[tuple[str, None]] = "a callback", None


class Checkout(NotCopyable, Generic[T]):
    """A caller that wants a connection, waits for one, or holds one.

    What only a waiter needs is set when it begins to wait; most callers never do.
    """

    __slots__ = (
        "activity",
        "answer",
        "asked",
        "connection",
        "context",
        "deadline",
        "ended",
        "found",
        "label",
        "pending",
        "queued",
        "released",
        "since",
        "slot",
        "task",
        "timeout",
    )

    # Whether it may hold a connection together with others like it.
    shared: ClassVar[bool] = False

    def __init__(self, label: str | None, timeout: float | None = None) -> None:
        self.label: str | None = label
        # Seconds; `None` for the pool's own.
        self.timeout: float | None = timeout
        self.context: contextvars.Context | None = None
        # The slot that it holds.
        self.slot: Slot[T] | None = None

    # Set when it begins to hold a connection, and kept when it has ended.
    connection: int
    since: float
    task: asyncio.Task[Any] | None

    # The names of its task and of the coroutine of that, once the task has ended and was forgotten.
    ended: tuple[str, str | None]

    # What it runs or ran last, and when that began and ended by `perf_counter`; not set before its first operation.
    activity: tuple[Any, float, float | None]

    # Once it has ended while others waited: as a holder when it released, if a waiter has asked for that.
    released: Holder | None

    # Of a waiter: since when and until when it waits, behind how many, for whom, and what ends its wait.
    asked: float
    deadline: float
    queued: bool
    pending: int
    found: list[Any] | None
    answer: asyncio.Future[Slot[T]]

    @property
    def holds(self) -> bool:
        """Whether it has begun to use its connection."""
        return self.since < math.inf

    def refusal(self) -> Exception | None:
        """Return a new error for its holder, if the pool has ended it before its block did. Safe in any thread."""
        return None

    def wait_from(self, now: float, timeout: float) -> None:
        """Begin to wait at `now`, for `timeout` seconds at most unless it has a timeout of its own."""
        self.asked = now
        self.deadline = now + (timeout if self.timeout is None else self.timeout)
        self.queued = False
        self.pending = 0
        self.found = None
        self.task = asyncio.current_task()

    @property
    def task_name(self) -> str:
        """The name of the caller's task."""
        return getattr(self, "ended", _NO_TASK)[0] if self.task is None else self.task.get_name()

    def forget_task(self) -> None:
        """Keep only the names of a task that has ended.

        It keeps its exception, whose frames may have lost the connection: nothing would ever collect the handle.
        """
        task = self.task
        if task is not None and task.done():
            self.ended = task.get_name(), _coroutine_of(task)
            self.task = None  # in this order: another thread may read them

    def waiter(self, now: float) -> Waiter:
        """Return it as a waiter."""
        return Waiter(self.task_name, self.label, max(0.0, now - self.asked))

    def holder(self, now: float, waits_for: str | None = None, waited: float = 0.0, ago: float = 0.0) -> Holder:
        """Return it as a holder, whose task has waited for a connection of another pool for so long.

        Everything is as of `now`, which may be so many seconds ago.
        """
        task, context = self.task, self.context
        return Holder(  # by position: a slow acquire has up to eight of these
            self.connection,
            self.task_name,
            self.label,
            max(0.0, now - self.since),
            None if context is None else CapturedContext(context),
            hasattr(self, "ended") if task is None else task.done(),
            getattr(self, "ended", _NO_TASK)[1] if task is None else _coroutine_of(task),
            waits_for,
            waited,
            *self._statement(perf_counter() - ago),
        )

    def holder_until(self, ended: float, now: float) -> Holder:
        """Return it as a holder as of now, or as of its end: that one is made once, for all waiters that found it."""
        if ended > now:
            return self.holder(now)
        if self.released is None:
            self.released = self.holder(ended, ago=now - ended)
        return self.released

    def _statement(self, moment: float) -> tuple[str | None, float, bool]:
        text, began, ended = getattr(self, "activity", (None, 0.0, None))
        if not isinstance(text, str):
            return None, 0.0, False
        runs = ended is None or ended > moment
        took = max(0.0, (moment if ended is None else min(ended, moment)) - began)
        return normalized(str.__str__(text)), took, runs


def _coroutine_of(task: asyncio.Task[Any]) -> str | None:
    return getattr(task.get_coro(), "__qualname__", None)


class Ended:
    """The leases of one pool that ended while callers waited that had found them.

    They are a chain of links: a slot, its lease, when that ended, and the next link; the last one is empty as yet. A
    waiter keeps the link that was the last one when it joined the queue. So nothing is worked out unless its wait
    becomes slow, and what no waiter may ask for any more is garbage.
    """

    __slots__ = ("_last", "newest_asked")

    def __init__(self) -> None:
        self._last: list[Any] = []
        # When the newest waiter asked: no waiter has found a lease that began later.
        self.newest_asked: float = -math.inf

    def join(self, waiter: Checkout[Any]) -> None:
        """Keep for this waiter what says later which holders it has found."""
        self.newest_asked, waiter.found = waiter.asked, self._last

    def add(self, lease: Checkout[Any], slot: Slot[Any], now: float) -> None:
        """Add a lease that ends now. Call it before the slot is free."""
        link, self._last = self._last, []
        link += slot, lease, now, self._last
        lease.released = None


def found_by(waiter: Checkout[Any], holding: Sequence[Checkout[Any]], slots: int) -> list[tuple[Checkout[Any], float]]:
    """Return the leases that a waiter found when it joined the queue, and when each ended: infinity if it still holds.

    Of each slot it is the first lease to end since then. The pool has so many slots.
    """
    link = waiter.found
    if link is None:
        return []
    found = {each.slot: (each, math.inf) for each in holding if each.since < waiter.asked}
    while link and len(found) < slots:
        slot, lease, ended, link = link
        found.setdefault(slot, (lease, ended))
    for each in holding if len(found) < slots else ():
        found.setdefault(each.slot, (each, math.inf))
    return [(each, ended) for each, ended in found.values() if each.since <= waiter.asked and each is not waiter]


def failure_event(error: BaseException) -> tuple[Any, dict[str, Any]]:
    """Return the event of an acquire that ended with this error, and what it says beyond the wait."""
    if isinstance(error, PoolConnectionAcquireTimeoutError):
        return AcquireTimedOut, {"holders": error.holders}
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return AcquireCancelled, {}
    if isinstance(error, PoolFullError):
        return AcquireRejected, {}
    return AcquireFailed, {"error": ErrorInfo.of(error)}


def outcome(lease: Checkout[Any], pooled: Any) -> tuple[AcquirePath, float, float, float, float]:
    """Return how a caller that waited got its connection `pooled`, and for how long it waited: in all, and for what."""
    waited = lease.since - lease.asked
    opened = pooled.created_at >= lease.asked
    checked = not opened and not lease.queued and pooled.checked_at >= lease.asked
    create_time = min(pooled.create_time, waited) if opened else 0.0
    check_time = min(pooled.check_time, waited) if checked else 0.0
    if not lease.queued and (opened or checked):
        return "new" if opened else "idle", waited, 0.0, create_time, check_time
    return "queued", waited, max(0.0, waited - create_time), create_time, check_time
