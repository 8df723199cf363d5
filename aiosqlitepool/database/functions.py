"""Functions of the user's own that run in a worker thread: what they may be, and what may come back from there."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import NoneType
from typing import Any, TypeVar, TypeVarTuple

from ..pool.settings import check_label

__all__ = ["bound", "label_of"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

# What functions usually return: known at once not to be what goes on after its transaction.
_VALUES = frozenset({NoneType, bool, int, float, str, bytes, list, tuple, dict, sqlite3.Row})


def bound(fn: Callable[[sqlite3.Connection, *Ts], R], args: tuple[*Ts]) -> Callable[[sqlite3.Connection], R]:
    """The function with its arguments; raises `TypeError` if it is none, or if what it returns cannot leave."""
    if not callable(fn):
        raise TypeError(f"fn must be callable, not {fn!r} ({type(fn).__name__})")

    def run(native: sqlite3.Connection) -> R:
        result = fn(native, *args)
        if type(result) not in _VALUES and isinstance(result, Iterator | AsyncIterator | Awaitable):
            kind = type(result).__name__
            getattr(result, "close", lambda: None)()
            del result
            raise TypeError(
                f"fn must be a plain function that returns rows, or another value; {fn!r} returned a {kind}, which "
                "would go on after its transaction"
            )
        return result

    return run


def label_of(fn: Callable[..., Any], label: str | None) -> str | None:
    """What a function goes by: its label, or else its own name."""
    return getattr(fn, "__name__", None) if check_label(label) is None else label
