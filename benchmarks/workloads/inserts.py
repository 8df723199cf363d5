"""50 tasks insert one row at a time, 40 each, and hold nothing: what a burst of small writes waits for.

In a transaction, which the program begins and commits, or by itself, in one trip. Pools have 20 connections, which
meet in SQLite's busy handler. A database has one connection that writes, and each row is a transaction in both cases.
"""

from __future__ import annotations

from pathlib import Path

from ..contenders import Contender
from ..inside.load import under_load
from ..inside.task import Measured, Task, UnsuitableError
from . import STALL, Figure, Workload
from .writers import INSERT, note_book

TASKS, EACH, CONNECTIONS = 50, 40, 20


async def measure(contender: Contender, held: float | None, task: Task) -> Measured:
    if held is not None and not contender.queues:
        raise UnsuitableError("has no queue")

    async def insert(key: int) -> None:
        await contender.write(INSERT, f"note {key}", held=held)

    await contender.open(str(note_book(Path(task.scratch))), CONNECTIONS)
    try:
        keys = task.keys(task.users, task.count(TASKS * EACH, least=TASKS))
        return await under_load(insert, keys, workers=TASKS, settle=contender.settle, warm_up=1, tolerate=True)
    finally:
        await contender.close()


workload = Workload(
    title="Inserts of one row",
    cases={"in a transaction": 0.0, "by itself": None},
    measure=measure,
    figures=(
        Figure("rate", "inserts/s", better="higher"),
        Figure("median", "median, ms", 2),
        Figure("p99", "P99, ms", 1),
        Figure("worst", "longest, ms", 1),
        STALL,
        Figure("errors", "errors in a round"),
    ),
    reference="aiosqlitepool_1",
    threads=True,
    contenders=(
        *("aiosqlitepool_1", "sqlspec_pool", "apsw_aio", "this_pool"),
        *("this_database", "this_database_execute", "this_database_functions"),
    ),
    seconds=1.2,
)
