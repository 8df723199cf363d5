"""Start-up and close, each round in a process of its own: importing the library (with what it stands on, and with its
subscribers where there are any), the first answer, 20 connections in use at once, and closing them.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from time import perf_counter

from ..contenders import Contender
from ..inside.task import Measured, Task
from . import Figure, Workload
from .selects import USER

CONNECTIONS = 20


async def measure(contender: Contender, size: int, task: Task) -> Measured:
    began = perf_counter()
    await contender.open(task.database, size)
    try:
        async with contender.connection() as conn:
            await contender.fetch(conn, USER, 1)
        answered = perf_counter()
        async with AsyncExitStack() as stack:
            for key in range(1, int(min(size, contender.most)) + 1):
                await asyncio.create_task(_use(contender, stack, key))
            used = perf_counter()
    finally:
        closing = perf_counter()
        await contender.close()
        closed = perf_counter()
    return Measured(
        {
            "import": 1000 * task.import_seconds,
            "first": 1000 * (answered - began),
            "all": 1000 * (used - began),
            "close": 1000 * (closed - closing),
        }
    )


async def _use(contender: Contender, stack: AsyncExitStack, key: int) -> None:
    conn = await stack.enter_async_context(contender.connection())
    await contender.fetch(conn, USER, key)


workload = Workload(
    title="Start-up and close",
    cases={f"{CONNECTIONS} connections": CONNECTIONS},
    measure=measure,
    figures=(
        Figure("first", "first answer, ms", 1),
        Figure("all", "20 in use, ms", 1),
        Figure("close", "close, ms", 1),
        Figure("import", "import, ms", 1),
    ),
    fresh=True,
    seconds=1.2,
)
