"""List holders and waiters, find waiters that wait for themselves, and write the texts of the errors of an acquire.

Changes no slot. What a user may call, such as `holders()`, is safe in any thread; the rest is for the event loop.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final

from ..errors import PoolClosedError, PoolConnectionAcquireTimeoutError, PoolFullError
from ..events import ErrorInfo
from ..stats import Holder, PoolStats, Waiter
from .checkout import Checkout, Ended, found_by
from .inventory import Inventory
from .slots import retried
from .task_graph import awaiting, held_up_by

__all__ = [
    "LOOK_EVERY",
    "Diagnostics",
    "closed_for_good",
    "closed_while_waiting",
    "counts",
    "explain_full",
    "explain_timeout",
]

# How many holders an error text names, and how many a waiter's event carries.
_NAMED: Final = 5
_LINKED: Final = 8

# Seconds between two looks for waiters that wait for themselves, and the age below which a holder is no reason to look.
LOOK_EVERY: Final = 0.25
_YOUNG: Final = 0.1
_EARLY: Final = "the pool did not wait until the timeout, because that would not help"

# Those of every pool of this process: a holder in one pool may wait in another.
_every: weakref.WeakSet[Diagnostics] = weakref.WeakSet()


class Diagnostics:
    """The checkouts of one pool: those that hold a connection, and those that wait."""

    def __init__(self, inventory: Inventory, stats: Callable[[], PoolStats]) -> None:
        self._name, self._clock, self._slots = inventory.name, inventory.clock, inventory.slots
        self._connector = inventory.connector
        self._stats = stats
        # The requests that wait, by their task.
        self.requests: dict[asyncio.Task[Any] | None, Checkout[Any]] = {}
        self.ended: Ended = Ended()
        # What callers that time out in this turn of the loop share: there may be ten thousand of them.
        self._situation: _Situation | None = None
        _every.add(self)

    def checkouts(self) -> list[Checkout[Any]]:
        """Return every checkout that holds a connection."""
        found: list[Checkout[Any]] = []
        for slot in self._slots.all:  # in one pass: every span of an acquire asks for it
            if (pooled := slot.connection) is not None:
                if (lease := pooled.lease) is not None:
                    found.append(lease)
                elif slot.sharing.requests:
                    found += [each for each in list(slot.sharing.requests) if each.holds]
        return found

    def behind(self) -> list[Any]:
        """Return the shared leases whose function waits in the worker thread for others, in order."""
        shared = [list(slot.sharing.requests) for slot in self._slots.all if slot.sharing.requests]
        # The first has begun, or is about to.
        return [each for requests in shared for each in requests[1:] if not each.holds]

    def holders(self) -> tuple[Holder, ...]:
        """Return who holds a connection now, longest first."""
        now = self._clock()
        return tuple(self.holder(each, now) for each in sorted(self.checkouts(), key=lambda each: each.since))

    def holder(self, checkout: Checkout[Any], now: float) -> Holder:
        """Return a checkout that holds a connection as a holder, with what its task waits for."""
        elsewhere = _pool_of(checkout.task)
        return checkout.holder(now) if elsewhere is None else checkout.holder(now, *elsewhere.wait_of(checkout.task))

    def found_by(self, waiter: Checkout[Any]) -> tuple[Holder, ...]:
        """Return the holders that a waiter found when it began to wait, as they are now, or were when they released.

        The longest first, and at most eight.
        """
        now, found = self._clock(), found_by(waiter, self.checkouts(), len(self._slots.all))
        oldest = sorted(found, key=lambda each: each[0].since)[:_LINKED]
        return tuple([lease.holder_until(ended, now) for lease, ended in oldest])

    def wait_of(self, task: asyncio.Task[Any] | None) -> tuple[str, float]:
        """Return the name of this pool, and for how many seconds the task has waited for a connection of it."""
        request, now = self.requests.get(task), self._clock()
        return self._name, 0.0 if request is None else max(0.0, now - request.asked)

    def waiters(self) -> tuple[Waiter, ...]:
        """Return who waits for a connection now, longest first."""
        now = self._clock()
        return tuple(each.waiter(now) for each in (*self.behind(), *self._slots.queue()))

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        return self._slots.waiting + len(self.behind())

    def oldest_waiter(self, now: float) -> float:
        """Return how long the oldest waiter has waited, in seconds."""
        oldest = next(iter(self.behind()), None) or self._slots.oldest
        return 0.0 if oldest is None else max(0.0, now - oldest.asked)

    def oldest_checkout(self, now: float) -> float:
        """Return how long the oldest holder has had its connection, in seconds."""
        # Never negative: it may have begun after a reader in another thread asked what time it is.
        return max(0.0, max((now - each.since for each in self.checkouts()), default=0.0))

    # -- waiters that wait for themselves

    def stuck(self, now: float) -> list[Checkout[Any]]:
        """Return the waiters that cannot get a connection: blocks hold them all, and all of those wait for this waiter.

        Unless something cancels a holder. A pool whose holders are young is not looked at.
        """
        holders = set()
        for slot in self._slots.all:
            lease: Any = None if slot.connection is None else slot.connection.lease
            if lease is None or not lease.is_block or now - lease.since < _YOUNG:
                return []
            holders.add(lease.task)
        return [each for each in self._slots.queue() if holders <= self._held_up_by(each)]

    def _held_up_by(self, checkout: Checkout[Any]) -> Set[asyncio.Future[Any] | None]:
        """Return the task of a waiter, and all that cannot go on before it ends."""

        def is_stuck(future: Any) -> bool:
            request = self.requests.get(future)
            # One that times out earlier goes on earlier.
            return request is not None and not request.answer.done() and request.deadline >= checkout.deadline

        return set() if checkout.task is None else held_up_by(checkout.task, is_stuck)

    # -- errors

    def full_error(self) -> PoolFullError:
        """Return the error of a caller that may not wait."""
        return PoolFullError(explain_full(self._stats()))

    def timeout_error(self, checkout: Checkout[Any]) -> PoolConnectionAcquireTimeoutError:
        """Return the error of a caller that has waited too long, with the state of the pool now."""
        now, situation = self._clock(), self._situation
        if situation is None:
            situation = self._situation = self._look(self._stats())
            asyncio.get_running_loop().call_soon(self._forget_situation)
        waited, task = now - checkout.asked, checkout.task
        waiting = set() if task is None else awaiting(task)
        own = () if task is None else situation.held_by.get(task, ())
        above = [number for each in waiting if each is not task for number in situation.held_by.get(each, ())]
        elsewhere = [text for each in waiting for text in situation.elsewhere.get(each, ())]
        last_failure = self._connector.last_failure
        failure = None if last_failure is None else (last_failure[0], now - last_failure[1])
        causes = (*explain_deadlock(own, sorted(above), elsewhere), *((_EARLY,) if now < checkout.deadline else ()))
        message = explain_timeout(waited, situation.stats, situation.holders, causes, failure)
        return PoolConnectionAcquireTimeoutError(
            message, waited=waited, stats=situation.stats, holders=situation.holders
        )

    def _look(self, stats: PoolStats) -> _Situation:
        checkouts = self.checkouts()
        elsewhere = {pool for each in checkouts if (pool := _pool_of(each.task)) is not None and pool is not self}
        found = _Situation(stats, self.holders(), {}, {})
        for checkout in checkouts:
            found.held_by.setdefault(checkout.task, []).append(checkout.connection)
        for pool in elsewhere:
            for checkout in pool.checkouts():
                label = "" if checkout.label is None else f" [{checkout.label}]"
                text = f"connection {checkout.connection} of pool {pool._name!r}{label}"
                found.elsewhere.setdefault(checkout.task, []).append(text)
        return found

    def _forget_situation(self) -> None:
        self._situation = None


@dataclass(frozen=True, slots=True)
class _Situation:
    """The pool as the callers that time out at one moment find it.

    By task: the connections that it holds, and the ones, in words, that it holds in pools for which holders wait.
    """

    stats: PoolStats
    holders: tuple[Holder, ...]
    held_by: dict[asyncio.Future[Any] | None, list[int]]
    elsewhere: dict[asyncio.Future[Any] | None, list[str]]


def _pool_of(task: asyncio.Task[Any] | None) -> Diagnostics | None:
    """Return the pool in which a task waits for a connection."""
    pools = () if task is None else retried(lambda: tuple(_every))
    return next((each for each in pools if task in each.requests), None)


# -- texts


def counts(stats: PoolStats) -> str:
    """Return the pool's levels in words."""
    return f"{stats.used} used, {stats.idle} idle of {stats.max_size}, {stats.waiting} waiting"


def explain_full(stats: PoolStats) -> str:
    """Return why an acquire was rejected."""
    return (
        f"pool {stats.pool!r} is full: max_waiting={stats.max_waiting} lets no more callers wait ({counts(stats)}). "
        "Try again later, shorten the blocks that hold connections, or raise max_waiting"
    )


def closed_for_good(what: str) -> PoolClosedError:
    """Return the error of a caller that uses something that is closed."""
    return PoolClosedError(f"{what} and cannot be reopened: make one per application, or per test")


def closed_while_waiting(pool: str | None) -> PoolClosedError:
    """Return the error of a waiter whose pool closes."""
    return PoolClosedError(
        f"pool {pool!r} closed while its caller waited for a connection: end the tasks that use a pool before it closes"
    )


def explain_deadlock(own: Sequence[int], above: Sequence[int], elsewhere: Sequence[str]) -> Iterator[str]:
    """Yield why a waiter may wait for itself.

    Its task holds the connections `own`; tasks that wait for it hold the connections `above`; its task, or one that
    waits for it, holds the connections `elsewhere`, for which holders wait.
    """
    if own:
        yield (
            f"the waiting task itself holds {_connections(own)}: a task that needs a second connection while it keeps "
            "its first can deadlock with itself. Use the first for both, or release it before"
        )
    if above:
        yield (
            f"the holder of {_connections(above)} waits for this task to end: let this task use the holder's "
            "connection, or await it after the holder's block"
        )
    if elsewhere:
        yield (
            f"the waiting task, or one that waits for it, holds {', '.join(elsewhere)}, for which a holder named above "
            "waits: acquire in the same order everywhere, or release the first before the second"
        )


def _connections(numbers: Sequence[int]) -> str:
    return f"{'connection' if len(numbers) == 1 else 'connections'} {', '.join(map(str, numbers))}"


def explain_timeout(
    waited: float,
    stats: PoolStats,
    holders: tuple[Holder, ...],
    causes: Sequence[str],
    failure: tuple[ErrorInfo, float] | None,
) -> str:
    """Return why an acquire timed out.

    `causes` is what `explain_deadlock` says; `failure` is the last failed attempt to open a connection, and how many
    seconds ago that was.
    """
    parts = [f"no connection from pool {stats.pool!r} within {waited:.3f} s ({counts(stats)})"]
    if failure is not None:
        parts.append(f"the last attempt to connect failed {failure[1]:.3f} s ago: {failure[0]}")
    busy = stats.used - len(holders)
    if busy > 0:
        parts.append(f"{busy} of those used {'is' if busy == 1 else 'are'} being opened, checked, reset or handed on")
    if holders:
        rest = len(holders) - _NAMED
        parts.append("; ".join(map(str, holders[:_NAMED])) + (f"; and {rest} more" if rest > 0 else ""))
    parts += causes
    named = holders[0].coroutine if holders and holders[0].label is None else None
    # The name of a coroutine is not written with a capital.
    kept = (parts[0], named or parts[0])
    return ". ".join(part if part.startswith(kept) else part[0].upper() + part[1:] for part in parts) + "."
