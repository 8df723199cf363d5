"""Limit the work in the event loop's own thread: 0.2 ms in one turn of the loop, and pauses for what was slow.

`inline` runs reads by these rules, and the writer its BEGIN. What has no place here goes to a worker thread.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import Context
from functools import cached_property
from typing import ClassVar, Final, TypeVar

from .machine import Machine

__all__ = ["LONGEST", "STALL_WINDOW", "Kind", "LoopTurn", "LoopWork"]

R = TypeVar("R")
_Waiter = tuple["asyncio.Future[bool]", float]

# Seconds: work in the loop that takes longer is slow.
LONGEST: Final = 0.001
# Seconds of work in one turn of the event loop.
_TURN: Final = 0.0002
# Seconds of it for one task while others wait: to go behind them after each read costs an eighth of the throughput.
_SHARE: Final = 0.00001
# Seconds without such work after each 0.2 ms of it, while a worker thread is busy for long. A thread that never sleeps
# waits for each other one to use up its time slice, 3 ms; one that mostly sleeps waits for one of them.
_REST: Final = 0.002
# How often work of a kind that was slow goes to the worker before it is tried again, at first and at most.
_FIRST_PAUSE: Final = 10
_LONGEST_PAUSE: Final = 10_000
# For how much work after a slow piece the system is asked whether it took the processor away, which takes 2 µs.
_WATCHED: Final = 100
# Seconds of one window in which the longest stall is looked for: usually the time between two scrapes.
STALL_WINDOW: Final = 15.0


class LoopTurn:
    """How many seconds of its present turn an event loop has given to work, and what waits for time. One for a loop."""

    _all: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopTurn]] = weakref.WeakKeyDictionary()

    def __init__(self) -> None:
        self._spent = 0.0
        # The same, since it was last asked whether to rest.
        self._since_rest = 0.0
        self._is_ending = False
        # How many wait; what wakes them and until when they wait, oldest first; those woken too late for a turn.
        self._waiting = 0
        self._queue: deque[_Waiter] = deque()
        self._late: list[_Waiter] = []
        # The time of the loop before which none of them has to be told that it is too late.
        self._look_at = math.inf
        # How many that waited had their time in this turn, and until how much is spent the last one may go on.
        self._served = 0
        self._share = 0.0
        # Not that of a caller, which a timer would keep until it is due. A context cannot be entered twice: one a loop.
        self._context = Context()
        # The pools that work in this loop.
        self.pools: weakref.WeakSet[LoopWork] = weakref.WeakSet()

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> LoopTurn:
        """Return the one instance of this loop."""
        turn = cls._all.get(loop)
        if turn is None:
            turn = cls._all[loop] = cls()
        return turn

    @property
    def is_over(self) -> bool:
        """Whether no time is left in this turn."""
        return self._spent >= _TURN

    @property
    def is_taken(self) -> bool:
        """Whether no time is left for those that come now: it is over, or the rest is for those that wait."""
        return self._spent >= (self._share if self._waiting else _TURN)

    async def next(self, until: float = math.inf, most: int | None = None) -> bool:
        """Wait for a turn of the loop that has time left, behind all that wait already; return whether there is one.

        There is none if `most` wait already, or if it does not come before `until`, in the time of the loop.
        """
        if not self.is_taken:
            return True
        if most is not None and self._waiting >= most:
            return False
        queue: deque[_Waiter] | list[_Waiter] = self._queue
        self._waiting += 1
        self._look_at = min(self._look_at, until)
        try:
            while True:
                begun: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
                queue.append((begun, until))
                if not self._is_ending:  # what was before it has spent nothing
                    self._end_soon()
                if not await begun:
                    return False
                if self._spent < _TURN:
                    self._served += 1
                    self._share = min(self._spent + _SHARE, _TURN)
                    return True
                queue = self._late  # before those that have had their turn since
        finally:
            self._waiting -= 1

    def spend(self, seconds: float) -> float:
        """Count what was spent, until the next turn; return how much that is in this one."""
        if not self._is_ending:
            self._end_soon()
        self._spent += seconds
        return self._spent

    def _end_soon(self) -> None:
        self._is_ending = True
        asyncio.get_running_loop().call_soon(self._end, context=self._context)

    def _end(self) -> None:
        """Begin the next turn, at once or after a rest."""
        self._since_rest += self._spent
        if self._since_rest >= _TURN:
            self._since_rest = 0.0
            if any(pool.is_busy() for pool in self.pools):
                self._spent = _TURN
                asyncio.get_running_loop().call_later(_REST, self._begin, context=self._context)
                return
        self._begin()

    def _begin(self) -> None:
        self._spent = self._share = 0.0
        self._is_ending = False
        if self._waiting:
            self._wake()

    def _wake(self) -> None:
        """Wake as many as had their time in the last turn and one more: to wake one in vain costs a fifth of a read."""
        more, self._served = self._served + 1, 0
        self._queue.extendleft(reversed(self._late))
        self._late.clear()
        if self._look_at < math.inf and (now := asyncio.get_running_loop().time()) >= self._look_at:
            self._turn_away(now)
        while self._queue and more:
            begun, _ = self._queue.popleft()
            if not begun.done():
                begun.set_result(True)
                more -= 1
        if self._queue:
            self._end_soon()

    def _turn_away(self, now: float) -> None:
        """Wake those for which it is too late."""
        for begun, until in self._queue:
            if until <= now and not begun.done():
                begun.set_result(False)
        waiting = [each for each in self._queue if not each[0].done()]
        self._queue = deque(waiting)
        self._look_at = min((until for _, until in waiting), default=math.inf)


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
