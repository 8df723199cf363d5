"""`SQLiteDatabase`: a writer pool of one connection and a reader pool, both for one file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import Any, TypeVar, TypeVarTuple

import aiosqlite

from ..bus import Detach
from ..errors import set_absent
from ..events import Checkpointed
from ..pool import SQLiteConnectionPool, Subscriber
from ..pool.registry import checked_subscribers, free_name
from ..pool.settings import MOST_CONNECTIONS, OnConnect, check_count, check_flag, check_label, check_name, check_timeout
from .arguments import bound, checked_timeout, label_of
from .backup import Progress, back_up
from .file import DatabaseFile, checked_connect_args
from .migrations import Step, checked_steps, migrate
from .pragmas import PragmaValue, checked_pragmas
from .process_turns import ProcessTurns
from .reader import Reader, ReaderPool
from .statements import Statements
from .writer import Writer, WriterPool

__all__ = ["SQLiteDatabase"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class SQLiteDatabase(Statements):
    """One SQLite database for one event loop. Writers queue for one connection; readers have connections of their own.

    Use `async with`, or `open()` and `close()`. An invalid argument raises a `TypeError` or `ValueError` that names it.

    Args:
        path: the file, or ":memory:" for a database that all connections share and that ends with `close()`.
        readers: the maximum number of reader connections.
        name: the prefix of the pool names `<name>/write` and `<name>/read`; `None` for the file's name. While another
            database of the process has that name, "<name>#2" and so on, with a warning in the log.
        pragmas: set on each connection, in addition to the pragmas of its role or instead of them.
        acquisition_timeout: seconds to wait for a connection and the locks of other processes; `None` for no limit.
        operation_timeout: seconds for one check, reset or close of a connection.
        max_waiting: the maximum number of waiters per pool; further callers get `PoolFullError`. `None` for no limit.
        slow_acquire: seconds from which an acquire in either pool emits `AcquireSlow`; `None` for never.
        read_ahead: the maximum number of rows that a statement of a block fetches when it is executed, for 0.2 ms at
            most; `0` for none.
        slow_statement: seconds from which a statement emits `StatementSlow`, with its query plan; `None` for never.
        reader_warn_after: seconds in use after which a reader connection logs a warning and emits `LeakSuspected`, once
            for each lease; `None` for never.
        writer_warn_after: the same for the writer connection.
        reader_max_age: seconds after which a read block or function loses its connection and gets `TimeoutError` from
            each use, and at its end. Its task is not cancelled. `None` for no limit.
        checkpoint_above: the WAL size in bytes above which a reader's connection copies it into the database, and the
            idle writer empties it. `None` leaves all checkpoints to another program, such as Litestream.
        wal_ceiling: the WAL size in bytes above which a commit waits, for 50 ms at most, until the readers have ended
            and the WAL is empty. `None` for no ceiling.
        queue_across_processes: let writers of several processes take turns, by a lock on the file `<path>-writer`.
        inline_reads: run short reads in the thread of the event loop, which is several times as fast.
        connect_args: passed to `sqlite3.connect()`: `detect_types`, `cached_statements` or `factory`, for example.
        on_connect: awaited with each new `aiosqlite.Connection`, for example to set a row factory.
        subscribers: attached to both pools, as `SQLiteConnectionPool.subscribe()` does.
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
        read_ahead: int = 64,
        slow_statement: float | None = 0.1,
        reader_warn_after: float | None = 30,
        writer_warn_after: float | None = 60,
        reader_max_age: float | None = None,
        checkpoint_above: int | None = 4_000_000,
        wal_ceiling: int | None = 64_000_000,
        queue_across_processes: bool = True,
        inline_reads: bool = False,
        connect_args: Mapping[str, Any] | None = None,
        on_connect: OnConnect | None = None,
        subscribers: Iterable[Subscriber] = (),
    ) -> None:
        check_count("readers", readers, least=1, most=MOST_CONNECTIONS)
        for argument, size in (("checkpoint_above", checkpoint_above), ("wal_ceiling", wal_ceiling)):
            if size is not None:
                check_count(argument, size, least=0)
        timeout = check_timeout("acquisition_timeout", acquisition_timeout)
        max_age = check_timeout("reader_max_age", reader_max_age, positive=True)
        reader_warn_after = check_timeout("reader_warn_after", reader_warn_after, positive=True)
        writer_warn_after = check_timeout("writer_warn_after", writer_warn_after, positive=True)
        # SQLite itself would run checkpoints, too.
        unattended: Mapping[str, PragmaValue] = {"wal_autocheckpoint": 0} if checkpoint_above is None else {}
        all_pragmas = {**unattended, **checked_pragmas(pragmas)}
        file = DatabaseFile(path, all_pragmas, checked_connect_args(connect_args), timeout)
        name = free_name(file.name if name is None else check_name(name), "/write", "/read")
        common: dict[str, Any] = {
            "acquisition_timeout": timeout,
            "operation_timeout": operation_timeout,
            "max_waiting": max_waiting,
            "slow_acquire": slow_acquire,
            "read_ahead": read_ahead,
            "slow_statement": slow_statement,
            "on_connect": on_connect,
            "subscribers": checked_subscribers(subscribers),
        }
        takes_turns = check_flag("queue_across_processes", queue_across_processes) and not file.in_memory
        turns = ProcessTurns(file.path if takes_turns else None)
        writer = WriterPool(file, turns, name=f"{name}/write", leak_threshold=writer_warn_after, **common)
        common_read = {**common, "pool_size": readers, "leak_threshold": reader_warn_after}
        inline_reads = check_flag("inline_reads", inline_reads)
        reader = ReaderPool(file, inline_reads=inline_reads, name=f"{name}/read", **common_read)
        roles = Writer(writer), Reader(reader, max_age)
        super().__init__(name, *roles, checkpoint_above, wal_ceiling)

    # -- reading and writing

    def read(
        self, label: str | None = None, *, snapshot: bool = False, timeout: float | None = None
    ) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        """Acquire a reader connection for an `async with` block.

        Args:
            label: identifies the holder in diagnostics, events and spans.
            snapshot: if true, all statements of the block see the database as it was at the beginning of the block, and
                the WAL cannot shrink until the block ends. If false, each statement sees the last commit before it.
            timeout: seconds to wait, instead of `acquisition_timeout`.

        Entering the block raises the same errors as `SQLiteConnectionPool.connection()`.
        """
        self._check_readable()
        return self._reader.block(check_label(label), checked_timeout(timeout), snapshot=snapshot)

    def write(
        self, label: str | None = None, *, timeout: float | None = None
    ) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        """Acquire the writer connection for an `async with` block, which is one transaction.

        The end of the block commits; an exception or a cancellation rolls back. Callers are served in FIFO order. A
        block inside a block of the same task is a savepoint. `label` and `timeout` are those of `read()`.

        Entering the block raises the same errors as `SQLiteConnectionPool.connection()`, and `sqlite3.OperationalError`
        if another process locks the database until the timeout.
        """
        self._check_open()
        return self._writer.block(check_label(label), checked_timeout(timeout))

    async def run_read(
        self,
        fn: Callable[[sqlite3.Connection, *Ts], R],
        *args: *Ts,
        label: str | None = None,
        timeout: float | None = None,
        retry: bool = True,
    ) -> R:
        """Run `fn(connection, *args)` in a worker thread, as one read transaction, and return its result.

        A cancellation of the caller interrupts `fn`. All queries of `fn` see the same snapshot. `fn` runs in a copy of
        the caller's context.

        Args:
            fn: a plain function of a `sqlite3.Connection`. It must not return a cursor, generator or coroutine.
            label: identifies the holder in diagnostics, events and spans; the name of `fn` if not given.
            timeout: seconds to wait, instead of `acquisition_timeout`.
            retry: if another process locks the database after `fn` has begun, run `fn` again.
        """
        self._check_readable()
        job = bound(fn, args)
        return await self._reader.run(job, label_of(fn, label), timeout=checked_timeout(timeout), retry=retry)

    async def run_write(
        self,
        fn: Callable[[sqlite3.Connection, *Ts], R],
        *args: *Ts,
        label: str | None = None,
        timeout: float | None = None,
        retry: bool = True,
    ) -> R:
        """Run `fn(connection, *args)` in the writer's worker thread, as one transaction, and return its result.

        The fastest way to write: BEGIN, `fn` and COMMIT are one call to the worker thread. An exception of `fn` rolls
        back. A cancellation of the caller prevents a function that has not begun; it does not stop one that has: the
        caller waits for its end, and the transaction commits or rolls back as without the cancellation. The arguments
        are those of `run_read()`. This method waits for other processes before `fn` begins even if `retry` is false.
        """
        self._check_open()
        job = bound(fn, args)
        return await self._writer.run(job, label_of(fn, label), timeout=checked_timeout(timeout), retry=retry)

    # -- maintenance

    async def backup(
        self, target: str | os.PathLike[str], *, progress: Progress | None = None, pages: int = 1000
    ) -> None:
        """Copy a snapshot of the database to the file `target`. In WAL mode, writers do not wait for it.

        Args:
            target: the path of the copy. An existing file is replaced when the copy is complete, and kept if it fails.
            progress: called as `progress(copied, total)` in the event loop, in pages.
            pages: the number of pages to copy at a time.

        Raises `ValueError` if `target` is the database itself, and errors of SQLite, the file system and `progress`.
        """
        self._check_open()
        await back_up(self._writer.pool, target, progress, pages)

    async def migrate(self, steps: Iterable[Step], *, label: str | None = None, timeout: float | None = None) -> int:
        """Apply the steps that the file does not have yet, in order, and return their number.

        `PRAGMA user_version` counts the steps that the file has. Each step is one transaction: a step that fails leaves
        the file as it was before the step. Steps run with foreign keys off, and are checked by `PRAGMA
        foreign_key_check` if the database has them on. Other writers wait until the last step; if several processes
        migrate, one does and the others wait.

        Args:
            steps: a step is a str of SQL, the path of a file of SQL (UTF-8), a list of str, or a plain function of a
                `sqlite3.Connection`. It cannot end its transaction. A function runs again if another process locks
                the database. Append steps, and never change one that a file has.
            label: identifies the holder in diagnostics, events and spans; "migrate" if not given.
            timeout: seconds to wait for the writer, and for other processes before each step, instead of
                `acquisition_timeout`.

        Raises `TypeError` or `ValueError` for an invalid step; `PoolUsageError` inside a `write()` block of the same
        task, for a file that is newer than the steps, and for SQL that ends its transaction; the error of a step, with
        a note that names the step and its statement; `sqlite3.IntegrityError` for a row that lacks its parent.
        """
        self._check_open()
        label = check_label(label) or "migrate"
        return await migrate(self._writer, self._name, checked_steps(steps), label, checked_timeout(timeout))

    def maintenance(
        self, label: str | None = None, *, timeout: float | None = None
    ) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        """Acquire the writer connection for an `async with` block without a transaction: for VACUUM, ATTACH, pragmas.

        The connection is replaced after the block: its pragmas, attached databases, temporary tables and
        the journal mode of the file become again what this database sets. What else is stored in the file stays, such
        as its page size. `label` and `timeout` are those of `read()`.

        Entering the block raises the same errors as `SQLiteConnectionPool.connection()`, and `PoolUsageError` inside a
        `write()` block of the same task.
        """
        self._check_open()
        label = check_label(label) or "maintenance"
        return self._writer.maintenance(label, checked_timeout(timeout), self._reader.pool.close_idle)

    async def checkpoint(self) -> Checkpointed:
        """Queue as a writer, copy the WAL into the database, and truncate it if no reader prevents that.

        Returns the emitted event. Raises `PoolUsageError` inside a `write()` block of the same task.
        """
        self._check_open()
        return await self._maintenance.checkpoint()

    def subscribe(self, subscriber: Subscriber) -> Detach:
        """Attach a subscriber to both pools, as `SQLiteConnectionPool.subscribe()` does; return what detaches it."""
        with ExitStack() as detaches:
            for pool in (self.writer, self.readers):
                detaches.callback(pool.subscribe(subscriber))
            return detaches.pop_all().close

    @property
    def name(self) -> str:
        """The name of the database."""
        return self._name

    @property
    def readers(self) -> SQLiteConnectionPool[aiosqlite.Connection]:
        """The pool of the reader connections, with its `stats()`, `holders()` and `events`."""
        return self._reader.pool

    @property
    def writer(self) -> SQLiteConnectionPool[aiosqlite.Connection]:
        """The pool of the writer connection."""
        return self._writer.pool

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}: {self.writer!r}, {self.readers!r}>"


set_absent(
    SQLiteDatabase,
    SQLiteConnectionPool,
    lambda _, name: f": use read() or write(), or {name} of its pools `writer` and `readers`",
)
