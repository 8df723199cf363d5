"""Which tasks wait for which, to find deadlocks. Reads asyncio's objects and changes nothing.

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

__all__ = ["awaiting", "held_up_by"]

_Future = asyncio.Future[Any]
_IsStuck = Callable[[object], bool]

_WAIT: Final = "asyncio.tasks._wait.<locals>._on_completion"


def held_up_by(task: asyncio.Task[Any], is_stuck: _IsStuck = lambda _: False) -> set[_Future]:
    """Return `task` and all that cannot go on before it ends, unless the program cancels them.

    `is_stuck(future)` says of other futures that they do not end before `task` does.
    """
    found = _found(task, is_stuck)
    surviving = {future for future, survives in found.items() if survives}
    return found.keys() - surviving if any(map(_times_out, surviving)) else set(found)


def awaiting(task: asyncio.Task[Any]) -> set[_Future]:
    """Return `task` and all that wait for its end, also what may go on before."""
    return set(_found(task, lambda _: True))


def _found(task: asyncio.Task[Any], is_stuck: _IsStuck) -> dict[_Future, bool]:
    # With whether `task` goes on if what is found there is cancelled: `wait()` does not cancel what it waits for.
    found: dict[_Future, bool] = {}
    pending: list[tuple[_Future, bool]] = [(task, False)]
    while pending:
        future, survives = pending.pop()
        if future not in found:
            found[future] = survives
            pending += _held_up(future, survives, lambda each: each in found or is_stuck(each))
    return found


def _held_up(future: _Future, survives: bool, is_stuck: _IsStuck) -> Iterator[tuple[_Future, bool]]:
    """Yield the tasks that await this future, and the futures that are not done before it is."""
    for callback, _ in getattr(future, "_callbacks", None) or ():
        owner, name = getattr(callback, "__self__", None), _name_of(callback)
        held: Any = None
        if isinstance(owner, asyncio.Task):  # how a task is woken up; other methods of a task may be callbacks too
            held = owner if getattr(owner, "_fut_waiter", None) is future else None
        elif isinstance(owner, asyncio.TaskGroup):
            held = _group(owner, survives, is_stuck)
        elif isinstance(callback, functools.partial):  # wait_for() of Python 3.11
            held = callback.args[0] if _name_of(callback.func) == "asyncio.tasks._release_waiter" else None
        elif name in _RULES:
            held = _RULES[name](inspect.getclosurevars(callback).nonlocals, survives, is_stuck)
        if isinstance(held, asyncio.Future):
            yield held, survives or name == _WAIT


def _name_of(function: object) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"


def _times_out(future: _Future) -> bool:
    """Whether a timer is going to cancel this task, or end this wait: of `timeout()` or `wait_for()`."""
    scheduled = getattr(future.get_loop(), "_scheduled", None)
    if scheduled is None:  # uvloop does not show its timers
        return True
    timers = [timer for timer in scheduled if not timer.cancelled()]
    owners = [getattr(getattr(timer, "_callback", None), "__self__", None) for timer in timers]
    cancelled = [getattr(owner, "_task", None) for owner in owners]
    return any(
        each is future for each in (*cancelled, *(arg for timer in timers for arg in getattr(timer, "_args", ())))
    )


def _group(group: Any, survives: bool, is_stuck: _IsStuck) -> object:
    # Another task that fails ends the others, so none outlives its group. `None` while the group's own block runs.
    ends_together = not survives or all(is_stuck(each) for each in getattr(group, "_tasks", ()))
    return getattr(group, "_on_completed_fut", None) if ends_together else None


def _gathered(variables: Any, _: bool, is_stuck: _IsStuck) -> object:
    # One of the others may raise, which ends the wait and leaves this one running.
    others = variables.get("children", ())
    return variables.get("outer") if all(each.done() or is_stuck(each) for each in others) else None


def _waited(variables: Any, *_: object) -> object:
    is_last = variables.get("counter") == 1 or variables.get("return_when") == asyncio.ALL_COMPLETED
    return variables.get("waiter") if is_last and variables.get("timeout_handle") is None else None


# What the callbacks of gather(), wait() and anyio's task groups hold up, from the variables that they close over.
_RULES: Final[dict[str, Callable[[Any, bool, _IsStuck], object]]] = {
    "asyncio.tasks.gather.<locals>._done_callback": _gathered,
    _WAIT: _waited,
    "anyio._backends._asyncio.TaskGroup._spawn.<locals>.task_done": lambda variables, *more: _group(
        variables.get("self"), *more
    ),
}
