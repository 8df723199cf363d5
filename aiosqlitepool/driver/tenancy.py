"""Who may use a connection: evidence that a task uses one which went back to the pool.

A holder may let any task use its connection, so only positive evidence counts against a task. It travels in the
task's context, which tasks inherit from those that create them: a *mark* for each lease taken there, and in its place
a *tombstone* once the lease has ended there. Knows tasks and contexts, nothing of drivers.
"""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from ..errors import PoolUsageError

__all__ = ["Mark", "Tenancy", "marks_here"]

# Evidence older than the newest few leases of a context is forgotten, in favour of the accused.
MOST_MARKS: Final = 4

_numbers = itertools.count(1)


class Mark:
    """A lease. It names the connection by number: contexts live long and must not keep connections alive.

    The number of no connection, 0, stands for a lease that ended in another task than it began in: then nobody can say
    who was to use it until when.
    """

    __slots__ = ("link",)

    link: int


class Tombstone:
    """A lease that has ended, and the task that ended it. Inherited by other tasks, it says nothing about them."""

    __slots__ = ("link", "task")

    def __init__(self, link: int, task: weakref.ref[asyncio.Task[Any]]) -> None:
        self.link: int = link
        self.task: weakref.ref[asyncio.Task[Any]] = task


Marks = tuple[Mark | Tombstone, ...]

# The leases of this context, newest first.
_marks: ContextVar[Marks] = ContextVar("aiosqlitepool_leases", default=())
marks_here: Callable[[], Marks] = _marks.get

_current_task = asyncio.current_task


class Tenancy:
    """Who may use one connection now."""

    __slots__ = ("_found", "_loop", "_number", "_task", "mark")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._number = next(_numbers)
        self.mark: Mark | None = None
        # The task that took the lease, and what stood in its context then.
        self._task: asyncio.Task[Any] | None = None
        self._found: Marks = ()

    def begin(self, task: asyncio.Task[Any] | None) -> None:
        """A lease begins in the running context, taken by `task`."""
        number, mark = self._number, Mark()
        mark.link = number
        self._task, self._found, self.mark = task, (found := _marks.get()), mark
        if len(found) > 1 or (found and found[0].link != number):
            others = [each for each in found if each.link != number]
            _marks.set((mark, *others[: MOST_MARKS - 1]))
        else:
            _marks.set((mark,))

    def end(self) -> None:
        """The lease ends in the running context."""
        mark, found, ender, marks = self.mark, self._found, _current_task(self._loop), _marks.get()
        if mark is None:
            return
        if ender is not self._task:
            mark.link = 0
        self.mark = self._task = None
        if len(found) == len(marks) == 1 and marks[0] is mark and self._left_by(ender, found[0]):
            _marks.set(found)  # the task that borrows one connection again and again puts its tombstone back
        elif mark in marks:
            self._bury(mark, marks, ender)

    @staticmethod
    def _left_by(task: asyncio.Task[Any] | None, each: Mark | Tombstone) -> bool:
        return type(each) is Tombstone and each.task() is task

    def _bury(self, mark: Mark, marks: Marks, ender: asyncio.Task[Any] | None) -> None:
        """A tombstone in the place of the mark: tasks that are created from now on are not created inside the block."""
        place, graves = marks.index(mark), list(marks)
        graves[place : place + 1] = [] if ender is None else [Tombstone(self._number, weakref.ref(ender))]
        _marks.set(tuple(graves))

    def challenge(self) -> None:
        """Raise `PoolUsageError` if the running task's hold on the connection has demonstrably ended."""
        evidence = [each for each in _marks.get() if each.link == self._number]
        if self.mark in evidence:
            return
        task = _current_task(self._loop)
        for each in evidence:
            if isinstance(each, Mark):
                stale = True
                what = "this task was created inside a block that has ended; its connection"
            else:
                stale = task is not None and each.task() is task
                what = "this task's connection"
            if stale and not self._lent_on_behalf(each):
                raise PoolUsageError(
                    f"{what} went back to the pool, which has lent it to another task: borrow one here, with "
                    "pool.connection() or acquire(), or leave the work to a task that has not had this connection"
                )

    def _lent_on_behalf(self, evidence: Mark | Tombstone) -> bool:
        """Whether a task created for nothing but the acquiring, as by `wait_for(pool.acquire(), 1)`, took the lease."""
        task = self._task
        return task is not None and task.done() and evidence in self._found
