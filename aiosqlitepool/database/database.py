"""`SQLiteDatabase`: over one file, a pool of the one connection that writes and a pool of those that read."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, TypeVar, TypeVarTuple

import aiosqlite

from ..errors import PoolClosedError, PoolUsageError
from ..events import Checkpointed
from ..pool.pool import SQLiteConnectionPool, Subscriber, checked_subscribers
from ..pool.settings import MOST_CONNECTIONS, check_count, check_name, check_seconds
from .backup import Progress, back_up
from .file import DatabaseFile, OnConnect
from .functions import bound, label_of
from .maintenance import Care
from .pragmas import PragmaValue, checked_pragmas
from .reader import Reader, ReaderPool
from .writer import Writer, WriterPool

__all__ = ["SQLiteDatabase"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class SQLiteDatabase:
    """One SQLite database for one event loop: writers queue for one connection, readers have their own.

    Open it with `async with` or `open()`. Every argument is checked at once: `TypeError` or `ValueError` names it and
    its value. All times are seconds, ints or floats.

    Args:
        path: the file, or ":memory:" for a database that all connections share and that ends when this is closed.
        readers: connections that read, at most.
        name: its pools are named `<name>/write` and `<name>/read`; the file's name if not given.
        pragmas: set for each connection beside, or instead of, those of its role; a misspelt one is a `ValueError`.
        acquisition_timeout: how long a caller may wait, for its turn and for other processes together; `None` for ever.
        operation_timeout: how long one check, reset or close of a connection may take.
        max_waiting: how many callers may queue for either pool; further ones get `PoolFullError`.
        slow_acquire: as for `SQLiteConnectionPool`, for both pools.
        reader_warn_after: a connection that reads for longer is told of as `LeakSuspected`; `None` never.
        reader_max_age: a block or function that reads for longer is ended with `TimeoutError`; `None` never.
        checkpoint_above: bytes of the WAL from which it is folded into the database while nobody writes.
        on_connect: awaited with each new `aiosqlite.Connection`: row factories, functions.
        subscribers: attached to both pools, as by their `subscribe()`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        readers: int = 4,
        name: str | None = None,
        pragmas: Mapping[str, PragmaValue] | None = None,
        acquisition_timeout: float | None = 30,
        operation_timeout: float = 10,
        max_waiting: int | None = None,
        slow_acquire: float | None = 0.05,
        reader_warn_after: float | None = 30,
        reader_max_age: float | None = None,
        checkpoint_above: int = 4_000_000,
        on_connect: OnConnect | None = None,
        subscribers: Iterable[Subscriber] = (),
    ) -> None:
        check_count("readers", readers, least=1, most=MOST_CONNECTIONS)
        check_count("checkpoint_above", checkpoint_above, least=0)
        patience = check_seconds("acquisition_timeout", acquisition_timeout)
        max_age = check_seconds("reader_max_age", reader_max_age, positive=True)
        warn_after = check_seconds("reader_warn_after", reader_warn_after, positive=True)
        if on_connect is not None and not callable(on_connect):
            raise TypeError(f"on_connect must be callable or None, not {on_connect!r} ({type(on_connect).__name__})")
        self._file = DatabaseFile(path, checked_pragmas(pragmas), on_connect)
        self._name = self._file.name if name is None else check_name(name)
        common: dict[str, Any] = {
            "acquisition_timeout": patience,
            "operation_timeout": operation_timeout,
            "max_waiting": max_waiting,
            "slow_acquire": slow_acquire,
            "subscribers": checked_subscribers(subscribers),
        }
        self._writer = Writer(WriterPool(self._file, name=f"{self._name}/write", **common), patience)
        self._reader = Reader(
            ReaderPool(
                self._file.factory("read"),
                pool_size=readers,
                leak_threshold=warn_after,
                name=f"{self._name}/read",
                **common,
            ),
            patience,
            max_age,
        )
        self._care = Care(self._writer, self._file, checkpoint_above)
        self._patience = patience
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._opened = False
        self._closing: asyncio.Task[None] | None = None

    # -- reading and writing

    def read(
        self, *, snapshot: bool = False, label: str | None = None
    ) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        """Borrow a connection that cannot write, for an `async with` block.

        Each statement sees what is committed when it begins; with `snapshot`, all of the block sees one moment, which
        keeps the WAL from being folded in for as long. Raises what entering `SQLiteConnectionPool.connection()` does.
        """
        self._check_readable()
        return self._reader.block(label, snapshot=snapshot)

    def write(self, *, label: str | None = None) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        """Borrow the connection that writes, for an `async with` block that is a transaction.

        Callers are served in order. Leaving the block commits; an exception or a cancellation rolls back. A block
        within a block of the same task is a savepoint of its own. Raises what entering
        `SQLiteConnectionPool.connection()` does, and `sqlite3.OperationalError` when another process held the database
        for the whole `acquisition_timeout`.
        """
        self._check_open()
        return self._writer.block(label)

    async def run_read(
        self, fn: Callable[[sqlite3.Connection, *Ts], R], *args: *Ts, label: str | None = None, retry: bool = True
    ) -> R:
        """Run `fn(connection, *args)` in a worker thread, as one transaction that reads; returns what it returns.

        `fn` gets the plain `sqlite3.Connection`, sees one moment of the database, and must return rows, not a cursor.
        With `retry` it is run again when another process was in the way. Cancelled, it is interrupted. `label` is
        its name if not given.
        """
        self._check_readable()
        job = bound(fn, args)
        return await self._reader.run(job, label_of(fn, label), retry=retry)

    async def run_write(
        self, fn: Callable[[sqlite3.Connection, *Ts], R], *args: *Ts, label: str | None = None, retry: bool = True
    ) -> R:
        """Run `fn(connection, *args)` in the thread that writes, as one transaction; returns what it returns.

        All of it, with its BEGIN and COMMIT, is one trip to that thread: the fastest way to write. What `fn` raises
        rolls back. Another process that is in the way of the beginning is waited for; with `retry`, `fn` is also run
        again when one was in the way later. Cancelled, it either never began, or it is waited for, and then it has
        ended as if it had not been cancelled.
        """
        self._check_open()
        job = bound(fn, args)
        return await self._writer.run(job, label_of(fn, label), retry=retry)

    # -- its own life

    async def open(self) -> None:
        """Open it: the connection that writes first and alone, which sets the journal mode. Harmless when it is open.

        Raises what SQLite raises if the file is none of its databases, which closes it, and `PoolClosedError` then.
        """
        self._check_loop()
        async with self._opening:
            if self._opened:
                await self._writer.pool.open()  # which knows whether this is its loop
            else:
                await self._open()

    async def _open(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            self._file.hold()
            await self._writer.pool.open()
            await self._reader.pool.open()
        except BaseException:
            await self.close()
            raise
        self._care.start()
        self._opened = True

    async def close(self, timeout: float | None = None) -> None:
        """Close both pools, those who read first, so that the last to close folds the WAL into the database.

        Each gets `timeout` seconds, as `SQLiteConnectionPool.close()` does. Harmless when closed; concurrent calls
        await the same end, which a cancellation of this one does not stop.
        """
        check_seconds("timeout", timeout)
        self._check_loop()
        if self._closing is None:
            self._opened = False
            # Owned by no caller: a cancelled one must not leave it half done.
            closing = self._close(timeout)
            self._closing = asyncio.get_running_loop().create_task(closing, name=f"{self._name}:close-database")
        await asyncio.shield(self._closing)

    async def _close(self, timeout: float | None) -> None:
        try:
            await self._reader.pool.close(timeout)
            await self._care.stop()
        finally:
            await self._writer.pool.close(timeout)
            self._file.let_go()

    async def __aenter__(self) -> SQLiteDatabase:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _check_open(self) -> None:
        if not self._opened:
            if self._closing is not None:
                raise PoolClosedError(f"database {self._name!r} is closed")
            raise PoolUsageError(f"database {self._name!r} is not open: use `async with database:` or await open()")

    def _check_readable(self) -> None:
        self._check_open()
        if self._file.in_memory and self._writer.is_mine:
            raise PoolUsageError(
                "a database in memory has no WAL: inside a block that writes, nobody can read but the block's own "
                "connection"
            )

    def _check_loop(self) -> None:
        if self._loop not in (None, asyncio.get_running_loop()) and not self._loop.is_closed():
            raise PoolUsageError(
                f"database {self._name!r} belongs to another event loop; close it there before that loop ends, and "
                "make a database of its own for each loop"
            )

    # -- caring for it

    async def backup(
        self, target: str | os.PathLike[str], *, progress: Progress | None = None, pages: int = 1000
    ) -> None:
        """Copy the database as it is now to the file `target`, while writers go on.

        `progress(copied, total)` is told pages, in the event loop. The copy appears when it is complete. Raises
        `ValueError` if `target` is the database itself, and what SQLite or the operating system raise.
        """
        self._check_open()
        await back_up(self._file, target, progress, pages, self._patience)

    async def checkpoint(self) -> Checkpointed:
        """Fold the WAL into the database now, in the turn of a writer; returns how far that went."""
        self._check_open()
        return await self._care.checkpoint()

    @property
    def name(self) -> str:
        """The database's name."""
        return self._name

    @property
    def readers(self) -> SQLiteConnectionPool[aiosqlite.Connection]:
        """The pool of connections that read, with its `stats()`, `holders()` and `events`."""
        return self._reader.pool

    @property
    def writer(self) -> SQLiteConnectionPool[aiosqlite.Connection]:
        """The pool of the connection that writes."""
        return self._writer.pool

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}: {self.writer!r}, {self.readers!r}>"
