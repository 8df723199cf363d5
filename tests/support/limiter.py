"""A turnstile that has learned to hold statements back."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from aiosqlitepool.driver.completions import Completions
from aiosqlitepool.driver.limiter import AT_ONCE, RUN_IN, TRIAL, Limiter

from .clock import Clock

__all__ = ["come_back", "hold_back_here", "that_holds_back"]


class _Clock(Clock):
    """That of the running loop, and what it is told besides."""

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.now


def come_back(turnstile: Limiter, keys: Collection[object]) -> None:
    """As a mailbox tells it."""
    for key in keys:
        turnstile.is_back(key)
    turnstile.went_on(len(keys))


def that_holds_back() -> Limiter:
    """Where statements took a thousand times longer when all were let out at once."""
    clock, out = _Clock(), list[None]()
    turnstile = Limiter(clock)
    for key in range(AT_ONCE + 1):
        turnstile.send(out.append, None, key)
    turnstile.went_on(RUN_IN)  # a crowd, so it begins to try
    for key in range(AT_ONCE + 1):
        turnstile.is_back(key)
    for limits in (False, True, False, True):
        for _ in range((RUN_IN + TRIAL) // AT_ONCE):
            for key in range(AT_ONCE):
                turnstile.send(out.append, None, key)
            clock.advance(1 if limits else 1000)
            come_back(turnstile, range(AT_ONCE))
    return turnstile


def hold_back_here() -> None:
    """Let all connections that are opened in this loop from now on share such a turnstile."""
    Completions.of(asyncio.get_running_loop()).outgoing = that_holds_back()
