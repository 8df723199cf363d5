"""A clock that stands still until told otherwise, and a way to put that of the running loop forward."""

from __future__ import annotations

import asyncio


class Clock:
    """Passed to a pool as `clock`; `advance` is the only thing that moves it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


async def let_pass(seconds: float) -> None:
    """Put the clock of the running loop forward, and let what is due then run. Its timers end no test too early."""
    loop = asyncio.get_running_loop()
    time = loop.time
    loop.time = lambda: time() + seconds  # type: ignore[method-assign]
    for _ in range(20):
        await asyncio.sleep(0)
