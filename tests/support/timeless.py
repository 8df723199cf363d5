"""An event loop that never sleeps: while everybody waits, its time jumps to the next thing that is due.

Timeouts of minutes pass in no time and exactly, so that a test of a timer never depends on how fast it ran. Not for
tests with worker threads, for which no time would pass while they work.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import selectors
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, ParamSpec

import pytest

__all__ = ["about", "block", "takes", "timeless"]

P = ParamSpec("P")

# A jump goes this much too far, lest rounding leave it a hair short and what is due not yet due.
_OVERSHOOT = 1e-7


class _JumpingSelector(selectors.DefaultSelector):
    """Asks once whether anything happened; if not, all that can be waited for is time."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        happened = super().select(0)
        if not happened and timeout is None:
            raise AssertionError("everything waits, and nothing is due")
        if not happened and timeout is not None and timeout > 0:
            self.now += timeout + _OVERSHOOT
        return happened


class _TimelessLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def advance(self, seconds: float) -> None:
        self._jumping.now += seconds


def block(seconds: float) -> None:
    """Hold up the timeless loop for so long, as does code that works or sleeps and never awaits."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _TimelessLoop)
    loop.advance(seconds)


def about(seconds: float, within: float = 1e-3) -> Any:
    """Equals these seconds, give or take the rounding of jumps."""
    return pytest.approx(seconds, abs=within)


@contextlib.contextmanager
def takes(seconds: float, within: float = 1e-3) -> Iterator[None]:
    """Assert that the block takes these seconds of the loop."""
    time = asyncio.get_running_loop().time
    began = time()
    yield
    assert time() - began == about(seconds, within)


def timeless(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test in a loop of jumping time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=_TimelessLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run
