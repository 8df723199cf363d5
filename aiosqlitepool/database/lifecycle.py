"""A database's life: its two pools are opened, used in one event loop, and closed."""

from __future__ import annotations

import asyncio
from typing import Self

from ..copying import NotCopyable
from ..driver import shielded
from ..errors import PoolClosedError, PoolUsageError
from ..pool.background import begin_later, running_loop
from ..pool.diagnostics import closed_for_good
from ..pool.settings import check_timeout
from .maintenance import Maintenance
from .reader import Reader
from .writer import Writer

__all__ = ["DatabaseLifecycle"]


class DatabaseLifecycle(NotCopyable):
    """Opens and closes the writer, the readers and the maintenance of one database, in order."""

    def __init__(
        self,
        name: str,
        writer: Writer,
        reader: Reader,
        checkpoint_above: int | None,
        wal_ceiling: int | None,
    ) -> None:
        self._name = name
        self._file = writer.pool.file
        self._writer = writer
        self._reader = reader
        self._maintenance = Maintenance(writer, reader.pool, checkpoint_above, wal_ceiling)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._opened = False
        self._closing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open both pools, the writer first because it sets the journal mode. Do nothing if the database is open.

        If that fails, the database is closed, and the error is raised: of SQLite, of `on_connect`, or of a pool. Raises
        `PoolClosedError` after `close()`.
        """
        self._check_loop()
        async with self._opening:
            if self._opened:
                await self._writer.pool.open()  # raises if this is another event loop
            elif self._closing is not None:
                raise self._closed()
            else:
                await self._open()

    async def _open(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            self._file.open_anchor()
            # Acquired, and not opened with the pool: it may wait for another process until `acquisition_timeout`, and
            # then needs the time to open. A shared lease that runs no function emits no event.
            async with self._writer.pool.shared("open", self._writer.pool.opening_timeout):
                pass
            await self._reader.pool.open()
        except BaseException:
            await shielded(self.close())
            raise
        self._maintenance.start()
        self._opened = True

    async def close(self, timeout: float | None = None) -> None:
        """Close both pools, the readers first: the last connection to close checkpoints and removes the WAL.

        `timeout` is in seconds and counts for each pool, as in `SQLiteConnectionPool.close()`. Do nothing if the
        database is closed. Concurrent calls wait for the same close, which continues if a caller is cancelled.
        """
        check_timeout("timeout", timeout)
        self._check_loop()
        if self._closing is None:
            self._opened = False
            # A task of its own: the cancellation of a caller must not stop it half-way.
            self._closing = begin_later(self._close(timeout), name=f"{self._name}:close-database")
        await asyncio.shield(self._closing)

    async def _close(self, timeout: float | None) -> None:
        try:
            await self._reader.pool.close(timeout)
            await self._maintenance.stop()
        finally:
            await self._writer.pool.close(timeout)
            self._file.close_anchor()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await shielded(self.close())

    def _check_open(self) -> None:
        if not self._opened:
            if self._closing is not None:
                raise self._closed()
            raise PoolUsageError(f"database {self._name!r} is not open: use `async with database:` or await open()")

    def _closed(self) -> PoolClosedError:
        return closed_for_good(f"database {self._name!r} is closed")

    def _check_readable(self) -> None:
        self._check_open()
        if self._file.in_memory and self._writer.block_waits_for_caller:
            raise PoolUsageError(
                "an in-memory database has no WAL: inside a write() block, and in tasks that it awaits, read with the "
                f"connection of that block. {'; '.join(map(str, self._writer.pool.holders()))}"
            )

    def _check_loop(self) -> None:
        loop = running_loop(f"database {self._name!r}")
        if self._loop not in (None, loop) and not self._loop.is_closed():
            raise PoolUsageError(
                f"database {self._name!r} belongs to another event loop: close it in that loop, and create one "
                "SQLiteDatabase for each loop"
            )
