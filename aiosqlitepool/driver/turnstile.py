"""The way to the worker threads, a few statements at a time where that is faster. Knows no connection and no SQLite.

All worker threads share one interpreter lock with the loop, and SQLite gives that lock away several times for each
statement. Five threads with short statements spend more time on waking each other than on anything else, and get less
done than two. So while it measurably helps, no more than two statements are out at a time, and the others wait here, in
the loop, where waiting costs nothing.

Where statements take long, the lock is not what they wait for, and holding them back would be wrong. Nothing tells the
two apart beforehand; so both ways are tried, again and again, and the faster one is kept for a while.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context
from time import perf_counter
from typing import Any, Final

__all__ = ["Turnstile"]

# How many are let out at a time: one for the moments in which the other does without the interpreter lock.
AT_ONCE: Final = 2
# A statement that is not back after this many seconds is not waited for: it is no short one.
PATIENCE: Final = 0.001

# A trial, in statements: how many a way runs in before it is measured, and over how many; and by which factor holding
# back must be faster, that chance does not choose it.
RUN_IN: Final = 16
TRIAL: Final = 64
MARGIN: Final = 0.95
# For how many statements a choice is kept; each time that letting all out at once wins, for twice as many as before.
KEPT: Final = 8192
KEPT_AT_MOST: Final = 65536
# What brings the next trial nearer, in statements: time that passes, and a statement not waited for.
TICK: Final = 16
STALL: Final = 128

Put = Callable[[Any], None]


class Turnstile:
    """Lets the statements of one loop out to their workers, in the order in which they came."""

    __slots__ = (
        "_clock",
        "_left",
        "_limits",
        "_line",
        "_moved",
        "_on_trial",
        "_out",
        "_passing_on",
        "_ticks_at",
        "_trials",
    )

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        # Who is held back, each with the way to its worker.
        self._line: deque[tuple[Put, Any]] = deque()
        # How many were let out and are not back; those that are not waited for do not count.
        self._out = 0
        self._limits = False
        # How many statements may still come before the trials go on.
        self._left = 0
        self._on_trial = True
        self._trials = self._run_trials()
        self._passing_on = False
        # Whether anything came back since the last look, and when the next one is due.
        self._moved = False
        self._ticks_at: float | None = None

    @property
    def held_back(self) -> int:
        """How many wait."""
        return len(self._line)

    def send(self, put: Put, job: Any) -> None:
        """Let a statement out, with `put(job)`, at once or in its turn."""
        self._left -= 1
        if self._left < 0:
            next(self._trials)
        if self._limits and (self._line or self._out >= AT_ONCE):
            self._line.append((put, job))
            if self._ticks_at is None:
                self._tick_later()
        else:
            self._out += 1
            put(job)

    def send_now(self, put: Put, job: Any) -> None:
        """Let something out that must not wait, behind all that came before."""
        self.release()
        self._out += 1
        put(job)

    def release(self) -> None:
        """Hold nobody back any longer who waits now."""
        while self._line:
            self._let_out()

    def _let_out(self) -> None:
        put, job = self._line.popleft()
        self._out += 1
        put(job)

    def came_back(self, count: int) -> None:
        """So many are back from their workers."""
        self._out = self._out - count if self._out > count else 0
        self._moved = True
        if self._line and self._out < AT_ONCE and not self._passing_on:
            # Behind those who have been waiting for what came back: a worker that was woken before they are through
            # would ask for the lock while they have it.
            self._passing_on = True
            asyncio.get_running_loop().call_soon(self._pass_on)

    def _pass_on(self) -> None:
        self._passing_on = False
        while self._line and self._out < AT_ONCE:
            self._let_out()

    # -- who is not waited for

    def _tick_later(self) -> None:
        self._moved, self._ticks_at = False, self._clock() + PATIENCE
        # In a context of its own: that of whoever happens to be held back would live on with it.
        asyncio.get_running_loop().call_later(PATIENCE, self._tick, context=Context())

    def _tick(self) -> None:
        due, self._ticks_at = self._ticks_at, None
        if not self._line:
            return
        self._bring_nearer(TICK)
        if due is not None and self._clock() > due + PATIENCE:  # the loop is busy, and would pass on far too rarely
            self._bring_nearer(STALL)
            self.release()
            return
        if not self._moved:
            self._bring_nearer(STALL)
            self._out = 0
            self._pass_on()
        if self._line:
            self._tick_later()

    # -- whether to hold back at all

    def _run_trials(self) -> Iterator[None]:
        """Goes on whenever the statements have come that it asked for."""
        kept = KEPT
        while True:
            self._on_trial, took = True, {False: 0.0, True: 0.0}
            for limits in (False, True, False, True):
                self._choose(limits)
                self._left += RUN_IN
                yield
                began, self._left = self._clock(), TRIAL
                yield
                took[limits] += self._clock() - began
            self._on_trial = False
            self._choose(took[True] < MARGIN * took[False])
            kept = KEPT if self._limits else min(2 * kept, KEPT_AT_MOST)
            self._left = kept
            yield

    def _bring_nearer(self, statements: int) -> None:
        if not self._on_trial:
            self._left -= statements

    def _choose(self, limits: bool) -> None:
        self._limits = limits
        if not limits:
            self.release()
