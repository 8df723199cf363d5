"""What a database needs now and then: its WAL folded in, and its statistics brought up to date.

Done by the writer while nobody writes, in one short trip each.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable

from ..driver import call_to_the_end
from ..errors import PoolError
from ..events import Checkpointed, CheckpointResult
from .file import DatabaseFile
from .writer import Writer

__all__ = ["Care"]

log = logging.getLogger("aiosqlitepool")

# Seconds between two looks at whether there is anything to do.
_INTERVAL = 1.0
# Seconds between two runs of `PRAGMA optimize`, which sqlite.org recommends "every few hours" for a long-lived program.
_OPTIMIZE_EVERY = 4 * 3600.0
# Rows of an index looked at by it, so that it never takes long. Source: sqlite.org/pragma.html#pragma_optimize.
_ANALYSIS_LIMIT = 400


class Care:
    """Looks after one database until it is stopped."""

    def __init__(
        self, writer: Writer, file: DatabaseFile, checkpoint_above: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._writer = writer
        self._pool = writer.pool
        self._file = file
        self._checkpoint_above = checkpoint_above
        self._clock = clock
        self._optimize_at = clock() + _OPTIMIZE_EVERY
        self._task: asyncio.Task[None] | None = None
        # The size at which a checkpoint could do no more: no use trying again before it has changed.
        self._stuck_at: int | None = None

    def start(self) -> None:
        """Look once a second from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"{self._pool.name}:care")

    async def stop(self) -> None:
        """Look no more, and leave the database with its statistics up to date."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
            with contextlib.suppress(PoolError, sqlite3.Error):
                await self._optimize()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL)
            try:
                await self.look()
            except (PoolError, sqlite3.Error) as error:
                log.warning("pool %r: could not look after the database: %s", self._pool.name, error)

    async def look(self) -> None:
        """Do what is due, unless somebody writes or waits to."""
        stats = self._pool.stats()
        if stats.used or stats.waiting:
            return
        wal_bytes = self._file.wal_bytes()
        if wal_bytes > self._checkpoint_above and wal_bytes != self._stuck_at:
            await self.checkpoint()
        if self._clock() >= self._optimize_at:
            self._optimize_at = self._clock() + _OPTIMIZE_EVERY
            await self._optimize()

    async def checkpoint(self) -> Checkpointed:
        """Fold the WAL into the database and cut it to nothing, as far as readers let that happen now."""
        async with self._writer.alone("checkpoint") as connection:
            began = time.monotonic()
            pages, moved = await call_to_the_end(connection, _checkpoint)
            took = time.monotonic() - began
        wal_bytes = self._file.wal_bytes()
        self._stuck_at = wal_bytes if wal_bytes > self._checkpoint_above else None
        result: CheckpointResult = "complete" if moved == pages else "partial"
        event = Checkpointed(self._pool.name, result, pages, moved, took, wal_bytes)
        self._pool.events.emit(event)
        return event

    async def _optimize(self) -> None:
        async with self._writer.alone("optimize") as connection:
            await call_to_the_end(connection, _optimize)


def _checkpoint(native: sqlite3.Connection) -> tuple[int, int]:
    # What can be moved without anybody waiting, then, only if that was all, the cut.
    busy, pages, moved = native.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if not busy and pages == moved:
        native.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return max(pages, 0), max(moved, 0)


def _optimize(native: sqlite3.Connection) -> None:
    native.execute(f"PRAGMA analysis_limit = {_ANALYSIS_LIMIT}").fetchall()
    native.execute("PRAGMA optimize").fetchall()
