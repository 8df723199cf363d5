"""20 tasks read one row at a time by its primary key, with 4 connections, in the shortest way that each library has.

In the second case one query of a thousand takes 50 ms, and the others should not notice: it counts some hundred
thousand numbers, in SQLite alone. Plain sqlite3 never lets go of the loop, so its stall is the whole round.
"""

from __future__ import annotations

from ..contenders import Contender
from ..inside.load import under_load
from ..inside.task import Measured, Task
from . import LOAD, Workload
from .selects import USER

TASKS, CONNECTIONS = 20, 4
SLOW = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 250000)
SELECT count(*), ? FROM number
"""
_EVERY = 1_000


async def measure(contender: Contender, has_slow: bool, task: Task) -> Measured:
    async def fetch(key: int) -> None:
        await contender.one(USER if key else SLOW, key)

    await contender.open(task.database, CONNECTIONS)
    try:
        count = task.count(contender.share * 20_000)
        keys = [
            0 if has_slow and place % _EVERY == _EVERY // 2 else key
            for place, key in enumerate(task.keys(task.users, count))
        ]
        return await under_load(fetch, keys, workers=TASKS, settle=contender.settle, warm_up=5)
    finally:
        await contender.close()


workload = Workload(
    title="One row by its primary key, the shortest way",
    cases={"all short": False, "one in a thousand takes 50 ms": True},
    measure=measure,
    figures=LOAD,
    threads=True,
    contenders=(
        *("plain_sqlite3", "floor", "apsw_aio", "databases_sqlite", "this_pool"),
        *("this_database", "this_database_inline", "this_database_inline_read"),
    ),
    seconds=1.0,
)
