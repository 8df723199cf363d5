"""What the pool runs for itself: tasks that outlive a cancelled caller, and one timer. Knows no connections."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

from ..errors import PoolUsageError

__all__ = ["BackgroundTasks", "GRACE", "Timer", "begin_later", "quietly", "running_loop"]

R = TypeVar("R")

# Seconds that closing waits for tasks that were told to stop and should have stopped by then.
GRACE: Final = 0.2


def running_loop(user: str) -> asyncio.AbstractEventLoop:
    """Return the running event loop. Raises `PoolUsageError`, naming its user, where asyncio runs none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        message = f"{user} needs asyncio, and no asyncio event loop runs here: use asyncio.run(). Trio is not supported"
        raise PoolUsageError(message) from None


# From Python 3.12; before it, no loop has this factory.
_EAGER: Final[object] = getattr(asyncio, "eager_task_factory", object())


def begin_later(
    work: Coroutine[Any, Any, R],
    *,
    name: str | None = None,
    context: contextvars.Context | None = None,
) -> asyncio.Task[R]:
    """Create a task that begins in a later turn of the running loop, also under `asyncio.eager_task_factory`.

    An eager task begins inside `create_task()`, which raises a Ctrl-C or `sys.exit()` of its first step: the pool would
    never learn that the task has ended, and lose the slot.
    """
    loop = asyncio.get_running_loop()
    create: Any = partial(asyncio.Task, loop=loop) if loop.get_task_factory() is _EAGER else loop.create_task
    task: asyncio.Task[R] = create(work, name=name, context=context)
    # The pool itself warns, once and with names, if its loop is closed while tasks are pending.
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    return task


class BackgroundTasks:
    """The running tasks of one pool. Holds them, because a loop does so only weakly."""

    __slots__ = ("_pool", "_running")

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def spawn(
        self,
        work: Coroutine[Any, Any, Any],
        *,
        name: str,
        then: Callable[[asyncio.Task[Any]], None] | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        """Run `work`, in a copy of the caller's context or in `context`; `then(task)` runs however it ends."""
        try:
            task = begin_later(work, name=f"{self._pool}:{name}", context=context)
        except RuntimeError:  # the loop is closed, and its last coroutines are being thrown away
            work.close()
            raise
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        if then is not None:
            task.add_done_callback(then)
        return task

    async def wait(self, timeout: float | None = GRACE) -> None:
        """Wait until none runs, `timeout` seconds at most; also for those that are spawned meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._running:
                    await asyncio.wait(self._running)

    def cancel(self) -> None:
        """Cancel them all."""
        for task in tuple(self._running):
            task.cancel()

    def abandon(self) -> None:
        """Close the coroutines of those whose loop is closed: they will never run again, and would complain."""
        for task in tuple(self._running):
            coroutine = task.get_coro()
            if task.get_loop().is_closed() and coroutine is not None:
                with contextlib.suppress(Exception):
                    coroutine.close()


class Timer:
    """Calls `look`, at the earliest moment that anything asked for; it returns when to call it next, or infinity.

    All are times of the clock. The loop holds the timer weakly: a program that forgets a pool must be able to lose it.
    """

    __slots__ = ("__weakref__", "_clock", "_handle", "look", "wake_at")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Set once what it belongs to has been made.
        self.look: Callable[[], float] = lambda: math.inf
        self._handle: asyncio.TimerHandle | None = None
        # Compared by the fast path before it calls wake(): nearly always the timer is set for something earlier.
        self.wake_at: float = math.inf

    def wake(self, when: float) -> None:
        """Look at clock time `when`, unless it is to look earlier anyway."""
        if when < self.wake_at:
            self.stop()
            self.wake_at = when
            delay = max(0.0, when - self._clock())
            self_ref: weakref.ref[Timer] = weakref.ref(self)
            # In a context of its own: it is no part of the request that happened to set the timer, and must not keep
            # what that request has in its context.
            context = contextvars.Context()
            self._handle = asyncio.get_running_loop().call_later(delay, _fire, self_ref, context=context)

    def stop(self) -> None:
        """Forget what was due."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = None
        self.wake_at = math.inf

    def fire(self) -> None:
        """Look, and set the timer for what comes next."""
        self._handle, self.wake_at = None, math.inf
        self.wake(self.look())


def _fire(ref: weakref.ref[Timer]) -> None:
    timer = ref()
    if timer is not None:
        timer.fire()


def quietly(closing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run it to its end, also if that is not awaited; its exception is retrieved."""
    task = begin_later(closing)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
