"""The total run times of statements by summary, read from tables that forget. Knows no pool."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from aiosqlitepool import StatementStats

__all__ = ["StatementTimes"]

# Summaries whose totals are kept while a pool is open, also if they are not shown. A table has at most 500 statements.
_MOST = 1_000


class StatementTimes:
    """Seconds by summary, of the pools of one name; the `most` longest totals are shown.

    A total never falls while it is shown, also if its pool's table forgets a statement. What a table forgets between
    two readings is not counted. One thread at a time reads tables.
    """

    __slots__ = ("_most", "_seen", "_totals")

    def __init__(self, most: int) -> None:
        self._most = most
        # By statement and when the table met it: its run time at the last reading.
        self._seen: dict[tuple[str, float], float] = {}
        self._totals: dict[str, float] = {}

    def read(self, table: Iterable[StatementStats]) -> None:
        """Add what has run since the last reading."""
        seen, totals = {}, self._totals.copy()
        for row in table:
            seen[key := (row.statement, row.first_seen)] = row.run_total
            more = row.run_total - self._seen.get(key, 0.0)
            totals[row.summary] = totals.get(row.summary, 0.0) + max(0.0, more)
        self._seen, self._totals = seen, totals
        self._keep(_MOST)

    def end(self) -> None:
        """Keep no more than what is shown: the pool has closed, and its table is read no more."""
        self._seen = {}
        self._keep(self._most)

    def move_to(self, target: StatementTimes) -> None:
        """Add all totals to those of another pool, and keep none."""
        for summary, seconds in self._totals.items():
            target._totals[summary] = target._totals.get(summary, 0.0) + seconds
        self._totals = {}
        target._keep(_MOST)

    def _keep(self, most: int) -> None:
        if len(self._totals) > most:
            self._totals = dict(self._longest(most))

    def shown(self) -> list[tuple[str, float]]:
        """Return the summaries with the longest totals. Safe in any thread."""
        return self._longest(self._most)

    def _longest(self, most: int) -> list[tuple[str, float]]:
        return heapq.nlargest(most, self._totals.items(), key=lambda item: item[1])
