"""Who may use a connection: evidence that a task uses one which went back to the pool.

A holder may let any task use its connection, so only positive evidence counts against a task. There are two kinds. A
connection remembers the tasks that last had it and gave it back themselves. And the context of a task, inherited from
the one that created it, carries a *mark* for each lease that was taken and had not ended there: a task created inside a
block is known by it for ever. Knows tasks and contexts, nothing of drivers.
"""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any, Final

from ..errors import PoolUsageError

__all__ = ["Mark", "Tenancy", "marks_here"]

# What is older is forgotten, in favour of the accused: a context's marks, and a connection's former holders.
MOST_MARKS: Final = 4
MOST_FORMER: Final = 16

_numbers = itertools.count(1)


class Mark:
    """A lease. It names the connection by number: contexts live long and must not keep connections alive.

    The number of no connection, 0, stands for a lease that ended in another task than it began in: then nobody can say
    who was to use it until when.
    """

    __slots__ = ("link",)

    link: int


Marks = tuple[Mark, ...]
Task = asyncio.Task[Any]

# The leases of this context, newest first.
_marks: ContextVar[Marks] = ContextVar("aiosqlitepool_leases", default=())
marks_here: Callable[[], Marks] = _marks.get
_set_marks, _reset_marks = _marks.set, _marks.reset

_current_task = asyncio.current_task


def _nobody() -> None:
    """The task that had a connection before anybody did."""


class Tenancy:
    """Who may use one connection now."""

    __slots__ = ("_former", "_found", "_left", "_loop", "_number", "_task", "_token", "mark")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._number = next(_numbers)
        self.mark: Mark | None = None
        # The task that took the lease, what stood in its context then, and what was put there.
        self._task: Task | None = None
        self._found: Marks = ()
        self._left: Marks = ()
        self._token: Token[Marks] | None = None
        # Those who gave it back, newest last. A task that does so again and again is remembered once.
        self._former: deque[Callable[[], Task | None]] = deque([_nobody], maxlen=MOST_FORMER)

    def begin(self, task: Task | None) -> None:
        """A lease begins in the running context, taken by `task`."""
        self._task = task
        self.mark = mark = Mark()
        mark.link = self._number
        self._found = found = marks_here()
        self._left = left = (mark, *self._of_others(found)) if found else (mark,)
        self._token = _set_marks(left)

    def _of_others(self, marks: Marks) -> list[Mark]:
        return [each for each in marks if each.link not in (0, self._number)][: MOST_MARKS - 1]

    def excuse(self) -> None:
        """Who took this lease is not to be remembered: it never got the connection."""
        self._task = None

    def end(self) -> None:
        """The lease ends in the running context: tasks created from now on are not created inside the block."""
        mark, task, token = self.mark, self._task, self._token
        if mark is None or token is None:
            return
        self.mark = self._task = self._token = None
        if marks_here() is self._left:
            try:
                _reset_marks(token)  # telling contexts apart is half the price of telling tasks apart
            except ValueError:
                mark.link = 0
                return
        elif self._ended_elsewhere(mark, task):  # or after leases that began later and have not ended
            mark.link = 0
            return
        if task is not None and self._former[-1]() is not task:
            self._former.append(weakref.ref(task))

    def forget(self) -> None:
        """The lease ends under its holder: whoever keeps the connection is not to keep the task and its context."""
        self.mark = self._task = self._token = None

    def _ended_elsewhere(self, mark: Mark, task: Task | None) -> bool:
        _set_marks(tuple(each for each in marks_here() if each is not mark))
        return _current_task(self._loop) is not task

    def challenge(self) -> None:
        """Raise `PoolUsageError` if the running task's hold on the connection has demonstrably ended."""
        marks, task, taker = marks_here(), _current_task(self._loop), self._task
        if self.mark in marks or task is taker:
            return
        on_behalf = taker is not None and taker.done()
        inherited = [each for each in marks if each.link == self._number]
        if inherited and not (on_behalf and inherited[0] in self._found):
            self._refuse("this task was created inside a block that has ended; its connection")
        # One that has ended may have been created for nothing but the acquiring, as by `wait_for(pool.acquire(), 1)`.
        if task is not None and not on_behalf and any(each() is task for each in self._former):
            self._refuse("this task's connection")

    def _refuse(self, what: str) -> None:
        raise PoolUsageError(
            f"{what} went back to the pool, which has lent it to another task: borrow one here, with "
            "pool.connection() or acquire(), or leave the work to a task that has not had this connection"
        )
