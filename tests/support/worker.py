"""Ways to hold, watch and end the worker thread of an aiosqlite connection."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Any

import aiosqlite
import aiosqlite.core

__all__ = ["ENDLESS", "Gate", "Jobs", "began", "counted", "end_worker", "jobs"]

# Runs until it is interrupted; calls began() first.
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT began() UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


class Jobs:
    """Stands before a connection's queue and counts what is put on it: each is a trip to the worker."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self.count = 0

    def put_nowait(self, job: Any) -> None:
        self.count += 1
        self._queue.put_nowait(job)


def counted(made: aiosqlite.Connection) -> aiosqlite.Connection:
    """Count the jobs of a connection that was not awaited yet."""
    made._tx = Jobs(made._tx)  # type: ignore[assignment]
    return made


def jobs(connection: aiosqlite.Connection) -> int:
    """How many jobs a counted connection has got so far."""
    assert isinstance(connection._tx, Jobs)
    return connection._tx.count


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

    def __enter__(self) -> Gate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open()  # whatever happens, no thread may be left behind it


def end_worker(connection: aiosqlite.Connection) -> None:
    """End the worker thread of a connection as a crash would: the connection knows nothing of it.

    SQLite's own connection is closed on the way, which no other thread may do: left to the garbage collector, it would
    warn in the middle of some other test.
    """
    native = connection._conn

    def end() -> object:
        native.close()
        return aiosqlite.core._STOP_RUNNING_SENTINEL

    connection._tx.put_nowait((None, end))
    connection._thread.join(60)  # not awaited in a thread: that of the executor would stay
    assert not connection._thread.is_alive()
