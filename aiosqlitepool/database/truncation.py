"""Keep the WAL small while the database is in use: truncate it after a commit, and hold readers that are in the way.

SQLite can begin a WAL anew only at a moment when no reader needs it. Where reads overlap, that moment never comes by
itself: the WAL grows without limit. So this module makes one: it lets readers end, and new readers wait meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from ..driver import call_to_the_end
from ..errors import ErrorInfo, PoolClosedError
from ..events import (
    CheckpointBlocked,
    Checkpointed,
    CheckpointFailed,
    CheckpointResult,
    ConnectionReleased,
    DatabaseFailed,
)
from ..pool.checkout import Checkout
from .pragmas import row_of
from .reader import ReaderPool
from .writer import Writer, WriterPool

__all__ = ["Truncation", "checkpoint"]

log: Final = logging.getLogger("aiosqlitepool")

# Seconds that new readers wait at most for those that read, and above the ceiling the writer, too.
_PATIENCE: Final = 0.05
# Seconds that new readers wait at most if reads overlap, so that waiting longer helps: those that were in the way have
# ended within this time, and only later ones are in the way.
_MORE_PATIENCE: Final = 0.5
# Seconds that they wait at most when no reader is in the way any more, but the writer copies a long WAL, or is busy.
_COPY_PATIENCE: Final = 0.1
# Seconds between two looks at the readers, and at least between two looks at the size of the WAL after a commit. The
# next look is when the WAL can have grown too large, at so many bytes a second.
_POLL: Final = 0.002
_LOOK_EVERY: Final = 0.001
_FASTEST: Final = 1e9
# Seconds from one copy, which no caller waits for, to the next.
_COPY_EVERY: Final = 0.1
# Bytes above `checkpoint_above` from which a commit empties the WAL, and readers are held if they prevent it. Such a
# commit waits for the disk two or three times, and the writers behind it with it: so it must be rare.
_SLACK: Final = 11_000_000
# The same while readers prevent copies: then the WAL only grows until they are held.
_SLACK_IF_PINNED: Final = 1_000_000
# Seconds from one attempt that failed to the next: doubled from the first up to the last.
_FIRST_PAUSE: Final = 0.1
_LAST_PAUSE: Final = 30.0


class Truncation:
    """Truncates the WAL of one database. `start` is called in the event loop before anything else."""

    def __init__(
        self,
        writer: Writer,
        readers: ReaderPool,
        above: int,
        ceiling: int | None,
        wake: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._writer = writer
        self._readers = readers
        self._file = writer.pool.file
        self._ceiling = math.inf if ceiling is None else ceiling
        self._copy_above = min(above, self._ceiling)
        self._above = min(above + _SLACK, self._ceiling)
        # Whether readers prevented a part of the newest copy.
        self._is_pinned = False
        self._wake = wake
        self._clock = clock
        self._pause = _FIRST_PAUSE
        # Both threads write the following: until when nothing is copied, until when nothing is tried, and whether
        # readers are held. Then each commit tries.
        self._copy_at = -math.inf
        self._next_at = -math.inf
        self._is_holding = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Look at the WAL after each commit from now on."""
        self._loop = asyncio.get_running_loop()
        self._writer.after_commit = self.after_commit

    # -- in the writer's worker thread

    def after_commit(self, native: sqlite3.Connection) -> None:
        """Have a large WAL copied. Truncate one that is still larger, or ask for the readers in the way to be held.

        Above the ceiling, wait for the readers, so that the WAL does not grow meanwhile.
        """
        wal_bytes = self._file.wal_bytes()
        self._writer.look_at = time.monotonic() + max(_LOOK_EVERY, (self._copy_above - wal_bytes) / _FASTEST)
        # Not during a copy: only one connection can make a checkpoint.
        tries = self._is_holding or (not self.is_asked_to_copy and self._clock() >= self._next_at)
        if wal_bytes > self._limit and tries:
            self._empty(native, wal_bytes)
        elif wal_bytes > self._copy_above and self._clock() >= self._copy_at:
            self._copy_at = math.inf  # until the event loop has seen to it
            self._call_in_loop(self._wake)

    def _empty(self, native: sqlite3.Connection, wal_bytes: int) -> None:
        if self._truncate(native):
            return
        asks = not self._is_holding
        if asks:
            self._next_at = math.inf  # until the event loop has seen to it
            self._call_in_loop(self._wake)
        give_up_at = time.monotonic() + _PATIENCE if wal_bytes > self._ceiling else -math.inf
        while (asks or self._is_holding) and time.monotonic() < give_up_at and not self._truncate(native):
            time.sleep(_POLL)

    def _truncate(self, native: sqlite3.Connection) -> bool:
        """Try to truncate the WAL; return whether it is empty now."""
        try:
            event = checkpoint(native, self._writer.pool)
        except sqlite3.Error as error:
            info = ErrorInfo.of(error)
            if info.database_code != "SQLITE_LOCKED":  # the block that committed has a half-read cursor
                self._call_in_loop(self._emit_failed, info)
            return False
        if event.wal_bytes:
            return False
        self._is_holding = False
        self._call_in_loop(self._writer.pool.events.emit, event)
        return True

    def _call_in_loop(self, fn: Callable[..., object], *args: Any) -> None:
        assert self._loop is not None, "started before any commit"
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(fn, *args)

    @property
    def _limit(self) -> float:
        """How many bytes the WAL may have. Safe in any thread."""
        return min(self._above, self._copy_above + _SLACK_IF_PINNED) if self._is_pinned else self._above

    # -- in the event loop

    @property
    def is_asked_to_copy(self) -> bool:
        """Whether a commit has left a large WAL, which is to be copied, or is being copied."""
        return self._copy_at == math.inf

    async def copy(self) -> None:
        """Copy the WAL into the database while the writer goes on, so that little is left to do in its way.

        Uses the connection of a reader, or that of the writer if all readers are in use.
        """
        readers = self._readers.stats()
        pool = self._readers if readers.used < readers.max_size else self._writer.pool
        try:
            async with pool.connection(label="checkpoint") as connection:
                work = partial(checkpoint, pool=self._writer.pool, truncates=False)
                event = await call_to_the_end(connection, work)
            self._is_pinned = event.result == "partial"
            self._writer.pool.events.emit(event)
        except sqlite3.Error as error:  # that the database failed was emitted where this ran
            self._writer.pool.events.emit_new(CheckpointFailed, ErrorInfo.of(error), self._file.wal_bytes())
        except PoolClosedError:  # the last connection to close makes a checkpoint
            pass
        finally:
            self._copy_at = self._clock() + _COPY_EVERY

    def is_due(self) -> bool:
        """Return whether the WAL is large, and it is time to do something about it."""
        if self._clock() < self._next_at < math.inf:  # infinity: a commit has asked
            return False
        self._next_at = -math.inf
        return self._file.wal_bytes() > self._limit

    async def run(self) -> None:
        """Hold new readers until the WAL is truncated; give up after a while, and emit who was in the way."""
        readers = self._readers
        self._next_at = math.inf
        readers.hold()
        try:
            is_empty, in_the_way = await self._truncated_within(_PATIENCE), readers.reading()
            if not is_empty and in_the_way:
                readers.resume()
                if await self._held_again_after(in_the_way):
                    is_empty, in_the_way = await self._truncated_within(_MORE_PATIENCE), readers.reading()
        finally:
            readers.resume()
        # At full multiples of the time of day: processes that use this file hold their readers at the same moment.
        self._next_at = self._clock() + (0.0 if is_empty else self._pause - time.time() % self._pause)
        self._pause = _FIRST_PAUSE if is_empty else min(2 * self._pause, _LAST_PAUSE)
        if not is_empty and (in_the_way or not self._writer.is_busy):
            self._emit_blocked(in_the_way)

    def _emit_failed(self, error: ErrorInfo) -> None:
        events = self._writer.pool.events
        events.emit_new(CheckpointFailed, error, self._file.wal_bytes())
        if error.database_code is not None:
            events.emit_new(DatabaseFailed, error, "checkpoint")

    async def _truncated_within(self, patience: float) -> bool:
        """Wait until the WAL is truncated: by a commit of the writer, or here if the writer is idle."""
        started_at = read_at = time.monotonic()
        self._is_holding = True
        try:
            while self._is_holding:
                now = time.monotonic()
                # Not `used`: readers that hold a connection and read nothing are not in the way.
                is_read = bool(self._readers.reading())
                read_at = now if is_read else read_at
                waited = min(self._readers.stats().oldest_waiter, now - started_at)
                is_last = waited >= patience or now - started_at >= _MORE_PATIENCE or now - read_at >= _COPY_PATIENCE
                if not self._writer.is_busy and (is_last or not is_read):
                    # All that is left to do is to copy. A slow disk must not keep the readers for long.
                    late = asyncio.get_running_loop().call_later(_MORE_PATIENCE, self._readers.resume)
                    try:
                        await self._writer.call("checkpoint", self._truncate)
                    finally:
                        late.cancel()
                elif not is_last:
                    await asyncio.sleep(_POLL)
                if is_last:
                    break
        finally:
            self._is_holding = False
        return self._file.wal_bytes() <= self._limit

    async def _held_again_after(self, in_the_way: list[Checkout[Any]]) -> bool:
        """Wait until these readers have ended, and hold new ones from that very moment on; False if it takes long."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def look(_: object) -> None:
            if not ended.done() and all(reader.slot is None for reader in in_the_way):
                self._readers.hold()
                ended.set_result(None)

        detach = self._readers.events.subscribe(ConnectionReleased, look)
        try:
            look(None)
            await asyncio.wait((ended,), timeout=_MORE_PATIENCE)
        finally:
            detach()
        return ended.done()

    def _emit_blocked(self, in_the_way: list[Checkout[Any]]) -> None:
        wal_bytes, now, pool = self._file.wal_bytes(), time.monotonic(), self._writer.pool
        holders = tuple(each.holder(now) for each in sorted(in_the_way, key=lambda each: each.since))
        if wal_bytes > self._ceiling:
            who = "; ".join(map(str, holders)) or "another process or database object reads"
            log.warning("pool %r: the WAL has %d bytes and cannot be emptied: %s", pool.name, wal_bytes, who)
        pool.events.emit_new(CheckpointBlocked, wal_bytes, holders)


def checkpoint(native: sqlite3.Connection, pool: WriterPool, *, truncates: bool = True) -> Checkpointed:
    """Copy the WAL into the database without waiting for any lock, and truncate it if no reader needs it."""
    started_at = time.monotonic()
    (busy_timeout,) = row_of(native, "PRAGMA busy_timeout")
    row_of(native, "PRAGMA busy_timeout = 0")
    try:
        busy, pages, moved = row_of(native, "PRAGMA wal_checkpoint(PASSIVE)")
        # Only then: TRUNCATE copies pages, too, and locks writers of other processes out meanwhile.
        if truncates and not busy and pages == moved:
            row_of(native, "PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        row_of(native, f"PRAGMA busy_timeout = {busy_timeout}")
    result: CheckpointResult = "partial" if busy or moved < pages else "complete"
    took = time.monotonic() - started_at
    return Checkpointed(pool.name, result, max(pages, 0), max(moved, 0), took, pool.file.wal_bytes())
