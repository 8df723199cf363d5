"""What tests of `SQLiteDatabase` do again and again."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiosqlite

from aiosqlitepool import SQLiteDatabase
from aiosqlitepool.events import BusyRetried, PoolEvent

from .worker import Gate

__all__ = [
    "Hold", "add", "first", "held_writer", "insert", "leave_wal", "never_writes", "texts", "texts_now", "until_waiting"
]  # fmt: skip


def add(native: sqlite3.Connection, text: str) -> int | None:
    """A function for `run_write`."""
    return native.execute("INSERT INTO note (text) VALUES (?)", (text,)).lastrowid


def texts(native: sqlite3.Connection) -> list[str]:
    """A function for `run_read`."""
    return [text for (text,) in native.execute("SELECT text FROM note ORDER BY id")]


async def insert(connection: aiosqlite.Connection, text: str) -> None:
    await connection.execute("INSERT INTO note (text) VALUES (?)", (text,))


async def texts_now(connection: aiosqlite.Connection) -> list[str]:
    return [text for (text,) in await connection.execute_fetchall("SELECT text FROM note ORDER BY id")]


async def leave_wal(connection: aiosqlite.Connection) -> None:
    """An `on_connect` for a database whose readers and writers block each other."""
    await connection.execute_fetchall("PRAGMA journal_mode = DELETE")


class Hold(Gate):
    """A function for a worker thread that stays in it until it is let go."""

    let_go = Gate.open

    def __call__(self, native: sqlite3.Connection) -> str:
        self._function()
        return "held"


async def never_writes(db: SQLiteDatabase) -> None:
    """Wait for a block that must not begin."""
    async with db.write():
        raise AssertionError("entered")


@contextlib.asynccontextmanager
async def held_writer(db: SQLiteDatabase) -> AsyncIterator[Callable[[], None]]:
    """Another task has the writer until the yielded function is called, or the block ends."""
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with db.write(label="holder"):
            entered.set()
            await leave.wait()

    task = asyncio.create_task(hold(), name="holder")
    await entered.wait()
    try:
        yield leave.set
    finally:
        leave.set()
        with contextlib.suppress(Exception, asyncio.CancelledError):
            await task


async def until_waiting(db: SQLiteDatabase, count: int) -> None:
    """Wait until so many callers wait for the writer."""
    async with asyncio.timeout(60):
        while db.writer.stats().waiting != count:
            await asyncio.sleep(0)


async def first(pool: Any, kind: type[PoolEvent] = BusyRetried) -> PoolEvent:
    """The next event of this type."""
    told: asyncio.Future[PoolEvent] = asyncio.get_running_loop().create_future()
    detach = pool.events.subscribe(kind, lambda event: told.done() or told.set_result(event))
    try:
        async with asyncio.timeout(60):
            return await told
    finally:
        detach()


def rows(path: Path) -> list[str]:
    """What an outsider sees."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return texts(connection)
