"""How late the event loop of a pool is: what blocks it delays every caller, and looks like a slow database.

A timer in the loop measures its own delay four times a second. It runs while a pool of the loop is watched.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import Callable
from contextvars import Context
from typing import Any

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.events import ConnectionCreated, PoolClosed, PoolOpened

from ._common import Detach

__all__ = ["LoopLag", "PoolLag"]

# Seconds between two measurements, and how many are kept: those of 15 seconds, the usual interval of scrapes.
_INTERVAL = 0.25
_KEPT = 60


class LoopLag:
    """Measures the delay of one event loop, which must run in this thread, until this object is collected."""

    __slots__ = ("__weakref__", "_clock", "_delays", "_due", "_measured", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic) -> None:
        self.loop = loop
        self._clock = clock
        # A list of fixed length, which any thread may read.
        self._delays = [0.0] * _KEPT
        self._measured = 0
        self._wait()

    def _wait(self) -> None:
        self._due = self._clock() + _INTERVAL
        reference: weakref.ref[LoopLag] = weakref.ref(self)
        self.loop.call_later(_INTERVAL, _measure, reference, context=Context())

    def measure(self) -> None:
        """Note how late the timer is, and set it again."""
        self._delays[self._measured % _KEPT] = self._clock() - self._due
        self._measured += 1
        self._wait()

    def seconds(self) -> float:
        """Return the longest of the last delays, including one that lasts. Safe in any thread."""
        return max(0.0, self._clock() - self._due, *self._delays)


def _measure(reference: weakref.ref[LoopLag]) -> None:
    if (lag := reference()) is not None:
        lag.measure()


# By the id of a loop, which its LoopLag keeps alive.
_by_loop: weakref.WeakValueDictionary[int, LoopLag] = weakref.WeakValueDictionary()


class PoolLag:
    """The delay of the loop of one pool, from its first event to its close."""

    __slots__ = ("_lag",)

    def __init__(self) -> None:
        self._lag: LoopLag | None = None

    def watch(self, pool: SQLiteConnectionPool[Any]) -> list[Detach]:
        """Measure from now on. Returns the functions that end that."""
        subscribe = pool.events.subscribe
        # A pool that is open already has connections to open, at the latest when these are replaced.
        begins = [subscribe(kind, self._begin) for kind in (PoolOpened, ConnectionCreated)]
        return [*begins, subscribe(PoolClosed, self.end), self.end]

    def _begin(self, _: object) -> None:
        if self._lag is None:
            with contextlib.suppress(RuntimeError):  # no loop runs: the event is not of a pool that works
                loop = asyncio.get_running_loop()
                self._lag = _by_loop.get(id(loop)) or LoopLag(loop)
                _by_loop[id(loop)] = self._lag

    def end(self, _: object = None) -> None:
        """Measure no more for this pool."""
        self._lag = None

    def seconds(self) -> float | None:
        """Return the delay, `None` if it is not measured. Safe in any thread."""
        lag = self._lag
        return None if lag is None else lag.seconds()
