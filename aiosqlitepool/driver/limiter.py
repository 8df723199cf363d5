"""Limits how many statements of one event loop are with the worker threads at once. Knows no connection, no SQLite.

Worker threads and the event loop share the GIL, which SQLite releases several times in each statement. Threads on
several cores that wake together spend more time on handing the GIL around than on their statements. So at most two
statements run at once, and the others wait in the event loop. A long one, which mostly runs without the GIL, no longer
counts after a millisecond; one whose SQL has returned many rows before, each with the GIL, after ten. On one core
threads take turns anyway, and a limit would only cost wake-ups of the loop. A Python without the GIL needs no limit.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context
from time import perf_counter
from typing import Any, Final

__all__ = ["Limiter"]

AT_ONCE: Final = 2  # statements that count; while one has the GIL, the other needs none
COUNTED_FOR: Final = 0.001  # seconds, from the start of a statement
MANY_ROWS: Final = 256
# Seconds. Two that no longer count while they need the GIL let others begin, which makes all of them slower: at worst,
# eight readers of 2,000 rows returned a third as many.
COUNTED_WITH_MANY_ROWS: Final = 0.01
_MOST_KNOWN: Final = 500

Put = Callable[[Any], None]


class Limiter:
    """Starts the statements of one event loop in order of arrival. Not thread safe, except for `delayed`.

    Args:
        clock: Returns the time in seconds.
        cores: How many cores the process may use; with one, no statement is delayed. Default: ask the system.
        has_gil: Whether threads share the GIL; if not, no statement is delayed. Default: ask the interpreter.
    """

    __slots__ = ("_clock", "_delayed", "_running", "_timer_set", "completed", "limits", "many_rows")

    def __init__(
        self, clock: Callable[[], float] = perf_counter, cores: int | None = None, has_gil: bool | None = None
    ) -> None:
        if cores is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._clock = clock
        if has_gil is None:
            has_gil = bool(getattr(sys, "_is_gil_enabled", lambda: True)())  # from Python 3.13
        self.limits: bool = cores > 1 and has_gil
        # Until when each statement that runs counts.
        self._running: dict[object, float] = {}
        # The SQL of those that have returned many rows.
        self.many_rows: set[str] = set()
        # Called as `completed(key, None)`: the statement counts no longer. `start_delayed_soon` must follow, once for
        # any number of these.
        self.completed: Callable[[object, None], object] = self._running.pop
        # A plain dict finds its first key slowly once many keys before it are deleted.
        self._delayed: OrderedDict[object, tuple[Put, Any, str | None]] = OrderedDict()
        # True while any statement is delayed: a key that never completes must not block the queue.
        self._timer_set = False

    @property
    def delayed(self) -> int:
        """How many statements are delayed. Safe to read from any thread."""
        return len(self._delayed)

    def note_many_rows(self, sql: str | None) -> None:
        """Note that this statement has returned many rows; harmless if it is `None`."""
        if sql is not None:
            if len(self.many_rows) >= _MOST_KNOWN:
                self.many_rows.clear()
            self.many_rows.add(sql)

    def send(self, put: Put, job: Any, key: object, sql: str | None = None) -> None:
        """Call `put(job)`, which runs `sql`, at once or when the limit allows it.

        The unique `key` says later what has completed.
        """
        if self.limits:
            now = self._clock()
            if self._delayed or (len(self._running) >= AT_ONCE and self._is_full(now)):
                self._set_timer(now)
                # Last: a statement whose caller gets an error from here must not run.
                self._delayed[key] = put, job, sql
                return
            self._running[key] = now + (COUNTED_FOR if sql is None else self._counted_for(sql))
        put(job)

    def send_now(self, put: Put, job: Any) -> None:
        """Call `put(job)` at once, behind all that was sent with the same `put`. None of these count."""
        for key in self._keys_of(put):
            put(self._delayed.pop(key)[1])
        put(job)

    def withdraw(self, put: Put) -> list[Any]:
        """Remove the delayed statements that were sent with this `put`; return their keys."""
        return [key for key in self._keys_of(put) if self.withdraw_one(key)]

    def withdraw_one(self, key: object) -> bool:
        """Remove a statement if it is delayed; return whether it was."""
        return self._delayed.pop(key, None) is not None

    def start_delayed_soon(self) -> None:
        """Start delayed statements after the tasks that the completed ones have made ready: both would need the GIL."""
        if self._delayed:
            asyncio.get_running_loop().call_soon(self._start_delayed)

    def _start_delayed(self) -> None:
        while self._delayed and not self._is_full(self._clock()):
            # Remove it first: if Ctrl-C falls in between, better that the statement is lost than run twice.
            key, (put, job, sql) = self._delayed.popitem(last=False)
            self._running[key] = self._clock() + (COUNTED_FOR if sql is None else self._counted_for(sql))
            put(job)

    def _counted_for(self, sql: str) -> float:
        return COUNTED_WITH_MANY_ROWS if sql in self.many_rows else COUNTED_FOR

    def _is_full(self, now: float) -> bool:
        if len(self._running) >= AT_ONCE:
            for key in [key for key, until in self._running.items() if until <= now]:
                del self._running[key]
        return len(self._running) >= AT_ONCE

    def _keys_of(self, put: Put) -> list[Any]:
        return [key for key, statement in self._delayed.items() if statement[0] is put]

    def _set_timer(self, now: float) -> None:
        if not self._timer_set:
            due = min(*self._running.values(), now + COUNTED_FOR)
            # In an empty context: a copy of the caller's would keep its values alive until then.
            asyncio.get_running_loop().call_later(due - now, self._on_timer, context=Context())
            self._timer_set = True

    def _on_timer(self) -> None:
        self._timer_set = False
        self._start_delayed()
        if self._delayed:
            self._set_timer(self._clock())
