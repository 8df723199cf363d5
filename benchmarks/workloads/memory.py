"""Memory: what 50 open connections add to the process, and what 10,000 waiters add to Python's heap, each.

A connection is mostly its thread and SQLite's page cache, after one SELECT. A waiter is counted beyond the bare task
and future that every waiter needs. Each round is a process of its own.
"""

from __future__ import annotations

import asyncio
import gc
import os
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from ..contenders import Contender
from ..inside.task import Measured, Task, UnsuitableError
from . import Figure, Workload
from .selects import USER

CONNECTIONS = 50
_STATM = Path("/proc/self/statm")
_HAS_STATM = _STATM.exists()


async def measure(contender: Contender, what: str, task: Task) -> Measured:
    if what == "connection":
        return await _of_connections(contender, task)
    return await _of_waiters(contender, task)


async def _of_connections(contender: Contender, task: Task) -> Measured:
    if contender.most < CONNECTIONS:
        raise UnsuitableError("has one connection")
    if not _HAS_STATM:
        raise UnsuitableError("this system has no /proc")
    before = _resident()
    await contender.open(task.database, CONNECTIONS)
    try:
        async with AsyncExitStack() as stack:
            for key in range(1, CONNECTIONS + 1):
                # In a task of its own, or the floor would use one connection only.
                await asyncio.create_task(_use(contender, stack, key))
            return Measured({"each": (_resident() - before) / CONNECTIONS / 1024})
    finally:
        await contender.close()


async def _use(contender: Contender, stack: AsyncExitStack, key: int) -> None:
    conn = await stack.enter_async_context(contender.connection())
    await contender.fetch(conn, USER, key)


def _resident() -> int:
    """Bytes of this process that are in memory now."""
    gc.collect()
    return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE")


async def _of_waiters(contender: Contender, task: Task) -> Measured:
    if not contender.queues:
        raise UnsuitableError("has no queue")
    waiters = task.count(10_000)
    await contender.open(task.database, 1)
    try:
        async with contender.connection():

            async def bare() -> None:
                await asyncio.get_running_loop().create_future()

            async def borrow() -> None:
                async with contender.connection():
                    pass

            least = await _heap(waiters, bare)
            return Measured({"each": (await _heap(waiters, borrow) - least) / waiters / 1024})
    finally:
        await contender.close()


async def _heap(count: int, wait: Callable[[], Awaitable[None]]) -> int:
    """Bytes that so many tasks take while they wait."""
    gc.collect()
    tracemalloc.start()
    tasks = [asyncio.ensure_future(wait()) for _ in range(count)]
    for _ in range(count + 10):  # turns of the loop: some queue for a lock first, which passes one in each turn
        await asyncio.sleep(0)
    gc.collect()
    took, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return took


workload = Workload(
    title="Memory",
    cases={"of a connection": "connection", "of a waiter": "waiter"},
    measure=measure,
    figures=(Figure("each", "KiB each", 2),),
    fresh=True,
    seconds=1.6,
)
