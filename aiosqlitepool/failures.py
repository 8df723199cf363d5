"""What becomes of a handler's failure: it is counted and logged, and what is to end the program goes to the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from .log import log

__all__ = ["LOG_INTERVAL", "FailureLog", "raise_in_loop"]

# One broken handler on a busy pool would otherwise write thousands of tracebacks a second.
LOG_INTERVAL: Final = 10.0


class FailureLog:
    """Logs the failures of handlers, one every ten seconds for each of them, and counts them all."""

    __slots__ = ("_clock", "_silenced", "count")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.count: int = 0
        # By the identity of a handler that fails: when that may be logged again, and how often it was not.
        self._silenced: dict[int, tuple[float, int]] = {}

    def add(self, handler: object, event: str, error: BaseException, *, stays: bool) -> None:
        """Note that a handler raised `error` on an event of that name; it `stays` unless it has unsubscribed."""
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
        """A handler is gone, and its identity may be another's soon."""
        self._silenced.pop(id(handler), None)


def raise_in_loop(error: BaseException) -> None:
    """Let Ctrl-C or sys.exit() inside a handler end the program, but from the loop, not from inside the pool."""

    def reraise() -> None:
        raise error

    try:
        asyncio.get_running_loop().call_soon(reraise)
    except RuntimeError:
        # No loop runs, so no pool is in the middle of anything.
        reraise()
