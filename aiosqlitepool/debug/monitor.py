"""The state and the recent events of one pool, as plain data for the page. Knows nothing of ASGI.

Levels, holders, waiters and statements are read from the pool for each snapshot. Events are counted or kept, the latest
30 of each type: a frequent event never displaces a rare one.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import weakref
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, fields
from operator import attrgetter
from typing import Any, NamedTuple

from aiosqlitepool import Holder, SQLiteConnectionPool, StatementStats, Waiter
from aiosqlitepool.events import (
    AcquireCancelled,
    AcquireFailed,
    AcquireRejected,
    AcquireSlow,
    AcquireTimedOut,
    ConnectionAcquired,
    ConnectionClosed,
    ConnectionReleased,
    PoolEvent,
    event_types,
)

from .recent import RecentLevel, RecentTimes
from .stacks import stack_of
from .words import describe

__all__ = ["Monitor"]

# The most events kept of each type, and the most failures and waiters shown.
_KEPT, _FAILURES, _WAITERS = 30, 20, 200

# The fields of a statement. Unlike `asdict()`, which takes 8 ms for 500 statements, reading them copies no value.
_COLUMNS = tuple(field.name for field in fields(StatementStats))
_values = attrgetter(*_COLUMNS)


class _Kept(NamedTuple):
    """An event and its time, in seconds since the epoch. `number` increases."""

    number: int
    at: float
    event: PoolEvent


class Monitor:
    """Records the events of a pool. One thread emits them, any thread may take a snapshot.

    Args:
        pool: referenced weakly, so that the monitor does not keep it alive.
        stacks: whether to record which task holds a connection, to show its stack.
        clock: the time in seconds, by which recent durations are kept for a minute.
    """

    def __init__(
        self, pool: SQLiteConnectionPool[Any], stacks: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pool = weakref.ref(pool)
        self._stacks = stacks
        self._numbers = itertools.count(1)
        # Made when they are needed: there may be a pool for each tenant of a program.
        self._rings: defaultdict[type[PoolEvent], deque[_Kept]] = defaultdict(lambda: deque(maxlen=_KEPT))
        self._counts: Counter[str] = Counter({kind.name: 0 for kind in event_types()})
        self._paths = {"idle": 0, "new": 0, "queued": 0}
        self._waits, self._holds = RecentTimes(clock), RecentTimes(clock)
        self._waiting, self._in_use = RecentLevel(clock), RecentLevel(clock)
        # By connection, the task that holds it; empty without `stacks`.
        self._tasks: dict[int, weakref.ref[asyncio.Task[Any]]] = {}
        # The connection of the last AcquireSlow, until the ConnectionAcquired that follows it at once.
        self._slow: int | None = None
        self._detaches = [pool.events.subscribe(kind, handler) for kind, handler in self._handlers()]

    def detach(self) -> None:
        """Record no more events."""
        for detach in self._detaches:
            detach()

    @property
    def pool(self) -> SQLiteConnectionPool[Any] | None:
        """The pool, while it exists."""
        return self._pool()

    # -- handlers

    def _handlers(self) -> Iterable[tuple[type[PoolEvent], Callable[[Any], None]]]:
        special: dict[type[PoolEvent], Callable[[Any], None]] = {
            ConnectionAcquired: self._acquired,
            AcquireSlow: self._acquired_slow,
            ConnectionReleased: self._released,
            ConnectionClosed: self._closed,
            **dict.fromkeys((AcquireTimedOut, AcquireCancelled, AcquireRejected, AcquireFailed), self._failed),
        }
        return [(kind, special.get(kind, self._keep)) for kind in event_types()]

    def _keep(self, event: PoolEvent) -> None:
        self._counts[event.name] += 1
        self._rings[type(event)].append(_Kept(next(self._numbers), time.time(), event))

    def _acquired_slow(self, event: AcquireSlow) -> None:
        self._slow = event.connection
        self._keep(event)

    def _acquired(self, event: ConnectionAcquired) -> None:
        self._paths[event.path] += 1
        self._waits.observe(event.wait_time)
        if event.wait_time:
            self._waiting.ended(event.wait_time)
        slow, self._slow = self._slow, None
        # A slow acquire is listed once, with its holders; an immediate one, by far the most frequent, not at all.
        if event.wait_time and slow != event.connection:
            self._keep(event)
        else:
            self._counts[event.name] += 1
        if self._stacks and (task := asyncio.current_task()) is not None:
            self._tasks[event.connection] = weakref.ref(task)

    def _failed(self, event: AcquireTimedOut) -> None:
        self._waits.observe(event.wait_time)
        self._waiting.ended(event.wait_time)
        self._keep(event)

    def _released(self, event: ConnectionReleased) -> None:
        self._counts[event.name] += 1
        self._holds.observe(event.use_time)
        self._in_use.ended(event.use_time)
        self._tasks.pop(event.connection, None)

    def _closed(self, event: ConnectionClosed) -> None:
        self._tasks.pop(event.connection, None)
        self._keep(event)

    # -- snapshots

    def snapshot(self, *, statements: bool | Collection[str] = False) -> dict[str, Any] | None:
        """Return the current state of the pool, or `None` if it no longer exists. Times are seconds.

        With its statements, if `statements` is True or contains the name of the pool.
        """
        pool = self.pool
        if pool is None:
            return None
        stats, holders, waiters = pool.stats(), pool.holders(), pool.waiters()
        events = sorted((kept for ring in list(self._rings.values()) for kept in ring.copy()), reverse=True)
        described = [(kept, describe(kept.event)) for kept in events]
        return {
            **asdict(stats),
            "size": stats.size,
            "holders": [self._holder(holder, stats.leak_threshold) for holder in holders],
            "waiters": [asdict(waiter) for waiter in waiters[:_WAITERS]],
            "recent": self._recent(holders, waiters),
            "wait_times": self._waits.summary(),
            "use_times": self._holds.summary(),
            "acquires": self._paths.copy(),
            "counts": dict(self._counts),
            "events": [_as_data(kept, *words) for kept, words in described],
            "failures": [_as_data(kept, *words) for kept, words in described if words.level == "error"][:_FAILURES],
            **(_statements(pool) if statements is True or (statements and pool.name in statements) else {}),
        }

    def _recent(self, holders: Iterable[Holder], waiters: Iterable[Waiter]) -> dict[str, Any]:
        """Return the mean levels of each whole second of the last minute, oldest first, and when the last one ended."""
        ago, used = self._in_use.means(holder.held for holder in holders)
        _, waiting = self._waiting.means(waiter.waited for waiter in waiters)
        count = min(len(used), len(waiting))  # a second may have begun meanwhile
        return {"ago": ago, "used": used[:count], "waiting": waiting[:count]}

    def _holder(self, holder: Holder, leak_threshold: float | None) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "connection": holder.connection,
            "task": holder.task,
            "label": holder.label,
            "held": holder.held,
            "suspected": leak_threshold is not None and holder.held >= leak_threshold,
        }
        if holder.label is None and holder.coroutine is not None:
            shown["coroutine"] = holder.coroutine
        if holder.ended:
            shown["ended"] = True
        if holder.waits_for is not None:
            shown |= {"waits_for": holder.waits_for, "waited": holder.waited}
        if holder.statement is not None:
            shown |= {key: getattr(holder, key) for key in ("statement", "statement_time", "statement_runs")}
        if self._stacks:
            task = self._tasks.get(holder.connection, lambda: None)()
            shown["stack"] = [] if task is None else stack_of(task)
        return shown


def _statements(pool: SQLiteConnectionPool[Any]) -> dict[str, Any]:
    table = pool.statements()
    return {
        "statements": [dict(zip(_COLUMNS, _values(row), strict=True)) for row in table],
        "statements_forgotten": table.forgotten,
    }


def _as_data(kept: _Kept, level: str, text: str) -> dict[str, Any]:
    event = kept.event
    holder = getattr(event, "holder", None)
    return {
        "number": kept.number,
        "at": kept.at,
        "event": event.name,
        "level": level,
        "label": getattr(event if holder is None else holder, "label", None),
        "text": text,
    }
