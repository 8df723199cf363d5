"""The demo's write workload: many tasks add orders, through a pool of competing writers and a `SQLiteDatabase`.

An order is one transaction of four statements, the same in all three ways. Each way has a database of its own.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import aiosqlite

from ...database import SQLiteDatabase
from ...pool.pool import SQLiteConnectionPool
from .load import PRAGMAS, Summary, percentile

__all__ = ["BUSY_TIMEOUT", "Writing", "write_orders"]

BUSY_TIMEOUT = 1.0
"""Seconds that a competing writer waits for SQLite's lock. Web requests rarely have more time."""

_SLOW = 0.01  # seconds from which an acquire emits AcquireSlow
_ARTICLES = 100
_TABLES = f"""
PRAGMA journal_mode = WAL;
CREATE TABLE orders (id INTEGER PRIMARY KEY, article INTEGER NOT NULL, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE articles (id INTEGER PRIMARY KEY, sold INTEGER NOT NULL);
WITH RECURSIVE n (id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM n WHERE id + 1 < {_ARTICLES})
INSERT INTO articles SELECT id, 0 FROM n;
"""
_ORDER = "INSERT INTO orders (article) VALUES (?)"
_SELL = "UPDATE articles SET sold = sold + 1 WHERE id = ?"

Add = Callable[[int], Awaitable[object]]


@dataclass(slots=True)
class Writing:
    """The results of writing all orders in one way. `latencies` include failed orders."""

    title: str
    orders: int
    seconds: float = 0.0
    failed: int = 0
    latencies: list[float] = field(default_factory=list)

    def summary(self) -> Summary:
        """Return orders written per second, and the latencies of orders in milliseconds."""
        took = sorted(1000 * latency for latency in self.latencies)
        rate = (self.orders - self.failed) / self.seconds
        return Summary(rate, fmean(took), percentile(took, 50), percentile(took, 90), percentile(took, 99))

    @property
    def longest(self) -> float:
        """The latency of the slowest order, in milliseconds."""
        return 1000 * max(self.latencies)


async def write_orders(orders: int, writers: int) -> AsyncIterator[Writing]:
    """Write `orders` orders with `writers` tasks, in one way after the other. Yield the results of each way."""
    ways: dict[str, Callable[[Path], AbstractAsyncContextManager[Add]]] = {
        f"pool of {writers}": partial(_competing, size=writers),
        "db.write()": _in_blocks,
        "db.run_write()": _in_functions,
    }
    for title, way in ways.items():
        with TemporaryDirectory(prefix="aiosqlitepool-demo-") as folder:
            path = Path(folder, "orders.db")
            _make_tables(path)
            writing = Writing(title, orders)
            async with way(path) as add:
                await _drive(Writing("warm-up", writers), add, writers)  # opens connections and prepares statements
                await _drive(writing, add, writers)
        yield writing


def _make_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(_TABLES)


async def _drive(writing: Writing, add: Add, writers: int) -> None:
    pending = iter(range(writing.orders))  # shared: a writer that is free takes the next order

    async def write() -> None:
        for order in pending:
            began = time.perf_counter()
            try:
                await add(order)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                writing.failed += 1
            writing.latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(write() for _ in range(writers)))
    writing.seconds = time.perf_counter() - began


def _statements(order: int) -> Iterator[tuple[str, Sequence[int]]]:
    article = order % _ARTICLES
    yield _ORDER, (article,)
    for also in range(3):
        yield _SELL, ((article + 7 * also) % _ARTICLES,)


# -- three ways to write


@asynccontextmanager
async def _competing(path: Path, size: int) -> AsyncIterator[Add]:
    """One connection per writer. Writers wait in SQLite's busy handler."""

    async def connect() -> aiosqlite.Connection:
        db = await aiosqlite.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
        await db.executescript(PRAGMAS)
        return db

    async def add(order: int) -> None:
        async with pool.connection(label="add an order") as db:
            await db.execute("BEGIN IMMEDIATE")
            for statement, values in _statements(order):
                await db.execute(statement, values)
            await db.commit()

    async with SQLiteConnectionPool(
        connect, size, acquisition_timeout=None, slow_acquire=_SLOW, name="demo: orders"
    ) as pool:
        yield add


@asynccontextmanager
async def _in_blocks(path: Path) -> AsyncIterator[Add]:
    """Writers queue for one connection. Each statement is a call to its worker thread."""

    async def add(order: int) -> None:
        async with database.write(label="add an order") as db:
            for statement, values in _statements(order):
                await db.execute(statement, values)

    async with SQLiteDatabase(path, name="demo: orders", acquisition_timeout=None, slow_acquire=_SLOW) as database:
        yield add


@asynccontextmanager
async def _in_functions(path: Path) -> AsyncIterator[Add]:
    """Writers queue for one connection. Each transaction is one call to its worker thread."""

    def write(db: sqlite3.Connection, order: int) -> None:
        for statement, values in _statements(order):
            db.execute(statement, values)

    async def add(order: int) -> None:
        await database.run_write(write, order, label="add an order")

    async with SQLiteDatabase(path, name="demo: orders", acquisition_timeout=None, slow_acquire=_SLOW) as database:
        yield add
