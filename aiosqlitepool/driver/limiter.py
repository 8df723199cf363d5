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
from collections.abc import Callable
from contextvars import Context
from time import perf_counter
from typing import Any, Final

__all__ = ["Limiter"]

# How many are let out at a time: one for the moments in which the other does without the interpreter lock.
AT_ONCE: Final = 2
# When nothing is back after this many seconds, what is out is not waited for: those are no short statements.
PATIENCE: Final = 0.001
# And nobody is held back for longer, or at most until the next look, whatever the others do: not counting what a trial
# waits for, see DRAIN_AT_MOST. A line that is long may take as long as it would if it had to be waited out. Seconds.
HELD_AT_MOST: Final = 0.01
HELD_FOR_EACH: Final = PATIENCE / AT_ONCE

# A trial, in statements that came back: how many a way runs in before it is measured, and over how many; and by which
# factor holding back must be faster, that chance does not choose it.
RUN_IN: Final = 16
TRIAL: Final = 64
MARGIN: Final = 0.95
# Before it lets out two at a time, a trial waits until all but two are back: a hundred threads that fight for the lock
# would decide it. So many seconds at most.
DRAIN_AT_MOST: Final = 0.05
# Each way is tried twice, letting all out first: run in, measured, run in, measured. After that the choice is kept.
_CHOSEN: Final = 8
# So many times as long as the trial took, for trials should cost no more than some per cent; but a choice that the
# trial before did not make may be a mistake, and is tried again sooner. At most so many seconds, for what comes may
# change at any time. A look that finds everything stuck brings the next trial nearer by so many.
KEPT: Final = 16
KEPT_UNCONFIRMED: Final = 8
KEPT_AT_MOST: Final = 5.0
STALL: Final = 0.02

Put = Callable[[Any], None]


class Limiter:
    """Lets the statements of one loop out to their workers, in the order in which they came. Not for other threads."""

    __slots__ = (
        "_busy_since",
        "_clock",
        "_drains_until",
        "_kept_until",
        "_last_choice",
        "_left",
        "_limits",
        "_line",
        "_looks",
        "_measures",
        "_moved",
        "_out",
        "_passing_on",
        "_stage",
        "_took",
        "_tries_since",
        "is_back",
    )

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        # Who is held back, each with the way to its worker and since when.
        self._line: deque[tuple[Put, Any, object, float]] = deque()
        # Who was let out, is not back, and is waited for.
        self._out: set[object] = set()
        # Says that one of them is back; after any number of these, `went_on()`.
        self.is_back: Callable[[object], None] = self._out.discard
        self._passing_on = False
        # Whether anything came back since the last look at the line, and whether there will be another one.
        self._moved = False
        self._looks = False
        # Until when those held back wait for all that was let out before they came.
        self._drains_until = 0.0
        # Whether to hold back; in which stage, and for how many more statements, after which a choice is kept on if its
        # time is not over.
        self._limits = False
        self._stage = _CHOSEN
        self._left = RUN_IN
        self._kept_until = self._tries_since = clock()
        # What the last trial chose, if there was one.
        self._last_choice: bool | None = None
        # How long the statements of each way took together. Only what passes while somebody is out or held back counts:
        # the rest depends on those who send.
        self._took = {False: 0.0, True: 0.0}
        self._measures = False
        self._busy_since: float | None = None

    @property
    def held_back(self) -> int:
        """How many wait. Safe to read from any thread."""
        return len(self._line)

    def send(self, put: Put, job: Any, key: object) -> None:
        """Let a statement out, with `put(job)`, at once or in its turn; `key` is what will come back."""
        if self._measures and self._busy_since is None:
            self._busy_since = self._clock()
        if self._limits and (self._line or len(self._out) >= AT_ONCE):
            self._hold_back(put, job, key)
        else:
            self._out.add(key)
            put(job)

    def _hold_back(self, put: Put, job: Any, key: object) -> None:
        now = self._clock()
        if not self._looks:
            self._look_next(now)
        # Last, for whoever is told of an error must not be in the line.
        self._line.append((put, job, key, now))

    def send_now(self, put: Put, job: Any) -> None:
        """Let something out that must not wait, and is not waited for, behind all that came before."""
        self.release()
        put(job)

    def release(self) -> None:
        """Hold nobody back any longer who waits now."""
        while self._line:
            self._let_out()

    def withdraw(self, put: Put) -> list[Any]:
        """Take those out of the line who were to go this way; returns their keys."""
        return self._take_out(lambda way, key: way is put)

    def withdraw_one(self, key: object) -> bool:
        """Take this one out of the line, if it is still there."""
        return bool(self._line and self._take_out(lambda _, held_back: held_back is key))

    def _take_out(self, wanted: Callable[[Put, object], bool]) -> list[Any]:
        keys = [key for put, _, key, _ in self._line if wanted(put, key)]
        self._line = deque(each for each in self._line if not wanted(each[0], each[2]))
        return keys

    def _let_out(self) -> None:
        # In this order: better that one is lost than that it is run twice, should Ctrl-C fall between the two.
        put, job, key, _ = self._line.popleft()
        self._out.add(key)
        put(job)

    def went_on(self, count: int) -> None:
        """So many came back from their workers, each of which `is_back()` has told."""
        self._left -= count
        if self._left <= 0 and (self._stage != _CHOSEN or self._is_time(count)):
            self._next_stage()
        if self._line:
            self._moved = True
            if len(self._out) < AT_ONCE and not self._passing_on:
                # Behind those who have been waiting for what came back: a worker that was woken before they are through
                # would ask for the lock while they have it.
                self._passing_on = True
                asyncio.get_running_loop().call_soon(self._pass_on)
        elif self._busy_since is not None and not self._out:
            self._stop_watch()

    def _pass_on(self) -> None:
        self._passing_on = False
        while self._line and len(self._out) < AT_ONCE:
            self._let_out()

    # -- who is not waited for

    def _look_next(self, now: float) -> None:
        self._moved = False
        self._look_at(now + PATIENCE, now)

    def _look_at(self, due: float, now: float) -> None:
        self._looks = True
        # In a context of its own: that of whoever happens to be held back would live on with it.
        asyncio.get_running_loop().call_later(due - now, self._look, due, context=Context())

    def _look(self, due: float) -> None:
        now, self._looks = self._clock(), False
        if not self._line:
            return
        if now < due:  # some loops are early, by as much as their clock is coarse
            self._look_at(due, now)
            return
        if now >= self._drains_until:
            if not self._moved or now > due + PATIENCE:  # a loop that is late is busy, and passes on far too rarely
                self._kept_until -= STALL
            self._let_out_late(now)
            self._give_up_measuring(now)
        if self._line:
            self._look_next(now)

    def _let_out_late(self, now: float) -> None:
        if not self._moved:
            self._out.clear()
            self._pass_on()
        while self._line and now - max(self._line[0][3], self._drains_until) >= self._patience_of_all():
            self._let_out()

    def _patience_of_all(self) -> float:
        return max(HELD_AT_MOST, HELD_FOR_EACH * len(self._line))

    # -- whether to hold back at all

    def _is_time(self, back: int) -> bool:
        """Whether to try both ways again. Where nobody would be held back, there is nothing to choose."""
        self._left = RUN_IN
        # Where statements are held back, three senders have no more than two here when one has just come back.
        if len(self._out) + len(self._line) + self._limits * back <= AT_ONCE:
            return False
        self._tries_since = self._clock()
        return self._tries_since >= self._kept_until

    def _next_stage(self) -> None:
        self._stop_watch()
        self._stage = stage = (self._stage + 1) % (_CHOSEN + 1)
        self._measures = stage % 2 == 1
        if stage == _CHOSEN:
            self._end_trial(self._took[True] < MARGIN * self._took[False])
        elif self._measures:
            self._left = TRIAL
            self._busy_since = self._clock() if self._out or self._line else None
        else:
            before = len(self._out)
            self._choose(stage % 4 == 2)
            self._left = max(RUN_IN, before)  # what the other way let out comes back first
            if self._limits:
                drain = 2 * self._took[False] * max(1.0, before / TRIAL)
                self._drains_until = self._clock() + min(DRAIN_AT_MOST, drain)

    def _end_trial(self, limits: bool) -> None:
        self._choose(limits)
        kept = KEPT if limits is self._last_choice else KEPT_UNCONFIRMED
        self._last_choice, self._took = limits, {False: 0.0, True: 0.0}
        self._left, now = RUN_IN, self._clock()
        self._kept_until = now + min(KEPT_AT_MOST, kept * (now - self._tries_since))

    def _give_up_measuring(self, now: float) -> None:
        """End a trial in which holding back took longer already than letting all out, however soon the rest is back."""
        if self._measures and self._limits:
            since = now if self._busy_since is None else self._busy_since
            if self._took[True] + now - since > self._took[False]:
                self._stage = _CHOSEN - 1
                self._next_stage()

    def _stop_watch(self) -> None:
        if self._busy_since is not None:
            self._took[self._limits] += self._clock() - self._busy_since
            self._busy_since = None

    def _choose(self, limits: bool) -> None:
        self._limits = limits
        if not limits:
            self.release()
