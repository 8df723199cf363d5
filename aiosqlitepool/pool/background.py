"""The tasks that a pool runs for itself: who asked for one may be cancelled, the task goes on. Knows no connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["LAST_GRACE", "Tasks"]

# Seconds that closing waits for what was told to stop and should have stopped by then.
LAST_GRACE = 0.2


class Tasks:
    """The tasks of one pool, which it holds: a loop does so only weakly."""

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
        then: Callable[[asyncio.Task[Any]], None],
    ) -> asyncio.Task[Any]:
        """Run `work`; `then(task)` runs however it ends."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # the loop is gone, and this is its last coroutine being thrown away
            work.close()
            raise
        task = loop.create_task(work, name=f"{self._pool}:{name}")
        # A loop that closes with pool tasks pending is told of by the pool itself, once, and with names.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(then)
        return task

    async def rest(self, timeout: float | None = LAST_GRACE) -> None:
        """Wait until none runs, `timeout` seconds at most."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout)

    def cancel(self) -> None:
        """Stop them all."""
        for task in tuple(self._running):
            task.cancel()

    def abandon(self) -> None:
        """Throw away those whose loop has closed."""
        for task in tuple(self._running):
            coroutine = task.get_coro()
            if task.get_loop().is_closed() and coroutine is not None:
                with contextlib.suppress(Exception):  # it will never run again, and complains of that if left alone
                    coroutine.close()
