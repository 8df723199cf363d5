"""10,000 SELECTs across 5 workers with 5 connections: one row by its primary key, one acquire each.

Hardly anything but the pool and the trip to the worker thread is left to measure.
"""

from __future__ import annotations

from ..contenders import Contender
from ..inside.load import under_load
from ..inside.task import Measured, Task
from . import LOAD, Workload

USER = "SELECT id, name, email FROM users WHERE id = ?"


async def measure(contender: Contender, size: int, task: Task) -> Measured:
    async def select(user: int) -> None:
        async with contender.connection() as conn:
            await contender.fetch(conn, USER, user)

    await contender.open(task.database, size)
    try:
        return await under_load(
            select,
            task.keys(task.users, task.count(contender.share * 10_000)),
            workers=size,
            settle=contender.settle,
            warm_up=20,
        )
    finally:
        await contender.close()


workload = Workload(
    title="10,000 SELECTs across 5 workers",
    cases={"5 connections": 5},
    measure=measure,
    figures=LOAD,
    threads=True,
    seconds=0.7,
)
