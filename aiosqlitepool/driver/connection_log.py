"""Measures what runs on one connection, for its pool's statement log and for what is known of the holder."""

from __future__ import annotations

import sqlite3
from contextvars import Context
from time import perf_counter
from typing import Any

from ..timings import StatementPlace
from .cursors import ReadAheadCursor
from .protocol import Lessee
from .sqlite import is_busy
from .statement_log import Figures, StatementLog

__all__ = ["ConnectionLog"]


class ConnectionLog:
    """The entries of one connection. Used where the connection is used: in its worker thread, or in the loop meanwhile.

    With `is_retried`, functions that find the database locked are called again: that is no failure yet.
    """

    def __init__(self, native: sqlite3.Connection, log: StatementLog, *, is_retried: bool) -> None:
        self._native = native
        self._log = log
        self._is_retried = is_retried
        # SQLite's count of changed rows after the newest operation.
        self._changes = 0

    def record(
        self, lease: Lessee, context: Context, statement: Any, place: StatementPlace | None, source: Any,
        failure: str | None, sent: float, began: float,
    ) -> None:  # fmt: skip
        """Record what ran until now. `source` has the rows that it read: a list, or a cursor that reads ahead.

        A function, which is no statement, is not recorded: what it has changed is no change of the next statement.
        """
        if statement is None:
            self._changes = self._native.total_changes
            return
        ended = perf_counter()
        lease.activity = statement, began, ended
        kind, native = type(source), self._native
        rows = len(source) if kind is list else source.fresh if kind is ReadAheadCursor else 0
        changes = native.total_changes
        changed, self._changes = changes - self._changes, changes
        figures: Figures = (place, lease.label, began - sent, ended - began, rows, changed, failure)
        self._log.record(statement, figures, lease.connection, native, context)

    def failed(self, error: BaseException, lease: Lessee, context: Context, statement: object) -> None:
        """Report an error, if it means that the database failed."""
        if isinstance(error, sqlite3.Error) and not (statement is None and self._is_retried and is_busy(error)):
            self._log.failed(error, lease.label, statement, context)
