"""Pools over the stub driver, and words for what tests do with them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiosqlitepool import SQLiteConnectionPool

from .stub import StubConnection, StubDriver, settle

__all__ = ["StubPool", "immediately", "in_turn", "pool_of", "queued", "runs"]

R = TypeVar("R")
StubPool = SQLiteConnectionPool[StubConnection]


def pool_of(driver: StubDriver, size: int = 2, **settings: Any) -> StubPool:
    """A pool whose clock is the running loop's own, so that its timers and its clock agree."""
    settings.setdefault("clock", asyncio.get_running_loop().time)
    settings.setdefault("name", "app.db")
    return SQLiteConnectionPool(driver, size, **settings)


def immediately(work: Coroutine[Any, Any, R]) -> R:
    """The result of something that never gives up control; an error if it does."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    work.close()
    raise AssertionError("it had to wait")


async def queued(pool: SQLiteConnectionPool[Any], label: str | None = None) -> asyncio.Task[Any]:
    """A task that acquires and, by now, waits for it (or has it, if there was one)."""
    task = asyncio.create_task(pool.acquire(label=label), name=label)
    await settle()
    return task


async def in_turn(pool: SQLiteConnectionPool[Any], count: int) -> list[asyncio.Task[Any]]:
    """So many tasks that acquire, in the order in which they came."""
    return [await queued(pool, f"waiter {number}") for number in range(1, count + 1)]


async def runs(task: asyncio.Task[Any]) -> bool:
    """Whether the task is still not done after everything that can run has run."""
    await settle()
    return not task.done()
