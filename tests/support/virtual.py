"""An event loop without a clock: when nothing is ready it jumps to the next timer. No sleeping, no sockets, no threads.

Time moves on a grid of 1/1024 of a second, so that timers meant for the same moment fire in the same turn: that is
where the races are. Tasks and futures are numbered and hashed by number, so that sets of them iterate in the same
order in every run: with the same seed everything happens again, exactly.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

GRID = 1024
_STUCK = 10_000


class DeadlockError(AssertionError):
    """Nothing is ready and no timer is set: in the real world the program would hang here."""


class NumberedFuture(asyncio.Future[Any]):
    """A future whose hash is the same in every run."""

    def __init__(self, number: int, *, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class NumberedTask(asyncio.Task[Any]):
    """A task whose hash is the same in every run."""

    def __init__(self, number: int, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        self.number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.number


class _Jump:
    """Stands where the selector stands: instead of waiting, it moves the clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise DeadlockError("nothing is ready and no timer is set: the program would hang")
        loop = self._loop
        if timeout > 0:
            loop.now = max(loop.now, loop._scheduled[0]._when)  # type: ignore[attr-defined]
            loop.still = 0
        else:
            loop.still += 1
            if loop.still > _STUCK:
                raise DeadlockError(f"{_STUCK} turns and no time has passed: the program would spin")
        return []

    def close(self) -> None:
        """Nothing is held."""


class VirtualLoop(asyncio.BaseEventLoop):
    """`on_turn`, if set, is called after each turn; what it raises ends the run."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.still = 0
        self.turns = 0
        self.on_turn: Callable[[], None] | None = None
        self._numbers = itertools.count(1)
        self._selector = _Jump(self)
        self._clock_resolution = 1 / (4 * GRID)
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self.now

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return super().call_at(math.ceil(when * GRID) / GRID, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return NumberedFuture(next(self._numbers), loop=self)

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        return NumberedTask(next(self._numbers), coro, loop=loop, **options)

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]
        self.turns += 1
        if self.on_turn is not None:
            self.on_turn()

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps, so nobody has to be woken."""


def run(main: Coroutine[Any, Any, T], loop: VirtualLoop | None = None, tidy: Callable[[], None] | None = None) -> T:
    """Run `main` on a virtual clock to its end, and close the loop. If it fails, nothing is left to die pending."""
    loop = VirtualLoop() if loop is None else loop
    try:
        return loop.run_until_complete(main)
    except BaseException:
        _cancel_everything(loop)
        if tidy is not None:
            tidy()
        raise
    finally:
        loop.on_turn = None
        loop.close()


def _cancel_everything(loop: VirtualLoop) -> None:
    loop.on_turn = None
    loop.set_exception_handler(lambda loop, context: None)
    for _ in range(5):
        loop.still = 0
        for task in asyncio.all_tasks(loop):
            task.cancel()
        for _ in range(20):
            loop.run_until_complete(asyncio.sleep(0))
