"""4,000 times `execute()` and `fetchone()`: one row by its primary key, through a cursor, one acquire each.

With one worker and with five, each with a connection.
"""

from __future__ import annotations

from ..contenders import Contender
from ..inside.load import under_load
from ..inside.task import Measured, Task
from . import LOAD, Workload
from .selects import USER


async def measure(contender: Contender, workers: int, task: Task) -> Measured:
    async def select(user: int) -> None:
        async with contender.connection() as conn:
            await contender.first(conn, USER, user)

    await contender.open(task.database, workers)
    try:
        keys = task.keys(task.users, task.count(contender.share * 4_000))
        return await under_load(select, keys, workers=workers, settle=contender.settle, warm_up=20)
    finally:
        await contender.close()


workload = Workload(
    title="One row through a cursor",
    cases={"1 worker": 1, "5 workers": 5},
    measure=measure,
    figures=LOAD,
    threads=True,
    seconds=0.5,
)
