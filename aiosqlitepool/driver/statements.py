"""Which statements ran, how often and for how long. Measured in worker threads, read from any thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from math import exp2, log2
from typing import Final, cast

from ..sql import LONGEST_READ, normalized, operation_of
from ..stats import StatementStats, StatementTable

__all__ = ["MOST_STATEMENTS", "StatementLog"]

MOST_STATEMENTS: Final = 500
_MOST_LABELS: Final = 8
# Records that a worker thread leaves to the next one, or to a reader, before it counts them itself.
_BATCH: Final = 256


class _Times:
    """Durations of one kind: their sum, their maximum, and how many fell into buckets that grow by a fifth."""

    __slots__ = ("buckets", "count", "maximum", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = self.maximum = 0.0
        self.buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        self.count += 1
        self.total += seconds
        if seconds > self.maximum:
            self.maximum = seconds
        bucket = int(log2(seconds * 1e9 + 1.0) * 4)
        try:
            self.buckets[bucket] += 1
        except KeyError:
            self.buckets[bucket] = 1

    def p99(self) -> float:
        """Return what 99 % of the durations do not exceed, at most a fifth too long."""
        left = self.count * 0.99
        for bucket in sorted(self.buckets):
            left -= self.buckets[bucket]
            if left <= 0:
                return min(self.maximum, (exp2((bucket + 1) / 4) - 1.0) / 1e9)
        return self.maximum


class _Total:
    """Everything about one normalized statement."""

    __slots__ = ("changed", "errors", "first", "labels", "last", "rows", "run", "wait")

    def __init__(self, now: float) -> None:
        self.errors = self.rows = self.changed = 0
        self.first = self.last = now
        self.labels: dict[str, None] = {}
        self.run, self.wait = _Times(), _Times()

    def row(self, statement: str) -> StatementStats:
        """Return the frozen form."""
        run, wait = self.run, self.wait
        return StatementStats(
            statement, operation_of(statement), run.count, self.errors, self.rows, self.changed,
            run.total, run.total / max(1, run.count), run.maximum, run.p99(),
            wait.total, wait.total / max(1, run.count), wait.maximum, wait.p99(),
            self.first, self.last, tuple(self.labels),
        )  # fmt: skip


# What a worker thread knows of one operation: whether it is a call or only fetched rows of one, its label, the seconds
# that it waited and ran, rows read and changed, and whether it failed.
Figures = tuple[bool, str | None, float, float, int, int, bool]


class StatementLog:
    """The statements of one pool: at most 500, of which the least used are forgotten first. Thread safe."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._records: deque[tuple[str, Figures]] = deque()
        self._lock = threading.Lock()
        self._totals: dict[str, _Total] = {}
        self._forgotten = 0

    def add(self, sql: object, figures: Figures) -> None:
        """Record that a statement ran. Costs one append, and every 256th time the counting of them all."""
        if type(sql) is not str:
            if not issubclass(type(sql), str):  # an error of the program, which SQLite has refused
                return
            sql = str.__str__(cast(str, sql))  # without methods of the program's own
        self._records.append((sql[:LONGEST_READ], figures))
        if len(self._records) >= _BATCH and self._lock.acquire(blocking=False):
            try:
                self._count()
            finally:
                self._lock.release()

    def table(self) -> StatementTable:
        """Return one row for each statement, the one with the longest total run time first."""
        with self._lock:
            self._count()
            rows = [total.row(statement) for statement, total in self._totals.items()]
            forgotten = self._forgotten
        return StatementTable(sorted(rows, key=lambda row: -row.run_total), forgotten)

    def reset(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._records.clear()
            self._totals.clear()
            self._forgotten = 0

    def _count(self) -> None:
        records, now = self._records, self._clock()
        while records:
            sql, (is_call, label, waited, ran, rows, changed, failed) = records.popleft()
            total = self._total(normalized(sql), now)
            if is_call:
                total.run.add(ran)
                total.wait.add(waited)
            else:
                total.run.total += ran
            total.rows += rows
            total.changed += changed
            total.errors += failed
            total.last = now
            if label is not None and len(total.labels) < _MOST_LABELS:
                total.labels[label] = None

    def _total(self, statement: str, now: float) -> _Total:
        total = self._totals.get(statement)
        if total is None:
            if len(self._totals) >= MOST_STATEMENTS:
                self._forget_least_used()
            total = self._totals[statement] = _Total(now)
        return total

    def _forget_least_used(self) -> None:
        # A tenth at a time: to look for one among 500 for each new statement would take longer than the statements.
        least = sorted(self._totals, key=lambda each: (self._totals[each].run.count, self._totals[each].last))
        for statement in least[: MOST_STATEMENTS // 10]:
            del self._totals[statement]
            self._forgotten += 1
