"""Limit the work in the event loop's own thread: pauses for what was slow there, and how long it held up the loop.

`inline` runs reads by these rules, and the writer its BEGIN. What has no place here goes to a worker thread. How much
of it fits into one turn of the loop is in `loop_turn`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cached_property
from typing import Final, TypeVar

from .loop_turn import LoopTurn
from .machine import Machine

__all__ = ["LONGEST", "STALL_WINDOW", "Kind", "LoopWork"]

R = TypeVar("R")

# Seconds: work in the loop that takes longer is slow.
LONGEST: Final = 0.001
# How often work of a kind that was slow goes to the worker before it is tried again, at first and at most.
_FIRST_PAUSE: Final = 10
_LONGEST_PAUSE: Final = 10_000
# For how much work after a slow piece the system is asked whether it took the processor away, which takes 2 µs.
_WATCHED: Final = 100
# Seconds of one window in which the longest stall is looked for: usually the time between two scrapes.
STALL_WINDOW: Final = 15.0


class Kind:
    """What is known of work of one kind: how often it goes to the worker before it is tried in the loop again."""

    __slots__ = ("left", "pause", "short")

    def __init__(self, left: float = 0) -> None:
        self.left: float = left
        self.pause: int = _FIRST_PAUSE
        # Pieces that were short, in a row.
        self.short: int = 0

    def was_slow(self) -> None:
        """Begin with short pauses again if as many pieces were short as the next pause has."""
        if self.short >= self.pause:
            self.pause = _FIRST_PAUSE
        self.short = 0

    def send_away(self) -> None:
        """Send them to the worker for a while, each time for longer."""
        self.was_slow()
        self.left, self.pause = self.pause, min(2 * self.pause, _LONGEST_PAUSE)


class LoopWork:
    """What one pool runs in the loop's own thread: which kinds of it, and how long that took. Used in the loop only."""

    def __init__(self, is_busy: Callable[[], bool] = lambda: False, machine: Machine | None = None) -> None:
        machine = machine or Machine()
        self._clock, self._preemptions, self._disk_reads = machine.clock, machine.preemptions, machine.disk_reads
        # Whether a worker thread of the pool is busy for long.
        self.is_busy = is_busy
        # All of it: where the system has to fetch the file from a slow disk, work of any kind can be slow.
        self._all = Kind()
        self._all.short = _WATCHED
        self._disk_read = 0
        # What `_preemptions` said before the piece that runs, if it is watched.
        self._preempted: int | None = None
        # The longest stalls of the loop, in seconds, of this window and of the one before it, and when this one ends.
        self._longest = self._longest_before = 0.0
        self._window_ends = machine.clock() + STALL_WINDOW

    @cached_property
    def turn(self) -> LoopTurn:
        """The turn of the loop: pools belong to one."""
        turn = LoopTurn.of(asyncio.get_running_loop())
        turn.pools.add(self)
        return turn

    def allows(self, kind: Kind) -> bool:
        """Return whether work of this kind is to run in the loop now."""
        return self._all.left <= 0 and kind.left <= 0

    def takes(self, kind: Kind) -> bool:
        """Do the same, and count the pauses down if it is not."""
        if self.allows(kind):
            return True
        for each in (self._all, kind):
            each.left -= 1
        if self._all.left == 0 and (disk_reads := self._disk_reads()) != self._disk_read:  # to try would be too early
            self._all.left, self._disk_read = self._all.pause, disk_reads
        return False

    def run(self, kind: Kind, work: Callable[[], R]) -> R:
        """Return `work()`, and note whether that was slow."""
        began = self._begin()
        try:
            return work()
        finally:
            self._judge(kind, self._ended(began))

    def _begin(self) -> float:
        self._preempted = self._preemptions() if self._all.short < _WATCHED else None
        return self._clock()

    def _ended(self, began: float) -> float:
        """Count the time since then as a stall of the loop; return it."""
        now = self._clock()
        stall = self.turn.spend(now - began)
        if now >= self._window_ends:
            missed = (now - self._window_ends) // STALL_WINDOW
            self._longest, self._longest_before = 0.0, 0.0 if missed else self._longest
            self._window_ends += (missed + 1) * STALL_WINDOW
        if stall > self._longest:
            self._longest = stall
        return now - began

    def _judge(self, kind: Kind, took: float) -> None:
        """Send this kind to the worker, and all for a while, if it was slow, not the first, and not for lack of time.

        By the clock: the steps of SQLite's virtual machine do not count what waits for a disk.
        """
        if took <= LONGEST:
            kind.short += 1
            self._all.short += 1
            return
        kind.was_slow()
        self._all.was_slow()
        if self._preempted is not None and self._preemptions() == self._preempted:
            kind.send_away()
            self._all.send_away()
            self._disk_read = self._disk_reads()

    def stall(self) -> float:
        """Return the seconds of the longest stall of the loop in the last 15 to 30 seconds. Safe in any thread."""
        late = self._clock() - self._window_ends
        if late < 0:
            return max(self._longest, self._longest_before)
        return self._longest if late < STALL_WINDOW else 0.0
