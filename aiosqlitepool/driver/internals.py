"""What the adapter uses of aiosqlite's internals, in each of its series, and whether the installed one has it.

Up to aiosqlite 0.21 a connection is its own thread, which ends at a marker in its queue and sends each result to a
future. From 0.22 it has a thread, which ends at a job that returns the marker. `queue_job` serves both.
"""

from __future__ import annotations

import sqlite3
import threading
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import cache, partial
from typing import Any, Final

import aiosqlite
import aiosqlite.core

__all__ = ["KNOWS_AIOSQLITE", "STOP", "knows_aiosqlite", "queue_job", "thread_of", "warn_of_generic_adapter"]

# What the last job of a worker thread returns to aiosqlite's loop.
STOP: Final[Any] = getattr(aiosqlite.core, "_STOP_RUNNING_SENTINEL", None)

# Seconds for an empty thread to end; it needs a thousandth of that.
_PATIENCE: Final = 5.0

_ATTRIBUTES: Final = ("_execute", "_tx", "_running", "_connection", "_connector", "_iter_chunk_size")

# Methods whose SQL is known by the names of what they run, and the parameters of a statement that shows it.
_METHODS: Final[tuple[tuple[str, tuple[Any, ...]], ...]] = (
    ("execute", ("SELECT 1",)),
    ("execute_insert", ("INSERT INTO t VALUES (?)", (1,))),
    ("execute_fetchall", ("SELECT 1",)),
    ("executemany", ("INSERT INTO t VALUES (?)", [(1,)])),
    ("executescript", ("SELECT 1",)),
    ("commit", ()),
    ("rollback", ()),
)


def thread_of(connection: Any) -> threading.Thread:
    """Return the worker thread of an aiosqlite connection, started or not."""
    thread: threading.Thread = connection if isinstance(connection, threading.Thread) else connection._thread
    return thread


def queue_job(connection: Any, job: Callable[[], object]) -> None:
    """Let the thread of an aiosqlite connection run a job, which ends the thread if it returns `STOP`."""
    queue: Any = connection._tx
    queue.put_nowait((_Reply(queue if isinstance(connection, threading.Thread) else None), job))


class _Reply:
    """Stands where aiosqlite expects a future, and for the loop of that: no event loop is to hear of the result."""

    __slots__ = ("_queue",)

    def __init__(self, queue: Any) -> None:
        """`queue` is where the thread looks for the marker; `None` for one that ends without it."""
        self._queue = queue

    def get_loop(self) -> _Reply:
        """Return what receives the result."""
        return self

    def call_soon_threadsafe(self, callback: object, future: object, outcome: object) -> None:
        """Pass the marker on to a thread that looks for it in its queue."""
        if outcome is STOP and self._queue is not None:
            self._queue.put_nowait(STOP)


# -- whether they are there


def knows_aiosqlite() -> bool:
    """Whether the installed aiosqlite has the internals that the adapter uses, and behaves as it expects."""
    try:
        return STOP is not None and _has_attributes() and _thread_ends() and _calls_pass_execute()
    except Exception:  # any other aiosqlite
        return False


def _has_attributes() -> bool:
    probe = aiosqlite.connect(":memory:")
    return (
        isinstance(getattr(aiosqlite.Connection, "_conn", None), property)
        and all(hasattr(probe, name) for name in _ATTRIBUTES)
        and thread_of(probe).ident is None
    )


def _thread_ends() -> bool:
    """Whether a thread runs its jobs in order, and ends at one that returns the marker."""
    probe, ran = aiosqlite.connect(":memory:"), list[object]()

    def job(returned: object) -> object:
        ran.append(returned)
        return returned

    thread = thread_of(probe)
    thread.daemon = True
    for returned in (None, STOP):
        queue_job(probe, partial(job, returned))
    thread.start()
    thread.join(_PATIENCE)
    return ran == [None, STOP] and not thread.is_alive()


def _calls_pass_execute() -> bool:
    """Whether all methods pass `_execute`, with functions of the names by which statements are known."""
    with closing(sqlite3.connect(":memory:")) as native:
        native.execute("CREATE TABLE t (v)")

        class Probe(aiosqlite.Connection):
            _conn: Any = property(lambda self: native)

            async def _execute(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
                passed.append(fn.__name__)
                return fn(*args, **kwargs)

        passed = list[str]()
        probe: Any = Probe(lambda: native, 64)
        for name, parameters in _METHODS:
            _result_of(getattr(probe, name)(*parameters))
        cursor = _result_of(probe.execute("SELECT 1 UNION SELECT 2"))
        row = _result_of(cursor.fetchone())
        own = [f"_{name}" if name in ("execute_insert", "execute_fetchall") else name for name, _ in _METHODS]
        return row == (1,) and isinstance(cursor._cursor, sqlite3.Cursor) and passed == [*own, "execute", "fetchone"]


def _result_of(coroutine: Any) -> Any:
    """Return what a coroutine that waits for nothing returns."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise RuntimeError("it waits")


KNOWS_AIOSQLITE: Final = knows_aiosqlite()


@cache
def warn_of_generic_adapter() -> None:
    """Warn, once, that this aiosqlite gets the generic adapter, and say what is lost."""
    version = getattr(aiosqlite, "__version__", "(of an unknown version)")
    warnings.warn(
        f"aiosqlitepool does not know the internals of aiosqlite {version}, so pools use it as they use any other "
        "driver: every release rolls back in a trip of its own, use after release is not noticed, statements are not "
        "measured, and a cancelled statement is not interrupted. Install a newer aiosqlitepool, or an older aiosqlite",
        RuntimeWarning,
        stacklevel=2,
    )
