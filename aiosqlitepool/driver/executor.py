"""Run and time each operation of a lease: a statement, a fetch, a function. The thread and its loop are in `worker`.

So the pool knows, without a trip, what is in flight or open, what a holder runs, and which statements took how long.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from contextvars import Context, copy_context
from functools import partial
from time import perf_counter
from typing import Any, Final, TypeVar

import aiosqlite

from ..errors import PoolUsageError, error_name
from .completions import Outcome
from .connection_log import ConnectionLog
from .cursors import closes_cursor, sql_of, statement_of
from .inline import InlineReads, Reading, Unfinished, is_one_statement
from .limiter import MANY_ROWS
from .loop_work import Kind
from .protocol import Adapter, Lessee
from .sqlite import LeaseCursors, note_busy
from .statement_log import StatementLog
from .worker import Worker

__all__ = ["Executor", "Guard", "read_inline"]

R = TypeVar("R")

_running_loop = asyncio.get_running_loop

# Called with an operation before it is queued, and whether SQLite is known to have ended the transaction.
Guard = Callable[[Callable[..., Any], tuple[Any, ...], bool], None]

# What most operations return: nothing by which a cursor could come to the lease.
_NO_CURSOR = frozenset({list, tuple, type(None)})

_ENDED: Final = "the connection went back to the pool before this operation began: let a block wait for its tasks"


class Executor(Worker):
    """Runs the operations of one connection in its worker thread, and knows what they leave behind.

    The loop writes `lease`; the worker clears it behind the last call. The worker writes `_in_transaction` and the
    cursors, which the loop touches only while `_sent == _done`, when the worker has nothing to do. That, and a fixed
    order of reading and writing, replaces locks on the path of every statement.
    """

    def __init__(
        self, raw: aiosqlite.Connection, session_sql: Sequence[str], log: StatementLog, inline: InlineReads | None
    ) -> None:
        super().__init__(raw)
        # What runs short reads in the loop's own thread, and the busy timeout (ms) while the loop has the connection.
        self._inline = inline
        self._busy_timeout: int | None = None
        # The lease whose transaction began in the loop: it has the lock, so that its statements need not wait for it.
        self.has_lock: Lessee | None = None
        # The lease that may use the connection now.
        self.lease: Lessee | None = None
        self._in_transaction = False
        self._cursors = LeaseCursors(self.native)
        # What restores the pragmas of a connection, and whether the lease may have changed them.
        self._session_sql = session_sql
        self._pragmas_used = False
        # Refuses operations of the lease, while it has a transaction that is not its own to end.
        self.guard: Guard | None = None
        self._log = ConnectionLog(self.native, log, is_retried=bool(session_sql))
        # The end of a close() by a holder.
        self.closing: asyncio.Future[None] | None = None

    # -- in the worker thread

    def _run(self, future: Any, lease: Lessee, context: Context, fn: Any, args: Any, kwargs: Any, sent: float) -> None:
        """Run one operation of a lease and note what it leaves behind; skip it if its caller or its lease is gone."""
        result: Any = None
        error: BaseException | None = None
        failure: str | None = None
        if not future.cancelled():
            began = perf_counter()
            statement, place = statement_of(fn, args)
            if statement is not None:
                lease.activity = statement, began, None
            self.began = began
            self.running = future  # before it looks at the lease: `revoke` ends that, and then looks at what runs
            try:
                if lease is not self.lease:
                    raise lease.refusal() or PoolUsageError(_ENDED)
                if self._busy_timeout is not None and (lease is not self.has_lock or self._pragmas_used):
                    self._leave_loop()
                result = context.run(fn, *args, **kwargs)
            except BaseException as raised:
                error, failure = raised, "cancelled" if future.cancelled() else error_name(raised)
                self._log.failed(raised, lease, context, statement)
            self.running = None
            try:
                source = fn.__self__ if place is None else result
                self._log.record(lease, context, statement, place, source, failure, sent, began)
                if error is not None or type(result) not in _NO_CURSOR:
                    self._note_cursors(future, result, error)
                self._in_transaction = self.native.in_transaction
            except sqlite3.ProgrammingError:  # closed behind the adapter's back
                self._in_transaction = self.is_alive = False
            except BaseException as raised:  # the user's code, called in passing: the caller waits for a result
                result, error, self._in_transaction = None, raised, True
        self._done += 1
        self._completions.post(future, result, error)
        # Its traceback holds this frame: a cycle would keep half-read cursors and arguments until it is collected.
        future = error = None

    def _leave_loop(self) -> None:
        """Let the connection wait for locks, which it does not while the loop has it."""
        if self._busy_timeout is not None:
            self.native.execute(f"PRAGMA busy_timeout = {self._busy_timeout}").close()
            self._busy_timeout = self.has_lock = None

    def _note_cursors(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self._cursors.note(result)
        cursor = self._cursors.cursor_of(result) if future.cancelled() else None
        if cursor is not None:
            # Left half-read, it would pass an interrupt on to the next statement. An interrupt is sent only after
            # the cancellation and only to what runs, so that this look, after it stopped running, misses none.
            cursor.execute("")  # not close(): its user may go on with it
        if error is not None:
            # Not the frame of `_run`: it has the future, which has the error, a cycle that keeps the arguments.
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            self._cursors.note_frames(error)
            if not self._session_sql:  # else a SQLiteDatabase has the connection, which knows more of the lock
                note_busy(error)

    def check_lease(self, lease: Lessee) -> None:
        """Raise `PoolUsageError` if this lease has ended."""
        if lease is not self.lease:
            raise lease.refusal() or PoolUsageError("this connection went back to the pool; acquire one to go on")

    # -- in the event loop

    def revoke(self, error: Exception) -> None:
        """Refuse the handle and what is queued from now on, and raise `error` in what runs."""
        self.lease = self.guard = None
        running = self.running
        if running is not None and not running.done():
            running.set_exception(error)

    def is_idle_for(self, lease: Lessee) -> bool:
        """Whether the worker has nothing to do for this lease, which has not ended."""
        return lease is self.lease and self._sent == self._done and self.is_alive

    async def execute(self, lease: Lessee, fn: Callable[..., R], args: Any, kwargs: Any) -> R:
        """Run `fn(*args, **kwargs)` in the worker, in a copy of the caller's context."""
        loop = _running_loop()
        if lease is not self.lease or loop is not self._loop or not self.is_alive:
            if lease is not self.lease and closes_cursor(fn):
                return None  # type: ignore[return-value]  # its lease has closed it
            self._check_usable(lease)
        if self._session_sql:
            self._inspect(fn, args)
            if self._inline is not None:
                try:
                    return self._execute_inline(self._inline, lease, fn, args, kwargs)
                except Unfinished:
                    pass
        future: Outcome[R] = Outcome(loop=loop)
        job = (future, lease, copy_context(), fn, args, kwargs, perf_counter())
        if self._limiter.limits:
            self._limiter.send(self._put, job, future, sql_of(fn, args) if self._limiter.many_rows else None)
        else:
            self._put(job)
        self._sent += 1  # only then: had that failed, it would never be done
        try:
            result: Any = await future
            if type(result) is list and len(result) >= MANY_ROWS:
                self._limiter.note_many_rows(sql_of(fn, args))
            return result  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            if self._limiter.withdraw_one(future):
                self._sent -= 1
            else:
                self._interrupt_if_harmless(future, fn)
            raise
        except BaseException:
            del future, job  # its traceback holds this frame: a cycle would keep the arguments until it is collected
            raise

    def _execute_inline(self, inline: InlineReads, lease: Lessee, fn: Callable[..., R], args: Any, kwargs: Any) -> R:
        """Return `fn(*args, **kwargs)`, run in the loop's thread; raises `Unfinished` if it is no short statement."""
        # Not in the next turn: it could come behind what is sent in this one.
        if inline.turn.is_over or not is_one_statement(fn, args) or not inline.takes(kind := inline.kind(args[0])):
            raise Unfinished
        return self.read_inline(inline, kind, lease, args[0], partial(fn, *args, **kwargs))

    def read_inline(self, inline: InlineReads, kind: Kind, lease: Lessee, sql: str, read: Callable[[], R]) -> R:
        """Return `read()`, which executes `sql`, run in the loop's thread; raises `Unfinished` if it must not be."""
        if self._sent != self._done or not self.is_alive or getattr(self.native, "has_progress_handler", True):
            raise Unfinished
        self._enter_loop()
        began = perf_counter()
        try:
            result = inline.read(kind, self.native, read)
        except Unfinished:
            self._log.record(lease, copy_context(), sql, "retried", None, None, began, began)
            raise
        except BaseException as error:
            self._cursors.note_frames(error)
            self._log.failed(error, lease, copy_context(), sql)
            self._log.record(lease, copy_context(), sql, "inline", None, error_name(error), began, began)
            raise
        if type(result) not in _NO_CURSOR:
            self._cursors.note(result)
        self._log.record(lease, copy_context(), sql, "inline", result, None, began, began)
        return result

    def begin_at_once(self, lease: Lessee, fn: Callable[[sqlite3.Connection], object]) -> bool:
        """Begin a transaction by `fn(native)` in the loop's thread; False if the worker has something to do."""
        if not self.is_idle_for(lease):
            return False
        self._in_transaction = True  # until it is known: Ctrl-C may fall in between
        try:
            self._enter_loop()
            fn(self.native)
            self.has_lock = lease
        finally:
            self._in_transaction = self.native.in_transaction
        return True

    def _enter_loop(self) -> None:
        """Let the connection wait for no lock: the loop would wait with it. The next job that may have to ends that."""
        if self._busy_timeout is None:
            with closing(self.native.cursor()) as cursor:
                cursor.row_factory = None  # not that of the program
                (self._busy_timeout,) = cursor.execute("PRAGMA busy_timeout").fetchone()
                cursor.execute("PRAGMA busy_timeout = 0")

    def _inspect(self, fn: Callable[..., Any], args: Any) -> None:
        if self.guard is not None:
            self.guard(fn, args, self._sent == self._done and not self._in_transaction)
        if args and issubclass(type(args[0]), str) and "pragma" in args[0].lower():
            self._pragmas_used = True

    def submit(self, lease: Lessee, fn: Callable[..., R], *args: Any) -> Outcome[R]:
        """Queue `fn(native, *args)` for the worker; cancelled before it begins, it never runs."""
        self._check_usable(lease)
        future: Outcome[R] = Outcome(loop=_running_loop())
        job: Any = future, lease, copy_context(), fn, (self.native, *args), {}, perf_counter()
        self._limiter.send(self._put, job, future)
        self._sent += 1
        return future

    def _check_usable(self, lease: Lessee) -> None:
        self.check_lease(lease)
        if not self.is_alive:
            raise self.closed_error("Connection closed")
        self._check_loop(_running_loop())

    def closed_error(self, message: str) -> Exception:
        """Return the error of aiosqlite for a use of a closed connection: of SQLite while it closes, then this one."""
        if self.closing is None or self.closing.done():
            return ValueError(message)
        return sqlite3.ProgrammingError("Cannot operate on a closed database.")

    def _interrupt_if_harmless(self, future: asyncio.Future[Any], fn: Callable[..., Any]) -> None:
        """Interrupt a cancelled statement if nothing but that statement can be lost by it.

        Inside a transaction SQLite would silently roll back what was done before. With another cursor half-read, or
        another operation queued, the interrupt could hit the next statement. A cursor read row by row would look as if
        it had come to its end. All of that waits for the release.
        """
        row_by_row = getattr(fn, "__name__", "") in ("fetchone", "fetchmany")
        alone = self._sent == self._done + 1 and not self._in_transaction
        if alone and not row_by_row and self.running is future:
            own = self._cursors.cursor_of(getattr(fn, "__self__", None))
            if all(each is own for each in self._cursors.half_read()):
                self.interrupts.send()

    def interrupt_for(self, lease: Lessee) -> None:
        """Interrupt what runs, and withdraw what the limiter delays."""
        self.check_lease(lease)
        self.withdraw(sqlite3.OperationalError("interrupted"))
        self.interrupts.send()

    def stop_for(self, lease: Lessee) -> asyncio.Future[None] | None:
        """Close the connection behind what was queued; return a future of the end, if there is a loop."""
        self.check_lease(lease)
        return self.stop_behind() if self.is_alive else None


def read_inline(
    inline: InlineReads, kind: Kind, sql: str, label: str | None, fn: Callable[[sqlite3.Connection], R],
    adapter: Adapter, number: int,
) -> R:  # fmt: skip
    """Return `fn(native)`, which executes `sql`, with an idle connection; raises `Unfinished` if that cannot be."""
    if not isinstance(adapter, Executor):
        raise Unfinished
    return adapter.read_inline(inline, kind, Reading(label, number), sql, partial(fn, adapter.native))
