"""The demo's two read workloads, each run once with a new connection per request and once with a pool.

Both runs send the same requests in the same order with the same number of workers, open connections with the same
pragmas, and are measured after the same warm-up.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from heapq import nlargest
from pathlib import Path
from statistics import fmean
from typing import Any

import aiosqlite

from ...bus import Detach
from ...events import AcquireSlow, ConnectionAcquired, PoolEvent
from ...pool.pool import SQLiteConnectionPool
from ...stats import PoolStats
from .data import Size

__all__ = ["PRAGMAS", "Run", "Summary", "Watch", "Workload", "execute", "percentile", "select_users", "user_pages"]

_SEED = 20_240_229
_WARM_UP = 100  # requests before the measurement
_SLOW = 0.001  # seconds from which an acquire emits AcquireSlow
_SLOWEST = 5  # slowest acquires to keep
_SAMPLED = 16  # acquires between two calls of pool.stats()

PRAGMAS = """
PRAGMA synchronous = NORMAL;
PRAGMA foreign_keys = ON;
PRAGMA temp_store = MEMORY;
PRAGMA cache_size = -8000;
PRAGMA mmap_size = 268435456;
"""

_LATEST_POSTS = "SELECT id FROM posts WHERE user_id = ? ORDER BY id DESC LIMIT 5"
_USER_PAGE = (
    "SELECT name, email FROM users WHERE id = ?",
    "SELECT id, title, body, created_at FROM posts WHERE user_id = ? ORDER BY id DESC LIMIT 5",
    "SELECT comments.post_id, users.name, comments.body FROM comments JOIN users ON users.id = comments.user_id "
    f"WHERE comments.post_id IN ({_LATEST_POSTS}) ORDER BY comments.id DESC LIMIT 20",
    f"SELECT post_id, count(*) FROM likes WHERE post_id IN ({_LATEST_POSTS}) GROUP BY post_id",
)
_SELECT_USER = "SELECT id, name, email FROM users WHERE id = ?"

Connect = Callable[[str], AbstractAsyncContextManager[aiosqlite.Connection]]


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of one kind, one per key, sent by `workers` workers, one request at a time each."""

    title: str
    unit: str
    label: str
    workers: int
    keys: Sequence[int]
    serve: Callable[[aiosqlite.Connection, int], Awaitable[None]]


def user_pages(size: Size, requests: int, workers: int) -> Workload:
    """Return a workload like that of a web page: four indexed queries per request."""
    keys = random.Random(_SEED).choices(range(1, size.writers + 1), k=requests)
    return Workload("User pages", "requests", "GET /users/{id}", workers, keys, _serve_user_page)


def select_users(size: Size, selects: int, workers: int) -> Workload:
    """Return the smallest workload: one row by its primary key per request."""
    keys = random.Random(_SEED).choices(range(1, size.users + 1), k=selects)
    return Workload("Lookups", "SELECTs", "SELECT user", workers, keys, _serve_select)


async def _serve_user_page(db: aiosqlite.Connection, user: int) -> None:
    for query in _USER_PAGE:
        await db.execute_fetchall(query, (user,))


async def _serve_select(db: aiosqlite.Connection, user: int) -> None:
    async with db.execute(_SELECT_USER, (user,)) as cursor:
        await cursor.fetchone()


@dataclass(frozen=True, slots=True)
class Summary:
    """The results of a run: requests per second, and latencies of requests in milliseconds."""

    rate: float
    average: float
    median: float
    p90: float
    p99: float


class Watch:
    """A subscriber of one pool that counts its events and records its wait times."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.stats: PoolStats | None = None
        self.slowest: list[AcquireSlow] = []
        self._waits: list[float] = []
        self._pool: SQLiteConnectionPool[Any] | None = None

    def attach(self, pool: SQLiteConnectionPool[Any]) -> Detach:
        """Subscribe to every event of the pool."""
        self._pool = pool
        return pool.events.subscribe(PoolEvent, self._on_event)

    def _on_event(self, event: PoolEvent) -> None:
        self.counts[event.name] += 1
        if isinstance(event, ConnectionAcquired):
            if len(self._waits) % _SAMPLED == 0 and self._pool is not None:
                self.stats = self._pool.stats()
            self._waits.append(event.wait_time)
        elif isinstance(event, AcquireSlow):
            self.slowest = nlargest(_SLOWEST, [*self.slowest, event], key=lambda each: each.wait_time)

    def forget_waits(self) -> None:
        """Discard the recorded waits and levels. Keep the counts of events."""
        self._waits, self.slowest, self.stats = [], [], None

    def p99_wait(self) -> float:
        """Return the 99th percentile of the recorded waits in seconds, 0 without any."""
        return percentile(sorted(self._waits), 99) if self._waits else 0.0


@dataclass(slots=True)
class Run:
    """One run of a workload: with a pool if it has a `watch`, else with a new connection per request."""

    workload: Workload
    watch: Watch | None = None
    latencies: list[float] = field(default_factory=list)
    began: float | None = None
    ended: float | None = None

    @property
    def title(self) -> str:
        """The workload's title, and whether it runs with a pool."""
        return f"{self.workload.title}, {'without' if self.watch is None else 'with'} pool"

    @property
    def under_way(self) -> bool:
        """Whether the measurement has begun and not ended."""
        return self.began is not None and self.ended is None

    @property
    def rate(self) -> float:
        """Requests per second since the measurement began, until now or until its end."""
        if self.began is None:
            return 0.0
        now = time.perf_counter() if self.ended is None else self.ended
        return len(self.latencies) / max(now - self.began, 1e-9)

    def summary(self) -> Summary:
        """Return the results. The run must have served at least one request."""
        took = sorted(1000 * latency for latency in self.latencies)
        return Summary(self.rate, fmean(took), percentile(took, 50), percentile(took, 90), percentile(took, 99))


def percentile(ascending: Sequence[float], percent: int) -> float:
    """Return the smallest value that at least `percent` percent of the values do not exceed (nearest rank)."""
    if not ascending:
        raise ValueError("ascending must not be empty: there is no percentile of no values")
    if not 0 <= percent <= 100:
        raise ValueError(f"percent must be from 0 to 100, not {percent!r}")
    rank = -(-percent * len(ascending) // 100)  # rounded up, in integers to avoid rounding errors
    return ascending[max(rank, 1) - 1]


async def execute(run: Run, path: Path, pool_size: int) -> None:
    """Warm up, then send the run's requests and record their latencies."""
    if run.watch is None:
        await _measure(run, lambda label: _new_connection(path))
        return
    pool = SQLiteConnectionPool(
        partial(_connect, path),
        pool_size,
        acquisition_timeout=None,
        slow_acquire=_SLOW,
        name=f"demo: {run.workload.title}",
        subscribers=[run.watch],
    )
    async with pool:
        await _measure(run, lambda label: pool.connection(label=label))


async def _measure(run: Run, connect: Connect) -> None:
    await _drive(run.workload, run.workload.keys[:_WARM_UP], connect, lambda latency: None)
    if run.watch is not None:
        run.watch.forget_waits()
    run.began = time.perf_counter()
    await _drive(run.workload, run.workload.keys, connect, run.latencies.append)
    run.ended = time.perf_counter()


async def _drive(workload: Workload, keys: Sequence[int], connect: Connect, record: Callable[[float], object]) -> None:
    pending = iter(keys)  # shared: a worker that is free takes the next key

    async def work() -> None:
        for key in pending:
            began = time.perf_counter()
            async with connect(workload.label) as db:
                await workload.serve(db, key)
            record(time.perf_counter() - began)

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(1, workload.workers + 1):
                group.create_task(work(), name=f"worker {number}")
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None  # all workers fail for the same reason: report one


@asynccontextmanager
async def _new_connection(path: Path) -> AsyncIterator[aiosqlite.Connection]:
    db = await _connect(path)
    try:
        yield db
    finally:
        await db.close()


async def _connect(path: Path) -> aiosqlite.Connection:
    db = await aiosqlite.connect(path)
    try:
        await db.executescript(PRAGMAS)  # one call to the worker thread for all pragmas
    except BaseException:
        await db.close()
        raise
    return db
