"""All that is known about aiosqlite: the only file that touches a driver's insides.

Every operation of an aiosqlite connection passes through one method on its way to one worker thread. Watching it there
tells, without a round trip, whether something is still in flight, whether a transaction or a half-read cursor is
open, and whether the thread is alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sqlite3
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, TypeVar

import aiosqlite
import aiosqlite.core

from ..errors import ConnectionBrokenError, PoolUsageError
from ..events import RollbackCause
from .mailbox import Mailbox
from .protocol import Lessee

__all__ = ["INTERRUPT_PATIENCE", "KNOWS_AIOSQLITE", "AiosqliteLink", "prepare_to_await", "see_off", "submit"]

R = TypeVar("R")

# Which lease a task took last, itself or before it was created: a mark of its own, which names the connection.
_held: ContextVar[tuple[AiosqliteLink] | None] = ContextVar("aiosqlitepool_held", default=None)

# A statement told to stop stops within a millisecond. One that has not by then sits where SQLite cannot hear the
# interrupt (waiting for another process's lock, or inside a Python function): replacing the connection is cheaper.
INTERRUPT_INTERVAL: Final = 0.001
INTERRUPT_PATIENCE: Final = 0.005


class AiosqliteLink:
    """A connection whose every operation is seen.

    Who may write what: the loop writes `lease` and `_sent`; the worker writes `_done`, `_running`,
    `_in_transaction` and the cursors, which the loop touches only while `_sent == _done`: then the worker has
    nothing to do. That, and one fixed order of reading and writing, stands in for locks on the way of every query.
    """

    __slots__ = (
        "__weakref__",
        "_cursor",
        "_done",
        "_file",
        "_in_transaction",
        "_inherited",
        "_mailbox",
        "_mark",
        "_native",
        "_older_cursors",
        "_put",
        "_raw",
        "_running",
        "_sent",
        "_thread",
        "_thread_runs",
        "lease",
    )

    def __init__(self, raw: aiosqlite.Connection) -> None:
        native = raw._connection
        if native is None or not raw._running:
            raise ConnectionBrokenError("connection_factory returned an aiosqlite connection that is not open")
        self._raw = raw
        self._native: sqlite3.Connection = native
        self._put = raw._tx.put_nowait
        self._mailbox = Mailbox.of(asyncio.get_running_loop())
        self._thread: threading.Thread = raw._thread
        self._thread_runs = _liveness(raw._thread)
        # Operations handed to the worker and finished by it, ever; the worker is idle when they are equal.
        self._sent = 0
        self._done = 0
        # What the worker runs now; a future is an operation's identity.
        self._running: asyncio.Future[Any] | None = None
        self._in_transaction = False
        # The lease's cursors. Only the newest is held, which the worker thread does anyway until its next job.
        self._cursor: sqlite3.Cursor | None = None
        self._older_cursors: set[weakref.ref[sqlite3.Cursor]] = set()
        self._file: tuple[str, int, int] | None = None
        # The mark of the lease, and the one that stood in the context where it began.
        self._mark: tuple[AiosqliteLink] | None = None
        self._inherited: tuple[AiosqliteLink] | None = None
        self.lease: Lessee | None = None

    # -- in the worker thread

    def _run(self, future: asyncio.Future[Any], lease: Lessee, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """Run one operation of a lease and note what it leaves behind; skip it if nobody wants it any more."""
        result: Any = None
        error: BaseException | None = None
        if future.cancelled() or lease is not self.lease:
            error = PoolUsageError("the connection went back to the pool before this operation began")
        else:
            self._running = future
            try:
                result = fn(*args, **kwargs)
            except BaseException as raised:
                error = raised
            self._running = None
            self._note_cursors(future, result, error)
            try:
                self._in_transaction = self._native.in_transaction
            except sqlite3.ProgrammingError:  # the lease closed its connection itself
                self._in_transaction = self._raw._running = False  # not to be lent again
        self._done += 1
        self._mailbox.post(future, result, error)
        error = None  # its traceback holds this frame: a cycle would keep half-read cursors until it is collected

    def _note_cursors(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        if isinstance(result, sqlite3.Cursor):
            known = result is self._cursor or weakref.ref(result) in self._older_cursors
            if not known:
                self._track(result)
            if future.cancelled():
                # Left half-read, it would pass an interrupt on to the next statement. An interrupt is sent only after
                # the cancellation and only to what runs, so that this look, after it stopped running, misses none.
                result.execute("") if known else result.close()
        trace = error.__traceback__ if error is not None else None
        while trace is not None:  # whoever keeps the error keeps the cursors of the frames it passed
            for value in trace.tb_frame.f_locals.values():
                if isinstance(value, sqlite3.Cursor):
                    self._track(value)
            trace = trace.tb_next

    def _track(self, cursor: sqlite3.Cursor) -> None:
        older = self._older_cursors
        if self._cursor is not None and self._cursor is not cursor:
            older.add(weakref.ref(self._cursor))
        self._cursor = cursor
        if len(older) > 256:
            self._older_cursors = {ref for ref in older if ref() is not None}

    def _clean_up(self) -> RollbackCause | None:
        half_read = self._half_read()
        for cursor in half_read:
            cursor.close()
        open_transaction = self._native.in_transaction
        if open_transaction:
            self._native.rollback()
        self._forget_cursors()
        self._in_transaction = self._native.in_transaction
        if open_transaction and getattr(self._native, "autocommit", None) is not False:
            return "transaction"
        # With autocommit=False (Python 3.12) a transaction is always open, and says nothing.
        return "cursor" if half_read else None

    # -- seen from the event loop

    async def adopt(self) -> None:
        """Watch every later operation, undo what the factory left open, and note which file this is."""
        await self._in_worker(self._clean_up)
        self._file = await self._in_worker(self._identify)
        # On the instance, not on the class: connections outside the pool stay as they are.
        self._raw._execute = self._execute  # type: ignore[method-assign]
        self._raw.close = self._close_by_user  # type: ignore[method-assign]

    async def _execute(self, fn: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        """Stands in for `aiosqlite.Connection._execute`."""
        owner = getattr(fn, "__self__", None)
        if (
            isinstance(owner, sqlite3.Cursor)
            and owner is not self._cursor
            and weakref.ref(owner) not in self._older_cursors
        ):
            return self._stale_cursor(fn)
        lease, held = self.lease, _held.get()
        if (
            lease is None
            or (held is not self._mark and held is not None)
            or not self._thread_runs()
            or self._raw._connection is None
        ):
            lease = self._lease_unless_misused()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._sent += 1
        self._put((None, partial(self._run, future, lease, fn, args, kwargs)))
        try:
            return await future
        except asyncio.CancelledError:
            self._interrupt_if_harmless(future, fn)
            raise

    def submit(self, fn: Callable[..., R], *args: Any) -> asyncio.Future[R]:
        """Queue `fn(native, *args)` for the worker, whoever asks; cancelled before it begins, it never does."""
        lease = self.lease
        if lease is None or not self._thread_runs() or self._raw._connection is None:
            lease = self._lease_unless_misused()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._sent += 1
        self._put((None, partial(self._run, future, lease, fn, (self._native, *args), {})))
        return future

    def _lease_unless_misused(self) -> Lessee:
        if self._raw._connection is None or not self._raw._running:
            raise ValueError("Connection closed")  # as aiosqlite itself says it
        if not self._thread_runs():
            raise ConnectionBrokenError("the connection's worker thread is dead")
        if self.lease is None:
            raise PoolUsageError("this connection went back to the pool; acquire one to go on")
        # Only positive evidence counts, for a holder may let any task use its connection: this task, or the one that
        # created it, had this very connection and gave it back.
        held = _held.get()
        if held is not None and held is not self._mark and held[0] is self and not self._lent_on_behalf_of(held):
            raise PoolUsageError("this task's connection went back to the pool, which has lent it to another task")
        return self.lease

    def _lent_on_behalf_of(self, held: tuple[AiosqliteLink]) -> bool:
        """Whether a task created for nothing but the acquiring, as by `wait_for(pool.acquire(), 1)`, took the lease."""
        task = None if self.lease is None else self.lease.task
        return held is self._inherited and task is not None and task.done()

    async def _close_by_user(self) -> None:
        """Stands in for `aiosqlite.Connection.close`, which would gut the connection even when it is refused."""
        if self._raw._running and self._raw._connection is not None:
            self._lease_unless_misused()
        await type(self._raw).close(self._raw)

    def _stale_cursor(self, fn: Callable[..., R]) -> R:
        if fn.__name__ == "close":  # it was closed with its lease
            return None  # type: ignore[return-value]
        raise PoolUsageError("this cursor belongs to an earlier lease of its connection, which went back to the pool")

    def _interrupt_if_harmless(self, future: asyncio.Future[Any], fn: Callable[..., Any]) -> None:
        """Stop a cancelled statement, if nothing but that statement can be lost by it.

        Inside a transaction an interrupt would silently roll back what was done before. With another cursor
        half-read, or another operation queued, it could hit the next statement. A cursor read row by row would
        look as if it had come to its end. All of that waits for the return.
        """
        row_by_row = getattr(fn, "__name__", "") in ("fetchone", "fetchmany")
        alone = self._sent == self._done + 1 and not self._in_transaction
        own = getattr(fn, "__self__", None)
        if alone and not row_by_row and self._running is future and all(each is own for each in self._half_read()):
            self._interrupt()

    def _interrupt(self) -> None:
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed a moment ago by its borrower
            self._native.interrupt()

    def _half_read(self) -> list[sqlite3.Cursor]:
        """The cursors of this lease that still hold a statement; CPython lets go of it at the last row."""
        cursors = [cursor for ref in tuple(self._older_cursors) if (cursor := ref()) is not None]
        if self._cursor is not None:
            cursors.append(self._cursor)
        return [cursor for cursor in cursors if _holds_statement(cursor)]

    def _forget_cursors(self) -> None:
        self._cursor = None
        if self._older_cursors:
            self._older_cursors = set()

    def alive(self) -> bool:
        """Whether it is open and its worker runs."""
        return self._raw._running and self._thread_runs()

    def verify(self) -> None:
        """Raise if the worker is dead or the file on disk is no longer the one that was opened."""
        if not self.alive() or self._raw._connection is None:
            raise ConnectionBrokenError("the connection is closed or its worker thread is dead")
        if self._file is None:
            return
        path, device, inode = self._file
        try:
            found = os.stat(path)
        except OSError as error:
            raise ConnectionBrokenError(f"the database file is gone: {error}") from error
        if (found.st_dev, found.st_ino) != (device, inode):
            raise ConnectionBrokenError(f"the database file {path!r} was replaced by another")

    async def check(self) -> None:
        """Verify, then ask the worker."""
        self.verify()
        await self._in_worker(lambda: self._native.execute("SELECT 1").close())

    def lend(self, lease: Lessee) -> bool:
        """Let operations through, unless nobody is there to run them."""
        if not self._raw._running or not self._thread_runs():
            return False
        self.lease = lease
        self._inherited = _held.get()
        self._mark = mark = (self,)
        _held.set(mark)
        return True

    def settle(self) -> Awaitable[None] | bool:
        """Let nothing more through; with nothing in flight, open or half-read, that is all."""
        self.lease = self._mark = self._inherited = None
        if self._sent != self._done or self._in_transaction or not self._raw._running:
            return False
        if self._cursor is not None:
            if self._older_cursors:
                if self._half_read():
                    return False
                self._older_cursors = set()
            elif _holds_statement(self._cursor):
                return False
            self._cursor = None
        return True

    async def reset(self, patience: float) -> RollbackCause | None:
        """Clean up in one job, behind all that was queued before; what runs is interrupted until it stops."""
        if not self.alive() or self._raw._connection is None:
            raise ConnectionBrokenError("the connection is closed or its worker thread is dead")
        in_flight = self._sent != self._done
        done = self._post(self._clean_up)
        if in_flight:
            try:
                async with asyncio.timeout(patience):
                    await self._interrupt_in_flight(done)
            except TimeoutError:
                message = f"a statement in flight did not stop within {patience:g} s of being interrupted"
                raise TimeoutError(message) from None
        cause = await done
        return "in_flight" if in_flight else cause

    async def _interrupt_in_flight(self, done: asyncio.Future[Any]) -> None:
        """Interrupt again and again: between two statements of one job an interrupt goes unheard."""
        pause = INTERRUPT_INTERVAL
        while self._sent != self._done:
            if self._running is not None:
                self._interrupt()
            await asyncio.wait({done}, timeout=pause)
            pause = min(2 * pause, 0.05)

    async def close(self) -> None:
        """Interrupt, close in the worker, and see its thread end."""
        if not self.alive():
            self.abandon()
            return
        done = asyncio.get_running_loop().create_future()
        self.lease = None
        self._stop(done)
        await self._interrupt_in_flight(done)
        await done
        while self._thread.is_alive():  # noqa: ASYNC110 - a thread's end wakes nobody
            await asyncio.sleep(INTERRUPT_INTERVAL)

    def abandon(self) -> None:
        """Interrupt, and leave the closing to the worker."""
        self.lease = None
        if self._running is not None:
            self._interrupt()
        self._stop(None)

    def _stop(self, done: asyncio.Future[Any] | None) -> None:
        raw, native = self._raw, self._native
        raw._running = False
        raw._connection = None

        def close_and_stop() -> object:
            error: BaseException | None = None
            try:
                native.close()
            except BaseException as raised:  # the thread must end all the same
                error = raised
            if done is not None:
                self._mailbox.post(done, None, error)
            return aiosqlite.core._STOP_RUNNING_SENTINEL

        # Harmless when it stopped already: nobody reads that queue any more.
        self._put((None, close_and_stop))

    def _identify(self) -> tuple[str, int, int] | None:
        cursor = self._native.cursor()
        cursor.row_factory = None
        (name,) = cursor.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()
        path = os.fsdecode(name or "")
        try:
            found = os.stat(path)
        except OSError:  # in memory, or a name of a virtual file system
            return None
        return (path, found.st_dev, found.st_ino)

    def _post(self, fn: Callable[[], R]) -> asyncio.Future[R]:
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()

        def job() -> None:
            try:
                outcome: tuple[Any, BaseException | None] = fn(), None
            except BaseException as error:
                outcome = None, error
            self._mailbox.post(future, *outcome)

        self._put((None, job))
        return future

    async def _in_worker(self, fn: Callable[[], R]) -> R:
        return await self._post(fn)


def _liveness(thread: threading.Thread) -> Callable[[], bool]:
    """The cheapest way to ask whether a thread still runs: asked with every operation, lest a caller hang on it."""
    lock = getattr(thread, "_tstate_lock", None)  # until Python 3.12, where is_alive() takes ten times as long
    return thread.is_alive if lock is None else lock.locked


def _holds_statement(cursor: sqlite3.Cursor) -> bool:
    held: Iterable[type | None] = map(type, gc.get_referents(cursor))
    return _STATEMENT in held


def _find_statement_type() -> type | None:
    """The type of sqlite3's prepared statements, found on a half-read cursor; it has no public name."""
    connection = sqlite3.connect(":memory:")
    try:
        cursor = connection.execute("SELECT 1 UNION ALL SELECT 2")
        held = {type(each) for each in gc.get_referents(cursor) if type(each).__name__ == "Statement"}
        cursor.fetchall()
        held -= set(map(type, gc.get_referents(cursor)))
        return held.pop() if held else None
    finally:
        connection.close()


_STATEMENT: Final = _find_statement_type()


def knows_aiosqlite() -> bool:
    """Whether the installed aiosqlite and sqlite3 have the insides that `AiosqliteLink` relies on."""
    probe = aiosqlite.connect(":memory:")
    return (
        _STATEMENT is not None
        and hasattr(aiosqlite.core, "_STOP_RUNNING_SENTINEL")
        and all(hasattr(probe, name) for name in ("_execute", "_tx", "_thread", "_running", "_connection"))
        and not probe._thread.is_alive()
    )


KNOWS_AIOSQLITE: Final = knows_aiosqlite()


def submit(connection: aiosqlite.Connection, fn: Callable[..., R], *args: Any) -> asyncio.Future[R]:
    """Queue `fn(native, *args)` for the worker of a connection, watched or not."""
    link = getattr(connection._execute, "__self__", None)
    if isinstance(link, AiosqliteLink):
        return link.submit(fn, *args)
    return asyncio.ensure_future(connection._execute(fn, connection._conn, *args))  # type: ignore[no-untyped-call]


def prepare_to_await(made: object) -> None:
    """Let a worker thread not outlive its program; possible only before the connection is awaited."""
    if KNOWS_AIOSQLITE and isinstance(made, aiosqlite.Connection) and not made._thread.is_alive():
        made._thread.daemon = True


async def see_off(made: object) -> None:
    """Wait a moment for the worker thread of a connection that could not be opened, lest it outlive its loop."""
    if KNOWS_AIOSQLITE and isinstance(made, aiosqlite.Connection):
        for _ in range(100):
            if not made._thread.is_alive():
                break
            await asyncio.sleep(INTERRUPT_INTERVAL)
