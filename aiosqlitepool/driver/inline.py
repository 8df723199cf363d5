"""Runs short reads in the event loop's own thread: to wake a worker thread costs more than they do.

What is short is decided by counting the steps of SQLite's virtual machine, which a busy machine does not change. A read
beyond its budget is interrupted, which loses nothing, and runs again in its worker thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final, TypeVar

from ..sql import LONGEST_READ, READS, first_word, normalized
from .loop_work import LONGEST, Kind, LoopWork
from .machine import Machine
from .sqlite import is_busy

__all__ = ["InlineReads", "Reading", "Unfinished", "is_one_statement"]

R = TypeVar("R")

# What one read may cost: steps of the virtual machine, between two calls of the handler and in all.
_STEPS: Final = 1_000
_MOST_CALLS: Final = 10
_MOST_KINDS: Final = 500

_set_handler = sqlite3.Connection.set_progress_handler


class Unfinished(Exception):  # noqa: N818 - a signal
    """The read was too long: run it in the worker thread."""


class Reading:
    """What a read that needs no lease is recorded under: it has ended before anybody can see that it holds a slot."""

    __slots__ = ("activity", "connection", "label")

    def __init__(self, label: str | None, connection: int) -> None:
        self.label: str | None = label
        self.connection: int = connection
        self.activity: tuple[object, float, float | None]

    def forgotten(self) -> None:
        """Never called: there is no handle."""

    def refusal(self) -> None:
        """Never called: it is not refused."""


class InlineReads(LoopWork):
    """Which reads of one pool run inline, and what became of them. Used in the event loop only."""

    def __init__(self, is_busy: Callable[[], bool], machine: Machine | None = None) -> None:
        super().__init__(is_busy, machine)
        self._kinds: dict[str, Kind] = {}
        # By normalized SQL, so that a statement with its values written out is no new kind each time.
        self._normalized: dict[str, Kind] = {}
        self._calls = 0
        self._until = 0.0

    def kind(self, sql: str) -> Kind:
        """Return the kind of this statement; one that is no read is never allowed."""
        return self._kinds.get(sql) or self._new(sql)

    def _new(self, sql: str) -> Kind:
        for kinds in (self._kinds, self._normalized):
            if len(kinds) >= _MOST_KINDS:
                kinds.clear()
        is_read = first_word(sql) in READS and "pragma" not in sql.lower()
        kind = self._normalized.setdefault(normalized(sql), Kind(0 if is_read else float("inf")))
        if len(sql) <= LONGEST_READ:
            self._kinds[sql] = kind
        return kind

    def read(self, kind: Kind, native: sqlite3.Connection, read: Callable[[], R]) -> R:
        """Return `read()`, which reads with `native`; raises `Unfinished` if that is too much for the loop."""
        began, is_unfinished = self._begin(), False
        self._calls, self._until = 0, began + LONGEST
        try:
            # Only for this read: it would also interrupt what is no read, such as a health check in the worker.
            _set_handler(native, self._is_too_long, _STEPS)
            return read()
        except sqlite3.Error as error:
            is_unfinished = self._calls > _MOST_CALLS or _must_wait(error)
            if is_unfinished:
                raise Unfinished from None
            raise
        finally:
            _set_handler(native, None, 0)
            took = self._ended(began)
            if is_unfinished:
                kind.send_away()
            else:
                self._judge(kind, took)

    def _is_too_long(self) -> bool:
        self._calls += 1
        if self._clock() > self._until:
            self._calls = _MOST_CALLS + 1
        return self._calls > _MOST_CALLS


def _must_wait(error: sqlite3.Error) -> bool:
    return is_busy(error) or getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_LOCKED


def is_one_statement(fn: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Return whether an operation executes one statement, its first argument, once."""
    return getattr(fn, "__name__", None) in ("execute", "_execute_fetchall") and bool(args) and type(args[0]) is str
