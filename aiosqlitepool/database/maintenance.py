"""What a database needs now and then: its WAL folded in, and its statistics brought up to date.

Done by the writer while nobody writes, in one short trip each.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sqlite3
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ..driver import call_to_the_end
from ..events import Checkpointed, CheckpointResult
from ..log import log
from .file import DatabaseFile
from .writer import Writer

__all__ = ["Care"]

# Seconds between two looks at whether there is anything to do.
_INTERVAL: Final = 1.0
# Seconds until the next attempt at a WAL that a reader kept from being cut.
_CHECKPOINT_AGAIN: Final = 30.0
# Seconds between two runs of `PRAGMA optimize`, which sqlite.org recommends "every few hours" for a long-lived program.
_OPTIMIZE_EVERY: Final = 4 * 3600.0
# Rows of an index looked at by it, so that it never takes long; and what it looks at: every table (0x10000), for the
# queries are made by other connections. Source: sqlite.org/pragma.html#pragma_optimize.
_ANALYSIS_LIMIT: Final = 400
_WHAT_TO_OPTIMIZE: Final = 0x10002


class Care:
    """Looks after one database until it is stopped, or forgotten."""

    def __init__(
        self, writer: Writer, file: DatabaseFile, checkpoint_above: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._writer = writer
        self._pool = writer.pool
        self._file = file
        self._checkpoint_above = checkpoint_above
        self._clock = clock
        self._checkpoint_at = clock()
        self._optimize_at = clock() + _OPTIMIZE_EVERY
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look once a second from now on."""
        looking = _look_after(weakref.ref(self))
        self._task = asyncio.get_running_loop().create_task(
            looking, name=f"{self._pool.name}:care", context=contextvars.Context()
        )
        self._task._log_destroy_pending = False  # type: ignore[attr-defined]  # see Tasks.spawn

    async def stop(self) -> None:
        """Look no more, and leave the database with its statistics up to date, if nobody is in the way."""
        task, self._task = self._task, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait({task})
            if not self._busy:
                await self._quietly(self._optimize)

    @property
    def _busy(self) -> bool:
        stats = self._pool.stats()
        return stats.used + stats.waiting > 0

    async def look(self) -> None:
        """Do what is due, unless somebody writes or waits to."""
        if self._busy:
            return
        now = self._clock()
        if now >= self._checkpoint_at and self._file.wal_bytes() > self._checkpoint_above:
            self._checkpoint_at = now + _CHECKPOINT_AGAIN
            await self._quietly(self.checkpoint)
        if now >= self._optimize_at:
            self._optimize_at = now + _OPTIMIZE_EVERY
            await self._quietly(self._optimize)

    async def _quietly(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except Exception as error:
            log.warning("pool %r: could not look after the database: %s", self._pool.name, error)

    async def checkpoint(self) -> Checkpointed:
        """Fold the WAL into the database and cut it to nothing, as far as readers let that happen now."""
        async with self._writer.alone("checkpoint") as connection:
            began = time.monotonic()
            busy, pages, moved = await call_to_the_end(connection, _checkpoint)
            took = time.monotonic() - began
        wal_bytes = self._file.wal_bytes()
        if wal_bytes <= self._checkpoint_above:
            self._checkpoint_at = self._clock()
        result: CheckpointResult = "partial" if busy or moved < pages else "complete"
        event = Checkpointed(self._pool.name, result, pages, moved, took, wal_bytes)
        self._pool.events.emit(event)
        return event

    async def _optimize(self) -> None:
        async with self._writer.alone("optimize") as connection:
            await call_to_the_end(connection, _optimize)


async def _look_after(care: weakref.ref[Care]) -> None:
    # Held only while it looks: a program that forgets a database must be able to lose it.
    while True:
        await asyncio.sleep(_INTERVAL)
        if (looking := care()) is None:
            return
        await looking.look()
        del looking


def _checkpoint(native: sqlite3.Connection) -> tuple[int, int, int]:
    # What can be moved without anybody waiting; then, only if that was all, the cut.
    busy, pages, moved = _row(native, "PRAGMA wal_checkpoint(PASSIVE)")
    if not busy and pages == moved:
        _row(native, "PRAGMA wal_checkpoint(TRUNCATE)")
    return busy, max(pages, 0), max(moved, 0)


def _optimize(native: sqlite3.Connection) -> None:
    _row(native, f"PRAGMA analysis_limit = {_ANALYSIS_LIMIT}")
    _row(native, f"PRAGMA optimize = {_WHAT_TO_OPTIMIZE:#x}")


def _row(native: sqlite3.Connection, statement: str) -> Any:
    cursor = native.cursor()
    cursor.row_factory = None  # whatever the program has chosen for its own rows
    with contextlib.closing(cursor):
        return cursor.execute(statement).fetchone()
