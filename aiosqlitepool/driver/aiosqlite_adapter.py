"""All that is known about a lent aiosqlite connection: with `aiosqlite_worker`, what touches a driver's insides.

Every operation of an aiosqlite connection passes through one method on its way to one worker thread. Watching it there
tells, without a round trip, whether something is still in flight, whether a transaction or a half-read cursor is
open, and whether the thread is alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import aiosqlite

from ..errors import ConnectionBrokenError, PoolUsageError
from ..events import RollbackCause
from .completions import Completions
from .cursors import LeaseCursors
from .protocol import Lessee
from .sqlite import File, autocommit, file_of, roll_back
from .tenancy import Mark, Tenancy, marks_here
from .worker import INTERRUPT_INTERVAL, close_and_stop, harry, interrupt, liveness

__all__ = ["AiosqliteAdapter"]

R = TypeVar("R")

_running_loop = asyncio.get_running_loop

# What most operations return: nothing by which a cursor could come to the lease.
_NO_CURSOR = frozenset({list, tuple, type(None)})


class AiosqliteAdapter:
    """A connection whose every operation is seen.

    Who may write what: the loop writes `_sent` and the tenancy's mark; the worker writes `_done`, `_running`,
    `_in_transaction` and the cursors, which the loop touches only while `_sent == _done`: then the worker has
    nothing to do. That, and one fixed order of reading and writing, stands in for locks on the way of every query.
    """

    __slots__ = (
        "__weakref__",
        "_completions",
        "_cursors",
        "_done",
        "_file",
        "_in_transaction",
        "_limiter",
        "_loop",
        "_native",
        "_put",
        "_raw",
        "_running",
        "_sent",
        "_tenancy",
        "_thread",
        "_thread_runs",
    )

    def __init__(self, raw: aiosqlite.Connection) -> None:
        native = raw._connection
        if native is None or not raw._running:
            raise ConnectionBrokenError("connection_factory returned an aiosqlite connection that is not open")
        self._raw = raw
        self._native: sqlite3.Connection = native
        self._put = raw._tx.put_nowait
        self._loop = _running_loop()
        self._completions = Completions.of(self._loop)
        self._limiter = self._completions.limiter
        self._thread: threading.Thread = raw._thread
        self._thread_runs = liveness(raw._thread)
        # Operations handed to the worker and finished by it, ever; the worker is idle when they are equal.
        self._sent = 0
        self._done = 0
        # What the worker runs now; a future is an operation's identity.
        self._running: asyncio.Future[Any] | None = None
        self._in_transaction = False
        self._cursors = LeaseCursors()
        self._file: File | None = None
        self._tenancy = Tenancy(self._loop)

    # -- in the worker thread

    def _run(self, future: asyncio.Future[Any], mark: object, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """Run one operation of a lease and note what it leaves behind; skip it if nobody wants it any more.

        The lease is known by its mark: the worker keeps its last operation until the next, and a lease keeps its task.
        """
        result: Any = None
        error: BaseException | None = None
        if future.cancelled() or mark is not self._tenancy.mark:
            error = PoolUsageError("the connection went back to the pool before this operation began")
        else:
            self._running = future
            try:
                result = fn(*args, **kwargs)
            except BaseException as raised:
                error = raised
            self._running = None
            try:
                if error is not None or type(result) not in _NO_CURSOR:
                    self._note_cursors(future, result, error)
                self._in_transaction = self._native.in_transaction
            except sqlite3.ProgrammingError:  # the lease closed its connection itself
                self._in_transaction = self._raw._running = False  # not to be lent again
            except BaseException as raised:  # the user's code, asked in passing: the caller must not wait for ever
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
        native, half_read = self._native, self._cursors.close()
        open_transaction = native.in_transaction
        if open_transaction:
            roll_back(native)
        self._in_transaction = native.in_transaction
        if open_transaction and autocommit(native) is not False:
            return "transaction"
        # With autocommit=False (Python 3.12) a transaction is always open, and says nothing.
        return "cursor" if half_read else None

    # -- seen from the event loop

    async def adopt(self) -> None:
        """Watch every later operation, undo what the factory left open, and note which file this is."""
        await self._in_worker(self._clean_up)
        self._file = await self._in_worker(partial(file_of, self._native))
        # On the instance, not on the class: connections outside the pool stay as they are.
        raw: Any = self._raw
        raw._execute, raw.close = self._execute, self._close_by_user
        raw.interrupt, raw.stop = self._interrupt_by_user, self._stop_by_user

    async def _execute(self, fn: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        """Stands in for `aiosqlite.Connection._execute`."""
        owner = getattr(fn, "__self__", None)
        if owner is not self._raw and owner is not self._native and self._is_stale(owner):
            return self._stale_cursor(fn)
        mark, marks, loop = self._tenancy.mark, marks_here(), _running_loop()
        if (
            mark is None
            or loop is not self._loop
            or not marks
            or marks[0] is not mark
            or not self._thread_runs()
            or self._raw._connection is None
        ):
            if loop is not self._loop:  # the result would come to the other one, and this one wait for ever
                raise PoolUsageError("this connection was lent in another event loop; acquire one in this loop")
            mark = self._mark_unless_misused()
        future: asyncio.Future[R] = loop.create_future()
        self._limiter.send(self._put, (None, partial(self._run, future, mark, fn, args, kwargs)), future)
        self._sent += 1  # only then: had that failed, it would never be done
        try:
            return await future
        except asyncio.CancelledError:
            if self._limiter.withdraw_one(future):
                self._sent -= 1
            else:
                self._interrupt_if_harmless(future, fn)
            raise

    def submit(self, fn: Callable[..., R], *args: Any) -> asyncio.Future[R]:
        """Queue `fn(native, *args)` for the worker, whoever asks; cancelled before it begins, it never does."""
        mark = self._tenancy.mark
        if mark is None or not self._thread_runs() or self._raw._connection is None:
            mark = self._mark_unless_misused()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._limiter.send(self._put, (None, partial(self._run, future, mark, fn, (self._native, *args), {})), future)
        self._sent += 1
        return future

    def _mark_unless_misused(self) -> Mark | None:
        if self._raw._connection is None or not self._raw._running:
            raise ValueError("Connection closed")  # as aiosqlite itself says it
        if not self._thread_runs():
            raise ConnectionBrokenError("the connection's worker thread is dead")
        if self._tenancy.mark is None:
            raise PoolUsageError("this connection went back to the pool; acquire one to go on")
        self._tenancy.challenge()
        return self._tenancy.mark

    def challenge(self) -> None:
        """Raise if the running task's hold on it has demonstrably ended."""
        self._tenancy.challenge()

    async def _close_by_user(self) -> None:
        """Stands in for `aiosqlite.Connection.close`, which would gut the connection even when it is refused."""
        self._refuse_former_holders()
        await type(self._raw).close(self._raw)

    async def _interrupt_by_user(self) -> None:
        """Stands in for `aiosqlite.Connection.interrupt`."""
        self._refuse_former_holders()
        self._withdraw(sqlite3.OperationalError("interrupted"))
        await type(self._raw).interrupt(self._raw)

    def _stop_by_user(self) -> asyncio.Future[Any] | None:
        """Stands in for `aiosqlite.Connection.stop`."""
        self._refuse_former_holders()
        self._withdraw(ValueError("Connection closed"))
        return type(self._raw).stop(self._raw)

    def _refuse_former_holders(self) -> None:
        if self._raw._running and self._raw._connection is not None:
            self._mark_unless_misused()

    def _is_stale(self, owner: object) -> bool:
        cursors = self._cursors
        return (
            isinstance(owner, sqlite3.Cursor)
            and owner is not cursors.newest
            and weakref.ref(owner) not in cursors.older
        )

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
        if alone and not row_by_row and self._running is future:
            own = getattr(fn, "__self__", None)
            if all(each is own for each in self._cursors.half_read()):
                interrupt(self._native)

    def alive(self) -> bool:
        """Whether it is open and its worker runs."""
        return self._raw._running and self._thread_runs()

    def verify(self) -> None:
        """Raise if the worker is dead or the file on disk is no longer the one that was opened."""
        if not self.alive() or self._raw._connection is None:
            raise ConnectionBrokenError("the connection is closed or its worker thread is dead")
        if self._file is not None:
            self._file.verify()

    async def check(self) -> None:
        """Verify, then ask the worker."""
        self.verify()
        await self._in_worker(lambda: self._native.execute("SELECT 1").close())

    def lend(self, lease: Lessee) -> bool:
        """Let operations through, unless nobody is there to run them."""
        if not self._raw._running or not self._thread_runs():
            return False
        self._tenancy.begin(lease.task)
        return True

    def excuse(self) -> None:
        """The holder never got the connection: when it uses it later, it does so for somebody else."""
        self._tenancy.excuse()

    def settle(self) -> Awaitable[None] | bool:
        """Let nothing more through; with nothing in flight, open or half-read, that is all."""
        self._tenancy.end()
        if self._sent != self._done or self._in_transaction or not self._raw._running:
            return False
        cursors = self._cursors
        return (cursors.newest is None and not cursors.older) or cursors.forget_if_at_rest()

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
        while self._sent != self._done and not done.done():
            if self._running is not None:
                interrupt(self._native)
            await asyncio.wait({done}, timeout=pause)
            pause = min(2 * pause, 0.05)

    async def close(self) -> None:
        """Interrupt, close in the worker, and see its thread end."""
        if not self.alive():
            self.abandon()
            return
        done = asyncio.get_running_loop().create_future()
        self._tenancy.forget()
        self._stop(done)
        await self._interrupt_in_flight(done)
        await done
        while self._thread.is_alive():  # noqa: ASYNC110 - a thread's end wakes nobody
            await asyncio.sleep(INTERRUPT_INTERVAL)

    def abandon(self) -> None:
        """Interrupt, and leave the closing to the worker."""
        self._tenancy.forget()
        self._stop(None)
        if self._sent != self._done:
            harry(self._thread, self._native)

    def _stop(self, done: asyncio.Future[Any] | None) -> None:
        then = None if done is None else partial(self._completions.post, done, None)
        close_and_stop(self._raw, self._native, then)
        self._withdraw(ConnectionBrokenError("the connection was closed before this operation began"))

    def _withdraw(self, error: BaseException) -> None:
        """Raise the error in those who are held back: behind the end of the worker they would wait for ever."""
        if not self._limiter.delayed:
            return
        try:
            here = _running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            self._withdraw_here(error)
            return
        with contextlib.suppress(RuntimeError):  # a closed loop waits for nothing
            # The garbage collector may close a connection in any thread.
            self._loop.call_soon_threadsafe(self._withdraw_here, error)

    def _withdraw_here(self, error: BaseException) -> None:
        for future in self._limiter.withdraw(self._put):
            self._sent -= 1
            if not future.done():
                future.set_exception(error)

    def _post(self, fn: Callable[[], R]) -> asyncio.Future[R]:
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        # Whoever waited may have given up by then: a failure is not one that nobody looked at.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())

        def job() -> None:
            try:
                outcome: tuple[Any, BaseException | None] = fn(), None
            except BaseException as error:
                outcome = None, error
            self._completions.post(future, *outcome)

        self._limiter.send_now(self._put, (None, job))
        return future

    async def _in_worker(self, fn: Callable[[], R]) -> R:
        return await self._post(fn)
