"""The worker thread of an aiosqlite connection: queue jobs, interrupt what runs, end the thread.

What a job does is in `executor`. Knows no leases.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from contextvars import Context
from functools import partial
from queue import SimpleQueue
from time import perf_counter
from typing import Any, Final, TypeVar

import aiosqlite

from ..errors import ConnectionBrokenError, PoolUsageError
from .completions import Completions, Outcome
from .internals import STOP, thread_of
from .loop_work import LONGEST

__all__ = ["INTERRUPT_PATIENCE", "Interrupts", "Worker", "close_and_stop", "interrupt_until_exit"]

R = TypeVar("R")

# Seconds. An interrupted statement stops as soon as its thread runs: within a millisecond, or tens of them on a busy
# machine, where 5 ms replaced one healthy connection in five. One that has not stopped by then is where SQLite does not
# look at the interrupt (waiting for another process's lock, or in a Python function): to replace it is cheaper.
INTERRUPT_INTERVAL: Final = 0.001
INTERRUPT_PATIENCE: Final = 0.05
_LONGEST_INTERVAL: Final = 0.05

# Seconds for which a program that ends waits for a worker, where no daemon thread can be started any more.
_EXIT_PATIENCE: Final = 0.2

_running_loop = asyncio.get_running_loop


class Interrupts:
    """Interrupts one native connection, in any thread, but never while it closes or after that.

    `sqlite3` itself relies on the GIL for this: without it, an interrupt beside a close uses freed memory and crashes.
    """

    __slots__ = ("_is_closed", "_lock", "_native")

    def __init__(self, native: sqlite3.Connection) -> None:
        self._native = native
        self._is_closed = False
        # Reentrant: a signal or the garbage collector may run code of the pool's inside an interrupt.
        self._lock = threading.RLock()

    def send(self) -> None:
        """Interrupt the statement that runs; do nothing once the connection is closed."""
        with self._lock:
            if not self._is_closed:
                with contextlib.suppress(sqlite3.ProgrammingError):  # closed behind the pool's back
                    self._native.interrupt()

    def close_connection(self) -> None:
        """Close the connection, in its worker thread, after an interrupt that is being sent."""
        with self._lock:
            self._is_closed = True
        self._native.close()


class Worker:
    """Runs jobs in the one thread that may use a native connection.

    The loop writes `_sent`, the worker writes `_done` and `running`.
    """

    # Runs one operation of a lease, in the worker thread.
    _run: Callable[..., None]

    def __init__(self, raw: aiosqlite.Connection) -> None:
        native = raw._connection
        if native is None or not raw._running:
            raise ConnectionBrokenError(
                "connection_factory returned an aiosqlite connection that is not open: return what "
                "`await aiosqlite.connect('app.db')` returns, and leave the closing to the pool"
            )
        self.native: sqlite3.Connection = native
        self.interrupts: Interrupts = Interrupts(native)
        # Until the connection is closed, by the pool or by a holder, or its worker thread ends.
        self.is_alive: bool = True
        self._jobs: SimpleQueue[Any] = SimpleQueue()
        self._put: Callable[[Any], None] = self._jobs.put
        self._loop = _running_loop()
        self._completions = Completions.of(self._loop)
        self._limiter = self._completions.limiter
        self._thread: threading.Thread = thread_of(raw)
        # Operations of leases handed to the worker, and finished by it, ever; it is idle when they are equal.
        self._sent = 0
        self._done = 0
        # What the worker runs now, and when that began by `perf_counter`; a future identifies an operation.
        self.running: asyncio.Future[Any] | None = None
        self.began: float = 0.0

    def _serve(self) -> object:
        """Run jobs until one of them ends the thread: tuples are the arguments of `_run`, others are called.

        For aiosqlite's own loop this is one long job. That loop would log each operation twice.
        """
        get, run, job = self._jobs.get, self._run, None
        try:
            while job is not STOP:
                job = get()
                if type(job) is tuple:
                    run(*job)
                    job = None  # or it would be kept, with its caller's arguments, until the next one
                else:
                    job = job()
        finally:
            self.is_alive = False
            self._completions.remove_worker()
        return STOP

    @property
    def is_busy(self) -> bool:
        """Whether it has run one operation of a lease for longer than work in the loop may take."""
        return self.running is not None and perf_counter() - self.began > LONGEST

    def _check_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raise `PoolUsageError` if this is another loop: a result would go there, and never to its caller."""
        if loop is not self._loop:
            raise PoolUsageError("this connection belongs to another event loop: acquire one from a pool of this loop")

    def check_alive(self) -> None:
        """Raise `ConnectionBrokenError` unless it is."""
        if not self.is_alive:
            raise ConnectionBrokenError("the connection is closed or its worker thread is dead")

    def post(self, fn: Callable[[], R]) -> Outcome[R]:
        """Queue a job of the pool's own, behind all that was queued before."""
        future: Outcome[R] = Outcome(loop=_running_loop())
        # Its caller may have been cancelled by then: retrieved, or asyncio would log the exception.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._limiter.send_now(self._put, partial(self._completions.run, future, fn))
        return future

    async def interrupt_in_flight(self, done: asyncio.Future[Any]) -> None:
        """Interrupt until `done`: between two statements of one job SQLite ignores an interrupt."""
        pause = INTERRUPT_INTERVAL
        while self._sent != self._done and not done.done():
            if self.running is not None:
                self.interrupts.send()
            await asyncio.wait({done}, timeout=pause)
            pause = min(2 * pause, _LONGEST_INTERVAL)

    def withdraw(self, error: BaseException) -> None:
        """Raise `error` in the callers of operations that the limiter delays. Safe in any thread."""
        if not self._limiter.delayed:
            return
        try:
            here = _running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            self._withdraw(error)
            return
        with contextlib.suppress(RuntimeError):  # a closed loop waits for nothing
            # The garbage collector may close a connection in any thread.
            self._loop.call_soon_threadsafe(self._withdraw, error)

    def _withdraw(self, error: BaseException) -> None:
        for future in self._limiter.withdraw(self._put):
            self._sent -= 1
            with contextlib.suppress(asyncio.InvalidStateError):  # its caller was cancelled a moment ago
                future.set_exception(error)

    # -- the end of the thread

    async def close(self) -> None:
        """Interrupt, close in the worker, and wait until its thread has ended."""
        if self.is_alive:
            done = Outcome[None](loop=_running_loop())
            self._stop(done)
            await self.interrupt_in_flight(done)
            await done
        else:  # a holder closed it, or the thread is dead
            self.abandon()
        while self._thread.is_alive():  # noqa: ASYNC110 - the end of a thread wakes no task
            await asyncio.sleep(INTERRUPT_INTERVAL)

    def abandon(self) -> None:
        """Interrupt, and leave the closing to the worker. Safe in any thread."""
        self._stop(None)
        if self._sent != self._done:
            interrupt_until_exit(self._thread, self.interrupts)

    def _stop(self, done: Outcome[None] | None) -> None:
        self.is_alive = False
        self._put(self._last_job(done))
        # Behind the end of the worker they would never run.
        self.withdraw(ConnectionBrokenError("the connection was closed before this operation began"))

    def stop_behind(self) -> asyncio.Future[None] | None:
        """Close behind all that was queued before; return a future of the end, or `None` without a running loop."""
        try:
            loop = _running_loop()
        except RuntimeError:
            done = None
        else:
            self._check_loop(loop)
            done = Outcome[None](loop=loop)
        self.is_alive = False
        self._limiter.send_now(self._put, self._last_job(done))
        return done

    def _last_job(self, done: Outcome[None] | None) -> Callable[[], object]:
        close = self.interrupts.close_connection
        return partial(close_and_stop, close if done is None else partial(self._completions.run, done, close))


def close_and_stop(close: Callable[[], None]) -> object:
    """The last job of a worker: close the connection by `close()`, and end the thread, whatever that raises."""
    with contextlib.suppress(BaseException):
        close()
    return STOP


def interrupt_until_exit(thread: threading.Thread, interrupts: Interrupts) -> None:
    """Interrupt the connection repeatedly, from a daemon thread, until its worker thread exits. Returns at once."""
    if not thread.is_alive():
        return
    interrupter = threading.Thread(
        target=_interrupt_repeatedly, args=(thread, interrupts), name="aiosqlitepool-exit", daemon=True
    )
    try:
        Context().run(interrupter.start)  # not in that of the request, as in `opened`
    except RuntimeError:  # pragma: no cover - from Python 3.12, a program that ends can start no thread
        _interrupt_repeatedly(thread, interrupts, _EXIT_PATIENCE)


def _interrupt_repeatedly(thread: threading.Thread, interrupts: Interrupts, at_most: float = float("inf")) -> None:
    waited, pause = 0.0, INTERRUPT_INTERVAL
    while thread.is_alive() and waited < at_most:
        interrupts.send()
        time.sleep(pause)
        waited, pause = waited + pause, min(2 * pause, _LONGEST_INTERVAL)
