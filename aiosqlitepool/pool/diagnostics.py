"""Who holds a connection now, and since when: for statistics, diagnoses, and the watch for leaks.

Reads the slots and changes nothing but whether a suspicion was told. Safe to ask from any thread.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..bus import EventBus
from ..driver import Connection
from ..events import LeakSuspected
from ..stats import Holder, PoolStats
from .lease import Lease
from .pooled import PooledConnection
from .settings import PoolSettings
from .slots import Slots

__all__ = ["Leases", "Situation"]

C = TypeVar("C", bound=Connection)

# A waiter's span links to this many holders at most.
_LINKED_HOLDERS = 8


@dataclass(frozen=True, slots=True)
class Situation:
    """The pool as those who give up at one moment find it: looked at once, for there may be ten thousand of them."""

    stats: PoolStats
    holders: tuple[Holder, ...]
    held_by: dict[asyncio.Task[Any], list[int]]


class Leases(Generic[C]):
    """The leases of one pool."""

    def __init__(
        self, slots: Slots[PooledConnection[C]], settings: PoolSettings, bus: EventBus, clock: Callable[[], float]
    ) -> None:
        self._slots = slots
        self._name = str(settings.name)
        self._threshold = settings.leak_threshold
        self._bus = bus
        self._clock = clock

    def now(self) -> list[Lease[C]]:
        """The lease of every connection that is out."""
        leases: list[Lease[C]] = []
        for slot in self._slots.all:
            pooled = slot.connection
            if pooled is not None and (lease := pooled.lease) is not None:
                leases.append(lease)
        return leases

    def holders(self) -> tuple[Holder, ...]:
        """Who holds a connection, longest first."""
        return _as_they_were(self.now(), self._clock(), None)

    @staticmethod
    def holders_then(leases: Sequence[Lease[C]], moment: float) -> tuple[Holder, ...]:
        """The eight holders of these leases that had held a connection longest at that moment."""
        return _as_they_were(leases, moment)

    def situation(self, stats: PoolStats) -> Situation:
        """What a caller that gives up is told."""
        held_by: defaultdict[asyncio.Task[Any], list[int]] = defaultdict(list)
        for lease in self.now():
            if lease.task is not None:
                held_by[lease.task].append(lease.connection)
        return Situation(stats, self.holders(), held_by)

    def oldest(self, now: float) -> float:
        """How long the longest lease has lasted."""
        # Never negative: a lease may have begun after a reader in another thread asked what time it is.
        return max(0.0, max((now - lease.since for lease in self.now()), default=0.0))

    def suspect_leaks(self, now: float) -> float:
        """Tell of leases that last too long, once of each; returns when the next one will."""
        due = float("inf")
        for lease in self.now() if self._threshold is not None else ():
            suspect_at = lease.since + (self._threshold or 0.0)
            if lease.leak_told:
                continue
            if now < suspect_at:
                due = min(due, suspect_at)
                continue
            lease.leak_told = True
            if LeakSuspected in self._bus.handlers:
                self._bus.emit(LeakSuspected(self._name, lease.holder(now), now - lease.since))
        return due


def _as_they_were(leases: Sequence[Lease[C]], now: float, most: int | None = _LINKED_HOLDERS) -> tuple[Holder, ...]:
    """The holders of these leases at `now`, longest first; also when they have given their connections back since."""
    return tuple(lease.holder(now) for lease in sorted(leases, key=lambda each: each.since)[:most])
