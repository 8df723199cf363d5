"""Share the turns of an event loop: 0.2 ms in each for work in its own thread, and a queue for those that need more."""

from __future__ import annotations

import asyncio
import math
import weakref
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from .loop_work import LoopWork

__all__ = ["LoopTurn"]

_Waiter = tuple["asyncio.Future[bool]", float]

# Seconds of work in one turn of the event loop.
_TURN: Final = 0.0002
# Seconds of it for one task while others wait: to go behind them after each read costs an eighth of the throughput.
_SHARE: Final = 0.00001
# Seconds without such work after each 0.2 ms of it, while a worker thread is busy for long. A thread that never sleeps
# waits for each other one to use up its time slice, 3 ms; one that mostly sleeps waits for one of them.
_REST: Final = 0.002


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
