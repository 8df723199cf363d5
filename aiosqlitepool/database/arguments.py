"""Check what is passed to the methods of a `SQLiteDatabase`: functions, what they return, labels and timeouts."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import NoneType
from typing import Any, TypeVar, TypeVarTuple, cast

from ..pool.settings import check_label, check_timeout
from .guard import ReaderConnection

__all__ = ["bound", "checked_timeout", "label_of"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

# The types that functions usually return. They need no further check, which saves time on each call.
_VALUES = frozenset({NoneType, bool, int, float, str, bytes, list, tuple, dict, sqlite3.Row})


def bound(fn: Callable[[sqlite3.Connection, *Ts], R], args: tuple[*Ts]) -> Callable[[sqlite3.Connection], R]:
    """Return a function of the connection alone, which calls `fn(connection, *args)`.

    Raises `TypeError` if `fn` is not callable. The returned function raises `TypeError` if `fn` returns an iterator or
    an awaitable, such as a cursor, a generator or a coroutine: they would use the connection after the transaction.
    """
    if not callable(fn):
        raise TypeError(f"fn must be callable, not {fn!r} ({type(fn).__name__})")

    def run(native: sqlite3.Connection) -> R:
        lent = cast(ReaderConnection, native)
        lent.runs_function = True
        try:
            result = fn(native, *args)
        finally:
            lent.runs_function = False
        if type(result) not in _VALUES and isinstance(result, Iterator | AsyncIterator | Awaitable):
            kind = type(result).__name__
            getattr(result, "close", lambda: None)()
            del result
            raise TypeError(
                f"fn must be a plain function that returns a value, such as a list of rows; {fn!r} returned a {kind}, "
                "which would use the connection after its transaction"
            )
        return result

    return run


def label_of(fn: Callable[..., Any], label: str | None) -> str | None:
    """Return the label if there is one, else the function's `__name__`, else `None`."""
    return check_label(getattr(fn, "__name__", None) if label is None else label)


def checked_timeout(timeout: float | None) -> float | None:
    """Return the timeout of a call as float seconds, `None` for the default."""
    return None if timeout is None else check_timeout("timeout", timeout)
