"""Which tasks cannot go on before another task ends. Reads asyncio's objects and changes nothing.

Before Python 3.14, asyncio has no public record of that. So this reads the callbacks of a future, which end at the task
that awaits it, directly or through one of asyncio's (and anyio's) ways to wait for several. A private part that is
missing, and a way to wait that is not listed here, mean: this task can go on.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Final

__all__ = ["held_up_by"]

_Future = asyncio.Future[Any]
_IsStuck = Callable[[object], bool]


def held_up_by(task: asyncio.Task[Any], is_stuck: _IsStuck = lambda _: False) -> set[_Future]:
    """Return `task` and all that cannot go on before it ends, unless they are cancelled.

    `is_stuck(future)` says of other futures that they do not end before `task` does.
    """
    found: set[_Future] = set()
    pending: list[_Future] = [task]
    while pending:
        future = pending.pop()
        if future not in found:
            found.add(future)
            pending += _held_up(future, lambda each: each in found or is_stuck(each))
    return found


def _held_up(future: _Future, is_stuck: _IsStuck) -> Iterator[_Future]:
    """Return the tasks that await this future, and the futures that are not done before it is."""
    for callback, _ in getattr(future, "_callbacks", None) or ():
        owner = getattr(callback, "__self__", None)
        held: Any = None
        if isinstance(owner, asyncio.Task):  # how a task is woken up; other methods of a task may be callbacks too
            held = owner if getattr(owner, "_fut_waiter", None) is future else None
        elif isinstance(owner, asyncio.TaskGroup):
            held = _group(owner)
        elif isinstance(callback, functools.partial):
            held = callback.args[0] if _name_of(callback.func) == "asyncio.tasks._release_waiter" else None
        elif (rule := _RULES.get(_name_of(callback))) is not None:
            held = rule(inspect.getclosurevars(callback).nonlocals, is_stuck)
        if isinstance(held, asyncio.Future):
            yield held


def _name_of(function: object) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"


def _group(group: object) -> object:
    # A group that is cancelled cancels all its tasks, so whatever the others do, none outlives it. `None` while the
    # block of the group itself still runs.
    return getattr(group, "_on_completed_fut", None)


def _gathered(variables: Any, is_stuck: _IsStuck) -> object:
    # One of the others may raise, which ends the wait and leaves this one running.
    others = variables.get("children", ())
    return variables.get("outer") if all(each.done() or is_stuck(each) for each in others) else None


def _waited(variables: Any, _: _IsStuck) -> object:
    is_last = variables.get("counter") == 1 or variables.get("return_when") == asyncio.ALL_COMPLETED
    return variables.get("waiter") if is_last and variables.get("timeout_handle") is None else None


# What the callbacks of gather(), wait() and anyio's task groups hold up, from the variables that they close over.
_RULES: Final[dict[str, Callable[[Any, _IsStuck], object]]] = {
    "asyncio.tasks.gather.<locals>._done_callback": _gathered,
    "asyncio.tasks._wait.<locals>._on_completion": _waited,
    "anyio._backends._asyncio.TaskGroup._spawn.<locals>.task_done": lambda variables, _: _group(variables.get("self")),
}
