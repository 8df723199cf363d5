"""The way to worker threads and back to their event loop, with one wake-up for all results that are waiting."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from typing import Any, ClassVar

from .limiter import Limiter

__all__ = ["Completions"]


class Completions:
    """Carries results from worker threads to their loop, waking it once for all that are waiting.

    A wake-up costs a system call on each side, more than the whole of the pool's own work.
    """

    __slots__ = ("__weakref__", "_letters", "_loop", "_on_its_way", "outgoing")

    _all: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Completions]] = weakref.WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._letters: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._on_its_way = False
        self.outgoing: Limiter = Limiter()

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Completions:
        """The one mailbox of a loop."""
        mailbox = cls._all.get(loop)
        if mailbox is None:
            mailbox = cls._all[loop] = cls(loop)
        return mailbox

    def post(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        """Send an outcome (called by worker threads)."""
        # First the letter, then the look at the flag: `deliver` clears the flag first, then takes the letters.
        self._letters.append((future, result, error))
        if not self._on_its_way:
            self._on_its_way = True
            loop = self._loop()
            if loop is None:
                return
            try:  # noqa: SIM105 - suppress() takes longer than all of the rest
                loop.call_soon_threadsafe(self.deliver)
            except RuntimeError:
                pass  # a closed loop waits for nothing; raising here would kill the worker thread with a traceback

    def deliver(self) -> None:
        """Hand out what has arrived (called by the loop)."""
        self._on_its_way = False
        letters, is_back, count = self._letters, self.outgoing.is_back, 0
        while letters:
            future, result, error = letters.popleft()
            is_back(future)
            count += 1
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            elif isinstance(error, StopIteration):  # which a future refuses
                future.set_exception(RuntimeError(f"the operation raised {error!r}"))
            else:
                future.set_exception(error)
        self.outgoing.went_on(count)
