"""Who holds a connection and who waits for one, and the text of the errors that say so.

Reads the slots and changes nothing. Safe to call from any thread.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..errors import PoolClosedError, PoolConnectionAcquireTimeoutError
from ..events import ErrorInfo
from ..stats import Holder, PoolStats, Waiter
from .checkout import Checkout
from .connection import PooledConnection
from .slots import Slots

__all__ = [
    "Diagnostics",
    "closed_for_good",
    "closed_while_waiting",
    "counts",
    "explain_full",
    "explain_timeout",
    "linked_holders",
]

# How many holders an error text names, and how many a waiter's event carries.
_NAMED: Final = 5
_LINKED: Final = 8


class Diagnostics:
    """The checkouts of one pool: those that hold a connection, and those that wait."""

    def __init__(self, slots: Slots[PooledConnection[Any]], clock: Callable[[], float]) -> None:
        self._slots = slots
        self._clock = clock
        # What callers that time out in this turn of the loop share: there may be ten thousand of them.
        self._situation: _Situation | None = None

    def checkouts(self) -> list[Checkout[Any]]:
        """Return every checkout that holds a connection."""
        found: list[Checkout[Any]] = []
        for slot in self._slots.all:
            pooled = slot.connection
            if pooled is not None:
                if (lease := pooled.lease) is not None:
                    found.append(lease)
                elif pooled.sharers:
                    found += [each for each in tuple(pooled.sharers) if each.holds]
        return found

    def not_begun(self) -> list[Any]:
        """Return the shared leases whose function has been sent to the worker thread and has not begun."""
        found: list[Any] = []
        for slot in self._slots.all:
            pooled = slot.connection
            if slot.sharers and pooled is not None:
                found += [each for each in tuple(pooled.sharers) if not each.holds]
        return found

    def _behind(self) -> list[Any]:
        """Return those of them that wait for others; the first function is about to begin."""
        not_begun = self.not_begun()
        slots = [slot for slot in self._slots.all if slot.sharers]
        sharers = [lease for slot in slots if slot.connection is not None for lease in tuple(slot.connection.sharers)]
        return not_begun if len(sharers) > len(not_begun) else not_begun[1:]

    def holders(self) -> tuple[Holder, ...]:
        """Return who holds a connection now, longest first."""
        return _as_of(self.checkouts(), self._clock())

    def waiters(self) -> tuple[Waiter, ...]:
        """Return who waits for a connection now, longest first."""
        now = self._clock()
        return tuple(each.waiter(now) for each in (*self._behind(), *self._slots.queue()))

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        return self._slots.waiting + len(self._behind())

    def oldest_waiter(self, now: float) -> float:
        """Return how long the oldest waiter has waited, in seconds."""
        oldest = next(iter(self._behind()), None) or self._slots.oldest
        return 0.0 if oldest is None else max(0.0, now - oldest.asked)

    def oldest_checkout(self, now: float) -> float:
        """Return how long the oldest holder has had its connection, in seconds."""
        # Never negative: it may have begun after a reader in another thread asked what time it is.
        return max(0.0, max((now - each.since for each in self.checkouts()), default=0.0))

    # -- timeouts

    def timed_out(
        self,
        checkout: Checkout[Any],
        stats: Callable[[], PoolStats],
        last_failure: tuple[ErrorInfo, float] | None,
    ) -> PoolConnectionAcquireTimeoutError:
        """Return the error of a caller that has waited too long, with the state of the pool now."""
        now, situation = self._clock(), self._situation
        if situation is None:
            situation = self._situation = self._look(stats())
            asyncio.get_running_loop().call_soon(self._forget_situation)
        waited = now - checkout.asked
        own = situation.held_by.get(checkout.task, ()) if checkout.task is not None else ()
        failure = None if last_failure is None else (last_failure[0], now - last_failure[1])
        message = explain_timeout(waited, situation.stats, situation.holders, own, failure)
        return PoolConnectionAcquireTimeoutError(
            message, waited=waited, stats=situation.stats, holders=situation.holders
        )

    def _look(self, stats: PoolStats) -> _Situation:
        held_by: defaultdict[asyncio.Task[Any], list[int]] = defaultdict(list)
        for checkout in self.checkouts():
            if checkout.task is not None:
                held_by[checkout.task].append(checkout.connection)
        return _Situation(stats, self.holders(), held_by)

    def _forget_situation(self) -> None:
        self._situation = None


@dataclass(frozen=True, slots=True)
class _Situation:
    """The pool as the callers that time out at one moment find it."""

    stats: PoolStats
    holders: tuple[Holder, ...]
    held_by: dict[asyncio.Task[Any], list[int]]


def linked_holders(checkouts: Sequence[Checkout[Any]], moment: float) -> tuple[Holder, ...]:
    """Return the eight of these that had held a connection longest at that moment, also if they released it since."""
    return _as_of(checkouts, moment)[:_LINKED]


def _as_of(checkouts: Sequence[Checkout[Any]], moment: float) -> tuple[Holder, ...]:
    return tuple(each.holder(moment) for each in sorted(checkouts, key=lambda each: each.since))


# -- texts


def counts(stats: PoolStats) -> str:
    """Return the pool's levels in words."""
    return f"{stats.used} used, {stats.idle} idle of {stats.max_size}, {stats.waiting} waiting"


def explain_full(stats: PoolStats, max_waiting: int) -> str:
    """Return why an acquire was rejected."""
    return (
        f"pool {stats.pool!r} is full: max_waiting={max_waiting} callers may wait for others ({counts(stats)}). "
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


def explain_timeout(
    waited: float,
    stats: PoolStats,
    holders: tuple[Holder, ...],
    own: Sequence[int],
    failure: tuple[ErrorInfo, float] | None,
) -> str:
    """Return why an acquire timed out.

    `own` are the connections that the waiting task itself holds; `failure` is the last failed attempt to open one, and
    how many seconds ago that was.
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
    if own:
        numbers = ", ".join(map(str, own))
        parts.append(
            f"the waiting task itself holds {'connection' if len(own) == 1 else 'connections'} {numbers}: "
            "a task that needs a second connection while it keeps its first can deadlock with itself"
        )
    return ". ".join(part[0].upper() + part[1:] if number else part for number, part in enumerate(parts)) + "."
