"""Four processes of five writers each, all for the same database, as with `--workers 4`: each writes rows one by one
for 1.5 s, as fast as it can, and holds each transaction for 5 ms, or does not.

Beside that one process of twenty writers, whose waits are the least that twenty can have. A wait goes from asking to
having committed, without what was held. The processes begin at the same time. SQLite's busy handler gives up after
5 s, which is an error.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from ..contenders import Contender
from ..inside.load import percentile
from ..inside.members import hand_over, run_members, wait_for_start
from ..inside.stall import Stall
from ..inside.task import Measured, Task
from . import STALL, Figure, Workload
from .writers import HELD, INSERT, note_book

SECONDS = 1.5


class Case(NamedTuple):
    """How many processes of how many writers, and for how many seconds each holds its transaction."""

    processes: int
    writers: int
    held: float


@dataclass(slots=True)
class Written:
    """What one process came to, with times in seconds."""

    waits: list[float]
    errors: int
    seconds: float
    stall: float


async def measure(contender: Contender, case: Case, task: Task) -> Measured:
    if task.member:
        hand_over(task, asdict(await _write_on(contender, case, task)))
        return Measured({})
    note_book(Path(task.scratch))
    written = [Written(**each) for each in await run_members(task, case.processes)]
    commits = [len(each.waits) for each in written]
    waits = sorted(wait for each in written for wait in each.waits)
    return Measured(
        {
            "rate": sum(commits) / max(each.seconds for each in written),
            "least": min(commits),
            "most": max(commits),
            "share": min(commits) / (sum(commits) / len(commits)),
            "median": 1000 * percentile(waits, 50),
            "p90": 1000 * percentile(waits, 90),
            "p99": 1000 * percentile(waits, 99),
            "worst": 1000 * waits[-1],
            "stall": 1000 * max(each.stall for each in written),
            "errors": sum(each.errors for each in written),
        },
        waits,
    )


async def _write_on(contender: Contender, case: Case, task: Task) -> Written:
    await contender.open(str(Path(task.scratch) / "notes.db"), case.writers)
    try:
        await contender.write(INSERT, "the first, which opens a connection")
        begins = await wait_for_start(task)
        written = Written([], 0, 0.0, 0.0)
        with Stall() as stall:
            async with asyncio.TaskGroup() as group:
                for _ in range(case.writers):
                    group.create_task(_writer(contender, case.held, begins + task.effort * SECONDS, written))
        written.seconds, written.stall = time.monotonic() - begins, stall.longest
        return written
    finally:
        await contender.close()


async def _writer(contender: Contender, held: float, ends: float, written: Written) -> None:
    began = time.monotonic()
    while True:
        try:
            await contender.write(INSERT, "one of many", held=held)
        except Exception:
            written.errors += 1
        else:
            written.waits.append(max(0.0, time.monotonic() - began - held))
        if (began := time.monotonic()) >= ends:
            return


workload = Workload(
    title="Writers in several processes",
    cases={
        "4 processes of 5, holding 5 ms": Case(4, 5, HELD),
        "1 process of 20, holding 5 ms": Case(1, 20, HELD),
        "4 processes of 5, holding nothing": Case(4, 5, 0.0),
    },
    measure=measure,
    figures=(
        Figure("rate", "commits/s in all", better="higher"),
        Figure("least", "least commits of a process", better="higher"),
        Figure("most", "most commits of a process"),
        Figure("share", "least, of a fair share", 2, better="higher"),
        Figure("median", "median wait, ms", 1),
        Figure("p99", "P99 wait, ms", 1),
        Figure("worst", "longest wait, ms"),
        STALL,
        Figure("errors", "errors in a round"),
    ),
    reference="this_database_alone",
    threads=True,
    contenders=("plain_sqlite3", "aiosqlitepool_1", "this_database", "this_database_alone"),
    seconds=2.3,
)
