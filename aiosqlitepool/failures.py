"""Exceptions of event handlers: count them, log them now and then, and end the program where that is what they mean."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

__all__ = ["LOG_INTERVAL", "FailureLog", "raise_in_loop"]

log: Final = logging.getLogger("aiosqlitepool")

# Seconds between two log records for one handler: a broken handler fails thousands of times a second on a busy pool.
LOG_INTERVAL: Final = 10.0


class FailureLog:
    """Counts the exceptions of handlers, and logs at most one per handler every ten seconds."""

    __slots__ = ("_clock", "_silenced", "count")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.count: int = 0
        # By the id of a failing handler: when it may be logged again, and how many failures were not logged.
        self._silenced: dict[int, tuple[float, int]] = {}

    def add(self, handler: object, event: str, error: BaseException, *, stays: bool) -> None:
        """Count, and perhaps log, that `handler` raised `error`. `stays` is false if it has detached itself."""
        self.count += 1
        now = self._clock()
        quiet_until, left_out = self._silenced.get(id(handler), (now, 0))
        if now < quiet_until:
            self._silenced[id(handler)] = (quiet_until, left_out + 1)
            return
        if stays:
            self._silenced[id(handler)] = (now + LOG_INTERVAL, 0)
        more = f" ({left_out} more failures of this handler were not logged)" if left_out else ""
        log.error("subscriber %r failed on %r%s", handler, event, more, exc_info=error)

    def forget(self, handler: object) -> None:
        """Drop the state of a handler that has detached. Its id may be reused."""
        self._silenced.pop(id(handler), None)


def raise_in_loop(error: BaseException) -> None:
    """Let Ctrl-C or `sys.exit()` in a handler end the program from the event loop, not from inside the pool."""

    def reraise() -> None:
        raise error

    try:
        asyncio.get_running_loop().call_soon(reraise)
    except RuntimeError:
        # No loop is running, so the pool is not in the middle of anything.
        reraise()
