"""Acquire and release alone, on a real connection that runs no statement: what the pool itself costs.

Idle: one task, which always finds a free connection. Contended: 50 tasks and 5 connections, each kept for one turn of
the loop, so that nine acquires of ten have to wait; the turn itself is part of the figure.
"""

from __future__ import annotations

import asyncio
import gc
from time import perf_counter

from ..contenders import Contender
from ..inside.idle import connect_idle
from ..inside.load import timed
from ..inside.task import Measured, Task, UnsuitableError
from . import Figure, Workload, takes_factory

SIZE = 5


async def measure(contender: Contender, tasks: int, task: Task) -> Measured:
    if not takes_factory(contender):
        raise UnsuitableError("takes no connection factory")
    await contender.open_with(connect_idle, SIZE)  # type: ignore[attr-defined]
    borrow = _alone if tasks == 1 else _for_a_turn
    cycles = max(1, task.count(20_000) // tasks)
    try:
        await _everybody(borrow, contender, tasks, 10)
        contender.settle()
        gc.collect()
        began = perf_counter()
        await _everybody(borrow, contender, tasks, cycles)
        seconds, later = perf_counter() - began, timed(contender.settle)
        each = 1e6 / (tasks * cycles)
        return Measured({"cycle": each * seconds, "later": each * later})
    finally:
        await contender.close()


async def _everybody(borrow, contender: Contender, tasks: int, cycles: int) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(borrow(contender, cycles))


async def _alone(contender: Contender, cycles: int) -> None:
    for _ in range(cycles):
        async with contender.connection():
            pass


async def _for_a_turn(contender: Contender, cycles: int) -> None:
    for _ in range(cycles):
        async with contender.connection():
            await asyncio.sleep(0)


workload = Workload(
    title="Acquire and release alone",
    cases={"idle": 1, "contended": 50},
    measure=measure,
    figures=(Figure("cycle", "µs per cycle", 2), Figure("later", "later, µs", 2)),
    reference="this_pool",
    seconds=0.15,
)
