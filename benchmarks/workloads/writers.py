"""Writers: each transaction inserts one row and stays open for 5 ms, like one that computes before it commits.

With a connection for each task they collide in SQLite, whose busy handler polls instead of queueing; after 5 seconds
it raises. With one connection they queue in the pool, in FIFO order. A database has one writer: `write()` acquires it
for a transaction, `run_write()` runs the transaction in its thread.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from ..contenders import Contender
from ..inside.load import under_load
from ..inside.task import Measured, Task, UnsuitableError
from . import STALL, Figure, Workload

HELD = 0.005
INSERT = "INSERT INTO note (text) VALUES (?)"


async def measure(contender: Contender, case: tuple[int, int], task: Task) -> Measured:
    tasks, size = case
    if size > contender.most or (size < tasks and not contender.queues):
        raise UnsuitableError("has one connection" if size > contender.most else "has no queue")

    async def write(key: int) -> None:
        await contender.write(INSERT, f"note {key}", held=HELD)

    path = note_book(Path(task.scratch))
    await contender.open(str(path), size)
    try:
        keys = task.keys(task.users, task.count(200, least=tasks))
        measured = await under_load(write, keys, workers=tasks, settle=contender.settle, warm_up=1, tolerate=True)
    finally:
        await contender.close()
    measured.figures["lost"] = _written_twice_or_never(path, len(keys) + len(keys[:tasks]), measured)
    return measured


def note_book(folder: Path) -> Path:
    """A new database of one empty table."""
    path = folder / "notes.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    return path


def _written_twice_or_never(path: Path, sent: int, measured: Measured) -> float:
    """How many rows there are too few or too many, if every request was answered as it should."""
    with closing(sqlite3.connect(path)) as db:
        (rows,) = db.execute("SELECT count(*) FROM note").fetchone()
    return 0.0 if measured.figures["errors"] else float(abs(sent - rows))


workload = Workload(
    title="Writers that hold a transaction for 5 ms",
    cases={
        "8, each its own": (8, 8),
        "20, each its own": (20, 20),
        "8, one connection": (8, 1),
        "20, one connection": (20, 1),
    },
    measure=measure,
    figures=(
        Figure("rate", "transactions/s", better="higher"),
        Figure("p99", "P99, ms", 1),
        Figure("worst", "longest, ms", 1),
        STALL,
        Figure("errors", "errors in a round"),
    ),
    contenders=(
        *("plain_sqlite3", "floor", "open_close", "aiosqlitepool_1", "asqlite_pool", "sqlalchemy_engine"),
        *("sqlspec_pool", "this_pool", "this_database", "this_database_functions"),
    ),
    seconds=1.7,
)
