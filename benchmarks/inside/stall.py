"""How long the event loop kept others waiting: a callback that is due every 2 ms notes how late it was at most."""

from __future__ import annotations

import asyncio
from types import TracebackType

__all__ = ["Stall"]

PAUSE = 0.002
"""Seconds between two ticks. Each costs the loop some microseconds, less than one percent of its time."""


class Stall:
    """Ticks in the running loop during a `with` block.

    The loop's own resolution counts as lateness: up to a millisecond without any stall.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.longest = 0.0
        """Seconds that a tick was late at most."""

    def __enter__(self) -> Stall:
        self._schedule()
        return self

    def _schedule(self) -> None:
        self._due = self._loop.time() + PAUSE
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._note()
        self._schedule()

    def _note(self) -> None:
        self.longest = max(self.longest, self._loop.time() - self._due)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The load may end within the stall, before the tick that is late.
        self._note()
        self._timer.cancel()
