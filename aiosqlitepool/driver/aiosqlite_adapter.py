"""One aiosqlite connection: its leases, the rollback of what they leave, checks, close. `executor` runs statements."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context, copy_context
from functools import partial
from typing import Any

import aiosqlite

from ..events import RollbackCause
from .completions import Outcome
from .cursors import can_read_ahead
from .executor import Executor
from .inline import InlineReads
from .internals import queue_job
from .private import PRIVATE, is_private
from .protocol import Lessee
from .sqlite import File, autocommit, file_of, roll_back
from .statement_log import StatementLog
from .unsaved import Unsaved

__all__ = ["AiosqliteAdapter"]

_new = object.__new__


class AiosqliteAdapter(Executor):
    """Begins, ends and resets the leases of one connection, and checks and closes it."""

    def __init__(
        self,
        raw: aiosqlite.Connection,
        handle_class: type[Any],
        session_sql: Sequence[str] = (),
        read_ahead: int = 0,
        log: StatementLog | None = None,
        inline: InlineReads | None = None,
    ) -> None:
        super().__init__(raw, session_sql, log or StatementLog(), inline)
        self.raw = raw
        # The two slots of a handle are set by their descriptors: the class forwards every other attribute that is set.
        self._handle_class = handle_class
        self._set_adapter = handle_class._pool_adapter.__set__
        self._set_lease = handle_class._pool_lease.__set__
        # Rows that cursors read ahead; 0 for plain cursors.
        self.read_ahead: int = read_ahead if can_read_ahead(self.native) else 0
        self._file: File | None = None
        # Of a connection with autocommit=False.
        self._unsaved: Unsaved | None = None
        self._row_factory: Any = None
        self._text_factory: Any = None

    # -- in the worker thread

    def _clean_up(self) -> RollbackCause | None:
        native, half_read = self.native, self._cursors.close()
        open_transaction = native.in_transaction
        unsaved = self._unsaved
        has_written = open_transaction and (autocommit(native) is not False if unsaved is None else bool(unsaved))
        if open_transaction:
            roll_back(native)
        if unsaved is not None:
            unsaved.forget()
        self._leave_loop()
        if self._pragmas_used:
            for statement in self._session_sql:
                native.execute(statement).close()
            self._pragmas_used = False
        self._in_transaction = native.in_transaction
        if has_written:
            return "transaction"
        return "cursor" if half_read else None

    def _before_serving(self) -> None:
        # Where a factory has awaited aiosqlite itself, threads of a free-threaded Python run in a copy of its context,
        # for as long as they run: they would keep alive what the request that opened the connection has in it.
        for variable in copy_context():
            variable.set(None)
        if autocommit(self.native) is False:
            self._unsaved = unsaved = Unsaved(self.native)
            run = self._run
            self._run = lambda future, lease, context, fn, *rest: run(  # type: ignore[method-assign]
                future, lease, context, unsaved.noting(fn), *rest
            )

    def _begin(self) -> None:
        # Before it is cleaned up: what it reads must not stay in a transaction, which would pin its snapshot.
        self._file = file_of(self.native)
        self._clean_up()

    # -- leases

    async def attach(self) -> str | None:
        """Undo what the factory left open, note which file this is, and take the connection over.

        The factory's own object is spent from here on: nothing may go around the pool.
        """
        raw, native = self.raw, self.native
        self._completions.add_worker()
        # aiosqlite's own loop keeps the result of the job before the one that it runs: not one of the factory's.
        queue_job(raw, self._before_serving)
        # In a context of its own, in which these variables are not set.
        queue_job(raw, partial(Context().run, self._serve))
        raw._connection, raw._running = None, False
        await self.post(self._begin)
        is_own = self._file is None and await self.post(partial(is_private, native))
        self._row_factory, self._text_factory = native.row_factory, native.text_factory
        return PRIVATE if is_own else None

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
        if self._sent != self._done or self._in_transaction or self._pragmas_used or not self.is_alive:
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
                if not done.done():  # else it was the loop that was late
                    message = f"a statement in flight did not stop within {patience:g} s of being interrupted"
                    raise TimeoutError(message) from None
        cause = await done
        self._sent = self._done  # equal by now, unless a KeyboardInterrupt fell between sending and counting
        self._restore_factories()
        return "in_flight" if in_flight else cause

    def _stop(self, done: Outcome[None] | None) -> None:
        self.lease = None  # refuses the handle
        super()._stop(done)
