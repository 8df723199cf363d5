"""How many spans of slow acquires a pool writes: each costs the event loop up to 100 µs when the pool is full."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["SpanLimit"]


class SpanLimit:
    """Admits so many spans in each second; `None` for no limit."""

    __slots__ = ("_clock", "_left_out", "_most", "_since", "_written")

    def __init__(self, most: int | None, clock: Callable[[], float]) -> None:
        self._most = math.inf if most is None else most
        self._clock = clock
        # When its second began, how many spans were written since, and how many were refused since the last one.
        self._since, self._written, self._left_out = -math.inf, 0, 0

    def admits(self) -> bool:
        """Return whether one more span may be written; one that may not is counted as left out."""
        now = self._clock()
        if now - self._since >= 1.0:
            self._since, self._written = now, 0
        if self._written < self._most:
            return True
        self._left_out += 1
        return False

    def add(self) -> None:
        """Count a span that is written."""
        self._written += 1

    def take_left_out(self) -> int:
        """Return how many were left out since the last call."""
        left_out, self._left_out = self._left_out, 0
        return left_out
