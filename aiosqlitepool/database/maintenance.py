"""Background maintenance: checkpoint the WAL, and update the statistics of SQLite's query planner.

Runs while the writer is idle. Each step is one short call to the writer's worker thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
import sqlite3
import time
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from ..driver import is_busy
from ..events import Checkpointed, CheckpointFailed, ErrorInfo
from ..pool.background import begin_later
from .pragmas import row_of
from .reader import ReaderPool
from .truncation import Truncation, checkpoint
from .writer import Writer

__all__ = ["Maintenance"]

log: Final = logging.getLogger("aiosqlitepool")

# Seconds between two checks for due work.
_INTERVAL: Final = 1.0
# Seconds from one automatic checkpoint to the next, if a reader prevented the first from emptying the WAL.
_CHECKPOINT_AGAIN: Final = 30.0
# Seconds between two runs of `PRAGMA optimize`. sqlite.org recommends "every few hours" for long-lived connections.
_OPTIMIZE_EVERY: Final = 4 * 3600.0
# The most rows of each index that `PRAGMA optimize` reads, which bounds its duration.
_ANALYSIS_LIMIT: Final = 400
# 0x10000: consider all tables, not only those that this connection has queried: the queries run on the readers.
# 0x02: run ANALYZE where it helps. Source: sqlite.org/pragma.html#pragma_optimize.
_OPTIMIZE_MASK: Final = 0x10002


class Maintenance:
    """Maintains one database in a background task, until `stop()` or until the database is garbage collected."""

    def __init__(
        self,
        writer: Writer,
        readers: ReaderPool,
        checkpoint_above: int | None,
        wal_ceiling: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._pool = writer.pool
        self._file = writer.pool.file
        self._checkpoint_above = math.inf if checkpoint_above is None else checkpoint_above
        self._clock = clock
        self._checkpoint_at = clock()
        self._optimize_at = clock() + _OPTIMIZE_EVERY
        self._task: asyncio.Task[None] | None = None
        # Ends the wait for the next check.
        self._woken = asyncio.Event()
        self._truncation: Truncation | None = None
        if checkpoint_above is not None and not self._file.in_memory:
            self._truncation = Truncation(writer, readers, checkpoint_above, wal_ceiling, self._woken.set, clock)

    def start(self) -> None:
        """Start the task that calls `run_due` once a second, and when the WAL has grown."""
        if self._truncation is not None:
            self._truncation.start()
        self._task = begin_later(
            _run_repeatedly(weakref.ref(self), self._woken),
            name=f"{self._pool.name}:maintenance",
            context=contextvars.Context(),
        )

    async def stop(self) -> None:
        """Stop the task, then run `PRAGMA optimize` if the writer is idle."""
        task, self._task = self._task, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait({task})
            if not self._writer.is_busy:
                await self._run_logged(self._optimize)

    async def run_due(self) -> None:
        """Checkpoint and optimize if either is due and the writer is idle. Truncate a WAL that grows all the same."""
        truncation = self._truncation
        if truncation is not None and truncation.is_asked_to_copy:
            await self._run_logged(truncation.copy)
        elif not self._writer.is_busy:
            await self._run_idle()
        if truncation is not None and truncation.is_due():
            await self._run_logged(truncation.run)

    async def _run_idle(self) -> None:
        now = self._clock()
        if now >= self._checkpoint_at and self._file.wal_bytes() > self._checkpoint_above:
            self._checkpoint_at = now + _CHECKPOINT_AGAIN
            await self._run_logged(self.checkpoint)
        if now >= self._optimize_at:
            self._optimize_at = now + _OPTIMIZE_EVERY
            await self._run_logged(self._optimize)

    async def _run_logged(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except Exception as error:
            log.warning("pool %r: maintenance failed: %s", self._pool.name, error)

    async def checkpoint(self) -> Checkpointed:
        """Copy the WAL into the database and truncate it, as far as current readers allow. Return the emitted event."""
        try:
            event = await self._writer.call("checkpoint", partial(checkpoint, pool=self._pool))
        except sqlite3.Error as error:
            self._pool.events.emit_new(CheckpointFailed, ErrorInfo.of(error), self._file.wal_bytes())
            raise
        if event.wal_bytes <= self._checkpoint_above:
            self._checkpoint_at = self._clock()
        self._pool.events.emit(event)
        return event

    async def _optimize(self) -> None:
        try:
            await self._writer.call("optimize", _optimize)
        except sqlite3.Error as error:
            if not is_busy(error):
                raise
            self._optimize_at = self._clock()  # another process writes: at the next look


async def _run_repeatedly(reference: weakref.ref[Maintenance], woken: asyncio.Event) -> None:
    # Holds a strong reference only while work is due: the garbage collector can collect a database that is still open.
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_INTERVAL):
                await woken.wait()
        if (maintenance := reference()) is None:
            return
        # Before the work: what is asked for meanwhile is done right afterwards.
        woken.clear()
        await maintenance.run_due()
        del maintenance


def _optimize(native: sqlite3.Connection) -> None:
    row_of(native, f"PRAGMA analysis_limit = {_ANALYSIS_LIMIT}")
    row_of(native, f"PRAGMA optimize = {_OPTIMIZE_MASK:#x}")
