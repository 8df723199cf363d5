"""`SQLiteDatabase`: over one file, a pool of the one connection that writes and a pool of those that read."""

from __future__ import annotations

import inspect
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar, TypeVarTuple

import aiosqlite

from ..errors import PoolUsageError
from ..events import Checkpointed
from ..pool import SQLiteConnectionPool, Subscriber
from ..settings import check_count, check_seconds
from ..stats import PoolStats
from .backup import Progress, back_up
from .care import Care
from .file import DatabaseFile, OnConnect
from .profile import PragmaValue, Role, checked_pragmas
from .reader import Reader
from .shares import Shares
from .writer import Writer

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
        reader_warn_after: float | None = 30,
        reader_max_age: float | None = None,
        checkpoint_above: int = 4_000_000,
        on_connect: OnConnect | None = None,
        subscribers: Iterable[Subscriber] = (),
    ) -> None:
        check_count("readers", readers, least=1)
        check_count("checkpoint_above", checkpoint_above, least=0)
        patience = check_seconds("acquisition_timeout", acquisition_timeout)
        max_age = check_seconds("reader_max_age", reader_max_age, positive=True)
        if on_connect is not None and not callable(on_connect):
            raise TypeError(f"on_connect must be callable or None, not {on_connect!r} ({type(on_connect).__name__})")
        self._file = DatabaseFile(path, checked_pragmas(pragmas), on_connect)
        self._name = self._file.name if name is None else name
        common: dict[str, Any] = {
            "acquisition_timeout": patience,
            "operation_timeout": operation_timeout,
            "max_waiting": max_waiting,
            "subscribers": tuple(subscribers),
        }
        writing = _RolePool(
            self._file, "write", pool_size=1, min_size=1, idle_timeout=None, name=f"{self._name}/write", **common
        )
        self._writer = Writer(writing, patience)
        writing.shares = self._writer.shares
        self._reader = Reader(
            _RolePool(
                self._file,
                "read",
                pool_size=readers,
                leak_threshold=reader_warn_after,
                name=f"{self._name}/read",
                **common,
            ),
            patience,
            max_age,
        )
        self._care = Care(self._writer, self._file, checkpoint_above)
        self._opened = False

    # -- reading and writing

    def read(
        self, *, snapshot: bool = False, label: str | None = None
    ) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        """Borrow a connection that cannot write, for an `async with` block.

        Each statement sees what is committed when it begins; with `snapshot`, all of the block sees one moment, which
        keeps the WAL from being folded in for as long. Raises what entering `SQLiteConnectionPool.connection()` does.
        """
        self._check_open()
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
        self._check_open()
        job = _checked(fn, args)
        return await self._reader.run(job, _label(fn, label), retry=retry)

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
        job = _checked(fn, args)
        return await self._writer.run(job, _label(fn, label), retry=retry)

    # -- its own life

    async def open(self) -> None:
        """Open it: the connection that writes first and alone, which sets the journal mode. Harmless when it is open.

        Raises what SQLite raises if the file is none of its databases, and `PoolClosedError` after `close()`.
        """
        if not self._opened:
            self._file.hold()
            try:
                await self._writer.pool.open()
                await self._reader.pool.open()
            except BaseException:
                await self.close()
                raise
            self._care.start()
            self._opened = True

    async def close(self, timeout: float | None = None) -> None:
        """Close both pools, those who read first, so that the last to close folds the WAL into the database.

        Each gets `timeout` seconds, as `SQLiteConnectionPool.close()` does. Harmless when closed.
        """
        self._opened = False
        await self._reader.pool.close(timeout)
        await self._care.stop()
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
            raise PoolUsageError(f"database {self._name!r} is not open: use `async with database:` or await open()")

    # -- caring for it

    async def backup(
        self, target: str | os.PathLike[str], *, progress: Progress | None = None, pages: int = 1000
    ) -> None:
        """Copy the database as it is now to the file `target`, while writers go on.

        `progress(copied, total)` is told pages, in the event loop. The copy appears when it is complete. Raises
        `ValueError` if `target` is the database itself, and what SQLite or the operating system raise.
        """
        self._check_open()
        await back_up(self._file, target, progress, pages)

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
        """The pool of connections that read: its `stats()`, `holders()` and `events`."""
        return self._reader.pool

    @property
    def writer(self) -> SQLiteConnectionPool[aiosqlite.Connection]:
        """The pool of the connection that writes."""
        return self._writer.pool

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}: {self.writer!r}, {self.readers!r}>"


class _RolePool(SQLiteConnectionPool[aiosqlite.Connection]):
    """One of the two pools; that which writes also knows who shares its connection, and how large the WAL is."""

    def __init__(self, file: DatabaseFile, role: Role, **settings: Any) -> None:
        self._file = file
        self._role: Role = role
        # Set by whoever shares out the connection.
        self.shares: Shares | None = None
        super().__init__(file.factory(role), **settings)

    def stats(self) -> PoolStats:
        """The pool at this moment. Safe to call from any thread."""
        stats = super().stats()
        if self._role == "read":
            return replace(stats, role="read")
        more = 0 if self.shares is None else self.shares.waiting_with_others
        return replace(stats, role="write", waiting=stats.waiting + more, wal_bytes=self._file.wal_bytes())


def _checked(fn: Callable[[sqlite3.Connection, *Ts], R], args: tuple[*Ts]) -> Callable[[sqlite3.Connection], R]:
    if not callable(fn):
        raise TypeError(f"fn must be callable, not {fn!r} ({type(fn).__name__})")
    if inspect.iscoroutinefunction(fn):
        raise TypeError(f"fn must be a plain function, for it runs in a thread without an event loop, not {fn!r}")

    def run(native: sqlite3.Connection) -> R:
        result = fn(native, *args)
        if isinstance(result, sqlite3.Cursor):
            result.close()
            raise TypeError(f"{fn!r} returned a cursor, which ends with its transaction: return its rows")
        return result

    return run


def _label(fn: Callable[..., Any], label: str | None) -> str | None:
    return getattr(fn, "__name__", None) if label is None else label
