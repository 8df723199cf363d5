"""Return results from worker threads to their event loop, with one wake-up for all that are ready.

The other way, jobs are queued by `worker`.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

from .limiter import Limiter

__all__ = ["Completions"]


class Completions:
    """Carries outcomes from worker threads to their event loop, waking it once for all that are pending.

    A wake-up costs a system call on each side, more than all of the pool's own work.
    """

    __slots__ = ("__weakref__", "_loop", "_pending", "_woken", "limiter")

    _all: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Completions]] = weakref.WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._pending: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        # Whether the loop was woken and has not yet begun to deliver.
        self._woken = False
        self.limiter: Limiter = Limiter()

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Completions:
        """Return the one instance of this loop."""
        completions = cls._all.get(loop)
        if completions is None:
            completions = cls._all[loop] = cls(loop)
        return completions

    def run(self, future: asyncio.Future[Any], fn: Callable[[], object]) -> None:
        """Call `fn()`, and send its outcome to the event loop. Called by worker threads."""
        result, error = None, None
        try:
            result = fn()
        except BaseException as raised:
            error = raised
        self.post(future, result, error)

    def post(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        """Send an outcome to the event loop. Called by worker threads."""
        # Append first, then read the flag: `deliver` clears the flag first, then empties the queue.
        self._pending.append((future, result, error))
        if not self._woken:
            self._woken = True
            loop = self._loop()
            if loop is None:
                return
            try:  # noqa: SIM105 - suppress() takes longer than all of the rest
                loop.call_soon_threadsafe(self.deliver)
            except RuntimeError:
                pass  # nothing awaits in a closed loop; raising here would end the worker thread with a traceback

    def deliver(self) -> None:
        """Resolve the futures of all pending completions. Called by the event loop."""
        self._woken = False
        pending, completed = self._pending, self.limiter.completed
        while pending:
            future, result, error = pending.popleft()
            completed(future, None)
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            elif isinstance(error, StopIteration):  # which a future refuses
                future.set_exception(RuntimeError(f"the operation raised {error!r}"))
            else:
                future.set_exception(error)
        self.limiter.start_delayed_soon()
