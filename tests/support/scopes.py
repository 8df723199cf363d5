"""Cancelled scopes of anyio, and whether the loop is at rest meanwhile: such a scope runs at each turn of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio

__all__ = ["LONG_ENOUGH", "at_rest", "cancelled_scope"]

# Seconds in which a loop that does not rest turns some thousand times, and one that rests a few times.
LONG_ENOUGH = 0.2
_MOST = 500


@contextmanager
def at_rest() -> Iterator[None]:
    """Fail if so many callbacks were scheduled inside the block that the loop cannot have rested."""
    loop: Any = asyncio.get_running_loop()
    scheduled, call_soon = 0, loop.call_soon

    def counted(*args: Any, **more: Any) -> asyncio.Handle:
        nonlocal scheduled
        scheduled += 1
        handle: asyncio.Handle = call_soon(*args, **more)
        return handle

    loop.call_soon = counted
    try:
        yield
    finally:
        del loop.call_soon
    assert scheduled < _MOST, f"{scheduled} callbacks were scheduled"


@contextmanager
def cancelled_scope() -> Iterator[anyio.CancelScope]:
    """A scope that is cancelled before anything in it runs."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        yield scope
