"""A real `SQLiteDatabase` to which everything happens that a board can show of one. Part of the driver."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosqlite

from aiosqlitepool import PoolError, SQLiteDatabase

INSERT = "INSERT INTO item (text) VALUES ('one more')"
NEWEST = "SELECT id, text FROM item ORDER BY id DESC LIMIT 20"
# Slow as a scan of many rows.
SEARCH = "SELECT nap(0.12) FROM item WHERE text = 'one more' LIMIT 1"


def insert(native: sqlite3.Connection, pause: float) -> None:
    """A transaction that takes about so long."""
    native.execute(INSERT)
    time.sleep(pause)


def count(native: sqlite3.Connection, pause: float = 0) -> None:
    """A look that takes about so long."""
    native.execute("SELECT count(*) FROM item").fetchone()
    time.sleep(pause)


async def add_nap(connection: aiosqlite.Connection) -> None:
    """Let SQL sleep."""
    await connection.create_function("nap", 1, time.sleep)


class Orders:
    """A database, with traffic as the driver says, and with incidents."""

    def __init__(self, directory: Path, observer: Any, traffic: Callable[[], float]) -> None:
        self._path = directory / "orders.db"
        self._traffic = traffic
        self._choose = random.Random(7)
        self._database = SQLiteDatabase(
            self._path, readers=3, name="orders.db", on_connect=add_nap, subscribers=[observer], inline_reads=True
        )

    async def live(self) -> None:
        """Serve for ever."""
        async with self._database as database:
            async with database.write() as connection:
                await connection.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, text)")
            async with asyncio.TaskGroup() as group:
                for _ in range(10):
                    group.create_task(self._visitor())
                group.create_task(self._searcher())

    async def _visitor(self) -> None:
        run_read, run_write = self._database.run_read, self._database.run_write
        while True:
            await asyncio.sleep(self._choose.expovariate(2.0) / self._traffic())
            for _ in range(4):
                await run_read(count, 0.006 * self._choose.lognormvariate(0, 0.8), label="GET /items/count")
            await self._database.fetch_all(NEWEST, label="GET /items")
            await run_write(insert, 0.004 * self._choose.lognormvariate(0, 0.6), label="POST /items")

    async def _searcher(self) -> None:
        while True:
            await asyncio.sleep(self._choose.expovariate(0.3) / self._traffic())
            await self._database.fetch_all(SEARCH, label="GET /items/search")

    async def incident(self) -> None:
        """Everything that goes wrong, one after the other."""
        for trouble in (
            self._give_up, self._commit_twice, self._be_locked_out, self._be_overtaken, self._be_pinned, self._back_up
        ):  # fmt: skip
            with contextlib.suppress(PoolError, sqlite3.Error, OSError, ZeroDivisionError):
                await trouble()

    async def _give_up(self) -> None:
        async with self._database.write():
            raise ZeroDivisionError

    async def _commit_twice(self) -> None:
        await self._database.run_write(lambda native: native.execute("COMMIT").close())

    async def _be_locked_out(self) -> None:
        with contextlib.closing(sqlite3.connect(self._path, isolation_level=None)) as another:
            another.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(0.3)

    async def _be_overtaken(self) -> None:
        """A function that reads, and writes after somebody else has."""
        overtaken = False

        def write_after_all(native: sqlite3.Connection) -> None:
            nonlocal overtaken
            if overtaken:
                return
            native.execute("PRAGMA query_only = OFF")
            count(native)
            with contextlib.closing(sqlite3.connect(self._path, isolation_level=None)) as another:
                another.execute(INSERT)
            overtaken = True
            try:
                native.execute(INSERT)
            finally:
                native.execute("PRAGMA query_only = ON")

        await self._database.run_read(write_after_all)

    async def _be_pinned(self) -> None:
        async with self._database.read(snapshot=True):
            await self._database.run_write(insert, 0)
            await self._database.checkpoint()
            # So much that new readers are held, and the one that stays is named.
            await self._database.execute("INSERT INTO item (text) VALUES (zeroblob(16000000))")
            await asyncio.sleep(1)
        await self._database.execute("DELETE FROM item WHERE length(text) > 1000000")
        await self._database.checkpoint()

    async def _back_up(self) -> None:
        """A backup, one that is cancelled, and one that has nowhere to go."""
        target = self._path.with_name("orders-backup.db")
        await self._database.backup(target)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await self._database.backup(target)
        await self._database.backup(self._path / "nowhere.db")
