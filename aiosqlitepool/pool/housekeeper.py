"""What happens to a pool while nobody calls: one timer that trims, expires, refills and watches for leaks.

Decides *when*; what is done then is the pool's business. Costs one float comparison on the fast path.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import weakref
from collections.abc import Callable
from typing import Protocol

__all__ = ["Timer"]


class Kept(Protocol):
    """What the timer needs of its pool."""

    def sweep(self) -> float:
        """Do what is due now; returns when the next thing will be (clock time, or infinity)."""
        ...


class Timer:
    """Calls `sweep()` at the earliest moment anybody asked for.

    Holds its pool weakly: a program that forgets a pool must be able to lose it.
    """

    __slots__ = ("__weakref__", "_clock", "_handle", "_kept", "wake_at")

    def __init__(self, kept: Kept, clock: Callable[[], float]) -> None:
        self._kept = weakref.ref(kept)
        self._clock = clock
        self._handle: asyncio.TimerHandle | None = None
        # Compared by the fast path before it calls wake(): nearly always the timer is set for something earlier.
        self.wake_at: float = math.inf

    def wake(self, when: float) -> None:
        """Sweep at clock time `when`, unless an earlier sweep is due anyway."""
        if when < self.wake_at:
            self.stop()
            self.wake_at = when
            delay = max(0.0, when - self._clock())
            self_ref: weakref.ref[Timer] = weakref.ref(self)
            # In a context of its own: a sweep is no part of the request that happened to set the timer, and must not
            # keep what that request has in its context for as long as the timer runs.
            nobody = contextvars.Context()
            self._handle = asyncio.get_running_loop().call_later(delay, _sweep, self_ref, context=nobody)

    def stop(self) -> None:
        """Forget what was due."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = None
        self.wake_at = math.inf

    def fire(self) -> None:
        """Sweep, and set the timer for what the sweep says comes next."""
        self._handle, self.wake_at = None, math.inf
        kept = self._kept()
        if kept is not None:
            self.wake(kept.sweep())


def _sweep(ref: weakref.ref[Timer]) -> None:
    timer = ref()
    if timer is not None:
        timer.fire()
