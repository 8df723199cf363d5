"""Ways to hold, watch and end the worker thread of an aiosqlite connection."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import aiosqlite
import pytest

from aiosqlitepool.driver import AiosqliteAdapter, Handle
from aiosqlitepool.driver.internals import STOP

__all__ = [
    "ENDLESS",
    "HASH",
    "IS_THREAD",
    "Gate",
    "adapter_of",
    "began",
    "busy_worker",
    "end_worker",
    "jobs",
    "native_of",
    "until_workers_are",
    "workers",
]

# Up to aiosqlite 0.21 a connection is its thread: it can be hashed, is collected only once it is closed, and a factory
# that fails has to close it.
IS_THREAD = issubclass(aiosqlite.Connection, threading.Thread)

# What a class of connections that defines __eq__ has as __hash__.
HASH: Any = threading.Thread.__hash__ if IS_THREAD else None

# Runs until it is interrupted; calls began() first.
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT began() UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


def adapter_of(connection: aiosqlite.Connection) -> AiosqliteAdapter:
    """The adapter behind a handle, also behind one whose lease has ended."""
    assert isinstance(connection, Handle)
    return connection._pool_adapter


def native_of(connection: aiosqlite.Connection) -> sqlite3.Connection:
    """The native connection behind a handle: two handles of one connection have the same."""
    return adapter_of(connection).native


class _Counting:
    """Stands before the queue of a worker and counts what is put on it: each is a trip to the worker."""

    def __init__(self, put: Callable[[Any], None]) -> None:
        self._put = put
        self.count = 0

    def __call__(self, job: Any) -> None:
        self.count += 1
        self._put(job)


def jobs(connection: aiosqlite.Connection) -> int:
    """How many jobs the worker of a handle has got since this was first asked."""
    adapter = adapter_of(connection)
    if not isinstance(adapter._put, _Counting):
        adapter._put = _Counting(adapter._put)
    return adapter._put.count


def workers() -> int:
    """How many worker threads run."""
    # Up to aiosqlite 0.21 a connection is its thread.
    return sum(
        "_connection_worker_thread" in thread.name or isinstance(thread, aiosqlite.Connection)
        for thread in threading.enumerate()
    )


async def until_workers_are(count: int) -> None:
    """Wait for worker threads to end, which wakes no task; a thread that stays is a hang."""
    async with asyncio.timeout(60):
        while workers() > count:  # fewer: one of an earlier test was still about to end
            await asyncio.sleep(0.001)


@contextlib.contextmanager
def busy_worker(connection: aiosqlite.Connection) -> Iterator[Callable[[], None]]:
    """The worker of a handle sleeps, as a thread does that the system has no time for, until the function is called."""
    asleep, wake_up = threading.Event(), threading.Event()

    def sleep() -> None:
        asleep.set()
        wake_up.wait(60)

    adapter_of(connection)._put(sleep)
    try:
        assert asleep.wait(60)
        yield wake_up.set
    finally:
        wake_up.set()


async def began(connection: aiosqlite.Connection) -> asyncio.Event:
    """Give the connection a function `began()`; the event is set when a statement calls it."""
    event, loop = asyncio.Event(), asyncio.get_running_loop()

    def function() -> int:
        loop.call_soon_threadsafe(event.set)
        return 1

    await connection.create_function("began", 0, function)
    return event


class Gate:
    """A function `gate()` for SQL that holds the worker, where no interrupt reaches it, until the gate opens."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._open = threading.Event()
        self._loop = asyncio.get_running_loop()

    def _function(self) -> str:
        self._loop.call_soon_threadsafe(self.reached.set)
        assert self._open.wait(60), "the test forgot to open the gate"
        return "through the gate"

    async def install(self, connection: aiosqlite.Connection) -> None:
        await connection.create_function("gate", 0, self._function)

    def open(self) -> None:
        self._open.set()

    async def cancel_inside(self, task: asyncio.Task[Any], times: int = 1) -> None:
        """Cancel a task that waits for what is held, so many times; see that it ends when the gate opens."""
        await self.reached.wait()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        self.open()
        with pytest.raises(asyncio.CancelledError):
            await task

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open()  # whatever happens, no thread may be left behind it


def end_worker(connection: aiosqlite.Connection) -> None:
    """End the worker thread behind a handle as a crash would: its adapter knows nothing of it.

    SQLite's own connection is closed on the way, which no other thread may do: left to the garbage collector, it would
    warn in the middle of some other test.
    """
    adapter = adapter_of(connection)

    def end() -> object:
        adapter.native.close()
        return STOP

    adapter._put(end)
    adapter._thread.join(60)  # not awaited in a thread: that of the executor would stay
    assert not adapter._thread.is_alive()
