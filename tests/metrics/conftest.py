from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import aiosqlite
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from aiosqlitepool import PoolConnectionAcquireTimeoutError, SQLiteConnectionPool, SQLiteDatabase
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber


@pytest.fixture(scope="package")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a real pool and a real database show of all that can happen to them, in the text format."""
    return asyncio.run(scraped_alive(tmp_path_factory.mktemp("live"), CollectorRegistry()))


async def scraped_alive(folder: Path, registry: CollectorRegistry) -> str:
    """The metrics of a pool that could not connect, then did, then let a caller time out, beside a database's."""

    async def connect() -> aiosqlite.Connection:
        return await aiosqlite.connect(folder / "there" / "app.db")

    subscribers = [PrometheusSubscriber(registry, statement_summaries=20, by_label=True)]
    pool = SQLiteConnectionPool(connect, 1, max_waiting=9, name="app.db", subscribers=subscribers)
    async with pool, SQLiteDatabase(folder / "other.db", subscribers=subscribers, inline_reads=True) as database:
        await database.backup(folder / "copy.db")
        with contextlib.suppress(aiosqlite.OperationalError):
            await pool.acquire()
        (folder / "there").mkdir()
        async with pool.connection(label="GET /") as connection:
            await connection.execute_fetchall("SELECT 1")
            with contextlib.suppress(PoolConnectionAcquireTimeoutError):
                await pool.acquire(timeout=0.05)  # no less for those that open a connection
        return generate_latest(registry).decode()
