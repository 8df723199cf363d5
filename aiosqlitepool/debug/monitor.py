"""What one pool is doing and what it did lately, as plain data for the page. Knows nothing of ASGI.

Levels, holders and waiters are read from the pool when somebody looks. Between two looks an event costs a count, or a
place in a ring of its own kind, so that what happens often pushes out nothing that happens seldom.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any, NamedTuple

from aiosqlitepool import Holder, SQLiteConnectionPool
from aiosqlitepool.events import (
    AcquireCancelled,
    AcquiredAtOnce,
    AcquireFailed,
    AcquireRejected,
    AcquireTimedOut,
    ConnectionAcquired,
    ConnectionClosed,
    ConnectionReleased,
    PoolEvent,
    event_types,
)

from .recent import RecentTimes
from .stacks import stack_of
from .words import tell

__all__ = ["Monitor"]

# Events remembered of each kind, and how many are shown of failures, and of those who wait.
_REMEMBERED, _FAILURES, _WAITERS = 30, 20, 200


class _Noted(NamedTuple):
    """An event and when it was told: seconds since the epoch. `number` counts up."""

    number: int
    at: float
    event: PoolEvent


class Monitor:
    """Remembers what a pool did since it was attached. One thread tells it, any thread may look.

    Args:
        pool: kept weakly; a pool that nobody else wants is not kept alive to be looked at.
        stacks: whether to note which task holds a connection, to show where it stands.
    """

    def __init__(self, pool: SQLiteConnectionPool[Any], stacks: bool) -> None:
        self._pool = weakref.ref(pool)
        self._stacks = stacks
        self._numbers = itertools.count(1)
        self._rings: dict[type[PoolEvent], deque[_Noted]] = {kind: deque(maxlen=_REMEMBERED) for kind in event_types()}
        self._counts: Counter[str] = Counter({kind.name: 0 for kind in event_types()})
        self._paths = {"idle": 0, "new": 0, "queued": 0}
        self._waits, self._holds = RecentTimes(), RecentTimes()
        # By connection, the task that holds it; empty unless stacks are asked for.
        self._tasks: dict[int, weakref.ref[asyncio.Task[Any]]] = {}
        self._detaches = [pool.events.subscribe(kind, handler, exact=True) for kind, handler in self._handlers()]

    def detach(self) -> None:
        """Remember nothing more."""
        for detach in self._detaches:
            detach()

    @property
    def pool(self) -> SQLiteConnectionPool[Any] | None:
        """The pool, as long as it exists."""
        return self._pool()

    # -- handlers

    def _handlers(self) -> Iterable[tuple[type[PoolEvent], Callable[[Any], None]]]:
        special: dict[type[PoolEvent], Callable[[Any], None]] = {
            ConnectionAcquired: self._acquired,
            AcquiredAtOnce: self._acquired,
            ConnectionReleased: self._released,
            ConnectionClosed: self._closed,
            **dict.fromkeys((AcquireTimedOut, AcquireCancelled, AcquireRejected, AcquireFailed), self._failed),
        }
        return [(kind, special.get(kind, self._note)) for kind in event_types()]

    def _note(self, event: PoolEvent) -> None:
        self._counts[event.name] += 1
        self._rings[type(event)].append(_Noted(next(self._numbers), time.time(), event))

    def _acquired(self, event: ConnectionAcquired) -> None:
        self._paths[event.path] += 1
        self._waits.observe(event.wait_time)
        if event.wait_time:
            self._note(event)
        else:  # by far the most, and nothing to tell of
            self._counts[event.name] += 1
        if self._stacks and (task := asyncio.current_task()) is not None:
            self._tasks[event.connection] = weakref.ref(task)

    def _failed(self, event: AcquireTimedOut) -> None:
        self._waits.observe(event.wait_time)
        self._note(event)

    def _released(self, event: ConnectionReleased) -> None:
        self._counts[event.name] += 1
        self._holds.observe(event.use_time)
        self._tasks.pop(event.connection, None)

    def _closed(self, event: ConnectionClosed) -> None:
        self._tasks.pop(event.connection, None)
        self._note(event)

    # -- looking

    def snapshot(self) -> dict[str, Any] | None:
        """The pool at this moment, or `None` if it no longer exists. Times are seconds."""
        pool = self.pool
        if pool is None:
            return None
        stats = pool.stats()
        events = sorted((noted for ring in self._rings.values() for noted in ring.copy()), reverse=True)
        told = [(noted, tell(noted.event)) for noted in events]
        return {
            **asdict(stats),
            "size": stats.size,
            "holders": [self._holder(holder) for holder in pool.holders()],
            "waiters": [asdict(waiter) for waiter in pool.waiters()[:_WAITERS]],
            "wait_times": self._waits.summary(),
            "use_times": self._holds.summary(),
            "acquires": self._paths.copy(),
            "counts": dict(self._counts),
            "events": [_as_data(noted, *words) for noted, words in told],
            "failures": [_as_data(noted, *words) for noted, words in told if words.level == "error"][:_FAILURES],
        }

    def _holder(self, holder: Holder) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "connection": holder.connection,
            "task": holder.task,
            "label": holder.label,
            "held": holder.held,
        }
        if self._stacks:
            task = self._tasks.get(holder.connection, lambda: None)()
            shown["stack"] = [] if task is None else stack_of(task)
        return shown


def _as_data(noted: _Noted, level: str, text: str) -> dict[str, Any]:
    event = noted.event
    holder = getattr(event, "holder", None)
    return {
        "number": noted.number,
        "at": noted.at,
        "event": event.name,
        "level": level,
        "label": getattr(event if holder is None else holder, "label", None),
        "text": text,
    }
