"""Queue for the database with the writers of other processes, in the kernel: SQLite's own waiting is no queue.

Each process that takes part locks a file beside the database, `<path>-writer`, before it begins to write, and unlocks
it after the commit: with `flock`, whose waiters sleep until it is their turn. The lock protects nothing, SQLite does
that: a program that takes no part is kept out all the same, and where there is no such lock all works without.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Final

if sys.platform != "win32":  # pragma: no branch
    import fcntl

__all__ = ["NotOurTurn", "ProcessTurns", "is_locked"]

# Seconds for which a process may write, one transaction after another, while others wait; and for which it may let its
# turn wait for the first one.
TURN: Final = 0.01
_UNUSED: Final = 0.05
# Seconds that a process waits before it queues behind others. The kernel wakes all that wait for a lock, and the first
# one that runs has it: that must not be the one that has just unlocked it.
_STEP_BACK: Final = 0.001

# Processes that wait lock this byte of the file, shared. `struct flock`: type, whence, start, length, process.
_WAITING: Final = 1
_FLOCK: Final = "hhqqi0q"


class NotOurTurn(sqlite3.OperationalError):
    """Another process writes, or is to write next: await `ProcessTurns.wait`, and begin again."""

    # Functions behind it wait, as they do where SQLite says so.
    sqlite_errorcode = sqlite3.SQLITE_BUSY


class ProcessTurns:
    """The turns of one process at the database at `path`; `None` for a database that no other process can have.

    For one transaction at a time: there is one connection that writes, and the queue for it is that of its pool.
    """

    def __init__(
        self,
        path: str | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = None if path is None or sys.platform == "win32" else f"{path}-writer"
        self._clock = clock
        self._sleep = sleep
        self._descriptor: int | None = None
        # Guards all that follows: the worker thread of the writer, the thread that waits, and the loop.
        self._mutex = threading.Lock()
        self._has_lock = False
        # When its first transaction began.
        self._since = math.inf
        # The transaction that is open.
        self._transaction: object = None
        # The thread that waits for our turn, and when that is over ends it if no transaction is open. Until then.
        self._thread: threading.Thread | None = None
        # What those await that could not begin: one, and perhaps one that is cancelled and has not noticed yet.
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def _thread_waits(self) -> bool:
        return self._thread is not None and not self._has_lock

    # -- in the worker thread, or in the loop: nothing here waits for another process

    def begin(self, transaction: object) -> None:
        """Take a turn, or go on with it. Raises `NotOurTurn` if others are to write first."""
        if self._path is None:
            return
        with self._mutex:
            if self._has_lock and self._is_over():
                self._unlock()
            if not (self._has_lock or self._lock()):
                raise NotOurTurn
            self._since = min(self._since, self._clock())
            self._transaction = transaction

    def end(self, transaction: object, *, has_more: bool) -> None:
        """End the turn if no transaction is open; one that was waited for goes on until it is over, if it `has_more`.

        Harmless if the transaction never began. May be called in any thread.
        """
        with self._mutex:
            if self._transaction is transaction:
                self._transaction = None
            keeps = has_more and self._thread is not None and not self._is_over()
            if self._has_lock and self._transaction is None and not keeps:
                self._unlock()

    def _is_over(self) -> bool:
        return self._clock() - self._since >= TURN

    def _lock(self) -> bool:
        """Take the lock if it is free; return whether the transaction may begin, as it may where there is none."""
        try:
            descriptor = self._descriptor = self._opened() if self._descriptor is None else self._descriptor
            # Those that wait were woken a moment ago: no other process may take the lock before they do.
            if self._thread is not None or _others_wait(descriptor):
                return False
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a folder that cannot be written to, or a file system without locks
            self._path = None
            self._close()
        else:
            self._has_lock, self._since = True, math.inf
        return True

    def _opened(self) -> int:
        assert self._path is not None
        mode = os.stat(self._path.removesuffix("-writer")).st_mode & 0o666  # for all that may write to the database
        try:
            return os.open(self._path, os.O_RDWR)
        except FileNotFoundError:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, mode)
            with contextlib.suppress(OSError):  # another user was faster
                os.fchmod(descriptor, mode)
            return descriptor

    def _unlock(self) -> None:
        self._has_lock, self._thread = False, None
        assert self._descriptor is not None, "locked"
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    # -- in the event loop

    async def wait(self, timeout: float | None) -> None:
        """Wait until it is our turn, for `timeout` seconds at most."""
        loop = asyncio.get_running_loop()
        with self._mutex:
            if self._has_lock or self._path is None or self._descriptor is None:
                return
            # One thread waits, for all callers: one that is cancelled leaves it to the next one.
            if not self._thread_waits:
                wait = partial(self._wait_in_thread, self._descriptor, loop)
                thread = threading.Thread(target=wait, name="aiosqlitepool-turn", daemon=True)
                Context().run(thread.start)  # not in that of the request, as in `opened`
                self._thread = thread
            self._waiting.add(future := loop.create_future())
        try:
            await asyncio.wait((future,), timeout=timeout)
        finally:
            with self._mutex:
                self._waiting.discard(future)

    def _wait_in_thread(self, descriptor: int, loop: asyncio.AbstractEventLoop) -> None:
        _mark_waiting(descriptor, is_waiting=True)
        if _others_wait(descriptor):
            self._sleep(_STEP_BACK)
        with contextlib.suppress(OSError):  # then there is nothing to wait for
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        _mark_waiting(descriptor, is_waiting=False)
        with self._mutex:
            self._has_lock, self._since = True, math.inf
            if self._path is None:  # closed meanwhile
                self._close()
                return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._arrived)
        # The loop may be blocked, and callers may be gone.
        self._sleep(TURN)
        if self._since == math.inf:
            self._sleep(_UNUSED - TURN)
        with self._mutex:
            if self._thread is threading.current_thread():
                self._thread = None  # from here on, the end of a transaction ends the turn
                if self._transaction is None:
                    self._unlock()

    def _arrived(self) -> None:
        with self._mutex:
            if not self._waiting and self._transaction is None and self._has_lock:  # they were cancelled
                self._unlock()
            for future in self._waiting:
                _wake(future)

    # -- the end

    def close(self) -> None:
        """Take part no more. Those that wait begin again, and get the error of a closed pool."""
        with self._mutex:
            self._path = None
            for future in self._waiting:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    future.get_loop().call_soon_threadsafe(_wake, future)
            if not self._thread_waits:  # else the thread that waits does it, when it has the lock
                self._close()

    def _close(self) -> None:
        self._has_lock = False
        self._thread = self._transaction = None
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def forked(self) -> None:
        """Leave the lock to the parent, in a forked child: an open descriptor would keep it when the parent dies."""
        self._mutex = threading.Lock()
        self._path = None
        self._close()


def _wake(future: asyncio.Future[None]) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):  # its caller was cancelled a moment ago
        future.set_result(None)


def _mark_waiting(descriptor: int, *, is_waiting: bool) -> None:
    if sys.platform == "linux":  # pragma: no branch
        kind = fcntl.F_RDLCK if is_waiting else fcntl.F_UNLCK
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, _WAITING, 1, 0))


def _others_wait(descriptor: int) -> bool:
    """Return whether another process waits for its turn; False where that is not known."""
    if sys.platform != "linux":  # pragma: no cover
        return False
    return is_locked(descriptor, _WAITING, fcntl.F_OFD_GETLK)


def is_locked(descriptor: int, byte: int, command: int) -> bool:
    """Return whether this byte of a file is locked elsewhere: `F_GETLK` by a process, `F_OFD_GETLK` by an open file."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    return bool(struct.unpack(_FLOCK, fcntl.fcntl(descriptor, command, asked))[0] != fcntl.F_UNLCK)
