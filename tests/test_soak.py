"""A pool at work for a long while, under everything at once: what it uses at the end is what it used at the start.

Twenty seconds by default; `AIOSQLITEPOOL_SOAK_SECONDS=3600` for an hour. The first quarter is warm-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.events import PoolEvent

from .support.measuring import unmeasured
from .support.storm import LONG, assert_whole, factory, make_database, nothing_left_behind, open_files, quiet

SECONDS = float(os.environ.get("AIOSQLITEPOOL_SOAK_SECONDS", "20"))
SIZE, WORKERS = 5, 12

# Threads are counted with every connection of the pool lent and none closing: they must be equal. So must files, but
# for SQLite's own habit: closing a file drops the process's locks on it, so the descriptor of a closed connection is
# kept for the next one as long as another connection holds the file. There are as many as were ever open at once: those
# of the pool and those closing beside them. A leak would be one for each of a thousand connections. Python's own memory
# may grow by the odd cache; a leak of 100 bytes per lease would be a megabyte in 20 seconds. Resident memory also holds
# SQLite's page caches and malloc's arenas, which settle and do not grow with time.
FILES_MARGIN = 2 * SIZE
PYTHON_MARGIN = 256 * 1024
RESIDENT_MARGIN = 16 * 1024 * 1024


@dataclass
class Used:
    threads: int
    files: int
    python: int
    resident: int

    @classmethod
    def now(cls) -> Used:
        for _ in range(3):
            gc.collect()
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[1])
        return cls(
            threads=threading.active_count(),
            files=open_files(),
            python=_traced(),
            resident=pages * os.sysconf("SC_PAGE_SIZE"),
        )


def _traced() -> int:
    # Without what coverage keeps of each thread that ever ran: these tests are also run under it.
    snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, "*/coverage/*")])
    return sum(trace.size for trace in snapshot.traces)


class Soak:
    """Workers that borrow, work and are cancelled until told to stop."""

    def __init__(self, path: Path) -> None:
        self.choose = random.Random(11)
        self.connect = factory(path)
        self.outcomes: Counter[str] = Counter()
        self.events: Counter[str] = Counter()

    def count(self, event: PoolEvent) -> None:
        self.events[event.name] += 1

    async def unreliable(self) -> aiosqlite.Connection:
        luck = self.choose.random()
        if luck < 0.05:
            raise OSError("refused")
        if luck < 0.1:
            await asyncio.sleep(0.01)
        connection: aiosqlite.Connection = await self.connect()
        return connection

    async def work(self, pool: SQLiteConnectionPool[Any]) -> None:
        async with pool.connection() as connection:
            luck = self.choose.random()
            if luck < 0.4:
                await connection.execute_fetchall("SELECT * FROM big WHERE n < 50")
            elif luck < 0.6:
                await connection.execute("UPDATE big SET filling = 'kept' WHERE n = 7")
                await connection.commit()
            elif luck < 0.7:
                await connection.execute("UPDATE big SET filling = 'abandoned' WHERE n = 7")
            elif luck < 0.8:
                cursor = await connection.execute("SELECT * FROM big")
                await cursor.fetchmany(3)
            elif luck < 0.9:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.003):
                        await connection.execute(LONG)
                await connection.execute_fetchall("SELECT 1")
            elif luck < 0.95:
                await connection.execute("SELECT nonsense")
            else:
                await connection.close()  # as nobody should

    async def worker(self, pool: SQLiteConnectionPool[Any], until: float) -> None:
        while time.monotonic() < until:
            task = asyncio.create_task(self.work(pool))
            if self.choose.random() < 0.3:
                await asyncio.wait({task}, timeout=self.choose.uniform(0, 0.01))
                task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            self.outcomes["fine" if outcome is None else type(outcome).__name__] += 1

    async def run(self, pool: SQLiteConnectionPool[Any], seconds: float) -> Used:
        """Work so long; then what is used once all of it has come to rest."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            await asyncio.gather(*(self.worker(pool, min(until, now + 1)) for _ in range(WORKERS)))
            await asyncio.sleep(0.1)  # connections stand idle for too long, and grow too old
        await quiet(pool)
        return await self.at_rest(pool)

    async def at_rest(self, pool: SQLiteConnectionPool[Any]) -> Used:
        """With all connections lent and none closing, a pool has one thread for each."""
        lent: list[aiosqlite.Connection] = []
        while len(lent) < SIZE:
            with contextlib.suppress(OSError):
                lent.append(await pool.acquire())
        while len(pool._inventory.background):
            await asyncio.sleep(0.001)
        used = Used.now()
        for connection in lent:
            await pool.release(connection)
        return used


@pytest.fixture
def without_coverage() -> Iterator[None]:
    """Which keeps something of each thread that ever ran."""
    with unmeasured():
        yield


@pytest.mark.timeout(SECONDS * 4 + 120)
# What a connect opened that was cancelled half-way, aiosqlite drops, and sqlite3 closes; Python 3.13 tells of that, and
# pytest would keep what it is told of, with its open files.
@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
@pytest.mark.usefixtures("without_coverage")
async def test_a_pool_uses_no_more_after_a_long_while_than_after_a_short_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="aiosqlitepool")  # captured records would be the leak
    soak = Soak(make_database(tmp_path / "soak.db"))
    with nothing_left_behind():
        pool = SQLiteConnectionPool(
            soak.unreliable,
            SIZE,
            min_size=1,
            idle_timeout=0.05,
            max_lifetime=0.2,
            health_check_after=0.01,
            leak_threshold=0.5,
            name="soak",
        )
        pool.events.subscribe(PoolEvent, soak.count)
        tracemalloc.start()
        try:
            early = await soak.run(pool, SECONDS / 4)
            late = await soak.run(pool, SECONDS * 3 / 4)
        finally:
            tracemalloc.stop()
        while True:
            with contextlib.suppress(OSError):
                await assert_whole(pool)
                break
            await quiet(pool)
        await pool.close()

    told = f"{early} -> {late}; {dict(soak.outcomes)}; {dict(soak.events)}"
    print(told)
    assert late.threads <= early.threads, told
    assert late.files <= early.files + FILES_MARGIN, told
    assert late.python - early.python < PYTHON_MARGIN, told
    assert late.resident - early.resident < RESIDENT_MARGIN, told
    assert soak.events["create"] == soak.events["close"], told
    assert soak.events["acquire_wait"] == soak.events["release"], told
    # It was a soak and not a stroll.
    for happened in ("create_fail", "acquire_cancel", "rollback_on_return", "idle_replace"):
        assert soak.events[happened] > 0, f"{happened}: {told}"
    assert set(soak.outcomes) <= {"fine", "CancelledError", "OSError", "OperationalError"}, told
