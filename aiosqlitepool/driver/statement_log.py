"""Which statements ran, how often and for how long: measured by `connection_log`, read from any thread."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import threading
import time
from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from math import ceil, exp2, log2
from typing import Any, Final, cast

from ..events import (
    DatabaseFailed,
    ErrorInfo,
    StatementExecuted,
    StatementKind,
    StatementPlace,
    StatementSlow,
    StatementTimings,
)
from ..sql import LONGEST_READ, normalized, operation_of, summary_of
from ..stats import StatementStats, StatementTable
from .plans import query_plan

__all__ = ["MOST_STATEMENTS", "Figures", "StatementLog"]

MOST_STATEMENTS: Final = 500
_MOST_LABELS: Final = 8
# Where a statement runs that is one, and not the beginning of one or rows of one.
_CALLS: Final = frozenset({"thread", "inline"})
# Records that a worker thread leaves to the next one, or to a reader, before it counts them itself.
_BATCH: Final = 256
# Seconds for which a query plan is not asked for again. Short: a statement that was slow by chance has a good plan, and
# would hide for so long that its index is lost. Asking takes 25 µs.
_PLAN_AGE: Final = 1.0


class _Times:
    """Durations of one kind: their sum, their maximum, and how many fell into buckets that grow by a fifth."""

    __slots__ = ("buckets", "count", "maximum", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = self.maximum = 0.0
        self.buckets: Counter[int] = Counter()

    def add(self, many: Sequence[float]) -> None:
        # This runs for every statement of a program: to sort takes a tenth of computing a bucket for each duration.
        many = sorted(many)
        self.count += len(many)
        self.total += sum(many)
        self.maximum = max(self.maximum, many[-1])
        low = 0
        while low < len(many):
            bucket = ceil(4 * log2(max(1e9 * many[low], 1.0)))  # four of them double a duration
            high = max(low + 1, bisect_right(many, _end_of(bucket), low))
            self.buckets[bucket] += high - low
            low = high

    def p99(self) -> float:
        """Return what 99 % of the durations do not exceed, at most a fifth too long."""
        left = self.count * 0.99
        for bucket in sorted(self.buckets):
            left -= self.buckets[bucket]
            if left <= 0:
                return min(self.maximum, _end_of(bucket))
        return self.maximum


def _end_of(bucket: int) -> float:
    return exp2(bucket / 4) / 1e9


class _Total:
    """Everything about one normalized statement."""

    __slots__ = (
        "changed", "errors", "explained", "fetched", "first", "inline", "labels", "last", "operation", "plan",
        "retried", "rows", "run", "summary", "wait",
    )  # fmt: skip

    def __init__(self, statement: str, now: float) -> None:
        self.operation, self.summary = operation_of(statement), summary_of(statement)
        # The newest query plan, and when it was asked for.
        self.plan: tuple[str, ...] = ()
        self.explained = -math.inf
        self.errors = self.rows = self.changed = self.inline = self.retried = 0
        self.first = self.last = now
        # Seconds of fetching more rows, and of attempts in the loop that were too long.
        self.fetched = 0.0
        self.labels: dict[str, None] = {}
        self.run, self.wait = _Times(), _Times()

    def row(self, statement: str) -> StatementStats:
        """Return the frozen form."""
        run, wait = self.run, self.wait
        return StatementStats(
            statement, self.operation, run.count, self.errors, self.rows, self.changed,
            run.total + self.fetched, run.total / max(1, run.count), run.maximum, run.p99(),
            wait.total, wait.total / max(1, run.count), wait.maximum, wait.p99(),
            self.first, self.last, tuple(self.labels), self.plan, self.inline, self.retried,
        )  # fmt: skip


# What is known of one operation: where it ran, `None` if it only fetched rows of one that had run; its label, the
# seconds that it waited and ran, rows read and changed, and the name of the exception that it raised, or "cancelled".
Figures = tuple[StatementPlace | None, str | None, float, float, int, int, str | None]


class StatementLog:
    """The statements of one pool: at most 500, of which the least used are forgotten first. Thread safe.

    Emits `StatementSlow` and `StatementExecuted` in the loop, by `emit`, and passes times on to `deliver`, each only
    while `handlers` has a subscriber of theirs.
    """

    def __init__(
        self,
        pool: str = "",
        slow_after: float = math.inf,
        handlers: Mapping[type, Any] | None = None,
        emit: Callable[[Any], None] | None = None,
        deliver: Callable[[Mapping[StatementKind, Sequence[float]]], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._pool = pool
        self._slow_after = slow_after
        self._handlers: Mapping[type, Any] = {} if handlers is None else handlers
        self._emit = emit
        self._deliver = deliver
        # That of the pool, once it has opened a connection.
        self.loop: asyncio.AbstractEventLoop | None = None
        self._records: deque[tuple[str, Figures]] = deque()
        self._lock = threading.Lock()
        self._totals: dict[str, _Total] = {}
        self._times: defaultdict[StatementKind, list[float]] = defaultdict(list)
        self._forgotten = 0

    # -- in a worker thread

    def record(self, sql: object, figures: Figures, number: int, native: sqlite3.Connection, context: Context) -> None:
        """Record that a statement ran on this connection. Costs one append, each 256th time the counting of all."""
        if type(sql) is not str:
            if not issubclass(type(sql), str):  # an error of the program, which SQLite has refused
                return
            sql = str.__str__(cast(str, sql))  # without methods of the program's own
        self._records.append((sql[:LONGEST_READ], figures))
        if figures[3] >= self._slow_after or StatementExecuted in self._handlers:
            self._report(sql, figures, number, native, context)
        if len(self._records) >= _BATCH and self._lock.acquire(blocking=False):
            self._count_and_release()

    def _report(self, sql: str, figures: Figures, number: int, native: sqlite3.Connection, context: Context) -> None:
        place, label, waited, ran, rows, changed, error = figures
        now, statement = self._clock(), normalized(sql)
        fields = (
            self._pool, number, statement, operation_of(statement), summary_of(statement),
            waited, ran, now, rows, changed, error, label,
        )  # fmt: skip
        if ran >= self._slow_after:
            plan = self._plan(native, sql, statement, now)
            if StatementSlow in self._handlers:
                self._emit_soon(StatementSlow(*fields, plan), context)
        if place in _CALLS and StatementExecuted in self._handlers:
            self._emit_soon(StatementExecuted(*fields, ran >= self._slow_after), context)

    def _plan(self, native: sqlite3.Connection, sql: str, statement: str, now: float) -> tuple[str, ...]:
        with self._lock:
            total = self._total(statement, now)
            if abs(now - total.explained) < _PLAN_AGE:
                return total.plan
        total.plan = query_plan(native, sql, statement) or total.plan
        total.explained = now  # not before: another thread would take the missing plan for this one's
        return total.plan

    def failed(self, error: sqlite3.Error, label: str | None, statement: object, context: Context) -> None:
        """Emit `DatabaseFailed` if this error of an operation means that the database failed."""
        if DatabaseFailed in self._handlers and (info := ErrorInfo.of(error)).database_code is not None:
            sql = normalized(statement) if type(statement) is str else None
            self._emit_soon(DatabaseFailed(self._pool, info, label, sql), context)

    def _emit_soon(self, event: StatementSlow | StatementExecuted | DatabaseFailed, context: Context) -> None:
        if self.loop is not None and self._emit is not None:
            with contextlib.suppress(RuntimeError):  # a closed loop
                self.loop.call_soon_threadsafe(self._emit, event, context=context)

    # -- in any thread

    def flush(self) -> None:
        """Count what was recorded, and pass the times on."""
        self._lock.acquire()
        self._count_and_release()

    def forked(self) -> None:
        """Replace the lock in a forked child, where the thread that held it does not exist, and forget the records."""
        self._lock = threading.Lock()
        self._records.clear()
        self._times.clear()

    def table(self) -> StatementTable:
        """Return one row for each statement, the one with the longest total run time first."""
        self.flush()
        with self._lock:
            rows = [total.row(statement) for statement, total in self._totals.items()]
            forgotten = self._forgotten
        return StatementTable(sorted(rows, key=lambda row: -row.run_total), forgotten)

    def reset(self) -> None:
        """Forget all of them. Their times are passed on first."""
        self.flush()
        with self._lock:
            self._totals.clear()
            self._forgotten = 0

    def _count_and_release(self) -> None:
        try:
            self._count()
            times, self._times = self._times, defaultdict(list)
        finally:
            self._lock.release()
        if times and self._deliver is not None:  # without the lock: a handler may read the table
            self._deliver(times)

    def _count(self) -> None:
        records, now = self._records, self._clock()
        groups: defaultdict[tuple[str, StatementPlace | None, str | None], list[Figures]] = defaultdict(list)
        while records:
            sql, figures = records.popleft()
            groups[sql, figures[0], figures[6]].append(figures)
        for (sql, *_), group in groups.items():
            self._add(self._total(normalized(sql), now), group, now)

    def _add(self, total: _Total, group: list[Figures], now: float) -> None:
        """Add operations with the same place and error."""
        place, _, _, _, _, _, error = group[0]
        _, labels, waits, runs, rows, changed, _ = zip(*group, strict=True)
        if place in _CALLS:
            total.run.add(runs)
            total.wait.add(waits)
        else:
            total.fetched += sum(runs)
        total.inline += len(group) if place == "inline" else 0
        total.retried += len(group) if place == "retried" else 0
        if place is not None and StatementTimings in self._handlers:
            self._times[StatementKind(total.operation, total.summary, error, place)] += runs
        total.rows += sum(rows)
        total.changed += sum(changed)
        total.errors += 0 if error is None else len(group)
        total.last = now
        for label in dict.fromkeys(labels):
            if label is not None and len(total.labels) < _MOST_LABELS:
                total.labels[label] = None

    def _total(self, statement: str, now: float) -> _Total:
        total = self._totals.get(statement)
        if total is None:
            if len(self._totals) >= MOST_STATEMENTS:
                self._forget_least_used()
            total = self._totals[statement] = _Total(statement, now)
        return total

    def _forget_least_used(self) -> None:
        # A tenth at a time: to look for one among 500 for each new statement would take longer than the statements.
        least = sorted(self._totals, key=lambda each: (self._totals[each].run.count, self._totals[each].last))
        for statement in least[: MOST_STATEMENTS // 10]:
            del self._totals[statement]
            self._forgotten += 1
