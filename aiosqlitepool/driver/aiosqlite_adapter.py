"""Drives one aiosqlite connection. With `worker` and `handle`, the only code that touches aiosqlite's internals.

Every operation of a lease passes through `execute` on its way to the connection's one worker thread. That is how the
adapter knows, without a round trip, whether anything is in flight and whether a transaction or a cursor is open.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import aiosqlite

from ..errors import PoolUsageError
from ..events import RollbackCause
from .protocol import Lessee
from .sqlite import File, LeaseCursors, autocommit, file_of, roll_back
from .worker import Worker, interrupt

__all__ = ["AiosqliteAdapter"]

R = TypeVar("R")

_running_loop = asyncio.get_running_loop
_new = object.__new__

# What most operations return: nothing by which a cursor could come to the lease.
_NO_CURSOR = frozenset({list, tuple, type(None)})


class AiosqliteAdapter(Worker):
    """Runs the operations of one connection in its worker thread, and knows what they leave behind.

    The loop writes `lease`. The worker writes `_in_transaction` and the cursors, which the loop touches only while
    `_sent == _done`, when the worker has nothing to do. That, and a fixed order of reading and writing, replaces locks
    on the path of every statement.
    """

    def __init__(self, raw: aiosqlite.Connection, handle_class: type[Any], session_sql: Sequence[str] = ()) -> None:
        super().__init__(raw)
        self.raw = raw
        # The lease that may use the connection now.
        self.lease: Lessee | None = None
        # The two slots of a handle are set by their descriptors: the class forwards every other attribute that is set.
        self._handle_class = handle_class
        self._set_adapter = handle_class._pool_adapter.__set__
        self._set_lease = handle_class._pool_lease.__set__
        self._in_transaction = False
        self._cursors = LeaseCursors()
        self._file: File | None = None
        # What restores the pragmas of a connection, and whether the lease may have changed them.
        self._session_sql = session_sql
        self._pragmas_used = False
        self._row_factory: Any = None
        self._text_factory: Any = None

    # -- in the worker thread

    def _run(self, future: asyncio.Future[Any], lease: Lessee, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """Run one operation of a lease and note what it leaves behind; skip it if its caller or its lease is gone."""
        result: Any = None
        error: BaseException | None = None
        if future.cancelled() or lease is not self.lease:
            error = PoolUsageError("the connection went back to the pool before this operation began")
        else:
            self.running = future
            try:
                result = fn(*args, **kwargs)
            except BaseException as raised:
                error = raised
            self.running = None
            try:
                if error is not None or type(result) not in _NO_CURSOR:
                    self._note_cursors(future, result, error)
                self._in_transaction = self.native.in_transaction
            except sqlite3.ProgrammingError:  # closed behind the adapter's back
                self._in_transaction = self.is_open = self.is_alive = False
            except BaseException as raised:  # the user's code, called in passing: the caller must not wait for ever
                result, error, self._in_transaction = None, raised, True
        self._done += 1
        self._completions.post(future, result, error)
        error = None  # its traceback holds this frame: a cycle would keep half-read cursors until it is collected

    def _note_cursors(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        is_new = self._cursors.note(result)
        if future.cancelled() and issubclass(type(result), sqlite3.Cursor):
            # Left half-read, it would pass an interrupt on to the next statement. An interrupt is sent only after
            # the cancellation and only to what runs, so that this look, after it stopped running, misses none.
            result.close() if is_new else result.execute("")
        if error is not None:
            self._cursors.note_frames(error)

    def _clean_up(self) -> RollbackCause | None:
        native, half_read = self.native, self._cursors.close()
        open_transaction = native.in_transaction
        if open_transaction:
            roll_back(native)
        if self._pragmas_used:
            for statement in self._session_sql:
                native.execute(statement).close()
            self._pragmas_used = False
        self._in_transaction = native.in_transaction
        if open_transaction and autocommit(native) is not False:
            return "transaction"
        # With autocommit=False (Python 3.12) a transaction is always open, and says nothing.
        return "cursor" if half_read else None

    # -- leases

    async def attach(self) -> None:
        """Undo what the factory left open, note which file this is, and take the connection over.

        The factory's own object is spent from here on: nothing may go around the pool.
        """
        raw, native = self.raw, self.native
        raw._tx.put_nowait((None, self._serve))
        raw._connection, raw._running = None, False
        await self.post(self._clean_up)
        self._file = await self.post(partial(file_of, native))
        self._row_factory, self._text_factory = native.row_factory, native.text_factory

    def begin_lease(self, lease: Lessee) -> Any:
        """Return a handle for this lease, or `None` if the worker is dead."""
        if not self.is_alive:
            return None
        self.lease = lease
        handle: Any = _new(self._handle_class)
        self._set_adapter(handle, self)
        self._set_lease(handle, lease)
        return handle

    def end_lease(self) -> bool:
        """Refuse the handle from now on. True if nothing is in flight, open, half-read or changed."""
        self.lease = None
        if self._sent != self._done or self._in_transaction or self._pragmas_used or not self.is_open:
            return False
        self._restore_factories()
        cursors = self._cursors
        return (cursors.newest is None and not cursors.older) or cursors.forget_if_idle()

    def _restore_factories(self) -> None:
        native = self.native
        if native.row_factory is not self._row_factory:
            native.row_factory = self._row_factory
        if native.text_factory is not self._text_factory:
            native.text_factory = self._text_factory

    def check_lease(self, lease: Lessee) -> None:
        """Raise `PoolUsageError` if this lease has ended."""
        if lease is not self.lease:
            raise PoolUsageError("this connection went back to the pool; acquire one to go on")

    # -- operations of a lease

    async def execute(self, lease: Lessee, fn: Callable[..., R], args: Any, kwargs: Any) -> R:
        """Run `fn(*args, **kwargs)` in the worker."""
        loop = _running_loop()
        if lease is not self.lease or loop is not self._loop or not self.is_open:
            if lease is not self.lease and _closes_cursor(fn):
                return None  # type: ignore[return-value]  # its lease has closed it
            self._check_usable(lease)
        if self._session_sql and args and issubclass(type(args[0]), str) and "pragma" in args[0].lower():
            self._pragmas_used = True
        future: asyncio.Future[R] = loop.create_future()
        if self._limiter.limits:
            self._limiter.send(self._put, (future, lease, fn, args, kwargs), future)
        else:
            self._put((future, lease, fn, args, kwargs))
        self._sent += 1  # only then: had that failed, it would never be done
        try:
            return await future
        except asyncio.CancelledError:
            if self._limiter.withdraw_one(future):
                self._sent -= 1
            else:
                self._interrupt_if_harmless(future, fn)
            raise

    def submit(self, lease: Lessee, fn: Callable[..., R], *args: Any) -> asyncio.Future[R]:
        """Queue `fn(native, *args)` for the worker; cancelled before it begins, it never runs."""
        self._check_usable(lease)
        future: asyncio.Future[R] = _running_loop().create_future()
        self._limiter.send(self._put, (future, lease, fn, (self.native, *args), {}), future)
        self._sent += 1
        return future

    def _check_usable(self, lease: Lessee) -> None:
        self.check_lease(lease)
        if not self.is_open:
            raise ValueError("Connection closed")  # as aiosqlite itself says it
        if _running_loop() is not self._loop:  # the result would go to the other loop, and this caller wait for ever
            raise PoolUsageError("this connection was lent in another event loop; acquire one in this loop")

    def _interrupt_if_harmless(self, future: asyncio.Future[Any], fn: Callable[..., Any]) -> None:
        """Interrupt a cancelled statement if nothing but that statement can be lost by it.

        Inside a transaction SQLite would silently roll back what was done before. With another cursor half-read, or
        another operation queued, the interrupt could hit the next statement. A cursor read row by row would look as if
        it had come to its end. All of that waits for the release.
        """
        row_by_row = getattr(fn, "__name__", "") in ("fetchone", "fetchmany")
        alone = self._sent == self._done + 1 and not self._in_transaction
        if alone and not row_by_row and self.running is future:
            own = getattr(fn, "__self__", None)
            if all(each is own for each in self._cursors.half_read()):
                interrupt(self.native)

    def interrupt_for(self, lease: Lessee) -> None:
        """Interrupt what runs, and withdraw what the limiter delays."""
        self.check_lease(lease)
        self.withdraw(sqlite3.OperationalError("interrupted"))
        interrupt(self.native)

    async def close_for(self, lease: Lessee) -> None:
        """Close the connection behind what was queued, for the holder of this lease; harmless when it is closed."""
        self.check_lease(lease)
        if self.is_open:
            done = self.stop_behind()
            assert done is not None, "a coroutine runs in a loop"
            await done

    def stop_for(self, lease: Lessee) -> asyncio.Future[None] | None:
        """The same without waiting; returns a future of the end, or `None` if it is closed or no loop runs."""
        self.check_lease(lease)
        return self.stop_behind() if self.is_open else None

    @property
    def may_read(self) -> bool:
        """Whether a statement runs, or a transaction or a half-read cursor is open."""
        return self._sent != self._done or self._in_transaction or bool(self._cursors.half_read())

    # -- between leases

    def verify(self) -> None:
        """Raise if the worker is dead or the file on disk is no longer the one that was opened."""
        self.check_alive()
        if self._file is not None:
            self._file.verify()

    async def check(self) -> None:
        """Verify, then run `SELECT 1`."""
        self.verify()
        await self.post(lambda: self.native.execute("SELECT 1").close())

    async def reset(self, patience: float) -> RollbackCause | None:
        """Clean up in one job, behind all that was queued before; what runs is interrupted until it stops."""
        self.check_alive()
        in_flight = self._sent != self._done
        done = self.post(self._clean_up)
        if in_flight:
            try:
                async with asyncio.timeout(patience):
                    await self.interrupt_in_flight(done)
            except TimeoutError:
                message = f"a statement in flight did not stop within {patience:g} s of being interrupted"
                raise TimeoutError(message) from None
        cause = await done
        self._sent = self._done  # equal by now, unless a KeyboardInterrupt fell between sending and counting
        self._restore_factories()
        return "in_flight" if in_flight else cause

    def abandon(self) -> None:
        """Interrupt, refuse the handle, and leave the closing to the worker. Safe in any thread."""
        self.lease = None
        super().abandon()

    async def close(self) -> None:
        """Interrupt, refuse the handle, close in the worker, and wait until its thread has ended."""
        self.lease = None
        await super().close()


def _closes_cursor(fn: Callable[..., Any]) -> bool:
    return getattr(fn, "__name__", "") == "close" and isinstance(getattr(fn, "__self__", None), sqlite3.Cursor)
