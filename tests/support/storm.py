"""A storm: many tasks on few connections, half of them cancelled at random moments, and what must hold afterwards.

It uses nothing of a pool but `connection()`, so that any pool can be put through it. What each task meant to do is
written down by the task itself: `acknowledged` after `commit()` returned, `abandoned` before the first write.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiosqlite

from aiosqlitepool import PoolError, SQLiteConnectionPool

from .slots import check_slots

SCHEMA = """
CREATE TABLE entries (owner INTEGER NOT NULL, half INTEGER NOT NULL, kind TEXT NOT NULL, PRIMARY KEY (owner, half));
CREATE TABLE big (n INTEGER PRIMARY KEY, filling TEXT NOT NULL);
INSERT INTO big (filling)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) SELECT hex(randomblob(20)) FROM n;
"""

# Tens of milliseconds of work that a storm cancels after a few; finite, because inside a transaction it is let run.
LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150000) SELECT count(*) FROM n"
LONG_WRITE = (
    "INSERT INTO entries SELECT ?, i, 'abandoned' FROM "
    "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT i FROM n)"
)


def make_database(path: Path, schema: str = SCHEMA) -> Path:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(schema)
    return path


def factory(path: Path, *, busy_timeout: int = 60_000) -> Callable[[], Any]:
    async def connect() -> aiosqlite.Connection:
        connection = await aiosqlite.connect(path)
        await connection.execute(f"PRAGMA busy_timeout={busy_timeout}")
        await connection.execute("PRAGMA synchronous=OFF")
        return connection

    return connect


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Afterwards there are the same threads and as many open files as before."""
    gc.collect()
    threads, files = set(threading.enumerate()), open_files()
    yield
    gc.collect()
    left = set(threading.enumerate()) - threads
    for thread in left:
        thread.join(30)  # what was told to end may take its time; what was forgotten never ends
    assert not any(thread.is_alive() for thread in left), "threads are left"
    assert open_files() <= files, f"{open_files() - files} file descriptors are left"


async def assert_whole(pool: SQLiteConnectionPool[Any]) -> None:
    """Nothing is taken, nobody waits, and every place of the pool can be lent at once."""
    check_slots(pool._inventory.slots)
    stats = pool.stats()
    assert (stats.used, stats.waiting) == (0, 0), repr(pool)
    assert pool.holders() == ()
    async with contextlib.AsyncExitStack() as stack:  # gives back what it got, also when the factory refuses the rest
        lent = [await stack.enter_async_context(pool.connection()) for _ in range(stats.max_size)]
        assert len({id(connection) for connection in lent}) == stats.max_size
        assert pool.stats().used == stats.max_size
        check_slots(pool._inventory.slots)
    check_slots(pool._inventory.slots)
    assert pool.stats().used == 0, repr(pool)


async def quiet(pool: SQLiteConnectionPool[Any]) -> None:
    """Wait until what cancelled tasks left behind is cleaned up; the deadline is the test's."""
    while pool.stats().used:
        await asyncio.sleep(0.001)


class Storm:
    """What a seed makes of `tasks` tasks; afterwards, what they noted."""

    def __init__(self, seed: int, *, tasks: int = 2000) -> None:
        self.random = random.Random(seed)
        self.size = tasks
        self.acknowledged: set[int] = set()
        self.attempted: set[int] = set()
        self.abandoned: set[int] = set()
        self.complaints: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self._strays: list[asyncio.Task[Any]] = []
        self._timers: list[asyncio.TimerHandle] = []

    async def run(self, pool: Any, *, span: float = 2.0) -> None:
        """Start everything at once; cancel half of it, some while it queues and some while it works."""
        loop, tasks = asyncio.get_running_loop(), []
        for number in range(self.size):
            doomed = self.random.random() < 0.5
            at_work = doomed and self.random.random() < 0.7
            kind = self.random.choices(
                [self.read, self.write, self.abandon, self.overrun, self.overrun_write, self.stray, self.half_read],
                [30, 25, 15, 8, 4, 10, 8],
            )[0]
            task = asyncio.create_task(self._work(pool, number, kind, at_work), name=f"{kind.__name__}-{number}")
            if doomed and not at_work:
                self._timers.append(loop.call_later(self.random.uniform(0, span), task.cancel))
            tasks.append(task)
        for task, result in zip(tasks, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
            self.outcomes["finished" if result is None else type(result).__name__] += 1
            if isinstance(result, AssertionError):
                self.complaints.append(f"{task.get_name()}: {result}")
        for timer in self._timers:
            timer.cancel()
        await asyncio.gather(*self._strays, return_exceptions=True)
        self._strays.clear()

    async def _work(self, pool: Any, number: int, kind: Callable[..., Any], doomed: bool) -> None:
        async with pool.connection() as connection:
            if doomed:
                self._cancel_soon()
            assert not connection.in_transaction, "the last borrower's transaction is open"
            await kind(connection, number)

    def _cancel_soon(self) -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        if self.random.random() < 0.5:
            self._timers.append(loop.call_later(self.random.uniform(0, 0.01), task.cancel))
            return

        def countdown(turns: int) -> None:
            if turns:
                loop.call_soon(countdown, turns - 1)
            else:
                task.cancel()

        countdown(self.random.randrange(40))

    # -- what a task does with its connection

    async def read(self, connection: Any, number: int) -> None:
        rows = await connection.execute_fetchall("SELECT owner FROM entries WHERE kind = 'abandoned' LIMIT 3")
        assert list(rows) == [], f"rows of abandoned writes are visible: {list(rows)}"
        async with connection.execute("SELECT * FROM big LIMIT 300") as cursor:
            async for _ in cursor:
                pass

    async def write(self, connection: Any, number: int) -> None:
        self.attempted.add(number)
        await connection.execute("BEGIN IMMEDIATE")
        await connection.execute("INSERT INTO entries VALUES (?, 1, 'kept')", (number,))
        await connection.execute("INSERT INTO entries VALUES (?, 2, 'kept')", (number,))
        await connection.commit()
        self.acknowledged.add(number)

    async def abandon(self, connection: Any, number: int) -> None:
        self.abandoned.add(number)
        for half in range(self.random.randint(1, 3)):
            await connection.execute("INSERT INTO entries VALUES (?, ?, 'abandoned')", (number, half))
        if self.random.random() < 0.3:
            raise RuntimeError("changed its mind")

    async def overrun(self, connection: Any, number: int) -> None:
        """A long statement is cancelled, the block swallows that and goes on."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.random.uniform(0, 0.006)):
                await connection.execute_fetchall(LONG)
        await self.read(connection, number)
        await self.write(connection, number)

    async def overrun_write(self, connection: Any, number: int) -> None:
        """The same with a long write, of which nothing may stay."""
        self.abandoned.add(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.random.uniform(0, 0.006)):
                await connection.execute(LONG_WRITE, (number,))
        await connection.execute_fetchall("SELECT count(*) FROM big")

    async def stray(self, connection: Any, number: int) -> None:
        """Statements are started and not awaited: they are in flight when the block ends."""
        self.abandoned.add(number)
        statements = [
            ("INSERT INTO entries VALUES (?, 0, 'abandoned')", (number,)),
            (LONG, ()),
            ("INSERT INTO entries VALUES (?, 1, 'abandoned')", (number,)),
        ]
        for sql, parameters in self.random.sample(statements, self.random.randint(1, 3)):
            work = connection.execute_fetchall(sql, parameters)
            self._strays.append(asyncio.create_task(work.__aenter__()))
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)

    async def half_read(self, connection: Any, number: int) -> None:
        cursors = [await connection.execute("SELECT * FROM big ORDER BY n") for _ in range(self.random.randint(1, 3))]
        for cursor in cursors:
            await cursor.fetchmany(self.random.randint(1, 20))
        if self.random.random() < 0.3:
            raise RuntimeError("has seen enough")

    # -- what must hold afterwards

    def findings(self, path: Path) -> list[str]:
        """What is wrong with the database, in words."""
        with contextlib.closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("SELECT owner, group_concat(half), kind FROM entries GROUP BY owner, kind")
            found = {(owner, kind): halves for owner, halves, kind in rows}
            intact = connection.execute("PRAGMA integrity_check").fetchone()[0]
        kept = {owner for owner, kind in found if kind == "kept"}
        findings = list(self.complaints)
        findings += [f"abandoned row visible: {owner}" for owner, kind in found if kind == "abandoned"]
        findings += [f"acknowledged commit missing: {owner}" for owner in sorted(self.acknowledged - kept)]
        findings += [f"half a transaction: {owner}" for owner in kept if found[owner, "kept"] not in ("1,2", "2,1")]
        findings += [f"nobody wrote: {owner}" for owner in sorted(kept - self.attempted)]
        return findings if intact == "ok" else [*findings, f"the database is damaged: {intact}"]


async def lendable(pool: Any, size: int, *, patience: float = 30.0) -> int:
    """How many connections can be lent at once."""
    entered = []
    with contextlib.suppress(TimeoutError, PoolError, Exception):
        for _ in range(size):
            lease = pool.connection()
            async with asyncio.timeout(patience):
                await lease.__aenter__()
            entered.append(lease)
    for lease in entered:
        await lease.__aexit__(None, None, None)
    return len(entered)
