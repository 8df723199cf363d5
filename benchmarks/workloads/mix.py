"""5,000 requests across 20 workers with 5 connections: nine of ten read a row, one of ten updates one.

The update is a transaction of its own and leaves the row as it was. A database has its 5 connections for reading, and
writes through one more.
"""

from __future__ import annotations

from ..contenders import Contender
from ..inside.load import under_load
from ..inside.task import Measured, Task
from . import LOAD, Figure, Workload
from .selects import USER

UPDATE = "UPDATE posts SET created_at = created_at WHERE id = ?"


async def measure(contender: Contender, size: int, task: Task) -> Measured:
    async def request(key: int) -> None:
        if key % 10:
            async with contender.connection() as conn:
                await contender.fetch(conn, USER, key)
        else:
            await contender.write(UPDATE, 1 + key % task.posts)

    await contender.open(task.database, size)
    try:
        keys = task.keys(task.users, task.count(5_000))
        return await under_load(request, keys, workers=20, settle=contender.settle, tolerate=True)
    finally:
        await contender.close()


workload = Workload(
    title="Nine reads to one write",
    cases={"5 connections": 5},
    measure=measure,
    figures=(*LOAD, Figure("errors", "errors")),
    threads=True,
    seconds=0.9,
)
