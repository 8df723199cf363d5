"""Panels about the SQL that connections run. Both boards have them; what a subscriber must be asked for says so."""

from __future__ import annotations

from aiosqlitepool.subscribers._metrics import OPERATION_DURATION, SLOW_STATEMENTS, STATEMENT_TIME, USE_TIME

from .frame import Row
from .panels import Panel, lines, now, over_time, ranking
from .queries import LABEL, OPERATION, PLAN_WARNING, SUMMARY, busy, in_range, per_minute, quantile, worst

__all__ = ["row"]

# Bars, and curves: at each moment so many, so that there are more of them over time.
_BARS, _CURVES = 8, 5


def row() -> Row:
    """All of them, beside each other."""
    return Row("What runs?", 9, [_by_time(), _by_operation(), _slow(), _by_label()], widths=(7, 5, 6, 6))


def _by_time() -> Panel:
    """Which statements take the most time."""
    return ranking(
        "Time by statement",
        "What do connections run?",
        "The time that each took in the range, all its runs together: operation and first table. What stands far above "
        "the rest is worth an index, a smaller result or a cache, even if no single run is slow. The debug page has "
        "the whole statement. Empty: give PrometheusSubscriber statement_summaries=20.",
        "s",
        now(worst(_BARS, in_range(STATEMENT_TIME, SUMMARY)), f"{{{{{SUMMARY}}}}}"),
    ).no_value("Needs statement_summaries=20 of the subscriber")


def _by_operation() -> Panel:
    """How long statements take."""
    return lines(
        "P99 by operation",
        "Do statements become slow?",
        "Of the time in SQLite, without any wait. One operation up: a statement of that kind, see Slow statements. All "
        "up: the disk or the processor. COMMIT up: the disk is slow to sync. BEGIN up: another process writes.",
        "s",
        over_time(worst(_CURVES, quantile(0.99, OPERATION_DURATION, OPERATION)), f"{{{{{OPERATION}}}}}"),
        warn=0.1,
        bad=1.0,
    )


def _slow() -> Panel:
    """Which statements were slow, and what their query plans warn of."""
    return lines(
        "Slow statements",
        "Which statements are slow, and why?",
        "Those that took the pool's slow_statement (100 ms), with what SQLite's query plan warns of. A full scan: make "
        "the index that its WHERE needs. A temporary B-tree: an index in the order of ORDER BY. The whole plan is in "
        "the span and in the record pool.statement.slow. Alert: AiosqlitepoolSlowStatements.",
        "cpm",
        over_time(
            worst(_CURVES, per_minute(SLOW_STATEMENTS, SUMMARY, PLAN_WARNING)),
            f"{{{{{SUMMARY}}}}} {{{{{PLAN_WARNING}}}}}",
        ),
        warn=2,
        bad=30,
        empty="No statement was slow",
    )


def _by_label() -> Panel:
    """For whom connections are out."""
    return lines(
        "Connections out by label",
        "Who keeps connections?",
        "By Little's law, how many are out on average for each label. What rises when callers begin to queue is what "
        "they queue for: shorten it, or give it a pool of its own. Acquires without a label are not shown. Empty: give "
        "labels, and the subscriber by_label=True.",
        "short",
        over_time(worst(_CURVES, busy(USE_TIME, LABEL, where=f'{LABEL}!=""')), f"{{{{{LABEL}}}}}"),
        stacked=True,
        empty="Needs by_label=True of the subscriber",
    )
