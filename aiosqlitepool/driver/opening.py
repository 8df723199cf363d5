"""Opening connections: await what a factory returned, and clean up after a factory that failed."""

from __future__ import annotations

import asyncio
import contextlib
import dis
import inspect
import sqlite3
import traceback
import warnings
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextvars import Context
from functools import partial
from types import FrameType
from typing import Any, Final

import aiosqlite

from ..errors import PoolUsageError
from .completions import Completions, Outcome
from .internals import KNOWS_AIOSQLITE, STOP, queue_job, thread_of
from .worker import Interrupts, close_and_stop, interrupt_until_exit

__all__ = [
    "abandon",
    "attached",
    "connect",
    "discard",
    "discard_locals",
    "is_overridden",
    "opened",
]


# Seconds that a worker thread needs to end, so that it does not outlive a loop that is closed right after.
_THREAD_END: Final = 0.005


# Every connection that a pool has taken over, by identity: a user's class may define __eq__ and __hash__.
attached: weakref.WeakValueDictionary[int, aiosqlite.Connection] = weakref.WeakValueDictionary()


async def connect(factory: Callable[[], Awaitable[Any]]) -> Any:
    """Call a connection factory and return what it made, if that has the methods of a connection.

    Raises what the factory raised, and `TypeError` if it made something else.
    """
    try:
        made = factory()
        if not inspect.isawaitable(made):
            raise TypeError(
                f"connection_factory must return an awaitable, not {made!r} ({type(made).__name__}): return "
                "aiosqlite.connect('app.db'), or write it with `async def`"
            )
        raw = await opened(made)
    except (Exception, asyncio.CancelledError) as error:
        await discard_locals(error)
        raise
    missing = [name for name in ("execute", "rollback", "close") if not callable(getattr(raw, name, None))]
    if missing:
        raise TypeError(
            f"connection_factory made {raw!r}, which has no {' and no '.join(missing)}(): return an open connection, "
            "such as `await aiosqlite.connect('app.db')`"
        )
    if isinstance(raw, sqlite3.Connection):
        raise TypeError(f"connection_factory made {raw!r}, whose methods cannot be awaited; use aiosqlite.connect()")
    return raw


async def opened(made: Awaitable[Any]) -> Any:
    """Await what a factory returned.

    An aiosqlite connection is connected here, in its own worker thread, which is made a daemon first: it must not keep
    a program alive whose file cannot be opened. Given up, the connection closes as soon as it is open.
    """
    if not (KNOWS_AIOSQLITE and isinstance(made, aiosqlite.Connection) and _is_plain(made)):
        return await made
    thread = thread_of(made)
    if thread.ident is not None:
        raise PoolUsageError(
            f"connection_factory returned {made!r}, which was awaited before: let it make a connection in each call, "
            "such as lambda: aiosqlite.connect('app.db')"
        )
    loop = asyncio.get_running_loop()
    future, completions = Outcome[Any](loop=loop), Completions.of(loop)

    def connect() -> aiosqlite.Connection:
        made._connection = made._connector()
        return made

    thread.daemon = True
    # From Python 3.14 a thread may keep a copy of the context in which it is started, for as long as it runs.
    Context().run(thread.start)
    queue_job(made, partial(completions.run_apart, future, connect))
    try:
        return await future
    except BaseException:
        discard(made)
        raise


def discard(made: aiosqlite.Connection) -> None:
    """Close a connection that no pool has taken over, and end its worker thread, without waiting for that."""
    queue_job(made, lambda: _close_and_stop(made))


def _is_plain(made: aiosqlite.Connection) -> bool:
    """Whether it connects as aiosqlite does."""
    own = aiosqlite.Connection
    return all(getattr(type(made), name) is getattr(own, name) for name in ("__await__", "_connect"))


def _close_and_stop(made: aiosqlite.Connection) -> object:
    native, made._connection, made._running = made._connection, None, False
    return STOP if native is None else close_and_stop(native.close)


async def discard_locals(error: BaseException) -> None:
    """Clear the local variables of a factory that failed, so that connections which only it had are closed.

    What the program keeps elsewhere stays open, and so does what its own worker thread still refers to: a connection
    whose last call was `execute_fetchall()`. An aiosqlite connection that is collected stops its worker thread.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        for each in _chain(error):
            for frame, _ in traceback.walk_tb(each.__traceback__):
                if not _is_suspended(frame):
                    with contextlib.suppress(RuntimeError):  # it runs
                        frame.clear()
    if any(issubclass(each.category, ResourceWarning) for each in caught):
        await asyncio.sleep(_THREAD_END)


def _is_suspended(frame: FrameType) -> bool:
    """Whether a coroutine or generator waits in this frame: up to Python 3.12, to clear it would end that one.

    A factory may raise an error that another task, which still runs, has caught and stored.
    """
    code = frame.f_code
    waits = frame.f_lasti >= 0 and code.co_code[frame.f_lasti] == dis.opmap["YIELD_VALUE"]
    return waits and bool(code.co_flags & (inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__


# -- classes of the user's own


def is_overridden(raw: object) -> bool:
    """Whether its class overrides what a handle would go around."""
    return any(
        getattr(type(raw), name, None) is not getattr(aiosqlite.Connection, name, None)
        for name in ("_execute", "_conn", "rollback", "close", "stop", "interrupt")
    )


def abandon(raw: aiosqlite.Connection) -> None:
    """Let such a connection close by itself, in its worker thread. Safe in any thread, and without a running loop."""
    native, raw._connection, raw._running = raw._connection, None, False
    if native is not None:
        interrupts = Interrupts(native)
        queue_job(raw, partial(close_and_stop, interrupts.close_connection))
        interrupt_until_exit(thread_of(raw), interrupts)
