"""The demo's two workloads, each run once with a connection of its own for every request and once with a pool.

Both ways send the same requests in the same order through the same number of workers, open connections with the
same pragmas, and are measured after the same warm-up. Knows nothing of how it is shown.
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
_WARM_UP = 100  # requests, before the measured ones
_SLOW = 0.001  # seconds; acquisitions as slow as that are candidates for the slowest
_SLOWEST = 5  # acquisitions remembered
_SAMPLED = 16  # acquisitions from one look at the pool's levels to the next

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

Borrow = Callable[[str], AbstractAsyncContextManager[aiosqlite.Connection]]


@dataclass(frozen=True, slots=True)
class Workload:
    """A number of like requests, one per key, sent by `workers` workers that each wait for their answer."""

    title: str
    unit: str
    label: str
    workers: int
    keys: Sequence[int]
    serve: Callable[[aiosqlite.Connection, int], Awaitable[None]]


def user_pages(size: Size, requests: int, workers: int) -> Workload:
    """What a web server does for the page of a user who writes: four indexed queries per request."""
    keys = random.Random(_SEED).choices(range(1, size.writers + 1), k=requests)
    return Workload("User pages", "requests", "GET /users/{}", workers, keys, _serve_user_page)


def select_users(size: Size, selects: int, workers: int) -> Workload:
    """The least that can be asked of a database: one row by its primary key."""
    keys = random.Random(_SEED).choices(range(1, size.users + 1), k=selects)
    return Workload("Lookups", "SELECTs", "SELECT user {}", workers, keys, _serve_select)


async def _serve_user_page(db: aiosqlite.Connection, user: int) -> None:
    for query in _USER_PAGE:
        await db.execute_fetchall(query, (user,))


async def _serve_select(db: aiosqlite.Connection, user: int) -> None:
    async with db.execute(_SELECT_USER, (user,)) as cursor:
        await cursor.fetchone()


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run comes to: requests per second, and the latency of a request in milliseconds."""

    rate: float
    average: float
    median: float
    p90: float
    p99: float


class Watch:
    """A pool's subscriber that counts all its events and remembers its waits."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.stats: PoolStats | None = None
        self.slowest: list[AcquireSlow] = []
        self._waits: list[float] = []
        self._pool: SQLiteConnectionPool[Any] | None = None

    def attach(self, pool: SQLiteConnectionPool[Any]) -> Detach:
        """Subscribe to every event of the pool."""
        self._pool = pool
        return pool.events.subscribe(PoolEvent, self._note)

    def _note(self, event: PoolEvent) -> None:
        self.counts[event.name] += 1
        if isinstance(event, ConnectionAcquired):
            if len(self._waits) % _SAMPLED == 0 and self._pool is not None:
                self.stats = self._pool.stats()
            self._waits.append(event.wait_time)
        elif isinstance(event, AcquireSlow):
            self.slowest = nlargest(_SLOWEST, [*self.slowest, event], key=lambda each: each.wait_time)

    def forget_waits(self) -> None:
        """Begin anew with waits and levels, but not with the counts of events."""
        self._waits, self.slowest, self.stats = [], [], None

    def p99_wait(self) -> float:
        """The 99th percentile of all waits so far, in seconds; 0 if there was none."""
        return percentile(sorted(self._waits), 99) if self._waits else 0.0


@dataclass(slots=True)
class Run:
    """One workload on its way, without a pool if nobody watches one."""

    workload: Workload
    watch: Watch | None = None
    latencies: list[float] = field(default_factory=list)
    began: float | None = None
    ended: float | None = None

    @property
    def title(self) -> str:
        """What runs, and how."""
        return f"{self.workload.title}, {'without' if self.watch is None else 'with'} pool"

    @property
    def under_way(self) -> bool:
        """Whether it is being measured now."""
        return self.began is not None and self.ended is None

    @property
    def rate(self) -> float:
        """Requests per second so far, or in all once it has ended."""
        if self.began is None:
            return 0.0
        now = time.perf_counter() if self.ended is None else self.ended
        return len(self.latencies) / max(now - self.began, 1e-9)

    def summary(self) -> Summary:
        """What it comes to; only of a run that served something."""
        took = sorted(1000 * latency for latency in self.latencies)
        return Summary(self.rate, fmean(took), percentile(took, 50), percentile(took, 90), percentile(took, 99))


def percentile(ascending: Sequence[float], percent: int) -> float:
    """The smallest of the values that at least `percent` percent of them do not exceed (nearest rank)."""
    if not ascending:
        raise ValueError("there is no percentile of no values")
    if not 0 <= percent <= 100:
        raise ValueError(f"percent must be from 0 to 100, not {percent!r}")
    rank = -(-percent * len(ascending) // 100)  # rounded up, and in integers: 0.9 * 10 may exceed 9
    return ascending[max(rank, 1) - 1]


async def execute(run: Run, path: Path, pool_size: int) -> None:
    """Warm up, then send the run's requests and note how long each took."""
    if run.watch is None:
        await _measure(run, lambda label: _connection_of_its_own(path))
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


async def _measure(run: Run, borrow: Borrow) -> None:
    await _drive(run.workload, run.workload.keys[:_WARM_UP], borrow, lambda latency: None)
    if run.watch is not None:
        run.watch.forget_waits()
    run.began = time.perf_counter()
    await _drive(run.workload, run.workload.keys, borrow, run.latencies.append)
    run.ended = time.perf_counter()


async def _drive(workload: Workload, keys: Sequence[int], borrow: Borrow, note: Callable[[float], object]) -> None:
    pending = iter(keys)  # one for all workers: whoever is free takes the next

    async def work() -> None:
        for key in pending:
            began = time.perf_counter()
            async with borrow(workload.label.format(key)) as db:
                await workload.serve(db, key)
            note(time.perf_counter() - began)

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(1, workload.workers + 1):
                group.create_task(work(), name=f"worker {number}")
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None  # what stops one worker stops them all: once told is enough


@asynccontextmanager
async def _connection_of_its_own(path: Path) -> AsyncIterator[aiosqlite.Connection]:
    db = await _connect(path)
    try:
        yield db
    finally:
        await db.close()


async def _connect(path: Path) -> aiosqlite.Connection:
    db = await aiosqlite.connect(path)
    try:
        await db.executescript(PRAGMAS)  # all in one trip, which is kind to connections that serve one request
    except BaseException:
        await db.close()
        raise
    return db
