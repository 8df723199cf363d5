"""The worker thread behind an aiosqlite connection: that it is as expected, and that it ends when it should.

Knows aiosqlite's insides, as `aiosqlite_link` does, and nothing of leases.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any, Final

import aiosqlite
import aiosqlite.core

from .generic_adapter import GenericAdapter

__all__ = [
    "INTERRUPT_INTERVAL",
    "INTERRUPT_PATIENCE",
    "KNOWS_AIOSQLITE",
    "OverriddenAdapter",
    "close_and_stop",
    "harry",
    "interrupt",
    "is_adopted",
    "is_overridden",
    "knows_aiosqlite",
    "liveness",
    "prepare_to_await",
    "running_threads",
    "see_off",
    "stop",
]

# A statement told to stop stops within a millisecond. One that has not by then sits where SQLite cannot hear the
# interrupt (waiting for another process's lock, or inside a Python function): replacing the connection is cheaper.
INTERRUPT_INTERVAL: Final = 0.001
INTERRUPT_PATIENCE: Final = 0.005

# Seconds that a program which ends gives to Python code in a worker before it raises SystemExit in there.
EXIT_PATIENCE: Final = 0.2


def knows_aiosqlite() -> bool:
    """Whether the installed aiosqlite has the insides that the pool relies on."""
    probe = aiosqlite.connect(":memory:")
    return (
        hasattr(aiosqlite.core, "_STOP_RUNNING_SENTINEL")
        and all(hasattr(probe, name) for name in ("_execute", "_tx", "_thread", "_running", "_connection"))
        and not probe._thread.is_alive()
    )


KNOWS_AIOSQLITE: Final = knows_aiosqlite()


def is_adopted(raw: object) -> bool:
    """Whether a pool watches this connection already: its methods are shadowed on the instance."""
    return isinstance(raw, aiosqlite.Connection) and "_execute" in vars(raw)


def liveness(thread: threading.Thread) -> Callable[[], bool]:
    """The cheapest way to ask whether a thread still runs: asked with every operation, lest a caller hang on it."""
    lock = getattr(thread, "_tstate_lock", None)  # until Python 3.12, where is_alive() takes ten times as long
    return thread.is_alive if lock is None else lock.locked


def close_and_stop(
    raw: aiosqlite.Connection, native: sqlite3.Connection, then: Callable[[BaseException | None], None] | None = None
) -> None:
    """Let the worker close the connection, call `then(error)` and end, without waiting for it.

    Harmless when it stopped already: nobody reads that queue any more.
    """
    raw._running = False
    raw._connection = None

    def job() -> object:
        error: BaseException | None = None
        try:
            native.close()
        except BaseException as raised:  # the thread must end all the same
            error = raised
        if then is not None:
            then(error)
        return aiosqlite.core._STOP_RUNNING_SENTINEL

    raw._tx.put_nowait((None, job))


# -- when nobody waits for it any more


def harry(thread: threading.Thread, native: sqlite3.Connection) -> None:
    """Interrupt what the worker runs until its thread ends, without waiting for that: it would hold up the program.

    Between two statements of one job an interrupt goes unheard, so that one may not be enough.
    """
    if thread.is_alive():
        harrier = threading.Thread(target=_harry, args=(thread, native), name="aiosqlitepool-exit", daemon=True)
        try:
            harrier.start()
        except RuntimeError:  # pragma: no cover - Python 3.12 starts no thread any more once the program ends
            _harry(thread, native, EXIT_PATIENCE)
            _raise_in(thread)


def _harry(thread: threading.Thread, native: sqlite3.Connection, at_most: float = math.inf) -> None:
    waited, pause = 0.0, INTERRUPT_INTERVAL
    while thread.is_alive() and waited < at_most:
        interrupt(native)
        if waited > EXIT_PATIENCE and not threading.main_thread().is_alive():
            _raise_in(thread)
        time.sleep(pause)
        waited, pause = waited + pause, min(2 * pause, 0.05)


def _raise_in(thread: threading.Thread) -> None:
    """End Python code of the user's, as a generator for executemany(), which hears no interrupt."""
    import ctypes  # only here: hardly a program needs it

    if thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))


def interrupt(native: sqlite3.Connection) -> None:
    """Interrupt the statement that runs."""
    with contextlib.suppress(sqlite3.ProgrammingError):  # closed a moment ago
        native.interrupt()


# -- classes of the user's own


def is_overridden(raw: aiosqlite.Connection) -> bool:
    """Whether its class overrides what the watchful link would go around."""
    return any(
        getattr(type(raw), name, None) is not getattr(aiosqlite.Connection, name, None)
        for name in ("_execute", "rollback", "close", "stop")
    )


class OverriddenAdapter(GenericAdapter):
    """A connection whose class overrides what the watchful link would go around: rolled back and closed as it likes."""

    __slots__ = ("_connection",)

    def __init__(self, raw: aiosqlite.Connection) -> None:
        super().__init__(raw)
        self._connection = raw

    def abandon(self) -> None:
        """As any other; but where no loop runs to close it in, its thread must not hold up the program."""
        native = self._connection._connection
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if native is not None:
                close_and_stop(self._connection, native)
                harry(self._connection._thread, native)
        else:
            super().abandon()


# -- around the opening of a connection


def prepare_to_await(made: object) -> None:
    """Let a worker thread not outlive its program, nor complain of outliving its loop; only before it is awaited."""
    if KNOWS_AIOSQLITE and isinstance(made, aiosqlite.Connection) and not made._thread.is_alive():
        thread: Any = made._thread
        thread.daemon = True
        thread.run = partial(_run_to_the_end, thread)


def _run_to_the_end(thread: threading.Thread) -> None:
    vars(thread).pop("run")  # or the two would keep each other alive
    # All that it raises is that a loop was closed: the pool gave up on a file that took too long to open, and ended.
    with contextlib.suppress(RuntimeError):
        thread.run()


def running_threads() -> frozenset[threading.Thread]:
    """What runs before a factory is awaited, for `see_off`."""
    return frozenset(threading.enumerate())


async def see_off(made: object, error: BaseException, before: frozenset[threading.Thread]) -> None:
    """Stop what a factory that failed had opened, and wait a moment for the worker threads, lest they outlive the loop.

    `before` are the threads that ran when it was awaited.
    """
    leaving = list(_stop_leftovers(error, before)) if KNOWS_AIOSQLITE else []
    if KNOWS_AIOSQLITE and isinstance(made, aiosqlite.Connection):
        leaving.append(made._thread)
    await _ended(leaving)


async def stop(raw: aiosqlite.Connection) -> None:
    """Stop a connection behind what it runs, and wait a moment for its worker thread, lest it outlive the loop."""
    raw.stop()
    await _ended([raw._thread])


async def _ended(threads: list[threading.Thread]) -> None:
    for _ in range(100):
        if not any(thread.is_alive() for thread in threads):
            break
        await asyncio.sleep(INTERRUPT_INTERVAL)


def _stop_leftovers(error: BaseException, before: frozenset[threading.Thread]) -> Iterator[threading.Thread]:
    """Stop the connections that nobody but a failed factory can have: its caller gets the error and no connection."""
    for frame in _frames(error):
        for raw in _opened_in(frame):
            native = raw._connection
            if native is not None and raw._running and raw._thread not in before and not is_adopted(raw):
                interrupt(native)
                close_and_stop(raw, native)
                yield raw._thread


def _frames(error: BaseException) -> Iterator[FrameType]:
    """The frames that the error has left, and those of the errors that led to it, but not the one it was caught in."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        trace = each.__traceback__
        if each is error and trace is not None:
            trace = trace.tb_next
        while trace is not None:
            yield trace.tb_frame
            trace = trace.tb_next
        each = each.__cause__ or each.__context__


def _opened_in(frame: FrameType) -> list[aiosqlite.Connection]:
    """The connections in a frame's own variables, without those that are kept where they outlive it.

    Kept is what is a variable of the module or of an enclosing function, or an attribute of an argument, as `self` is.
    """
    code, variables = frame.f_code, frame.f_locals
    if frame.f_globals.get("__name__", "").startswith("aiosqlite."):
        return []  # whatever it works on, it belongs to its caller
    own = [variables[name] for name in (*code.co_varnames, *code.co_cellvars) if name in variables]
    given = own[: code.co_argcount + code.co_kwonlyargcount]
    kept = set(map(id, frame.f_globals.values()))
    for value in given:
        kept.update(map(id, _attributes(value)))
    return [value for value in own if issubclass(type(value), aiosqlite.Connection) and id(value) not in kept]


def _attributes(value: Any) -> list[Any]:
    # Not hasattr() and vars(): they would call a property of the user's, which may do anything.
    try:
        return list(object.__getattribute__(value, "__dict__").values())
    except Exception:
        return []
